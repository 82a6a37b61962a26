"""The command `labkit load`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from labkit.cli.experiment import carry_out, results_table, told_number
from labkit.cli.models import SetOption

if TYPE_CHECKING:
    from labkit.measure.load_summary import Level, Ratio
    from labkit.measure.statistics import Percentiles


def load(
    pipeline: Annotated[
        Literal["echo", "voice"],
        typer.Option(help="What answers: an echo that measures the transport alone, or engines."),
    ] = "echo",
    sessions: Annotated[
        str, typer.Option(help="Numbers of callers, rising, a level each.")
    ] = "1,8,16,32,64",
    seconds: Annotated[float, typer.Option(min=2, max=3600, help="Length of a level.")] = 15,
    chunk_ms: Annotated[int, typer.Option(min=5, max=1000, help="Length of a message.")] = 40,
    seed: Annotated[int, typer.Option(help="Draws phases, recordings and order.")] = 1,
    out: Annotated[Path, typer.Option(help="Results go into a folder in here.")] = Path("results"),
    url: Annotated[
        str | None, typer.Option(help="Load a server that runs already; no memory, no CPU.")
    ] = None,
    model_set: SetOption = "embedded",
) -> None:
    """Find out how many callers the server bears, beside a bare server in the same run."""
    from labkit.measure.callers import Manners, fine_loop
    from labkit.measure.load import Load, parse_levels

    experiment = Load(
        pipeline=pipeline,
        sessions=parse_levels(sessions),
        seconds=seconds,
        manners=Manners(chunk_ms=chunk_ms),
        seed=seed,
        url=url,
        model_options=() if url or pipeline == "echo" else _model_options(model_set),
    )
    carry_out(
        experiment,
        out,
        lambda summed: [waits_table(summed.levels), costs_table(summed.levels)],
        loop_factory=fine_loop,
    )


def _model_options(model_set: str) -> tuple[str, ...]:
    """Options for a server with engines; it is better to miss a model now than in a subprocess."""
    from labkit.voice.models import resolve

    resolve(model_set)
    return ("--models", model_set)


def waits_table(levels: "Sequence[Level]") -> Table:
    """What callers waited, a row per level and server."""
    from labkit.measure.load_summary import LATENESS_BOUND_MS

    table = results_table("What callers waited, from when it was due", map(_waits, levels))
    if any(level.generator_limited for level in levels):
        table.caption = (
            f"! generator-limited: the callers themselves were more than {LATENESS_BOUND_MS:g} ms "
            "late (p95)"
        )
    return table


def _waits(level: "Level") -> dict[str, str]:
    return {
        "sessions": str(level.sessions),
        "server": level.server,
        "turns": str(level.turns),
        "lost": str(level.lost),
        "refused": str(level.refused),
        "reply, ms\np50 p95 p99": _three(level.turn_ms),
        "ping, ms\np50 p95 p99": _three(level.ping_ms),
        "seconds\nbehind": f"{level.behind_s:.2f}",
        "callers\nlate, ms": _lateness(level),
    }


def costs_table(levels: "Sequence[Level]") -> Table:
    """What it cost the servers, and labkit's over the bare one's."""
    from labkit.measure.load_summary import ratios

    over = {(ratio.server, ratio.sessions): ratio for ratio in ratios(levels)}
    rows = (_costs(level, over.get((level.server, level.sessions))) for level in levels)
    table = results_table("What it cost the server", rows)
    if any(level.cpu_per_s is None for level in levels):
        table.caption = "-: unavailable; known only of servers that this command started"
    return table


def _costs(level: "Level", ratio: "Ratio | None") -> dict[str, str]:
    return {
        "sessions": str(level.sessions),
        "server": level.server,
        "memory, MB\nstart peak end": _memory(level),
        "CPU\ncores": told_number(level.cpu_per_s, ".2f"),
        "ms/s per\nsession": told_number(level.cpu_ms_per_session, ".2f"),
        "callers'\ncores": f"{level.generator_cpu_per_s:.2f}",
        "ping\n/ bare": f"{ratio.ping_p95:.2f}" if ratio else "",
        "CPU\n/ bare": f"{ratio.cpu:.2f}" if ratio and ratio.cpu is not None else "",
        "errors": ", ".join(f"{code} {count}" for code, count in level.errors.items()),
    }


def _three(found: "Percentiles | None") -> str:
    return "-" if found is None else " ".join(map(_short, (found.p50, found.p95, found.p99)))


def _short(milliseconds: float) -> str:
    return f"{milliseconds:.1f}" if milliseconds < 10 else f"{milliseconds:.0f}"


def _lateness(level: "Level") -> str:
    if level.lateness_ms is None:
        return "-"
    late = _short(level.lateness_ms.p95)
    return f"[bold red]{late} ![/]" if level.generator_limited else late


def _memory(level: "Level") -> str:
    whole = (level.rss_before, level.rss_peak, level.rss_after)
    told = [f"{rss / 1e6:.0f}" for rss in whole if rss is not None]
    return " ".join(told) if len(told) == len(whole) else "-"
