"""What an experiment says, in which order, and when."""

from collections import Counter
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.measure.plan import (
    PlannedTurn,
    Script,
    Timetable,
    count_sentences,
    draw_scripts,
    due_times,
    plan_turns,
    prepared,
)
from labkit.measure.recordings import utterances
from tests.paths import SPEECH

SIZES = (10, 40, 250, 500)
TWICE = (10, 250, 500)


def plan(**settings: Any) -> list[PlannedTurn]:
    """The turns that count."""
    told = {"seed": 2, "recordings": 5, "blocks": 4, "servers": ("a",), "chunk_sizes_ms": SIZES}
    return [turn for turn in plan_turns(**{**told, **settings}) if not turn.warmup]


@given(st.integers(0, 1000), st.integers(1, 40), st.integers(1, 6))
def test_a_block_is_one_recording_in_every_size_on_every_server(
    seed: int, recordings: int, blocks: int
) -> None:
    turns = plan(seed=seed, recordings=recordings, blocks=blocks, servers=("a", "b"))
    assert {turn.block for turn in turns} == set(range(blocks))
    for block in range(blocks):
        own = [turn for turn in turns if turn.block == block]
        assert len({turn.recording for turn in own}) == 1
        counts = Counter((turn.server, turn.chunk_ms) for turn in own)
        assert counts == {(s, c): 1 + (c in TWICE) for s in ("a", "b") for c in SIZES}
    recorded = Counter(turn.recording for turn in turns)
    assert set(recorded) <= set(range(recordings))
    assert len(recorded) == min(recordings, blocks)


def test_what_is_said_twice_is_said_as_early_as_late_in_the_chunk() -> None:
    for block in range(4):
        for size in TWICE:
            phases = [t.phase for t in plan() if t.block == block and t.chunk_ms == size]
            assert sum(phases) == pytest.approx(1)


@given(st.integers(0, 100), st.integers(2, 12))
def test_the_phases_of_a_size_cover_the_chunk_evenly(seed: int, blocks: int) -> None:
    turns = plan(seed=seed, blocks=blocks)
    for size in SIZES:
        phases = sorted(turn.phase for turn in turns if turn.chunk_ms == size)
        parts = [int(phase * len(phases)) for phase in phases]
        assert parts == list(range(len(phases)))


def test_the_seed_decides_everything() -> None:
    assert plan(seed=5) == plan(seed=5)
    assert plan(seed=5) != plan(seed=6)


def test_every_block_begins_with_a_turn_to_every_server_that_does_not_count() -> None:
    turns = plan_turns(seed=1, recordings=9, blocks=3, servers=("a", "b"), chunk_sizes_ms=SIZES)
    of_block = [turns[start : start + 16] for start in range(0, len(turns), 16)]
    assert len(of_block) == 3
    for own in of_block:
        assert [turn.server for turn in own[:2]] == ["a", "b"]
        assert [turn.warmup for turn in own] == [True] * 2 + [False] * 14
        assert len({turn.recording for turn in own}) == 1


def test_the_servers_get_the_same_turn_one_after_the_other_in_any_order() -> None:
    turns = plan(servers=("a", "b"))
    pairs = list(zip(turns[::2], turns[1::2], strict=True))
    for first, second in pairs:
        assert {first.server, second.server} == {"a", "b"}
        assert (first.block, first.chunk_ms, first.phase) == (
            second.block,
            second.chunk_ms,
            second.phase,
        )
    assert len({first.server for first, _ in pairs}) == 2


def test_sizes_are_in_another_order_in_every_block() -> None:
    orders = {tuple(turn.chunk_ms for turn in plan() if turn.block == block) for block in range(4)}
    assert len(orders) > 1


@pytest.mark.parametrize(
    "nothing",
    [
        {"recordings": 0},
        {"blocks": 0},
        {"servers": ()},
        {"chunk_sizes_ms": ()},
        {"chunk_sizes_ms": (40, 0)},
    ],
)
def test_nothing_to_run(nothing: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="nothing to run"):
        plan(**nothing)


MS = 1_000_000


def test_only_the_first_recording_is_begun_in_the_middle_and_on_a_chunk() -> None:
    first, second = np.arange(1_600, dtype=np.float32), np.zeros(640, np.float32)
    script = Script(phase_ns=0, skip=0.4, ping_phase_ns=0, order=(0, 1))
    said = list(islice(script.speeches([first, second], 40), 4))
    assert [len(speech) for speech in said] == [960, 640, 1_600, 640]
    assert said[0][0] == 640


@given(st.integers(0, 100), st.integers(1, 30))
def test_callers_are_spread_over_a_chunk_and_their_pings_over_a_second(
    seed: int, callers: int
) -> None:
    scripts = draw_scripts(seed=seed, callers=callers, recordings=5, chunk_ms=40, ping_every_s=1)
    assert len(scripts) == callers
    assert all(0 <= script.phase_ns <= 40 * MS for script in scripts)
    assert all(0 <= script.ping_phase_ns <= 1000 * MS for script in scripts)
    assert all(sorted(script.order) == list(range(5)) for script in scripts)
    assert len({script.phase_ns for script in scripts}) == callers


def test_the_seed_decides_what_callers_do() -> None:
    def drawn(seed: int) -> list[Script]:
        return draw_scripts(seed=seed, callers=3, recordings=9, chunk_ms=40, ping_every_s=1)

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_pings_are_due_at_a_steady_rate_whatever_happens() -> None:
    assert list(due_times(100, 1e-7, 350)) == [100, 200, 300]
    assert list(due_times(400, 1e-7, 350)) == []


def test_who_is_answered_in_time_is_never_behind() -> None:
    timetable = Timetable(due_ns=0, pause_ns=1_000)
    for answered in (2_100, 5_900):
        timetable.said(2_000)
        begin = timetable.free(answered)
        assert timetable.behind_ns == 0
        assert begin == timetable.due_ns
    assert timetable.due_ns == 6_000


def test_late_answers_add_up_and_quick_ones_catch_up() -> None:
    timetable = Timetable(due_ns=0, pause_ns=1_000)
    timetable.said(2_000)
    begin = timetable.free(2_000 + 1_500)
    assert (begin, timetable.behind_ns) == (3_500, 500)
    timetable.said(2_000)
    begin = timetable.free(begin + 2_000 + 1_500)
    assert (begin, timetable.behind_ns) == (7_000, 1_000)
    timetable.said(2_000)
    begin = timetable.free(begin + 2_000)
    assert (begin, timetable.behind_ns) == (9_000, 0)


@given(st.lists(st.tuples(st.integers(1, 5_000), st.integers(0, 5_000)), min_size=1))
def test_behind_is_how_late_the_next_utterance_begins(turns: list[tuple[int, int]]) -> None:
    timetable = Timetable(due_ns=0, pause_ns=1_000)
    begin = 0
    for length, wait in turns:
        timetable.said(length)
        begin = timetable.free(begin + length + wait)
        assert timetable.behind_ns == begin - timetable.due_ns


@pytest.mark.parametrize("phase", [0.0, 0.3, 0.5, 0.999])
@pytest.mark.parametrize("chunk_ms", [10, 32, 500])
def test_the_speech_ends_where_it_is_planned_to(phase: float, chunk_ms: int) -> None:
    recording = utterances(SPEECH)[0]
    samples, end = prepared(recording, PlannedTurn("labkit", 0, chunk_ms, phase, 0))
    assert end % (16 * chunk_ms) == int(phase * 16 * chunk_ms)
    assert end < len(samples)


def test_sentences_are_counted_by_their_ends() -> None:
    assert count_sentences("One. Two! Is 3.5 three? Four") == 3
