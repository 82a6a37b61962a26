"""Sounds that are not speech, said to the whole pipeline: does it hear words in them, and answer?

``python -m data.recipes.evaluation.inventions --models tiny`` plays ten minutes of them, from a
seed that is drawn anew and printed.
"""

import argparse
import asyncio
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from data.recipes.recogniser import nonspeech
from labkit.audio.pcm import SAMPLE_RATE, Float32, to_int16
from labkit.voice.hearing import Utterance, speech_stretches
from labkit.voice.history import History
from labkit.voice.loading import load_pipeline
from labkit.voice.models import resolve
from labkit.voice.pipeline import VoicePipeline
from labkit.voice.scripted import CollectingSink
from labkit.voice.turn import Turn

__all__ = ["SOUNDS", "Outcome", "listen", "main"]

SOUNDS: Final[Mapping[str, Callable[[random.Random, int], Float32]]] = {
    "silence": nonspeech.silence,
    "noise": nonspeech.noise,
    "chords": nonspeech.chords,
    "breaths": nonspeech.breaths,
    "keyboard": nonspeech.keyboard,
    "tones": nonspeech.tone,
    "knocks": nonspeech.clicks,
    "hum": nonspeech.hum,
    "humming": nonspeech.humming,
}
_LEVELS: Final = (0.01, 0.9)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one sound led to.

    Attributes:
        kind: Which of `SOUNDS`.
        seconds: Its length.
        stretches: How often the voice activity detector took it for speech.
        transcript: The words that were heard in it.
        reply: The sentences of the answer.
    """

    kind: str
    seconds: float
    stretches: int
    transcript: str
    reply: str


async def listen(pipeline: VoicePipeline, seed: int, seconds: float) -> list[Outcome]:
    """Say sounds of each kind to `pipeline`, `seconds` in all, each as an utterance of its own."""
    each = seconds / len(SOUNDS)
    return [
        await _hear(pipeline, kind, audio)
        for kind in SOUNDS
        for audio in _drawn(kind, random.Random(f"{seed} {kind}"), each)
    ]


def _drawn(kind: str, rng: random.Random, seconds: float) -> Iterator[Float32]:
    """Sounds of 2 to 15 s, at a peak between -40 and -1 dB; silence stays as it is."""
    left = seconds
    while left > 0:
        length = min(rng.uniform(2, 15), max(left, 2))
        left -= length
        audio = SOUNDS[kind](rng, round(length * SAMPLE_RATE))
        peak = float(np.abs(audio).max())
        level = np.exp(rng.uniform(*np.log(_LEVELS)))
        yield audio if kind == "silence" or not peak else audio * np.float32(level / peak)


async def _hear(pipeline: VoicePipeline, kind: str, audio: Float32) -> Outcome:
    utterance = Utterance(len(audio), pipeline.frame_samples)
    utterance.append(to_int16(audio))
    while utterance.unexamined(ended=True):
        await pipeline.listen(kind, utterance, ended=True)
    stretches = speech_stretches(utterance.probabilities, pipeline.frame_samples)
    sink = CollectingSink()
    exchange = await pipeline.answer(Turn(kind, utterance, History(1)), sink)
    seconds = len(audio) / SAMPLE_RATE
    return Outcome(kind, seconds, len(stretches), " ".join(sink.transcripts), exchange.assistant)


def main(arguments: Sequence[str] | None = None) -> int:
    """Say what was heard; 1 where a sound was taken for words, 0 otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="embedded", help="the set (embedded)")
    parser.add_argument("--minutes", type=float, default=10.0, help="of sounds in all (10)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args(arguments)
    pipeline = load_pipeline(resolve(options.models))
    outcomes = asyncio.run(listen(pipeline, options.seed, 60 * options.minutes))
    pipeline.close()
    sys.stdout.write(f"seed {options.seed}, {options.models}\n")
    for kind in SOUNDS:
        sys.stdout.write(_row(kind, [one for one in outcomes if one.kind == kind]))
    return 1 if any(one.transcript or one.reply for one in outcomes) else 0


def _row(kind: str, outcomes: Sequence[Outcome]) -> str:
    seconds = sum(one.seconds for one in outcomes)
    taken = sum(one.stretches for one in outcomes)
    heard = [one.transcript for one in outcomes if one.transcript]
    return (
        f"{kind:10} {seconds:6.0f} s, {taken:3} stretches taken for speech, "
        f"{len(heard)} transcripts {heard or ''}\n"
    )


if __name__ == "__main__":
    raise SystemExit(main())
