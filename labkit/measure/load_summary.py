"""How many callers a server bears: what each level of a load gave, compared and told in words."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import Any, Final

from labkit.measure.callers import CallLog
from labkit.measure.statistics import FEW, Percentiles, percentiles_ms

BARE: Final = "bare"
"""Name of the server that does the least."""

LATENESS_BOUND_MS: Final = 10.0
"""A quarter of the usual chunk of 40 ms: callers that are later than this in one of twenty
cases do not keep the pace of speech, and what they measure is their own lateness."""

_COLUMNS: Final = {
    "p50": "p50_ms", "p95": "p95_ms", "low": "p95_low_ms", "high": "p95_high_ms", "p99": "p99_ms",
    "sample": "sample",
}  # fmt: skip
"""Of the percentiles of something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What one number of callers gave on one server.

    Attributes:
        turns: Turns that were answered.
        silent: Of those, the ones whose answer had no audio.
        lost: Turns that were not: given up, failed, or cut off.
        turn_ms: From when `end_stream` was due to the first audio of the reply (or its `done`,
            where it has no audio). Lost turns count with the callers' patience.
        ping_ms: From when a `ping` was due to its `pong`; lost ones count likewise.
        lateness_ms: By how much the callers' own event loop woke them too late.
        behind_s: By how much the caller that is furthest behind its timetable begins its next
            utterance too late, at the end of the level. The timetable grants every answer a fixed
            pause; a server that does not answer within it falls behind by the rest with every turn.
        errors: How often something went wrong, by code: those of the dialect, `closed_` with
            the code of a connection's end, and `not_understood`.
        rss_before: Resident bytes of the server before the callers came. None, here and below,
            stands for what the system does not tell.
        rss_peak: The most that was seen while they spoke.
        rss_after: Once they had gone.
        cpu_per_s: CPU seconds of the server per second of the level.
        generator_cpu_per_s: CPU seconds of the callers' process per second of the level.
        tokens_per_s: Tokens of the replies that it finished, per second of the level; None where
            it does not tell, or has no language model.
    """

    server: str
    sessions: int
    seconds: float
    refused: int
    turns: int
    lost: int
    turn_ms: Percentiles | None
    ping_ms: Percentiles | None
    pings_lost: int
    lateness_ms: Percentiles | None
    behind_s: float
    errors: Mapping[str, int]
    rss_before: int | None = None
    rss_peak: int | None = None
    rss_after: int | None = None
    cpu_per_s: float | None = None
    generator_cpu_per_s: float = 0.0
    tokens_per_s: float | None = None
    silent: int = 0

    @property
    def generator_limited(self) -> bool:
        """Whether the callers themselves were too late for the level to say much."""
        return self.lateness_ms is not None and self.lateness_ms.p95 > LATENESS_BOUND_MS

    @property
    def cpu_ms_per_session(self) -> float | None:
        """CPU milliseconds of the server per second and session."""
        cpu, taken = self.cpu_per_s, self.sessions - self.refused
        return None if cpu is None or not taken else 1000 * cpu / taken

    def content(self) -> dict[str, Any]:
        """All that is known of it, and what follows from that."""
        return asdict(self) | {
            "generator_limited": self.generator_limited,
            "cpu_ms_per_session": self.cpu_ms_per_session,
        }

    def columns(self) -> dict[str, Any]:
        """One for each percentile; memory in bytes, empty where nobody tells."""
        errors = "; ".join(f"{code}: {count}" for code, count in self.errors.items())
        told = self.content() | {"generator_limited": int(self.generator_limited), "errors": errors}
        for name in ("turn", "ping", "lateness"):
            found = told.pop(f"{name}_ms") or {}
            told |= {f"{name}_{column}": found.get(field) for field, column in _COLUMNS.items()}
        return told

    def why_not(self, bound_ms: float) -> str:
        """What keeps it from serving everybody under `bound_ms`, in words; empty where it does."""
        if self.refused:
            return f"{self.refused} of {self.sessions} callers were refused"
        if self.turn_ms is None:
            return "no turn was asked for"
        if self.lost:
            return f"{self.lost} of {self.lost + self.turns} turns were lost"
        if self.turns and self.silent == self.turns:
            return "no answer had anything to hear"
        if self.turn_ms.p95 - self._own_lateness_ms >= bound_ms:
            return f"it was {self.turn_ms.p95:.0f} ms"
        if self._own_lateness_ms:
            return "the callers themselves were too late to say anything of the server"
        return ""

    @property
    def _own_lateness_ms(self) -> float:
        """What the callers themselves explain of a 95th percentile; 0 while they kept the pace."""
        late = self.lateness_ms
        return late.p95 if late is not None and self.generator_limited else 0.0


def summarise_level(
    *, server: str, seconds: float, patience_s: float, logs: Sequence[CallLog]
) -> Level:
    """Sum up what the callers of one level noted; what was lost counts with `patience_s`.

    Leaving it out would make a server look the better, the more it loses.
    """
    patience_ns = round(patience_s * 1e9)
    turns = [wait for log in logs for wait in log.turns_ns]
    pings = [wait for log in logs for wait in log.pings_ns]
    lost = sum(log.turns_lost for log in logs)
    pings_lost = sum(log.pings_lost for log in logs)
    return Level(
        server=server,
        sessions=len(logs),
        seconds=seconds,
        refused=sum(log.refused for log in logs),
        turns=len(turns),
        lost=lost,
        silent=sum(log.turns_silent for log in logs),
        turn_ms=percentiles_ms([*turns, *[patience_ns] * lost]),
        ping_ms=percentiles_ms([*pings, *[patience_ns] * pings_lost]),
        pings_lost=pings_lost,
        lateness_ms=percentiles_ms([late for log in logs for late in log.lateness_ns]),
        behind_s=max((log.behind_ns for log in logs), default=0) / 1e9,
        errors=dict(sorted(sum((log.errors for log in logs), Counter()).items())),
    )


COLUMNS: Final = tuple(summarise_level(server="", seconds=0, patience_s=0, logs=[]).columns())
"""Of a table of levels; a level without callers has all of them."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """A server over the bare one, at the same number of callers in the same run.

    Attributes:
        ping_p95: Ratio of the 95th percentiles of the ping's round trip.
        clear: Whether those two percentiles differ by more than the noise: their intervals lie
            further apart than the callers themselves were late. What changed on the machine
            between the two levels is not in the intervals, so it takes a quiet one.
        cpu: Ratio of the CPU time per session; None where that is not known.
    """

    server: str
    sessions: int
    ping_p95: float
    clear: bool
    cpu: float | None


def ratios(levels: Sequence[Level]) -> list[Ratio]:
    """Every other server over the bare one, level by level; empty without a bare one."""
    bare = {level.sessions: level for level in levels if level.server == BARE}
    return [
        Ratio(
            level.server,
            level.sessions,
            level.ping_ms.p95 / base.ping_ms.p95,
            _gap(level.ping_ms, base.ping_ms)
            > max(_p95(level.lateness_ms), _p95(base.lateness_ms)),
            _over(level.cpu_ms_per_session, base.cpu_ms_per_session),
        )
        for level in levels
        if level.server != BARE
        and (base := bare.get(level.sessions)) is not None
        and level.ping_ms is not None
        and base.ping_ms is not None
    ]


def _gap(a: Percentiles, b: Percentiles) -> float:
    """Milliseconds between the intervals of two 95th percentiles; negative where they overlap."""
    return max(a.low - b.high, b.low - a.high)


def _p95(found: Percentiles | None) -> float:
    return 0.0 if found is None else found.p95


def _over(value: float | None, base: float | None) -> float | None:
    return value / base if value is not None and base else None


def _count(sessions: int) -> str:
    return "1 session" if sessions == 1 else f"{sessions} sessions"


def _ratio_sentence(ratio: Ratio) -> str:
    noise = "" if ratio.clear else ", no more than the noise"
    cpu = "" if ratio.cpu is None else f"; it used {ratio.cpu:.2f} times the CPU per session"
    return (
        f"With {_count(ratio.sessions)} its ping took {ratio.ping_p95:.2f} times as long as that "
        f"of a bare server which discards what it hears (95th percentile{noise}){cpu}."
    )


@dataclass(frozen=True, slots=True)
class LoadSummary:
    """A load summed up.

    Attributes:
        levels: One per level and server, in the order in which they ran.
        bound_ms: What the 95th percentile of a turn is held against.
        streamed: Whether the server sends replies as they are made.
    """

    levels: Sequence[Level]
    bound_ms: float
    streamed: bool = True

    def conclusion(self) -> str:
        """Up to how many callers the server answered in time, and what came after that."""
        own = [level for level in self.levels if level.server != BARE]
        held = list(takewhile(lambda level: not level.why_not(self.bound_ms), own))
        what = f"the 95th percentile of the wait for the reply under {self.bound_ms:g} ms"
        if not held:
            return (
                f"{own[0].server} did not keep {what} at any level: "
                f"with {_count(own[0].sessions)} {own[0].why_not(self.bound_ms)}."
            )
        top = held[-1]
        there = f"{_count(top.sessions)} ({_p95(top.turn_ms):.1f} ms there)"
        start = f"{top.server} kept {what} up to {there}"
        if len(held) == len(own):
            return f"{start}, the most that were tried."
        after = own[len(held)]
        return f"{start}; with {_count(after.sessions)} {after.why_not(self.bound_ms)}."

    def sentences(self) -> list[str]:
        """What the load found, in words."""
        found = [self.conclusion()]
        limited = {level.sessions for level in self.levels if level.generator_limited}
        fair = [ratio for ratio in ratios(self.levels) if ratio.sessions not in limited]
        if fair:
            found.append(_ratio_sentence(fair[-1]))
        if few := {one.sessions for one in self.levels if one.turn_ms and one.turn_ms.sample < FEW}:
            found.append(
                f"Fewer than {FEW} turns were asked for with {', '.join(map(str, sorted(few)))} "
                "sessions: a 95th percentile is hardly more than the slowest of them."
            )
        if served := [
            f"{level.tokens_per_s:.1f} with {_count(level.sessions)}"
            for level in self.levels
            if level.tokens_per_s is not None
        ]:
            found.append(f"Tokens of replies served per second: {', '.join(served)}.")
        if silent := [
            f"{level.silent} of {level.turns} with {_count(level.sessions)}"
            for level in self.levels
            if level.silent and level.server != BARE
        ]:
            found.append(f"Answers with nothing to hear, which wait for none: {', '.join(silent)}.")
        if not self.streamed:
            found.append("The server does not offer ?reply=stream: waits are for whole replies.")
        return found

    def content(self) -> dict[str, Any]:
        """What goes into `load.json`: all that was computed, and what follows from it."""
        return {
            "conclusion": self.sentences(),
            "levels": [level.content() for level in self.levels],
            "ratios_over_bare": ratios(self.levels),
        }
