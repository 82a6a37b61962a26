"""The checks of chapter 0: three numbers that the whole course is about, each in a few lines."""

from typing import Any, Final

import numpy as np

from labkit.audio.pcm import SAMPLE_RATE, Float32, leading_silence, read_audio
from labkit.course.checks.check import checked_value
from labkit.course.probe import Trial
from labkit.measure.wer import word_error_rate

_CLOSE: Final = 0.002
"""Seconds, and share of an error rate, that an answer may be off."""
_CLOSE_DB: Final = 0.1
_AUDIBLE: Final = 0.01
_ONSET: Final = (0.1 * np.hanning(SAMPLE_RATE // 50)).astype(np.float32)
"""20 ms in one direction: longer than what an answer may be off."""
_MISHEARD: Final = (
    ("turn on the kitchen light", "turn on the chicken light"),
    ("call me grace", "call me chris"),
    ("so what is a web socket", "so what is a web"),
    ("please explain latency", "please explain a web"),
    ("good morning", ""),
    ("set a timer for two hours", "set a timer for twelve hours"),
    ("my number is one zero seven", "my number is one zero seven"),
)


@checked_value("ch0.level", "The level of audio, in decibels below full scale.")
async def level(trial: Trial, level_db: Any) -> None:
    """`level_db(samples)` for three recordings, each made louder or quieter by a drawn factor."""
    for said in trial.draw(3):
        samples = read_audio(said.path)
        samples = np.float32(trial.rng.uniform(0.1, 1.0)) * samples / np.abs(samples).max()
        true = 10 * float(np.log10(np.mean(np.square(samples, dtype=np.float64))))
        expected = (
            f"{true:.1f} dB for {said.name}, whose loudest sample is {np.abs(samples).max():.2f}"
        )
        given = trial.call(level_db, samples, expected=expected)
        trial.number(given, true, _CLOSE_DB, expected=expected, unit="dB")
        trial.ok(f"gives {true:.1f} dB for {said.name}")


@checked_value("ch0.dead_air", "Dead air ends with the first sample that is heard.")
async def dead_air(trial: Trial, function: Any) -> None:
    """`dead_air(end_of_speech_s, first_byte_s, reply)` for three replies, in 16 kHz samples.

    Each begins with a silence of drawn length, with noise in it that nobody hears (below 0.01).
    The first sound goes up in one, down in another.
    """
    for said, way in zip(trial.draw(3), (1, -1, trial.rng.choice((1, -1))), strict=True):
        end_s = trial.rng.uniform(1, 3)
        first_s = end_s + trial.rng.uniform(0.1, 0.5)
        reply = _reply(trial, way * _ONSET, read_audio(said.path))
        silent_s = leading_silence(reply, SAMPLE_RATE, _AUDIBLE)
        true = first_s - end_s + silent_s
        expected = (
            f"{true:.3f} s: the first byte comes {first_s - end_s:.3f} s after the last word, and "
            f"{silent_s:.3f} s of the reply are silent"
        )
        given = trial.call(function, end_s, first_s, reply, expected=expected)
        trial.number(given, true, _CLOSE, expected=expected, unit="s")
        trial.ok(f"gives {true:.3f} s")


def _reply(trial: Trial, onset: Float32, speech: Float32) -> Float32:
    count = round(trial.rng.uniform(0.05, 0.4) * SAMPLE_RATE)
    noise = np.random.default_rng(trial.rng.getrandbits(32)).uniform(-0.008, 0.008, count)
    loud = speech / np.abs(speech).max()
    return np.concatenate([noise.astype(np.float32), onset, loud])


@checked_value("ch0.error_rate", "All wrong words, over all words that were said.")
async def error_rate(trial: Trial, function: Any) -> None:
    """`error_rate(pairs)` for three lists of `(said, heard)`, drawn from sentences of all lengths.

    In one of them somebody said nothing that was heard.
    """
    for count in (3, 4, 5):
        pairs = trial.rng.sample(_MISHEARD, count)
        true = word_error_rate(pairs)
        expected = f"{true:.3f} for {pairs}"
        given = trial.call(function, pairs, expected=expected)
        trial.number(given, true, _CLOSE, expected=expected)
        trial.ok(f"gives {true:.3f} for {count} sentences")


CHECKS: Final = (level, dead_air, error_rate)
