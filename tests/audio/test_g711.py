"""Both laws against G.711's own values, its smooth formulas, and libsndfile."""

import io
import math
from collections.abc import Callable

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labkit.audio.g711 import ALAW, MULAW, Law
from labkit.audio.pcm import Float32
from labkit.errors import AudioError

ALL_CODES = bytes(range(256))
ALL_INT16 = np.arange(-32_768, 32_768).astype(np.int16)

laws = pytest.mark.parametrize("law", [MULAW, ALAW], ids=["mu", "a"])
quiet = hnp.arrays(np.float32, st.integers(0, 4_000), elements=st.floats(-0.5, 0.5, width=32))


def as_float(values: np.ndarray) -> Float32:
    return (values / 32_768).astype(np.float32)


def of_libsndfile(values: np.ndarray, subtype: str) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, values, 8_000, format="RAW", subtype=subtype)
    return buffer.getvalue()


def smooth_mu(share: float) -> float:
    """The curve that the segments of µ-law follow, µ = 255."""
    return math.log1p(255 * share) / math.log1p(255)


def smooth_a(share: float) -> float:
    """The curve that the segments of A-law follow, A = 87.6."""
    linear = 87.6 * share
    return (linear if linear < 1 else 1 + math.log(linear)) / (1 + math.log(87.6))


@pytest.mark.parametrize(
    ("law", "code", "level"),
    [
        (MULAW, 0xFF, 0),
        (MULAW, 0x7F, 0),
        (MULAW, 0x00, -32_124),
        (MULAW, 0x80, 32_124),
        (MULAW, 0xFE, 8),
        (MULAW, 0xEF, 132),
        (MULAW, 0x8F, 16_764),
        (ALAW, 0xD5, 8),
        (ALAW, 0x55, -8),
        (ALAW, 0xAA, 32_256),
        (ALAW, 0x2A, -32_256),
        (ALAW, 0xC5, 264),
        (ALAW, 0xF5, 528),
        (ALAW, 0xA5, 16_896),
    ],
)
def test_codes_have_the_levels_of_g711(law: Law, code: int, level: int) -> None:
    assert law.decode_int16(bytes([code])).tolist() == [level]
    assert law.decode(bytes([code])).tolist() == [level / 32_768]


@pytest.mark.parametrize(("law", "smooth"), [(MULAW, smooth_mu), (ALAW, smooth_a)])
@given(value=st.integers(-32_768, 32_767))
def test_codes_follow_the_smooth_curve_of_their_law(
    law: Law, smooth: Callable[[float], float], value: int
) -> None:
    code = law.encode(as_float(np.array([value])))[0] ^ (0xFF if law is MULAW else 0xD5)
    assert bool(code & 0x80) == (value < 0)
    assert abs((code & 0x7F) + 0.5 - 128 * smooth(abs(value) / 32_768)) < 2


@pytest.mark.parametrize(("law", "bias"), [(MULAW, 132), (ALAW, 256)])
@given(value=st.integers(-32_000, 32_000))
def test_the_error_is_half_a_step_at_most(law: Law, bias: int, value: int) -> None:
    heard = int(law.decode_int16(law.encode(as_float(np.array([value]))))[0])
    assert abs(heard - value) <= (abs(value) + bias) / 32


@pytest.mark.parametrize(("law", "other_zeros"), [(MULAW, {0x7F: 0xFF}), (ALAW, {})])
def test_codes_survive_the_round_trip_save_for_a_second_zero(
    law: Law, other_zeros: dict[int, int]
) -> None:
    again = law.encode(law.decode(ALL_CODES))
    assert {code: again[code] for code in ALL_CODES if again[code] != code} == other_zeros


@pytest.mark.parametrize(("law", "subtype"), [(MULAW, "ULAW"), (ALAW, "ALAW")])
def test_libsndfile_agrees_in_every_code_and_every_sample(law: Law, subtype: str) -> None:
    theirs, _ = soundfile.read(
        io.BytesIO(ALL_CODES), format="RAW", subtype=subtype, samplerate=8_000, channels=1,
        dtype="int16",
    )  # fmt: skip
    assert law.decode_int16(ALL_CODES).tolist() == theirs.tolist()
    assert law.encode(as_float(ALL_INT16)) == of_libsndfile(ALL_INT16, subtype)


@laws
@given(samples=quiet)
def test_what_was_once_coded_stays_as_it_is(law: Law, samples: Float32) -> None:
    once = law.decode(law.encode(samples))
    assert np.array_equal(law.decode(law.encode(once)), once)


@laws
@pytest.mark.parametrize("peak_db", [0, -10, -20, -30])
def test_the_noise_lies_35_db_below_a_tone_over_30_db_of_levels(law: Law, peak_db: int) -> None:
    tone = np.float32(10 ** (peak_db / 20) * 0.97 * np.sin(0.1234 * np.arange(40_000)))
    error = law.decode(law.encode(tone)) - tone
    assert 10 * np.log10(np.mean(tone**2) / np.mean(error**2)) > 35


@pytest.mark.parametrize(("law", "ends"), [(MULAW, b"\x80\x00"), (ALAW, b"\xaa\x2a")])
def test_loud_samples_clip_and_nan_is_refused(law: Law, ends: bytes) -> None:
    assert law.encode(np.float32([2, -2])) == ends
    with pytest.raises(AudioError, match="NaN"):
        law.encode(np.float32([np.nan]))


@laws
def test_nobody_writes_into_the_tables(law: Law) -> None:
    with pytest.raises(ValueError, match="read-only"):
        law.levels[0] = 0
