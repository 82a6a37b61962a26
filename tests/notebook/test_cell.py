"""The output of a cell, nothing of it elsewhere, and driving a coroutine from synchronous code."""

import asyncio
import base64
import io
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np
import pytest
import soundfile
from ipywidgets import VBox
from matplotlib.figure import Figure

from labkit.notebook.cell import play, progress_bar, run, show

WORD = ContextVar("WORD", default="none")


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


class ForeignLoop(asyncio.AbstractEventLoop):
    """Like uvloop's: not one of asyncio's own, so it cannot be patched."""


@pytest.fixture
def in_foreign_loop() -> Iterator[None]:
    """The test runs as if within such a loop."""
    asyncio._set_running_loop(ForeignLoop())
    yield
    asyncio._set_running_loop(None)


async def answer() -> int:
    await asyncio.sleep(0)
    return 42


async def fail() -> None:
    raise ValueError("as planned")


def test_without_a_loop() -> None:
    assert run(answer()) == 42


def test_inside_a_running_loop() -> None:
    """In a process of its own, since the patch stays for the life of the process."""
    program = (
        "import asyncio\n"
        "from labkit import run\n"
        "async def answer():\n"
        "    await asyncio.sleep(0)\n"
        "    return 42\n"
        "async def cell():\n"
        "    return run(answer())\n"
        "raise SystemExit(asyncio.run(cell()))\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 42


@pytest.mark.usefixtures("in_foreign_loop")
def test_inside_a_loop_that_cannot_be_patched() -> None:
    assert run(answer()) == 42
    assert not hasattr(asyncio, "_nest_patched")


@pytest.mark.usefixtures("in_foreign_loop")
def test_a_failure_on_the_thread_is_the_caller_s() -> None:
    with pytest.raises(ValueError, match="as planned"):
        run(fail())


@pytest.mark.usefixtures("in_foreign_loop")
def test_context_variables_go_along() -> None:
    async def look() -> str:
        return WORD.get()

    token = WORD.set("word")
    assert run(look()) == "word"
    WORD.reset(token)


@pytest.mark.usefixtures("in_foreign_loop")
def test_an_interrupt_cancels_what_runs_on_the_thread() -> None:
    cancelled = []

    async def work() -> None:
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.append(True)

    with pytest.raises(KeyboardInterrupt):
        run(work())
    assert cancelled
