"""Levels of a load that follow a formula."""

from typing import Any, Final

from labkit.measure.load_summary import BARE, Level
from labkit.measure.statistics import Percentiles

UNKNOWN: Final = dict.fromkeys(("rss_before", "rss_peak", "rss_after", "cpu_per_s"))
"""Of a server of which the system tells nothing."""


def spread(p95: float, sample: int = 100) -> Percentiles:
    return Percentiles(
        p50=p95 / 2, p95=p95, p99=1.2 * p95, low=0.9 * p95, high=1.1 * p95, sample=sample
    )


def level(server: str = "labkit", sessions: int = 8, p95: float = 10.0, **more: Any) -> Level:
    base = {
        "server": server,
        "sessions": sessions,
        "seconds": 10.0,
        "refused": 0,
        "turns": 3 * sessions,
        "lost": 0,
        "turn_ms": spread(p95, 3 * sessions),
        "ping_ms": spread(p95 / 4, 10 * sessions),
        "pings_lost": 0,
        "lateness_ms": spread(0.5),
        "behind_s": 0.0,
        "errors": {},
        "rss_before": 50_000_000,
        "rss_peak": 60_000_000,
        "rss_after": 55_000_000,
        "cpu_per_s": 0.004 * sessions,
        "generator_cpu_per_s": 0.1,
    }
    return Level(**(base | more))


def run(*, p95: tuple[float, ...] = (5.0, 10.0, 150.0)) -> list[Level]:
    """Three levels on both servers; the bare one takes half as long, and half of the CPU."""
    levels = []
    for sessions, wait in zip((1, 8, 32), p95, strict=True):
        half = UNKNOWN | {"cpu_per_s": 0.002 * sessions}
        levels.append(level(sessions=sessions, p95=wait))
        levels.append(level(BARE, sessions, wait / 2, **half))
    return levels
