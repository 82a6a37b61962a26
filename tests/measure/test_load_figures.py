"""The capacity figure: what is in it."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from labkit.measure.load_figures import capacity_figure
from labkit.measure.load_summary import Level
from tests.measure.load_samples import UNKNOWN, level, run, spread


def panels_of(levels: Sequence[Level]) -> list[Axes]:
    """Replies, seconds behind, pings, CPU."""
    return capacity_figure(levels, bound_ms=100).axes


def legend_of(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]  # type: ignore[union-attr]


def test_every_level_has_its_place() -> None:
    for ax in panels_of(run()):
        assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "8", "32"]


def test_both_servers_have_a_line() -> None:
    assert legend_of(panels_of(run())[0]) == ["labkit", "bare"]
    assert legend_of(panels_of(run())[3]) == ["labkit", "bare", "the callers themselves"]


def test_a_server_alone_is_enough() -> None:
    alone = [level("given", n, **UNKNOWN) for n in (1, 2)]
    assert legend_of(panels_of(alone)[0]) == ["given"]
    assert len(capacity_figure(alone).axes) == 4


def test_lost_turns_are_written_beside_their_point() -> None:
    texts = [t.get_text() for t in panels_of([level(lost=3), level(sessions=16)])[0].texts]
    assert texts == ["bound: 100 ms", "3 lost"]


def test_levels_that_the_callers_limited_are_shaded() -> None:
    fair = len(panels_of(run())[2].patches)
    late = [*run(), level(sessions=64, lateness_ms=spread(20))]
    assert len(panels_of(late)[2].patches) == fair + 1


def test_nothing_answered_is_drawn_too() -> None:
    silent = level(turn_ms=None, ping_ms=None, refused=8, turns=0)
    assert len(capacity_figure([silent]).axes) == 4


def test_a_server_of_which_the_system_tells_nothing_leaves_the_panels_wide() -> None:
    figure = capacity_figure([level("given", n, **UNKNOWN) for n in (1, 2)])
    figure.draw_without_rendering()
    assert all(ax.get_position().width > 0.25 for ax in figure.axes)
