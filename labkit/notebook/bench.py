"""Sliders for chunk size and network, a button that measures, and a figure that is drawn anew.

The same without clicking: `await bench.measure(chunk_ms=100, network="4g")`, then `bench.draw()`.
"""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from labkit.course.aloud import Aloud
from labkit.course.latency import NETWORKS, Point, measure_point, plot_points
from labkit.measure.chunking import CHUNK_SIZES_MS
from labkit.measure.recordings import Recording, recording
from labkit.measure.server_process import RunningServer
from labkit.notebook.server import as_server
from labkit.notebook.show import error_in_words, show

if TYPE_CHECKING:
    from ipywidgets import VBox
    from matplotlib.figure import Figure

_USUAL_MS: Final = 40
_ALT: Final = "Waits over chunk size, every turn a dot, each network a line."


class Bench:
    """Short experiments on one server, and what came of them so far.

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
