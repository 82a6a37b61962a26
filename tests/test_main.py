"""The entry: it starts at once, ends at once, and says where it does not run."""

import os
import re
import signal
import subprocess
import sys
from typing import Final

import pytest

from labkit.__main__ import main
from tests.paths import ROOT

TRACING: Final = (sys.executable, "-X", "importtime", "-m", "labkit")
"""Writes a line to stderr for each module that has been imported, from the first one on."""


def test_help_imports_nothing_that_takes_long() -> None:
    done = subprocess.run([*TRACING, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert "Usage" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "labkit.cli.serve" in imported
    assert not imported & {"numpy", "websockets", "matplotlib", "pydantic", "huggingface_hub"}


@pytest.mark.parametrize("module", ["rich.console", "typer", "labkit.cli.app", "websockets"])
def test_ctrl_c_while_it_starts_leaves_no_traceback(module: str) -> None:
    """`module` has just been imported, so what it stands for is the point of start-up."""
    command = [*TRACING, "serve", "--pipeline", "echo", "--port", "0"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.rpartition("|")[2].strip() == module:
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
    assert "Traceback" not in rest
    assert "KeyboardInterrupt" not in rest
    assert process.returncode in (0, -signal.SIGINT)


def test_ctrl_c_twice_at_the_end_leaves_no_traceback() -> None:
    command = [sys.executable, "-m", "labkit", "serve", "--pipeline", "echo", "--port", "0"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert "ready" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate()
    assert "Traceback" not in rest
    assert "KeyboardInterrupt" not in rest


def test_where_it_does_not_run_one_sentence_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "name", "nt")
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    assert re.fullmatch(
        r"labkit runs on Linux and macOS, and not on win32; .* WSL .*\n", capsys.readouterr().err
    )
