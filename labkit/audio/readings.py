"""What bytes can be read as: samples in one of several layouts, a file, or an encoder's stream.

Sound is predictable: a sample of speech, music or a tone follows from the few before it. Bytes
read in the wrong layout are not: what were low bits become high ones, and the samples jump over
the whole scale. So two figures tell the readings apart: the level, and the gain of a linear
predictor (Makhoul, "Linear prediction: a tutorial review", Proc. IEEE 63(4), 1975).

Files and encoders are told by marks, from the formats' own definitions: RIFF/WAVE (Microsoft and
IBM, 1991) and its descendants RIFX, RF64 and Wave64, NIST SPHERE, AIFF, Ogg (RFC 3533), FLAC
(RFC 9639), EBML for WebM (RFC 8794), ISO base media (ISO/IEC 14496-12), ID3v2, and the frame
headers of MPEG audio (ISO/IEC 11172-3, 13818-3) and ADTS (ISO/IEC 13818-7).
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from labkit.audio.pcm import ALAW, MULAW, Encoding, Law
from labkit.errors import ErrorCode

Float64: TypeAlias = NDArray[np.float64]

# -- samples ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """One way to read bytes as samples, without clipping or refusing anything."""

    kind: ErrorCode
    """What it means where audio turns out to be laid out like this."""
    name: str
    hint: str
    """What to send or to declare."""
    dtype: np.dtype[np.generic]
    full_scale: float = 1.0
    levels: Float64 | None = None
    """The sample of each byte, where a byte is a code."""
    skip: int = 0
    """Bytes before the first whole sample."""

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample."""
        return self.dtype.itemsize

    def frames(self, block: bytes, channels: int) -> Float64:
        """The block as samples, shape `(frames, channels)`; an incomplete frame is left out."""
        count = (len(block) - self.skip) // (self.sample_bytes * channels)
        values = np.frombuffer(block, self.dtype, count * channels, self.skip)
        if self.levels is not None:
            return self.levels[values].reshape(-1, channels)
        # What is no number stays so; numpy would warn of signalling NaN.
        with np.errstate(invalid="ignore"):
            samples = np.multiply(values, 1 / self.full_scale, dtype=np.float64)
        return samples.reshape(-1, channels)


_S16LE, _F32LE, _MULAW, _ALAW = Encoding
_BYTE, _INT16, _FLOAT32 = np.dtype("u1"), np.dtype("<i2"), np.dtype("<f4")
_K = ErrorCode


def _law(kind: ErrorCode, name: str, encoding: Encoding, law: Law) -> Reading:
    hint = f"declare the encoding {encoding}"
    return Reading(kind, name, hint, _BYTE, levels=law.levels / 32_768)


DECLARED: Final = {
    _S16LE: Reading(
        _K.LOOKS_LIKE_INT16, "16-bit integers", f"declare the encoding {_S16LE}", _INT16, 32_768
    ),
    _F32LE: Reading(
        _K.LOOKS_LIKE_FLOAT32,
        "32-bit floats",
        f"declare the encoding {_F32LE}, or convert each sample: round(sample * 32767) as int16",
        _FLOAT32,
    ),
    _MULAW: _law(_K.LOOKS_LIKE_MULAW, "µ-law", _MULAW, MULAW),
    _ALAW: _law(_K.LOOKS_LIKE_ALAW, "A-law", _ALAW, ALAW),
}
"""How each encoding that a caller may declare is read."""

_UNDECLARABLE: Final = (
    Reading(
        _K.LOOKS_LIKE_UINT8,
        "unsigned 8-bit integers",
        f"convert to {_S16LE}: (byte - 128) * 256 as int16; 8-bit audio cannot be declared",
        _BYTE,
        levels=np.arange(-128, 128) / 128,
    ),
    Reading(
        _K.LOOKS_LIKE_BIG_ENDIAN,
        "big-endian 16-bit integers",
        f"swap the two bytes of each sample, the low byte goes first; declare {_S16LE}",
        np.dtype(">i2"),
        32_768,
    ),
    Reading(
        _K.LOOKS_LIKE_BIG_ENDIAN,
        "big-endian 32-bit floats",
        f"reverse the four bytes of each sample, the low byte goes first; declare {_F32LE}",
        np.dtype(">f4"),
    ),
    Reading(
        _K.FLOAT_OUT_OF_SCALE,
        "32-bit floats on the scale of 16-bit integers",
        f"divide each sample by 32768 and declare the encoding {_F32LE}",
        _FLOAT32,
        32_768,
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

# -- sound -----------------------------------------------------------------------------------

_ORDER: Final = 4
"""Samples that the predictor looks back. More add little for speech, and would follow the
pattern that repeats every four bytes where floats are misread."""
_LAGS_APART: Final = np.abs(np.subtract.outer(np.arange(_ORDER), np.arange(_ORDER)))
_INVALID_DB: Final = 1.0
"""RMS, in dBFS, that no audio within ±1 has."""
_TINY: Final = 2.0**-32
"""No sample of a converter is smaller and not zero; misread floats are."""
_FLOOR: Final = 1e-20


class Sound:
    """How much like sound some samples are.

    Attributes:
        frames: The samples, shape `(frames, channels)`, at least five frames.
        level_db: RMS around their mean, in dBFS.
        valid: Whether all samples are finite, their RMS is below the full scale, and not all of
            them are too small for any converter.
    """

    def __init__(self, frames: Float64) -> None:
        self.frames = frames
        self.level_db = math.inf
        self.valid = False
        samples = frames.reshape(-1)
        power = float(samples @ samples) / samples.size
        if math.isfinite(power):
            self._means: Float64 = np.add.reduce(frames, axis=0) / len(frames)
            power -= float(self._means @ self._means) / self._means.size
            self.level_db = 10 * math.log10(max(power, 0.0) + _FLOOR)
            self.valid = self.level_db <= _INVALID_DB and not (power < _TINY**2 and self._is_tiny())

    def _is_tiny(self) -> bool:
        """Whether all samples are far below a converter's, and yet no mere offset."""
        peak = np.abs(self.frames).max()
        return bool(peak < _TINY and np.abs(self.centred).max() > 0.01 * peak)

    @cached_property
    def centred(self) -> Float64:
        """The samples without their mean; only where all are finite."""
        return self.frames - self._means

    @cached_property
    def gain_db(self) -> float:
        """How far below the signal the error of the best linear predictor lies.

        About 0 for noise, 4 to 25 for speech; 0 where `valid` is false.
        """
        if not self.valid:
            return 0.0
        samples, channels = self.centred.reshape(-1), self.centred.shape[1]
        size = samples.size
        lags = np.array(
            [samples[: size - k * channels] @ samples[k * channels :] for k in range(_ORDER + 1)]
        )
        power = float(lags[0])
        if power <= _FLOOR:
            return 0.0
        # The small addition keeps pure tones, which are wholly predictable, solvable.
        weights = np.linalg.solve(lags[_LAGS_APART] + 1e-9 * power * np.eye(_ORDER), lags[1:])
        return -10 * math.log10(max(1 - float(weights @ lags[1:]) / power, 1e-9))


# -- files and encoders ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Header:
    """The kind of file or encoder that a stream begins as; whether no samples follow."""

    name: str
    encoded: bool


_HEADERS: Final = (
    (Header("WAV", encoded=False), rb"R(?:IF[FX]|F64)....WAVE|riff\x2e\x91\xcf\x11"),
    (Header("NIST", encoded=False), rb"NIST_1A\n"),
    (Header("AIFF", encoded=False), rb"FORM....AIF"),
    (Header("AU", encoded=False), rb"\.snd\0"),
    (Header("CAF", encoded=False), rb"caff\0"),
    (Header("Ogg", encoded=True), rb"OggS\0"),
    (Header("FLAC", encoded=True), rb"fLaC"),
    (Header("WebM", encoded=True), rb"\x1a\x45\xdf\xa3"),
    (Header("MP4", encoded=True), rb"....ftyp"),
    (Header("MP3 (ID3 tag)", encoded=True), rb"ID3.\0"),
    (Header("AMR", encoded=True), rb"#!AMR"),
)
_BEGINS: Final = re.compile(
    rb"(?=[RrNF.cOf\x1aI#]|....ftyp)(?:%b)" % b"|".join(b"(%b)" % mark for _, mark in _HEADERS),
    re.DOTALL,
).match
"""Every message is held against it, so that it is one match, which fails at the first byte."""
_INSIDE: Final = (("Ogg", b"OggS\0"), ("WebM", b"\x1f\x43\xb6\x75"))
"""Marks of pages and clusters, which come again and again in a stream."""
_SYNC: Final = re.compile(rb"\xff[\xe2\xe3\xea\xeb\xf2\xf3\xfa\xfb\xf0\xf1\xf8\xf9]")
"""The first two bytes of a frame of MPEG audio, layer III, or of ADTS."""
_CHAIN: Final = 3
"""Frames in a row, each beginning where the one before says that it ends."""
_KBPS: Final = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0)
_LOW_KBPS: Final = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0)
"""Bit rates of layer III by index, for MPEG-1, and for MPEG-2 and 2.5; 0 where there is none."""
_MPEG_HZ: Final = {
    3: (44_100, 48_000, 32_000),
    2: (22_050, 24_000, 16_000),
    0: (11_025, 12_000, 8_000),
}


def header_of(payload: bytes) -> Header | None:
    """The file or encoded stream that begins with `payload`, if any."""
    found = _BEGINS(payload)
    return _HEADERS[found.lastindex - 1][0] if found and found.lastindex else None


def encoder_inside(block: bytes) -> str | None:
    """The kind of encoded stream that `block` is out of the middle of, if any."""
    for name, mark in _INSIDE:
        if mark in block:
            return name
    for name, length in (("MP3", _mpeg_length), ("AAC (ADTS)", _adts_length)):
        if any(_is_chain(block, sync.start(), length) for sync in _SYNC.finditer(block)):
            return name
    return None


def _is_chain(block: bytes, place: int, length: Callable[[bytes], int]) -> bool:
    for _ in range(_CHAIN):
        head = block[place : place + 6]
        step = length(head) if len(head) == 6 else 0
        if not step:
            return False
        place += step
    return True


def _mpeg_length(head: bytes) -> int:
    """Bytes of the layer III frame that `head` begins, or 0 where it begins none."""
    version, rate = head[1] >> 3 & 3, head[2] >> 2 & 3
    kbps = (_KBPS if version == 3 else _LOW_KBPS)[head[2] >> 4]
    layer_3 = head[0] == 0xFF and head[1] & 0xE6 == 0xE2
    if not (layer_3 and kbps and version in _MPEG_HZ and rate < 3):
        return 0
    per_frame = 144_000 if version == 3 else 72_000
    return per_frame * kbps // _MPEG_HZ[version][rate] + (head[2] >> 1 & 1)


def _adts_length(head: bytes) -> int:
    """Bytes of the ADTS frame that `head` begins, or 0 where it begins none."""
    if head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 15 > 12:
        return 0
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return length if length > 7 else 0
