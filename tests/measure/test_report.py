"""The table's numbers and the sentences, computed from the data."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from labkit.errors import LabkitError
from labkit.measure.report import ratios, report, sentences, write_report, write_turns
from tests.measure.samples import exercise


def test_the_conclusion_states_what_the_data_state() -> None:
    words = report(exercise()).conclusion
    assert "rose from 85 to 330 ms" in words
    assert "half a chunk more predicts 245 ms" in words
    assert "messages fell from 100 to 2 a second" in words
    assert "at 40 ms the largest part of the wait is asr with 30 %" in words


def test_no_trend_is_called_noise() -> None:
    flat = exercise()
    flat.rows = [replace(r, ttfa_ms=100.0 + 10 * (i * 7919 % 13)) for i, r in enumerate(flat.rows)]
    assert "did not change by more than the noise" in report(flat).conclusion


def test_nothing_answered() -> None:
    silent = exercise()
    silent.rows = [replace(r, ttfa_ms=None) for r in silent.rows]
    with pytest.raises(LabkitError, match="no turn was answered.*nothing was heard"):
        report(silent)
    silent.rows = [replace(r, errors="out of memory") for r in silent.rows]
    with pytest.raises(LabkitError, match="no turn was answered.*the server said: out of memory"):
        report(silent)


def test_misheard_words_are_counted() -> None:
    heard = exercise()
    heard.rows = [replace(r, transcript="set the timer") for r in heard.rows]
    assert "Words misheard: 33.3 %" in sentences(report(heard))[1]


def test_the_baseline_is_a_ratio() -> None:
    summed = report(exercise(baseline=True))
    assert ratios(summed) == {"ttfa_p50": 1.0, "ping_p99": 40.0}
    assert "naive server took 1.0 times as long" in sentences(summed)[2]
    assert ratios(report(exercise())) == {}


def test_what_is_written(tmp_path: Path) -> None:
    measured = exercise(baseline=True)
    write_turns(measured, tmp_path / "deep" / "folder")
    write_report(report(measured), tmp_path / "deep" / "folder")
    summary = json.loads((tmp_path / "deep" / "folder" / "summary.json").read_text())
    assert set(summary) >= {"about", "conclusion", "word_error_rate", "labkit", "naive"}
    assert (tmp_path / "deep" / "folder" / "turns.csv").stat().st_size > 1000
