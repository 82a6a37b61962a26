"""Widgets of a notebook: a panel for a server, and the waterfall of a turn to click and hear."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import anywidget
import traitlets
from ipywidgets import HTML, Button, HBox, VBox

from labkit.course.aloud import Aloud
from labkit.measure.server_process import RunningServer
from labkit.notebook.cell import error_in_words
from labkit.notebook.server import place_of

_EVERY_S: Final = 1.0


class ServerPanel(VBox):  # type: ignore[misc]
    """Start, stop, and what the server of one name is doing, whichever cell or button starts it.

    The same without clicking: `server = await start_labkit()`, `server.status()`, `server.stop()`.
    It asks the server only while it is on a page, and while the server runs. All of it happens on
    the event loop of the cell that made it: what a browser tells may come in on another thread.
    """

    def __init__(self, name: str = "labkit") -> None:
        """Follow the server of that name: ``"labkit"``, ``"mine"``, or what it was started with."""
        self._place = place_of(name)
        self._loop = asyncio.get_running_loop()
        self._watching: asyncio.Task[None] | None = None
        self._acting: asyncio.Task[None] | None = None
        self._headline, self._table = Aloud(), HTML()
        start = Button(description="Start", tooltip=f"Start {name}, or start it anew")
        stop = Button(description="Stop", tooltip=f"Stop {name}")
        start.on_click(self._told(lambda: self._act("Starting…", self._place.start_again)))
        stop.on_click(self._told(lambda: self._act("Stopping…", self._place.stop)))
        super().__init__([HBox([start, stop]), self._headline, self._table])
        self._follow = self._told(self._look)
        self._place.observe(self._follow, "server")
        self._view_count = 0  # from now on, the page counts how often this is shown there
        self.observe(self._follow, "_view_count")
        self._look()

    @property
    def server(self) -> RunningServer | None:
        """The server that runs now; each start gives it another address."""
        return self._place.server

    def close(self) -> None:
        """Leave the page, and stop asking. The server runs on."""
        with suppress(ValueError):  # closed before
            self._place.unobserve(self._follow, "server")
        for task in (self._watching, self._acting):
            if task is not None:
                task.cancel()
        for child in (*self.children[0].children, *self.children):
            child.close()
        super().close()

    def __repr__(self) -> str:
        """What is shown, in plain text."""
        return repr(self.server.status()) if self.server else "nothing runs here"

    def _told(self, what: Callable[[], None]) -> Callable[[Any], object]:
        """A callback that does something on the loop, whichever thread it comes on."""
        return lambda _: self._loop.call_soon_threadsafe(what)

    def _act(self, saying: str, action: Callable[[], Awaitable[object]]) -> None:
        """Begin what a button stands for; while that takes, further clicks change nothing."""

        async def act() -> None:
            self._headline.text, trouble = saying, ""
            try:
                await action()
            except Exception as error:  # whatever it is, whoever clicked is told
                trouble = error_in_words(error)
            self._acting = None
            self._look(trouble)

        if self._acting is None:
            self._acting = self._loop.create_task(act())

    def _look(self, trouble: str = "") -> None:
        """Begin to watch, or end it, as the server or the page has come or gone."""
        if self._acting is not None or self.comm is None:  # it is said soon, or closed
            return
        if self.server is None:
            self._headline.text, self._table.value = trouble or "not running", ""
        wanted = self._view_count and self.server is not None
        if wanted and (self._watching is None or self._watching.done()):
            self._watching = self._loop.create_task(self._watch())
        elif not wanted and self._watching is not None:
            self._watching.cancel()
            self._watching = None  # it is not done yet, and the next look may want another

    async def _watch(self) -> None:
        """Show what the server tells of itself, until it stops."""
        while (server := self.server) is not None:
            status = await asyncio.to_thread(server.status)
            if server is not self.server:  # it was replaced meanwhile
                continue
            self._headline.text, self._table.value = status.headline, status.table()
            if not status.running:
                return
            await asyncio.sleep(_EVERY_S)


class Timeline(anywidget.AnyWidget):
    """The waterfall of a turn, each row of it a button that plays the turn from there.

    Where no widgets can be shown, a page has a picture in its place, and a terminal text.
    """

    _esm = Path(__file__).with_name("timeline.js")
    _css = Path(__file__).with_name("timeline.css")

    wav = traitlets.Bytes().tag(sync=True)
    """The whole turn as a WAV file."""
    label = traitlets.Unicode().tag(sync=True)
    """What can be heard in it."""
    rows = traitlets.List(traitlets.Dict()).tag(sync=True)
    """Each with `label`, `text`, `start` and `end` in seconds, and whether it has a `bar`."""
    wait = traitlets.Tuple().tag(sync=True)
    """Start and end of the axis under the bars, in seconds."""

    def __init__(self, picture: str, text: str, **values: Any) -> None:
        """Show `values`; where that is not possible, the `picture` (HTML), or the `text`."""
        super().__init__(**values)
        self._picture = picture
        self._text = text

    def __repr__(self) -> str:
        return self._text

    def _repr_html_(self) -> str:
        return self._picture
