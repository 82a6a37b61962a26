"""Formats as they are declared, and streams that no chunking changes."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labkit.audio import formats
from labkit.audio.formats import WIRE, AudioFormat, StreamDecoder, StreamEncoder
from labkit.audio.pcm import Encoding, Float32, to_float32, to_int16
from labkit.errors import AudioError

ALL_INT16 = np.arange(-32_768, 32_768).astype(np.int16)

encodings = st.sampled_from(Encoding)
rates = st.sampled_from([8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000])
layouts = st.builds(AudioFormat, encodings, rates, st.integers(1, 2))
quiet = hnp.arrays(np.float32, st.integers(0, 4_000), elements=st.floats(-0.5, 0.5, width=32))


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


@pytest.mark.parametrize("form", [WIRE, AudioFormat(Encoding.MULAW, 8_000, 2)])
def test_integers_and_channels_are_no_mono_floats(form: AudioFormat) -> None:
    odd: list[tuple[Any, str]] = [(ALL_INT16, "of type int16"), (np.ones((4, 2)), "of shape")]
    for samples, words in odd:
        for encode in (form.encode, StreamEncoder(form).feed):
            with pytest.raises(AudioError, match=words):
                encode(samples)


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
    assert formats.mix(np.float32([[0, 0, 0.5, 0.25, 1, -1]])).tolist() == [0.125]


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
