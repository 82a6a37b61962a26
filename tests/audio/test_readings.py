"""Readings of bytes, how much like sound they are, and the marks of files and encoders.

Files are those that libsndfile writes, and headers by hand.
"""

import io

import numpy as np
import pytest
import soundfile
from scipy.signal import lfilter

from labkit.audio.formats import AudioFormat
from labkit.audio.pcm import Encoding, encode_s16le
from labkit.audio.readings import (
    DECLARED,
    READINGS,
    Header,
    Sound,
    encoder_inside,
    header_of,
)

RNG = np.random.default_rng(1)


def column(samples: object) -> np.ndarray:
    return np.asarray(samples, np.float64).reshape(-1, 1)


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("channels", [1, 2])
def test_declared_readings_read_what_the_codecs_write(encoding: Encoding, channels: int) -> None:
    data = AudioFormat(encoding, channels=channels).encode(np.float32([0.5, -0.25, 0, 0.125]))
    wanted = AudioFormat(encoding, channels=channels).decode(data)
    assert np.array_equal(DECLARED[encoding].frames(data, channels), wanted)


@pytest.mark.parametrize(
    ("name", "data", "wanted"),
    [
        ("unsigned 8-bit integers", b"\x80\x00\xc0\x80", [0, -1, 0.5, 0]),
        ("big-endian 16-bit integers", b"\x40\x00\xc0\x00", [0.5, -0.5]),
        ("big-endian 32-bit floats", b"\x3f\x00\x00\x00", [0.5]),
        ("32-bit floats on the scale of 16-bit integers", b"\0\0\x80\x46", [0.5]),
        ("16-bit integers from byte 1 on", b"\0\0\x40\0", [0.5]),
        ("32-bit floats from byte 3 on", b"abc\0\0\0\x3fd", [0.5]),
    ],
)
def test_other_readings_read_as_they_say(name: str, data: bytes, wanted: list[float]) -> None:
    reading = next(r for r in READINGS if r.name == name)
    assert reading.frames(data, 1)[:, 0].tolist() == wanted


def test_an_incomplete_frame_is_left_out() -> None:
    assert DECLARED[Encoding.PCM_S16LE].frames(bytes(10), 2).shape == (2, 2)


def test_noise_is_unpredictable_and_a_tone_is_not() -> None:
    noise = Sound(column(0.1 * RNG.standard_normal(4096)))
    assert noise.gain_db < 0.1
    assert noise.level_db == pytest.approx(-20, abs=0.5)
    assert Sound(column(np.sin(0.3 * np.arange(2048)))).gain_db > 20


@pytest.mark.parametrize("weights", [(0.5,), (1.2, -0.6), (1.8, -1.3, 0.4, -0.05)])
def test_the_gain_is_that_of_the_process_that_made_the_sound(weights: tuple[float, ...]) -> None:
    """Of noise through a filter: what the filter adds to the noise is what is predictable."""
    noise = RNG.standard_normal(40_000)
    samples = lfilter([1], [1, *(-w for w in weights)], noise)
    gain_db = 10 * np.log10(samples.var() / noise.var())
    assert Sound(column(0.01 * samples)).gain_db == pytest.approx(gain_db, abs=0.1)


def test_an_offset_is_no_level() -> None:
    sound = Sound(column(np.full(1000, 0.7)))
    assert sound.valid
    assert sound.level_db < -150


@pytest.mark.parametrize(
    "samples",
    [
        [0, np.nan, 0, 0, 0, 0],
        [0, np.inf, 0, 0, 0, 0],
        [1e30, -1e30, 1e30, -1e30, 1, 1],
        [1e-30, -2e-30, 1e-33, 0, 0, 1e-31],
    ],
)
def test_what_no_converter_gives_is_not_valid(samples: list[float]) -> None:
    assert not Sound(column(samples)).valid


def test_nothing_warns_of_signalling_nan() -> None:
    data = encode_s16le(np.float32(-0.003 * np.abs(RNG.standard_normal(2000))))
    assert not Sound(DECLARED[Encoding.PCM_F32LE].frames(data, 1)).valid


# -- files and encoders ----------------------------------------------------------------------

TONE = np.float32(0.3 * np.sin(0.1 * np.arange(48_000)))


def written(form: str, subtype: str, rate: int = 16_000) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, TONE, rate, format=form, subtype=subtype)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("form", "name"),
    [
        ("WAV", "WAV"),
        ("RF64", "WAV"),
        ("W64", "WAV"),
        ("NIST", "NIST"),
        ("AIFF", "AIFF"),
        ("CAF", "CAF"),
    ],
)
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
        (b"#!AMR-WB\n\x04", "AMR"),
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
