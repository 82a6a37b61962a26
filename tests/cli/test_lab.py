"""`labkit lab`: copies first, then JupyterLab in place of this process."""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from labkit.cli.app import app
from labkit.notebook.copies import jupyter_command


def test_the_chapters_are_copied_and_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    became: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda path, command: became.append(command))
    mine = tmp_path / "mine"
    told = CliRunner().invoke(app, ["lab", "--mine", str(mine), "--no-browser", "--port=9"])
    assert told.exit_code == 0
    assert "05_latency_exercise is yours to change in" in told.stderr
    assert (mine / "05_latency_exercise.ipynb").exists()
    assert became == [jupyter_command(mine, ["--no-browser", "--port=9"])]
