"""Figures and progress in the output of a cell, and nothing of it elsewhere."""

import base64
import io
from typing import Any

import numpy as np
import pytest
import soundfile
from ipywidgets import VBox
from matplotlib.figure import Figure

from labkit.notebook.show import play, progress_bar, show


def test_a_figure_is_shown_with_its_text(displayed: list[Any]) -> None:
    show(Figure(), alt="a curve that <rises>")
    (shown,) = displayed
    html = shown._repr_html_()
    assert html.startswith('<img alt="a curve that &lt;rises&gt;"')
    assert 'src="data:image/svg+xml;base64,' in html


def test_a_player_plays_the_samples_at_their_rate_and_has_a_label(displayed: list[Any]) -> None:
    play(np.linspace(-0.5, 0.5, 480, dtype=np.float32), "a <click>", rate=48_000)
    (shown,) = displayed
    html = shown._repr_html_()
    assert '<audio controls aria-label="a &lt;click&gt;"' in html
    wav = base64.b64decode(html.partition(";base64,")[2].partition('"')[0])
    samples, rate = soundfile.read(io.BytesIO(wav))
    assert (len(samples), rate) == (480, 48_000)
    assert samples[-1] == pytest.approx(0.5, abs=1e-4)


def test_a_bar_says_how_far_it_is(displayed: list[Any]) -> None:
    progress_bar("turns")("chunks of <40> ms", 3, 8)
    (box,) = displayed
    assert isinstance(box, VBox)
    bar, step = box.children
    assert (bar.description, bar.value, bar.max) == ("turns", 3, 8)
    assert step.value == "3 of 8: chunks of &lt;40&gt; ms"


def test_outside_of_notebooks_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    show(Figure(), alt="a curve")
    play(np.zeros(1, np.float32), "nothing")
    progress_bar("turns")("now", 3, 8)
    assert capsys.readouterr() == ("", "")
