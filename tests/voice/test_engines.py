"""Engines that give what is no probability, no text and no audio, or raise anything."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from labkit.audio.pcm import SAMPLE_RATE, Float32
from labkit.errors import AudioError, EngineError
from labkit.voice.engines import Engines
from labkit.voice.hearing import Utterance
from labkit.voice.history import Exchange, History, Message
from labkit.voice.pipeline import VoicePipeline
from labkit.voice.scheduling import Stop
from labkit.voice.scripted import (
    CollectingSink,
    EnergyVad,
    ScriptedAsr,
    ScriptedLlm,
    ScriptedTts,
    scripted_engines,
)
from labkit.voice.turn import Turn

RAISES = [
    RuntimeError("llama_decode returned -3"),
    AudioError("of labkit's own"),
    StopIteration(),
    SystemExit(1),
    KeyboardInterrupt(),
    asyncio.CancelledError(),
    ValueError("half a character: \ud800"),
]


class _Once:
    """Gives `value` once, or raises it; from then on, what is right."""

    def __init__(self, value: Any) -> None:
        self._values = [value]

    def take(self, right: Any) -> Any:
        value = self._values.pop() if self._values else right
        if isinstance(value, BaseException):
            raise value
        return value


class _Vad(EnergyVad, _Once):
    def probabilities(self, state: object, audio: Float32) -> tuple[list[float], object]:
        return self.take(super().probabilities(state, audio))  # type: ignore[no-any-return]


class _Asr(ScriptedAsr):
    def __init__(self, value: Any) -> None:
        super().__init__()
        self.once = _Once(value)

    def transcribe(self, audio: Float32, stop: Stop, before: str = "") -> str:
        return self.once.take("hello")  # type: ignore[no-any-return]


class _Llm(ScriptedLlm):
    def __init__(self, value: Any) -> None:
        super().__init__()
        self.once = _Once(value)

    def reply(self, messages: Sequence[Message], stop: Stop) -> Iterator[str]:
        yield "Well. "
        yield self.once.take("Yes.")


class _Tts(ScriptedTts):
    def __init__(self, value: Any) -> None:
        super().__init__()
        self.once = _Once(value)

    def synthesise(self, text: str, stop: Stop) -> Iterator[Float32]:
        yield self.once.take(np.full(800, 0.5, np.float32))


class _Rate(ScriptedTts):
    def __init__(self, value: Any) -> None:
        self.once = _Once(value)
        self.seconds_per_word = 0.1

    @property
    def sample_rate(self) -> int:  # type: ignore[override]
        return self.once.take(SAMPLE_RATE)  # type: ignore[no-any-return]


def test_an_engine_that_fails_when_it_is_warmed_up_is_named() -> None:
    class Cold(ScriptedAsr):
        def warm_up(self) -> None:
            raise RuntimeError("no such token")

    with pytest.raises(EngineError, match="^speech recognition failed: RuntimeError: no"):
        replace(scripted_engines(), asr=Cold()).warm_up()


async def both_turns(engines: Engines) -> tuple[str, Exchange]:
    """What the first turn's error says, and what the next turn gives."""
    pipeline, utterances = VoicePipeline(engines), []
    for _ in range(2):
        utterances.append(Utterance(SAMPLE_RATE, 512))
        utterances[-1].append(np.full(8000, 3000, np.int16))
    with pytest.raises(EngineError) as failure:
        await pipeline.answer(Turn("session", utterances[0], History(8)), CollectingSink())
    exchange = await pipeline.answer(Turn("session", utterances[1], History(8)), CollectingSink())
    pipeline.close()
    str(failure.value).encode()  # an error's text goes out as a message
    return str(failure.value), exchange


@pytest.mark.parametrize(
    "gives",
    [
        None,
        ([0.5] * 16, None),
        ([0.5] * 15, ()),
        ([np.nan] * 16, ()),
        (["0.5"] * 16, ()),
        ([None] * 16, ()),
        ([-0.1] * 16, ()),
        *RAISES,
    ],
    ids=repr,
)
async def test_a_detector(gives: Any) -> None:
    said, exchange = await both_turns(replace(scripted_engines(), vad=_Vad(gives)))
    assert said.startswith("voice activity detection ")
    assert exchange.user


@pytest.mark.parametrize("gives", [None, b"hello", 7, "\ud800", "a\x00b", "\x1b[31m", *RAISES])
async def test_a_recogniser(gives: Any) -> None:
    said, exchange = await both_turns(scripted_engines(asr=_Asr(gives)))
    assert said.startswith("speech recognition ")
    assert exchange.user == "hello"


@pytest.mark.parametrize("gives", [None, b"Yes.", ["Yes."], "\udfff", "\x07", *RAISES])
async def test_a_language_model(gives: Any) -> None:
    said, exchange = await both_turns(scripted_engines(llm=_Llm(gives)))
    assert said.startswith("language model ")
    assert exchange.assistant == "Well. Yes."


@pytest.mark.parametrize(
    "gives",
    [
        None,
        b"\x00\x01",
        [0.0, 0.1],
        np.zeros(10),
        np.zeros(10, np.int16),
        np.zeros((2, 10), np.float32),
        np.float32(0.5),
        np.full(10, np.nan, np.float32),
        np.full(10, -np.inf, np.float32),
        *RAISES,
    ],
    ids=repr,
)
async def test_a_voice(gives: Any) -> None:
    said, exchange = await both_turns(scripted_engines(tts=_Tts(gives)))
    assert said.startswith("speech synthesis ")
    assert exchange.assistant


@pytest.mark.parametrize("gives", [None, 0, -16_000, 22_050.5, "16000", RuntimeError("gone")])
async def test_a_voice_of_no_rate(gives: Any) -> None:
    said, exchange = await both_turns(scripted_engines(tts=_Rate(gives)))
    assert said.startswith("speech synthesis ")
    assert exchange.assistant


async def test_an_error_says_what_was_given() -> None:
    said, _ = await both_turns(scripted_engines(tts=_Tts(np.zeros(10, np.int16))))
    assert said == (
        "speech synthesis gave an array of int16 and shape (10,); audio is a row of float32 samples"
    )
    said, _ = await both_turns(scripted_engines(asr=_Asr(b"hello")))
    assert said == "speech recognition gave a value of type bytes where text belongs"
    said, _ = await both_turns(scripted_engines(llm=_Llm("\ud800")))
    assert said == "language model gave text with the character '\\ud800'"


async def test_what_an_engine_says_of_itself_is_cut_short() -> None:
    said, _ = await both_turns(scripted_engines(asr=_Asr(RuntimeError("x" * 10_000))))
    assert len(said) < 400


async def test_text_may_have_lines_and_letters_of_any_kind() -> None:
    pipeline, sink = (
        VoicePipeline(scripted_engines(asr=_Asr(" héllo\n\twörld 你好 "))),
        CollectingSink(),
    )
    utterance = Utterance(SAMPLE_RATE, 512)
    utterance.append(np.full(8000, 3000, np.int16))
    await pipeline.answer(Turn("session", utterance, History(8)), sink)
    assert sink.transcripts == ["héllo\n\twörld 你好"]
    pipeline.close()
