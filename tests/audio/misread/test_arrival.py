"""Arrival rates of streams: live, slow, fast, and those that are none."""

import pytest

from labkit.audio.misread.arrival import ArrivalMeter, ArrivalRate

BYTES = 16_000
"""Bytes of a second of audio."""


def meter_of(times: list[float], seconds: float) -> ArrivalMeter:
    """A meter after messages of `seconds` of audio at `times`, in seconds."""
    meter = ArrivalMeter()
    for at_s in times:
        meter.feed(round(at_s * 1e9), round(seconds * BYTES))
    return meter


def rate_of(times: list[float], seconds: float) -> ArrivalRate | None:
    return meter_of(times, seconds).rate()


@pytest.mark.parametrize("ratio", [0.1, 0.5, 1, 2, 6])
@pytest.mark.parametrize("chunk_s", [0.02, 0.1, 1.0])
def test_a_regular_stream_is_steady_at_its_ratio(ratio: float, chunk_s: float) -> None:
    meter = meter_of([i * chunk_s for i in range(round(10 / chunk_s))], chunk_s * ratio)
    rate = meter.rate()
    assert rate is not None
    assert rate.bytes_per_second / BYTES == pytest.approx(ratio, rel=1e-3)
    assert meter.is_steady()
    assert 2.9 < rate.span_s <= 4.001


def test_one_message_or_one_burst_has_no_rate() -> None:
    assert rate_of([], 0.04) is None
    assert rate_of([5], 0.04) is None
    assert rate_of([5] * 100, 0.04) is None


def test_measuring_begins_anew_behind_a_pause() -> None:
    before = [i * 0.04 for i in range(100)]
    after = [60 + i * 0.04 for i in range(50)]
    rate = rate_of(before + after, 0.04)
    assert rate is not None
    assert rate.bytes_per_second / BYTES == pytest.approx(1)
    assert rate.span_s == pytest.approx(49 * 0.04)


def test_speech_with_silence_left_out_is_not_slow() -> None:
    bursts = [word + i * 0.02 for word in range(10) for i in range(20)]
    rate = rate_of(bursts, 0.02)
    assert rate is not None
    assert rate.bytes_per_second / BYTES == pytest.approx(1)


@pytest.mark.parametrize("head_s", [1.0, 2.0, 3.0])
def test_a_head_start_is_not_steady(head_s: float) -> None:
    live = [i * 0.04 for i in range(80)]
    meter = meter_of([0.0] * round(head_s / 0.04) + live, 0.04)
    rate = meter.rate()
    assert rate is not None
    assert rate.bytes_per_second / BYTES > 1.2
    assert not meter.is_steady()


def test_a_few_tens_of_milliseconds_of_jitter_are_steady() -> None:
    meter = meter_of([i * 0.04 + 0.05 * (i * 7 % 10) / 10 for i in range(100)], 0.08)
    rate = meter.rate()
    assert rate is not None
    assert rate.bytes_per_second / BYTES == pytest.approx(2, rel=0.02)
    assert meter.is_steady()


def test_empty_messages_have_no_rate() -> None:
    assert rate_of([0, 0.1, 0.2], 0) is None


@pytest.mark.parametrize(("late_s", "steady"), [(0.1, True), (0.4, False)])
def test_a_stall_that_is_no_pause_is_told_by_its_length(late_s: float, steady: bool) -> None:
    """Messages of 0.2 s: a gap of 0.6 s is no pause yet."""
    live = [i * 0.2 for i in range(20)]
    meter = meter_of([max(at, 2 + late_s) if at > 1.9 else at for at in live], 0.2)
    assert meter.is_steady() is steady


def test_a_burst_amid_live_audio_is_not_steady() -> None:
    """Messages of 20 ms, far more than are kept in mind one by one; 0.4 s of them at once."""
    times = [i * 0.02 for i in range(60)]
    meter = meter_of([*times, *[times[-1]] * 20, *[at + times[-1] for at in times]], 0.02)
    assert not meter.is_steady()
