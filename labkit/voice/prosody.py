"""Pitch and level of the last sounds before a silence, beside those of what was said before.

Whoever has finished tends to end low in their range and softly; whoever only pauses keeps pitch and
voice up (Gravano and Hirschberg, "Turn-taking cues in task-oriented dialogue", 2011). A question
may rise, and many ends are level, so this is a hint and no proof. Synthetic voices fall with
particular regularity: what it gains on them is more than what it gains with people.

The pitch is the strongest autocorrelation of each frame, looked for twice: once anywhere, and once
around the median of the first time, which leaves hardly an octave error.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from labkit.audio.pcm import SAMPLE_RATE, Float32

WINDOW_SAMPLES: Final = 3 * SAMPLE_RATE
"""So much of what was said last is looked at: it bounds the work of a pause."""
_RATE: Final = SAMPLE_RATE // 2
_FRAME: Final = _RATE // 25
_HOP: Final = _RATE // 50
_FFT: Final = 512
_LAGS: Final = (_RATE // 400, _RATE // 65)
"""Periods of 400 and 65 Hz, in samples."""
_VOICED: Final = 0.6
_OCTAVE_COSTS: Final = 0.05
_AUDIBLE_DB: Final = 30.0
_LAST: Final = 5
_FEWEST: Final = 5


@dataclass(frozen=True, slots=True)
class Prosody:
    """How the last voiced sounds lie beside the others.

    Attributes:
        pitch: Median pitch of all of them, in octaves above 1 Hz.
        last_pitch: Median pitch of the last 100 ms of them, in the same unit.
        last_db: Level of these over the median level, in dB; below 0 where they are softer.
    """

    pitch: float
    last_pitch: float
    last_db: float


def prosody(samples: Float32) -> Prosody | None:
    """Measure the last 3 s of what was said so far, 16 kHz; None where too little is voiced."""
    samples = samples[-WINDOW_SAMPLES:]
    # Half the rate: pitch lies far below what that folds, and it halves the work.
    halved = samples[: len(samples) - 1 : 2] + samples[1::2]
    if len(halved) < _FRAME:
        return None
    frames = np.lib.stride_tricks.sliding_window_view(halved, _FRAME)[::_HOP]
    frames = frames - frames.mean(axis=1, keepdims=True)
    level_db = 10 * np.log10(np.mean(np.square(frames), axis=1) + 1e-10)
    audible = level_db > level_db.max() - _AUDIBLE_DB
    alike = _autocorrelation(frames)
    periods, strength = _strongest(alike, *_LAGS)
    voiced = audible & (strength >= _VOICED)
    if np.count_nonzero(voiced) < _FEWEST:
        return None
    usual = float(np.median(periods[voiced]))
    around = max(_LAGS[0], round(usual / 1.6)), min(_LAGS[1], round(usual * 2))
    periods, strength = _strongest(alike, *around)
    places = np.flatnonzero(audible & (strength >= _VOICED))
    if len(places) < _FEWEST:
        return None
    pitch, last = np.log2(_RATE / periods[places]), places[-_LAST:]
    return Prosody(
        float(np.median(pitch)),
        float(np.median(pitch[-_LAST:])),
        float(np.mean(level_db[last]) - np.median(level_db[places])),
    )


def _autocorrelation(frames: Float32) -> Float32:
    """How alike each frame is to itself so many samples later, by lag, 1 at lag 0.

    Divided by that of the window, which fades frames and so would favour short lags (Boersma 1993).
    """
    window = np.hanning(_FRAME).astype(np.float32)
    spectra = np.fft.rfft(np.vstack([frames * window, window]), _FFT)
    power = np.square(np.abs(spectra)).astype(np.complex64)
    # Circular, but what comes round lies beyond the longest lag.
    found = np.fft.irfft(power)[:, : _LAGS[1] + 1]
    found = found / (found[:, :1] + np.float32(1e-12))
    alike: Float32 = found[:-1] / found[-1]
    return alike


def _strongest(alike: Float32, shortest: int, longest: int) -> tuple[NDArray[np.intp], Float32]:
    """Of each frame, the lag between these at which it is most alike, and how much.

    What repeats after one period does so after two: of two as good, the shorter counts. At the
    shortest lag of all a rumble is as alike as it gets: that is no peak, and counts as 0.
    """
    lags = np.arange(shortest, longest + 1)
    best = (alike[:, lags] - _OCTAVE_COSTS * np.log2(lags)).argmax(axis=1) + shortest
    strength = np.take_along_axis(alike, best[:, None], axis=1)[:, 0]
    return best, np.where(best > shortest, strength, 0)
