"""The capacity curve: levels of a load, of all servers, in one figure."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labkit.measure.figures import (
    BLUE,
    GREY,
    ORANGE,
    RED,
    Look,
    draw_line,
    log_axis,
    plain_ticks,
    tidy,
)
from labkit.measure.load_summary import BARE, Level
from labkit.measure.statistics import FEW, Estimate, Percentiles

_TITLES: Final = (
    ("reply", "Wait for the reply, p95 from when it was due", "ms"),
    ("behind", "Seconds behind at the end of the level", "s"),
    ("ping", "Ping, p95 from when it was due", "ms"),
    ("cpu", "CPU", "cores"),
)
"""Each panel's title and unit."""
_LIMITED: Final = "#F3E3D9"
_NOTE: Final = (
    "Bars are 95 % intervals; hollow markers stand for fewer than {few} values, so for hardly "
    "more than the slowest; shaded levels are those in which the callers themselves were late."
)


def _by_server(levels: Iterable[Level]) -> dict[str, list[Level]]:
    """Levels by server, rising, the bare one last."""
    grouped: dict[str, list[Level]] = {}
    for level in sorted(levels, key=lambda level: (level.server == BARE, level.sessions)):
        grouped.setdefault(level.server, []).append(level)
    return grouped


def _look(server: str) -> Look:
    return Look(GREY, "s", "--") if server == BARE else Look(BLUE, "o", "-")


def _x(level: Level) -> float:
    """Where a level is drawn: the bare server a little to the right, so that both are seen."""
    return level.sessions * (1.03 if level.server == BARE else 1 / 1.03)


def _session_axis(ax: Axes, levels: Sequence[Level]) -> None:
    """A logarithmic axis with a tick at each level; what the callers limited is shaded."""
    ticks = sorted({level.sessions for level in levels})
    log_axis(ax, ticks, base=2)
    ax.set_xlim(ticks[0] / 1.25, ticks[-1] * 1.25)
    for sessions in sorted({level.sessions for level in levels if level.generator_limited}):
        ax.axvspan(sessions / 1.15, sessions * 1.15, color=_LIMITED, zorder=0)


def _curves(
    ax: Axes, levels: Sequence[Level], value: Callable[[Level], float | Estimate | None]
) -> None:
    """A line per server; levels without a value are left out."""
    for server, own in _by_server(levels).items():
        draw_line(ax, [(_x(one), value(one)) for one in own], look=_look(server), label=server)


def _percentile_curves(
    ax: Axes, levels: Sequence[Level], value: Callable[[Level], Percentiles | None]
) -> None:
    """95th percentiles with their intervals; hollow where few values stand behind them."""
    _curves(ax, levels, lambda level: found.tail if (found := value(level)) else None)
    for level in levels:
        if (found := value(level)) is not None and found.sample < FEW:
            look = _look(level.server)
            ax.plot(
                _x(level), found.p95, color=look.colour, linestyle="none", marker=look.marker,
                markersize=5, markerfacecolor="white", zorder=4,
            )  # fmt: skip
    ax.set_yscale("log")
    plain_ticks(ax.yaxis)


def _note_losses(ax: Axes, levels: Sequence[Level]) -> None:
    for level in levels:
        if level.lost and level.turn_ms:
            ax.annotate(
                f"{level.lost} lost", (_x(level), level.turn_ms.p95), xytext=(-6, 0),
                textcoords="offset points", ha="right", va="center", fontsize=8,
                color=_look(level.server).colour,
            )  # fmt: skip


def _note_bound(ax: Axes, bound_ms: float) -> None:
    ax.axhline(bound_ms, color=RED, linewidth=1, linestyle=":")
    ax.annotate(
        f"bound: {bound_ms:g} ms", (0.01, bound_ms), xycoords=("axes fraction", "data"),
        xytext=(0, 3), textcoords="offset points", va="bottom", fontsize=8, color=RED,
    )  # fmt: skip


def capacity_figure(levels: Sequence[Level], *, bound_ms: float | None = None) -> Figure:
    """How many callers a server bears: replies, pings, seconds behind, and CPU.

    `bound_ms` is drawn as a line, for the 95th percentile of the wait for a reply.
    """
    figure = Figure(figsize=(11, 7.2), layout="constrained")
    panels = figure.subplot_mosaic([["reply", "behind"], ["ping", "cpu"]], width_ratios=(1.3, 1))
    panels["ping"].sharey(panels["reply"])
    for ax in panels.values():
        _session_axis(ax, levels)
    if bound_ms is not None:
        _note_bound(panels["reply"], bound_ms)
    _percentile_curves(panels["reply"], levels, lambda level: level.turn_ms)
    _note_losses(panels["reply"], levels)
    _percentile_curves(panels["ping"], levels, lambda level: level.ping_ms)
    _curves(panels["behind"], levels, lambda level: level.behind_s)
    panels["behind"].set_ylim(0, max(1.0, *(1.1 * level.behind_s for level in levels)))
    _curves(panels["cpu"], levels, lambda level: level.cpu_per_s)
    own = next(iter(_by_server(levels).values()))
    points = [(_x(level), level.generator_cpu_per_s) for level in own]
    draw_line(panels["cpu"], points, look=Look(ORANGE, "^", ":"), label="the callers themselves")
    panels["cpu"].set_ylim(bottom=0)
    for name in ("reply", "ping", "cpu"):
        if panels[name].get_legend_handles_labels()[0]:
            panels[name].legend(frameon=False, fontsize=8)
    for name, title, unit in _TITLES:
        tidy(panels[name], title, "sessions", unit)
    figure.suptitle("How many callers, all speaking at the pace of speech, a server bears")
    figure.supxlabel(_NOTE.format(few=FEW), fontsize=8, color=GREY)
    return figure
