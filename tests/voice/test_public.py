"""The public models of the set tiny: anybody's speech, and answers that can be listened to."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from labkit.audio.pcm import SAMPLE_RATE, Float32, read_audio, to_int16
from labkit.measure.recordings import load_manifest
from labkit.measure.wer import normalise, word_error_rate
from labkit.voice.hearing import Utterance
from labkit.voice.history import Exchange, History
from labkit.voice.models import SPOKEN
from labkit.voice.pipeline import VoicePipeline
from labkit.voice.reply import ReplyRules
from labkit.voice.scheduling import Stop
from labkit.voice.scripted import (
    CollectingSink,
    ScriptedAsr,
    ScriptedLlm,
    ScriptedTts,
    scripted_engines,
)
from labkit.voice.turn import Turn
from tests.engines import tiny_engines
from tests.paths import SPEECH

pytestmark = [pytest.mark.public, pytest.mark.slow]

HUMAN: Final = Path("/usr/share/sounds/alsa")
"""Eight phrases of Debian's alsa-utils, 48 kHz, each the name of its file."""
PHRASES: Final = tuple(
    f"{where} {side}"
    for where, sides in {
        "Front": ("Center", "Left", "Right"),
        "Rear": ("Center", "Left", "Right"),
        "Side": ("Left", "Right"),
    }.items()
    for side in sides
)


async def heard(audio: Float32, history: History | None = None) -> str:
    """What the recogniser makes of it, stretch by stretch, behind what was exchanged before."""
    engines = replace(tiny_engines(), llm=ScriptedLlm(lambda _: "Yes."), tts=ScriptedTts())
    pipeline, utterance = VoicePipeline(engines), Utterance(60 * SAMPLE_RATE, 512)
    utterance.append(to_int16(audio))
    turn = Turn("session", utterance, history or History(8))
    exchange = await pipeline.answer(turn, CollectingSink())
    pipeline.close()
    return exchange.user


@pytest.mark.timeout(300)
async def test_the_recordings_are_understood() -> None:
    recordings = [r for r in load_manifest(SPEECH) if r.kind.is_speech]
    pairs = [(r.text, await heard(read_audio(SPEECH / f"{r.name}.flac"))) for r in recordings]
    assert word_error_rate(pairs) <= 0.07
    two = next(text for r, (_, text) in zip(recordings, pairs, strict=True) if "two" in r.name)
    assert normalise(two)[-2:] == ["one", "minutes"]


@pytest.mark.parametrize("name", ["silence", "noise"])
async def test_nothing_is_heard_where_nobody_speaks(name: str) -> None:
    assert await heard(read_audio(SPEECH / f"{name}.flac")) == ""


@pytest.mark.parametrize("together", [True, False])
async def test_a_human_is_understood(together: bool) -> None:
    """All but "rear right" said first of all, which this model takes for "we're right"."""
    if not HUMAN.exists():
        pytest.skip("alsa-utils is not installed, which brings phrases spoken by a human")
    history, misheard = History(8), set[str]()
    for number, phrase in enumerate(PHRASES):
        audio = read_audio(HUMAN / f"{phrase.replace(' ', '_')}.wav")
        words = await heard(audio, history if together else None)
        history.record(number + 1, Exchange(words, "Yes."))
        if normalise(words) != normalise(phrase):
            misheard.add(phrase)
    assert misheard <= (set() if together else {"Rear Right"})


async def test_what_was_said_before_is_not_heard_in_noise() -> None:
    history, rng = History(8), np.random.default_rng(1)
    for number, said in enumerate(("Tell me about it.", "Thank you very much.", "Yes please.")):
        history.record(number + 1, Exchange(said, "Yes."))
    asr = tiny_engines().asr
    for level in (0.003, 0.03, 0.3):
        noise = (level * rng.standard_normal(2 * SAMPLE_RATE)).astype(np.float32)
        assert asr.transcribe(noise, Stop(), history.said()) == ""


class Voice(ScriptedTts):
    """Keeps what it is given to read."""

    def __init__(self) -> None:
        super().__init__(seconds_per_word=0.35)
        self.read: list[str] = []

    def synthesise(self, text: str, stop: Stop) -> Iterator[Float32]:
        self.read.append(text)
        return super().synthesise(text, stop)


@pytest.mark.parametrize(
    "said",
    [
        "Give me a recipe for pancakes, step by step.",
        "Write a Python program that prints the numbers from one to ten.",
        "Tell me everything about the history of Rome.",
    ],
)
@pytest.mark.parametrize("system", [SPOKEN, ""])
async def test_answers_can_be_listened_to(said: str, system: str) -> None:
    voice = Voice()
    engines = replace(
        scripted_engines(ScriptedAsr(lambda _: said), tts=voice), llm=tiny_engines().llm
    )
    pipeline, sink = VoicePipeline(engines, reply_rules=ReplyRules(system)), CollectingSink()
    utterance = Utterance(60 * SAMPLE_RATE, 512)
    utterance.append(np.full(8000, 3000, np.int16))
    exchange = await pipeline.answer(Turn("session", utterance, History(8)), sink)
    pipeline.close()
    assert exchange.assistant
    assert 0.5 < sum(map(len, sink.pieces)) / SAMPLE_RATE <= 15
    assert not set("*_#`|<>") & set("".join(voice.read))
