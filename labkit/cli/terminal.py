"""The terminal: text that any console can show, files, progress, and signals that end a command.

A file that cannot be read or written is told by a `LabkitError` with the reason.
"""

import asyncio
import codecs
import io
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final, TypeVar

import typer
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table

from labkit.errors import LabkitError

T = TypeVar("T")

_SUBSTITUTES: Final = {
    "≤": "<=", "≥": ">=", "±": "+-", "×": "x", "µ": "u", "μ": "u", "…": "...", "–": "-", "—": "-",
    "→": "->", "‘": "'", "’": "'", "“": '"', "”": '"', "•": "*", "·": ".", "°": " deg",
    "█": "#", "░": "-",
}  # fmt: skip
"""What stands for a character on a console that does not have it."""
_HANDLER: Final = "labkit.substitute"
_LEAST_WIDTH: Final = 80
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def show_on_any_console() -> None:
    """Let stdout and stderr write something for each character, whatever their encoding is.

    Their encoding may be ASCII or a code page: a terminal that is set so, or `PYTHONIOENCODING`.
    Rich draws its tables and bars from ASCII there by itself.
    """
    codecs.register_error(_HANDLER, _substitute)
    # Where they were closed (`>&-`), there is none; what is printed is then for nobody.
    sys.stdout, sys.stderr = (one or open(os.devnull, "w") for one in (sys.stdout, sys.stderr))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def _substitute(error: UnicodeError) -> tuple[str, int]:
    """Text in the place of what cannot be encoded, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    wrong = error.object[error.start : error.end]
    return "".join(_SUBSTITUTES.get(character, "?") for character in wrong), error.end


def finite(value: float | None) -> float | None:
    """The number of an option, which is one and has an end; ranges leave neither out.

    Raises:
        BadParameter: It is none, or without end.
    """
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value:g} is no finite number")
    return value


number = partial(typer.Option, callback=finite)
"""An option that takes any finite number of its range."""


def told(text: str) -> str:
    """Text of somebody else, to be printed as it is: no markup, no commands to the terminal."""
    return escape("".join(char if char.isprintable() else " " for char in text))


class _Console(Console):
    """Prints text of anybody: nothing in it, from whatever server, commands the terminal.

    What styles it is added behind this. The cursor is left alone, too: a command that is ended at
    once could not show it again.
    """

    def show_cursor(self, show: bool = True) -> bool:
        """Do nothing."""
        return False

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Give the parts to print; what steers becomes as much space as was reckoned for it."""
        for part in super().render(renderable, options):
            yield part if part.control else part._replace(text=_harmless(part.text))


def _harmless(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in "\n\t" else " " * cell_len(char) for char in text
    )


def console() -> Console:
    """Where results are printed; `:100:` within an address is no emoji."""
    return _Console(emoji=False)


def errors() -> Console:
    """Where errors and progress are printed."""
    return _Console(emoji=False, stderr=True)


def print_table(table: Table) -> None:
    """Print a table; a terminal with fewer than 80 columns breaks its lines, and cuts no figure."""
    shown = console()
    shown.width = max(_LEAST_WIDTH, shown.width)
    shown.print(table)


@contextmanager
def counting_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar that is told what is done, how much of it is over, and how much there is in all.

    In a log, which has no bar, it is a line for each tenth.
    """
    shown = errors()
    if not shown.is_terminal:
        yield _tell_tenths(shown)
        return
    columns = (
        TextColumn("{task.description:20}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=shown) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda now, done, total: bar.update(
            task, description=now, completed=done, total=total
        )


def _tell_tenths(shown: Console) -> Callable[[str, int, int], None]:
    """Writes a line whenever another tenth of the work is over, or of the next part of it."""
    told = -1

    def tell(now: str, done: int, total: int) -> None:
        nonlocal told
        tenth = 10 * done // total if total else 0
        if tenth != told:
            told = tenth
            line = f"{10 * tenth:3} %  {done} of {total}: {now}"
            shown.print(line, highlight=False, markup=False, soft_wrap=True)

    return tell


def require_file(path: Path) -> None:
    """Make sure that there is a file to read, before anything is begun."""
    if path.is_dir():
        raise LabkitError(f"{path} is a folder; name a file in it")
    if not path.exists():
        where = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise LabkitError(f"there is no file {path}: it was not found{where}")
    if not os.access(path, os.R_OK):
        raise LabkitError(f"{path} cannot be read: permission denied")


def require_writable(path: Path) -> None:
    """Make sure that a file can be written, before the work whose result it is to hold."""
    try:
        existed = path.exists()
        path.open("ab").close()
        if not existed:
            path.unlink()
    except OSError as error:
        raise LabkitError(f"{path} cannot be written: {error.strerror or error}") from None


def write_text(path: Path, text: str) -> None:
    """Write a file."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LabkitError(f"{path} cannot be written: {error.strerror or error}") from None


def run(
    work: Coroutine[Any, Any, T],
    *,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> T:
    """Run `work`, on a loop of `loop_factory`; a signal lets it end first what it has started.

    The first SIGINT, SIGTERM or SIGHUP cancels `work`, so that its servers are ended and its
    files closed. A second one ends the process at once.

    Raises:
        SystemExit: A signal came, and `work` gave no result; the code is 128 and its number.
    """
    told: list[int] = []
    # Signals reach the main thread alone; elsewhere (a test) nothing is to be caught.
    here = threading.current_thread() is threading.main_thread()
    before = {one: signal.getsignal(one) for one in _ENDING} if here else {}
    # What is ignored from the start, as SIGHUP under nohup, stays ignored.
    caught = [one for one, handler in before.items() if handler is not signal.SIG_IGN]
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(_cancelled_by(caught, work, told))
    except asyncio.CancelledError:
        if not told:
            raise
        raise SystemExit(128 + told[0]) from None
    finally:
        # asyncio leaves Python's own handlers where it took its away.
        for number in caught:
            signal.signal(number, before[number])


async def _cancelled_by(
    signals: Sequence[signal.Signals], work: Coroutine[Any, Any, T], told: list[int]
) -> T:
    """Do `work` and cancel it at the first of `signals`, which is added to `told`."""
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)

    def note(number: int, _: FrameType | None) -> None:
        # Python calls this between two instructions, also while `work` computes and the loop
        # cannot turn: a second signal finds the default action in place from here on.
        told.append(number)
        for one in signals:
            signal.signal(one, signal.SIG_DFL)
        with suppress(RuntimeError):  # the loop is closed: `work` is over
            loop.call_soon_threadsafe(end)

    def end() -> None:
        for one in signals:
            loop.remove_signal_handler(one)
            signal.signal(one, signal.SIG_DFL)  # which the loop does not leave in place
        task.cancel()

    for number in signals:
        # `note` takes the place of the loop's handler, of which one thing stays: the pipe that
        # wakes the loop up, also where the signal comes just before it begins to wait.
        loop.add_signal_handler(number, lambda: None)
        signal.signal(number, note)
    return await task
