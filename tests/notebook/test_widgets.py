"""Widgets: the panel of a server, and the browser's part of the timeline."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from labkit import ServerPanel
from labkit.measure.server_process import RunningServer
from labkit.notebook import widgets
from labkit.notebook.server import place_of, stop_servers
from tests.support import told_by_node, until

NAME = "panelled"
COUNTING = """
import asyncio, os
from websockets.asyncio.server import serve

def pages(connection, request):
    return connection.respond(200, "sessions 3\\nheld_bytes 7\\n")

async def main():
    port = int(os.environ["PORT"])
    async with serve(print, "localhost", port, process_request=pages) as server:
        await server.serve_forever()

asyncio.run(main())
"""

SCRIPT = """
const module = await import("data:text/javascript;base64," + process.argv[1]);
const rows = [0, 1.5, 1.6, 1.6, 2].map((start) => ({ start }));
console.log(JSON.stringify({
  rows: [-1, 0, 1.49, 1.5, 1.599999, 9].map((at) => module.rowAt(rows, at)),
  places: [0, 1.5, 1.75, 2, 9].map((at) => module.place(at, [1.5, 2])),
  nowhere: module.place(1, [1, 1]),
  renders: typeof module.default.render,
}));
"""


@pytest.fixture
def counting(tmp_path: Path) -> Path:
    """A server that counts three callers, and answers none."""
    file = tmp_path / "counting.py"
    file.write_text(COUNTING, encoding="utf-8")
    return file


@pytest.fixture
async def panel() -> AsyncIterator[Any]:
    """A panel for a server that nobody has started yet."""
    made = ServerPanel(NAME)
    yield made
    made.close()
    await stop_servers()
    place_of(NAME).command = ()


def headline(panel: Any) -> str:
    return str(panel.children[1].text)


def table(panel: Any) -> str:
    return str(panel.children[2].value)


def buttons(panel: Any) -> tuple[Any, Any]:
    start, stop = panel.children[0].children
    return start, stop


async def test_it_follows_the_server_of_its_name(panel: Any, counting: Path) -> None:
    assert (headline(panel), repr(panel)) == ("not running", "nothing runs here")
    panel._view_count = 1  # it is on a page
    server = await place_of(NAME).start([str(counting)])
    await until(lambda: headline(panel) == f"running at {server.url}", seconds=60)
    assert panel.server is server
    assert 'sessions</th><td style="text-align:left">3</td>' in table(panel)
    assert repr(panel) == repr(server.status())
    other = await place_of(NAME).start([str(counting)])
    await until(lambda: headline(panel) == f"running at {other.url}", seconds=60)


async def test_a_click_stops_and_starts_again(panel: Any, counting: Path) -> None:
    start, stop = buttons(panel)
    assert (start.description, stop.description) == ("Start", "Stop")
    panel._view_count = 1
    first = await place_of(NAME).start([str(counting)])
    await until(lambda: headline(panel).startswith("running at "), seconds=60)
    stop.click()
    await until(lambda: headline(panel) == "not running", seconds=60)
    assert first.status().running is False
    assert (panel.server, table(panel)) == (None, "")
    start.click()
    start.click()  # while it works, a click changes nothing
    await until(lambda: headline(panel).startswith("running at "), seconds=60)
    assert panel.server.status().running
    assert place_of(NAME).command == [str(counting)]


async def test_start_says_what_is_missing(panel: Any) -> None:
    buttons(panel)[0].click()
    await until(lambda: "nothing was started here yet" in headline(panel))


async def test_start_says_whatever_goes_wrong(panel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr("labkit.notebook.server.Place.start_again", fail)
    buttons(panel)[0].click()
    await until(lambda: headline(panel) == "OSError('no room')")


async def test_it_asks_only_while_it_is_on_a_page(
    panel: Any, counting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    status = RunningServer.status
    monkeypatch.setattr(RunningServer, "status", lambda one: asked.append(one) or status(one))
    before = asyncio.all_tasks()
    server = await place_of(NAME).start([str(counting)])
    await asyncio.sleep(0)
    assert (asked, asyncio.all_tasks()) == ([], before)
    panel._view_count = 1
    await until(lambda: asked and headline(panel).startswith("running"), seconds=60)
    assert asyncio.all_tasks() != before
    panel._view_count = 0
    await until(lambda: asyncio.all_tasks() == before)
    panel._view_count = 1
    await until(lambda: len(asked) > 1)
    await server.stop_async()  # from any cell
    await until(lambda: headline(panel) == f"not running ({server.url})", seconds=60)
    await until(lambda: asyncio.all_tasks() == before)


async def test_closed_it_asks_no_more_and_the_server_runs_on(panel: Any, counting: Path) -> None:
    before = asyncio.all_tasks()
    panel._view_count = 1
    server = await place_of(NAME).start([str(counting)])
    await until(lambda: headline(panel).startswith("running"), seconds=60)
    panel.close()
    await until(lambda: asyncio.all_tasks() == before)
    assert server.status().running
    again = await place_of(NAME).start([str(counting)])  # nobody listens
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    assert again.status().running


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not here")
def test_an_instant_lies_in_the_last_row_that_has_begun() -> None:
    told = told_by_node(SCRIPT, Path(widgets.__file__).with_name("timeline.js"))
    assert told["rows"] == [0, 0, 0, 1, 3, 4]
    assert told["places"] == [0, 0, 50, 100, 100]
    assert told["nowhere"] == 0
    assert told["renders"] == "function"


def test_the_widget_loads_nothing_from_the_network() -> None:
    for name in ("timeline.js", "timeline.css"):
        text = Path(widgets.__file__).with_name(name).read_text(encoding="utf-8")
        assert "http" not in text
        assert "import " not in text.replace("important", "")
