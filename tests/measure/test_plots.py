"""The figures: what is in them, and that both formats are written."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from labkit.measure.plots import (
    distribution,
    latency_by_size,
    save_figures,
    tradeoff_figure,
    waterfall,
)
from labkit.measure.report import report
from tests.measure.samples import exercise


def test_the_model_is_drawn_beside_the_measurement() -> None:
    ax = latency_by_size(report(exercise()).sizes)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]  # type: ignore[union-attr]
    assert "model: half a chunk + 80 ms for the rest" in labels
    assert "median, 95 % interval" in labels
    assert [t.get_text() for t in ax.get_xticklabels()][:3] == ["10", "20", "40"]


def test_axes_that_are_given_are_drawn_into() -> None:
    ax = Figure().add_subplot()
    assert latency_by_size(report(exercise()).sizes, ax=ax) is ax


def test_the_waterfall_ends_at_the_total() -> None:
    size = report(exercise()).sizes[2]
    bars = waterfall(size).patches
    ends = [bar.get_x() + bar.get_width() for bar in bars]  # type: ignore[attr-defined]
    starts = [bar.get_x() for bar in bars]  # type: ignore[attr-defined]
    assert starts[1:] == pytest.approx(ends[:-1])
    assert ends[-1] == pytest.approx(sum(size.stages.values()))


def test_the_distribution_has_a_curve_per_size() -> None:
    lines = distribution(exercise().rows).get_lines()
    assert [line.get_label() for line in lines][:2] == ["10 ms", "20 ms"]
    assert len(lines) == 8
    styles = {(line.get_color(), line.get_linestyle()) for line in lines}
    assert len(styles) == 8


def test_the_tradeoff_has_a_panel_per_cost() -> None:
    titles = [ax.get_title(loc="left") for ax in tradeoff_figure(report(exercise()).sizes).axes]
    assert [title.split()[0] for title in titles] == ["End", "Messages", "Header", "Server"]


def test_every_figure_is_written_in_both_formats(tmp_path: Path) -> None:
    paths = save_figures(report(exercise(baseline=True)), tmp_path)
    assert sorted(p.name for p in paths) == sorted(
        f"{name}.{ending}"
        for name in ("tradeoff", "waterfall", "distribution", "baseline")
        for ending in ("png", "svg")
    )
    assert all(p.stat().st_size > 5000 for p in paths)
