"""Turns summed up, by size and in sentences."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from labkit.errors import LabkitError
from labkit.measure.exercise_summary import by_size
from labkit.measure.results import Results
from tests.measure.samples import REST, row, rows, summary


def test_the_summary_follows_the_rows() -> None:
    sizes = by_size(rows())
    assert [s.chunk_ms for s in sizes] == [10, 20, 40, 60, 80, 100, 200, 500]
    for s in sizes:
        assert s.ttfa_p50.value == pytest.approx(s.chunk_ms / 2 + sum(REST.values()))
        assert sum(s.stages.values()) == pytest.approx(s.chunk_ms / 2 + sum(REST.values()))
        assert s.ttfa_p50.sample == 8
        assert s.messages_per_s == pytest.approx(1000 / s.chunk_ms, rel=0.04)


def test_warm_up_and_unanswered_turns_do_not_count() -> None:
    silent = replace(row(20, 0.5), ttfa_ms=None)
    assert by_size([row(20, 0.5, block=None), silent]) == []


def test_the_conclusion_states_what_the_data_state() -> None:
    words = summary().conclusion
    assert "rose from 85 to 330 ms (+245 ms" in words
    assert "half a chunk more predicts 245 ms" in words
    assert "messages fell from 100 to 2 a second" in words
    assert "at 40 ms the largest part of the wait is ASR with 30 %" in words


def test_what_recordings_differ_in_does_not_hide_what_sizes_do() -> None:
    slow = [replace(r, ttfa_ms=(r.ttfa_ms or 0) + 900 * (r.block or 0)) for r in rows()]
    assert "(+245 ms, 95 % interval " in summary(slow).conclusion


def test_no_trend_is_called_noise() -> None:
    flat = [replace(r, ttfa_ms=100.0 + 10 * (i * 7919 % 13)) for i, r in enumerate(rows())]
    assert "did not change by more than the noise" in summary(flat).conclusion


def test_sizes_without_a_recording_in_common_are_not_compared() -> None:
    apart = [replace(r, block=r.chunk_ms) for r in rows((10, 500))[1:]]
    assert "cannot be compared" in summary(apart).conclusion


def test_nothing_answered() -> None:
    silent = [replace(r, ttfa_ms=None) for r in rows()]
    with pytest.raises(LabkitError, match="no turn was answered.*nothing was heard"):
        summary(silent)
    failed = [replace(r, errors="out of memory") for r in silent]
    with pytest.raises(LabkitError, match="no turn was answered.*the server said: out of memory"):
        summary(failed)


def test_misheard_words_are_counted() -> None:
    heard = [replace(r, transcript="set the timer") for r in rows()]
    assert "Words misheard: 33.3 %" in summary(heard).sentences()[1]


def test_the_baseline_is_a_ratio() -> None:
    compared = summary(baseline=True)
    assert compared.ratios() == {"ttfa_p50": 1.0, "ping_p99": 40.0}
    assert "naive server took 1.0 times as long" in compared.sentences()[2]
    assert "99th percentile of ping was 40.0 times as long" in compared.sentences()[2]
    assert summary().ratios() == {}


def test_everything_goes_into_json(tmp_path: Path) -> None:
    Results(tmp_path).write_json("summary.json", summary(baseline=True).content())
    read = json.loads((tmp_path / "summary.json").read_text())
    assert set(read) >= {"conclusion", "word_error_rate", "labkit", "naive"}
    assert read["labkit"][0]["ttfa_p50"]["sample"] == 8
    assert read["labkit"][0]["stages"]["asr"] == 30.0
