"""What can be wrong between the audio that a caller declares and the audio that it sends."""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Mismatch", "MismatchKind"]


class MismatchKind(StrEnum):
    """What the audio looks like instead of what was declared."""

    LOOKS_LIKE_INT16 = "looks_like_int16"
    """16-bit integers, little-endian."""
    LOOKS_LIKE_FLOAT32 = "looks_like_float32"
    """32-bit floats, little-endian."""
    LOOKS_LIKE_MULAW = "looks_like_mulaw"
    """G.711 µ-law."""
    LOOKS_LIKE_UINT8 = "looks_like_uint8"
    """Unsigned 8-bit integers."""
    LOOKS_LIKE_BIG_ENDIAN = "looks_like_big_endian"
    """Integers or floats with the high byte first."""
    LOOKS_SHIFTED = "looks_shifted"
    """The declared encoding, read from the middle of a sample on."""
    FLOAT_OUT_OF_SCALE = "float_out_of_scale"
    """Floats on the scale of 16-bit integers, ±32768 in place of ±1."""
    LOOKS_LIKE_COMPRESSED = "looks_like_compressed"
    """The output of an encoder: MP3, AAC, Ogg, Opus, FLAC, WebM, MP4."""
    LOOKS_LIKE_FILE = "looks_like_file"
    """An audio file with its header, such as WAV."""
    LOOKS_LIKE_STEREO = "looks_like_stereo"
    """Two interleaved channels, declared as one."""
    LOOKS_LIKE_MONO = "looks_like_mono"
    """One channel, declared as two."""
    RATE_MISMATCH = "rate_mismatch"
    """Another sample rate than the declared one."""
    CHANNELS_CANCEL = "channels_cancel"
    """Two channels of opposite sign, of which nothing is left when they are mixed."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A finding about a stream.

    Attributes:
        kind: What the audio looks like.
        message: What was seen, in plain words with the figures.
        hint: What to send or to declare instead.
    """

    kind: MismatchKind
    message: str
    hint: str
