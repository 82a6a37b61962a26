"""The drill `crosstalk`: it holds against the server, and notices servers that mix callers up."""

import itertools
import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection

from labkit.audio.pcm import Float32, decode_s16le, write_wav
from labkit.drills import Dialect, Verdict
from labkit.drills.crosstalk import (
    CallerPlan,
    Crosstalk,
    Fact,
    call_all,
    fact_of,
    judged,
    mismatches,
    offered,
    plan_callers,
    spoken_questions,
    streamed,
)
from labkit.drills.target import Heard, running_target, settings_of
from labkit.errors import ClientError, InstrumentError
from labkit.measure.recordings import Recording, load_manifest
from labkit.server.app import VoiceServer
from labkit.voice.history import Exchange, History, Message
from labkit.voice.pipeline import VoicePipeline
from labkit.voice.scripted import ScriptedAsr, ScriptedLlm, ScriptedTts, scripted_engines
from labkit.voice.turn import Pipeline, Sink, Turn
from tests.client.peers import silent, websocket
from tests.paths import SPEECH

SESSIONS = 8
QUESTION = 0.9
LEVEL = 0.002
"""How much louder each recording is than the one before, so that it can be told by ear."""

SAID = np.full(3_200, LEVEL, np.float32)

NAMES = [f"{first}{second}" for first in "abcd" for second in "kl"]
TEXTS = [*(f"my name is {name}" for name in NAMES), *(f"sentence {n}" for n in range(SESSIONS))]


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> list[CallerPlan]:
    """Eight callers with tones instead of speech."""
    folder: Path = tmp_path_factory.mktemp("tones")
    lines = []
    for number, text in enumerate(TEXTS):
        loud = LEVEL * (number + 1)
        write_wav(folder / f"{number}.wav", np.full(3_200, loud, np.float32))
        line = {"file": f"{number}.wav", "text": text, "voice": "v", "kind": "utterance"}
        lines.append(line | {"synthesiser": "s", "licence": "l", "end_of_speech_sample": 3_199})
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return plan_callers(load_manifest(folder), SESSIONS, 3, seed=1)


def hear(audio: Float32) -> str:
    loudest = float(audio.max())
    return "who am i" if loudest > 0.5 else TEXTS[round(loudest / LEVEL) - 1]


def answer(messages: Sequence[Message]) -> str:
    """Remembers the name, as the embedded answerer does."""
    said = messages[-1].content
    names = [m.content for m in messages if m.content.startswith("my name is ")]
    return f"Your name is {names[-1].split()[-1]}." if said == "who am i" else f"You: {said}."


def engines_of(
    ear: Callable[[Float32], str] = hear, kind: type[VoicePipeline] = VoicePipeline
) -> VoicePipeline:
    tts = ScriptedTts(seconds_per_word=0.02)
    return kind(scripted_engines(ScriptedAsr(ear), ScriptedLlm(answer), tts))


async def drilled(pipeline: Pipeline, plans: list[CallerPlan]) -> Crosstalk:
    async with VoiceServer(pipeline, settings_of({})) as server:
        return await call_all(streamed(server.url), plans, asked(plans), pace=0)


def asked(plans: list[CallerPlan]) -> dict[str, Float32]:
    return {plan.fact.question: np.full(3_200, QUESTION, np.float32) for plan in plans}


def broken(verdict: Verdict) -> set[str]:
    return {finding.name for finding in verdict.findings if not finding.holds}


async def test_eight_callers_at_once_each_get_what_they_get_alone(
    plans: list[CallerPlan],
) -> None:
    result = await drilled(engines_of(), plans)
    verdict = judged(plans, result, seed=1)
    assert verdict.holds, broken(verdict)
    assert len({calls[-1].reply for calls in result.crowd}) == SESSIONS


class OneHistory(VoicePipeline):
    """Keeps one history for all callers."""

    shared = History(64)

    async def answer(self, turn: Turn, sink: Sink) -> Exchange:
        exchange = await super().answer(replace(turn, history=self.shared), sink)
        self.shared.record(len(self.shared) + 1, exchange)
        return exchange


async def test_a_server_with_one_history_for_all_is_caught(plans: list[CallerPlan]) -> None:
    few = plans[:6]
    found = broken(judged(few, await drilled(engines_of(kind=OneHistory), few), seed=1))
    assert {
        "own facts remembered in the crowd",
        "replies that differ from those alone",
        "replies that are another caller's",
    } <= found
    assert "transcripts that differ from those alone" not in found


async def test_a_server_that_hands_out_another_s_transcript_is_caught(
    plans: list[CallerPlan],
) -> None:
    few = plans[:6]
    heard_before: list[str] = []
    calls = itertools.count()

    def mixed_up(audio: Float32) -> str:
        """Right while callers are alone, then that of the caller before."""
        heard_before.append(hear(audio))
        return heard_before[-1 if next(calls) < 2 * 3 * len(few) else -2]

    verdict = judged(few, await drilled(engines_of(mixed_up), few), seed=1)
    assert {
        "transcripts that differ from those alone",
        "transcripts that are another caller's",
    } <= broken(verdict)


async def test_callers_without_an_answer_are_told(plans: list[CallerPlan]) -> None:
    def break_off(audio: Float32) -> str:
        raise RuntimeError("no ear")

    verdict = judged(plans[:2], await drilled(engines_of(break_off), plans[:2]), seed=1)
    assert {"turns answered alone", "turns answered in the crowd"} <= broken(verdict)


def heard(transcript: str, audio: str = "x") -> Heard:
    return Heard(transcript, transcript, audio.encode())


def test_a_difference_says_whether_it_is_another_caller_s() -> None:
    alone = [[heard("a"), heard("b")], [heard("c")]]
    crowd = [[heard("c"), heard("z")], [heard("c")]]
    first, second = mismatches(alone, crowd, lambda one: one.transcript)
    assert first.told == "caller 0, turn 0: 'a' became 'c', as another caller does alone"
    assert first.of_another
    assert second.told == "caller 0, turn 1: 'b' became 'z'"
    assert not second.of_another


def test_what_differs_between_two_runs_alone_is_not_held_against_the_crowd(
    plans: list[CallerPlan],
) -> None:
    def calls(audio: str) -> list[list[Heard]]:
        return [[heard(f"{plan.fact.words} {n}", audio) for n in range(3)] for plan in plans]

    steady = judged(plans, Crosstalk(calls("x"), calls("x"), calls("y")), seed=1)
    assert broken(steady) == {"reply audio that differ from those alone"}
    random = judged(plans, Crosstalk(calls("x"), calls("y"), calls("z")), seed=1)
    assert random.holds
    assert "reply audio that differ: not deterministic" in {f.name for f in random.findings}


# -- servers that are not labkit's -------------------------------------------------------------


def foreign(*, says_done: bool) -> AbstractAsyncContextManager[str]:
    """A server of a few lines of websockets, which hears how loud it was and beeps."""

    async def handle(socket: ServerConnection) -> None:
        said = b""
        async for message in socket:
            if isinstance(message, bytes):
                said += message
            elif message == "end_stream":
                text = hear(decode_s16le(said))
                await socket.send(json.dumps({"type": "transcript", "text": text}))
                await socket.send(bytes(320))
                if says_done:
                    done = {"type": "done", "reply_text": f"You: {text}.", "reply_samples": 160}
                    await socket.send(json.dumps(done))
                said = b""

    return websocket(handle, select_subprotocol=None)


@pytest.mark.parametrize("says_done", [True, False])
async def test_what_a_foreign_server_does_not_offer_is_told_as_that(
    says_done: bool, plans: list[CallerPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labkit.drills.crosstalk._OFFER_S", 1.0)
    able = [replace(plan, dialect=Dialect.PLAIN) for plan in plans]
    async with foreign(says_done=says_done) as url:
        address, dialects = await offered(url, SAID)
        result = await call_all(address, able, asked(able), pace=0)
    assert dialects == (Dialect.PLAIN,)
    verdict = judged(able, result, 1, any_server=True)
    assert verdict.holds, broken(verdict)
    rows = {finding.name: finding for finding in verdict.findings}
    assert rows["labkit.v1"].value == "not offered: all callers speak plain"
    assert ("the words of replies" in rows) is not says_done
    assert ("own facts remembered in the crowd" in rows) is says_done
    assert {"own facts remembered alone"} <= broken(judged(able, result, 1))


async def test_labkit_s_own_server_speaks_both() -> None:
    async with VoiceServer(engines_of(), settings_of({})) as server:
        found = await offered(server.url, SAID)
        assert found == (streamed(server.url), tuple(Dialect))


async def test_a_server_that_answers_nothing_is_no_server_to_drill(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("labkit.drills.crosstalk._OFFER_S", 0.1)

    async with websocket(silent, select_subprotocol=None) as url:
        with pytest.raises(ClientError, match="answered nothing in the plain dialect"):
            await offered(url, SAID)


# -- what they say -----------------------------------------------------------------------------

NAME, NUMBER, TIMER = "What is my name?", "What is my number?", "What is the timer set to?"


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    return load_manifest(SPEECH)


@pytest.mark.parametrize(
    ("text", "question", "words"),
    [
        ("hi i am laura", NAME, "laura"),
        ("please call me james", NAME, "james"),
        ("i'm oliver", NAME, "oliver"),
        ("the code is one five seven", NUMBER, "one five seven"),
        ("please remember eight three nine", NUMBER, "eight three nine"),
        ("set a timer for two hours", TIMER, "two hour"),
        ("start a two hour timer", TIMER, "two hour"),
        ("wake me in twenty two seconds", TIMER, "twenty two second"),
    ],
)
def test_a_fact_is_found_in_its_sentence(text: str, question: str, words: str) -> None:
    assert fact_of(text) == Fact(question, words)


@pytest.mark.parametrize("text", ["say four eight nine", "what is a session", "dim the bedroom"])
def test_other_sentences_tell_no_fact(text: str) -> None:
    assert fact_of(text) is None


def test_an_answer_has_a_fact_as_whole_words() -> None:
    fact = Fact(TIMER, "two hour")
    assert fact.in_answer("Your timer is set for two hours.")
    assert not fact.in_answer("Your timer is set for twenty minutes.")
    assert not Fact(NUMBER, "one two three").in_answer("It is one, two, or three.")


def test_every_caller_has_a_fact_of_its_own_and_says_it_first(recordings: list[Recording]) -> None:
    plans = plan_callers(recordings, 16, 4, seed=1)
    assert len({plan.fact for plan in plans}) == 16
    assert all(fact_of(plan.recordings[0].text) == plan.fact for plan in plans)
    assert {plan.turns for plan in plans} == {4}
    assert Counter(plan.dialect for plan in plans) == {Dialect.PLAIN: 8, Dialect.V1: 8}


def test_what_is_said_besides_comes_once_before_any_comes_again(
    recordings: list[Recording],
) -> None:
    said = Counter(
        one.name for plan in plan_callers(recordings, 20, 3, seed=3) for one in plan.recordings
    )
    assert set(said.values()) == {1}


def test_plans_follow_from_the_seed(recordings: list[Recording]) -> None:
    assert plan_callers(recordings, 8, 3, seed=1) == plan_callers(recordings, 8, 3, seed=1)
    assert plan_callers(recordings, 8, 3, seed=1) != plan_callers(recordings, 8, 3, seed=2)


@pytest.mark.parametrize("sessions", [0, 60])
def test_there_are_no_more_callers_than_facts(recordings: list[Recording], sessions: int) -> None:
    with pytest.raises(InstrumentError, match=f"sessions: {sessions} callers need"):
        plan_callers(recordings, sessions, 3, seed=1)


def test_callers_need_something_to_say_besides_facts(recordings: list[Recording]) -> None:
    facts = [one for one in recordings if fact_of(one.text)]
    assert plan_callers(facts, 4, 2, seed=1)
    with pytest.raises(InstrumentError, match="nothing to say besides"):
        plan_callers(facts, 4, 3, seed=1)


@pytest.mark.engines
@pytest.mark.slow
async def test_four_callers_at_once_with_the_real_engines_get_what_they_get_alone() -> None:
    callers = plan_callers(load_manifest(SPEECH), 4, 3, seed=1)
    async with running_target("voice") as server:
        result = await call_all(streamed(server.url), callers, spoken_questions(callers), pace=0)
    verdict = judged(callers, result, seed=1)
    assert verdict.holds, broken(verdict)
