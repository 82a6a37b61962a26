"""Turns summed up, by server and size, and in sentences."""

import csv
import json
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest

from labkit.errors import LabkitError
from labkit.measure.chunking import CHUNK_SIZES_MS
from labkit.measure.exercise import read_run
from labkit.measure.exercise_summary import (
    COLUMNS,
    TOO_FEW,
    ExerciseSummary,
    by_server,
    summarise_server,
)
from labkit.measure.results import Results
from labkit.trace import Stage
from tests.measure.samples import FOREIGN, REST, row, rows, side_by_side, summary
from tests.paths import ROOT


def test_the_effect_is_that_of_the_chunk_and_of_nothing_else() -> None:
    sizes = summary().servers[0].sizes
    assert [size.chunk_ms for size in sizes] == list(CHUNK_SIZES_MS)
    assert sizes[0].effect is None
    for size in sizes[1:]:
        assert size.effect is not None
        # One phase of a small chunk scatters by less than the chunk; large ones balance theirs.
        assert size.effect.value == pytest.approx(size.predicted_ms, abs=size.chunk_ms / 4)
        assert size.effect.sample == 8
    largest = sizes[-1].effect
    assert largest is not None
    assert (largest.value, largest.low, largest.high) == pytest.approx((245, 245, 245), abs=0.1)


def test_a_turn_that_the_machine_held_up_does_not_decide() -> None:
    held_up = [
        replace(r, heard_ms=(r.heard_ms or 0) + 2_000 * (r.block == 3 and r.chunk_ms == 500))
        for r in rows()
    ]
    effect = summary(held_up).servers[0].sizes[-1].effect
    assert effect is not None
    assert effect.value == pytest.approx(245, abs=1)


def test_what_follows_the_transcript_is_no_effect_of_the_chunks_and_is_told_beside_it() -> None:
    talkative = [
        replace(r, ttfa_ms=(r.ttfa_ms or 0) + 900 * (r.chunk_ms == 500) * ((r.block or 0) % 2))
        for r in rows()
    ]
    largest = summary(talkative).servers[0].sizes[-1]
    assert largest.effect is not None
    assert largest.longer is not None
    assert (largest.effect.low, largest.effect.high) == pytest.approx((245, 245), abs=0.1)
    assert largest.longer.high > 1_000


def test_a_block_with_a_gap_is_left_out_of_the_size_that_lacks_a_turn() -> None:
    turns = rows()
    gap = next(i for i, r in enumerate(turns) if r.block == 2 and r.chunk_ms == 500)
    turns[gap] = replace(turns[gap], ttfa_ms=None, heard_ms=None, stages={})
    effect = summary(turns).servers[0].sizes[-1].effect
    assert effect is not None
    assert (effect.value, effect.sample) == (pytest.approx(245, abs=1), 7)


def test_parts_add_up_to_the_mean_wait() -> None:
    server = summary().servers[0]
    packetisation = server.middle.stages[Stage.PACKETISATION]
    assert server.middle.chunk_ms == 40
    assert packetisation == pytest.approx(20, abs=3)
    recording = 40 * 3.5  # what the samples add for it, on average
    assert server.wait_ms == pytest.approx(packetisation + sum(REST.values()) + recording)
    assert Stage.PACKETISATION not in server.rest


def test_costs_are_per_second_of_audio() -> None:
    for size in summary().servers[0].sizes:
        assert size.messages_per_s == pytest.approx(1000 / size.chunk_ms, rel=0.04)
        assert size.cpu_ms_per_s == pytest.approx(size.messages_per_s * 0.2)


def test_what_warms_up_does_not_count() -> None:
    assert by_server([row(20, 0.5, block=None)]) == {}
    assert summary().servers[0].turns == 8 * (9 + 3)


def test_the_conclusion_states_what_the_data_state() -> None:
    words = summary().conclusion
    assert "labkit: from 10 to 500 ms chunks" in words
    assert "grew by 245 ms, 95 % interval 245 to 245, 8 blocks" in words
    assert "(half a chunk more predicts 245 ms)" in words
    assert "with 40 ms chunks the largest part of its" in words
    assert "is ASR, " in words


def test_no_trend_is_called_noise() -> None:
    flat = [replace(r, ttfa_ms=100.0 + 10 * (i * 7919 % 13)) for i, r in enumerate(rows())]
    assert "did not change by more than the noise" in summary(flat).conclusion


def test_two_blocks_are_too_few_to_tell() -> None:
    assert TOO_FEW in summary(rows(blocks=2)).conclusion


def test_a_single_size_has_nothing_to_be_compared_with() -> None:
    assert "nothing to be compared with" in summary(rows((40,))).conclusion


@pytest.mark.parametrize(("blocks", "told"), [(8, False), (20, True)])
def test_few_turns_have_no_95th_percentile(blocks: int, told: bool) -> None:
    found = summary(rows(blocks=blocks))
    assert all((size.wait_p95 is not None) is told for size in found.servers[0].sizes)
    words = " ".join(found.sentences())
    assert (f"95th percentiles: {TOO_FEW} (up to 16 a size, 20 are needed)" in words) is not told


def test_nothing_answered() -> None:
    silent = [replace(r, ttfa_ms=None) for r in rows()]
    with pytest.raises(LabkitError, match="no turn was answered.*nothing audible came"):
        summary(silent)
    failed = [replace(r, errors="out of memory") for r in silent]
    with pytest.raises(LabkitError, match="no turn was answered.*the server said: out of memory"):
        summary(failed)


def test_misheard_words_are_counted_by_what_was_meant() -> None:
    heard = [replace(r, said="set fifteen timers", transcript="Set 15 timer.") for r in rows()]
    assert "Words misheard: labkit 33.3 %" in " ".join(summary(heard).sentences())


def test_servers_are_compared_within_the_recordings() -> None:
    found = side_by_side()
    labkit, naive, mine = found.servers
    assert [server.name for server in found.servers] == ["labkit", "naive", "mine"]
    assert labkit.longer is None
    assert naive.longer is not None
    assert naive.longer.value == pytest.approx(sum(REST.values()))
    words = " ".join(found.sentences())
    assert "naive takes 80 ms longer than labkit (median of " in words
    assert "blocks, all chunk sizes; 95 % interval +80 to +80)" in words
    assert "99th percentile of a ping while turns ran: 40.0 ms against 1.0" in words
    assert mine.ping_p99_ms is None


def test_what_a_server_does_not_tell_is_a_part_of_its_own() -> None:
    mine = side_by_side().servers[2]
    assert list(mine.parts) == [Stage.PACKETISATION, Stage.UNTOLD, Stage.LEADING_SILENCE]
    assert mine.sizes[0].cpu_ms_per_s is None
    assert "not told by the server" in " ".join(side_by_side().sentences())


def test_what_some_turns_do_not_tell_counts_as_not_told() -> None:
    told, untold = row(40, 0.5), row(40, 0.5, block=1, rest=FOREIGN)
    parts = summarise_server("mine", [told, untold]).rest
    assert list(parts) == [Stage.UNTOLD, Stage.LEADING_SILENCE]
    assert sum(parts.values()) == pytest.approx((80 + 200) / 2)


def test_a_server_that_answers_nothing_is_told_and_the_others_are_summed_up() -> None:
    measured = rows(servers={"labkit": REST, "mine": FOREIGN})
    dead = [
        replace(r, ttfa_ms=None, stages={}, errors="hung up") if r.server == "mine" else r
        for r in measured
    ]
    found = summary(dead)
    assert [server.name for server in found.servers] == ["labkit"]
    assert "mine answered no turn; the server said: hung up." in found.sentences()


def test_turns_without_an_answer_are_counted() -> None:
    measured = rows()
    measured[-1] = replace(measured[-1], ttfa_ms=None, stages={})
    assert (
        "labkit left 1 of 96 turns without an audible answer; of 1 it is told: nothing audible "
        "came, and no error."
    ) in summary(measured).sentences()


def test_everything_goes_into_json(tmp_path: Path) -> None:
    Results(tmp_path).write_json("summary.json", side_by_side().content())
    read = json.loads((tmp_path / "summary.json").read_text())
    assert [server["name"] for server in read["servers"]] == ["labkit", "naive", "mine"]
    assert read["servers"][0]["sizes"][-1]["effect"]["sample"] == 8
    assert read["servers"][0]["rest"]["uplink"] == 1.0
    assert len(read["conclusion"]) >= 5


def test_the_run_that_the_readme_shows_is_one_of_this_version() -> None:
    folder = ROOT / "data" / "reference"
    with (folder / "turns.csv").open(newline="") as file:
        assert tuple(next(csv.reader(file))) == COLUMNS
    told = json.loads((folder / "summary.json").read_text())["servers"]
    found = ExerciseSummary([*chain(*read_run(folder).servers.values())]).servers
    for (name, server), again in zip(((one["name"], one) for one in told), found, strict=True):
        assert (name, server["asked"]) == (again.name, again.asked)
        for size, computed in zip(server["sizes"], again.sizes, strict=True):
            assert size["turns"] == computed.turns
            assert size["wait"]["value"] == pytest.approx(computed.wait.value, abs=0.001)
            assert size["stages"] == pytest.approx(dict(computed.stages), abs=0.001)
            if computed.effect is not None:
                assert size["effect"]["value"] == pytest.approx(computed.effect.value, abs=0.001)
