"""What all figures share: colours, and how an empty pair of axes looks.

Colours are those of Okabe and Ito (2008), safe for colour-blind eyes; markers, line styles and
hatches say the same without colour.
"""

from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "ORANGE",
    "PURPLE",
    "RED",
    "SKY",
    "axes",
    "tidy",
]

BLUE: Final = "#0072B2"
ORANGE: Final = "#E69F00"
GREEN: Final = "#009E73"
RED: Final = "#D55E00"
PURPLE: Final = "#CC79A7"
SKY: Final = "#56B4E9"
GREY: Final = "#6E6E6E"


def axes(ax: Axes | None, width: float = 7.0, height: float = 4.5) -> Axes:
    """`ax`, or axes in a figure of their own, `width` by `height` inches."""
    return Figure(figsize=(width, height), layout="constrained").add_subplot() if ax is None else ax


def tidy(ax: Axes, title: str, x: str, y: str) -> Axes:
    """Give `ax` its title and labels, and leave out what carries no information."""
    ax.set_title(title, loc="left", fontsize=11, fontweight="bold")
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="#DDDDDD", linewidth=0.7)
    ax.set_axisbelow(True)
    return ax
