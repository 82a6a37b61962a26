"""`labkit exercise`: its table, its errors, and that what was measured is kept."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from labkit.cli.exercise import sizes_table
from tests.measure.samples import summary


def test_the_table_fits_into_80_columns() -> None:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(sizes_table(summary().sizes))
    assert "…" not in capture.get()
    assert re.search(r"40 +100 +\d+ to \d+ +116 +25\.0 ", capture.get())


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "labkit", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("words", [("exercise", "--quick"), ("load",)])
def test_results_that_cannot_be_written_are_told_before_the_work(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "results").touch()
    with start(tmp_path, *words) as command:
        out, err = command.communicate(timeout=60)
    assert command.returncode == 1
    assert "error: results cannot be written to results/" in err
    assert "loading" not in err + out


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_end_in_the_middle_says_where_the_rows_are(tmp_path: Path, how: signal.Signals) -> None:
    with start(tmp_path, "load", "--sessions", "1,2,3,4,5,6", "--seconds", "2") as command:
        while not (rows := list(tmp_path.glob("results/*/load.csv"))) or (
            rows[0].read_text().count("\n") < 2
        ):
            assert command.poll() is None
            time.sleep(0.05)
        command.send_signal(how)
        _, err = command.communicate(timeout=60)
    assert command.returncode == 128 + how
    assert re.search(r"not finished; the rows measured until then \(\d+\) are in results/", err)
    assert "Traceback" not in err
