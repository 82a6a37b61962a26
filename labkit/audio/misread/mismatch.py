"""A finding about audio that is not what its caller declared."""

from dataclasses import dataclass
from typing import Final

from labkit.errors import ErrorCode

__all__ = ["MISMATCHES", "Mismatch"]

MISMATCHES: Final = frozenset(
    {
        ErrorCode.LOOKS_LIKE_INT16,
        ErrorCode.LOOKS_LIKE_FLOAT32,
        ErrorCode.LOOKS_LIKE_MULAW,
        ErrorCode.LOOKS_LIKE_ALAW,
        ErrorCode.LOOKS_LIKE_UINT8,
        ErrorCode.LOOKS_LIKE_BIG_ENDIAN,
        ErrorCode.LOOKS_SHIFTED,
        ErrorCode.FLOAT_OUT_OF_SCALE,
        ErrorCode.LOOKS_LIKE_COMPRESSED,
        ErrorCode.LOOKS_LIKE_FILE,
        ErrorCode.LOOKS_LIKE_STEREO,
        ErrorCode.LOOKS_LIKE_MONO,
        ErrorCode.RATE_MISMATCH,
        ErrorCode.CHANNELS_CANCEL,
    }
)
"""Every kind of finding."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A finding about a stream.

    Attributes:
        kind: What the audio looks like, one of `MISMATCHES`.
        message: What was seen, in plain words with the figures.
        hint: What to send or to declare instead.
    """

    kind: ErrorCode
    message: str
    hint: str
