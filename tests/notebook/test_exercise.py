"""The latency exercise in a notebook."""

import asyncio
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from labkit.measure.exercise import Exercise
from labkit.measure.results import Results
from labkit.notebook.exercise import run_exercise
from tests.paths import SPEECH


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
    assert exercise.recordings == SPEECH
    assert [target.name for target in exercise.targets] == ["labkit"]
    assert capsys.readouterr().out == f"3 turns; raw data and figures: {results.folder}\n"
