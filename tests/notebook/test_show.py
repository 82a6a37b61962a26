"""Figures and progress in the output of a cell, and nothing of it elsewhere."""

import IPython
import pytest
from ipywidgets import VBox
from matplotlib.figure import Figure

from labkit.measure.results import Progress
from labkit.notebook.show import progress_bar, show


@pytest.fixture
def displayed(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What a cell puts out."""
    put_out: list[object] = []
    monkeypatch.setattr(IPython, "get_ipython", object)
    monkeypatch.setattr("IPython.display.display", put_out.append)
    return put_out


def test_a_figure_is_shown_with_its_text(displayed: list[object]) -> None:
    show(Figure(), alt="a curve that <rises>")
    (shown,) = displayed
    html = shown._repr_html_()  # type: ignore[attr-defined]
    assert html.startswith('<img alt="a curve that &lt;rises&gt;"')
    assert 'src="data:image/svg+xml;base64,' in html


def test_a_bar_says_how_far_it_is(displayed: list[object]) -> None:
    progress_bar("turns")(Progress(3, 8, "chunks of <40> ms"))
    (box,) = displayed
    assert isinstance(box, VBox)
    bar, step = box.children
    assert (bar.description, bar.value, bar.max) == ("turns", 3, 8)
    assert step.value == "3 of 8: chunks of &lt;40&gt; ms"


def test_outside_of_notebooks_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    show(Figure(), alt="a curve")
    progress_bar("turns")(Progress(3, 8, "now"))
    assert capsys.readouterr() == ("", "")
