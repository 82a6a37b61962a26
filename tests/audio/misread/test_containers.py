"""Marks of files and encoders, in what libsndfile writes and in headers by hand."""

import io

import numpy as np
import pytest
import soundfile

from labkit.audio.misread.containers import Header, encoder_inside, header_of
from labkit.audio.pcm import encode_s16le

TONE = np.float32(0.3 * np.sin(0.1 * np.arange(48_000)))


def written(form: str, subtype: str, rate: int = 16_000) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, TONE, rate, format=form, subtype=subtype)
    return buffer.getvalue()


@pytest.mark.parametrize(("form", "name"), [("WAV", "WAV"), ("AIFF", "AIFF"), ("CAF", "CAF")])
def test_files_of_samples_are_known_by_their_header(form: str, name: str) -> None:
    assert header_of(written(form, "PCM_16")) == Header(name, encoded=False)


@pytest.mark.parametrize(
    ("form", "subtype", "name"),
    [("FLAC", "PCM_16", "FLAC"), ("OGG", "VORBIS", "Ogg"), ("OGG", "OPUS", "Ogg")],
)
def test_encoded_files_are_known_by_their_header(form: str, subtype: str, name: str) -> None:
    assert header_of(written(form, subtype)) == Header(name, encoded=True)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81", "WebM"),
        (b"\0\0\0\x18ftypM4A ", "MP4"),
        (b"ID3\x04\0\0\0\0\0\x23", "MP3 (ID3 tag)"),
    ],
)
def test_headers_that_libsndfile_does_not_write_are_known(head: bytes, name: str) -> None:
    assert header_of(head) == Header(name, encoded=True)


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("skip", [0, 777])
def test_mp3_is_known_by_a_chain_of_frames(rate: int, skip: int) -> None:
    assert encoder_inside(written("MP3", "MPEG_LAYER_III", rate)[skip:][:4096]) == "MP3"


def test_ogg_and_webm_are_known_from_the_middle() -> None:
    assert encoder_inside(bytes(99) + b"OggS\0\0") == "Ogg"
    assert encoder_inside(bytes(99) + b"\x1f\x43\xb6\x75\x01") == "WebM"


def test_adts_is_known_by_a_chain_of_frames() -> None:
    size = 300
    head = bytes([0xFF, 0xF1, 0x60, 0x40 | size >> 11, size >> 3 & 0xFF, (size & 7) << 5, 0])
    frame = head + bytes(size - len(head))
    assert encoder_inside(b"\xff\xff\xf1" + 3 * frame) == "AAC (ADTS)"
    assert encoder_inside(2 * frame) is None


@pytest.mark.parametrize("cut", [0, 1, 3, 4, 7, 11])
def test_a_part_of_a_header_is_none(cut: int) -> None:
    assert header_of(written("WAV", "PCM_16")[:cut]) is None


def test_a_header_is_told_only_where_the_message_begins_with_it() -> None:
    assert header_of(b"\0" + written("WAV", "PCM_16")) is None
    assert header_of(b"RIFF\n\n\n\nWAVE") == Header("WAV", encoded=False)


def test_samples_have_no_marks() -> None:
    rng = np.random.default_rng(5)
    for data in (encode_s16le(TONE), rng.bytes(200_000), b"\xff" * 4096, bytes(4096), b""):
        assert header_of(data) is None
        assert encoder_inside(data) is None
