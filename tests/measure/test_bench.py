"""Bars, and what becomes of them."""

import asyncio
import csv
import json
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from labkit.cli.measure import findings_table
from labkit.client.turn import ClientTurn
from labkit.errors import ClientError, InstrumentError, LabkitError
from labkit.measure import bench_rows
from labkit.measure.bench import (
    Bar,
    Bench,
    BenchSummary,
    Finding,
    Reading,
    Verdict,
    bars,
)
from labkit.measure.bench_rows import (
    MEASURES,
    _half,
    _note_decided,
    _read_ahead,
    _read_pings,
    _tail,
    _Turns,
    believed,
)
from labkit.measure.decided import CUT_OFF
from labkit.measure.load_summary import Level
from labkit.measure.results import Results, Tell, conduct
from labkit.measure.server_process import RunningServer
from labkit.measure.statistics import Estimate
from labkit.trace import Mark, Trace
from tests.measure.load_samples import level

NUMBERS = st.floats(0.01, 1000)
Sense = Literal["≤", "<", "≥"]
SENSES: Sequence[Sense] = ("≤", "<", "≥")


def estimate(value: float) -> Estimate:
    return Estimate(value, value * 0.9, value * 1.1, 20)


@given(NUMBERS, NUMBERS, st.sampled_from(SENSES))
def test_a_bar_holds_on_one_side_of_its_bound(bound: float, value: float, sense: Sense) -> None:
    bar = Bar("row", "figure", bound, sense=sense)
    assert bar.holds(value) == {"≤": value <= bound, "<": value < bound, "≥": value >= bound}[sense]
    verdict = Finding("name", bar, Reading(estimate(value))).verdict
    assert verdict is (Verdict.HOLDS if bar.holds(value) else Verdict.SHORT)


@pytest.mark.parametrize("models", ["embedded", "tiny"])
def test_no_verdict_of_a_bar_is_certain_beforehand(models: str) -> None:
    for name, bar in bars(models).items():
        if bar.bound is None:
            assert Finding(name, bar, Reading(estimate(1))).verdict is Verdict.STATED
        else:
            verdicts = {
                Finding(name, bar, Reading(estimate(bar.bound + off))).verdict
                for off in (-1e-6, 1e-6)
            }
            assert verdicts == {Verdict.HOLDS, Verdict.SHORT}, name


def test_what_was_not_measured_holds_nothing_even_with_a_value() -> None:
    bar = Bar("row", "figure", 5.0)
    assert Finding("name", bar, Reading(why="too few")).verdict is Verdict.NOT_MEASURED
    assert Finding("name", bar, Reading(estimate(1), "too few")).verdict is Verdict.NOT_MEASURED


def test_every_row_is_measured() -> None:
    rows = {bar.row for bar in bars("tiny").values()}
    assert frozenset[str]().union(*(names for names, _ in MEASURES)) == rows


async def fake(bench: Bench, tell: Tell) -> Mapping[str, Reading]:
    return {"idle": Reading(estimate(12)), "active": Reading(estimate(80))}


def test_a_run_from_rows_to_files(tmp_path: Path) -> None:
    bench = Bench(measures=[(frozenset({"memory"}), fake)], only=["memory", "naive"])
    summary = asyncio.run(conduct(bench, Results(tmp_path)))
    verdicts = [one.verdict for one in summary.findings]
    assert verdicts == [Verdict.NOT_MEASURED, Verdict.HOLDS, Verdict.STATED]
    told = " ".join(summary.sentences())
    assert "1 holds, 1 stated, 1 not measured." in told
    assert "naive: not measured, nothing measured it." in told
    with (tmp_path / "bench.csv").open(newline="") as file:
        assert [row["verdict"] for row in csv.DictReader(file)] == [
            "holds",
            "stated",
            "not measured",
        ]
    (_, idle, _) = json.loads((tmp_path / "bench.json").read_text())["findings"]
    assert idle["value"] == 12
    assert idle["bar"]["bound"] == 64


def test_a_server_that_fails_one_row_leaves_the_others(tmp_path: Path) -> None:
    async def failing(bench: Bench, tell: Tell) -> Mapping[str, Reading]:
        raise ClientError("no transcript came")

    rows = (frozenset({"naive"}), failing), (frozenset({"memory"}), fake)
    summary = asyncio.run(
        conduct(Bench(measures=rows, only=["naive", "memory"]), Results(tmp_path))
    )
    verdicts = [(one.name, one.verdict.value) for one in summary.findings]
    assert verdicts == [("naive", "not measured"), ("idle", "holds"), ("active", "stated")]
    assert "naive: not measured, no transcript came." in summary.sentences()


def test_an_unknown_row_is_refused_with_those_there_are() -> None:
    with pytest.raises(LabkitError, match=r"no row 'speed'; rows: decided, .*memory"):
        Bench(only=["speed"])


def test_the_table_fits_into_80_columns() -> None:
    findings = [
        Finding(name, bar, Reading(estimate(987.654), "so" if number % 3 else ""))
        for number, (name, bar) in enumerate(bars("tiny").items())
    ]
    written = StringIO()
    Console(width=80, file=written).print(findings_table(BenchSummary(findings)))
    text = written.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text


def test_a_turn_whose_parts_are_not_possible_ends_the_run() -> None:
    stale = Trace({Mark.END_OF_SPEECH: 5_000_000_000, Mark.END_STREAM_RECEIVED: 1_000_000_000})
    with pytest.raises(InstrumentError, match="cannot be believed: dead air takes -4000.0 ms"):
        believed(ClientTurn(trace=stale))


def test_the_wait_of_the_endpointer_is_taken_off_and_cut_off_turns_are_only_counted() -> None:
    found = _Turns()
    ms = 1_000_000
    trace = Trace(
        {
            Mark.STREAM_STARTED: 0,
            Mark.END_OF_SPEECH: 1000 * ms,
            Mark.FIRST_AUDIO_RECEIVED: 1600 * ms,
            Mark.FIRST_AUDIO_HEARD: 1620 * ms,
        }
    )
    _note_decided(found, ClientTurn(trace=trace), 1.5, 0.4)
    _note_decided(found, ClientTurn(trace=trace, remarks=[CUT_OFF]), 1.5, 0.4)
    _note_decided(found, ClientTurn(trace=Trace()), 1.5, 0.4)
    assert found.over_floor == pytest.approx([0.25])
    assert (found.audible_ms, found.dead_air_ms) == ([620], [500])
    assert (found.cut_off, found.silent) == (1, 1)
    with pytest.raises(InstrumentError, match="before anybody could know"):
        _note_decided(found, ClientTurn(trace=trace), 1.7, 0.4)


def test_few_pings_tell_no_99th_percentile() -> None:
    few, many = [1.0, 2.0] * 49, [1.0, 2.0] * 50
    assert {bool(one.why) for one in _read_pings(few, many).values()} == {True}
    found = _read_pings([20.0] * 100, many)
    assert found["ping"] == Reading(Estimate.exact(10.0, 100))
    assert found["ping p99"] == Reading(Estimate.exact(2.0, 100))


def test_two_turns_tell_nothing_and_a_95th_percentile_says_how_far_it_is_bounded() -> None:
    assert _half([1.0, 1.0]) == Reading(why="2 turns were answered, and 3 are needed")
    assert _half([1.0] * 3).value == Estimate(1.0, 1.0, 1.0, 3)
    assert "largest of 71 values" in _tail([1.0] * 71).note
    assert _tail([1.0] * 72).note == ""


def test_a_server_that_works_nothing_ahead_wastes_nothing_and_holds_nothing() -> None:
    told = _read_ahead([0.0, 0.0], 0, [1.0, 1.0], [1.0, 1.0])
    assert {one.why for one in told.values()} == {"nothing that was done ahead was of use"}
    told = _read_ahead([1.0, 0.0], 2, [1.5, 1.5], [1.0, 1.0])
    assert {name: one.value and one.value.value for name, one in told.items()} == {
        "ahead calls": 0.5,
        "ahead cpu": 1.5,
    }


async def test_callers_who_are_not_answered_hear_no_gap_and_nothing_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def none(_: RunningServer) -> int:
        return 0

    async def unanswered(*_: object, **__: object) -> Level:
        return level(sessions=8, turns=20, lost=4)

    monkeypatch.setattr(bench_rows, "_underruns", none)
    monkeypatch.setattr(bench_rows, "run_level", unanswered)
    found = await bench_rows._eight(Bench(), lambda *_: None, RunningServer("ws://localhost"))
    assert found["eight underruns"].why == "not every turn was answered"


@pytest.mark.engines
def test_the_command_with_the_real_engines(tmp_path: Path) -> None:
    bench = Bench(measures=MEASURES, only=["memory"], quick=True)
    summary = asyncio.run(conduct(bench, Results(tmp_path)))
    assert [one.name for one in summary.findings] == ["idle", "active"]
    for one in summary.findings:
        assert one.reading.value is not None
        # What the allocator keeps of a message differs from one machine to the next.
        assert 0 < one.reading.value.value < {"idle": 250, "active": 1024}[one.name]
