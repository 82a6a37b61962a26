"""The two laws of the telephone, ITU-T G.711: µ-law and A-law, one byte a sample.

Both write a sample as a sign, three bits of segment and four of step: the steps are equal within a
segment and twice as wide in the next one, so that the error stays some 37 dB below speech whether
it is loud or quiet. µ-law (North America, Japan) begins with the finer steps, A-law (elsewhere)
with the wider ones. The same bytes under the other law are the same sound with its quiet parts
torn up, which is why a caller has to say which one it sends.

There are 256 codes and 65,536 samples of 16 bits, so both directions are tables.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from labkit.audio.pcm import Float32, Int16, encode_s16le, to_float32

__all__ = ["ALAW", "MULAW", "Law"]


@dataclass(frozen=True, slots=True, eq=False)
class Law:
    """A way to write 16-bit samples in one byte each.

    Attributes:
        levels: The 16-bit value of each of the 256 codes.
        codes: The code of each 16-bit value, in the order of the value's bits read as unsigned.
    """

    levels: Int16
    codes: NDArray[np.uint8]

    def __post_init__(self) -> None:
        """Let nobody write into what all streams share."""
        self.levels.flags.writeable = False
        self.codes.flags.writeable = False

    def decode_int16(self, data: bytes | bytearray | memoryview) -> Int16:
        """Turn codes into 16-bit integers."""
        return self.levels[np.frombuffer(data, dtype=np.uint8)]

    def decode(self, data: bytes | bytearray | memoryview) -> Float32:
        """Turn codes into float32 in (-1, 1)."""
        return to_float32(self.decode_int16(data))

    def encode(self, samples: Float32) -> bytes:
        """Turn float samples, clipped to [-1, 1], into codes.

        Each sample becomes the code of the step that it lies in.

        Raises:
            AudioError: A sample is not a number.
        """
        codes: NDArray[np.uint8] = self.codes[np.frombuffer(encode_s16le(samples), dtype="<u2")]
        return codes.tobytes()


_ALL_CODES: Final = np.arange(256, dtype=np.int32)
_ALL_INT16: Final = np.arange(65_536, dtype=np.uint16).view(np.int16).astype(np.int32)


def _law(levels: NDArray[np.int32], codes: NDArray[np.int32]) -> Law:
    return Law(levels.astype(np.int16), codes.astype(np.uint8))


# -- µ-law -----------------------------------------------------------------------------------

_MU_BIAS: Final = 132
_MU_CLIP: Final = 32_635
"""Louder values all fall into the last step of the last segment."""


def _mu_levels() -> NDArray[np.int32]:
    """Table 2: the bits of the code are inverted.

    On the scale of 16 bits, step `n` of segment `s` begins at (8n + 128)·2^s − 132 and is 8·2^s
    wide, so that its middle is (8n + 132)·2^s − 132.
    """
    code = _ALL_CODES ^ 0xFF
    segment, step = code >> 4 & 7, code & 15
    magnitude = (8 * step + _MU_BIAS << segment) - _MU_BIAS
    return np.where(code & 0x80, -magnitude, magnitude)


def _mu_codes() -> NDArray[np.int32]:
    biased = np.minimum(np.abs(_ALL_INT16), _MU_CLIP) + _MU_BIAS
    segment = np.floor(np.log2(biased)).astype(np.int32) - 7
    step = biased >> segment + 3 & 15
    sign = np.where(_ALL_INT16 < 0, 0x80, 0).astype(np.int32)
    code: NDArray[np.int32] = (sign | segment << 4 | step) ^ 0xFF
    return code


# -- A-law -----------------------------------------------------------------------------------


def _a_levels() -> NDArray[np.int32]:
    """Table 1: every second bit of the code is inverted, and the sign bit of a positive one is set.

    On the scale of 16 bits the steps of the segments 0 and 1 are 16 wide, those of segment `s`
    above 16·2^(s−1). Step `n` of segment 0 has its middle at 16n + 8, of segment `s` at
    (16n + 264)·2^(s−1).
    """
    code = _ALL_CODES ^ 0x55
    segment, step = code >> 4 & 7, code & 15
    magnitude = np.where(segment == 0, 16 * step + 8, 16 * step + 264 << np.maximum(segment - 1, 0))
    return np.where(code & 0x80, magnitude, -magnitude)


def _a_codes() -> NDArray[np.int32]:
    sixteenths = np.minimum(np.abs(_ALL_INT16), 32_767) >> 4
    segment = np.maximum(np.floor(np.log2(np.maximum(sixteenths, 1))).astype(np.int32) - 3, 0)
    step = sixteenths >> np.maximum(segment - 1, 0) & 15
    sign = np.where(_ALL_INT16 < 0, 0, 0x80).astype(np.int32)
    code: NDArray[np.int32] = (sign | segment << 4 | step) ^ 0x55
    return code


MULAW: Final = _law(_mu_levels(), _mu_codes())
"""µ-law: from −32124 to 32124 on the scale of 16 bits, and two zeros."""
ALAW: Final = _law(_a_levels(), _a_codes())
"""A-law: from −32256 to 32256 on the scale of 16 bits, and no zero: silence is ±8."""
