"""One turn through the pipeline, with engines that follow a script."""

import asyncio
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from labkit.audio.pcm import SAMPLE_RATE, Float32, leading_silence
from labkit.errors import EngineError
from labkit.trace import STAGES, Mark
from labkit.voice.engines import Message
from labkit.voice.pipeline import EchoPipeline, Turn, VoicePipeline
from labkit.voice.scheduling import Stop
from labkit.voice.scripted import (
    CollectingSink,
    ScriptedAsr,
    ScriptedLlm,
    ScriptedTts,
    scripted_engines,
)
from labkit.voice.utterance import Exchange, History, Utterance
from tests.support import until


def spoken(seconds: float = 0.5) -> Utterance:
    utterance = Utterance(60 * SAMPLE_RATE)
    utterance.append(np.full(round(seconds * SAMPLE_RATE), 0.1, np.float32))
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
    utterance = Utterance(SAMPLE_RATE)
    utterance.append(np.zeros(SAMPLE_RATE, np.float32))
    assert await pipeline.answer(turn(utterance), sink) == Exchange("", "")
    assert sink.transcripts == [""]
    assert not sink.pieces
    pipeline.close()


async def test_no_audio_at_all_is_answered_like_silence() -> None:
    pipeline, sink = VoicePipeline(scripted_engines()), CollectingSink()
    assert await pipeline.answer(turn(Utterance(100)), sink) == Exchange("", "")
    pipeline.close()


async def test_what_was_heard_ahead_is_not_judged_again() -> None:
    pipeline, utterance = VoicePipeline(scripted_engines()), spoken(1.0)
    await pipeline.listen("session", utterance)
    assert len(utterance.probabilities) == SAMPLE_RATE // 512
    await pipeline.listen("session", utterance)
    assert len(utterance.probabilities) == SAMPLE_RATE // 512
    await pipeline.answer(turn(utterance), CollectingSink())
    assert len(utterance.probabilities) == SAMPLE_RATE // 512 + 1
    pipeline.close()


async def test_the_language_model_sees_the_history() -> None:
    seen: list[Sequence[Message]] = []

    def answer(messages: Sequence[Message]) -> str:
        seen.append(messages)
        return "Ada."

    history = History(8)
    history.add(Exchange("my name is ada", "Hello, Ada."))
    engines = scripted_engines(ScriptedAsr(lambda _: "what is my name"), ScriptedLlm(answer))
    pipeline = VoicePipeline(engines)
    await pipeline.answer(turn(spoken(), history), CollectingSink())
    assert [message.content for message in seen[0]] == [
        "my name is ada",
        "Hello, Ada.",
        "what is my name",
    ]
    pipeline.close()


async def test_audio_of_another_rate_is_resampled() -> None:
    engines = scripted_engines(tts=ScriptedTts(sample_rate=22_050))
    pipeline, sink = VoicePipeline(engines), CollectingSink()
    await pipeline.answer(turn(spoken()), sink)
    words = len(sink.sentences[0].split())
    assert abs(sum(map(len, sink.pieces)) - words * 0.1 * SAMPLE_RATE) <= words
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


class _BrokenLlm(ScriptedLlm):
    def reply(self, messages: Sequence[Message], stop: Stop) -> Iterator[str]:
        yield "One. "
        raise RuntimeError("llama_decode returned -3")


async def test_an_engine_that_fails_is_named() -> None:
    pipeline = VoicePipeline(scripted_engines(llm=_BrokenLlm()))
    with pytest.raises(EngineError, match="language model failed: RuntimeError: llama_decode"):
        await pipeline.answer(turn(spoken()), CollectingSink())
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
