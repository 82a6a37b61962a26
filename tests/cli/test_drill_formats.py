"""The command `labkit drill formats`: what it prints, and when it fails."""

import pytest
from typer.testing import CliRunner

from labkit.cli.app import app
from labkit.drills import formats
from labkit.drills.formats import FalseAlarms, Outcome
from labkit.errors import ErrorCode


def run(monkeypatch: pytest.MonkeyPatch, *, named: int, alarms: list[str]) -> tuple[int, list[str]]:
    outcomes = [
        Outcome(sent="floats", declared="pcm_s16le", kinds=(ErrorCode.LOOKS_LIKE_FLOAT32,),
                streams=10, after_s=[0.5] * 10, named=named),
        Outcome(sent="swapped", declared="pcm_s16le", kinds=(),
                streams=10, after_s=[], named=0),
    ]  # fmt: skip
    monkeypatch.setattr(formats, "measure", lambda _: outcomes)
    monkeypatch.setattr(formats, "false_alarms", lambda _: FalseAlarms(30, alarms))
    monkeypatch.setenv("COLUMNS", "80")
    result = CliRunner().invoke(app, ["drill", "formats", "--quick"])
    return result.exit_code, result.output.splitlines()


def test_all_bars_held_is_success(monkeypatch: pytest.MonkeyPatch) -> None:
    code, lines = run(monkeypatch, named=10, alarms=[])
    assert code == 0
    row = next(line for line in lines if "floats" in line)
    assert row.split() == [
        "floats", "pcm_s16le", "looks_like_float32", "100", "100", "0.50", "10", "yes",
    ]  # fmt: skip
    assert all(len(line) <= 80 for line in lines)
    assert any("cannot be told" in line for line in lines)
    assert lines[-1] == "0 false alarms over 30 streams, at most 0"


def test_a_wrong_name_is_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, named=9, alarms=[])[0] == 1


def test_a_false_alarm_is_failure_and_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    code, lines = run(monkeypatch, named=10, alarms=["speech [b]: wrong"])
    assert code == 1
    assert "false alarm: speech [b]: wrong" in lines
