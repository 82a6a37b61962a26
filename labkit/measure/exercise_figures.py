"""The figures of the latency exercise, each of one server: summaries or turns in, `Axes` out."""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from labkit.measure.exercise_summary import BASELINE, ExerciseSummary, Row, SizeSummary
from labkit.measure.figures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    Look,
    axes,
    draw_intervals,
    figure_of,
    log_axis,
    plot_waterfall,
    tidy,
)
from labkit.measure.plan import LABKIT
from labkit.measure.statistics import Estimate
from labkit.trace import Stage, packetisation_model_ms

__all__ = [
    "baseline_figure",
    "exercise_figures",
    "plot_distribution",
    "plot_latency",
    "tradeoff_figure",
]

_BAND: Final = "#EDF3E6"
_APART: Final = 1.02
"""Two lines are drawn so much to the left and to the right, so that both their bars are seen."""


def _chunk_axis(ax: Axes, sizes: Sequence[SizeSummary]) -> None:
    """A logarithmic axis with a tick at each size, and the usual 20 to 100 ms shaded."""
    log_axis(ax, [s.chunk_ms for s in sizes])
    ax.axvspan(20, 100, color=_BAND, zorder=0)


def plot_latency(sizes: Sequence[SizeSummary], *, ax: Axes | None = None) -> Axes:
    """End-to-end latency by chunk size, with the packetisation model beside it."""
    ax = axes(ax)
    _chunk_axis(ax, sizes)
    chunks = [s.chunk_ms for s in sizes]
    left, right = (chunk / _APART for chunk in chunks), (chunk * _APART for chunk in chunks)
    _line(ax, right, [s.ttfa_p95 for s in sizes], Look(RED, "s", "--"), "95th percentile")
    _line(ax, left, [s.ttfa_p50 for s in sizes], Look(BLUE, "o", "-"), "median")
    rest = _rest(sizes)
    fine = np.geomspace(chunks[0], chunks[-1], 60)
    ax.plot(
        fine, [packetisation_model_ms(c) + rest for c in fine], color="black", linestyle=":",
        linewidth=1.5, label=f"model: half a chunk + {rest:.0f} ms for the rest",
    )  # fmt: skip
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, fontsize=8, loc="upper left")
    return tidy(ax, "End of speech to first audible reply", "chunk size (ms)", "ms")


def _line(
    ax: Axes, xs: Iterable[float], estimates: Sequence[Estimate], look: Look, label: str
) -> None:
    points = [(x, e.value, e.low, e.high) for x, e in zip(xs, estimates, strict=True)]
    draw_intervals(ax, points, look=look, label=f"{label}, 95 % interval")


def _rest(sizes: Sequence[SizeSummary]) -> float:
    """What is left of the median wait without the wait for the last chunk, over all sizes."""
    return float(np.median([s.ttfa_p50.value - s.stages[Stage.PACKETISATION] for s in sizes]))


def _cost(
    sizes: Sequence[SizeSummary], values: Sequence[float], title: str, y: str, ax: Axes
) -> None:
    _chunk_axis(ax, sizes)
    ax.tick_params(axis="x", labelsize=8)
    ax.plot([s.chunk_ms for s in sizes], values, color=GREEN, marker="D", markersize=5)
    ax.set_ylim(bottom=0)
    tidy(ax, title, "chunk size (ms)", y)


def tradeoff_figure(sizes: Sequence[SizeSummary]) -> Figure:
    """The chunk-size trade-off: what a chunk costs in latency, and what it saves elsewhere."""
    figure = Figure(figsize=(12, 7.5), layout="constrained")
    panels = figure.subplot_mosaic(
        [["latency", "messages"], ["latency", "overhead"], ["latency", "cpu"]],
        width_ratios=(1.6, 1),
    )
    plot_latency(sizes, ax=panels["latency"])
    for name, values, title, unit in (
        ("messages", [s.messages_per_s for s in sizes], "Messages", "per second of audio"),
        (
            "overhead",
            [s.overhead_bytes_per_s / 1000 for s in sizes],
            "Header overhead (audio: 32 kB/s)",
            "kB per second of audio",
        ),
        ("cpu", [s.cpu_ms_per_s for s in sizes], "Server CPU while listening", "ms per second"),
    ):
        _cost(sizes, values, title, unit, panels[name])
    figure.suptitle(
        "What chunk size trades: latency against messages, bytes and CPU (shaded: 20 to 100 ms)",
        fontsize=12,
    )
    return figure


def plot_distribution(rows: Sequence[Row], *, ax: Axes | None = None) -> Axes:
    """Share of turns that were answered within a time, a curve per chunk size."""
    ax = axes(ax)
    counted = [r for r in rows if not r.warmup and r.ttfa_ms is not None]
    sizes = sorted({r.chunk_ms for r in counted})
    styles = ("-", "--", "-.", ":")
    colours = (BLUE, SKY, GREEN, GREY, ORANGE, RED, PURPLE, "black")
    for index, size in enumerate(sizes):
        times = sorted(r.ttfa_ms for r in counted if r.chunk_ms == size and r.ttfa_ms is not None)
        ax.step(
            [times[0], *times], np.arange(len(times) + 1) / len(times) * 100, where="post",
            color=colours[index % len(colours)], linestyle=styles[index % len(styles)],
            linewidth=1.6, label=f"{size} ms",
        )  # fmt: skip
    ax.set_xlim(left=0)
    ax.set_ylim(0, 100)
    ax.legend(title="chunk size", frameon=False, fontsize=8, title_fontsize=8, loc="lower right")
    return tidy(
        ax, "Turns answered within a time", "ms, end of speech to first audible reply", "% of turns"
    )


def baseline_figure(summed: ExerciseSummary) -> Figure:
    """Labkit's server beside the naive one: time to first audio, and ping while turns run."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.3, 1))
    _chunk_axis(left, summed.sizes)
    for sizes, apart, look, label in (
        (summed.baseline, _APART, Look(RED, "s", "--"), BASELINE),
        (summed.sizes, 1 / _APART, Look(BLUE, "o", "-"), LABKIT),
    ):
        xs = (s.chunk_ms * apart for s in sizes)
        _line(left, xs, [s.ttfa_p50 for s in sizes], look, label)
    left.set_ylim(bottom=0)
    left.legend(frameon=False)
    tidy(left, "Median time to first audible reply", "chunk size (ms)", "ms")
    for name, colour, style in ((BASELINE, RED, "--"), (LABKIT, BLUE, "-")):
        rtts = np.sort(summed.rtts_ms.get(name, []))
        if len(rtts):
            share = 100 * np.arange(1, len(rtts) + 1) / len(rtts)
            right.step(rtts, share, where="post", color=colour, linestyle=style, label=name)
    right.set_xscale("log")
    right.xaxis.set_major_formatter(ScalarFormatter())
    right.set_ylim(0, 100)
    right.legend(frameon=False, loc="lower right")
    tidy(right, "Ping answered while a turn runs", "round trip (ms)", "% of pings")
    return figure


def exercise_figures(summed: ExerciseSummary) -> dict[str, Figure]:
    """All figures of an exercise, by the names of their files."""
    middle = min(summed.sizes, key=lambda s: abs(s.chunk_ms - 40))
    total = sum(middle.stages.values())
    waterfall = plot_waterfall(
        middle.stages, title=f"Where {total:.0f} ms go with chunks of {middle.chunk_ms} ms (means)"
    )
    own = [row for row in summed.rows if row.server == LABKIT]
    figures = {
        "tradeoff": tradeoff_figure(summed.sizes),
        "waterfall": figure_of(waterfall),
        "distribution": figure_of(plot_distribution(own)),
    }
    if summed.baseline:
        figures["baseline"] = baseline_figure(summed)
    return figures
