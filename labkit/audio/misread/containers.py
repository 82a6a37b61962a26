"""Audio files and the streams of encoders, told by their bytes.

Marks from the formats' own definitions: RIFF/WAVE (Microsoft and IBM, 1991), AIFF, Ogg (RFC 3533),
FLAC (RFC 9639), EBML for WebM (RFC 8794), ISO base media (ISO/IEC 14496-12), ID3v2, and the
frame headers of MPEG audio (ISO/IEC 11172-3, 13818-3) and ADTS (ISO/IEC 13818-7).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

__all__ = ["Header", "encoder_inside", "header_of"]


@dataclass(frozen=True, slots=True)
class Header:
    """What a stream begins as.

    Attributes:
        name: The kind of file or of encoder.
        encoded: Whether an encoder's output follows, and no samples.
    """

    name: str
    encoded: bool


_HEADERS: Final = (
    (Header("WAV", encoded=False), rb"RIFF....WAVE"),
    (Header("AIFF", encoded=False), rb"FORM....AIF"),
    (Header("AU", encoded=False), rb"\.snd\0"),
    (Header("CAF", encoded=False), rb"caff\0"),
    (Header("Ogg", encoded=True), rb"OggS\0"),
    (Header("FLAC", encoded=True), rb"fLaC"),
    (Header("WebM", encoded=True), rb"\x1a\x45\xdf\xa3"),
    (Header("MP4", encoded=True), rb"....ftyp"),
    (Header("MP3 (ID3 tag)", encoded=True), rb"ID3.\0"),
)
_ANY_HEADER: Final = re.compile(b"|".join(b"(%b)" % mark for _, mark in _HEADERS), re.DOTALL)
"""Every message is held against it, so that it is one match and no loop."""
_INSIDE: Final = (("Ogg", b"OggS\0"), ("WebM", b"\x1f\x43\xb6\x75"))
"""Marks of pages and clusters, which come again and again in a stream."""
_SYNC: Final = re.compile(rb"\xff[\xe2\xe3\xea\xeb\xf2\xf3\xfa\xfb\xf0\xf1\xf8\xf9]")
"""The first two bytes of a frame of MPEG audio, layer III, or of ADTS."""
_CHAIN: Final = 3
"""Frames in a row, each beginning where the one before says that it ends."""


def header_of(payload: bytes) -> Header | None:
    """The file or encoded stream that begins with `payload`, if any."""
    found = _ANY_HEADER.match(payload)
    return None if found is None or found.lastindex is None else _HEADERS[found.lastindex - 1][0]


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
        step = length(block[place : place + 6])
        if not step:
            return False
        place += step
    return True


_MPEG_KBPS: Final = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
}
"""Bit rates of layer III by index, for MPEG-1 and for MPEG-2 and 2.5; 0 where there is none."""
_MPEG_HZ: Final = {
    3: (44_100, 48_000, 32_000),
    2: (22_050, 24_000, 16_000),
    0: (11_025, 12_000, 8_000),
}


def _mpeg_length(head: bytes) -> int:
    """Bytes of the layer III frame that `head` begins, or 0 where it begins none."""
    if len(head) < 3 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return 0
    version, rate = head[1] >> 3 & 3, head[2] >> 2 & 3
    kbps = _MPEG_KBPS[version == 3][head[2] >> 4]
    if not kbps or version not in _MPEG_HZ or rate == 3:
        return 0
    per_frame = 144_000 if version == 3 else 72_000
    return per_frame * kbps // _MPEG_HZ[version][rate] + (head[2] >> 1 & 1)


def _adts_length(head: bytes) -> int:
    """Bytes of the ADTS frame that `head` begins, or 0 where it begins none."""
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 15 > 12:
        return 0
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return length if length > 7 else 0
