"""The latency exercise in a notebook."""

import asyncio
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from labkit.course.keep import write_sections
from labkit.course.masters import sections
from labkit.errors import InstrumentError
from labkit.measure.exercise import Exercise
from labkit.measure.results import Results
from labkit.notebook.exercise import run_exercise


@pytest.mark.parametrize("interrupted", [False, True])
async def test_it_says_where_the_results_are(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    interrupted: bool,
) -> None:
    asked: list[tuple[Exercise, Results]] = []

    async def conduct(exercise: Exercise, results: Results, _: object) -> SimpleNamespace:
        asked.append((exercise, results))
        results.measured = 3
        if interrupted:
            raise asyncio.CancelledError
        return SimpleNamespace()

    monkeypatch.setattr("labkit.notebook.exercise.conduct", conduct)
    with suppress(asyncio.CancelledError):
        await run_exercise(quick=True, out=tmp_path)
    ((exercise, results),) = asked
    assert results.folder.parent == tmp_path
    assert [target.name for target in exercise.targets] == ["labkit"]
    assert capsys.readouterr().out == f"3 turns; raw data and figures: {results.folder}\n"


async def test_the_conditions_are_those_that_were_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Exercise] = []

    async def conduct(exercise: Exercise, results: Results, _: object) -> SimpleNamespace:
        asked.append(exercise)
        return SimpleNamespace()

    monkeypatch.setenv("LABKIT_MINE", str(tmp_path))
    monkeypatch.setattr("labkit.notebook.exercise.conduct", conduct)
    with pytest.raises(NotImplementedError, match="nothing is kept yet: run the cells"):
        await run_exercise(mine=True, out=tmp_path)
    write_sections(sections(2))
    await run_exercise(mine=True, labkit=False, baseline=True, blocks=3, network="4g", out=tmp_path)
    (exercise,) = asked
    assert [target.name for target in exercise.targets] == ["mine", "naive"]
    assert exercise.targets[0].command == [str(tmp_path / "server.py")]
    assert exercise.blocks == 3
    assert str(exercise.access) == "4g"


async def test_a_server_need_not_be_in_a_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Exercise] = []

    async def conduct(exercise: Exercise, *_: object) -> None:
        asked.append(exercise)

    monkeypatch.setattr("labkit.notebook.exercise.conduct", conduct)
    await run_exercise(labkit=False, servers="ws://localhost:8766", out=tmp_path)
    assert [target.url for target in asked[0].targets] == ["ws://localhost:8766"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"chunk_sizes_ms": [0]}, r"\[0\] is no list of whole milliseconds from 5 to 1000"),
        ({"chunk_sizes_ms": []}, r"write them as \[20, 100, 500\]"),
        ({"chunk_sizes_ms": [20.5]}, r"\[20.5\] is no list"),
        ({"blocks": -1}, "blocks is -1, and has to be at least 1"),
        ({"blocks": 0}, "blocks is 0"),
    ],
)
async def test_what_leaves_nothing_to_run_is_named(
    tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(InstrumentError, match=words):
        await run_exercise(**settings, out=tmp_path)


async def test_an_exercise_of_no_server_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InstrumentError, match="there is no server to measure; name one"):
        await run_exercise(labkit=False, out=tmp_path)
