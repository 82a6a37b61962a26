"""JupyterLab as `labkit lab` starts it, and a chapter open in a browser."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
from playwright.sync_api import ConsoleMessage, Locator, Page, Request, expect

from tests.paths import ROOT

LONG_S: Final = 300.0
"""How long anything may take here that is not a measurement, on the slowest machine."""

_SERVER: Final = "labkit.measure.child"
_RUNTIME: Final = "JUPYTER_RUNTIME_DIR"
_FIRST_PAGE: Final = "jpserver-file-to-run-*-open.html"


def wait_for(found: Callable[[], Any], what: str) -> Any:
    """Look again and again until something is found."""
    deadline_s = time.monotonic() + LONG_S
    while not (result := found()):
        assert time.monotonic() < deadline_s, f"{what} was not there after {LONG_S:g} s"
        time.sleep(0.05)
    return result


@dataclass(frozen=True)
class Lab:
    """A JupyterLab on a learner's folder of its own.

    Attributes:
        mine: The learner's folder.
        runtime: What JupyterLab notes about itself; whatever it starts has it in its environment.
        url: Its address.
        token: What a browser has to show.
    """

    mine: Path
    runtime: Path
    url: str
    token: str

    @property
    def first_page(self) -> str:
        """What JupyterLab gives a learner's browser to open."""
        (page,) = self.runtime.glob(_FIRST_PAGE)
        return page.as_uri()

    def page_of(self, chapter: str) -> str:
        """The address of a chapter; what was open before is not opened again."""
        return f"{self.url}lab/tree/{chapter}.ipynb?reset&token={self.token}"

    def servers(self) -> list[int]:
        """The process numbers of the voice servers that its notebooks have started."""
        return [one.pid for one in _started_under(self.runtime) if _SERVER in one.info["cmdline"]]


def _started_under(runtime: Path) -> list[psutil.Process]:
    """Every process that JupyterLab started, and what those started, orphans included."""
    return [
        one
        for one in psutil.process_iter(["cmdline", "environ"])
        if (one.info["environ"] or {}).get(_RUNTIME) == str(runtime)
        and one.info["cmdline"]  # a zombie has none
    ]


@contextmanager
def jupyterlab(folder: Path) -> Iterator[Lab]:
    """Run `labkit lab` on a new folder, for somebody who has never used Jupyter before."""
    mine, runtime = folder / "mine", folder / "runtime"
    for one in ("config", "data", "ipython"):
        (folder / one).mkdir()
    environment = {name: value for name, value in os.environ.items() if "JUPYTER" not in name}
    environment |= {
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "IPYTHONDIR": str(folder / "ipython"),
        "PYTHONPATH": str(ROOT),
        _RUNTIME: str(runtime),
    }
    command = [sys.executable, "-m", "labkit", "lab", "--mine", str(mine)]
    options = ["--no-browser", "--allow-root", "--port=0", "--expose-app-in-browser"]
    with (folder / "lab.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *options], env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            (noted,) = wait_for(lambda: [*runtime.glob("jpserver-*.json")], "JupyterLab")
            told = wait_for(lambda: _read(noted), "its address")
            wait_for(lambda: [*runtime.glob(_FIRST_PAGE)], "the page that it opens")
            yield Lab(mine, runtime, told["url"], told["token"])
        finally:
            process.terminate()
            process.wait(LONG_S)
            left = _started_under(runtime)
            psutil.wait_procs(left, timeout=LONG_S)
            for one in left:
                one.kill()
    assert not [one.info["cmdline"] for one in left if one.is_running()]


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError:  # it is being written
        return None


_READY: Final = """async () => {
  const panel = window.jupyterapp.shell.currentWidget;
  await panel.context.ready;
  await panel.sessionContext.ready;
  await panel.sessionContext.session.kernel.info;
}"""

_CELLS: Final = """() => window.jupyterapp.shell.currentWidget.content.widgets.map(({model}) => ({
  source: model.sharedModel.getSource(),
  outputs: model.type === "code" ? model.outputs.toJSON() : [],
}))"""

_SELECT: Final = """number => {
  const notebook = window.jupyterapp.shell.currentWidget.content;
  notebook.activeCellIndex = number;
  notebook.scrollToItem(number);
}"""

_BEGIN: Final = """command => { window.running = window.jupyterapp.commands.execute(command); }"""
_END: Final = """async seconds => {
  const {kernel} = window.jupyterapp.shell.currentWidget.sessionContext.session;
  const queue = window.running.then(() => kernel.requestExecute({code: "", silent: true}).done);
  let timer, late;
  const stuck = new Promise((_, refuse) => {
    timer = setInterval(() => {
      document.querySelector("input.jp-Stdin-input")?.dispatchEvent(
        new KeyboardEvent("keydown", {key: "Enter", bubbles: true}));
      const dialog = document.querySelector(".jp-Dialog");
      if (dialog) refuse(new Error(`JupyterLab waits for an answer: ${dialog.innerText}`));
    }, 100);
    late = setTimeout(() => refuse(new Error(`no end after ${seconds} s`)), 1000 * seconds);
  });
  await Promise.race([queue, stuck]).finally(() => {
    clearInterval(timer);
    clearTimeout(late);
  });
}"""
_EXECUTIONS: Final = """() => Math.max(0, ...window.jupyterapp.shell.currentWidget.content.widgets
  .map(({model}) => model.executionCount ?? 0))"""
_CLOSE: Final = "() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()"


class Chapter:
    """A chapter that is open in a browser, and what went wrong in that browser so far.

    Attributes:
        page: The browser's page.
        errors: What its console has shown as an error.
        again: Whether the test is tried again.
        foreign: The addresses on other machines that it has asked for something.

    JupyterLab's own commands run cells, since they say when they are done; what a learner sees in
    a cell is clicked and read.
    """

    def __init__(self, page: Page, *, again: bool = False) -> None:
        self.page = page
        self.again = again
        self.errors: list[str] = []
        self.foreign: list[str] = []
        page.set_default_timeout(1000 * LONG_S)
        expect.set_options(timeout=1000 * LONG_S)
        page.on("console", self._note)
        page.on("pageerror", lambda error: self._note_error(str(error)))
        page.on("request", self._look_where)

    def _note_error(self, told: str) -> None:
        # What JupyterLab says of each widget that a notebook was saved with, under a kernel that
        # is gone: a test that is tried again opens what its first try has saved.
        if not (self.again and told.startswith("Error: widget model not found")):
            self.errors.append(told)

    def _note(self, said: ConsoleMessage) -> None:
        if said.type == "error":
            self.errors.append(said.text)

    def _look_where(self, asked: Request) -> None:
        if _away(asked.url):
            self.foreign.append(asked.url)

    def open(self, address: str) -> None:
        """Open it, and wait for its kernel."""
        self.page.goto(address)
        self.page.wait_for_function("() => window.jupyterapp?.shell.currentWidget?.sessionContext")
        self.page.evaluate(_READY)

    def begin(self, command: str) -> None:
        """Start one of JupyterLab's commands."""
        self.page.evaluate(_BEGIN, command)

    def end(self) -> None:
        """Wait until the kernel is done with the last command; a cell that asks gets no answer.

        The command itself ends with the first cell that raises. The kernel drops the requests that
        are there by then; one that is still on its way it runs, and what that asks for would be in
        the way of the next command. A page that waits for somebody, or has missed the end, is given
        up before the test is, so that it is tried again.
        """
        self.page.evaluate(_END, 2 * LONG_S)

    def cells(self) -> list[dict[str, Any]]:
        """Source and outputs of every cell."""
        cells: list[dict[str, Any]] = self.page.evaluate(_CELLS)
        return cells

    def number_of(self, words: str) -> int:
        """Which cell it is that has these words in its source."""
        (number,) = [n for n, cell in enumerate(self.cells()) if words in cell["source"]]
        return number

    def cell(self, words: str) -> Locator:
        """The cell that has these words in its source."""
        return self.page.locator(f'[data-windowed-list-index="{self.number_of(words)}"]')

    def write(self, words: str, source: str) -> None:
        """Write something else into the cell that has these words."""
        self.cell(words).locator(".cm-content").click()
        self.page.keyboard.press("ControlOrMeta+a")
        self.page.keyboard.insert_text(source)

    def answer(self, text: str) -> None:
        """Type what a cell asks for."""
        box = self.page.locator("input.jp-Stdin-input")
        box.fill(text)
        box.press("Enter")

    def select(self, words: str) -> int:
        """Make the cell with these words the one that is run next; gives its number."""
        number = self.number_of(words)
        self.page.evaluate(_SELECT, number)
        return number

    def run(self, words: str) -> str:
        """Run one cell to its end; gives what it has put out, as text."""
        number = self.select(words)
        self.begin("notebook:run-cell")
        self.end()
        return in_words(self.cells()[number])

    def told(self, words: str) -> str:
        """What the cell with these words has put out, as text."""
        return in_words(self.of(words))

    def of(self, words: str) -> dict[str, Any]:
        """Source and outputs of the cell with these words."""
        (cell,) = [cell for cell in self.cells() if words in cell["source"]]
        return cell

    def run_all(self) -> None:
        """Run all cells, up to one that raises."""
        self.begin("notebook:run-all-cells")
        self.end()

    def run_the_rest(self) -> None:
        """Go on below the cell that has raised, as often as one does, to the last cell."""
        done = -1
        while (stopped := self._error_below(done)) is not None:
            done = stopped
            self.page.evaluate(_SELECT, done + 1)
            self.begin("notebook:run-all-below")
            self.end()

    def _error_below(self, done: int) -> int | None:
        raised = (n for n, cell in enumerate(self.cells()) if n > done and error_of(cell))
        return next(raised, None)

    def executions(self) -> int:
        """How many cells the kernel has run."""
        count: int = self.page.evaluate(_EXECUTIONS)
        return count

    def close(self) -> None:
        """End the kernel, and with it whatever it started."""
        self.page.evaluate(_CLOSE)


def _away(url: str) -> bool:
    """Whether a request leaves this machine."""
    scheme, _, rest = url.partition(":")
    host = rest.lstrip("/").partition("/")[0].rpartition(":")[0]
    return scheme not in ("data", "blob", "file") and host not in ("localhost", "127.0.0.1")


def error_of(cell: dict[str, Any]) -> str:
    """The name of the error that a cell ended with, or nothing."""
    return next((one["ename"] for one in cell["outputs"] if one["output_type"] == "error"), "")


def in_words(cell: dict[str, Any]) -> str:
    """What a cell has put out: streams, HTML, Markdown and text, one below the other."""
    told = []
    for one in cell["outputs"]:
        data = one.get("data", {})
        best = data.get("text/html") or data.get("text/markdown") or data.get("text/plain")
        told.append(one.get("text") or best or one.get("evalue", ""))
    return "\n".join("".join(part) for part in told)
