"""The drill `crosstalk`: many callers at once must each get what they would get alone.

Each caller first has its conversation alone, twice, each time in a fresh session; then all have
theirs at the same time. Two runs alone tell whether the engines are deterministic at all:
where they are not, a difference in the crowd would say nothing.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from labkit.audio.pcm import Float32, read_audio
from labkit.drills.calls import Heard, call
from labkit.drills.facts import CallerPlan, Topic
from labkit.drills.verdict import Finding, Verdict

__all__ = ["Crosstalk", "Mismatch", "Schedule", "crosstalk", "judge_crosstalk", "mismatches"]

_BEGIN_S: Final = 3.0
"""Time over which the callers of a crowd begin."""

Calls = Sequence[Sequence[Heard]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How fast callers speak.

    Attributes:
        pace: Times real time, in the crowd; alone, everything is sent at once.
        patience_s: Longest that one turn may take.
    """

    pace: float = 1.0
    patience_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Crosstalk:
    """What every caller got, by caller and turn.

    Attributes:
        alone: In a session alone.
        again: The same once more.
        crowd: With all others at the same time.
    """

    alone: Calls
    again: Calls
    crowd: Calls


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One thing that a caller got and would not have got alone.

    Attributes:
        caller: Its number.
        turn: Number of the turn, from 0.
        wanted: What it gets alone.
        got: What it got.
        of_another: Whether some other caller gets that alone.
    """

    caller: int
    turn: int
    wanted: str
    got: str
    of_another: bool

    def __str__(self) -> str:
        whose = ", as another caller does alone" if self.of_another else ""
        return f"caller {self.caller}, turn {self.turn}: {self.wanted!r} became {self.got!r}{whose}"


async def crosstalk(
    url: str,
    plans: Sequence[CallerPlan],
    questions: Mapping[Topic, Float32],
    schedule: Schedule,
    tell: Callable[[int], None] = lambda _: None,
) -> Crosstalk:
    """Let the callers call: each alone, again alone, and all at once.

    Args:
        url: The server.
        plans: What each says.
        questions: The spoken questions, 16 kHz.
        schedule: How fast.
        tell: Given the turns that were taken since it was last told.
    """
    spoken = [
        [*(read_audio(one.path) for one in plan.recordings), questions[plan.fact.topic]]
        for plan in plans
    ]

    async def one(number: int, pace: float) -> list[Heard]:
        return await call(
            url,
            plans[number].dialect,
            spoken[number],
            pace=pace,
            patience_s=schedule.patience_s,
            tell=lambda: tell(1),
        )

    async def begin(number: int) -> list[Heard]:
        if schedule.pace:
            await asyncio.sleep(plans[number].phase * _BEGIN_S / schedule.pace)
        return await one(number, schedule.pace)

    alone, again = [[await one(number, 0) for number in range(len(plans))] for _ in range(2)]
    crowd = await asyncio.gather(*(begin(number) for number in range(len(plans))))
    return Crosstalk(alone, again, crowd)


def mismatches(alone: Calls, other: Calls, what: Callable[[Heard], str]) -> list[Mismatch]:
    """Where callers got another `what` than alone; turns that were not answered are none. Pure."""
    found = []
    for caller, (wanted, got) in enumerate(zip(alone, other, strict=True)):
        foreign = {what(heard) for n, calls in enumerate(alone) if n != caller for heard in calls}
        for turn, (mine, theirs) in enumerate(zip(wanted, got, strict=False)):
            if what(mine) != what(theirs):
                found.append(
                    Mismatch(caller, turn, what(mine), what(theirs), what(theirs) in foreign)
                )
    return found


_COMPARED: Final[Mapping[str, Callable[[Heard], str]]] = {
    "transcripts": lambda heard: heard.transcript,
    "replies": lambda heard: heard.reply,
    "reply audio": lambda heard: heard.audio,
}


def judge_crosstalk(plans: Sequence[CallerPlan], result: Crosstalk, seed: int) -> Verdict:
    """Hold what every caller got against what it gets alone. Pure."""
    turns = sum(plan.turns for plan in plans)
    return Verdict(
        f"{len(plans)} callers at once, {turns} turns, seed {seed}",
        (
            _answered("turns answered alone", result.alone, turns),
            _answered("turns answered in the crowd", result.crowd, turns),
            *_differences(result),
            *_memory(plans, result),
            *_waits("alone, sent at once", result.alone),
            *_waits("in the crowd", result.crowd),
        ),
    )


def _answered(name: str, calls: Calls, turns: int) -> Finding:
    answered = sum(map(len, calls))
    return Finding(name, answered, f"{turns}", answered == turns)


def _differences(result: Crosstalk) -> Iterator[Finding]:
    """What differs in the crowd, where two runs alone do not differ."""
    for name, what in _COMPARED.items():
        twice = mismatches(result.alone, result.again, what)
        found = mismatches(result.alone, result.crowd, what)
        if twice:
            differ = f"{len(twice)} between two runs alone, {len(found)} in the crowd"
            yield Finding.told(f"{name} that differ: not deterministic", differ)
        else:
            yield Finding.none_of(f"{name} that differ from those alone", len(found))
        yield Finding.none_of(f"{name} that are another caller's", _foreign(found))
        yield from (Finding.told("such as", str(one)) for one in found[:3] if name != "reply audio")


def _foreign(found: Sequence[Mismatch]) -> int:
    return sum(one.of_another for one in found)


def _memory(plans: Sequence[CallerPlan], result: Crosstalk) -> Iterator[Finding]:
    """Whether the last answer has the caller's own fact, as often as alone."""
    alone, crowd = (
        sum(
            len(calls) == plan.turns and plan.fact.in_answer(calls[-1].reply)
            for plan, calls in zip(plans, all_calls, strict=True)
        )
        for all_calls in (result.alone, result.crowd)
    )
    yield Finding("own facts remembered alone", alone, "at least half", 2 * alone >= len(plans))
    yield Finding("own facts remembered in the crowd", crowd, f"{alone}, as alone", crowd >= alone)


def _waits(where: str, calls: Calls) -> Iterator[Finding]:
    waits = [heard.wait_ms for one in calls for heard in one]
    if waits:
        median, high = (float(np.percentile(waits, q)) for q in (50, 95))
        yield Finding.told(f"wait {where}, ms p50 p95", f"{median:.0f} {high:.0f}")
