"""One level summed up: percentiles and their interval, losses, and lateness."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.measure.call_log import CallLog, Request
from labkit.measure.capacity import (
    LATENESS_BOUND_MS,
    Resources,
    percentiles,
    summarise_level,
)
from tests.measure.load_samples import level, spread

MS = 1_000_000


def test_percentiles_are_in_milliseconds() -> None:
    found = percentiles([n * MS for n in range(101)])
    assert found is not None
    assert (found.p50, found.p95, found.p99, found.sample) == (50, 95, 99, 101)
    assert percentiles([]) is None


@given(st.lists(st.integers(0, 10**10), min_size=1))
def test_the_interval_holds_values_that_were_seen(durations: list[int]) -> None:
    found = percentiles(durations)
    assert found is not None
    seen = [duration / MS for duration in durations]
    assert found.low in seen
    assert found.high in seen
    assert found.low <= found.high
    assert found.p50 <= found.p95 <= found.p99 <= max(seen)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    truth = -np.log(0.05)
    covered = 0
    for _ in range(400):
        found = percentiles((rng.exponential(size=300) * MS).astype(int).tolist())
        assert found is not None
        covered += found.low <= truth <= found.high
    assert 0.92 < covered / 400 < 0.98


def logs() -> list[CallLog]:
    answered = CallLog(
        turns=[Request(0, 20 * MS), Request(0, 40 * MS)],
        pings=[Request(0, MS)],
        lateness_ns=[MS, MS],
        bytes_sent=10,
        behind_ns=0,
    )
    lost = CallLog(
        turns=[Request(0, lost=True)],
        pings=[Request(0, lost=True)],
        blocked_ns=10**9,
        behind_ns=3 * 10**9,
        errors=Counter({"engine_failed": 1}),
    )
    return [answered, lost, CallLog(refused=True)]


def test_a_level_sums_up_what_its_callers_noted() -> None:
    found = summarise_level(
        server="labkit", seconds=5, patience_s=10, logs=logs(), unconnected=2, resources=Resources()
    )
    assert (found.sessions, found.refused, found.turns, found.lost) == (5, 3, 2, 1)
    assert (found.pings_lost, found.errors) == (1, {"engine_failed": 1})
    assert (found.behind_s, found.blocked_s, found.bytes_sent) == (3.0, 1.0, 10)
    assert found.turn_ms is not None
    assert (found.turn_ms.p50, found.turn_ms.sample) == (40, 3)
    assert found.turn_ms.p99 > 9_000  # the lost turn counts with the patience


def test_nobody_is_a_level_too() -> None:
    found = summarise_level(
        server="x", seconds=5, patience_s=10, logs=[], unconnected=3, resources=Resources()
    )
    assert (found.sessions, found.refused, found.behind_s) == (3, 3, 0)
    assert (found.turn_ms, found.ping_ms, found.cpu_ms_per_session) == (None, None, None)
    assert not found.generator_limited


@pytest.mark.parametrize(
    ("late_ms", "limited"), [(LATENESS_BOUND_MS, False), (LATENESS_BOUND_MS + 0.1, True)]
)
def test_late_callers_mark_their_level(late_ms: float, limited: bool) -> None:
    assert level(lateness_ms=spread(late_ms)).generator_limited is limited


def test_cpu_is_shared_by_those_who_were_taken() -> None:
    resources = Resources(cpu_per_s=0.4)
    assert level(sessions=10, refused=2, resources=resources).cpu_ms_per_session == 50
