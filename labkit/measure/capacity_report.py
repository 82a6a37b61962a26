"""How many callers a server bears: levels compared, told in words, and written down."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

from labkit.measure.capacity import BARE, Level, Percentiles

__all__ = [
    "UNAVAILABLE",
    "Ratio",
    "as_object",
    "conclusion",
    "flat",
    "ratios",
    "sentences",
    "write_levels",
]

UNAVAILABLE: Final = "unavailable"
"""Stands in a table for what the system does not tell."""

_MB: Final = 1e6
_COLUMNS: Final = {
    "p50": "p50", "p95": "p95", "low": "p95_low", "high": "p95_high", "p99": "p99",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ratio:
    """A server over the bare one, at the same number of callers in the same run.

    Attributes:
        server: Which server.
        sessions: Callers.
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


def ratios(levels: Iterable[Level]) -> list[Ratio]:
    """Every other server over the bare one, level by level; empty without a bare one."""
    levels = list(levels)
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


def conclusion(levels: Iterable[Level], bound_ms: float) -> str:
    """Up to how many callers the server answered in time, and what came after that."""
    own = [level for level in levels if level.server != BARE]
    held = list(takewhile(lambda level: level.holds(bound_ms), own))
    what = f"the 95th percentile of the wait for the reply under {bound_ms:g} ms"
    if not held:
        return (
            f"{own[0].server} did not keep {what} at any level: "
            f"with {_count(own[0].sessions)} {own[0].why_not(bound_ms)}."
        )
    top = held[-1]
    start = (
        f"{top.server} kept {what} up to {_count(top.sessions)} ({_p95(top.turn_ms):.1f} ms there)"
    )
    if len(held) == len(own):
        return f"{start}, the most that were tried."
    after = own[len(held)]
    return f"{start}; with {_count(after.sessions)} {after.why_not(bound_ms)}."


def _count(sessions: int) -> str:
    return "1 session" if sessions == 1 else f"{sessions} sessions"


def sentences(levels: Iterable[Level], bound_ms: float) -> list[str]:
    """What the load found, in words."""
    levels = list(levels)
    found = [conclusion(levels, bound_ms)]
    limited = {level.sessions for level in levels if level.generator_limited}
    fair = [ratio for ratio in ratios(levels) if ratio.sessions not in limited]
    if fair:
        found.append(_ratio_sentence(fair[-1]))
    return found


def _ratio_sentence(ratio: Ratio) -> str:
    noise = "" if ratio.clear else ", no more than the noise"
    cpu = "" if ratio.cpu is None else f"; it used {ratio.cpu:.2f} times the CPU per session"
    return (
        f"With {_count(ratio.sessions)} its ping took {ratio.ping_p95:.2f} times as long as that "
        f"of a bare server which discards what it hears (95th percentile{noise}){cpu}."
    )


def flat(level: Level) -> dict[str, Any]:
    """The level as columns; percentiles one each, memory in MB."""
    columns: dict[str, Any] = {
        "server": level.server,
        "sessions": level.sessions,
        "seconds": level.seconds,
        "refused": level.refused,
        "turns": level.turns,
        "lost": level.lost,
    }
    for name in ("turn", "ping", "lateness"):
        found: Percentiles | None = getattr(level, f"{name}_ms")
        columns |= {
            f"{name}_{column}_ms": getattr(found, q, None) for q, column in _COLUMNS.items()
        }
    columns |= {
        "pings": level.ping_ms.sample if level.ping_ms else 0,
        "pings_lost": level.pings_lost,
        "generator_limited": int(level.generator_limited),
        "behind_s": level.behind_s,
        "blocked_s": level.blocked_s,
        "bytes_sent": level.bytes_sent,
        "bytes_received": level.bytes_received,
        "errors": "; ".join(f"{code}: {count}" for code, count in level.errors.items()),
    }
    columns |= _flat_resources(level)
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in columns.items()}


def _flat_resources(level: Level) -> dict[str, Any]:
    used = level.resources
    told = {
        "rss_before_mb": used.rss_before and used.rss_before / _MB,
        "rss_peak_mb": used.rss_peak and used.rss_peak / _MB,
        "rss_after_mb": used.rss_after and used.rss_after / _MB,
        "cpu_per_s": used.cpu_per_s,
        "cpu_ms_per_session": level.cpu_ms_per_session,
        "generator_cpu_per_s": used.generator_cpu_per_s,
    }
    return {name: UNAVAILABLE if value is None else value for name, value in told.items()}


def write_levels(path: Path, levels: Sequence[Level]) -> None:
    """Write a CSV file with a row per level and server, in the order in which they ran."""
    rows = [flat(level) for level in levels]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def as_object(level: Level) -> dict[str, Any]:
    """The level for JSON: everything that was computed, what follows from it included."""
    return asdict(level) | {
        "generator_limited": level.generator_limited,
        "cpu_ms_per_session": level.cpu_ms_per_session,
    }
