"""Readings of bytes, and how much like sound they are."""

import numpy as np
import pytest
from scipy.signal import lfilter

from labkit.audio.formats import AudioFormat, Encoding
from labkit.audio.misread.readings import DECLARED, READINGS, sound_of
from labkit.audio.pcm import encode_s16le

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
    noise = sound_of(column(0.1 * RNG.standard_normal(4096)))
    assert noise.gain_db < 0.1
    assert noise.level_db == pytest.approx(-20, abs=0.5)
    assert sound_of(column(np.sin(0.3 * np.arange(2048)))).gain_db > 20


@pytest.mark.parametrize("weights", [(0.5,), (1.2, -0.6), (1.8, -1.3, 0.4, -0.05)])
def test_the_gain_is_that_of_the_process_that_made_the_sound(weights: tuple[float, ...]) -> None:
    """Of noise through a filter: what the filter adds to the noise is what is predictable."""
    noise = RNG.standard_normal(40_000)
    samples = lfilter([1], [1, *(-w for w in weights)], noise)
    gain_db = 10 * np.log10(samples.var() / noise.var())
    assert sound_of(column(0.01 * samples)).gain_db == pytest.approx(gain_db, abs=0.1)


def test_an_offset_is_no_level() -> None:
    sound = sound_of(column(np.full(1000, 0.7)))
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
    assert not sound_of(column(samples)).valid


def test_nothing_warns_of_signalling_nan() -> None:
    data = encode_s16le(np.float32(-0.003 * np.abs(RNG.standard_normal(2000))))
    assert not sound_of(DECLARED[Encoding.PCM_F32LE].frames(data, 1)).valid
