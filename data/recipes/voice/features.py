"""What the voice learns to predict for each frame of 6 ms, measured with WORLD.

A frame is 51 numbers: 48 log amplitudes on a mel scale, log F0, voicing, aperiodicity.
"""

from typing import Final

import numpy as np

__all__ = [
    "APERIODICITY", "BANDS", "FFT", "FRAME_S", "HOP", "LOG_F0", "SAMPLE_RATE", "VOICING", "WIDTH",
    "analyse", "band_weights",
]  # fmt: skip

SAMPLE_RATE: Final = 16_000
HOP: Final = 96
FFT: Final = 512
BANDS: Final = 48
LOG_F0, VOICING, APERIODICITY = BANDS, BANDS + 1, BANDS + 2
WIDTH: Final = BANDS + 3
FRAME_S: Final = HOP / SAMPLE_RATE

_LOWEST_F0: Final = 80.0
_HIGHEST_F0: Final = 400.0
_ANALYSIS_FFT: Final = 1024
_FLOOR: Final = 1e-5


def mel(hertz: np.ndarray | float) -> np.ndarray:
    """The mel scale of O'Shaughnessy (1987)."""
    return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)


def band_weights(bins: int) -> np.ndarray:
    """Triangles around mel-spaced centres from 0 Hz to half the sample rate, `(bins, BANDS)`.

    Each row sums to 1: it is the linear interpolation from the bands to the bins.
    """
    place = mel(np.linspace(0, SAMPLE_RATE / 2, bins))
    centres = np.linspace(0, place[-1], BANDS)
    distance = np.abs(place[:, None] - centres) / centres[1]
    return np.maximum(0.0, 1.0 - distance)


def analyse(audio: np.ndarray) -> np.ndarray:
    """The features of speech (16 kHz, float64, shape `(n,)`), shape `(n // HOP + 1, WIDTH)`.

    F0 by DIO and StoneMask, the envelope by CheapTrick, aperiodicity by D4C (Morise, 2009 to
    2017). Harvest finds the same F0 in this clean speech, and takes twenty times as long.
    """
    import pyworld

    coarse, times = pyworld.dio(
        audio, SAMPLE_RATE, f0_floor=_LOWEST_F0, f0_ceil=_HIGHEST_F0, frame_period=1000 * FRAME_S
    )
    f0 = pyworld.stonemask(audio, coarse, times, SAMPLE_RATE)
    power = pyworld.cheaptrick(audio, f0, times, SAMPLE_RATE, fft_size=_ANALYSIS_FFT)
    noise = pyworld.d4c(audio, f0, times, SAMPLE_RATE, fft_size=_ANALYSIS_FFT)
    voiced = f0 > 0
    features = np.empty((len(f0), WIDTH), np.float32)
    features[:, :BANDS] = _bands(power)
    features[:, LOG_F0] = _filled(f0, voiced)
    features[:, VOICING] = voiced
    features[:, APERIODICITY] = pyworld.code_aperiodicity(noise, SAMPLE_RATE)[:, 0] / 20.0
    return features


def _bands(power: np.ndarray) -> np.ndarray:
    """Log amplitudes: the mean of the log amplitude around each centre."""
    weights = band_weights(power.shape[1])
    logs = 0.5 * np.log(power + _FLOOR**2)
    return logs @ (weights / weights.sum(0))


def _filled(f0: np.ndarray, voiced: np.ndarray) -> np.ndarray:
    """Log F0, with straight lines where nothing is voiced."""
    if not voiced.any():
        return np.full(len(f0), np.log(180.0))
    places = np.flatnonzero(voiced)
    return np.interp(np.arange(len(f0)), places, np.log(f0[places]))
