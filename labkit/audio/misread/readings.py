"""One block of bytes under several readings, and how much like sound each of them is.

Sound is predictable: a sample of speech, music or a tone follows from the few before it. Bytes
read in the wrong layout are not: what were low bits become high ones, and the samples jump over
the whole scale. So two figures tell the readings apart: the level, and the gain of a linear
predictor (Makhoul, "Linear prediction: a tutorial review", Proc. IEEE 63(4), 1975).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from operator import sub
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from labkit.audio.formats import ALAW, MULAW, Encoding, Law
from labkit.errors import ErrorCode

__all__ = ["DECLARED", "READINGS", "Float64", "Reading", "Sound", "sound_of"]

Float64: TypeAlias = NDArray[np.float64]

_ORDER: Final = 4
"""Samples that the predictor looks back. More add little for speech, and would follow the
pattern that repeats every four bytes where floats are misread."""
_INVALID_DB: Final = 1.0
"""RMS, in dBFS, that no audio within ±1 has."""
_TINY: Final = 2.0**-32
"""No sample of a converter is smaller and not zero; misread floats are."""
_FLOOR: Final = 1e-20


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read bytes as samples.

    Attributes:
        kind: What it means where audio turns out to be laid out like this.
        name: What the bytes are taken for.
        sample_bytes: Bytes of one sample.
        decode: Bytes to samples, full scale 1, from a byte (`skip`) on.
        hint: What to send or to declare, where this is the right reading.
        skip: Bytes before the first whole sample.
    """

    kind: ErrorCode
    name: str
    sample_bytes: int
    decode: Callable[[bytes, int], Float64]
    hint: str
    skip: int = 0

    def frames(self, block: bytes, channels: int) -> Float64:
        """The block as samples, shape `(frames, channels)`; an incomplete frame is left out."""
        samples = self.decode(block, self.skip)
        return samples[: len(samples) // channels * channels].reshape(-1, channels)


def _integers(data: bytes, skip: int, *, dtype: str, scale: float, zero: float = 0) -> Float64:
    whole = (len(data) - skip) // np.dtype(dtype).itemsize
    samples: Float64 = np.frombuffer(data, dtype, whole, skip).astype(np.float64)
    return (samples - zero) / scale if zero else samples / scale


def _floats(data: bytes, skip: int, *, dtype: str, scale: float = 1) -> Float64:
    whole = (len(data) - skip) // 4
    # What is no number stays so; numpy would warn of signalling NaN.
    with np.errstate(invalid="ignore"):
        return np.frombuffer(data, dtype, whole, skip).astype(np.float64) / scale


def _telephone(data: bytes, skip: int, *, law: Law) -> Float64:
    return law.decode_int16(data[skip:]) / 32_768


_int16 = partial(_integers, scale=32_768)
_S16LE, _F32LE, _MULAW, _ALAW = Encoding

DECLARED: Final = {
    _S16LE: Reading(
        ErrorCode.LOOKS_LIKE_INT16,
        "16-bit integers",
        2,
        partial(_int16, dtype="<i2"),
        f"declare the encoding {_S16LE}",
    ),
    _F32LE: Reading(
        ErrorCode.LOOKS_LIKE_FLOAT32,
        "32-bit floats",
        4,
        partial(_floats, dtype="<f4"),
        f"declare the encoding {_F32LE}, or convert each sample: round(sample * 32767) as int16",
    ),
    _MULAW: Reading(
        ErrorCode.LOOKS_LIKE_MULAW,
        "µ-law",
        1,
        partial(_telephone, law=MULAW),
        f"declare the encoding {_MULAW}",
    ),
    _ALAW: Reading(
        ErrorCode.LOOKS_LIKE_ALAW,
        "A-law",
        1,
        partial(_telephone, law=ALAW),
        f"declare the encoding {_ALAW}",
    ),
}
"""How each encoding that a caller may declare is read, without clipping or refusing anything."""

_UNDECLARABLE: Final = (
    Reading(
        ErrorCode.LOOKS_LIKE_UINT8,
        "unsigned 8-bit integers",
        1,
        partial(_integers, dtype="u1", scale=128, zero=128),
        f"convert to {_S16LE}: (byte - 128) * 256 as int16; 8-bit audio cannot be declared",
    ),
    Reading(
        ErrorCode.LOOKS_LIKE_BIG_ENDIAN,
        "big-endian 16-bit integers",
        2,
        partial(_int16, dtype=">i2"),
        f"swap the two bytes of each sample, the low byte goes first; declare {_S16LE}",
    ),
    Reading(
        ErrorCode.LOOKS_LIKE_BIG_ENDIAN,
        "big-endian 32-bit floats",
        4,
        partial(_floats, dtype=">f4"),
        f"reverse the four bytes of each sample, the low byte goes first; declare {_F32LE}",
    ),
    Reading(
        ErrorCode.FLOAT_OUT_OF_SCALE,
        "32-bit floats on the scale of 16-bit integers",
        4,
        partial(_floats, dtype="<f4", scale=32_768),
        f"divide each sample by 32768 and declare the encoding {_F32LE}",
    ),
)


def _from_byte(skip: int, reading: Reading) -> Reading:
    return replace(reading, name=f"{reading.name} from byte {skip} on", skip=skip)


READINGS: Final = (
    *DECLARED.values(),
    *_UNDECLARABLE,
    _from_byte(1, DECLARED[_S16LE]),
    *(_from_byte(skip, DECLARED[_F32LE]) for skip in (1, 2, 3)),
)
"""Every reading that is tried where the declared one gives no sound."""


@dataclass(frozen=True)
class Sound:
    """How much like sound some samples are.

    Attributes:
        frames: The samples, shape `(frames, channels)`.
        level_db: RMS around their mean, in dBFS.
        valid: Whether all samples are finite, their RMS is below the full scale, and not all of
            them are too small for any converter.
    """

    frames: Float64
    level_db: float
    valid: bool

    @cached_property
    def centred(self) -> Float64:
        """The samples without their mean; only where `valid` is true."""
        return self.frames - _means(self.frames)

    @cached_property
    def gain_db(self) -> float:
        """How far below the signal the error of the best linear predictor lies.

        About 0 for noise, 4 to 25 for speech; 0 where `valid` is false.
        """
        return _prediction_gain_db(self.centred) if self.valid else 0.0


def sound_of(frames: Float64) -> Sound:
    """Measure samples of shape `(frames, channels)`, at least five frames."""
    samples = frames.reshape(-1)
    power = float(samples @ samples) / samples.size
    if not math.isfinite(power):
        return Sound(frames, np.inf, valid=False)
    means = _means(frames)
    level_db = 10 * math.log10(max(power - float(means @ means) / means.size, 0.0) + _FLOOR)
    tiny = power < _TINY**2 and _is_tiny(frames, frames - means)
    return Sound(frames, level_db, level_db <= _INVALID_DB and not tiny)


def _means(frames: Float64) -> Float64:
    """What `mean(axis=0)` gives, in half of the time."""
    means: Float64 = np.add.reduce(frames, axis=0) / len(frames)
    return means


def _is_tiny(frames: Float64, centred: Float64) -> bool:
    """Whether all samples are far below a converter's, and yet no mere offset."""
    peak = np.abs(frames).max()
    return bool(peak < _TINY and np.abs(centred).max() > 0.01 * peak)


def _prediction_gain_db(centred: Float64) -> float:
    """Autocorrelation method over all channels at once, solved by Levinson and Durbin."""
    samples, channels = centred.reshape(-1), centred.shape[1]
    # Behind as many zeros as samples are looked back, all lags come from one call.
    padded = np.zeros(samples.size + _ORDER * channels)
    padded[: samples.size] = samples
    lags: list[float] = np.correlate(padded, samples, "valid")[::channels].tolist()
    if lags[0] <= _FLOOR:
        return 0.0
    # The small addition keeps pure tones, which are wholly predictable, solvable.
    error = lags[0] * (1 + 1e-9)
    weights: list[float] = []
    for order in range(1, _ORDER + 1):
        known = 0.0
        for i, weight in enumerate(weights, start=1):
            known += weight * lags[order - i]
        reflection = (lags[order] - known) / error
        mirrored = [weight * reflection for weight in reversed(weights)]
        weights = [*map(sub, weights, mirrored), reflection]
        error *= 1 - reflection * reflection
        if error <= 0:
            break
    return -10 * math.log10(max(error / lags[0], 1e-9))
