"""The latency exercise in a notebook."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from labkit.notebook.exercise import run_exercise
from tests.paths import SPEECH


async def test_it_says_where_the_results_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[Path, dict[str, Any]]] = []

    async def run_and_write(folder: Path, **options: Any) -> SimpleNamespace:
        asked.append((folder, options))
        return SimpleNamespace(rows=[1, 2, 3])

    monkeypatch.setattr("labkit.notebook.exercise.run_and_write", run_and_write)
    await run_exercise(quick=True, out=tmp_path)
    ((folder, options),) = asked
    assert folder.parent == tmp_path
    assert (options["recordings"], options["quick"], options["baseline"]) == (SPEECH, True, False)
    assert capsys.readouterr().out == f"3 turns; raw data and figures are in {folder}\n"
