"""Levels summed up, compared and told in words."""

import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from labkit.measure.load_summary import (
    BARE,
    COLUMNS,
    LATENESS_BOUND_MS,
    CallLog,
    Level,
    LoadSummary,
    ratios,
    summarise_level,
)
from labkit.measure.results import Results
from tests.measure.load_samples import UNKNOWN, level, run, spread

MS = 1_000_000


def conclusion(levels: list[Level], bound_ms: float) -> str:
    return LoadSummary(levels, bound_ms).conclusion()


def sentences(levels: list[Level], bound_ms: float) -> list[str]:
    return LoadSummary(levels, bound_ms).sentences()


def logs() -> list[CallLog]:
    answered = CallLog(turns_ns=[20 * MS, 40 * MS], pings_ns=[MS], lateness_ns=[MS, MS])
    lost = CallLog(
        turns_lost=1,
        pings_lost=1,
        behind_ns=3 * 10**9,
        errors=Counter({"engine_failed": 1}),
    )
    return [answered, lost, CallLog(refused=True)]


def summed(logs: list[CallLog]) -> Level:
    return summarise_level(server="labkit", seconds=5, patience_s=10, logs=logs)


def test_a_level_sums_up_what_its_callers_noted() -> None:
    found = summed(logs())
    assert (found.sessions, found.refused, found.turns, found.lost) == (3, 1, 2, 1)
    assert (found.pings_lost, found.errors) == (1, {"engine_failed": 1})
    assert found.behind_s == 3.0
    assert found.turn_ms is not None
    assert (found.turn_ms.p50, found.turn_ms.sample) == (40, 3)
    assert found.turn_ms.p95 > 9_000  # the lost turn counts with the patience


def test_nobody_is_a_level_too() -> None:
    found = summed([CallLog(refused=True)] * 3)
    assert (found.sessions, found.refused, found.behind_s) == (3, 3, 0)
    assert (found.turn_ms, found.ping_ms, found.cpu_ms_per_session) == (None, None, None)
    assert not found.generator_limited


@pytest.mark.parametrize(
    ("late_ms", "limited"), [(LATENESS_BOUND_MS, False), (LATENESS_BOUND_MS + 0.1, True)]
)
def test_late_callers_mark_their_level(late_ms: float, limited: bool) -> None:
    assert level(lateness_ms=spread(late_ms)).generator_limited is limited


def test_cpu_is_shared_by_those_who_were_taken() -> None:
    assert level(sessions=10, refused=2, cpu_per_s=0.4).cpu_ms_per_session == 50


def test_the_conclusion_names_the_last_level_that_held_and_the_first_that_did_not() -> None:
    assert conclusion(run(), 100) == (
        "labkit kept the 95th percentile of the wait for the reply under 100 ms up to 8 sessions "
        "(10.0 ms there); with 32 sessions it was 150 ms."
    )
    assert conclusion(run(), 200).endswith(
        "under 200 ms up to 32 sessions (150.0 ms there), the most that were tried."
    )
    assert conclusion(run(), 5) == (
        "labkit did not keep the 95th percentile of the wait for the reply under 5 ms at any "
        "level: with 1 session it was 5 ms."
    )


def test_a_level_that_held_after_one_that_did_not_is_no_capacity() -> None:
    assert "up to 1 session (5.0 ms there)" in conclusion(run(p95=(5.0, 150.0, 10.0)), 100)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"lateness_ms": spread(20)}, "with 8 sessions the callers themselves were too late"),
        ({"lateness_ms": spread(20), "turn_ms": spread(119)}, "the callers themselves were too"),
        ({"lateness_ms": spread(20), "turn_ms": spread(121)}, "with 8 sessions it was 121 ms."),
        ({"refused": 3}, "with 8 sessions 3 of 8 callers were refused"),
        ({"lost": 2, "turns": 4}, "with 8 sessions 2 of 6 turns were lost"),
        ({"turn_ms": None}, "with 8 sessions no turn was asked for"),
        ({"silent": 24}, "with 8 sessions no answer had anything to hear"),
    ],
)
def test_the_conclusion_says_what_kept_a_level_from_holding(
    fault: dict[str, object], words: str
) -> None:
    assert words in conclusion([level(sessions=1), level(sessions=8, **fault)], 100)


def test_answers_that_nobody_hears_are_counted_but_of_a_server_that_never_speaks() -> None:
    levels = [level(silent=3), level(BARE, silent=24)]
    told = "Answers with nothing to hear, which wait for none: 3 of 24 with 8 sessions."
    assert LoadSummary(levels, 100).sentences()[-1] == told


def test_ratios_are_over_the_bare_server_at_the_same_level() -> None:
    assert [(r.sessions, r.ping_p95, r.cpu) for r in ratios(run())] == [
        (1, 2.0, 2.0),
        (8, 2.0, 2.0),
        (32, 2.0, 2.0),
    ]
    assert ratios([level()]) == []
    assert ratios([level(), level(BARE, 16)]) == []


def test_cpu_that_is_not_known_has_no_ratio() -> None:
    (ratio,) = ratios([level(**UNKNOWN), level(BARE, **UNKNOWN)])
    assert ratio.cpu is None
    assert "CPU" not in sentences([level(**UNKNOWN), level(BARE)], 100)[1]


def test_a_ratio_within_the_noise_is_called_so() -> None:
    pair = [level(p95=10.0), level(BARE, p95=9.5)]
    assert "1.05 times as long" in sentences(pair, 100)[1]
    assert "no more than the noise" in sentences(pair, 100)[1]
    assert "noise" not in sentences(run(), 100)[1]


@pytest.mark.parametrize(("late_ms", "clear"), [(0.7, True), (0.8, False)])
def test_a_difference_below_the_callers_lateness_is_noise(late_ms: float, clear: bool) -> None:
    pair = [level(p95=10.0, lateness_ms=spread(late_ms)), level(BARE, p95=5.5)]
    (ratio,) = ratios(pair)  # intervals from 2.25 and up to 1.51 ms
    assert ratio.clear is clear


def test_the_ratio_of_a_level_that_the_callers_limited_is_not_stated() -> None:
    late = level(sessions=32, lateness_ms=spread(20))
    found = sentences([*run()[:4], late, level(BARE, 32)], 100)
    assert found[1].startswith("With 8 sessions its ping took 2.00 times as long")


def test_tokens_are_told_where_the_server_tells_them() -> None:
    levels = [level(sessions=1, tokens_per_s=12.34), level(sessions=4, tokens_per_s=30.0)]
    told = LoadSummary([*levels, level(sessions=8)], 100).sentences()
    assert told[-1] == (
        "Tokens of replies served per second: 12.3 with 1 session, 30.0 with 4 sessions."
    )
    assert "Tokens" not in " ".join(LoadSummary([level()], 100).sentences())


def test_few_turns_are_told_to_be_few() -> None:
    few = sentences([level(sessions=1), level(sessions=2), level(sessions=8)], 100)
    assert "Fewer than 20 turns were asked for with 1, 2 sessions: a 95th" in few[1]
    assert "Fewer" not in " ".join(sentences([level(sessions=8), level(turn_ms=None)], 100))


def test_the_file_has_a_row_per_level_and_server(tmp_path: Path) -> None:
    levels = [*run(), level(errors={"closed_1011": 2, "engine_failed": 1}, turn_ms=None)]
    with Results(tmp_path).rows("load.csv", COLUMNS) as write:
        for one in levels:
            write(one.columns())
    with (tmp_path / "load.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["server"], row["sessions"]) for row in rows[:3]] == [
        ("labkit", "1"),
        ("bare", "1"),
        ("labkit", "8"),
    ]
    assert (rows[0]["turn_p95_ms"], rows[0]["rss_peak"]) == ("5.0", "60000000")
    assert (rows[0]["cpu_per_s"], rows[0]["generator_limited"]) == ("0.004", "0")
    assert rows[1]["rss_peak"] == ""
    assert (rows[-1]["errors"], rows[-1]["turn_p95_ms"]) == ("closed_1011: 2; engine_failed: 1", "")


def test_everything_goes_into_json(tmp_path: Path) -> None:
    Results(tmp_path).write_json("l.json", LoadSummary(run(), 100).content())
    read = json.loads((tmp_path / "l.json").read_text())["levels"][0]
    assert read["turn_ms"]["p95"] == 5.0
    assert read["rss_peak"] == 60_000_000
    assert (read["generator_limited"], read["cpu_ms_per_session"]) == (False, 4.0)
