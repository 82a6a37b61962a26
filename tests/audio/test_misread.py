"""What the watch tells, when, and how often; and what it leaves alone."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.audio import pcm
from labkit.audio.formats import AudioFormat
from labkit.audio.misread import (
    MISMATCHES,
    Finding,
    FormatWatch,
    Pace,
    Rule,
    Window,
)
from labkit.audio.pcm import Encoding, Float32, encode_f32le, encode_s16le, read_audio, resample
from labkit.audio.readings import DECLARED
from labkit.errors import ErrorCode, ProtocolError
from tests.paths import SPEECH

S16, F32, MULAW, ALAW = Encoding


def speech(rate: int = 16_000, seconds: float = 6) -> Float32:
    spoken = resample(read_audio(SPEECH / "slt-03.flac"), 16_000, rate)
    return np.resize(spoken, round(seconds * rate))


def findings(
    form: AudioFormat, *parts: tuple[bytes, float], chunk_ms: int = 40
) -> Iterator[ProtocolError]:
    """What is told of a stream in messages of `chunk_ms` as declared.

    Args:
        form: What is declared.
        parts: Bytes of the stream, and at how many times live as declared they come.
        chunk_ms: How much each message holds.
    """
    watch, at_ns = FormatWatch(form), 0.0
    size = form.samples(chunk_ms / 1000) * form.frame_bytes
    for data, pace in parts:
        for at in range(0, len(data), size):
            yield from watch.feed(data[at : at + size], round(at_ns))
            at_ns += chunk_ms * 1e6 / pace


def kinds(form: AudioFormat, data: bytes, pace: float = 1.0) -> list[ErrorCode]:
    return [found.code for found in findings(form, (data, pace))]


@pytest.mark.parametrize(
    ("declared", "write", "kind"),
    [
        (S16, encode_f32le, ErrorCode.LOOKS_LIKE_FLOAT32),
        (S16, pcm.MULAW.encode, ErrorCode.LOOKS_LIKE_MULAW),
        (S16, pcm.ALAW.encode, ErrorCode.LOOKS_LIKE_ALAW),
        (MULAW, pcm.ALAW.encode, ErrorCode.LOOKS_LIKE_ALAW),
        (ALAW, pcm.MULAW.encode, ErrorCode.LOOKS_LIKE_MULAW),
        (F32, encode_s16le, ErrorCode.LOOKS_LIKE_INT16),
        (MULAW, encode_s16le, ErrorCode.LOOKS_LIKE_INT16),
        (ALAW, encode_s16le, ErrorCode.LOOKS_LIKE_INT16),
    ],
)
def test_another_encoding_is_told_once_with_figures_and_a_hint(
    declared: Encoding, write: Callable[[Float32], bytes], kind: ErrorCode
) -> None:
    form, data = AudioFormat(declared), write(speech())
    found = list(findings(form, (data, len(data) / form.bytes_per_second / 6)))
    assert [one.code for one in found] == [kind]
    assert f"{declared} 16000 Hz mono" in str(found[0])
    assert "dBFS" in str(found[0])
    assert found[0].hint.startswith("declare the encoding")


@pytest.mark.parametrize("scale", [0.2, 0.05])
@pytest.mark.parametrize(("declared", "sent"), [(MULAW, ALAW), (ALAW, MULAW)])
def test_the_other_law_is_told_of_quiet_speech_too(
    declared: Encoding, sent: Encoding, scale: float
) -> None:
    quiet = np.float32(scale) * speech(8_000, 8)
    kind = {MULAW: ErrorCode.LOOKS_LIKE_MULAW, ALAW: ErrorCode.LOOKS_LIKE_ALAW}[sent]
    assert kinds(AudioFormat(declared, 8_000), AudioFormat(sent, 8_000).encode(quiet)) == [kind]


@pytest.mark.parametrize(
    ("name", "declared", "sent", "kind"),
    [
        ("ked-08", MULAW, ALAW, ErrorCode.LOOKS_LIKE_ALAW),
        ("kal-05", MULAW, ALAW, ErrorCode.LOOKS_LIKE_ALAW),
        ("ked-08", ALAW, MULAW, ErrorCode.LOOKS_LIKE_MULAW),
        ("ked-06", ALAW, S16, ErrorCode.LOOKS_LIKE_INT16),
    ],
)
def test_noisy_voices_and_long_pauses_of_a_telephone_are_told(
    name: str, declared: Encoding, sent: Encoding, kind: ErrorCode
) -> None:
    spoken = np.resize(resample(read_audio(SPEECH / f"{name}.flac"), 16_000, 8_000), 80_000)
    data = AudioFormat(sent, 8_000).encode(spoken)
    form = AudioFormat(declared, 8_000)
    found = findings(form, (data, len(data) / 80_000), chunk_ms=20)
    assert [one.code for one in found] == [kind]


@pytest.mark.parametrize(("name", "rate"), [("slt-09", 16_000), ("ked-09", 8_000)])
def test_one_channel_with_a_pause_at_the_wrong_time_is_no_other_rate(name: str, rate: int) -> None:
    spoken = np.resize(resample(read_audio(SPEECH / f"{name}.flac"), 16_000, rate), 10 * rate)
    found = kinds(AudioFormat(S16, rate, 2), encode_s16le(spoken), 0.5)
    assert found == [ErrorCode.LOOKS_LIKE_MONO]


@pytest.mark.parametrize("law", [MULAW, ALAW])
def test_unsigned_bytes_are_told_from_either_law(law: Encoding) -> None:
    unsigned = (np.round(speech() * 128) + 128).astype(np.uint8).tobytes()
    assert kinds(AudioFormat(law), unsigned) == [ErrorCode.LOOKS_LIKE_UINT8]


def test_a_header_is_told_at_the_first_message_and_the_samples_after_it_are_watched() -> None:
    header = b"RIFF\0\0\0\0WAVEfmt " + bytes(28)
    form = AudioFormat(S16)
    found = kinds(form, header + encode_f32le(speech()), 2)
    assert found == [ErrorCode.LOOKS_LIKE_FILE, ErrorCode.LOOKS_LIKE_FLOAT32]
    assert kinds(form, header + encode_s16le(speech())) == [ErrorCode.LOOKS_LIKE_FILE]


def test_the_same_header_is_told_once() -> None:
    watch = FormatWatch(AudioFormat())
    header = b"RIFF\0\0\0\0WAVEfmt " + bytes(28)
    assert [len(watch.feed(header, 0)) for _ in range(3)] == [1, 0, 0]


def test_encoded_audio_is_told_at_the_first_message() -> None:
    [found] = FormatWatch(AudioFormat()).feed(b"\x1a\x45\xdf\xa3" + bytes(60), 0)
    assert found.code is ErrorCode.LOOKS_LIKE_COMPRESSED
    assert "WebM" in str(found)


@pytest.mark.parametrize("pace", [0.2, 1.0])
def test_random_bytes_are_encoded_audio_only_where_they_come_slower_than_live(pace: float) -> None:
    data = np.random.default_rng(2).bytes(200_000)
    wanted = [ErrorCode.LOOKS_LIKE_COMPRESSED] if pace < 1 else []
    assert kinds(AudioFormat(), data, pace) == wanted


@pytest.mark.parametrize(("pace", "rate"), [(0.5, 8_000), (1.5, 24_000), (3.0, 48_000)])
def test_the_pace_of_another_rate_is_told_with_that_rate(pace: float, rate: int) -> None:
    data = encode_s16le(speech(rate, 8))
    found = list(findings(AudioFormat(), (data, pace)))
    assert [one.code for one in found] == [ErrorCode.RATE_MISMATCH]
    assert f"declare the sample rate {rate}" in found[0].hint
    assert f"{rate} frames a second" in str(found[0])


def test_a_pace_of_no_usual_rate_is_left_alone() -> None:
    assert kinds(AudioFormat(), encode_s16le(speech(8_000, 8)), 0.6) == []


def test_a_hiss_shows_that_speech_is_a_file_sent_fast() -> None:
    hiss = np.float32(0.1 * np.diff(np.random.default_rng(0).standard_normal(16_001)))
    data = encode_s16le(np.tile(np.concatenate([speech(seconds=0.5), hiss[:1600]]), 25))
    assert kinds(AudioFormat(), data, 3) == []


def test_telephone_speech_at_48_khz_is_no_mismatch() -> None:
    """Nothing above 4 kHz is an ordinary thing."""
    assert (
        kinds(AudioFormat(S16, 48_000), encode_s16le(resample(speech(8_000), 8_000, 48_000))) == []
    )


def test_stereo_as_mono_needs_twice_the_pace() -> None:
    data = encode_s16le(np.repeat(speech(), 2))
    assert kinds(AudioFormat(), data, 2) == [ErrorCode.LOOKS_LIKE_STEREO]
    assert kinds(AudioFormat(), data, 1) == []


def test_mono_as_stereo_needs_half_the_pace() -> None:
    form = AudioFormat(channels=2)
    assert kinds(form, encode_s16le(speech()), 0.5) == [ErrorCode.LOOKS_LIKE_MONO]
    assert kinds(form, encode_s16le(speech()), 1) == []


def test_opposite_channels_are_told_and_swapped_ones_cannot_be() -> None:
    left, right = speech(), np.float32(0.5) * np.roll(speech(), 40)
    form = AudioFormat(channels=2)
    for pair, wanted in (
        ((left, -left), [ErrorCode.CHANNELS_CANCEL]),
        ((left, right), []),
        ((right, left), []),
        ((left, 0 * left), []),
    ):
        assert kinds(form, encode_s16le(np.stack(pair, axis=1).reshape(-1))) == wanted


@pytest.mark.parametrize("before_s", [6, 30])
def test_a_stream_that_becomes_wrong_later_is_told(before_s: float) -> None:
    parts = (encode_s16le(speech(seconds=before_s)), 1.0), (encode_f32le(speech()), 2.0)
    assert [found.code for found in findings(AudioFormat(), *parts)] == [
        ErrorCode.LOOKS_LIKE_FLOAT32
    ]


@pytest.mark.parametrize("before", [0.0, 0.3])
def test_a_stream_that_begins_with_silence_or_noise_is_told(before: float) -> None:
    noise = np.float32(before * np.random.default_rng(1).standard_normal(160_000))
    parts = (encode_s16le(noise), 1.0), (encode_f32le(speech(seconds=12)), 2.0)
    assert [found.code for found in findings(AudioFormat(), *parts)] == [
        ErrorCode.LOOKS_LIKE_FLOAT32
    ]


def test_only_the_first_seconds_are_watched_where_that_is_asked() -> None:
    data, form = encode_s16le(speech()) + encode_f32le(speech()), AudioFormat()
    watch = FormatWatch(form, seconds=5)
    pieces = [data[at : at + 640] for at in range(0, len(data), 640)]
    assert [found for i, piece in enumerate(pieces) for found in watch.feed(piece, i * 10**7)] == []


def windows_asked_about(monkeypatch: pytest.MonkeyPatch) -> set[Window]:
    """Is filled with the audible windows that are looked at from now on."""
    asked: set[Window] = set()
    judge = Rule.ask

    def ask(rule: Rule, window: Window) -> Finding | None:
        asked.add(window)
        return judge(rule, window)

    monkeypatch.setattr(Rule, "ask", ask)
    return asked


@pytest.mark.parametrize("form", [AudioFormat(), AudioFormat(MULAW, 8_000)], ids=str)
def test_the_longer_all_is_well_the_less_is_looked_at(
    form: AudioFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = windows_asked_about(monkeypatch)
    data = form.encode(speech(form.sample_rate, 10))
    assert list(findings(form, (data, 1.0), chunk_ms=20)) == []
    first = len(asked)
    assert list(findings(form, (3 * data, 1.0), chunk_ms=20)) == []
    assert first <= 8
    assert len(asked) - first <= 14


def test_one_long_message_is_enough_and_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute in one message is judged by its first seconds; the next one goes on behind it."""
    asked = windows_asked_about(monkeypatch)
    watch = FormatWatch(AudioFormat())
    assert watch.feed(encode_s16le(speech(seconds=60)) + b"1234", 0) == ()
    assert len(asked) <= 6
    data = b"5678" + encode_f32le(speech())
    assert [found.code for found in watch.feed(data, 10**9)] == [ErrorCode.LOOKS_LIKE_FLOAT32]


# -- several faults at once -------------------------------------------------------------------


def test_floats_at_another_rate_are_told_with_both() -> None:
    found = list(findings(AudioFormat(), (encode_f32le(speech(48_000, 8)), 6.0)))
    assert [one.code for one in found] == [ErrorCode.LOOKS_LIKE_FLOAT32, ErrorCode.RATE_MISMATCH]
    assert "declare the sample rate 48000" in found[1].hint
    assert "3.00 times as fast as live 32-bit floats 16000 Hz mono" in str(found[1])


def test_two_channels_at_another_rate_are_told_with_both() -> None:
    data = encode_s16le(np.repeat(speech(48_000, 8), 2))
    found = list(findings(AudioFormat(), (data, 6.0)))
    assert [one.code for one in found] == [ErrorCode.LOOKS_LIKE_STEREO, ErrorCode.RATE_MISMATCH]
    assert "declare the sample rate 48000" in found[1].hint


def test_one_channel_at_another_rate_is_told_with_both() -> None:
    found = list(findings(AudioFormat(channels=2), (encode_s16le(speech(48_000, 8)), 1.5)))
    assert [one.code for one in found] == [ErrorCode.LOOKS_LIKE_MONO, ErrorCode.RATE_MISMATCH]
    assert "declare the sample rate 48000" in found[1].hint


@pytest.mark.parametrize("encoding", Encoding)
def test_opposite_channels_at_another_rate_are_told_with_both(encoding: Encoding) -> None:
    loud = speech(48_000, 8)
    data = AudioFormat(encoding).encode(np.stack([loud, -loud], axis=1).reshape(-1))
    found = kinds(AudioFormat(encoding, channels=2), data, 3.0)
    assert found == [ErrorCode.CHANNELS_CANCEL, ErrorCode.RATE_MISMATCH]


def test_three_faults_are_told() -> None:
    data = encode_f32le(np.repeat(speech(48_000, 8), 2))
    found = kinds(AudioFormat(), data, 12.0)
    assert found == [
        ErrorCode.LOOKS_LIKE_FLOAT32,
        ErrorCode.LOOKS_LIKE_STEREO,
        ErrorCode.RATE_MISMATCH,
    ]


@pytest.mark.parametrize(
    ("sent", "declared"), [(S16, F32), (S16, MULAW), (MULAW, S16), (ALAW, F32)]
)
def test_one_channel_of_another_encoding_is_told_with_both(
    sent: Encoding, declared: Encoding
) -> None:
    data, form = AudioFormat(sent, 8_000).encode(speech(8_000)), AudioFormat(declared, 8_000, 2)
    told = kinds(form, data, len(data) / form.bytes_per_second / 6)
    assert told == [DECLARED[sent].kind, ErrorCode.LOOKS_LIKE_MONO]


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("hertz", [440, 1_000])
@pytest.mark.parametrize("level", [0.3, 0.9])
def test_the_beeps_of_an_alarm_are_as_declared(
    encoding: Encoding, hertz: int, level: float
) -> None:
    times = np.arange(3 * 16_000) / 16_000
    beeps = np.float32(level * np.sign(np.sin(2 * np.pi * hertz * times)) * (2 * times % 2 < 1))
    form = AudioFormat(encoding)
    assert kinds(form, form.encode(beeps)) == []


def test_a_file_with_the_high_byte_first_is_told_with_both() -> None:
    header = b"FORM\0\0\0\0AIFFCOMM" + bytes(38)
    data = encode_s16le(speech())
    swapped = np.frombuffer(data, "<i2").astype(">i2").tobytes()
    found = kinds(AudioFormat(), header + swapped)
    assert found == [ErrorCode.LOOKS_LIKE_FILE, ErrorCode.LOOKS_LIKE_BIG_ENDIAN]


def test_a_header_of_two_bytes_too_many_is_told_with_the_floats_behind_it() -> None:
    header = b"RIFF\0\0\0\0WAVEfmt " + bytes(30)
    found = kinds(AudioFormat(), header + encode_f32le(speech()), 2)
    assert found == [
        ErrorCode.LOOKS_LIKE_FILE,
        ErrorCode.LOOKS_LIKE_FLOAT32,
        ErrorCode.LOOKS_SHIFTED,
    ]


def test_nothing_is_told_behind_the_output_of_an_encoder() -> None:
    watch = FormatWatch(AudioFormat())
    assert len(watch.feed(b"fLaC" + bytes(60), 0)) == 1
    assert watch.feed(b"RIFF\0\0\0\0WAVEfmt " + bytes(28), 1) == ()


@given(st.sampled_from(Encoding), st.integers(1, 2), st.lists(st.binary(max_size=9_000)))
def test_any_bytes_in_any_pieces_are_taken(
    encoding: Encoding, channels: int, pieces: list[bytes]
) -> None:
    watch = FormatWatch(AudioFormat(encoding, 16_000, channels))
    for i, piece in enumerate(pieces):
        assert {found.code for found in watch.feed(piece, i * 10**7)} <= MISMATCHES


@given(st.integers(1, 2_000))
def test_the_size_of_messages_does_not_change_what_is_found(size: int) -> None:
    data = encode_f32le(speech(seconds=2))
    watch = FormatWatch(AudioFormat())
    pieces = [data[at : at + 4 * size] for at in range(0, len(data), 4 * size)]
    assert [found.code for piece in pieces for found in watch.feed(piece, 0)] == [
        ErrorCode.LOOKS_LIKE_FLOAT32
    ]


@given(st.integers(0, 400), st.integers(1, 3_000))
def test_the_first_message_may_end_within_a_block(first: int, size: int) -> None:
    data = encode_f32le(speech(seconds=2))
    watch = FormatWatch(AudioFormat())
    pieces = [
        data[: 2 * first],
        *(data[at : at + size] for at in range(2 * first, len(data), size)),
    ]
    told = [found.code for piece in pieces for found in watch.feed(piece, 0)]
    assert told == [ErrorCode.LOOKS_LIKE_FLOAT32]


# -- the pace --------------------------------------------------------------------------------

BYTES = 16_000
"""Bytes of a second of audio."""


def pace_of(times: list[float], seconds: float) -> Pace:
    """The pace after messages of `seconds` of audio at `times`, in seconds."""
    pace = Pace(BYTES)
    for at_s in times:
        pace.feed(round(at_s * 1e9), round(seconds * BYTES))
    return pace


@pytest.mark.parametrize("ratio", [0.1, 0.5, 1, 2, 6])
@pytest.mark.parametrize("chunk_s", [0.02, 0.1, 1.0])
def test_a_regular_stream_is_steady_at_its_ratio(ratio: float, chunk_s: float) -> None:
    pace = pace_of([i * chunk_s for i in range(round(10 / chunk_s))], chunk_s * ratio)
    assert pace.speed(BYTES) == pytest.approx(ratio, rel=1e-3)
    assert pace.is_steady()
    assert 2.9 < pace.span_s <= 4.001


def test_one_message_or_one_burst_has_no_rate() -> None:
    assert pace_of([], 0.04).span_s == 0
    assert pace_of([5], 0.04).span_s == 0
    assert pace_of([5] * 100, 0.04).span_s == 0


def test_measuring_begins_anew_behind_a_pause() -> None:
    before = [i * 0.04 for i in range(100)]
    after = [60 + i * 0.04 for i in range(50)]
    pace = pace_of(before + after, 0.04)
    assert pace.speed(BYTES) == pytest.approx(1)
    assert pace.span_s == pytest.approx(49 * 0.04)


def test_speech_with_silence_left_out_is_not_slow() -> None:
    bursts = [word + i * 0.02 for word in range(10) for i in range(20)]
    pace = pace_of(bursts, 0.02)
    assert pace.speed(BYTES) == pytest.approx(1)


@pytest.mark.parametrize("head_s", [1.0, 2.0, 3.0])
def test_a_head_start_is_not_steady(head_s: float) -> None:
    live = [i * 0.04 for i in range(80)]
    pace = pace_of([0.0] * round(head_s / 0.04) + live, 0.04)
    assert pace.speed(BYTES) > 1.2
    assert not pace.is_steady()


def test_a_few_tens_of_milliseconds_of_jitter_are_steady() -> None:
    pace = pace_of([i * 0.04 + 0.05 * (i * 7 % 10) / 10 for i in range(100)], 0.08)
    assert pace.speed(BYTES) == pytest.approx(2, rel=0.02)
    assert pace.is_steady()


def test_empty_messages_have_no_rate() -> None:
    assert pace_of([0, 0.1, 0.2], 0).span_s == 0


@pytest.mark.parametrize(("late_s", "steady"), [(0.1, True), (0.4, False)])
def test_a_stall_that_is_no_pause_is_told_by_its_length(late_s: float, steady: bool) -> None:
    """Messages of 0.2 s: a gap of 0.6 s is no pause yet."""
    live = [i * 0.2 for i in range(20)]
    pace = pace_of([max(at, 2 + late_s) if at > 1.9 else at for at in live], 0.2)
    assert pace.is_steady() is steady


def test_a_burst_amid_live_audio_is_not_steady() -> None:
    """Messages of 20 ms, far more than are kept in mind one by one; 0.4 s of them at once."""
    times = [i * 0.02 for i in range(60)]
    pace = pace_of([*times, *[times[-1]] * 20, *[at + times[-1] for at in times]], 0.02)
    assert not pace.is_steady()
