"""One block of bytes under several readings, and how much like sound each of them is.

Sound is predictable: a sample of speech, music or a tone follows from the few before it. Bytes
read in the wrong layout are not: what were low bits become high ones, and the samples jump over
the whole scale. So two figures tell the readings apart: the level, and the gain of a linear
predictor (Makhoul, "Linear prediction: a tutorial review", Proc. IEEE 63(4), 1975).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from labkit.audio import g711
from labkit.audio.formats import Encoding
from labkit.errors import ErrorCode

__all__ = ["ALTERNATIVES", "DECLARED", "Float64", "Reading", "Sound", "sound_of"]

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
        decode: Bytes to samples, full scale 1.
        hint: What to send or to declare, where this is the right reading.
        only: The declared encoding beside which the reading makes sense; None for any.
    """

    kind: ErrorCode
    name: str
    decode: Callable[[bytes], Float64]
    hint: str
    only: Encoding | None = None

    def frames(self, block: bytes, channels: int) -> Float64:
        """The block as samples, shape `(frames, channels)`; an incomplete frame is left out."""
        samples = self.decode(block)
        return samples[: len(samples) // channels * channels].reshape(-1, channels)


def _numbers(data: bytes, *, dtype: str, scale: float, zero: float = 0, skip: int = 0) -> Float64:
    whole = (len(data) - skip) // np.dtype(dtype).itemsize
    # What is no number stays so; numpy would warn of signalling NaN.
    with np.errstate(invalid="ignore"):
        return (np.frombuffer(data, dtype, whole, skip).astype(np.float64) - zero) / scale


def _telephone(data: bytes, law: g711.Law) -> Float64:
    return law.decode(data).astype(np.float64)


_int16 = partial(_numbers, scale=32_768)
_float32 = partial(_numbers, scale=1)
_S16LE, _F32LE, _MULAW, _ALAW = Encoding

DECLARED: Final = {
    _S16LE: Reading(
        ErrorCode.LOOKS_LIKE_INT16,
        "16-bit integers",
        partial(_int16, dtype="<i2"),
        f"declare the encoding {_S16LE}",
    ),
    _F32LE: Reading(
        ErrorCode.LOOKS_LIKE_FLOAT32,
        "32-bit floats",
        partial(_float32, dtype="<f4"),
        f"declare the encoding {_F32LE}, or convert each sample: round(sample * 32767) as int16",
    ),
    _MULAW: Reading(
        ErrorCode.LOOKS_LIKE_MULAW,
        "µ-law",
        partial(_telephone, law=g711.MULAW),
        f"declare the encoding {_MULAW}",
    ),
    _ALAW: Reading(
        ErrorCode.LOOKS_LIKE_ALAW,
        "A-law",
        partial(_telephone, law=g711.ALAW),
        f"declare the encoding {_ALAW}",
    ),
}
"""How each encoding that a caller may declare is read, without clipping or refusing anything."""

ALTERNATIVES: Final = (
    *DECLARED.values(),
    Reading(
        ErrorCode.LOOKS_LIKE_UINT8,
        "unsigned 8-bit integers",
        partial(_numbers, dtype="u1", scale=128, zero=128),
        f"convert to {_S16LE}: (byte - 128) * 256 as int16; 8-bit audio cannot be declared",
    ),
    Reading(
        ErrorCode.LOOKS_LIKE_BIG_ENDIAN,
        "big-endian 16-bit integers",
        partial(_int16, dtype=">i2"),
        "swap the two bytes of each sample: the low byte goes first",
    ),
    Reading(
        ErrorCode.LOOKS_LIKE_BIG_ENDIAN,
        "big-endian 32-bit floats",
        partial(_float32, dtype=">f4"),
        "reverse the four bytes of each sample: the low byte goes first",
    ),
    Reading(
        ErrorCode.FLOAT_OUT_OF_SCALE,
        "32-bit floats on the scale of 16-bit integers",
        partial(_numbers, dtype="<f4", scale=32_768),
        f"divide each sample by 32768 and declare the encoding {_F32LE}",
    ),
    *(
        Reading(
            ErrorCode.LOOKS_SHIFTED,
            f"{name} from byte {skip} on",
            partial(decode, skip=skip),
            "send whole samples only: bytes were lost or added, such as a header of odd length",
            only=encoding,
        )
        for name, encoding, decode, skips in (
            ("16-bit integers", _S16LE, partial(_int16, dtype="<i2"), (1,)),
            ("32-bit floats", _F32LE, partial(_float32, dtype="<f4"), (1, 2, 3)),
        )
        for skip in skips
    ),
)
"""Every reading that is tried where the declared one gives no sound."""


@dataclass(frozen=True)
class Sound:
    """How much like sound some samples are.

    Attributes:
        centred: The samples without their mean, shape `(frames, channels)`.
        level_db: RMS of these, in dBFS.
        valid: Whether all samples are finite, their RMS is below the full scale, and not all of
            them are too small for any converter.
    """

    centred: Float64
    level_db: float
    valid: bool

    @cached_property
    def gain_db(self) -> float:
        """How far below the signal the error of the best linear predictor lies.

        About 0 for noise, 4 to 25 for speech; 0 where `valid` is false.
        """
        return _prediction_gain_db(self.centred) if self.valid else 0.0


def sound_of(frames: Float64) -> Sound:
    """Measure samples of shape `(frames, channels)`, at least five frames."""
    if not np.isfinite(frames).all():
        return Sound(frames, np.inf, valid=False)
    centred = frames - frames.mean(axis=0)
    level_db = float(10 * np.log10(np.vdot(centred, centred) / centred.size + _FLOOR))
    return Sound(centred, level_db, level_db <= _INVALID_DB and not _is_tiny(frames, centred))


def _is_tiny(frames: Float64, centred: Float64) -> bool:
    """Whether all samples are far below a converter's, and yet no mere offset."""
    peak = np.abs(frames).max()
    return bool(peak < _TINY and np.abs(centred).max() > 0.01 * peak)


def _prediction_gain_db(centred: Float64) -> float:
    """Autocorrelation method, over all channels at once."""
    length = len(centred)
    lags = np.array([np.vdot(centred[: length - lag], centred[lag:]) for lag in range(_ORDER + 1)])
    if lags[0] <= _FLOOR:
        return 0.0
    lags /= lags[0]
    toeplitz = lags[np.abs(np.subtract.outer(range(_ORDER), range(_ORDER)))]
    # The small diagonal keeps pure tones, which are wholly predictable, solvable.
    weights = np.linalg.solve(toeplitz + 1e-9 * np.eye(_ORDER), lags[1:])
    return -10 * math.log10(max(1 - float(lags[1:] @ weights), 1e-9))
