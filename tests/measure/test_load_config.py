"""Levels as they are written, and the order in which they are run."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import LabkitError
from labkit.measure.load_config import LoadConfig, parse_levels, plan_levels


@pytest.mark.parametrize(("text", "levels"), [("1", (1,)), ("1,8, 16", (1, 8, 16))])
def test_levels_are_rising_numbers(text: str, levels: tuple[int, ...]) -> None:
    assert parse_levels(text) == levels


@pytest.mark.parametrize("text", ["", "1,", "8,1", "2,2", "0,1", "-1", "a", "1.5", "1,1001"])
def test_other_levels_are_refused_with_their_name_and_value(text: str) -> None:
    with pytest.raises(LabkitError, match=r"^sessions: ") as caught:
        parse_levels(text)
    assert repr(text) in str(caught.value)


@given(st.integers(0, 1000))
def test_every_server_gets_every_level_and_levels_rise(seed: int) -> None:
    plan = plan_levels((1, 8), ("a", "b"), seed=seed)
    assert sorted(plan[:2]) == [(1, "a"), (1, "b")]
    assert sorted(plan[2:]) == [(8, "a"), (8, "b")]
    assert plan == plan_levels((1, 8), ("a", "b"), seed=seed)


def test_no_server_always_comes_first() -> None:
    first = [name for _, name in plan_levels(range(1, 30), ("a", "b"), seed=1)[::2]]
    assert {"a", "b"} == set(first)


def test_engines_are_held_against_a_wider_bound() -> None:
    echo, voice = (LoadConfig(recordings=Path(), pipeline=name) for name in ("echo", "voice"))
    assert (echo.bound_ms, voice.bound_ms) == (100, 1000)
