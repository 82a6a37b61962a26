"""`labkit lab`: copies first, then JupyterLab in place of this process."""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from labkit.cli.app import app
from labkit.notebook.copies import jupyter_command, jupyter_environment


def test_the_chapters_are_copied_and_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    became: list[object] = []
    monkeypatch.setattr(os, "execve", lambda path, *told: became.extend(told))
    mine = tmp_path / "mine"
    told = CliRunner().invoke(app, ["lab", "--mine", str(mine), "--no-browser", "--allow-root"])
    assert told.exit_code == 0
    assert "00_start_here is yours to change in" in told.stderr
    assert (mine / "00_start_here.ipynb").exists()
    command = jupyter_command(mine, ["--no-browser", "--allow-root"])
    assert became == [command, jupyter_environment()]


def test_an_environment_that_is_older_than_the_checkout_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labkit.doctor.required_packages", lambda: ["numpy>=2", "unheard-of>=1"])
    told = CliRunner().invoke(app, ["lab", "--mine", str(tmp_path / "mine"), "--allow-root"])
    assert told.exit_code != 0
    assert "unheard-of missing; run 'make setup'" in str(told.exception)


def test_root_is_told_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    told = CliRunner().invoke(app, ["lab", "--mine", str(tmp_path / "mine")])
    assert told.exit_code != 0
    assert "make lab ARGS=--allow-root" in str(told.exception)
