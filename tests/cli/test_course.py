"""The course's commands: copies first, then JupyterLab in place of this process; checks."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from labkit.cli.app import app
from labkit.course.checking import check
from labkit.notebook.copies import jupyter_command, jupyter_environment
from tests.course.test_checking import PONG


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LABKIT_MINE", str(tmp_path / "mine"))
    return tmp_path


def test_a_file_is_checked_from_outside(folder: Path) -> None:
    file = folder / "server.py"
    file.write_text(PONG, encoding="utf-8")
    done = CliRunner().invoke(app, ["check", "ch1.pong", "--server", str(file), "--seed", "5"])
    assert (done.exit_code, done.output.splitlines()[0]) == (
        0,
        "✔ ch1.pong: passed. `ping` is answered with `pong`, at once.",
    )


def test_it_ends_with_1_where_a_check_does_not_pass() -> None:
    done = CliRunner().invoke(app, ["check", "ch1.pong", "--url", "ws://127.0.0.1:1"])
    assert done.exit_code == 1
    assert "no WebSocket came about" in done.output


def test_what_was_found_is_told_where_the_checks_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken_off(*given: Any, **settings: Any) -> None:
        await check(*given, **settings)
        raise SystemExit(130)

    monkeypatch.setattr("labkit.course.checking.check", broken_off)
    done = CliRunner().invoke(app, ["check", "ch1.pong", "--url", "ws://127.0.0.1:1"])
    assert done.exit_code == 130
    assert done.output.startswith("not finished; found until then:")
    assert "no WebSocket came about" in done.output


def test_it_needs_one_server() -> None:
    assert CliRunner().invoke(app, ["check", "ch1"]).exit_code == 2


@pytest.mark.parametrize(
    ("option", "given", "why"),
    [
        ("--url", "localhost:1", "is no address of a voice server; try ws://localhost:1"),
        ("--server", "nowhere.py", "there is no file nowhere.py"),
        ("--server", "pyproject.toml", "is no file of Python; name one that ends in .py"),
    ],
)
def test_what_is_no_server_is_told(option: str, given: str, why: str) -> None:
    done = CliRunner().invoke(app, ["check", "ch1.pong", option, given])
    assert why in " ".join(f"{done.output} {done.exception}".split())


def test_progress_is_a_table() -> None:
    done = CliRunner().invoke(app, ["progress"])
    assert done.exit_code == 0
    assert "0 of 10" in done.output


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


def test_a_home_that_cannot_be_written_is_told_before_jupyter_fails_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    became: list[object] = []
    monkeypatch.setattr(os, "execve", lambda *told: became.extend(told))
    monkeypatch.setattr("labkit.doctor.jupyter_folders", lambda: [tmp_path / "file" / "jupyter"])
    (tmp_path / "file").touch()
    told = CliRunner().invoke(app, ["lab", "--mine", str(tmp_path / "mine"), "--allow-root"])
    assert re.search("can keep nothing in .*: Not a directory; set HOME to", str(told.exception))
    assert not became


def test_root_is_told_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    told = CliRunner().invoke(app, ["lab", "--mine", str(tmp_path / "mine")])
    assert told.exit_code != 0
    assert "make lab ARGS=--allow-root" in str(told.exception)
