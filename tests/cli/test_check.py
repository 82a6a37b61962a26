"""`labkit check` and `labkit progress`."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from labkit.cli.app import app
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


def test_it_needs_one_server() -> None:
    assert CliRunner().invoke(app, ["check", "ch1"]).exit_code == 2


def test_progress_is_a_table() -> None:
    done = CliRunner().invoke(app, ["progress"])
    assert done.exit_code == 0
    assert "0 of 10" in done.output
