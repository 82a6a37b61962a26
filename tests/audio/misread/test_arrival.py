"""Paces of streams: live, slow, fast, and those that are none."""

import pytest

from labkit.audio.misread.arrival import Pace, PaceMeter


def pace_of(times: list[float], seconds: float) -> Pace | None:
    """The pace after messages of `seconds` of audio at `times`, in seconds."""
    meter = PaceMeter()
    for at_s in times:
        meter.feed(round(at_s * 1e9), seconds)
    return meter.pace()


@pytest.mark.parametrize("ratio", [0.1, 0.5, 1, 2, 6])
@pytest.mark.parametrize("chunk_s", [0.02, 0.1, 1.0])
def test_a_regular_stream_is_steady_at_its_ratio(ratio: float, chunk_s: float) -> None:
    pace = pace_of([i * chunk_s for i in range(round(10 / chunk_s))], chunk_s * ratio)
    assert pace is not None
    assert pace.ratio == pytest.approx(ratio)
    assert pace.steady
    assert 2.9 < pace.span_s <= 4.001


def test_one_message_or_one_burst_has_no_pace() -> None:
    assert pace_of([], 0.04) is None
    assert pace_of([5], 0.04) is None
    assert pace_of([5] * 100, 0.04) is None


def test_measuring_begins_anew_behind_a_pause() -> None:
    before = [i * 0.04 for i in range(100)]
    after = [60 + i * 0.04 for i in range(50)]
    pace = pace_of(before + after, 0.04)
    assert pace is not None
    assert pace.ratio == pytest.approx(1)
    assert pace.span_s == pytest.approx(49 * 0.04)


def test_speech_with_silence_left_out_is_not_slow() -> None:
    bursts = [word + i * 0.02 for word in range(10) for i in range(20)]
    pace = pace_of(bursts, 0.02)
    assert pace is not None
    assert pace.ratio == pytest.approx(1)


@pytest.mark.parametrize("head_s", [1.0, 2.0, 3.0])
def test_a_head_start_is_not_steady(head_s: float) -> None:
    live = [i * 0.04 for i in range(80)]
    pace = pace_of([0.0] * round(head_s / 0.04) + live, 0.04)
    assert pace is not None
    assert pace.ratio > 1.2
    assert not pace.steady


def test_a_few_tens_of_milliseconds_of_jitter_are_steady() -> None:
    pace = pace_of([i * 0.04 + 0.05 * (i * 7 % 10) / 10 for i in range(100)], 0.08)
    assert pace is not None
    assert pace.ratio == pytest.approx(2, rel=0.02)
    assert pace.steady
