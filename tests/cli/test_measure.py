"""The commands that measure: their tables, their errors, and a short real run."""

import errno
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from labkit.cli.measure import carry_out, costs_table, lines_table, parse_levels, waits_table
from labkit.errors import InstrumentError, LabkitError
from labkit.measure.bench_rows import MEASURES
from labkit.measure.endpointing import Decision, EndpointingExperiment, EndpointingSummary
from labkit.measure.results import Tell
from labkit.voice.scripted import ScriptedAsr
from tests.cli.commands import Labkit, printed
from tests.measure.load_samples import UNKNOWN, level, run, spread


def test_each_policy_is_a_row_and_what_it_does_not_reach_is_a_dash() -> None:
    summary = EndpointingSummary(
        [
            Decision("fixed", 0.5, 0, 0, cut_off=True, dead_air_s=0.5),
            Decision("adaptive", 1.3, 0, 0, cut_off=False, dead_air_s=0.4),
        ]
    )
    columns = [list(column.cells) for column in lines_table(summary).columns]
    assert columns == [["fixed", "adaptive"], ["-", "400"], ["-", "400"], ["-", "-"], ["100", "0"]]


def test_the_tables_fit_into_80_columns() -> None:
    assert "75 150 180" in printed(waits_table(run()))
    printed(costs_table(run()))


def test_the_ratio_stands_in_the_row_of_labkit() -> None:
    rows = [line.split() for line in printed(costs_table(run()[:2])).splitlines()]
    assert [row for row in rows if "labkit" in row][0][-2:] == ["2.00", "2.00"]
    assert "2.00" not in [row for row in rows if "bare" in row][0][-1]


def test_what_the_system_does_not_tell_is_called_unavailable() -> None:
    assert "-: unavailable" in printed(costs_table([level(**UNKNOWN)]))
    assert "unavailable" not in printed(costs_table([level()]))


def test_a_level_that_the_callers_limited_is_marked() -> None:
    marked = printed(waits_table([level(lateness_ms=spread(20))]))
    assert "20 !" in marked
    assert "generator-limited" in marked
    assert "generator-limited" not in printed(waits_table(run()))


def test_nothing_measured_is_a_dash() -> None:
    empty = level(turn_ms=None, ping_ms=None, lateness_ms=None)
    assert printed(waits_table([empty])).split().count("-") == 3


def test_errors_are_listed_by_code() -> None:
    assert "closed_1011 2" in printed(costs_table([level(errors={"closed_1011": 2})]), 120)


@pytest.mark.parametrize(("text", "levels"), [("1", (1,)), ("1,8, 16", (1, 8, 16))])
def test_levels_are_rising_numbers(text: str, levels: tuple[int, ...]) -> None:
    assert parse_levels(text) == levels


@pytest.mark.parametrize("text", ["", "1,", "8,1", "2,2", "0,1", "-1", "a", "1.5", "1,1001"])
def test_other_levels_are_refused_with_their_name_and_value(text: str) -> None:
    with pytest.raises(LabkitError, match=r"^sessions: ") as caught:
        parse_levels(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--sessions", "8,1", "sessions: '8,1' is no list of rising whole numbers"),
        ("--url", "ws://127.0.0.1:1", "no voice server answers at ws://127.0.0.1:1"),
    ],
)
def test_what_is_wrong_is_one_line(
    labkit: Labkit, option: str, value: str, said: str, tmp_path: Path
) -> None:
    done = labkit("load", option, value, "--out", str(tmp_path))
    assert done.code == 1
    assert f"error: {said}" in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_short_run_writes_raw_data_summary_and_figure(labkit: Labkit, tmp_path: Path) -> None:
    done = labkit("load", "--sessions", "2", "--seconds", "2", "--out", str(tmp_path))
    assert done.code == 0
    (folder,) = tmp_path.iterdir()
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["capacity.png", "capacity.svg", "load.csv", "load.json"]
    assert "What callers waited" in done.out
    assert "What it cost the server" in done.out
    assert "under 100 ms" in " ".join(done.out.split())


def test_what_others_are_called_and_say_is_printed_as_it_is() -> None:
    table = waits_table([level(server="[fd00::1]:8765"), level(server="[/x]")])
    assert "[fd00::1]:8765" in printed(table, 120)
    assert "[/x] 2" in printed(costs_table([level(errors={"[/x]": 2})]), 120)


class Decided(EndpointingExperiment):
    """One decision, without any turns."""

    async def run(self, record: Callable[[Decision], None], tell: Tell) -> None:
        record(Decision("mine", 0.5, 0, 0, cut_off=False, dead_air_s=0.5))


def test_the_sentences_of_a_summary_are_printed_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(rows: Sequence[Decision]) -> EndpointingSummary:
        summary = EndpointingSummary(rows)
        summary.lines[0] = replace(summary.lines[0], policy="[/b]")
        return summary

    monkeypatch.setattr(Decided, "summarise", lambda _, rows: told(rows))
    carry_out(Decided(ScriptedAsr(str), models="none"), tmp_path, lambda summed: [])
    assert "[/b]: 500 ms of dead air" in capsys.readouterr().out


def test_where_the_rows_will_be_is_told_before_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def killed(*_: object) -> None:
        told.append(capsys.readouterr().err)

    told: list[str] = []
    monkeypatch.setattr(Decided, "run", killed)
    with pytest.raises(InstrumentError, match="no turn was judged"):
        carry_out(Decided(ScriptedAsr(str), models="none"), tmp_path, lambda summed: [])
    assert told[0].startswith(f"what is measured goes to {tmp_path}/")


def test_what_was_found_is_told_although_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def half(path: Path, text: str, **_: object) -> None:
        path.write_bytes(text.encode()[:20])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(InstrumentError, match=r"summary.json cannot be written: No space left"):
        carry_out(Decided(ScriptedAsr(str), models="none"), tmp_path, lambda summed: [])
    assert "mine: 500 ms of dead air" in capsys.readouterr().out
    assert [path.name for path in tmp_path.glob("*/*")] == ["decisions.csv"]


def test_the_help_of_the_bench_names_every_row_that_is_measured(labkit: Labkit) -> None:
    told = set(re.findall(r"[a-z-]+", labkit("bench", "--help").out))
    assert {row for rows, _ in MEASURES for row in rows} <= told
