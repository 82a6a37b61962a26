"""The capacity figure: what is in it, and that both formats are written."""

from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labkit.measure.capacity import Resources
from labkit.measure.capacity_plot import (
    behind_by_sessions,
    capacity_figure,
    cpu_by_sessions,
    ping_by_sessions,
    reply_by_sessions,
    save_capacity,
)
from tests.measure.load_samples import level, run, spread

PANELS = (reply_by_sessions, ping_by_sessions, behind_by_sessions, cpu_by_sessions)


def legend_of(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]  # type: ignore[union-attr]


@pytest.mark.parametrize("draw", PANELS)
def test_axes_that_are_given_are_drawn_into(draw: Callable[..., Axes]) -> None:
    ax = Figure().add_subplot()
    assert draw(run(), ax=ax) is ax
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "8", "32"]


def test_both_servers_have_a_line() -> None:
    assert legend_of(reply_by_sessions(run(), bound_ms=100)) == ["labkit", "bare"]
    assert legend_of(cpu_by_sessions(run())) == ["labkit", "bare", "the callers themselves"]


def test_a_server_alone_is_enough() -> None:
    alone = [level("given", n, resources=Resources()) for n in (1, 2)]
    assert legend_of(reply_by_sessions(alone)) == ["given"]
    assert len(capacity_figure(alone).axes) == 4


def test_lost_turns_are_written_beside_their_point() -> None:
    texts = [t.get_text() for t in reply_by_sessions([level(lost=3), level(sessions=16)]).texts]
    assert texts == ["3 lost"]


def test_levels_that_the_callers_limited_are_shaded() -> None:
    fair = len(ping_by_sessions(run()).patches)
    late = [*run(), level(sessions=64, lateness_ms=spread(20))]
    assert len(ping_by_sessions(late).patches) == fair + 1


def test_nothing_answered_is_drawn_too(tmp_path: Path) -> None:
    silent = level(turn_ms=None, ping_ms=None, refused=8, turns=0)
    assert all(path.exists() for path in save_capacity([silent], tmp_path))


def test_the_figure_is_written_in_both_formats(tmp_path: Path) -> None:
    paths = save_capacity(run(), tmp_path, bound_ms=100)
    assert [path.name for path in paths] == ["capacity.png", "capacity.svg"]
    assert all(path.stat().st_size > 5000 for path in paths)
