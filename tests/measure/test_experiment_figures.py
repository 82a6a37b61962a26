"""The figures of the experiments: what is in them."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labkit.measure.exercise_summary import Row
from labkit.measure.experiment_figures import (
    capacity_figure,
    exercise_figures,
    plot_effect,
    plot_rest,
    turns_figure,
    waterfall_figure,
)
from labkit.measure.load_summary import Level
from labkit.trace import Stage
from tests.measure.load_samples import UNKNOWN, level, run, spread
from tests.measure.samples import rows, side_by_side, summary


def labels(ax: Axes) -> list[str]:
    """What the legend says."""
    legend = ax.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def test_the_models_are_drawn_beside_every_server() -> None:
    ax = plot_effect(side_by_side().servers)
    assert labels(ax) == [
        "half a chunk more",
        "the same where a detector of 32 ms frames finds the end",
        "labkit, measured",
        "naive, measured",
        "mine, measured",
    ]
    assert [t.get_text() for t in ax.get_xticklabels()][:4] == ["10", "20", "32", "40"]


def test_the_model_of_a_slow_network_has_the_way_out_of_the_last_chunk() -> None:
    quick, slow = (
        plot_effect(summary().servers, bytes_per_s=rate).lines[0] for rate in (None, 100_000)
    )
    assert slow.get_ydata()[-1] > quick.get_ydata()[-1] + 100  # type: ignore[index, operator]


def test_one_long_interval_does_not_hide_the_others() -> None:
    def held_up(row: Row) -> Row:
        return replace(row, heard_ms=(row.heard_ms or 0) + 3_000 * ((row.block or 0) % 3 == 0))

    restless = [held_up(row) if row.chunk_ms == 500 else row for row in rows()]
    calm, cut = (plot_effect(summary(found).servers) for found in (rows(), restless))
    assert not calm.texts
    assert [text.get_text() for text in cut.texts] == ["bars at the edge go on beyond it"]
    assert cut.get_ylim()[1] < 700


def test_what_the_chunk_has_no_part_in_is_a_bar_for_each_server() -> None:
    ax = plot_rest(side_by_side().servers)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["labkit", "naive", "mine"]
    assert Stage.UNTOLD.label in labels(ax)
    assert Stage.PACKETISATION.label not in labels(ax)


def test_axes_that_are_given_are_drawn_into() -> None:
    for plot in (plot_effect, plot_rest):
        ax = Figure().add_subplot()
        assert plot(summary().servers, ax=ax) is ax


def test_every_turn_is_drawn() -> None:
    panels = turns_figure(side_by_side()).axes
    assert [ax.get_title(loc="left") for ax in panels] == [
        f"{name}, 96 turns" for name in ("labkit", "naive", "mine")
    ]
    dots = [line for line in panels[0].get_lines() if line.get_linestyle() == "None"]
    assert sum(len(line.get_xdata()) for line in dots) == 96  # type: ignore[arg-type]


def test_a_server_that_is_slower_than_the_first_is_on_the_scale_that_they_share() -> None:
    first, *_, slow = turns_figure(side_by_side()).axes
    highest = max(max(line.get_ydata()) for line in slow.get_lines())  # type: ignore[arg-type]
    assert highest < first.get_ylim()[1] == slow.get_ylim()[1]


def test_the_tradeoff_has_a_panel_per_cost_and_says_where_the_second_segment_begins() -> None:
    panels = exercise_figures(summary())["tradeoff"].axes
    titles = [ax.get_title(loc="left").split()[0] for ax in panels]
    assert titles == ["How", "Messages", "Headers,", "Server", "Where"]
    assert panels[2].texts[0].get_text() == "40 ms: 1 TCP segment\n50 ms: 2"


def test_a_server_that_does_not_tell_its_cpu_is_named() -> None:
    cpu = exercise_figures(side_by_side())["tradeoff"].axes[3]
    assert [text.get_text() for text in cpu.texts] == ["not told by mine"]


def test_waterfalls_of_all_servers_have_one_scale() -> None:
    panels = waterfall_figure(side_by_side().servers).axes
    assert len({ax.get_xlim() for ax in panels}) == 1


@pytest.mark.parametrize("several", [False, True])
def test_several_servers_have_a_figure_more(several: bool) -> None:
    found = exercise_figures(side_by_side() if several else summary())
    assert set(found) == {"tradeoff", "waterfall", "turns", *["servers"] * several}
    if several:
        assert labels(found["servers"].axes[1])[-1] == "mine: answers none"


def test_a_single_chunk_size_trades_nothing() -> None:
    assert set(exercise_figures(summary(rows((40,))))) == {"waterfall", "turns"}


def panels_of(levels: Sequence[Level]) -> list[Axes]:
    """Replies, seconds behind, pings, CPU."""
    return capacity_figure(levels, bound_ms=100).axes


def test_every_level_has_its_place() -> None:
    for ax in panels_of(run()):
        assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "8", "32"]


def test_both_servers_have_a_line() -> None:
    assert labels(panels_of(run())[0]) == ["labkit", "bare"]
    assert labels(panels_of(run())[3]) == ["labkit", "bare", "the callers themselves"]


def test_a_server_alone_is_enough() -> None:
    alone = [level("given", n, **UNKNOWN) for n in (1, 2)]
    assert labels(panels_of(alone)[0]) == ["given"]
    assert len(panels_of(alone)) == 4


def test_lost_turns_are_written_beside_their_point() -> None:
    texts = [t.get_text() for t in panels_of([level(lost=3), level(sessions=16)])[0].texts]
    assert texts == ["bound: 100 ms", "3 lost"]


def test_levels_that_the_callers_limited_are_shaded() -> None:
    fair = len(panels_of(run())[2].patches)
    late = [*run(), level(sessions=64, lateness_ms=spread(20))]
    assert len(panels_of(late)[2].patches) == fair + 1


def test_nothing_answered_is_drawn_too() -> None:
    silent = level(turn_ms=None, ping_ms=None, refused=8, turns=0)
    assert len(panels_of([silent])) == 4


def test_a_server_of_which_the_system_tells_nothing_leaves_the_panels_wide() -> None:
    figure = capacity_figure([level("given", n, **UNKNOWN) for n in (1, 2)], bound_ms=100)
    figure.draw_without_rendering()
    assert all(ax.get_position().width > 0.25 for ax in figure.axes)
