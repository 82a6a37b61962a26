"""What a chunk size costs, against cases counted by hand."""

from fractions import Fraction
from math import lcm

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.measure.chunking import (
    CHUNK_SIZES_MS,
    detector_wait_ms,
    last_chunk_ms,
    overhead_bytes,
    packetisation_wait_ms,
    segments,
)


@given(st.integers(1, 1000))
def test_half_a_chunk_is_still_to_come_on_average(chunk_ms: int) -> None:
    steps = 1_000
    waits = [chunk_ms * (1 - (step + 0.5) / steps) for step in range(steps)]
    assert packetisation_wait_ms(chunk_ms) == pytest.approx(sum(waits) / steps)


@given(st.integers(1, 120))
def test_the_detector_waits_for_the_chunk_that_completes_its_frame(chunk_ms: int) -> None:
    frame_ms = 32
    whole = lcm(chunk_ms, frame_ms)
    waits = []
    for end in range(1, whole + 1):  # the speech ends somewhere in the millisecond before `end`
        framed = -(-end // frame_ms) * frame_ms
        there = -(-framed // chunk_ms) * chunk_ms
        waits.append(there - end + Fraction(1, 2))
    assert detector_wait_ms(chunk_ms) == pytest.approx(float(sum(waits) / whole))


def test_chunks_of_a_frame_wait_for_nothing_else() -> None:
    assert detector_wait_ms(32) == 16
    assert detector_wait_ms(32) < detector_wait_ms(20) < detector_wait_ms(40)


@pytest.mark.parametrize(
    ("chunk_ms", "per_message"),
    [(10, 8 + 52), (40, 8 + 52), (50, 8 + 2 * 52), (500, 8 + 12 * 52)],
)
def test_overhead_counts_frames_and_segments(chunk_ms: int, per_message: int) -> None:
    messages = 1000 // chunk_ms
    assert overhead_bytes(messages * chunk_ms * 32, messages) == messages * per_message
    assert overhead_bytes(0, 0) == 0


def test_small_and_large_frames_have_other_headers() -> None:
    assert overhead_bytes(100, 1) == 6 + 52
    assert overhead_bytes(70_000, 1) == 14 + 49 * 52


def test_one_segment_carries_40_ms_and_not_50() -> None:
    assert [size for size in CHUNK_SIZES_MS if segments(size * 32) == 1] == [10, 20, 32, 40]


def test_the_last_chunk_takes_its_time_on_a_slow_link() -> None:
    assert last_chunk_ms(500, None) == 0
    assert last_chunk_ms(500, 16_632) == 1000
