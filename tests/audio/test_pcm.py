"""Audio as numbers: conversions that must not wrap, seams, and files of every shape.

Both laws of G.711 are held against its own values and its smooth formulas.
"""

import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labkit.audio import pcm
from labkit.audio.formats import WIRE
from labkit.audio.pcm import ALAW, MULAW, Float32, Law
from labkit.errors import AudioError, LabkitError
from labkit.measure.recordings import load_manifest
from tests.paths import ROOT

int16s = hnp.arrays(np.int16, st.integers(0, 200))
floats = hnp.arrays(
    np.float32, st.integers(0, 200), elements=st.floats(-3, 3, width=32, allow_nan=False)
)
rates = st.sampled_from([8_000, 11_025, 22_050, 24_000, 44_100, 48_000])


def tone(seconds: float, rate: int, hertz: float = 440.0) -> Float32:
    """A sine of half the full scale."""
    times = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * times)).astype(np.float32)


@given(int16s)
def test_what_was_decoded_is_encoded_bit_for_bit(samples: np.ndarray) -> None:
    data = samples.astype("<i2").tobytes()
    assert pcm.encode_s16le(pcm.decode_s16le(data)) == data


def test_every_int16_value_survives_the_round_trip() -> None:
    data = np.arange(-32_768, 32_768).astype("<i2").tobytes()
    decoded = pcm.decode_s16le(data)
    assert decoded.dtype == np.float32
    assert decoded.min() == -1.0
    assert decoded.max() < 1.0
    assert pcm.encode_s16le(decoded) == data


@pytest.mark.parametrize(
    ("sample", "wanted"),
    [
        (1.0, 32_767),
        (-1.0, -32_768),
        (1.5, 32_767),
        (-1.5, -32_768),
        (float("inf"), 32_767),
        (float("-inf"), -32_768),
        (0.0, 0),
        (0.5, 16_384),
        (-1 / 32_768, -1),
    ],
)
def test_loud_samples_clip_and_never_wrap(sample: float, wanted: int) -> None:
    data = pcm.encode_s16le(np.array([sample], dtype=np.float32))
    assert np.frombuffer(data, "<i2").tolist() == [wanted]


@given(floats)
def test_encoding_keeps_sign_order_and_value(samples: Float32) -> None:
    decoded = pcm.decode_s16le(pcm.encode_s16le(samples))
    assert np.abs(decoded - np.clip(samples, -1, 32_767 / 32_768)).max(initial=0) <= 0.5 / 32_768


@given(int16s)
def test_integers_come_back_from_floats(samples: np.ndarray) -> None:
    back = pcm.to_int16(pcm.to_float32(samples))
    assert back.dtype == np.int16
    assert np.array_equal(back, samples)


@given(floats)
def test_samples_and_bytes_are_clipped_alike(samples: Float32) -> None:
    assert pcm.to_int16(samples).astype("<i2").tobytes() == pcm.encode_s16le(samples)


def test_bytes_are_little_endian() -> None:
    assert pcm.encode_s16le(np.array([1 / 32_768], dtype=np.float32)) == b"\x01\x00"
    assert pcm.decode_s16le(b"\x00\x40").tolist() == [0.5]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_decodes_every_kind_of_buffer(kind: type) -> None:
    assert pcm.decode_s16le(kind(b"\x00\xc0\x00\x40")).tolist() == [-0.5, 0.5]


def test_decoded_audio_does_not_follow_a_buffer_that_is_used_again() -> None:
    buffer = bytearray(b"\x00\x40")
    decoded = pcm.decode_s16le(buffer)
    buffer[:] = b"\x00\x00"
    assert decoded.tolist() == [0.5]


@given(st.binary(max_size=64))
def test_any_bytes_decode_or_are_refused_by_length(data: bytes) -> None:
    if len(data) % 2:
        with pytest.raises(AudioError, match=f"even number of bytes, got {len(data)}"):
            pcm.decode_s16le(data)
    else:
        assert len(pcm.decode_s16le(data)) == len(data) // 2


def test_not_a_number_is_refused() -> None:
    with pytest.raises(AudioError, match="NaN"):
        pcm.encode_s16le(np.array([0.0, np.nan], dtype=np.float32))


@given(rates)
def test_resampling_keeps_length_and_tone(rate: int) -> None:
    resampled = pcm.resample(tone(0.5, rate), rate, 16_000)
    assert resampled.dtype == np.float32
    assert abs(len(resampled) - 8_000) <= 1
    middle = slice(1_000, 7_000)
    assert np.abs(resampled[:8_000][middle] - tone(0.5, 16_000)[middle]).max() < 1e-3


def test_the_same_rate_changes_nothing() -> None:
    samples = tone(0.1, 16_000)
    assert np.array_equal(pcm.resample(samples, 16_000, 16_000), samples)


@given(rates, st.lists(st.integers(1, 4_000), min_size=1, max_size=12))
def test_a_stream_resamples_as_the_whole_does(rate: int, sizes: list[int]) -> None:
    samples = tone(sum(sizes) / rate, rate)[: sum(sizes)]
    stream = pcm.StreamResampler(rate, 16_000)
    pieces = np.split(samples, np.cumsum(sizes)[:-1])
    parts, again = ([*map(stream.feed, pieces), stream.flush()] for _ in range(2))
    assert all(part.dtype == np.float32 for part in parts)
    whole = pcm.resample(samples, rate, 16_000)
    joined = np.concatenate(parts)
    assert np.array_equal(np.concatenate(again), joined)
    assert abs(len(joined) - len(whole)) <= 1
    shared = min(len(joined), len(whole))
    assert np.abs(joined[:shared] - whole[:shared]).max(initial=0) < 1e-4


def test_a_stream_of_the_same_rate_passes_through() -> None:
    stream = pcm.StreamResampler(16_000, 16_000)
    assert stream.feed(tone(0.01, 16_000)).tolist() == tone(0.01, 16_000).tolist()
    assert not len(stream.flush())


@given(floats, st.integers(1, 64))
def test_chunks_join_to_the_whole(samples: Float32, size: int) -> None:
    pieces = list(pcm.chunks(samples, size))
    assert np.array_equal(np.concatenate([*pieces, samples[:0]]), samples)
    assert all(len(piece) == size for piece in pieces[:-1])
    assert all(1 <= len(piece) <= size for piece in pieces)


@pytest.mark.parametrize("size", [0, -1])
def test_a_chunk_of_nothing_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        list(pcm.chunks(np.zeros(4, np.float32), size))


def test_leading_silence_ends_at_the_first_loud_sample() -> None:
    samples = np.concatenate([np.full(160, 0.005), [-0.2], np.zeros(10)]).astype(np.float32)
    assert pcm.leading_silence(samples, 16_000) == 0.01
    assert pcm.leading_silence(samples, 16_000, threshold=0.001) == 0.0


def test_silence_is_leading_silence_to_its_end() -> None:
    assert pcm.leading_silence(np.zeros(800, np.float32), 16_000) == 0.05
    assert pcm.leading_silence(np.zeros(0, np.float32), 16_000) == 0.0


@pytest.mark.parametrize("ending", ["wav", "flac"])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_reads_any_rate_and_channel_count(
    tmp_path: Path, ending: str, rate: int, channels: int
) -> None:
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, np.tile(tone(0.25, rate)[:, None], channels), rate)
    samples = pcm.read_audio(path)
    assert samples.ndim == 1
    assert samples.dtype == np.float32
    assert abs(len(samples) - 4_000) <= 1
    middle = slice(500, 3_500)
    assert np.abs(samples[:4_000][middle] - tone(0.25, 16_000)[middle]).max() < 2e-3


def test_channels_are_averaged(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.array([[0.5, 0.0], [0.5, -0.5]]), 16_000)
    assert np.abs(pcm.read_audio(path) - [0.25, 0.0]).max() < 1e-4


def test_what_was_written_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    samples = pcm.decode_s16le(np.arange(-500, 500).astype("<i2").tobytes())
    pcm.write_wav(path, samples)
    assert np.array_equal(pcm.read_audio(path), samples)
    assert soundfile.info(path).subtype == "PCM_16"


def test_writing_clips(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    pcm.write_wav(path, np.array([2.0, -2.0], np.float32))
    written, rate = soundfile.read(path, dtype="int16")
    assert (written.tolist(), rate) == ([32_767, -32_768], 16_000)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"nowhere\.wav is no readable WAV or FLAC"):
        pcm.read_audio(tmp_path / "nowhere.wav")


def test_a_folder_is_no_recording(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no readable"):
        pcm.read_audio(tmp_path)


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take no such name")
def test_a_name_of_odd_bytes_is_a_name(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"b\xff.wav")
    pcm.write_wav(path, np.full(1_600, 0.25, np.float32))
    assert len(pcm.read_audio(path)) == 1_600
    path.write_text("no audio")
    with pytest.raises(
        AudioError, match="b\udcff.wav is no readable WAV or FLAC recording: Format"
    ):
        pcm.read_audio(path)


def test_a_recording_without_samples_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.wav"
    soundfile.write(path, np.zeros(0), 16_000)
    with pytest.raises(AudioError, match=r"empty\.wav holds no samples"):
        pcm.read_audio(path)


@pytest.mark.parametrize(
    ("sample", "rate", "words"),
    [
        (np.nan, 16_000, "not finite .* export it anew as WAV of 16 bits"),
        (-np.inf, 16_000, "not finite"),
        (0.5, 2**31 - 1, "says that it has 2147483647 samples a second.* export it anew"),
        (0.5, 999, "says that it has 999 samples a second"),
        (0.5, 768_000, "holds no samples, or next to none"),
    ],
)
def test_a_recording_that_holds_no_sound_is_refused(
    tmp_path: Path, sample: float, rate: int, words: str
) -> None:
    path = tmp_path / "odd.wav"
    soundfile.write(path, np.full(40, sample, np.float32), rate, subtype="FLOAT")
    with pytest.raises(AudioError, match=rf"odd\.wav .*{words}"):
        pcm.read_audio(path)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("peak", "told"), [(1e38, "1e+38"), (32_767, "32767"), (1.5, "1.5"), (1.05, ""), (1.0, "")]
)
def test_a_recording_that_is_too_loud_is_clipped_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, peak: float, told: str
) -> None:
    path = tmp_path / "loud.wav"
    soundfile.write(path, np.float32([peak, -peak, 0.5]), 16_000, subtype="FLOAT")
    assert pcm.read_audio(path).tolist() == [1, -1, 0.5]
    assert [f"loud.wav reaches {told}, and" in line for line in caplog.messages] == [True] * bool(
        told
    )


def test_of_channels_that_cancel_out_the_loudest_is_heard(tmp_path: Path) -> None:
    path, said = tmp_path / "stereo.wav", tone(0.1, 16_000)
    for other, mixed in ((-0.95 * said, said), (0 * said, said / 2), (-0.5 * said, said / 4)):
        soundfile.write(path, np.column_stack([other, said]), 16_000, subtype="FLOAT")
        assert np.allclose(pcm.read_audio(path), mixed, atol=1e-6)


@pytest.mark.parametrize(
    "use",
    [
        pcm.to_int16,
        pcm.encode_s16le,
        pcm.encode_f32le,
        MULAW.encode,
        ALAW.encode,
        pcm.wav_file,
        lambda samples: pcm.resample(samples, 16_000, 16_000),
    ],
)
@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (np.ones(4, np.int16), "samples of type int16, where floats .* are expected; .*to_float32"),
        (np.ones((4, 2), np.float32), r"samples of shape \(4, 2\), where mono .* is expected"),
    ],
)
def test_samples_of_another_type_or_shape_are_refused(
    use: Callable[[Any], object], samples: Any, words: str
) -> None:
    with pytest.raises(AudioError, match=words):
        use(samples)


def test_one_channel_as_a_format_decodes_it_is_mono() -> None:
    samples = np.linspace(-0.5, 0.5, 100, dtype=np.float32)
    column = WIRE.decode(pcm.encode_s16le(samples))
    assert column.shape == (100, 1)
    assert pcm.encode_s16le(column) == pcm.encode_s16le(samples)
    assert pcm.wav_file(column) == pcm.wav_file(samples)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.raw", "a.txt", "a"])
@given(data=st.binary(max_size=80))
def test_no_file_raises_outside_the_tree(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("junk") / name
    path.write_bytes(data)
    with pytest.raises(LabkitError):
        pcm.read_audio(path)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"a\.wav cannot be written"):
        pcm.write_wav(tmp_path / "no" / "folder" / "a.wav", tone(0.01, 16_000))


@pytest.mark.parametrize("noise", [0.0, 0.0005, 0.003])
def test_the_end_of_speech_by_energy_is_near_the_annotated_one(noise: float) -> None:
    rng = np.random.default_rng(1)
    spoken = [r for r in load_manifest(ROOT / "data" / "speech") if r.kind.is_speech][:12]
    for recording in spoken:
        samples = pcm.read_audio(recording.path)
        samples += rng.normal(0, noise, len(samples)).astype(np.float32)
        found = pcm.end_of_speech(samples)
        assert found is not None
        assert recording.end_of_speech_sample is not None
        assert abs(found - recording.end_of_speech_sample) < 0.1 * pcm.SAMPLE_RATE


def test_noise_silence_and_nothing_have_no_end_of_speech() -> None:
    noise = np.random.default_rng(1).normal(0, 0.05, 16_000).astype(np.float32)
    for samples in (noise, np.zeros(16_000, np.float32), np.zeros(0, np.float32), noise[:10]):
        assert pcm.end_of_speech(samples) is None


def test_speech_without_a_pause_keeps_its_soft_end() -> None:
    loud = np.tile(np.float32([0.5, -0.5]), 4000)
    soft = loud * np.float32(0.15)  # 16 dB softer: the quietest that there is
    assert pcm.end_of_speech(np.concatenate([soft, loud, soft])) == 23_999


@given(hnp.arrays(np.float32, 20, elements=st.floats(-3, 3, width=32)))
def test_floats_come_back_clipped_and_otherwise_bit_for_bit(samples: Float32) -> None:
    wanted = np.clip(samples, -1, 1)
    assert np.array_equal(pcm.decode_f32le(pcm.encode_f32le(samples)), wanted)
    assert np.array_equal(pcm.decode_f32le(samples.astype("<f4").tobytes()), wanted)


@pytest.mark.parametrize("sample", [np.nan, np.inf, -np.inf])
def test_floats_that_are_not_finite_are_refused(sample: float) -> None:
    broken = np.float32([0, sample])
    with pytest.raises(AudioError, match="not finite"):
        pcm.decode_f32le(broken.tobytes())
    with pytest.raises(AudioError, match="not finite"):
        pcm.encode_f32le(broken)


def test_a_part_of_a_float_is_refused() -> None:
    with pytest.raises(AudioError, match="multiple of four bytes, got 6"):
        pcm.decode_f32le(bytes(6))


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
    heard = 32_768 * float(law.decode(law.encode(as_float(np.array([value]))))[0])
    assert abs(heard - value) <= (abs(value) + bias) / 32


@pytest.mark.parametrize(("law", "other_zeros"), [(MULAW, {0x7F: 0xFF}), (ALAW, {})])
def test_codes_survive_the_round_trip_save_for_a_second_zero(
    law: Law, other_zeros: dict[int, int]
) -> None:
    again = law.encode(law.decode(ALL_CODES))
    assert {code: again[code] for code in ALL_CODES if again[code] != code} == other_zeros


@laws
@given(samples=floats)
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
