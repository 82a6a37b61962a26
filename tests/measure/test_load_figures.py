"""The capacity figure: what is in it."""

from collections.abc import Callable

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labkit.measure.load_figures import (
    capacity_figure,
    plot_backlog,
    plot_cpu,
    plot_pings,
    plot_replies,
)
from tests.measure.load_samples import UNKNOWN, level, run, spread

PANELS = (plot_replies, plot_pings, plot_backlog, plot_cpu)


def legend_of(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]  # type: ignore[union-attr]


@pytest.mark.parametrize("draw", PANELS)
def test_axes_that_are_given_are_drawn_into(draw: Callable[..., Axes]) -> None:
    ax = Figure().add_subplot()
    assert draw(run(), ax=ax) is ax
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "8", "32"]


def test_both_servers_have_a_line() -> None:
    assert legend_of(plot_replies(run(), bound_ms=100)) == ["labkit", "bare"]
    assert legend_of(plot_cpu(run())) == ["labkit", "bare", "the callers themselves"]


def test_a_server_alone_is_enough() -> None:
    alone = [level("given", n, **UNKNOWN) for n in (1, 2)]
    assert legend_of(plot_replies(alone)) == ["given"]
    assert len(capacity_figure(alone).axes) == 4


def test_lost_turns_are_written_beside_their_point() -> None:
    texts = [t.get_text() for t in plot_replies([level(lost=3), level(sessions=16)]).texts]
    assert texts == ["3 lost"]


def test_levels_that_the_callers_limited_are_shaded() -> None:
    fair = len(plot_pings(run()).patches)
    late = [*run(), level(sessions=64, lateness_ms=spread(20))]
    assert len(plot_pings(late).patches) == fair + 1


def test_nothing_answered_is_drawn_too() -> None:
    silent = level(turn_ms=None, ping_ms=None, refused=8, turns=0)
    assert len(capacity_figure([silent]).axes) == 4


def test_a_server_of_which_the_system_tells_nothing_leaves_the_panels_wide() -> None:
    figure = capacity_figure([level("given", n, **UNKNOWN) for n in (1, 2)])
    figure.draw_without_rendering()
    assert all(ax.get_position().width > 0.25 for ax in figure.axes)
