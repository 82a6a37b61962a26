"""What one level of a load gave, summed up in figures."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from labkit.measure.call_log import CallLog

__all__ = [
    "BARE",
    "FEW",
    "LATENESS_BOUND_MS",
    "Level",
    "Percentiles",
    "Resources",
    "percentiles",
    "summarise_level",
]

BARE: Final = "bare"
"""Name of the server that does the least."""

LATENESS_BOUND_MS: Final = 10.0
"""A quarter of the usual chunk of 40 ms: callers that are later than this in one of twenty
cases do not keep the pace of speech, and what they measure is their own lateness."""

FEW: Final = 20
"""With fewer values than this, a 95th percentile is hardly more than the largest of them."""

_NS_PER_MS: Final = 1e6


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Percentiles of a set of durations, in milliseconds.

    Attributes:
        p50: Median.
        p95: 95th percentile.
        p99: 99th percentile.
        low: Lower end of the 95 % interval of `p95`.
        high: Upper end of it.
        sample: How many values they come from.
    """

    p50: float
    p95: float
    p99: float
    low: float
    high: float
    sample: int


def percentiles(durations_ns: Sequence[int]) -> Percentiles | None:
    """Percentiles of durations in nanoseconds; None where there are none."""
    if not durations_ns:
        return None
    ordered = np.sort(durations_ns) / _NS_PER_MS
    p50, p95, p99 = np.percentile(ordered, (50, 95, 99)).tolist()
    low, high = _interval_of_p95(len(ordered))
    return Percentiles(p50, p95, p99, float(ordered[low]), float(ordered[high]), len(ordered))


def _interval_of_p95(count: int) -> tuple[int, int]:
    """Which of `count` ordered values bound the 95th percentile with 95 % confidence.

    The number of values below a percentile is binomial (Conover, Practical Nonparametric
    Statistics, section 3.2; its normal approximation). Below some 60 values the largest of them
    is the upper end, and the true end may lie above it.
    """
    middle, spread = 0.95 * count, 1.96 * math.sqrt(0.95 * 0.05 * count)
    low, high = math.floor(middle - spread), math.ceil(middle + spread)
    return max(0, low - 1), min(count - 1, high - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What a level cost. None stands for what the system does not tell.

    Attributes:
        rss_before: Resident bytes of the server before the callers came.
        rss_peak: The most that was seen while they spoke.
        rss_after: Once they had gone.
        cpu_per_s: CPU seconds of the server per second of the level.
        generator_cpu_per_s: CPU seconds of the callers' process per second of the level.
    """

    rss_before: int | None = None
    rss_peak: int | None = None
    rss_after: int | None = None
    cpu_per_s: float | None = None
    generator_cpu_per_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What one number of callers gave on one server.

    Attributes:
        server: Which server.
        sessions: Callers.
        seconds: How long they went on.
        refused: Callers that the server did not take.
        turns: Turns that were answered.
        lost: Turns that were not: given up, failed, or cut off.
        turn_ms: From when `end_stream` was due to the first audio of the reply (or its `done`,
            where it has no audio). Lost turns count with the callers' patience.
        ping_ms: From when a `ping` was due to its `pong`; lost ones count likewise.
        pings_lost: Pings without a `pong`.
        lateness_ms: By how much the callers' own event loop woke them too late.
        behind_s: Seconds behind: by how much the caller that is furthest behind its timetable
            begins its next utterance too late, at the end of the level. The timetable grants
            every answer a fixed pause; a server that answers within it stays at 0, one that
            does not falls behind by the rest with every turn.
        blocked_s: Seconds in which callers could not send, because the server did not read;
            all callers together.
        bytes_sent: Payload to the server.
        bytes_received: Payload from the server.
        errors: How often something went wrong, by code: those of the dialect, `closed_` with
            the code of a connection's end, and `not_understood`.
        resources: Memory and CPU.
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
    blocked_s: float
    bytes_sent: int
    bytes_received: int
    errors: Mapping[str, int]
    resources: Resources

    @property
    def generator_limited(self) -> bool:
        """Whether the callers themselves were too late for the level to say much."""
        return self.lateness_ms is not None and self.lateness_ms.p95 > LATENESS_BOUND_MS

    @property
    def cpu_ms_per_session(self) -> float | None:
        """CPU milliseconds of the server per second and session."""
        cpu, taken = self.resources.cpu_per_s, self.sessions - self.refused
        return None if cpu is None or not taken else 1000 * cpu / taken

    def holds(self, bound_ms: float) -> bool:
        """Whether everybody was served, with a 95th percentile under `bound_ms`."""
        return not self.why_not(bound_ms)

    def why_not(self, bound_ms: float) -> str:
        """What keeps the level from holding, in words; empty where it holds."""
        if self.refused:
            return f"{self.refused} of {self.sessions} callers were refused"
        if self.turn_ms is None:
            return "no turn was asked for"
        if self.lost:
            return f"{self.lost} of {self.lost + self.turns} turns were lost"
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
    *,
    server: str,
    seconds: float,
    patience_s: float,
    logs: Sequence[CallLog],
    unconnected: int,
    resources: Resources,
) -> Level:
    """Sum up what the callers of one level noted.

    Args:
        server: Which server.
        seconds: How long the level lasted.
        patience_s: What lost turns and pings count with.
        logs: One per caller who was connected.
        unconnected: Callers that could not even connect.
        resources: Memory and CPU.
    """
    patience_ns = round(patience_s * 1e9)
    turns = [turn for log in logs for turn in log.turns]
    pings = [ping for log in logs for ping in log.pings]
    return Level(
        server=server,
        sessions=len(logs) + unconnected,
        seconds=seconds,
        refused=unconnected + sum(log.refused for log in logs),
        turns=sum(not turn.lost for turn in turns),
        lost=sum(turn.lost for turn in turns),
        turn_ms=percentiles([turn.latency_ns(patience_ns) for turn in turns]),
        ping_ms=percentiles([ping.latency_ns(patience_ns) for ping in pings]),
        pings_lost=sum(ping.lost for ping in pings),
        lateness_ms=percentiles([late for log in logs for late in log.lateness_ns]),
        behind_s=max((log.behind_ns for log in logs), default=0) / 1e9,
        blocked_s=sum(log.blocked_ns for log in logs) / 1e9,
        bytes_sent=sum(log.bytes_sent for log in logs),
        bytes_received=sum(log.bytes_received for log in logs),
        errors=dict(sorted(sum((log.errors for log in logs), Counter()).items())),
        resources=resources,
    )
