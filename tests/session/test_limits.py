"""Rates, budgets and silence, decided on a clock that the test moves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import CloseCode
from labkit.protocol.limits import Limits
from labkit.session.limits import Activity, Budget, TokenBucket

SECOND = 10**9


def test_a_bucket_lets_its_burst_through_and_then_its_rate() -> None:
    bucket = TokenBucket(per_second=2.0, burst=10.0, now_ns=0)
    assert bucket.take(10, 0) == 0
    assert bucket.take(4, 0) == pytest.approx(2.0)
    assert bucket.take(1, 3 * SECOND) == 0


@given(st.lists(st.tuples(st.floats(0, 50), st.integers(0, SECOND)), max_size=30))
def test_who_waits_as_long_as_told_never_gets_ahead_of_the_rate(
    steps: list[tuple[float, int]],
) -> None:
    bucket, now_ns, taken = TokenBucket(per_second=5.0, burst=20.0, now_ns=0), 0, 0.0
    for amount, pause_ns in steps:
        now_ns += pause_ns
        wait_s = bucket.take(amount, now_ns)
        taken += amount
        now_ns += round(wait_s * SECOND)
        assert taken <= 20.0 + 5.0 * now_ns / SECOND + 1e-6


def test_what_is_held_is_counted_at_every_level() -> None:
    server = Budget(10**6)
    address = Budget(10**6, server)
    one, other = Budget(1000, address), Budget(1000, server)
    one.hold(600)
    other.hold(300)
    assert (server.used, address.used) == (900, 600)
    one.hold(100)
    assert (server.used, address.used) == (400, 100)


def test_a_budget_is_full_by_itself_or_with_what_stands_above() -> None:
    server = Budget(2 * Budget.FLOOR)
    one, other, small = (Budget(10 * Budget.FLOOR, server) for _ in range(3))
    one.hold(Budget.FLOOR)
    assert not one.full
    other.hold(Budget.FLOOR)
    assert one.full
    assert other.full
    small.hold(1000)
    assert not small.full, "a caller that holds little goes on where others have filled all"


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1000)), max_size=30))
def test_the_levels_above_always_hold_the_sum(steps: list[tuple[int, int]]) -> None:
    server = Budget(1)
    sessions = [Budget(1, server) for _ in range(3)]
    for which, used in steps:
        sessions[which].hold(used)
        assert server.used == sum(session.used for session in sessions)


LIMITS = Limits(idle_s=20.0, idle_audio_s=30.0, max_session_s=60.0)


@pytest.mark.parametrize(
    ("audio_s", "control_s", "now_s", "close"),
    [
        (0, 0, 19, None),
        (0, 0, 20, CloseCode.IDLE),
        (5, 0, 20, None),
        (0, 29, 30, CloseCode.IDLE),
        (50, 50, 60, CloseCode.SESSION_TOO_LONG),
    ],
)
def test_who_is_overdue(audio_s: int, control_s: int, now_s: int, close: CloseCode | None) -> None:
    activity = Activity(0)
    activity.audio_ns, activity.control_ns = audio_s * SECOND, control_s * SECOND
    why = activity.overdue(now_s * SECOND, LIMITS)
    assert (None if why is None else why.close) is close
