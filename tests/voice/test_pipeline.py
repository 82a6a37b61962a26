"""One turn through the pipeline, with engines that follow a script."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Final

import numpy as np
import pytest

from labkit.audio.pcm import SAMPLE_RATE, Float32, leading_silence, to_int16
from labkit.errors import EngineError
from labkit.trace import STAGES, Mark
from labkit.voice.hearing import Utterance
from labkit.voice.history import Exchange, History, Message
from labkit.voice.pipeline import EchoPipeline, VoicePipeline
from labkit.voice.reply import ReplyRules
from labkit.voice.scheduling import Due, EngineQueue, Playback, Stop
from labkit.voice.scripted import (
    CollectingSink,
    EnergyVad,
    ScriptedAsr,
    ScriptedLlm,
    ScriptedTts,
    scripted_engines,
)
from labkit.voice.speakable import Piece, SpeakableText
from labkit.voice.turn import Turn
from tests.support import until


def spoken(seconds: float = 0.5) -> Utterance:
    utterance = Utterance(60 * SAMPLE_RATE, 512)
    utterance.append(np.full(round(seconds * SAMPLE_RATE), 3000, np.int16))
    return utterance


def turn(utterance: Utterance, history: History | None = None) -> Turn:
    return Turn("session", utterance, history or History(8))


async def test_a_turn_gives_transcript_sentences_and_audio() -> None:
    engines = scripted_engines(
        ScriptedAsr(lambda audio: "hello there"),
        ScriptedLlm(lambda messages: "Hello to you. How are you?"),
    )
    pipeline, sink, this = VoicePipeline(engines), CollectingSink(), turn(spoken())
    assert await pipeline.answer(this, sink) == Exchange(
        "hello there", "Hello to you. How are you?"
    )
    assert sink.transcripts == ["hello there"]
    assert sink.sentences == ["Hello to you.", "How are you?"]
    assert sum(map(len, sink.pieces)) == round(6 * 0.1 * SAMPLE_RATE)
    server_marks = [mark for mark in Mark if mark in this.trace.marks]
    times = [this.trace.marks[mark] for mark in server_marks]
    assert times[:5] == sorted(times[:5])
    inner = [stage for stage, ends in STAGES.items() if all(e in server_marks for e in ends)]
    assert len(inner) == 3
    pipeline.close()


async def test_silence_never_reaches_the_recogniser() -> None:
    def forbidden(_: Float32) -> str:
        raise AssertionError("silence was sent to the recogniser")

    pipeline, sink = VoicePipeline(scripted_engines(ScriptedAsr(forbidden))), CollectingSink()
    utterance = Utterance(SAMPLE_RATE, 512)
    utterance.append(np.zeros(SAMPLE_RATE, np.int16))
    assert await pipeline.answer(turn(utterance), sink) == Exchange("", "")
    assert sink.transcripts == [""]
    assert not sink.pieces
    pipeline.close()


async def test_no_audio_at_all_is_answered_like_silence() -> None:
    pipeline, sink = VoicePipeline(scripted_engines()), CollectingSink()
    assert await pipeline.answer(turn(Utterance(100, 512)), sink) == Exchange("", "")
    pipeline.close()


class _CountingVad(EnergyVad):
    """Counts what it looks at; waits until its gate is open."""

    def __init__(self) -> None:
        self.looked_at: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def probabilities(self, state: object, audio: Float32) -> tuple[list[float], object]:
        self.looked_at.append(len(audio) // self.frame_samples)
        self.gate.wait()
        return super().probabilities(state, audio)


def counting() -> tuple[VoicePipeline, _CountingVad]:
    vad = _CountingVad()
    return VoicePipeline(replace(scripted_engines(), vad=vad)), vad


async def test_what_was_heard_ahead_is_not_judged_again() -> None:
    (pipeline, vad), utterance = counting(), spoken(1.0)
    await pipeline.listen("session", utterance)
    assert len(utterance.probabilities) == SAMPLE_RATE // 512
    await pipeline.listen("session", utterance)
    await pipeline.answer(turn(utterance), CollectingSink())
    assert vad.looked_at == [31, 1]
    pipeline.close()


async def test_nobody_is_woken_where_no_frame_is_whole() -> None:
    (pipeline, vad), utterance = counting(), spoken(0.02)
    await pipeline.listen("session", utterance)
    assert vad.looked_at == []
    await pipeline.listen("session", utterance, ended=True)
    assert vad.looked_at == [1]
    pipeline.close()


async def test_a_long_burst_is_judged_in_pieces() -> None:
    (pipeline, vad), utterance = counting(), spoken(5.0)
    while utterance.unexamined():
        await pipeline.listen("session", utterance)
    assert vad.looked_at == [64, 64, 28]
    pipeline.close()


async def test_two_calls_for_one_utterance_never_judge_a_frame_twice() -> None:
    (pipeline, vad), utterance = counting(), spoken(1.0)
    vad.gate.clear()
    ahead = asyncio.create_task(pipeline.listen("session", utterance))
    await until(lambda: vad.looked_at == [31])
    ended = asyncio.create_task(pipeline.listen("session", utterance, ended=True))
    await until(lambda: pipeline.queued()["vad"] == 1)
    vad.gate.set()
    await asyncio.gather(ahead, ended)
    assert vad.looked_at == [31, 1]
    assert len(utterance.probabilities) == 32
    pipeline.close()


async def test_a_call_that_was_cancelled_changes_nothing() -> None:
    (pipeline, vad), utterance = counting(), spoken(1.0)
    vad.gate.clear()
    ahead = asyncio.create_task(pipeline.listen("session", utterance))
    await until(lambda: vad.looked_at == [31])
    ahead.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ahead
    vad.gate.set()
    assert utterance.probabilities == []
    await pipeline.listen("session", utterance)
    assert len(utterance.probabilities) == 31
    pipeline.close()


async def test_an_utterance_may_change_while_it_is_judged() -> None:
    (pipeline, vad), utterance = counting(), spoken(1.0)
    await pipeline.listen("session", utterance)
    utterance.append(np.zeros(SAMPLE_RATE, np.int16))
    vad.gate.clear()
    ahead = asyncio.create_task(pipeline.listen("session", utterance))
    await until(lambda: len(vad.looked_at) == 2)
    utterance.drop_front(10)
    rest = utterance.split(21 * 512)
    vad.gate.set()
    await ahead
    assert utterance.probabilities == [1.0] * 21
    assert rest.unexamined() == 62 - 31
    await pipeline.listen("session", rest)
    assert rest.probabilities == [1.0] + [0.0] * 30
    pipeline.close()


def said_in_turn(*parts: float) -> Utterance:
    """Speech and silence by turns, each so many seconds long."""
    utterance = Utterance(60 * SAMPLE_RATE, 512)
    for number, seconds in enumerate(parts):
        level = 0 if number % 2 else 3000
        utterance.append(np.full(round(seconds * SAMPLE_RATE), level, np.int16))
    return utterance


async def test_stretches_are_recognised_in_order_and_joined() -> None:
    words = iter(("set a timer", "for ten minutes", "thank you"))
    heard: list[float] = []

    def hear(audio: Float32) -> str:
        heard.append(len(audio) / SAMPLE_RATE)
        return next(words)

    pipeline, sink = VoicePipeline(scripted_engines(ScriptedAsr(hear))), CollectingSink()
    this = turn(said_in_turn(1, 0.6, 2, 3, 1))
    exchange = await pipeline.answer(this, sink)
    assert exchange.user == "set a timer for ten minutes thank you"
    assert sink.transcripts == [exchange.user]
    assert this.missed == []
    assert heard == pytest.approx([1.15, 2.6, 1.65], abs=0.05)
    pipeline.close()


async def test_speech_that_gave_no_words_is_told_with_its_place() -> None:
    words = iter(("set a timer", "", "thank you"))
    engines = scripted_engines(ScriptedAsr(lambda _: next(words)))
    pipeline, sink, utterance = VoicePipeline(engines), CollectingSink(), Utterance(10**6, 512)
    utterance.append(np.zeros(100 * 512, np.int16))
    await pipeline.listen("session", utterance)
    utterance.drop_front(100)
    utterance.append(to_int16(said_in_turn(1, 2, 1, 2, 1).audio()))
    this = turn(utterance)
    await pipeline.answer(this, sink)
    assert sink.transcripts == ["set a timer thank you"]
    before = 100 * 512 / SAMPLE_RATE
    assert this.missed == [pytest.approx((before + 2.36, before + 4.13), abs=0.05)]
    pipeline.close()


async def test_what_was_recognised_ahead_is_not_recognised_again() -> None:
    heard, gate = list[float](), threading.Event()
    gate.set()

    def hear(audio: Float32) -> str:
        heard.append(len(audio) / SAMPLE_RATE)
        word = f"word {len(heard)}"
        gate.wait()
        return word

    utterance = said_in_turn(1, 0.6, 2, 3, 1)
    pipeline, this = VoicePipeline(scripted_engines(ScriptedAsr(hear))), turn(utterance)
    while utterance.unexamined():
        await pipeline.listen("session", utterance)
    finished = pipeline.stretches(utterance, finished=True)
    assert finished == pipeline.stretches(utterance)[:2]
    assert await pipeline.overhear("session", utterance.stretch(finished[0])) == "word 1"
    gate.clear()
    ahead = asyncio.create_task(pipeline.overhear("session", utterance.stretch(finished[1])))
    await until(lambda: len(heard) == 2)
    answer = asyncio.create_task(pipeline.answer(this, CollectingSink()))
    await until(lambda: pipeline.queued()["asr"] == 1)
    gate.set()
    assert await ahead == "word 2"
    assert (await answer).user == "word 1 word 2 word 3"
    assert heard == pytest.approx([1.15, 2.6, 1.65], abs=0.05)
    pipeline.close()


async def test_what_was_recognised_in_a_pause_is_kept_where_it_was_the_end_of_a_sentence() -> None:
    heard: list[float] = []

    def hear(audio: Float32) -> str:
        heard.append(len(audio) / SAMPLE_RATE)
        return f"word {len(heard)}"

    pipeline = VoicePipeline(scripted_engines(ScriptedAsr(hear)))
    utterance = said_in_turn(1, 0.6, 1)
    while utterance.unexamined():
        await pipeline.listen("session", utterance)
    speech, pause = SAMPLE_RATE // 512 + 1, 4
    ahead = utterance.beginning(speech + pause)
    assert (await pipeline.answer(turn(ahead), CollectingSink())).user == "word 1"
    assert (await pipeline.answer(turn(utterance), CollectingSink())).user == "word 1 word 2"
    assert heard == pytest.approx([1.15, 1.47], abs=0.05)
    pipeline.close()


async def test_a_recogniser_that_fails_ahead_is_asked_again() -> None:
    faults = iter((True, False))

    def hear(audio: Float32) -> str:
        if next(faults):
            raise RuntimeError("out of memory")
        return "word"

    pipeline, utterance = VoicePipeline(scripted_engines(ScriptedAsr(hear))), said_in_turn(1)
    await pipeline.listen("session", utterance, ended=True)
    (span,) = pipeline.stretches(utterance)
    with pytest.raises(EngineError):
        await pipeline.overhear("session", utterance.stretch(span))
    assert (await pipeline.answer(turn(utterance), CollectingSink())).user == "word"
    pipeline.close()


async def test_a_long_stretch_is_cut_to_what_the_recogniser_was_trained_on() -> None:
    heard: list[float] = []

    def hear(audio: Float32) -> str:
        heard.append(len(audio) / SAMPLE_RATE)
        return "word"

    engines = replace(scripted_engines(ScriptedAsr(hear)), longest_stretch_s=5.0)
    pipeline, sink = VoicePipeline(engines), CollectingSink()
    await pipeline.answer(turn(said_in_turn(30)), sink)
    assert max(heard) <= 5.0
    assert sum(heard) == pytest.approx(30, abs=0.05)
    pipeline.close()


async def test_a_long_utterance_lets_others_in_between_its_stretches() -> None:
    order: list[str] = []

    def hear(audio: Float32) -> str:
        order.append("long" if len(audio) > SAMPLE_RATE else "short")
        return "word"

    asr = ScriptedAsr(hear)
    asr.gate.clear()
    pipeline = VoicePipeline(scripted_engines(asr))
    long = Turn("long", said_in_turn(2, 2, 2, 2, 2), History(8))
    first = asyncio.create_task(pipeline.answer(long, CollectingSink()))
    await until(lambda: Mark.ASR_STARTED in long.trace.marks)
    other = Turn("other", spoken(), History(8))
    second = asyncio.create_task(pipeline.answer(other, CollectingSink()))
    await until(lambda: pipeline.queued()["asr"] == 1)
    asr.gate.set()
    await asyncio.gather(first, second)
    assert order == ["long", "short", "long", "long"]
    pipeline.close()


async def test_a_cancelled_turn_recognises_no_further_stretch() -> None:
    heard: list[int] = []

    def hear(audio: Float32) -> str:
        heard.append(len(audio))
        return "word"

    asr = ScriptedAsr(hear)
    asr.gate.clear()
    pipeline = VoicePipeline(scripted_engines(asr))
    this = turn(said_in_turn(1, 2, 1, 2, 1))
    task = asyncio.create_task(pipeline.answer(this, CollectingSink()))
    await until(lambda: Mark.ASR_STARTED in this.trace.marks)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    asr.gate.set()
    await pipeline.answer(turn(spoken(0.5)), CollectingSink())
    # The stretch that was in hand may still have been heard, and nothing behind it.
    assert heard[-1] == SAMPLE_RATE // 2
    assert len(heard) <= 2
    pipeline.close()


async def test_frames_of_another_size_are_an_error_of_the_caller() -> None:
    pipeline = VoicePipeline(scripted_engines())
    with pytest.raises(ValueError, match="frames of 512"):
        await pipeline.listen("session", Utterance(100, 480))
    pipeline.close()


async def test_the_language_model_sees_the_history() -> None:
    seen: list[Sequence[Message]] = []

    def answer(messages: Sequence[Message]) -> str:
        seen.append(messages)
        return "Ada."

    history = History(8)
    history.record(1, Exchange("my name is ada", "Hello, Ada."))
    engines = scripted_engines(ScriptedAsr(lambda _: "what is my name"), ScriptedLlm(answer))
    pipeline = VoicePipeline(engines)
    await pipeline.answer(turn(spoken(), history), CollectingSink())
    assert [message.content for message in seen[0]] == [
        "my name is ada",
        "Hello, Ada.",
        "what is my name",
    ]
    pipeline.close()


async def test_what_the_model_is_told_stands_before_everything_and_is_not_remembered() -> None:
    seen: list[Sequence[Message]] = []

    def answer(messages: Sequence[Message]) -> str:
        seen.append(messages)
        return "Yes."

    engines = scripted_engines(ScriptedAsr(lambda _: "hello"), ScriptedLlm(answer))
    pipeline = VoicePipeline(engines, reply_rules=ReplyRules(system="Be brief."))
    exchange = await pipeline.answer(turn(spoken()), CollectingSink())
    assert seen == [[Message("system", "Be brief."), Message("user", "hello")]]
    assert exchange == Exchange("hello", "Yes.")
    pipeline.close()


async def reply_within(
    rules: ReplyRules, llm: ScriptedLlm, *, seconds_per_word: float = 0.1
) -> tuple[str, float]:
    """What is remembered of a reply, and how long it is; the same was shown."""
    engines = scripted_engines(llm=llm, tts=ScriptedTts(seconds_per_word=seconds_per_word))
    pipeline, sink = VoicePipeline(engines, reply_rules=rules), CollectingSink()
    exchange = await pipeline.answer(turn(spoken()), sink)
    pipeline.close()
    assert " ".join(sink.sentences).split() == exchange.assistant.split()
    return exchange.assistant, sum(map(len, sink.pieces)) / SAMPLE_RATE


LINES: Final = "One two three. Four five six. Seven eight nine."


@pytest.mark.parametrize(
    ("tokens", "reply"),
    [
        (9, LINES),
        (8, "One two three. Four five six."),
        (6, "One two three. Four five six."),
        (5, "One two three."),
        (2, "One two"),
    ],
)
async def test_a_reply_of_too_many_tokens_ends_with_its_last_whole_sentence(
    tokens: int, reply: str
) -> None:
    rules = ReplyRules(max_tokens=tokens)
    assert (await reply_within(rules, ScriptedLlm(lambda _: LINES)))[0] == reply


@pytest.mark.parametrize(
    ("seconds", "reply"),
    [
        (9.0, LINES),
        (8.9, "One two three. Four five six."),
        (3.0, "One two three."),
        (2.9, "One two"),
        (1.0, "One"),
    ],
)
async def test_a_reply_of_too_many_seconds_ends_before_what_is_too_long(
    seconds: float, reply: str
) -> None:
    rules = ReplyRules(max_s=seconds)
    said, length = await reply_within(rules, ScriptedLlm(lambda _: LINES), seconds_per_word=1.0)
    assert said == reply
    assert length == len(reply.split())


async def test_after_what_is_shown_only_the_first_sentence_is_shortened_all_the_same() -> None:
    written = ScriptedLlm(lambda _: "```\n" + "print(1)\n" * 200 + "```\nOne two three four five.")
    said, length = await reply_within(ReplyRules(max_s=3.0), written, seconds_per_word=1.0)
    assert said.endswith("One two three")
    assert length == 3.0


async def test_of_a_word_that_alone_is_too_long_the_beginning_is_said() -> None:
    class BySign(ScriptedTts):
        def synthesise(self, text: str, stop: Stop) -> Iterator[Float32]:
            return super().synthesise(" ".join(text), stop)

    engines = scripted_engines(
        llm=ScriptedLlm(lambda _: "3.14159265358979323846"), tts=BySign(seconds_per_word=0.5)
    )
    pipeline, sink = VoicePipeline(engines, reply_rules=ReplyRules(max_s=5.0)), CollectingSink()
    exchange = await pipeline.answer(turn(spoken()), sink)
    pipeline.close()
    assert exchange.assistant == sink.sentences[0] == "3.14159265"
    assert sum(map(len, sink.pieces)) <= 5 * SAMPLE_RATE


async def test_a_sentence_that_the_model_had_to_leave_is_not_said() -> None:
    """It counts its tokens itself; they may be more than its pieces."""

    class Bounded(ScriptedLlm):
        def reply(self, messages: Sequence[Message], stop: Stop) -> Iterator[str]:
            yield from ("One two. ", "Three", " fo")
            stop.set()

    assert (await reply_within(ReplyRules(), Bounded()))[0] == "One two."


class _EndlessLlm(ScriptedLlm):
    """Writes until it is stopped, and counts its words."""

    written = 0

    def reply(self, messages: Sequence[Message], stop: Stop) -> Iterator[str]:
        while not stop.is_set():
            self.written += 1
            yield "And on. "


async def test_a_model_that_never_ends_is_stopped() -> None:
    by_time = _EndlessLlm()
    said, length = await reply_within(ReplyRules(max_tokens=10**9, max_s=3.1), by_time)
    assert said == " ".join(["And on."] * 15)
    assert length == pytest.approx(3.0)
    by_tokens = _EndlessLlm()
    said, _ = await reply_within(ReplyRules(max_tokens=4), by_tokens)
    assert said == " ".join(["And on."] * 4)
    assert by_tokens.written == 4


class _PlayingSink(CollectingSink):
    """A client that plays at once, as a session keeps account of it."""

    def __init__(self, turn: Turn) -> None:
        super().__init__()
        self._turn = turn

    async def audio(self, samples: Float32) -> None:
        self._turn.playback.produced(len(samples) / SAMPLE_RATE, self._turn.clock())
        await super().audio(samples)


def of(caller: str) -> Turn:
    """A turn of "ann" or of "bob", who are told apart by how long they speak."""
    return Turn(caller, spoken(0.5 if caller == "ann" else 1.0), History(8))


def for_both(llm: ScriptedLlm, tts: ScriptedTts | None = None) -> VoicePipeline:
    """A pipeline that hears the caller's name, with room for long replies."""
    asr = ScriptedAsr(lambda audio: "ann" if len(audio) < 0.8 * SAMPLE_RATE else "bob")
    rules = ReplyRules(max_tokens=10**9, max_s=10**9)
    return VoicePipeline(scripted_engines(asr, llm, tts), reply_rules=rules)


FIRST: Final = "So " + "many " * 20 + "words."
"""More than the model may be ahead of what is spoken."""
THEN: Final = "Then " + " ".join(f"w{number}" for number in range(20)) + "."


class _SteppedLlm(ScriptedLlm):
    """Notes each word that it writes; behind word w5 for ann it waits until its gate is open."""

    def __init__(self) -> None:
        super().__init__(lambda _: f"{FIRST} {THEN}")
        self.order: list[str] = []
        self.reached, self.gate = threading.Event(), threading.Event()
        self.closed_on: list[str] = []

    def reply(self, messages: Sequence[Message], stop: Stop) -> Iterator[str]:
        caller = messages[-1].content
        try:
            for word in super().reply(messages, stop):
                self.order.append(f"{caller} {word.strip(' .')}")
                if self.order[-1] == "ann w5":
                    self.reached.set()
                    self.gate.wait()
                yield word
        finally:
            self.closed_on.append(threading.current_thread().name)


async def test_the_model_knows_before_each_token_whether_it_works_alone() -> None:
    class Aware(ScriptedLlm):
        def __init__(self) -> None:
            super().__init__(lambda _: "One two.")
            self.told: list[bool] = []

        def set_alone(self, alone: bool) -> None:
            self.told.append(alone)

        def reply(self, messages: Sequence[Message], stop: Stop) -> Iterator[str]:
            for word in super().reply(messages, stop):
                assert self.told
                yield word

    llm = Aware()
    pipeline, ann = for_both(llm, ScriptedTts()), of("ann")
    await pipeline.answer(ann, _PlayingSink(ann))
    assert llm.told[0] is True
    assert len(llm.told) >= 2
    pipeline.close()


async def test_the_model_gives_way_between_tokens_to_who_hears_nothing_yet() -> None:
    llm = _SteppedLlm()
    pipeline, ann, bob = for_both(llm, ScriptedTts(seconds_per_word=20.0)), of("ann"), of("bob")
    talks = asyncio.create_task(pipeline.answer(ann, _PlayingSink(ann)))
    await asyncio.to_thread(llm.reached.wait)
    waits = asyncio.create_task(pipeline.answer(bob, _PlayingSink(bob)))
    await until(lambda: pipeline.queued()["llm"] == 1)
    llm.gate.set()
    exchanges = await asyncio.gather(talks, waits)
    assert llm.order[llm.order.index("ann w5") + 1] == "bob So"
    assert llm.order.index("bob words") < llm.order.index("ann w6")
    assert [exchange.assistant for exchange in exchanges] == [f"{FIRST} {THEN}"] * 2
    pipeline.close()


async def test_calls_are_due_when_the_client_has_nothing_more_to_hear(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, list[float]] = {}
    wait = EngineQueue.turn

    def noted(queue: EngineQueue, owner: str, due: Due) -> AbstractAsyncContextManager[None]:
        asked.setdefault(queue.name, []).append((due(7 * 10**9) or 0) / 1e9)
        return wait(queue, owner, due)

    monkeypatch.setattr(EngineQueue, "turn", noted)
    pipeline, this = for_both(_TwoSentences(), ScriptedTts(seconds_per_word=2.0)), of("ann")
    this.clock, this.playback = lambda: 7 * 10**9, Playback(7 * 10**9)
    await pipeline.answer(this, _PlayingSink(this))
    assert asked["vad"] == asked["asr"] == [7.0]
    words = len(FIRST.split())
    in_hand_s = words * 2.0
    # One call a word, and one that finds the end.
    due = [max(7.0, 7 + spoken * 2.0 - 2.5) for spoken in range(words + 1)]
    assert asked["tts"][: words + 1] == pytest.approx(due)
    assert asked["tts"][words + 1] == pytest.approx(7 + in_hand_s - 2.5)
    # The second sentence is written while the first, which is so long, is spoken.
    assert asked["llm"] == [7.0, pytest.approx(7 + len(FIRST) / 15 - 2.5)]
    pipeline.close()


class _SteppedTts(ScriptedTts):
    """Notes each piece that it makes; behind ann's second it waits until its gate is open."""

    def __init__(self, seconds_per_word: float = 0.1) -> None:
        super().__init__(seconds_per_word=seconds_per_word)
        self.order: list[str] = []
        self.reached, self.gate = threading.Event(), threading.Event()
        self.closed_on: list[str] = []

    def synthesise(self, text: str, stop: Stop) -> Iterator[Float32]:
        caller = text.split()[0]
        try:
            for number, piece in enumerate(super().synthesise(text, stop)):
                self.order.append(f"{caller} {number}")
                if self.order[-1] in ("ann 2", "One 2"):
                    self.reached.set()
                    self.gate.wait()
                yield piece
        finally:
            self.closed_on.append(threading.current_thread().name)


class _TwoSentences(ScriptedLlm):
    """Writes two sentences and ends with the second one's last word."""

    def reply(self, messages: Sequence[Message], stop: Stop) -> Iterator[str]:
        yield FIRST + " Then"
        yield " more."


async def test_the_model_does_not_write_far_ahead_of_what_is_spoken() -> None:
    """A client that takes nothing in holds up its own model, and nobody else's."""

    class Talker(ScriptedLlm):
        written = 0

        def reply(self, messages: Sequence[Message], stop: Stop) -> Iterator[str]:
            while messages[-1].content == "ann" and not stop.is_set():
                self.written += 1
                yield "And so on and on. "
            yield "Yes."

    llm, stuck_sink, sink = Talker(), _StuckSink(), CollectingSink()
    pipeline = for_both(llm)
    stuck = asyncio.create_task(pipeline.answer(of("ann"), stuck_sink))
    await stuck_sink.stuck.wait()
    await pipeline.answer(of("bob"), sink)
    assert sink.sentences == ["Yes."]
    assert llm.written <= 10
    stuck.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stuck
    pipeline.close()


class _StubbornLlm(ScriptedLlm):
    """Writes on and on, and looks at no bound."""

    def reply(self, messages: Sequence[Message], stop: Stop) -> Iterator[str]:
        while True:
            yield "And on. "


async def test_a_model_that_does_not_stop_is_left() -> None:
    rules = ReplyRules(max_tokens=10**9, max_s=3.1)
    assert await reply_within(rules, _StubbornLlm()) == (" ".join(["And on."] * 15), 3.0)


class _EndlessTts(ScriptedTts):
    """Speaks on and on, whatever it is given."""

    def synthesise(self, text: str, stop: Stop) -> Iterator[Float32]:
        while not stop.is_set():
            yield from super().synthesise(text, stop)


@pytest.mark.parametrize("text", ["Yes.", "No. " + "many " * 40 + "words."])
async def test_a_voice_that_never_ends_is_stopped(text: str) -> None:
    """Whether a piece seems to be short enough, or is made before it is heard."""
    engines = scripted_engines(llm=ScriptedLlm(lambda _: text), tts=_EndlessTts())
    pipeline, sink = VoicePipeline(engines, reply_rules=ReplyRules(max_s=3.0)), CollectingSink()
    await pipeline.answer(turn(spoken()), sink)
    assert sum(map(len, sink.pieces)) == 3 * SAMPLE_RATE
    pipeline.close()


@pytest.mark.parametrize(("in_hand_s", "said"), [(9.0, 2), (1.0, 1)])
async def test_what_may_be_too_long_is_not_made_while_its_client_runs_out(
    in_hand_s: float, said: int
) -> None:
    """It is not known, for the voice has not spoken yet, so the reply ends before it."""
    text = "Yes. " + "many " * 16 + "words."
    engines = scripted_engines(llm=ScriptedLlm(lambda _: text))
    pipeline, this = VoicePipeline(engines), turn(spoken())
    this.clock = lambda: 0
    sink = _PlayingSink(this)
    this.playback = Playback(round((in_hand_s - 0.1) * 1e9))
    await pipeline.answer(this, sink)
    assert len(sink.sentences) == said
    pipeline.close()


async def test_a_long_piece_that_comes_when_there_is_enough_holds_up_nothing() -> None:
    class Late(ScriptedLlm):
        gate = threading.Event()

        def reply(self, messages: Sequence[Message], stop: Stop) -> Iterator[str]:
            yield "Hello there. And good morning to you all. But "
            self.gate.wait()
            yield f"no more. {FIRST} Then"

    llm = Late()
    engines = scripted_engines(llm=llm, tts=ScriptedTts(seconds_per_word=1.0))
    pipeline, this = VoicePipeline(engines, reply_rules=ReplyRules(max_s=3.0)), turn(spoken())
    answer = asyncio.create_task(pipeline.answer(this, CollectingSink()))
    await until(lambda: Mark.TTS_DONE in this.trace.marks)
    llm.gate.set()
    assert (await answer).assistant == "Hello there."
    pipeline.close()


async def test_a_cancelled_reply_stops_at_the_next_token_and_is_closed_by_its_engine() -> None:
    llm = _SteppedLlm()
    pipeline = for_both(llm)
    cancelled = asyncio.create_task(pipeline.answer(of("ann"), CollectingSink()))
    await asyncio.to_thread(llm.reached.wait)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    llm.gate.set()
    await pipeline.answer(of("bob"), CollectingSink())
    assert [word for word in llm.order if word.startswith("ann")][-1] == "ann w5"
    assert llm.closed_on == ["labkit-llm_0"] * 2
    pipeline.close()


async def test_audio_of_another_rate_is_resampled() -> None:
    engines = scripted_engines(tts=ScriptedTts(sample_rate=22_050))
    pipeline, sink = VoicePipeline(engines), CollectingSink()
    await pipeline.answer(turn(spoken()), sink)
    words = len(sink.sentences[0].split())
    assert abs(sum(map(len, sink.pieces)) - words * 0.1 * SAMPLE_RATE) <= words
    pipeline.close()


async def test_the_voice_gets_words_and_the_reader_what_was_written() -> None:
    spoken_by_voice: list[str] = []

    class Voice(ScriptedTts):
        def synthesise(self, text: str, stop: Stop) -> Iterator[Float32]:
            spoken_by_voice.append(text)
            return super().synthesise(text, stop)

    written = "1. Open the **lid**.\n2. Press *start*.\n```\nrm -rf\n```"
    engines = scripted_engines(llm=ScriptedLlm(lambda _: written), tts=Voice())
    pipeline, sink = VoicePipeline(engines), CollectingSink()
    exchange = await pipeline.answer(turn(spoken()), sink)
    assert spoken_by_voice == ["Open the lid.", "Press start."]
    assert sink.sentences == ["1. Open the **lid**.", "2. Press *start*.", "```\nrm -rf\n```"]
    assert exchange.assistant == written
    pipeline.close()


async def test_a_reply_is_read_on_the_engines_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some models give all their text at once; the event loop must not wait for its reading."""
    threads: list[str] = []

    class Text(SpeakableText):
        def feed(self, delta: str) -> list[Piece]:
            threads.append(threading.current_thread().name)
            return super().feed(delta)

    monkeypatch.setattr("labkit.voice.reply.SpeakableText", Text)
    pipeline = VoicePipeline(scripted_engines())
    await pipeline.answer(turn(spoken()), CollectingSink())
    assert set(threads) == {"labkit-llm_0"}
    pipeline.close()


async def test_a_reply_of_code_alone_says_so() -> None:
    engines = scripted_engines(llm=ScriptedLlm(lambda _: "```\nrm -rf\n```"))
    pipeline, sink, this = VoicePipeline(engines), CollectingSink(), turn(spoken())
    assert (await pipeline.answer(this, sink)).assistant == "```\nrm -rf\n```"
    assert sink.sentences == ["```\nrm -rf\n```"]
    assert sum(map(len, sink.pieces)) > 0
    assert Mark.LLM_FIRST_SENTENCE in this.trace.marks
    pipeline.close()


class _HesitantTts(ScriptedTts):
    """Begins each sentence with 0.3 s of silence."""

    def synthesise(self, text: str, stop: Stop) -> Iterator[Float32]:
        pieces = list(super().synthesise(text, stop))
        yield np.concatenate([np.zeros(round(0.3 * self.sample_rate), np.float32), *pieces])


async def test_a_reply_begins_at_once_and_pauses_between_sentences_stay() -> None:
    engines = scripted_engines(llm=ScriptedLlm(lambda _: "One. Two."), tts=_HesitantTts())
    pipeline, sink = VoicePipeline(engines), CollectingSink()
    await pipeline.answer(turn(spoken()), sink)
    reply = np.concatenate(sink.pieces)
    assert 0 < leading_silence(reply, SAMPLE_RATE) < 0.025
    audible = np.flatnonzero(np.abs(reply) > 0.01)
    assert np.diff(audible).max() / SAMPLE_RATE > 0.29
    pipeline.close()


class _SlowToWrite(ScriptedLlm):
    """Writes "Sure!", and the rest once its gate is open."""

    def __init__(self, rest: str) -> None:
        super().__init__()
        self.gate = threading.Event()
        self._rest = rest

    def reply(self, messages: Sequence[Message], stop: Stop) -> Iterator[str]:
        yield "Sure! I"
        self.gate.wait()
        yield self._rest


@pytest.mark.parametrize(("rest", "words"), [("'d be happy to help you with that.", 9), ("", 2)])
async def test_a_reply_begins_once_enough_or_all_of_it_is_written(rest: str, words: int) -> None:
    llm, tts, this = _SlowToWrite(rest), _SteppedTts(), of("ann")
    pipeline, sink = VoicePipeline(scripted_engines(llm=llm, tts=tts)), CollectingSink()
    answer = asyncio.create_task(pipeline.answer(this, sink))
    await until(lambda: len(tts.closed_on) == 1)
    assert sink.sentences == ["Sure!"]
    assert not sink.pieces
    assert Mark.TTS_FIRST_AUDIO not in this.trace.marks
    llm.gate.set()
    await answer
    assert sum(map(len, sink.pieces)) == round(words * 0.1 * SAMPLE_RATE)
    pipeline.close()


class _BrokenLlm(ScriptedLlm):
    def reply(self, messages: Sequence[Message], stop: Stop) -> Iterator[str]:
        yield "One. "
        raise RuntimeError("llama_decode returned -3")


async def test_an_engine_that_fails_is_named() -> None:
    pipeline = VoicePipeline(scripted_engines(llm=_BrokenLlm()))
    with pytest.raises(EngineError, match="language model failed: RuntimeError: llama_decode"):
        await pipeline.answer(turn(spoken()), CollectingSink())
    pipeline.close()


async def test_a_sentence_is_heard_while_the_rest_of_it_is_made() -> None:
    tts = _SteppedTts()
    pipeline, sink = for_both(ScriptedLlm(lambda _: "One two three."), tts), CollectingSink()
    answer = asyncio.create_task(pipeline.answer(of("ann"), sink))
    await asyncio.to_thread(tts.reached.wait)
    assert sum(map(len, sink.pieces)) == pytest.approx(0.2 * SAMPLE_RATE, abs=0.03 * SAMPLE_RATE)
    tts.gate.set()
    await answer
    assert tts.closed_on == ["labkit-tts_0"]
    pipeline.close()


async def test_the_voice_gives_way_within_a_sentence_to_who_hears_nothing_yet() -> None:
    tts = _SteppedTts(seconds_per_word=20.0)
    pipeline = for_both(ScriptedLlm(lambda m: f"{m[-1].content} two three."), tts)
    ann, bob = of("ann"), of("bob")
    talks = asyncio.create_task(pipeline.answer(ann, _PlayingSink(ann)))
    await asyncio.to_thread(tts.reached.wait)
    waits = asyncio.create_task(pipeline.answer(bob, _PlayingSink(bob)))
    await until(lambda: pipeline.queued()["tts"] == 1)
    tts.gate.set()
    await asyncio.gather(talks, waits)
    assert tts.order[:4] == ["ann 0", "ann 1", "ann 2", "bob 0"]
    pipeline.close()


async def test_who_lets_others_at_the_voice_has_enough_to_be_heard_meanwhile() -> None:
    tts = _SteppedTts()
    pipeline = for_both(ScriptedLlm(lambda m: f"{m[-1].content} {'word ' * 19}end."), tts)
    ann, bob = of("ann"), of("bob")
    talks = asyncio.create_task(pipeline.answer(ann, _PlayingSink(ann)))
    await asyncio.to_thread(tts.reached.wait)
    waits = asyncio.create_task(pipeline.answer(bob, _PlayingSink(bob)))
    await until(lambda: pipeline.queued()["tts"] == 1)
    tts.gate.set()
    await asyncio.gather(talks, waits)
    assert tts.order.index("bob 0") == tts.order.index("ann 2") + 8
    pipeline.close()


async def test_a_turn_that_is_cancelled_within_a_sentence_makes_no_more_of_it() -> None:
    tts = _SteppedTts()
    pipeline = for_both(ScriptedLlm(lambda m: f"{m[-1].content} two three."), tts)
    cancelled = asyncio.create_task(pipeline.answer(of("ann"), CollectingSink()))
    await asyncio.to_thread(tts.reached.wait)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    tts.gate.set()
    await pipeline.answer(of("bob"), CollectingSink())
    assert tts.order == ["ann 0", "ann 1", "ann 2", "bob 0", "bob 1", "bob 2"]
    assert tts.closed_on == ["labkit-tts_0"] * 2
    pipeline.close()


async def test_how_long_a_text_may_take_is_learnt_from_the_voice() -> None:
    """Whether a sentence of 150 letters fits into 8 s is not known before the first one is over."""
    whole: list[bool] = []

    class Voice(ScriptedTts):
        def synthesise(self, text: str, stop: Stop) -> Iterator[Float32]:
            yield from super().synthesise(text, stop)
            whole.append(not sink.pieces)

    engines = scripted_engines(
        llm=ScriptedLlm(lambda _: "So " + "many " * 28 + "words."), tts=Voice()
    )
    pipeline = VoicePipeline(engines, reply_rules=ReplyRules(max_s=8.0))
    for _ in range(2):
        sink = CollectingSink()
        await pipeline.answer(turn(spoken()), sink)
        assert sum(map(len, sink.pieces)) == 3 * SAMPLE_RATE
    assert whole == [True, False]
    pipeline.close()


class _StuckSink(CollectingSink):
    """A client that reads nothing after the first piece of audio."""

    def __init__(self) -> None:
        super().__init__()
        self.stuck = asyncio.Event()

    async def audio(self, samples: Float32) -> None:
        self.stuck.set()
        await asyncio.Event().wait()


async def test_a_slow_reader_holds_up_nobody_else() -> None:
    pipeline, slow, quick = VoicePipeline(scripted_engines()), _StuckSink(), CollectingSink()
    stuck = asyncio.create_task(pipeline.answer(turn(spoken()), slow))
    await slow.stuck.wait()
    exchange = await pipeline.answer(Turn("other", spoken(), History(8)), quick)
    assert exchange.assistant
    assert quick.pieces
    stuck.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stuck
    pipeline.close()


class _OnePiece(ScriptedTts):
    """Makes a whole reply at once, and remembers it."""

    def synthesise(self, text: str, stop: Stop) -> Iterator[Float32]:
        self.made = np.full(2 * SAMPLE_RATE, 0.5, np.float32)
        yield self.made


async def test_what_waits_for_a_slow_reader_is_held_once() -> None:
    tts, sink = _OnePiece(), CollectingSink()
    pipeline = VoicePipeline(scripted_engines(tts=tts))
    await pipeline.answer(turn(spoken()), sink)
    assert all(np.shares_memory(piece, tts.made) for piece in sink.pieces)
    pipeline.close()


async def test_cancelling_a_turn_frees_the_engine() -> None:
    asr = ScriptedAsr()
    asr.gate.clear()
    pipeline = VoicePipeline(scripted_engines(asr))
    task = asyncio.create_task(pipeline.answer(turn(spoken()), CollectingSink()))
    other = asyncio.create_task(
        pipeline.answer(Turn("other", spoken(), History(8)), CollectingSink())
    )
    await until(lambda: pipeline.queued()["asr"] == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    asr.gate.set()
    assert (await other).user
    pipeline.close()


async def test_the_echo_gives_back_what_it_heard() -> None:
    utterance, sink = spoken(0.73), CollectingSink()
    exchange = await EchoPipeline().answer(turn(utterance), sink)
    assert exchange.user == "0.73 seconds of audio"
    assert np.array_equal(np.concatenate(sink.pieces), utterance.audio())


async def test_an_echo_gives_the_loop_away_between_its_pieces() -> None:
    sink = CollectingSink()
    echo = asyncio.create_task(EchoPipeline().answer(turn(spoken(2.0)), sink))
    seen = []
    while not echo.done():
        await asyncio.sleep(0)
        seen.append(len(sink.pieces))
    assert sorted(set(seen)) == list(range(1, 11))


@pytest.mark.parametrize("warm", [True, False])
async def test_a_long_first_sentence_is_heard_while_it_is_made_once_the_voice_is_known(
    warm: bool,
) -> None:
    made: list[Float32] = []
    made_at_first: list[int] = []

    class Noted(ScriptedTts):
        def synthesise(self, text: str, stop: Stop) -> Iterator[Float32]:
            for piece in super().synthesise(text, stop):
                made.append(piece)
                yield piece

    class Listener(CollectingSink):
        async def audio(self, samples: Float32) -> None:
            made_at_first.append(len(made))

    llm = ScriptedLlm(lambda _: " ".join(["sentences"] * 12) + ".")
    pipeline, ann = (
        VoicePipeline(scripted_engines(llm=llm, tts=Noted(seconds_per_word=0.3))),
        of("ann"),
    )
    if warm:
        pipeline.warm_up()
        made.clear()
    await pipeline.answer(ann, Listener())
    pipeline.close()
    assert (made_at_first[0] < 6) is warm
