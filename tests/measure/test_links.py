"""Links: ranges, order, delays, rates and the position of a cut, for any sizes and moments."""

from itertools import accumulate, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import InstrumentError
from labkit.measure.links import (
    BURST_NS,
    FASTEST,
    QUEUE_BYTES,
    Conditions,
    Direction,
    Link,
    Schedule,
)

MS = 1_000_000
SIZES = st.integers(1, 100_000)
PAUSES_NS = st.integers(0, 500 * MS)
LATE = st.floats(0, 500)
ARRIVALS = st.lists(st.tuples(SIZES, PAUSES_NS), min_size=1, max_size=50)


def dues(link: Link, seed: str, arrivals: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """When each piece arrived, and when it is due; pieces come after their pauses."""
    schedule = Schedule(link, seed)
    moments = accumulate(pause for _, pause in arrivals)
    return [
        (now, schedule.admit(size, now)) for (size, _), now in zip(arrivals, moments, strict=True)
    ]


@given(LATE, LATE, ARRIVALS)
def test_bytes_never_overtake(delay: float, jitter: float, arrivals: list[tuple[int, int]]) -> None:
    planned = dues(Link(delay_ms=delay, jitter_ms=jitter), "seed", arrivals)
    assert all(earlier <= later for (_, earlier), (_, later) in pairwise(planned))


@given(LATE, LATE, ARRIVALS)
def test_bytes_are_never_earlier_than_the_delay(
    delay: float, jitter: float, arrivals: list[tuple[int, int]]
) -> None:
    planned = dues(Link(delay_ms=delay, jitter_ms=jitter), "seed", arrivals)
    assert all(due - now >= delay * MS for now, due in planned)


@given(LATE, LATE, ARRIVALS)
def test_a_byte_is_late_by_delay_and_jitter_at_most_or_behind_one_that_is(
    delay: float, jitter: float, arrivals: list[tuple[int, int]]
) -> None:
    last = 0
    for now, due in dues(Link(delay_ms=delay, jitter_ms=jitter), "seed", arrivals):
        assert due <= max(last, now + (delay + jitter) * MS + 1)
        last = due


@given(LATE, ARRIVALS)
def test_without_jitter_all_are_late_by_the_same(
    delay: float, arrivals: list[tuple[int, int]]
) -> None:
    planned = dues(Link(delay_ms=delay), "seed", arrivals)
    assert len({due - now for now, due in planned}) == 1


@given(st.integers().map(str), ARRIVALS)
def test_the_same_seed_plans_the_same(seed: str, arrivals: list[tuple[int, int]]) -> None:
    link = Link(delay_ms=20, jitter_ms=20)
    assert dues(link, seed, arrivals) == dues(link, seed, arrivals)


def test_another_seed_plans_otherwise() -> None:
    arrivals = [(100, MS)] * 10
    link = Link(jitter_ms=20)
    assert dues(link, "1", arrivals) != dues(link, "2", arrivals)


def test_jitter_follows_the_place_in_the_stream_not_the_count_of_pieces() -> None:
    link = Link(jitter_ms=20)
    # The second run's first two pieces came joined; pauses let no piece wait for another.
    apart = dues(link, "seed", [(10, 0), (10, 100 * MS), (10, 100 * MS)])
    joined = dues(link, "seed", [(20, 0), (10, 200 * MS)])
    assert (apart[0], apart[2]) == (joined[0], joined[1])


@given(
    st.floats(1, 1e9),
    st.lists(st.tuples(SIZES, PAUSES_NS), min_size=1, max_size=50),
)
def test_over_any_time_no_more_is_forwarded_than_rate_and_burst_allow(
    rate: float, steps: list[tuple[int, int]]
) -> None:
    link = Link(bytes_per_s=rate)
    schedule = Schedule(link, "seed")
    now, sent = 10 * BURST_NS, []
    for size, idle in steps:
        piece = link.allowance(0, size)
        sent.append((now, piece))
        now = max(now, schedule.spend(piece, now)) + idle
    for first, (start, _) in enumerate(sent):
        total = 0
        for moment, piece in sent[first:]:
            assert total <= rate * (moment - start + BURST_NS) / 1e9 * (1 + 1e-9)
            total += piece


@given(st.floats(1, 1e9), st.lists(st.integers(0, BURST_NS // 2), min_size=20, max_size=20))
def test_late_timers_do_not_lower_the_rate(rate: float, lateness: list[int]) -> None:
    link = Link(bytes_per_s=rate)
    schedule = Schedule(link, "seed")
    piece = link.allowance(0, 100_000_000)
    if piece / rate * 1e9 > BURST_NS:  # a byte takes longer than the bucket is deep
        return
    start = now = 10 * BURST_NS
    for late in lateness:
        now = max(now, schedule.spend(piece, now)) + late
    assert now - start <= len(lateness) * piece / rate * 1e9 + BURST_NS


def test_without_a_rate_bytes_may_go_at_once() -> None:
    assert Schedule(Link(), "seed").spend(1_000_000, 5) == 5
    assert Link().allowance(0, 1_000_000) == 1_000_000


@given(
    st.integers(0, 300_000),
    st.none() | st.floats(1, 1e7),
    st.lists(st.integers(1, 50_000), min_size=1, max_size=20),
)
def test_a_cut_falls_between_two_pieces_whatever_their_sizes(
    cut: int, rate: float | None, sizes: list[int]
) -> None:
    link = Link(cut_after=cut, bytes_per_s=rate)
    carried, seen = 0, {0}
    for size in sizes:
        while size and carried < 2 * cut + 1:
            piece = link.allowance(carried, size)
            assert 1 <= piece <= size
            carried, size = carried + piece, size - piece
            seen.add(carried)
    assert cut in seen or carried < cut


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"delay_ms": -1}, "delay_ms is -1; it must be 0 ms or more"),
        ({"delay_ms": float("inf")}, "delay_ms is inf; it must be .*finite"),
        ({"jitter_ms": -0.5}, r"jitter_ms is -0\.5; it must be 0 ms or more"),
        ({"jitter_ms": float("nan")}, "jitter_ms is nan"),
        ({"bytes_per_s": 0}, "bytes_per_s is 0; it must be above 0"),
        ({"cut_after": -7}, "cut_after is -7; it must be 0 bytes or more"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_field(values: Any, message: str) -> None:
    with pytest.raises(InstrumentError, match=message):
        Link(**values)


def test_the_window_is_the_queue_and_what_is_in_flight() -> None:
    assert Link().window_bytes == QUEUE_BYTES
    assert Link(bytes_per_s=1000).window_bytes == QUEUE_BYTES
    assert Link(delay_ms=400, jitter_ms=100, bytes_per_s=1000).window_bytes == QUEUE_BYTES + 500
    assert Link(delay_ms=1000).window_bytes == QUEUE_BYTES + FASTEST
    assert Link(delay_ms=1000, bytes_per_s=1e12).window_bytes == QUEUE_BYTES + FASTEST


def test_conditions_are_asked_by_direction() -> None:
    conditions = Conditions(up=Link(delay_ms=1), down=Link(delay_ms=2))
    assert conditions[Direction.UP].delay_ms == 1
    assert conditions[Direction.DOWN].delay_ms == 2
