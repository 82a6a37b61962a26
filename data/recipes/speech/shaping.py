"""From what a synthesiser made to a recording: level, silence around the speech, noise floor."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labkit.audio.pcm import SAMPLE_RATE

Float32 = NDArray[np.float32]

FLOOR_DBFS = -66.0
"""RMS of the noise floor under every recording: a quiet room, not digital zero."""

_FRAME = SAMPLE_RATE // 200  # 5 ms
_AUDIBLE_DB = 36.0
_LATEST_S = 0.12
_EARLIEST_S = 0.15


@dataclass(frozen=True)
class Speech:
    """Speech cut to its first and last phone.

    Attributes:
        samples: Mono float32 at 16 kHz, shape `(n,)`.
        end: Index of the last audible sample.
    """

    samples: Float32
    end: int


def end_of_speech(samples: Float32, phones_end_s: float) -> int:
    """Index of the last audible sample of speech.

    The synthesiser's own timing says where to look; the energy says where the sound ends: the
    last 5 ms frame within 36 dB of the loudest ones.

    Raises:
        ValueError: Timing and energy disagree by more than 120 ms after or 150 ms before it.
    """
    whole = samples[: len(samples) // _FRAME * _FRAME].reshape(-1, _FRAME)
    level = np.sqrt(np.mean(whole.astype(np.float64) ** 2, axis=1))
    loud = np.percentile(level, 95)
    last = int(np.flatnonzero(level > loud * 10 ** (-_AUDIBLE_DB / 20))[-1])
    end = (last + 1) * _FRAME - 1
    if not -_EARLIEST_S <= end / SAMPLE_RATE - phones_end_s <= _LATEST_S:
        raise ValueError(
            f"the sound ends at {end / SAMPLE_RATE:.3f} s, the last phone at {phones_end_s:.3f} s"
        )
    return end


def at_level(samples: Float32, dbfs: float) -> Float32:
    """Scale `samples` so that their RMS is `dbfs`; peaks are kept below full scale."""
    gain = 10 ** (dbfs / 20) / np.sqrt(np.mean(samples.astype(np.float64) ** 2))
    return (samples * min(gain, 0.95 / np.abs(samples).max())).astype(np.float32)


def fade_edges(samples: Float32, seconds: float = 0.01) -> Float32:
    """Fade the first and last `seconds` in and out, so that no edge clicks."""
    ramp = np.linspace(0, 1, round(seconds * SAMPLE_RATE), dtype=np.float32)
    faded = samples.copy()
    faded[: len(ramp)] *= ramp
    faded[-len(ramp) :] *= ramp[::-1]
    return faded


def silence(seconds: float) -> Float32:
    """Digital zero; the noise floor is added once, to the whole recording."""
    return np.zeros(round(seconds * SAMPLE_RATE), dtype=np.float32)


def with_floor(samples: Float32, random: np.random.Generator) -> Float32:
    """Lay the noise floor under `samples`."""
    return (samples + noise(len(samples), FLOOR_DBFS, random)).astype(np.float32)


def noise(samples: int, dbfs: float, random: np.random.Generator) -> Float32:
    """White Gaussian noise of an RMS of `dbfs`."""
    return (random.standard_normal(samples) * 10 ** (dbfs / 20)).astype(np.float32)
