"""Results: tried before the work, written as they come, and kept whatever ends the work."""

import asyncio
import csv
import errno
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, Self

import pytest
from matplotlib.figure import Figure

from labkit.errors import InstrumentError, LabkitError
from labkit.measure import results as module
from labkit.measure.results import Experiment, Results, Tell, about_machine, conduct, read_rows


class Number(int):
    def columns(self) -> Mapping[str, Any]:
        return {"number": int(self), "half": self / 3}


@dataclass
class Counted:
    """What counting found."""

    numbers: Sequence[int]

    def sentences(self) -> list[str]:
        return [f"{len(self.numbers)} numbers"]

    def content(self) -> Mapping[str, Any]:
        return {"sum": sum(self.numbers), "self": self}


@dataclass
class Counting(Experiment[Number, Counted]):
    """An experiment that counts up to `upto`; `before` is called before each row."""

    upto: int
    before: Callable[[int], None] = lambda number: None
    ran: list[int] = field(default_factory=list)

    raw = "numbers.csv"
    summary = "summary.json"
    columns = ("number", "half")

    def about(self) -> Mapping[str, Any]:
        return {"upto": self.upto}

    async def run(self, record: Callable[[Number], None], tell: Tell) -> None:
        for number in range(self.upto):
            tell("counting", number, self.upto)
            self.before(number)
            self.ran.append(number)
            record(Number(number))

    def summarise(self, rows: Sequence[Number]) -> Counted:
        return Counted(rows)

    def draw(self, summary: Counted) -> Mapping[str, Figure]:
        return {"numbers": Figure(figsize=(1, 1))}


def written(folder: Path) -> list[dict[str, str]]:
    with (folder / "numbers.csv").open(newline="") as file:
        return list(csv.DictReader(file))


async def test_rows_summary_and_figures_are_written(tmp_path: Path) -> None:
    told: list[int] = []
    results = Results(tmp_path / "deep" / "folder")
    summed = await conduct(Counting(3), results, lambda _, done, __: told.append(done))
    assert summed.sentences() == ["3 numbers"]
    assert written(results.folder) == [
        {"number": "0", "half": "0.0"},
        {"number": "1", "half": "0.3333"},
        {"number": "2", "half": "0.6667"},
    ]
    summary = json.loads((results.folder / "summary.json").read_text())
    about = about_machine() | {"upto": 3}
    assert summary == {"about": about, "sum": 3, "self": {"numbers": [0, 1, 2]}}
    names = {path.name for path in results.folder.iterdir()}
    assert names == {"numbers.csv", "summary.json", "numbers.png", "numbers.svg"}
    assert (results.measured, results.complete) == (3, True)
    assert told == [0, 1, 2]


def test_what_utf_8_does_not_have_costs_no_row_and_no_summary(tmp_path: Path) -> None:
    results = Results(tmp_path)
    with results.rows("numbers.csv", ["server"]) as write:
        write({"server": "b\udcff é"})
    results.write_json("summary.json", {"told": ["é", "\udcff", float("inf"), None]})
    assert read_rows(tmp_path / "numbers.csv", dict) == [{"server": "b\\udcff é"}]
    kept = json.loads((tmp_path / "summary.json").read_bytes())
    assert kept == {"told": ["é", "\\udcff", "Infinity", None]}


async def test_every_row_is_in_the_file_before_the_next_is_measured(tmp_path: Path) -> None:
    seen: list[int] = []
    await conduct(Counting(3, lambda _: seen.append(len(written(tmp_path)))), Results(tmp_path))
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("name", ["results", "results/below"])
def test_a_file_in_the_way_is_told_before_the_work(tmp_path: Path, name: str) -> None:
    (tmp_path / "results").touch()
    with pytest.raises(InstrumentError, match=r"results cannot be written to .*--out"):
        Results.within(tmp_path / name)


def test_a_link_to_nowhere_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "results").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InstrumentError, match=r"results cannot be written to .*--out"):
        Results.within(tmp_path / "results")


async def test_a_folder_that_cannot_be_written_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    results = Results(tmp_path / "results")
    monkeypatch.setattr(Path, "open", refuse)
    experiment = Counting(3)
    with pytest.raises(InstrumentError, match="results: Permission denied. Name another"):
        await conduct(experiment, results)
    assert experiment.ran == []
    assert not results.folder.exists()


async def test_the_rows_of_another_run_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "numbers.csv").write_text("precious")
    with pytest.raises(InstrumentError, match="File exists"):
        await conduct(Counting(3), Results(tmp_path))
    assert (tmp_path / "numbers.csv").read_text() == "precious"


@pytest.mark.parametrize("end", [KeyboardInterrupt(), asyncio.CancelledError(), LabkitError("x")])
async def test_what_was_measured_before_an_end_is_kept(tmp_path: Path, end: BaseException) -> None:
    def stop(number: int) -> None:
        if number == 2:
            raise end

    results = Results(tmp_path)
    with pytest.raises(type(end)):
        await conduct(Counting(9, stop), results)
    assert [row["number"] for row in written(tmp_path)] == ["0", "1"]
    assert (results.measured, results.complete) == (2, False)


@pytest.mark.parametrize("part", ["summarise", "draw"])
async def test_an_end_while_the_sum_is_made_is_heard_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    whole = getattr(Counting, part)

    def ended(counting: Counting, found: Any) -> Any:
        task.cancel()  # as a signal does: summing up and drawing are computed without an await
        return whole(counting, found)

    monkeypatch.setattr(Counting, part, ended)
    results = Results(tmp_path)
    task = asyncio.create_task(conduct(Counting(3), results))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (results.measured, results.complete) == (3, False)
    assert not (tmp_path / "numbers.png").exists()


async def test_nothing_is_left_of_an_experiment_without_a_row(tmp_path: Path) -> None:
    def stop(_: int) -> None:
        raise LabkitError("no server")

    results = Results(tmp_path / "results")
    with pytest.raises(LabkitError, match="no server"):
        await conduct(Counting(3, stop), results)
    assert not results.folder.exists()


class Full:
    """A text file on a disk with room for a number of flushes."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room, self.name = file, room, file.name

    def write(self, text: str) -> int:
        return int(self.file.write(text))

    def flush(self) -> None:
        self.room -= 1
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.file.flush()

    def close(self) -> None:
        self.file.close()
        self.flush()


@pytest.mark.parametrize("room", [0, 1, 3])
async def test_a_full_disk_ends_the_work_and_keeps_what_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *how, **more: Full(
        opened(path, *how, **more), room))  # fmt: skip
    results = Results(tmp_path / "results")
    experiment = Counting(9)
    with pytest.raises(InstrumentError, match="No space left on device"):
        await conduct(experiment, results)
    assert len(experiment.ran) == room  # the row that was refused is the last that was measured
    assert results.measured == max(0, room - 1)
    assert results.folder.exists() is (room > 1)


async def test_a_disk_that_fills_up_before_the_summary_is_told_with_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(InstrumentError, match=r"summary.json cannot .* the 3 rows .* are kept in"):
        await conduct(Counting(3), Results(tmp_path))
    assert len(written(tmp_path)) == 3


def test_the_machine_is_told() -> None:
    about = about_machine()
    assert set(about) == {"cpu", "cores", "system", "python", "versions"}
    assert {"labkit", "numpy"} <= set(about["versions"])


def test_two_runs_of_one_second_have_a_folder_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls(2026, 11, 26)

    monkeypatch.setattr(module, "datetime", Stopped)
    # Each has looked before another one made it.
    monkeypatch.setattr("os.path.exists", lambda _: False)
    names = [Results.within(tmp_path).folder.name for _ in range(3)]
    at = "2026-11-26_00-00-00"
    assert names == [at, f"{at}_2", f"{at}_3"]


def test_half_a_row_that_had_no_room_is_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = Results(tmp_path)
    with pytest.raises(InstrumentError, match="the 1 rows that were measured are kept"):  # noqa: SIM117
        with results.rows("numbers.csv", ("number", "half")) as write:
            write({"number": 1, "half": 0.5})
            monkeypatch.setattr(csv.DictWriter, "writerow", half_a_row(tmp_path / "numbers.csv"))
            write({"number": 2, "half": 0.5})
    assert written(tmp_path) == [{"number": "1", "half": "0.5"}]


def half_a_row(path: Path) -> Callable[..., None]:
    """Writes a part of a row before the disk is full."""

    def write(*_: object) -> None:
        with path.open("a") as file:
            file.write("2,0")
        raise OSError(errno.ENOSPC, "No space left on device")

    return write


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("a,b\n1,2\n1,2,3\n", "line 3: more values than there are columns"),
        ('a,b\n"' + "x" * 200_000 + '",2\n', "line 1: field larger than field limit"),
        ("a,b\n", "it has no rows"),
    ],
)
def test_rows_that_are_none_are_refused_with_the_place(
    tmp_path: Path, content: str, why: str
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(content)
    with pytest.raises(InstrumentError, match=f"rows.csv cannot be read: {why}"):
        read_rows(path, dict)
