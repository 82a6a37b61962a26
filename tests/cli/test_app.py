"""The command line: what it prints, and how it fails."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from labkit.cli import app as module
from tests.cli.commands import Labkit
from tests.paths import ROOT


def test_an_error_of_labkit_is_one_line_with_its_path_as_it_is(labkit: Labkit) -> None:
    path = "recordings/[old]/[/b]/" + "long" * 40 + ".wav"
    done = labkit("talk", path)
    assert done.code == 1
    assert done.err.startswith(f"error: there is no file {path}: it was not found in ")
    assert done.err.count("\n") == 1


def test_the_help_of_a_command_says_what_its_options_do(
    labkit: Labkit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert "as far as the model bears it" in labkit("serve", "--help").out


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (
            ModuleNotFoundError(name="httpx2"),
            "the package httpx2 is not installed; run 'make setup",
        ),
        (PermissionError(13, "Permission denied", "pulled.json"), "pulled.json: Permission denied"),
        (FileNotFoundError(2, "No such file or directory"), "the working folder: No such file or"),
    ],
)
def test_what_the_machine_lacks_is_one_line(
    labkit: Labkit, monkeypatch: pytest.MonkeyPatch, failure: Exception, said: str
) -> None:
    def fail() -> None:
        raise failure

    monkeypatch.setattr(module, "app", fail)
    done = labkit("doctor")
    assert done.code == 1
    assert done.err.startswith(f"error: {said}")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("words", [["token"], ["--version"], ["protocol"]])
def test_what_cannot_be_printed_is_told_in_one_line(words: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "labkit", *words], cwd=ROOT, stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 1
    wanted = "error: what was printed cannot be written: No space left on device\n"
    assert done.stderr.decode() == wanted


@pytest.mark.parametrize("value", ["nan", "inf", "1e9", "-1"])
@pytest.mark.parametrize(
    "words",
    [
        ("talk", "said.wav", "--chunk-ms"),
        ("talk", "said.wav", "--wait"),
        ("load", "--seconds"),
        ("drill", "stalled", "--seconds"),
        ("drill", "hostile", "--seconds"),
        ("drill", "crosstalk", "--pace"),
    ],
)
def test_no_option_takes_a_number_without_end(
    labkit: Labkit, words: tuple[str, ...], value: str
) -> None:
    done = labkit(*words, value)
    assert done.code == 2
    assert f"Invalid value for '{words[-1]}'" in done.err


def test_the_lines_of_a_help_fit_into_80_columns() -> None:
    """Below a help's first paragraph lines stay as they are written, and a longer one is torn."""
    todo = [typer.main.get_command(module.app)]
    while todo:
        command = todo.pop()
        todo += getattr(command, "commands", {}).values()
        _, *paragraphs = (command.help or "").split("\n\n")
        assert [line for one in paragraphs for line in one.split("\n") if len(line) > 78] == []


def test_a_closed_stdout_is_no_fault() -> None:
    command = f"'{sys.executable}' -m labkit models list >&-"
    done = subprocess.run(["/bin/sh", "-c", command], cwd=ROOT, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")
