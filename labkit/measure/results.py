"""An experiment from start to end: run, write what comes as it comes, sum up, draw.

The folder for the results is made and written to before the work begins, and every row is on the
disk as soon as it was measured. So a folder that cannot be written costs nobody an hour, and an
interrupt or a full disk costs the rows that were not measured yet, and no more.
"""

import asyncio
import csv
import os
import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Protocol, TypeVar

from pydantic_core import ValidationError, to_json, to_jsonable_python

from labkit.errors import InstrumentError, first_fault

if TYPE_CHECKING:
    from matplotlib.figure import Figure

R = TypeVar("R", bound="Measured")
S = TypeVar("S", bound="Summary")


_LIBRARIES: Final = (
    "labkit", "faster-whisper", "ctranslate2", "llama-cpp-python", "piper-tts", "onnxruntime",
    "websockets", "numpy",
)  # fmt: skip

_ODD: Final = "backslashreplace"
"""How the bytes of a file's name are written that are no UTF-8: no row is lost for them."""

Tell = Callable[[str, int, int], None]
"""Is told what happens now, how much is over, and how much there is in all: turns, or seconds."""


class Measured(Protocol):
    """A row: one turn, one level, one figure."""

    def columns(self) -> Mapping[str, Any]:
        """The row as columns."""


class Summary(Protocol):
    """What an experiment found."""

    def sentences(self) -> list[str]:
        """In words, and no more than the data say."""

    def content(self) -> Mapping[str, Any]:
        """In figures, for the summary's JSON file."""


class Experiment(ABC, Generic[R, S]):
    """What is run, in which order, and what is made of it.

    Attributes:
        raw: Name of the file of rows.
        summary: Name of the summary's file.
        columns: Of the file of rows.
    """

    __slots__ = ()

    raw: ClassVar[str]
    summary: ClassVar[str]
    columns: ClassVar[Sequence[str]]

    @abstractmethod
    def about(self) -> Mapping[str, Any]:
        """Settings and method, for the summary's JSON file beside machine and versions."""

    @abstractmethod
    async def run(self, record: Callable[[R], None], tell: Tell) -> None:
        """Measure; every row is recorded as soon as it is there."""

    @abstractmethod
    def summarise(self, rows: Sequence[R]) -> S:
        """Sum up what was recorded.

        Raises:
            LabkitError: There is nothing to sum up.
        """

    def draw(self, summary: S) -> Mapping[str, "Figure"]:
        """Figures by the names of their files; none by default."""
        return {}


async def conduct(
    experiment: Experiment[R, S],
    results: "Results",
    tell: Tell = lambda *_: None,
    found: Callable[[S], None] = lambda _: None,
) -> S:
    """Run an experiment, and write its rows, its summary and its figures.

    Args:
        experiment: What to run.
        results: Where to write. Nothing is left in it where not even a row was measured.
        tell: Told how far it has come, from once a turn to several times a second.
        found: Told what was found, before that is written: a disk may be full by then.

    Raises:
        LabkitError: What the experiment or `results` raises.
    """
    measured: list[R] = []
    with results.rows(experiment.raw, experiment.columns) as write:

        def record(row: R) -> None:
            write(row.columns())
            measured.append(row)

        await experiment.run(record, tell)
    summed = experiment.summarise(measured)
    await asyncio.sleep(0)  # summing up and drawing take seconds; a signal is heard between them
    found(summed)
    about = {**about_machine(), **experiment.about()}
    results.write_json(experiment.summary, {"about": about, **summed.content()})
    figures = experiment.draw(summed)
    await asyncio.sleep(0)
    results.write_figures(figures)
    results.complete = True
    return summed


def read_rows(path: Path, row: Callable[[dict[str, str]], R]) -> list[R]:
    """The rows of such a file, at least one; `row` makes one of columns.

    Raises:
        InstrumentError: There is no file or no row, or its columns or values are others: the error
            names line, column and value.
    """
    found, line = list[R](), 1
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # as spreadsheets write it
            reader = csv.DictReader(file)
            for columns in reader:
                line = reader.line_num
                if None in columns:
                    raise ValueError("more values than there are columns")
                found.append(row(columns))
    except OSError as error:
        raise InstrumentError(f"{path} cannot be read: {error.strerror}") from error
    except (csv.Error, ValueError) as error:
        fault = first_fault(error) if isinstance(error, ValidationError) else error
        raise InstrumentError(f"{path} cannot be read: line {line}: {fault}") from error
    if not found:
        raise InstrumentError(f"{path} cannot be read: it has no rows")
    return found


class Results:
    """The folder that an experiment writes into.

    What cannot be made or written raises `InstrumentError`: it names the folder and what is kept.

    Attributes:
        measured: Rows that are in it.
        complete: Whether rows, summary and figures are in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.measured = 0
        self.complete = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _not_writable(folder, error) from error

    @classmethod
    def within(cls, out: Path) -> "Results":
        """Make a folder in `out` that is named after the time of day.

        One that is there belongs to a run that began in the same second.
        """
        first = out / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        folder, number = first, 1
        try:
            out.mkdir(parents=True, exist_ok=True)
            while True:
                with suppress(FileExistsError):  # found out by making it: two may look at once
                    folder.mkdir()
                    return cls(folder)
                number += 1
                folder = first.with_name(f"{first.name}_{number}")
        except OSError as error:
            raise _not_writable(folder, error) from error

    @contextmanager
    def rows(
        self, name: str, columns: Sequence[str]
    ) -> Iterator[Callable[[Mapping[str, Any]], None]]:
        """A CSV file for the length of the block; gives what writes a row of it.

        Once that returns, the system has the row. A file without a row is removed again, and the
        folder as well where it is then empty.
        """
        path = self.folder / name
        try:
            file = path.open("x", newline="", encoding="utf-8", errors=_ODD)
        except OSError as error:
            if not isinstance(error, FileExistsError):  # another run's rows are not ours to remove
                self._remove(path)
            raise _not_writable(self.folder, error) from error
        writer = csv.DictWriter(file, fieldnames=columns)
        whole = 0

        def write(row: Mapping[str, Any]) -> None:
            nonlocal whole
            plain = {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
            try:
                writer.writerow(plain)
                file.flush()
            except OSError as error:
                raise self._not_written(path, error) from error
            self.measured += 1
            whole = path.stat().st_size

        try:
            try:
                writer.writeheader()
                file.flush()
            except OSError as error:
                raise _not_writable(self.folder, error) from error
            yield write
        finally:
            with suppress(OSError):  # what could not be written was told by `write` already
                file.close()
            if not self.measured:
                self._remove(path)
            elif path.stat().st_size > whole:  # a part of a row, for which there was no room
                os.truncate(path, whole)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a summary; dataclasses become objects."""
        plain = _encodable(to_jsonable_python(content))
        text = to_json(plain, indent=2, inf_nan_mode="strings").decode() + "\n"
        self._write(name, lambda path: path.write_text(text, encoding="utf-8"))

    def write_figures(self, figures: Mapping[str, "Figure"]) -> None:
        """Write every figure as PNG and as SVG."""
        for name, figure in figures.items():
            for ending in ("png", "svg"):
                self._write(f"{name}.{ending}", partial(figure.savefig, dpi=150))

    def _write(self, name: str, write: Callable[[Path], object]) -> None:
        path = self.folder / name
        try:
            write(path)
        except OSError as error:
            with suppress(OSError):  # half a file would be taken for a whole one
                path.unlink()
            raise self._not_written(path, error) from error

    def _not_written(self, path: Path, error: OSError) -> InstrumentError:
        return InstrumentError(
            f"{path} cannot be written: {error.strerror}; "
            f"the {self.measured} rows that were measured are kept in {self.folder}"
        )

    def _remove(self, path: Path) -> None:
        with suppress(OSError):  # not empty, or not ours
            path.unlink(missing_ok=True)
            self.folder.rmdir()


def _not_writable(folder: Path, error: OSError) -> InstrumentError:
    return InstrumentError(
        f"results cannot be written to {folder}: {error.strerror or error}. "
        "Name another folder with --out"
    )


def _encodable(value: Any) -> Any:
    """A value of JSON, in whose texts there is nothing that UTF-8 does not have."""
    match value:
        case str():
            return value.encode(errors=_ODD).decode()
        case dict():
            return {key: _encodable(one) for key, one in value.items()}
        case list():
            return [_encodable(one) for one in value]
    return value


def about_machine() -> dict[str, Any]:
    """The processor, the system, and the versions of Python and of what may matter to a figure."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _LIBRARIES},
    }


def _cpu() -> str:
    """The processor's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
