"""The checks of chapter 6: what an endpointer is judged by, and a policy that does better."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import numpy as np

from labkit.course.checks.check import checked_value
from labkit.course.probe import Trial
from labkit.course.turns import FixedWait, Policy, decisions
from labkit.course.verdict import NotYet
from labkit.measure.pauses import Turn, conversations, voices

_MANY: Final = 3
"""Points of a line that can be in the wrong order."""
_CLOSE_S: Final = 0.001
_HELD_OUT: Final = ("-calm", "-deep", "-lively")
"""Endings of the voices that the chapter's own turns leave to the check."""
_WAITS: Final = tuple(float(wait) for wait in np.arange(0.1, 2.0, 0.05))
_LONGEST_S: Final = 1.0
_SHARE: Final = 0.75


def judge(times: Sequence[float], end_s: float) -> tuple[bool, float | None]:
    """Whether a turn was cut off, and its dead air; None where it was never taken for finished."""
    after = [time for time in times if time >= end_s]
    return len(after) < len(times), min(after) - end_s if after else None


def point(spoken: Sequence[Sequence[Turn]], make: Callable[[], Policy]) -> tuple[float, float]:
    """Mean dead air in seconds, and the share of turns that are cut off, over conversations."""
    judged = [
        judge(times, turn.end_s)
        for turns in spoken
        for turn, times in zip(turns, decisions(turns, make()), strict=True)
    ]
    dead_air = [seconds for _, seconds in judged if seconds is not None]
    return float(np.mean(dead_air)), float(np.mean([cut for cut, _ in judged]))


@checked_value("ch6.score", "A cut-off is counted, and dead air is never negative.")
async def score(trial: Trial, function: Any) -> None:
    """`score(times, end_s)` for turns with drawn times.

    One is decided at its end, one is cut off before, one is cut off twice and never finished, one
    is never finished at all.
    """
    end_s = trial.rng.uniform(1.5, 3.0)
    early, earlier = end_s * trial.rng.uniform(0.6, 0.8), end_s * trial.rng.uniform(0.3, 0.5)
    late = end_s + trial.rng.uniform(0.2, 1.0)
    cases = [
        ("finished once", [late]),
        ("cut off, then finished", [early, late]),
        ("cut off twice, never finished", [earlier, early]),
        ("never finished", []),
    ]
    trial.rng.shuffle(cases)
    for what, times in cases:
        true = judge(times, end_s)
        shown = ", ".join(f"{time:.3f}" for time in times)
        expected = f"{_told(true)} for decisions at [{shown}] and an end at {end_s:.3f} ({what})"
        given = trial.call(function, list(times), end_s, expected=expected)
        if not _same(given, true):
            raise NotYet(expected, _told(given))
        trial.ok(f"{what}: gives {_told(true)}")


def _told(pair: Any) -> str:
    match pair:
        case (cut, float() as seconds):
            return f"({cut}, {seconds:.3f})"
    return repr(pair)


def _same(given: Any, true: tuple[bool, float | None]) -> bool:
    try:
        cut, seconds = given
        if seconds is None or true[1] is None:
            return bool(cut) == true[0] and seconds is true[1]
        return bool(cut) == true[0] and abs(float(seconds) - true[1]) < _CLOSE_S
    except (TypeError, ValueError):
        return False


@checked_value("ch6.line", "The line holds the settings that no other one beats.")
async def line(trial: Trial, function: Any) -> None:
    """`line(points)` for twelve drawn points, two of which share the fewest cut-offs; for one."""
    rng = trial.rng
    points, best = list[tuple[float, float]](), list[tuple[float, float]]()
    while len(best) < _MANY or best == sorted(best):  # or any order of them would be right
        points = [(rng.uniform(0.2, 1.5), rng.uniform(0, 0.6)) for _ in range(11)]
        fewest = min(points, key=lambda one: one[1])
        points.append((fewest[0] + 0.1, fewest[1]))
        rng.shuffle(points)
        best = _unbeaten(points)
    for drawn in (points, points[:1]):
        true = sorted(_unbeaten(drawn))
        expected = f"{_points(true)} of {len(drawn)} points"
        given = trial.call(function, list(drawn), expected=expected)
        try:
            found = [(float(seconds), float(cut)) for seconds, cut in given]
        except (TypeError, ValueError):
            raise NotYet(expected, f"{given!r}, which is no list of pairs") from None
        if found != true:
            raise NotYet(expected, f"{_points(found)}: {_why(found, true, drawn)}")
        trial.ok(f"keeps {len(true)} of {len(drawn)} points, from left to right")


def _unbeaten(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [one for one in points if not any(_beats(other, one) for other in points)]


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] <= other[0] and one[1] <= other[1]


def _points(points: Sequence[tuple[float, float]]) -> str:
    return "[" + ", ".join(f"({seconds:.2f}, {cut:.2f})" for seconds, cut in points) + "]"


def _why(
    found: Sequence[tuple[float, float]],
    true: Sequence[tuple[float, float]],
    drawn: Sequence[tuple[float, float]],
) -> str:
    if sorted(found) == sorted(true):
        return "the right points, not sorted by their dead air"
    for one in found:
        if (better := next((other for other in drawn if _beats(other, one)), None)) is not None:
            return f"{_points([one])} is beaten by {_points([better])}"
    lacks = [one for one in true if one not in found]
    return f"{_points(lacks)} is beaten by nothing, and lacks"


@checked_value(
    "ch6.policy",
    "The policy cuts off at most 3/4 as many turns as a fixed wait with the same dead air.",
)
async def policy(trial: Trial, make: Any) -> None:
    """216 turns that you have not seen, in 24 conversations, with a new `Patience()` for each.

    Voices, rhythms, pauses and noise are drawn. Mean dead air may be 1 s at most, and the share of
    turns that are cut off at most three quarters of a fixed wait's with the same dead air.
    """
    expected = "seconds from `wait_s()`, which is asked before any pause is known as well"
    trial.call(lambda: _Learners(make()).wait_s(), expected=expected)
    unseen = [voice for voice in voices() if voice.endswith(_HELD_OUT)]
    spoken = conversations(trial.rng, unseen, each=8)
    dead_air, cut = trial.call(lambda: point(spoken, lambda: _Learners(make())), expected=expected)
    trial.ok(f"follows {len(spoken)} callers")
    told = f"{cut:.1%} of the turns cut off, with {dead_air:.2f} s of dead air"
    if dead_air > _LONGEST_S:
        raise NotYet(f"a mean dead air of {_LONGEST_S:.0f} s at most", told)
    fixed = np.array([point(spoken, partial(FixedWait, wait)) for wait in _WAITS])
    same = float(np.interp(dead_air, fixed[:, 0], fixed[:, 1]))
    if cut > _SHARE * same:
        raise NotYet(
            f"at most {_SHARE * same:.1%} of the turns cut off: three quarters of a fixed wait's",
            f"{told}; a fixed wait with the same dead air cuts off {same:.1%}",
        )
    trial.ok(
        f"cuts off {cut:.1%} of the turns, a fixed wait {same:.1%}, both with {dead_air:.2f} s"
    )


class _Learners:
    """The learner's policy; what it gives is a number of seconds."""

    def __init__(self, policy: Any) -> None:
        self._policy = policy

    def wait_s(self) -> float:
        seconds = self._policy.wait_s()
        number = isinstance(seconds, int | float | np.number) and not isinstance(seconds, bool)
        if not number or not np.isfinite(seconds):  # a mean of no pauses is NaN
            raise TypeError(f"wait_s() gave {seconds!r}, which is no number of seconds")
        return float(seconds)

    def paused(self, seconds: float) -> None:
        self._policy.paused(seconds)


CHECKS: Final = (score, line, policy)
