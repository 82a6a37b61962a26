"""Measure in a notebook: the latency exercise, and short experiments to click."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from labkit.course.latency import NETWORKS, Point, measure_point, plot_points
from labkit.errors import InstrumentError
from labkit.measure.chunking import CHUNK_SIZES_MS, are_chunk_sizes
from labkit.measure.exercise import Exercise
from labkit.measure.exercise_summary import ExerciseSummary
from labkit.measure.networks import read_profile
from labkit.measure.recordings import Recording, recording
from labkit.measure.results import Results, conduct
from labkit.measure.server_process import RunningServer
from labkit.measure.targets import Access, Target, distinct
from labkit.notebook.cell import error_in_words, progress_bar, show
from labkit.notebook.server import as_server, kept_server

if TYPE_CHECKING:
    from ipywidgets import VBox
    from matplotlib.figure import Figure

_USUAL_MS: Final = 40
_ALT: Final = "Waits over chunk size, every turn a dot, each network a line."


class Bench:
    """Short experiments on one server: sliders, a button that measures, a figure that grows.

    The same without clicking: `await bench.measure(chunk_ms=100, network="4g")`, then
    `bench.draw()`.

    Attributes:
        points: What was measured, newest last.
    """

    def __init__(self, server: RunningServer | str, said: Recording | str | Path) -> None:
        """Measure `server`, or that at an address, with the recording `said`, or of that name.

        Raises:
            AudioError: There is no such recording.
            ServerError: `server` is none.
        """
        self.points: list[Point] = []
        self._server = as_server(server)
        self._said = recording(said)
        self._running: asyncio.Task[None] | None = None

    async def measure(self, *, chunk_ms: int, network: str = NETWORKS[0]) -> Point:
        """Say the recording three times with that chunk size, over that network.

        Raises:
            ClientError: Nobody answers, or the connection was lost.
        """
        with self._server.speaking_for_itself():
            point = await measure_point(
                self._server, self._said, chunk_ms=chunk_ms, network=network
            )
        self.points.append(point)
        return point

    def figure(self) -> "Figure":
        """Every turn so far."""
        from labkit.measure.figures import figure_of

        return figure_of(plot_points(self.points))

    def draw(self) -> None:
        """Show the figure in the output of the cell that runs."""
        show(self.figure(), alt=self._alt())

    def __repr__(self) -> str:
        """A line for each point."""
        return "\n".join(map(str, self.points)) or "nothing was measured yet"

    def _alt(self) -> str:
        return f"{_ALT} {self!r}"

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.widget())  # type: ignore[no-untyped-call]

    def widget(self) -> "VBox":
        """The sliders, the button, and the figure. A slider is moved by the arrow keys as well.

        What a click starts runs on the loop of the cell that made this: a callback may come on
        another thread. Meanwhile a further click changes nothing; a button that was disabled would
        lose the keyboard's focus.
        """
        from ipywidgets import HTML, Button, SelectionSlider, VBox

        from labkit.course.aloud import Aloud

        wide = {"style": {"description_width": "9em"}, "layout": {"width": "36em"}}
        size = SelectionSlider(
            options=CHUNK_SIZES_MS, value=_USUAL_MS, description="Chunk size, ms", **wide
        )
        network = SelectionSlider(options=NETWORKS, description="Network", **wide)
        button = Button(description="Measure", tooltip="Say the recording three times")
        said, drawn = Aloud(), HTML()
        loop = asyncio.get_running_loop()

        async def run(chosen: dict[str, Any]) -> None:
            said.text = "Measuring…"
            try:
                said.text = str(await self.measure(**chosen))
                drawn.value = self._image()
            except Exception as error:  # whatever it is, whoever clicked is told
                said.text = error_in_words(error)

        def start(chosen: dict[str, Any]) -> None:
            if self._running is None or self._running.done():
                self._running = loop.create_task(run(chosen))

        def clicked(_: object) -> None:
            chosen = {"chunk_ms": size.value, "network": network.value}
            loop.call_soon_threadsafe(start, chosen)

        button.on_click(clicked)
        if self.points:
            drawn.value = self._image()
        return VBox([size, network, button, said, drawn])

    def _image(self) -> str:
        from labkit.measure.figures import image_html

        return image_html(self.figure(), self._alt())


async def run_exercise(
    *,
    quick: bool = False,
    blocks: int | None = None,
    mine: bool = False,
    labkit: bool = True,
    baseline: bool = False,
    servers: Sequence[Path | str] | Path | str = (),
    models: str = "embedded",
    chunk_sizes_ms: Sequence[int] = CHUNK_SIZES_MS,
    network: str = "loopback",
    seed: int = 1,
    out: Path | str = "results",
) -> ExerciseSummary:
    """Run the latency exercise, with a progress bar in the cell that runs.

    Args:
        quick: Fewer and shorter recordings: three minutes instead of nine.
        blocks: How many recordings are said, each in every chunk size to every server; by default
            as many as fit those minutes.
        mine: Measure the server that your kept cells make, and compare the others with it.
        labkit: Measure labkit's server.
        baseline: Measure the naive server beside it.
        servers: Servers of one's own to measure beside it: files of Python, which are told their
            port by the environment variable `PORT`, or addresses of servers that run already.
            One of them need not be in a list.
        models: The set of models of labkit's server and of the naive one.
        chunk_sizes_ms: Lengths of one message, from 5 to 1,000 each.
        network: The network to all servers: `loopback`, which is none, or what `labkit exercise
            --network` takes, such as `wifi`.
        seed: Draws order, recordings and phases.
        out: Raw data, summary and figures go into a folder in here, named by the time.

    Raises:
        LabkitError: The folder cannot be written, a recording is not usable, a server did not
            start, there is none, there is nothing to run, or no turn was answered.
        NotImplementedError: Nothing is kept of your server, or a section is still a stub.
    """
    if not are_chunk_sizes(chunk_sizes_ms):
        raise InstrumentError(
            f"chunk_sizes_ms: {chunk_sizes_ms!r} is no list of whole milliseconds from 5 to 1000; "
            "write them as [20, 100, 500]"
        )
    if blocks is not None and blocks < 1:
        raise InstrumentError(f"blocks is {blocks}, and has to be at least 1")
    servers = [servers] if isinstance(servers, Path | str) else servers
    targets = [Target("mine", kept_server())] if mine else []
    targets += [Target.labkit("--models", models)] if labkit else []
    targets += [Target.naive("--models", models)] if baseline else []
    targets += [Target.named(str(server)) for server in servers]
    exercise = Exercise.of_length(
        quick=quick,
        targets=distinct(targets),
        chunk_sizes_ms=chunk_sizes_ms,
        access=Access(network=read_profile(network), seed=seed),
        seed=seed,
    )
    exercise.blocks = blocks or exercise.blocks
    results = Results.within(Path(out))
    try:
        return await conduct(exercise, results, progress_bar("turns"))
    finally:  # also where the cell is interrupted: what was measured until then is kept
        if results.measured:
            sys.stdout.write(f"{results.measured} turns; raw data and figures: {results.folder}\n")
