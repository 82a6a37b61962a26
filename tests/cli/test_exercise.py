"""`labkit exercise`: its table, its errors, and that what was measured is kept."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from labkit.cli.app import app
from labkit.cli.exercise import diff_table, parse_chunks, servers_table, sizes_table
from labkit.errors import LabkitError
from labkit.measure.exercise import compare, read_run
from tests.cli.commands import printed
from tests.measure.samples import REST, rows, side_by_side, summary
from tests.measure.test_exercise import written


def test_the_tables_fit_into_80_columns() -> None:
    found = side_by_side()
    assert re.search(
        r"500 +\+245 +\d+ to \d+ +245 +\d+ +- +2\.0 +1264 +0\.4 +16",
        printed(sizes_table(found.servers[0])),
    )
    assert re.search(r" 40 .* - +8", printed(sizes_table(found.servers[2])))
    assert re.search(r"naive .*\+80 +80 to 80 +\+\d+ +40\.0", printed(servers_table(found.servers)))


def test_a_long_name_takes_two_lines_and_no_figure_is_cut() -> None:
    slow = {stage: 99 * span for stage, span in REST.items()}
    names = {"labkit": REST, "voice.a-rather-long-name.example.org:8765": slow}
    found = summary(rows(servers=names))
    assert "+7840" in printed(servers_table(found.servers))


def test_one_or_two_blocks_have_no_interval() -> None:
    few = summary(rows((10, 500), blocks=2)).servers[0]
    assert re.search(r"500 +\+245 +- +245", printed(sizes_table(few)))


def test_a_difference_is_told_part_by_part(tmp_path: Path) -> None:
    first, second = (read_run(written(tmp_path / name, rows())) for name in "ab")
    (found,) = compare(first, second)
    text = printed(diff_table(found))
    assert re.search(r"the whole wait .*\+0\.0 +0\.0 to 0\.0 +noise", text)
    assert "LLM first sentence" in text


def test_two_folders_are_compared(tmp_path: Path) -> None:
    folders = [str(written(tmp_path / name, rows(), network=name)) for name in "ab"]
    result = CliRunner().invoke(app, ["exercise", "diff", *folders])
    assert result.exit_code == 0, result.output
    assert "noise." in result.output
    assert "Also different: network: a -> b" in result.output


@pytest.mark.parametrize("text", ["", "20,x", "4", "20,1001", "20;40"])
def test_chunk_sizes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(LabkitError, match="chunks: .* write them as 20,100,500"):
        parse_chunks(text)


def test_chunk_sizes_rise_and_are_said_once() -> None:
    assert parse_chunks("500,20,20") == (20, 500)


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
