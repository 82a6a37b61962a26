"""Formats as they are declared, and streams that no chunking changes.

Both laws of G.711 are held against its own values and its smooth formulas.
"""

import math
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labkit.audio import formats
from labkit.audio.formats import (
    ALAW,
    MULAW,
    WIRE,
    AudioFormat,
    Encoding,
    Law,
    StreamDecoder,
    StreamEncoder,
)
from labkit.audio.pcm import Float32, to_float32, to_int16
from labkit.errors import AudioError

ALL_INT16 = np.arange(-32_768, 32_768).astype(np.int16)

encodings = st.sampled_from(Encoding)
rates = st.sampled_from([8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000])
layouts = st.builds(AudioFormat, encodings, rates, st.integers(1, 2))
quiet = hnp.arrays(np.float32, st.integers(0, 4_000), elements=st.floats(-0.5, 0.5, width=32))


@given(hnp.arrays(np.float32, 20, elements=st.floats(-3, 3, width=32)))
def test_floats_come_back_clipped_and_otherwise_bit_for_bit(samples: Float32) -> None:
    wanted = np.clip(samples, -1, 1)
    assert np.array_equal(formats.decode_f32le(formats.encode_f32le(samples)), wanted)
    assert np.array_equal(formats.decode_f32le(samples.astype("<f4").tobytes()), wanted)


@pytest.mark.parametrize("sample", [np.nan, np.inf, -np.inf])
def test_floats_that_are_not_finite_are_refused(sample: float) -> None:
    broken = np.float32([0, sample])
    with pytest.raises(AudioError, match="not finite"):
        formats.decode_f32le(broken.tobytes())
    with pytest.raises(AudioError, match="not finite"):
        formats.encode_f32le(broken)


def test_a_part_of_a_float_is_refused() -> None:
    with pytest.raises(AudioError, match="multiple of four bytes, got 6"):
        formats.decode_f32le(bytes(6))


def test_the_plain_dialect_is_mono_16_khz() -> None:
    assert (WIRE.frame_bytes, WIRE.bytes_per_second) == (2, 32_000)
    assert WIRE.samples(0.02) == 320
    assert WIRE.seconds(320) == 0.02


@pytest.mark.parametrize(
    ("encoding", "bytes_a_frame"),
    [(Encoding.PCM_S16LE, 4), (Encoding.PCM_F32LE, 8), (Encoding.MULAW, 2), (Encoding.ALAW, 2)],
)
def test_stereo_frames_are_twice_a_sample(encoding: Encoding, bytes_a_frame: int) -> None:
    stereo = AudioFormat(encoding, 48_000, 2)
    assert stereo.frame_bytes == bytes_a_frame
    assert stereo.bytes_per_second == 48_000 * bytes_a_frame
    assert str(stereo) == f"{encoding} 48000 Hz stereo"


@given(st.integers(0, 10**9), layouts)
def test_samples_and_seconds_are_inverse(samples: int, form: AudioFormat) -> None:
    assert form.samples(form.seconds(samples)) == samples


def test_samples_are_rounded_and_not_cut() -> None:
    form = AudioFormat(sample_rate=11_025)
    assert [form.samples(seconds) for seconds in (0.02, 0.0999)] == [220, 1_101]


@pytest.mark.parametrize("rate", [0, 7_999, 48_001])
def test_a_rate_out_of_range_is_named(rate: int) -> None:
    with pytest.raises(AudioError, match=f"sample_rate must be from 8000 to 48000 Hz, got {rate}"):
        AudioFormat(sample_rate=rate)


@pytest.mark.parametrize("channels", [0, 3])
def test_a_number_of_channels_out_of_range_is_named(channels: int) -> None:
    with pytest.raises(AudioError, match=f"channels must be 1 to 2, got {channels}"):
        AudioFormat(channels=channels)


@given(layouts, quiet)
def test_mono_comes_back_from_every_channel(form: AudioFormat, samples: Float32) -> None:
    frames = form.decode(form.encode(samples))
    assert frames.shape == (len(samples), form.channels)
    assert frames.dtype == np.float32
    assert np.abs(frames - samples[:, None]).max(initial=0) < 0.02
    assert np.array_equal(formats.mix(frames), frames[:, 0])


@given(layouts, st.binary(max_size=64))
def test_any_bytes_decode_or_are_refused(form: AudioFormat, data: bytes) -> None:
    try:
        frames = form.decode(data)
    except AudioError as error:
        broken_float = form.encoding is Encoding.PCM_F32LE and "not finite" in str(error)
        assert len(data) % form.frame_bytes or broken_float
    else:
        assert frames.shape == (len(data) // form.frame_bytes, form.channels)
        assert np.abs(frames).max(initial=0) <= 1


def test_half_a_frame_is_refused_with_the_format() -> None:
    with pytest.raises(AudioError, match="pcm_s16le 16000 Hz stereo needs a multiple of 4 bytes"):
        AudioFormat(channels=2).decode(bytes(6))


def test_mixing_averages() -> None:
    assert formats.mix(np.float32([[0.5, 0.25], [1, -1]])).tolist() == [0.375, 0]


sizes = st.lists(st.integers(0, 900), min_size=1, max_size=10)
long_sizes = st.lists(st.integers(0, 20_000), min_size=1, max_size=3)


@given(layouts, sizes | long_sizes)
def test_no_chunking_changes_what_is_decoded(form: AudioFormat, cuts: list[int]) -> None:
    samples = np.float32(0.4 * np.sin(0.05 * np.arange(sum(cuts))))
    data, once, decoder = form.encode(samples), StreamDecoder(form), StreamDecoder(form)
    whole = np.concatenate([once.feed(data), once.flush()])
    ends = np.cumsum(cuts) * form.frame_bytes
    pieces = [data[end - cut * form.frame_bytes : end] for cut, end in zip(cuts, ends, strict=True)]
    parts = np.concatenate([*map(decoder.feed, pieces), decoder.flush()])
    assert np.array_equal(parts, whole)
    assert parts.dtype == np.int16
    assert abs(len(whole) - len(samples) * 16_000 / form.sample_rate) <= 1


@given(st.builds(AudioFormat, encodings, st.just(16_000), st.integers(1, 2)), quiet)
def test_a_decoder_gives_the_mix_of_the_codecs_as_int16(
    form: AudioFormat, samples: Float32
) -> None:
    data = form.encode(samples)
    wanted = to_int16(formats.mix(form.decode(data)))
    assert np.array_equal(StreamDecoder(form).feed(data), wanted)
    assert np.array_equal(form.decode_int16(data), wanted)


def test_s16le_mono_at_16_khz_is_decoded_without_a_copy() -> None:
    data = ALL_INT16.astype("<i2").tobytes()
    heard = StreamDecoder(WIRE).feed(data)
    assert np.array_equal(heard, ALL_INT16)
    assert np.shares_memory(heard, np.frombuffer(data, np.uint8))


@given(layouts, st.binary(max_size=64))
def test_a_decoder_takes_any_bytes_or_refuses_them(form: AudioFormat, data: bytes) -> None:
    decoder = StreamDecoder(form)
    try:
        form.decode(data)
    except AudioError as error:
        with pytest.raises(AudioError) as refused:
            decoder.feed(data)
        assert str(refused.value) == str(error)
    else:
        assert decoder.feed(data).dtype == np.int16


@pytest.mark.parametrize(
    "form",
    [
        AudioFormat(Encoding.MULAW, 8_000),
        AudioFormat(Encoding.MULAW, 48_000, 2),
        AudioFormat(Encoding.PCM_S16LE, 48_000),
        AudioFormat(Encoding.PCM_F32LE, 8_000),
    ],
    ids=str,
)
def test_a_mebibyte_in_one_message_takes_little_more_than_what_it_becomes(
    form: AudioFormat,
) -> None:
    decoder = StreamDecoder(form)
    message = bytes(1_048_576)
    tracemalloc.start()
    try:
        samples = decoder.feed(message)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(samples) > 0.99 * len(message) / form.bytes_per_second * 16_000
    # Besides the result: a piece in floats, and how far a buffer that grows runs ahead. Whether
    # floats are finite takes a byte of each.
    checked = len(message) // 4 if form.encoding is Encoding.PCM_F32LE else 0
    assert peak < 1.2 * samples.nbytes + 200_000 + checked


def test_a_broken_float_late_in_a_long_message_leaves_nothing_of_it_behind() -> None:
    form = AudioFormat(Encoding.PCM_F32LE, 48_000)
    samples = np.float32(0.4 * np.sin(0.05 * np.arange(50_000)))
    broken = samples.copy()
    broken[-1] = np.nan
    decoder, fresh = StreamDecoder(form), StreamDecoder(form)
    with pytest.raises(AudioError, match="not finite"):
        decoder.feed(broken.tobytes())
    assert np.array_equal(decoder.feed(samples.tobytes()), fresh.feed(samples.tobytes()))


def test_what_the_resampler_overshoots_clips_and_never_wraps() -> None:
    square = np.sign(np.sin(2 * np.pi * 300 / 48_000 * np.arange(48_000) + 0.1))
    form = AudioFormat(Encoding.PCM_F32LE, 48_000)
    heard = StreamDecoder(form).feed(square.astype("<f4").tobytes())
    assert heard.max() == 32_767
    assert heard.min() == -32_768
    assert np.abs(np.diff(np.sign(heard)) != 0).sum() < 700


@given(layouts, sizes)
def test_no_chunking_changes_what_is_encoded(form: AudioFormat, cuts: list[int]) -> None:
    samples = np.float32(0.4 * np.sin(0.05 * np.arange(sum(cuts))))
    once, encoder = StreamEncoder(form), StreamEncoder(form)
    whole = once.feed(samples) + once.flush()
    pieces = np.split(samples, np.cumsum(cuts)[:-1])
    assert b"".join([*map(encoder.feed, pieces), encoder.flush()]) == whole
    frames = len(whole) / form.frame_bytes
    assert abs(frames - len(samples) * form.sample_rate / 16_000) <= 1


@given(layouts)
def test_the_next_utterance_begins_anew(form: AudioFormat) -> None:
    samples = np.float32(0.4 * np.sin(0.05 * np.arange(2_000)))
    encoder, decoder = StreamEncoder(form), StreamDecoder(form)
    sent = [encoder.feed(samples) + encoder.flush() for _ in range(2)]
    assert sent[0] == sent[1]
    heard = [np.concatenate([decoder.feed(data), decoder.flush()]) for data in sent]
    assert np.array_equal(heard[0], heard[1])


@pytest.mark.parametrize("encoding", Encoding)
def test_a_voice_survives_the_way_out_and_back(encoding: Encoding) -> None:
    samples = np.float32(0.4 * np.sin(2 * np.pi * 440 / 16_000 * np.arange(16_000)))
    form = AudioFormat(encoding, 44_100, 2)
    encoder, decoder = StreamEncoder(form), StreamDecoder(form)
    back = decoder.feed(encoder.feed(samples) + encoder.flush())
    back = to_float32(np.concatenate([back, decoder.flush()]))
    middle = slice(1_000, 15_000)
    assert np.abs(back[middle] - samples[middle]).max() < 0.02


# -- the laws of G.711 -----------------------------------------------------------------------

ALL_CODES = bytes(range(256))

laws = pytest.mark.parametrize("law", [MULAW, ALAW], ids=["mu", "a"])


def as_float(values: np.ndarray) -> Float32:
    return (values / 32_768).astype(np.float32)


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
