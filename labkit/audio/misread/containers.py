"""Audio files and the streams of encoders, told by their bytes.

Marks from the formats' own definitions: RIFF/WAVE (Microsoft and IBM, 1991), AIFF, Ogg (RFC 3533),
FLAC (RFC 9639), EBML for WebM (RFC 8794), ISO base media (ISO/IEC 14496-12), ID3v2, and the
frame headers of MPEG audio (ISO/IEC 11172-3, 13818-3) and ADTS (ISO/IEC 13818-7).
"""

from collections.abc import Callable
from typing import Final

__all__ = ["encoder_inside", "encoder_of", "file_of"]

_FILES: Final = (
    ("WAV", ((0, b"RIFF"), (8, b"WAVE"))),
    ("AIFF", ((0, b"FORM"), (8, b"AIF"))),
    ("AU", ((0, b".snd\0"),)),
    ("CAF", ((0, b"caff\0"),)),
)
_ENCODERS: Final = (
    ("Ogg", ((0, b"OggS\0"),)),
    ("FLAC", ((0, b"fLaC"),)),
    ("WebM", ((0, b"\x1a\x45\xdf\xa3"),)),
    ("MP4", ((4, b"ftyp"),)),
    ("MP3 (ID3 tag)", ((0, b"ID3"), (4, b"\0"))),
)
_INSIDE: Final = (("Ogg", b"OggS\0"), ("WebM", b"\x1f\x43\xb6\x75"))
"""Marks of pages and clusters, which come again and again in a stream."""
_CHAIN: Final = 3
"""Frames in a row, each beginning where the one before says that it ends."""

_Marks = tuple[tuple[str, tuple[tuple[int, bytes], ...]], ...]


def file_of(payload: bytes) -> str | None:
    """The kind of audio file that begins with `payload`, if any."""
    return _first(_FILES, payload)


def encoder_of(payload: bytes) -> str | None:
    """The kind of encoded stream that begins with `payload`, if any."""
    return _first(_ENCODERS, payload)


def _first(table: _Marks, payload: bytes) -> str | None:
    for name, marks in table:
        if all(payload.startswith(mark, at) for at, mark in marks):
            return name
    return None


def encoder_inside(block: bytes) -> str | None:
    """The kind of encoded stream that `block` is out of the middle of, if any."""
    for name, mark in _INSIDE:
        if mark in block:
            return name
    for name, length in (("MP3", _mpeg_length), ("AAC (ADTS)", _adts_length)):
        if _has_chain(block, length):
            return name
    return None


def _has_chain(block: bytes, length: Callable[[bytes], int]) -> bool:
    at = block.find(b"\xff")
    while at >= 0:
        place, frames = at, 0
        while frames < _CHAIN and (step := length(block[place : place + 6])):
            place, frames = place + step, frames + 1
        if frames == _CHAIN:
            return True
        at = block.find(b"\xff", at + 1)
    return False


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
