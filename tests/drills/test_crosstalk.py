"""The drill `crosstalk`: it holds against the server, and notices servers that mix callers up."""

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from labkit.audio.pcm import Float32, write_wav
from labkit.drills.crosstalk import (
    Crosstalk,
    Heard,
    Schedule,
    crosstalk,
    judge_crosstalk,
    mismatches,
)
from labkit.drills.facts import CallerPlan, Topic, plan_callers, spoken_questions
from labkit.drills.target import settings_of, target_command
from labkit.drills.verdict import Verdict
from labkit.measure.recordings import load_manifest
from labkit.measure.server_process import running_server
from labkit.server.app import VoiceServer
from labkit.voice.history import Exchange, History, Message
from labkit.voice.pipeline import Pipeline, Sink, Turn, VoicePipeline
from labkit.voice.scripted import ScriptedAsr, ScriptedLlm, ScriptedTts, scripted_engines
from tests.paths import SPEECH

SESSIONS = 8
QUESTION = 0.9
LEVEL = 0.002
"""How much louder each recording is than the one before, so that it can be told by ear."""

NAMES = [f"{first}{second}" for first in "abcd" for second in "kl"]
TEXTS = [*(f"my name is {name}" for name in NAMES), *(f"sentence {n}" for n in range(SESSIONS))]
QUICK = Schedule(pace=0, patience_s=20)


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
    questions = {topic: np.full(3_200, QUESTION, np.float32) for topic in Topic}
    async with VoiceServer(pipeline, settings_of({})) as server:
        return await crosstalk(server.url, plans, questions, QUICK)


def broken(verdict: Verdict) -> set[str]:
    return {finding.name for finding in verdict.findings if not finding.holds}


async def test_eight_callers_at_once_each_get_what_they_get_alone(
    plans: list[CallerPlan],
) -> None:
    result = await drilled(engines_of(), plans)
    verdict = judge_crosstalk(plans, result, seed=1)
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
    found = broken(judge_crosstalk(few, await drilled(engines_of(kind=OneHistory), few), seed=1))
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

    verdict = judge_crosstalk(few, await drilled(engines_of(mixed_up), few), seed=1)
    assert {
        "transcripts that differ from those alone",
        "transcripts that are another caller's",
    } <= broken(verdict)


async def test_callers_without_an_answer_are_told(plans: list[CallerPlan]) -> None:
    def break_off(audio: Float32) -> str:
        raise RuntimeError("no ear")

    verdict = judge_crosstalk(plans[:2], await drilled(engines_of(break_off), plans[:2]), seed=1)
    assert {"turns answered alone", "turns answered in the crowd"} <= broken(verdict)


def heard(transcript: str, audio: str = "x") -> Heard:
    return Heard(transcript, transcript, 100, audio, 5.0)


def test_a_difference_says_whether_it_is_another_caller_s() -> None:
    alone = [[heard("a"), heard("b")], [heard("c")]]
    crowd = [[heard("c"), heard("z")], [heard("c")]]
    first, second = mismatches(alone, crowd, lambda one: one.transcript)
    assert (first.caller, first.turn, first.wanted, first.got, first.of_another) == (
        0, 0, "a", "c", True,
    )  # fmt: skip
    assert not second.of_another
    assert str(first) == "caller 0, turn 0: 'a' became 'c', as another caller does alone"


def test_what_differs_between_two_runs_alone_is_not_held_against_the_crowd(
    plans: list[CallerPlan],
) -> None:
    def calls(audio: str) -> list[list[Heard]]:
        return [[heard(f"{plan.fact.words} {n}", audio) for n in range(3)] for plan in plans]

    steady = judge_crosstalk(plans, Crosstalk(calls("x"), calls("x"), calls("y")), seed=1)
    assert broken(steady) == {"reply audio that differ from those alone"}
    random = judge_crosstalk(plans, Crosstalk(calls("x"), calls("y"), calls("z")), seed=1)
    assert random.holds
    assert "reply audio that differ: not deterministic" in {f.name for f in random.findings}


@pytest.mark.engines
@pytest.mark.slow
async def test_four_callers_at_once_with_the_real_engines_get_what_they_get_alone() -> None:
    callers = plan_callers(load_manifest(SPEECH), 4, 3, seed=1)
    async with running_server(target_command("voice")) as server:
        result = await crosstalk(server.url, callers, spoken_questions(), QUICK)
    verdict = judge_crosstalk(callers, result, seed=1)
    assert verdict.holds, broken(verdict)
