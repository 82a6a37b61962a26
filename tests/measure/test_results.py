"""Rows, their file, and their summary."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from labkit.client.plain import ClientTurn
from labkit.measure.plan import PlannedTurn
from labkit.measure.recordings import load_manifest
from labkit.measure.results import overhead_bytes, row_of, summarise, write_csv, write_json
from labkit.trace import Mark, Stage, Trace
from tests.measure.samples import REST, exercise, row
from tests.paths import SPEECH


@pytest.mark.parametrize(
    ("chunk_ms", "per_message"),
    [(10, 8 + 52), (40, 8 + 52), (60, 8 + 2 * 52), (500, 8 + 12 * 52)],
)
def test_overhead_counts_frames_and_segments(chunk_ms: int, per_message: int) -> None:
    messages = 1000 // chunk_ms
    assert overhead_bytes(messages * chunk_ms * 32, messages) == messages * per_message
    assert overhead_bytes(0, 0) == 0


def test_small_and_large_frames_have_other_headers() -> None:
    assert overhead_bytes(100, 1) == 6 + 52
    assert overhead_bytes(70_000, 1) == 14 + 49 * 52


def test_a_turn_becomes_a_row() -> None:
    recording = load_manifest(SPEECH)[0]
    marks = {
        Mark.STREAM_STARTED: 1_000_000_000,
        Mark.END_OF_SPEECH: 1_500_000_000,
        Mark.END_STREAM_SENT: 1_520_000_000,
        Mark.FIRST_AUDIO_RECEIVED: 1_600_000_000,
        Mark.FIRST_AUDIO_HEARD: 1_630_000_000,
    }
    turn = ClientTurn("hi", "Hi!", np.zeros(8000, np.float32), Trace(dict(marks)), 25, 32_000, 1.5)
    made = row_of(PlannedTurn("labkit", 0, 20, 0.3, False), recording, turn)
    assert (made.ttfb_ms, made.ttfa_ms) == (100.0, 130.0)
    assert made.stages == {Stage.PACKETISATION: 20.0, Stage.LEADING_SILENCE: 30.0}
    assert made.marks[Mark.END_OF_SPEECH] == 500.0
    assert (made.reply_seconds, made.audio_seconds, made.messages) == (0.5, 1.0, 25)
    assert (made.utterance, made.said) == (recording.path.name, recording.text)


def test_the_file_has_a_row_per_turn_and_a_column_per_mark(tmp_path: Path) -> None:
    rows = exercise().rows
    write_csv(tmp_path / "turns.csv", rows)
    with (tmp_path / "turns.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert len(read) == len(rows)
    head = "utterance,voice,chunk_ms,warmup,transcript,reply_text,reply_seconds,ttfa_ms"
    assert list(read[0])[:8] == head.split(",")
    assert {f"mark_{mark.value}_ms" for mark in Mark} <= set(read[0])
    assert [r["warmup"] for r in read[:2]] == ["1", "0"]
    for r in read:
        parts = sum(float(r[f"stage_{stage.value}_ms"]) for stage in Stage)
        assert parts == pytest.approx(float(r["ttfa_ms"]), abs=0.01)


def test_the_summary_follows_the_rows() -> None:
    sizes = summarise(exercise().rows)
    assert [s.chunk_ms for s in sizes] == [10, 20, 40, 60, 80, 100, 200, 500]
    for s in sizes:
        assert s.ttfa_p50.value == pytest.approx(s.chunk_ms / 2 + sum(REST.values()))
        assert sum(s.stages.values()) == pytest.approx(s.chunk_ms / 2 + sum(REST.values()))
        assert s.ttfa_p50.sample == 8
        assert s.messages_per_s == pytest.approx(1000 / s.chunk_ms, rel=0.04)


def test_warm_up_and_unanswered_turns_do_not_count() -> None:
    rows = [row(20, 0.5, warmup=True)]
    assert summarise(rows) == []


def test_summaries_go_into_json(tmp_path: Path) -> None:
    write_json(tmp_path / "s.json", {"sizes": summarise(exercise().rows)})
    read = json.loads((tmp_path / "s.json").read_text())
    assert read["sizes"][0]["ttfa_p50"]["sample"] == 8
    assert read["sizes"][0]["stages"]["asr"] == 30.0
