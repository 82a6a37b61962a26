"""Figures of one turn, and what all figures share: data in, `Axes` out.

Every function draws into the axes `ax` that it is given, or makes its own, and touches no global
setting. Colours are those of Okabe and Ito (2008), safe for colour-blind eyes; markers, line
styles and hatches say the same without colour.
"""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, ScalarFormatter

from labkit.audio.pcm import Float32
from labkit.trace import Stage, Trace

if TYPE_CHECKING:  # which loads SciPy
    from labkit.measure.statistics import Estimate

BLUE: Final = "#0072B2"
ORANGE: Final = "#E69F00"
GREEN: Final = "#009E73"
RED: Final = "#D55E00"
PURPLE: Final = "#CC79A7"
SKY: Final = "#56B4E9"
GREY: Final = "#6E6E6E"
BLACK: Final = "#000000"

_COLUMNS: Final = 1000
"""Pairs of lowest and highest value that a waveform is drawn from; more than a screen shows."""

STAGE_LOOK: Final[Mapping[Stage, tuple[str, str]]] = {
    Stage.PACKETISATION: (ORANGE, ""),
    Stage.UPLINK: (GREY, "//"),
    Stage.DEAD_AIR: ("#E5D9A8", "oo"),
    Stage.ASR: (BLUE, "\\\\"),
    Stage.LLM_FIRST_TOKEN: (GREEN, ""),
    Stage.LLM_FIRST_SENTENCE: (SKY, "xx"),
    Stage.TTS_FIRST_AUDIO: (PURPLE, "--"),
    Stage.DOWNLINK: (RED, "//"),
    Stage.LEADING_SILENCE: ("#BBBBBB", ".."),
    Stage.UNTOLD: ("#8C8C8C", "++"),
}
"""Colour and hatch of each stage."""


def axes(ax: Axes | None, width: float = 7.0, height: float = 4.5) -> Axes:
    """`ax`, or axes in a figure of their own, `width` by `height` inches."""
    return Figure(figsize=(width, height), layout="constrained").add_subplot() if ax is None else ax


def figure_of(ax: Axes) -> Figure:
    """The figure that holds `ax`.

    Raises:
        ValueError: None does.
    """
    figure = ax.get_figure(root=True)
    if figure is None:
        raise ValueError("these axes belong to no figure")
    return figure


def image_html(figure: Figure, alt: str) -> str:
    """A figure as an image within a page, which needs no other file.

    `alt` says what it shows, for those who do not see it.
    """
    image = io.BytesIO()
    figure.savefig(image, format="svg")
    source = base64.b64encode(image.getvalue()).decode()
    return (
        f'<img alt="{escape(alt)}" style="max-width:100%" src="data:image/svg+xml;base64,{source}">'
    )


def tidy(ax: Axes, title: str, x: str, y: str, *, grid: Literal["x", "y"] = "y") -> Axes:
    """Give `ax` its title and labels, and leave out what carries no information."""
    ax.set_title(title, loc="left", fontsize=11, fontweight="bold")
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis=grid, color="#DDDDDD", linewidth=0.7)
    ax.set_axisbelow(True)
    return ax


def log_axis(ax: Axes, ticks: Sequence[float], *, base: int = 10) -> None:
    """Make the x axis logarithmic, with these ticks and their plain numbers."""
    ax.set_xscale("log", base=base)
    ax.set_xticks(ticks)
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.tick_params(axis="x", which="minor", length=0)


def plain_ticks(axis: Axis) -> None:
    """Give the ticks of a logarithmic axis plain numbers, where those begin with 1, 2 or 5."""
    for formatter in (axis.set_major_formatter, axis.set_minor_formatter):
        formatter(FuncFormatter(_plain_number))


def _plain_number(value: float, _: object) -> str:
    return f"{value:g}" if f"{value:.0e}"[0] in "125" else ""


@dataclass(frozen=True, slots=True)
class Look:
    """How a line is drawn."""

    colour: str
    marker: str
    style: Literal["-", "--", "-.", ":", ""]


LOOKS: Final = (
    Look(BLUE, "o", "-"), Look(RED, "s", "--"), Look(GREEN, "D", "-."), Look(PURPLE, "^", ":"),
    Look(ORANGE, "v", "-"), Look(SKY, "P", "--"), Look(GREY, "X", "-."), Look(BLACK, "*", ":"),
)  # fmt: skip
"""What is drawn side by side: the first server, the second, and so on."""
BEFORE, AFTER = Look(RED, "x", "--"), Look(BLUE, "o", "-")
"""A server with a fault, and the one without it."""


def draw_line(
    ax: Axes,
    points: Iterable[tuple[float, "float | Estimate | None"]],
    *,
    look: Look,
    label: str,
) -> None:
    """Draw a line through points, each x and y, all with intervals or all without.

    Those that have no y are left out.
    """
    told = [(x, y) for x, y in points if y is not None]
    numbers = [(x, y) for x, y in told if isinstance(y, int | float)]
    estimates = [(x, y) for x, y in told if not isinstance(y, int | float)]
    style: dict[str, Any] = {
        "color": look.colour, "marker": look.marker, "linestyle": look.style, "linewidth": 1.6,
        "markersize": 5, "label": label,
    }  # fmt: skip
    if estimates:
        bars = [[max(0, y.value - y.low), max(0, y.high - y.value)] for _, y in estimates]
        ax.errorbar(
            [x for x, _ in estimates], [y.value for _, y in estimates], yerr=np.transpose(bars),
            elinewidth=0.8, capsize=2, **style,
        )  # fmt: skip
    if numbers:  # an empty line has its place at the figure's corner, and the layout obeys
        ax.plot(*zip(*numbers, strict=True), clip_on=False, zorder=3, **style)


def plot_waterfall(
    turn: Trace | Mapping[Stage, float], *, ax: Axes | None = None, title: str | None = None
) -> Axes:
    """Draw where the time of a turn goes: each stage begins where the one before it ended.

    What was worked on ahead of the wait is drawn pale, where it ran. `turn` are the marks of a
    turn, or milliseconds by stage, such as means over many turns.
    """
    ax = axes(ax, 8.5, 4.2)
    stages = turn.stages_ms() if isinstance(turn, Trace) else turn
    total = sum(stages.values())
    start = 0.0
    ahead = turn.ahead_ms() if isinstance(turn, Trace) else {}
    for row, (stage, span) in enumerate(stages.items()):
        colour, hatch = STAGE_LOOK[stage]
        if stage in ahead:
            begun, ended = ahead[stage]
            ax.barh(row, ended - begun, left=begun, color=colour, alpha=0.4, height=0.7)
        ax.barh(
            row, span, left=start, color=colour, hatch=hatch, edgecolor="white", linewidth=0,
            height=0.7,
        )  # fmt: skip
        start += span
        ax.annotate(
            f"{span:.1f} ms", (max(start, start - span), row), xytext=(5, 0),
            textcoords="offset points", va="center", fontsize=9,
        )  # fmt: skip
    ax.set_yticks(range(len(stages)), [stage.label for stage in stages])
    ax.invert_yaxis()
    ax.set_xlim(min([0.0, *(begun for begun, _ in ahead.values())]), max(total, 1) * 1.14)
    return tidy(ax, title or f"Where {total:.0f} ms go", "ms since the end of speech", "", grid="x")


def plot_waveform(
    samples: Float32,
    rate: int,
    *,
    ax: Axes | None = None,
    end_of_speech: int | None = None,
    colour: str = BLUE,
    title: str = "",
) -> Axes:
    """Draw samples, one channel from -1 to 1, over time; peaks are kept, however many there are.

    `end_of_speech`, the index of the last voiced sample, is drawn as a line.
    """
    ax = axes(ax, 8.5, 2.2)
    seconds = len(samples) / rate
    if len(samples):
        # Drawing every sample takes long, and every n-th would lose peaks: so each column gets a
        # bar from the lowest to the highest sample that falls into it.
        starts = np.unique(np.linspace(0, len(samples), _COLUMNS, endpoint=False).astype(int))
        low, high = np.minimum.reduceat(samples, starts), np.maximum.reduceat(samples, starts)
        ax.fill_between(starts / rate, low, high, color=colour, linewidth=0.6, step="post")
    if end_of_speech is not None:
        at_s = (end_of_speech + 1) / rate
        ax.axvline(at_s, color=RED, linestyle="--", linewidth=1.2)
        ax.annotate(
            "end of speech", (at_s, 1), xycoords=("data", "axes fraction"), xytext=(4, -2),
            textcoords="offset points", va="top", fontsize=8, color=RED,
        )  # fmt: skip
    ax.set_xlim(0, max(seconds, 1 / rate))
    ax.set_ylim(-1, 1)
    return tidy(ax, title, "seconds", "")
