"""The plan of an exercise."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.measure.plan import CHUNK_SIZES_MS, plan


@given(st.integers(0, 1000), st.integers(1, 40), st.integers(1, 6))
def test_every_size_is_run_equally_often_on_every_server(
    seed: int, recordings: int, repeats: int
) -> None:
    turns = plan(seed=seed, recordings=recordings, repeats=repeats, servers=("a", "b"))
    counted = [turn for turn in turns if not turn.warmup]
    counts = Counter((turn.server, turn.chunk_ms) for turn in counted)
    assert counts == {(s, c): repeats for s in ("a", "b") for c in CHUNK_SIZES_MS}
    assert all(0 <= turn.recording < recordings for turn in turns)
    uses = Counter(turn.recording for turn in counted if turn.server == "a")
    assert max(uses.values()) - min(uses.values()) <= 1 or len(uses) < recordings


def test_the_seed_decides_everything() -> None:
    assert plan(seed=5, recordings=9, repeats=3) == plan(seed=5, recordings=9, repeats=3)
    assert plan(seed=5, recordings=9, repeats=3) != plan(seed=6, recordings=9, repeats=3)


def test_warm_ups_come_first() -> None:
    warmups = [turn.warmup for turn in plan(seed=1, recordings=3, repeats=1, warmups=3)]
    assert warmups == [True] * 3 + [False] * len(CHUNK_SIZES_MS)


def test_the_phases_of_a_size_cover_the_chunk_evenly() -> None:
    turns = [t for t in plan(seed=2, recordings=5, repeats=10) if not t.warmup]
    for size in CHUNK_SIZES_MS:
        phases = sorted(t.phase for t in turns if t.chunk_ms == size)
        assert [int(phase * 10) for phase in phases] == list(range(10))


def test_both_servers_get_the_same_turn_one_after_the_other() -> None:
    turns = [t for t in plan(seed=3, recordings=5, repeats=2, servers=("a", "b")) if not t.warmup]
    for first, second in zip(turns[::2], turns[1::2], strict=True):
        assert {first.server, second.server} == {"a", "b"}
        assert (first.recording, first.phase) == (second.recording, second.phase)


def test_sizes_are_not_always_in_the_same_order() -> None:
    turns = [t.chunk_ms for t in plan(seed=4, recordings=5, repeats=4) if not t.warmup]
    rounds = {tuple(turns[i : i + 8]) for i in range(0, 32, 8)}
    assert len(rounds) > 1


@pytest.mark.parametrize(("recordings", "repeats"), [(0, 3), (3, 0)])
def test_nothing_to_run(recordings: int, repeats: int) -> None:
    with pytest.raises(ValueError, match="nothing to run"):
        plan(seed=1, recordings=recordings, repeats=repeats)
