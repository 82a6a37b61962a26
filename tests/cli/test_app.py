"""The command line: what it prints, and how it fails."""

import sys

import pytest

from labkit.cli import app as command_line


def test_an_error_of_labkit_is_one_line_with_its_path_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = "recordings/[old]/[/b]/" + "long" * 40 + ".wav"
    monkeypatch.setattr(sys, "argv", ["labkit", "talk", path])
    with pytest.raises(SystemExit) as caught:
        command_line.run_command_line()
    assert caught.value.code == 1
    err = capsys.readouterr().err
    assert err.startswith(f"error: there is no file {path}: it was not found in ")
    assert err.count("\n") == 1


def test_the_help_of_a_command_says_what_its_options_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["labkit", "serve", "--help"])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        command_line.run_command_line()
    assert "as far as the model bears it" in capsys.readouterr().out
