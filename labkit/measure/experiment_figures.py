"""The figures of the experiments, all servers side by side: a summary or levels in, `Axes` out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import cycle
from statistics import fmean
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labkit.measure.chunking import (
    BYTES_PER_MS,
    DETECTOR_FRAME_MS,
    detector_wait_ms,
    last_chunk_ms,
    overhead_bytes,
    packetisation_wait_ms,
    segments,
)
from labkit.measure.exercise_summary import (
    ExerciseSummary,
    Row,
    ServerSummary,
    SizeSummary,
    by_server,
)
from labkit.measure.figures import (
    BLACK,
    BLUE,
    GREY,
    LOOKS,
    ORANGE,
    RED,
    STAGE_LOOK,
    Look,
    axes,
    draw_line,
    log_axis,
    plain_ticks,
    plot_waterfall,
    tidy,
)
from labkit.measure.load_summary import BARE, Level
from labkit.measure.networks import LOOPBACK
from labkit.measure.statistics import FEW, Estimate, Percentiles
from labkit.trace import Stage

_BAND: Final = "#EDF3E6"
_APART: Final = 1.035
"""Lines of several servers are drawn so much apart, so that the bars of all are seen."""
_ROOM: Final = 0.035
"""Share of the axis that a part needs for its number to be written into it."""
_LIMITED: Final = "#F3E3D9"
_NOTE: Final = (
    f"Bars are 95 % intervals; hollow markers stand for fewer than {FEW} values, so for hardly "
    "more than the slowest; shaded levels are those in which the callers themselves were late."
)


# -- the latency exercise --------------------------------------------------------------------------


def _chunk_axis(ax: Axes, servers: Iterable[ServerSummary]) -> list[int]:
    """A logarithmic axis with a tick at each size, and the usual 20 to 100 ms shaded."""
    ticks = sorted({size.chunk_ms for server in servers for size in server.sizes})
    log_axis(ax, ticks)
    ax.tick_params(axis="x", labelsize=8)
    ax.axvspan(20, 100, color=_BAND, zorder=0)
    if len(ticks) > 1:
        ax.set_xlim(ticks[0] / 1.15, ticks[-1] * 1.15)
    return ticks


def _draw_sizes(
    ax: Axes,
    servers: Sequence[ServerSummary],
    value: Callable[[SizeSummary], float | Estimate | None],
) -> None:
    """A line of each server over the chunk sizes, from 0 on."""
    _chunk_axis(ax, servers)
    for server, look, shift in _side_by_side(servers):
        points = [(size.chunk_ms * shift, value(size)) for size in server.sizes]
        draw_line(ax, points, look=look, label=server.name)
    ax.set_ylim(bottom=0)


def _side_by_side(servers: Sequence[ServerSummary]) -> Iterator[tuple[ServerSummary, Look, float]]:
    """Each server, its look, and by what factor its points stand beside their chunk size."""
    for number, (server, look) in enumerate(zip(servers, cycle(LOOKS), strict=False)):
        yield server, look, float(_APART ** (number - (len(servers) - 1) / 2))


def plot_effect(
    servers: Sequence[ServerSummary], *, bytes_per_s: float | None = None, ax: Axes | None = None
) -> Axes:
    """How much later the transcript is than with the smallest chunks, beside what arithmetic says.

    That is more where the last chunk takes a while to go out, at the network's `bytes_per_s`.
    """
    ax = axes(ax)
    chunks = _chunk_axis(ax, servers)
    _model(ax, chunks, bytes_per_s)
    for server, look, shift in _side_by_side(servers):
        smallest = (server.sizes[0].chunk_ms * shift, Estimate.exact(0.0, 1))
        points = [smallest, *((size.chunk_ms * shift, size.effect) for size in server.sizes)]
        dots = replace(look, style="")  # the model is the line through the points
        draw_line(ax, points, look=dots, label=f"{server.name}, measured")
    effects = [size.effect for server in servers for size in server.sizes if size.effect]
    _keep_in_sight(ax, effects, packetisation_wait_ms(chunks[-1]))
    ax.legend(frameon=False, fontsize=8, loc="upper left")
    title = f"How much later the transcript is than with {chunks[0]} ms"
    return tidy(ax, title, "chunk size (ms)", "ms (median of the pairs, 95 % interval)")


def _keep_in_sight(ax: Axes, effects: Sequence[Estimate], most_ms: float) -> None:
    """Let no interval of one server press the points of all into a corner; say where one is cut."""
    top = 1.5 * max([most_ms, *(effect.value for effect in effects)])
    bottom = min([-top / 3, *(1.5 * effect.value for effect in effects)])
    if any(effect.high > top or effect.low < bottom for effect in effects):
        ax.set_ylim(bottom, top)
        ax.annotate(
            "bars at the edge go on beyond it", (0.98, 0.02), xycoords="axes fraction",
            ha="right", fontsize=8, color=GREY,
        )  # fmt: skip


def _model(ax: Axes, chunks: Sequence[int], bytes_per_s: float | None) -> None:
    """The wait for the chunk to fill and go out, and that for the detector's frame to be whole."""
    smallest, largest = chunks[0], chunks[-1]
    fine = np.geomspace(smallest, largest, 200)

    def packet(chunk: float) -> float:
        return packetisation_wait_ms(chunk) + last_chunk_ms(chunk, bytes_per_s)

    ax.plot(
        fine, [packet(c) - packet(smallest) for c in fine], color=BLACK, linestyle=":",
        linewidth=1.5, label="half a chunk more" + (", and its way out" if bytes_per_s else ""),
    )  # fmt: skip
    base = detector_wait_ms(smallest)
    ax.plot(
        chunks, [detector_wait_ms(c) - base for c in chunks], color=ORANGE, linestyle="none",
        marker="_", markersize=16, markeredgewidth=2, zorder=1,
        label=f"the same where a detector of {DETECTOR_FRAME_MS} ms frames finds the end",
    )  # fmt: skip


def plot_rest(servers: Sequence[ServerSummary], *, ax: Axes | None = None) -> Axes:
    """Where the time goes that the chunk size has no part in: a bar of stages for each server."""
    ax = axes(ax, 8.5, 2.4)
    longest = max(sum(server.rest.values()) for server in servers) or 1
    shown: set[Stage] = set()
    for row, server in enumerate(servers):
        start = 0.0
        for stage, span in server.rest.items():
            colour, hatch = STAGE_LOOK[stage]
            ax.barh(
                row, span, left=start, color=colour, hatch=hatch, edgecolor="white", linewidth=0.5,
                height=0.6, label="" if stage in shown else stage.label,
            )  # fmt: skip
            shown.add(stage)
            if span > _ROOM * longest:
                ax.annotate(
                    f"{span:.0f}", (start + span / 2, row), ha="center", va="center", fontsize=8,
                    bbox={"boxstyle": "round,pad=0.15", "color": "white", "alpha": 0.85},
                )  # fmt: skip
            start += span
        ax.annotate(
            f"{start:.0f} ms", (start, row), xytext=(5, 0), textcoords="offset points",
            va="center", fontsize=9,
        )  # fmt: skip
    ax.set_yticks(range(len(servers)), [server.name for server in servers])
    ax.invert_yaxis()
    ax.set_xlim(0, 1.1 * longest)
    ax.legend(frameon=False, fontsize=8, ncols=4, loc="upper left", bbox_to_anchor=(0, -0.32))
    return tidy(ax, "Where the rest of the wait goes (means)", "ms", "", grid="x")


def _plot_overhead(servers: Sequence[ServerSummary], ax: Axes) -> None:
    """Headers by chunk size, which no server has a part in; where a second segment begins."""
    sizes = _chunk_axis(ax, servers)
    fine = np.geomspace(sizes[0], sizes[-1], 400)
    ax.plot(fine, [_overhead_percent(c) for c in fine], color=GREY, linewidth=0.9)
    ax.plot(
        sizes, [_overhead_percent(c) for c in sizes], color=BLACK, marker="D", markersize=4,
        linestyle="none",
    )  # fmt: skip
    ax.set_ylim(bottom=0)
    split = next((c for c in sizes if segments(c * BYTES_PER_MS) > 1), None)
    if split is not None:
        whole = max((c for c in sizes if c < split), default=split)
        ax.annotate(
            f"{whole} ms: 1 TCP segment\n{split} ms: {segments(split * BYTES_PER_MS)}",
            (split, _overhead_percent(split)), xytext=(14, 18), textcoords="offset points",
            fontsize=8, va="bottom",
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.7},
        )  # fmt: skip
    tidy(ax, "Headers, client to server (computed)", "chunk size (ms)", "% of the audio")


def _overhead_percent(chunk_ms: float) -> float:
    payload = round(chunk_ms * BYTES_PER_MS)
    return 100 * overhead_bytes(payload, 1) / payload


def tradeoff_figure(
    servers: Sequence[ServerSummary], conditions: str, bytes_per_s: float | None
) -> Figure:
    """What a chunk costs in waiting, what it saves elsewhere, and what it has no part in."""
    rest = 1.1 + 0.35 * len(servers)
    figure = Figure(figsize=(12, 7.2 + rest), layout="constrained")
    panels = figure.subplot_mosaic(
        [["effect", "messages"], ["effect", "overhead"], ["effect", "cpu"], ["rest", "rest"]],
        width_ratios=(1.6, 1),
        height_ratios=(2.2, 2.2, 2.2, rest),
    )
    plot_effect(servers, bytes_per_s=bytes_per_s, ax=panels["effect"])
    _draw_sizes(panels["messages"], servers, lambda size: size.messages_per_s)
    tidy(panels["messages"], "Messages", "chunk size (ms)", "per second of audio")
    _plot_overhead(servers, panels["overhead"])
    _draw_sizes(panels["cpu"], servers, lambda size: size.cpu_ms_per_s)
    tidy(panels["cpu"], "Server CPU while listening", "chunk size (ms)", "ms per second")
    untold = [s.name for s in servers if all(size.cpu_ms_per_s is None for size in s.sizes)]
    if untold:
        panels["cpu"].annotate(
            f"not told by {', '.join(untold)}", (0.98, 0.95), xycoords="axes fraction",
            ha="right", va="top", fontsize=8, color=GREY,
        )  # fmt: skip
    plot_rest(servers, ax=panels["rest"])
    figure.suptitle(
        f"What the chunk size trades ({conditions}; shaded: the usual 20 to 100 ms)", fontsize=12
    )
    return figure


def waterfall_figure(servers: Sequence[ServerSummary]) -> Figure:
    """Where the time of a turn goes at the usual chunk size, server below server, on one scale."""
    rows = [len(server.parts) for server in servers]
    figure = Figure(figsize=(8.5, sum(0.9 + 0.38 * count for count in rows)), layout="constrained")
    panels = figure.subplots(len(servers), 1, sharex=True, squeeze=False, height_ratios=rows)
    for ax, server in zip(panels[:, 0], servers, strict=True):
        title = f"{server.name}: {server.wait_ms:.0f} ms with {server.middle.chunk_ms} ms chunks"
        plot_waterfall(server.parts, ax=ax, title=f"{title} (means)")
        ax.set_xlabel("")
        ax.set_ylim(len(server.parts) - 0.5, -0.5)
    panels[-1, 0].set_xlabel("ms since the end of speech")
    panels[-1, 0].set_xlim(0, 1.14 * max(server.wait_ms for server in servers))
    return figure


def _plot_turns(rows: Sequence[Row], title: str, ax: Axes) -> None:
    """Every turn of one server; a line joins those of a block, which say the same recording."""
    blocks: dict[int, dict[int, list[float]]] = {}
    for row in rows:
        if row.block is not None and row.ttfa_ms is not None:
            block = blocks.setdefault(row.block, {})
            block.setdefault(row.chunk_ms, []).append(row.ttfa_ms)
    log_axis(ax, sorted({size for block in blocks.values() for size in block}))
    ax.tick_params(axis="x", labelsize=8)
    for look, block in zip(cycle(LOOKS), blocks.values(), strict=False):
        sizes = sorted(block)
        turns = [(size, wait) for size in sizes for wait in block[size]]
        means = [fmean(block[size]) for size in sizes]
        ax.plot(sizes, means, color=look.colour, linestyle=look.style, linewidth=0.8, alpha=0.7)
        ax.plot(
            [size for size, _ in turns], [wait for _, wait in turns], color=look.colour,
            marker=look.marker, markersize=3, linestyle="none", alpha=0.8,
        )  # fmt: skip
    tidy(ax, title, "chunk size (ms)", "")


def turns_figure(summed: ExerciseSummary) -> Figure:
    """Every turn, server beside server on one scale: how much recordings differ, and sizes."""
    servers = summed.servers
    figure = Figure(figsize=(1.5 + 4.5 * len(servers), 4.5), layout="constrained")
    panels = figure.subplots(1, len(servers), sharey=True, squeeze=False)
    rows = by_server(summed.rows)
    for ax, server in zip(panels[0], servers, strict=True):
        _plot_turns(rows[server.name], f"{server.name}, {server.turns} turns", ax)
    waits_ms = [row.ttfa_ms or 0.0 for row in summed.rows if row.block is not None]
    panels[0, 0].set_ylim(0, 1.05 * max(waits_ms))
    panels[0, 0].set_ylabel("wait for the first audible reply (ms)")
    figure.suptitle("Every turn: a colour is a recording, the line its mean", fontsize=12)
    return figure


def plot_waits(servers: Sequence[ServerSummary], *, ax: Axes | None = None) -> Axes:
    """How long the wait is with each chunk size, a line for each server."""
    ax = axes(ax)
    _draw_sizes(ax, servers, lambda size: size.wait)
    ax.legend(frameon=False, fontsize=8)
    title = "Wait for the first audible reply"
    return tidy(ax, title, "chunk size (ms)", "ms (median, 95 % interval)")


def servers_figure(summed: ExerciseSummary) -> Figure:
    """The servers beside each other: the wait by chunk size, and ping while turns run."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.3, 1))
    plot_waits(summed.servers, ax=left)
    _plot_pings(summed, right)
    return figure


def _plot_pings(summed: ExerciseSummary, ax: Axes) -> None:
    for server, look, _ in _side_by_side(summed.servers):
        rtts = np.sort(summed.rtts_ms.get(server.name, []))
        share = 100 * np.arange(1, len(rtts) + 1) / max(1, len(rtts))
        label = server.name if len(rtts) else f"{server.name}: answers none"
        ax.step(rtts, share, where="post", color=look.colour, linestyle=look.style, label=label)
    ax.set_xscale("log")
    plain_ticks(ax.xaxis)
    ax.set_ylim(0, 100)
    ax.legend(frameon=False, loc="lower right", fontsize=8)
    tidy(ax, "Ping answered while a turn runs", "round trip (ms)", "% of pings")


def exercise_figures(
    summed: ExerciseSummary, *, conditions: str = LOOPBACK.name, bytes_per_s: float | None = None
) -> dict[str, Figure]:
    """All figures of an exercise, by the names of their files."""
    servers = summed.servers
    figures = {"waterfall": waterfall_figure(servers), "turns": turns_figure(summed)}
    if any(len(server.sizes) > 1 for server in servers):
        figures["tradeoff"] = tradeoff_figure(servers, conditions, bytes_per_s)
    if len(servers) > 1:
        figures["servers"] = servers_figure(summed)
    return figures


# -- the load --------------------------------------------------------------------------------------


def _levels_by_server(levels: Iterable[Level]) -> dict[str, list[Level]]:
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


def _draw_levels(
    ax: Axes, levels: Sequence[Level], value: Callable[[Level], float | Estimate | None]
) -> None:
    """A line of each server over the levels."""
    for server, own in _levels_by_server(levels).items():
        draw_line(ax, [(_x(one), value(one)) for one in own], look=_look(server), label=server)


def _draw_percentiles(
    ax: Axes, levels: Sequence[Level], value: Callable[[Level], Percentiles | None]
) -> None:
    """95th percentiles with their intervals; hollow where few values stand behind them."""
    _draw_levels(ax, levels, lambda level: found.tail if (found := value(level)) else None)
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


def capacity_figure(levels: Sequence[Level], *, bound_ms: float) -> Figure:
    """How many callers a server bears: replies, pings, seconds behind, and CPU.

    `bound_ms` is drawn as a line, for the 95th percentile of the wait for a reply.
    """
    figure = Figure(figsize=(11, 7.2), layout="constrained")
    panels = figure.subplot_mosaic([["reply", "behind"], ["ping", "cpu"]], width_ratios=(1.3, 1))
    panels["ping"].sharey(panels["reply"])
    for ax in panels.values():
        _session_axis(ax, levels)
    _note_bound(panels["reply"], bound_ms)
    _draw_percentiles(panels["reply"], levels, lambda level: level.turn_ms)
    _note_losses(panels["reply"], levels)
    _draw_percentiles(panels["ping"], levels, lambda level: level.ping_ms)
    _draw_levels(panels["behind"], levels, lambda level: level.behind_s)
    panels["behind"].set_ylim(0, max(1.0, *(1.1 * level.behind_s for level in levels)))
    _draw_levels(panels["cpu"], levels, lambda level: level.cpu_per_s)
    own = next(iter(_levels_by_server(levels).values()))
    points = [(_x(level), level.generator_cpu_per_s) for level in own]
    draw_line(panels["cpu"], points, look=Look(ORANGE, "^", ":"), label="the callers themselves")
    panels["cpu"].set_ylim(bottom=0)
    for name in ("reply", "ping", "cpu"):
        if panels[name].get_legend_handles_labels()[0]:
            panels[name].legend(frameon=False, fontsize=8)
    tidy(panels["reply"], "Wait for the reply, p95 from when it was due", "sessions", "ms")
    tidy(panels["behind"], "Seconds behind at the end of the level", "sessions", "s")
    tidy(panels["ping"], "Ping, p95 from when it was due", "sessions", "ms")
    tidy(panels["cpu"], "CPU", "sessions", "cores")
    figure.suptitle("How many callers, all speaking at the pace of speech, a server bears")
    figure.supxlabel(_NOTE, fontsize=8, color=GREY)
    return figure
