"""The figures of an exercise: what is in them."""

from matplotlib.figure import Figure

from labkit.measure.exercise_figures import (
    exercise_figures,
    plot_distribution,
    plot_latency,
    tradeoff_figure,
)
from tests.measure.samples import rows, summary


def test_the_model_is_drawn_beside_the_measurement() -> None:
    ax = plot_latency(summary().sizes)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]  # type: ignore[union-attr]
    assert "model: half a chunk + 80 ms for the rest" in labels
    assert "median, 95 % interval" in labels
    assert [t.get_text() for t in ax.get_xticklabels()][:3] == ["10", "20", "40"]


def test_axes_that_are_given_are_drawn_into() -> None:
    left, right = Figure().subplots(1, 2)
    assert plot_latency(summary().sizes, ax=left) is left
    assert plot_distribution(rows(), ax=right) is right


def test_the_distribution_has_a_curve_per_size() -> None:
    lines = plot_distribution(rows()).get_lines()
    assert [line.get_label() for line in lines][:2] == ["10 ms", "20 ms"]
    assert len(lines) == 8
    styles = {(line.get_color(), line.get_linestyle()) for line in lines}
    assert len(styles) == 8


def test_the_tradeoff_has_a_panel_per_cost() -> None:
    titles = [ax.get_title(loc="left") for ax in tradeoff_figure(summary().sizes).axes]
    assert [title.split()[0] for title in titles] == ["End", "Messages", "Header", "Server"]


def test_the_baseline_has_a_figure_where_it_was_measured() -> None:
    assert list(exercise_figures(summary())) == ["tradeoff", "waterfall", "distribution"]
    assert "baseline" in exercise_figures(summary(baseline=True))
