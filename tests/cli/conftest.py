"""Fixtures of the command line."""

import sys

import pytest

from labkit.cli.app import run_command_line
from tests.cli.commands import Done, Labkit


@pytest.fixture
def labkit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Labkit:
    """Runs a command in this process."""

    def run(*words: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["labkit", *words])
        with pytest.raises(SystemExit) as caught:
            run_command_line()
        return Done(caught.value.code, *capsys.readouterr())

    return run
