"""How much silence ends a turn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.voice.endpointing import AdaptiveWait, Ending, FixedWait, ending

PAUSES = st.lists(st.floats(0.0, 10.0), max_size=20)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("", Ending.OPEN),
        ("...", Ending.OPEN),
        ("Set a timer for", Ending.OPEN),
        ("Set a timer for.", Ending.OPEN),
        ("my code is", Ending.OPEN),
        ("Please,", Ending.OPEN),
        ("five zero eight", Ending.DIGITS),
        ("my code is 5 0", Ending.DIGITS),
        ("555 12", Ending.DIGITS),
        ("set a timer for six", Ending.CLOSED),
        ("six", Ending.CLOSED),
        ("Turn the light on.", Ending.CLOSED),
        ("what is it", Ending.CLOSED),
        ("yes", Ending.CLOSED),
    ],
)
def test_the_end_of_what_was_said(said: str, expected: Ending) -> None:
    assert ending(said) is expected


def test_a_fixed_wait_is_the_same_for_everybody() -> None:
    policy = FixedWait(0.5)
    policy.paused(3.0)
    assert policy.wait_s("set a timer for") == policy.wait_s("stop") == 0.5


def test_open_endings_are_waited_for_longer() -> None:
    policy = AdaptiveWait(0.5)
    assert policy.wait_s("stop") == 0.5
    assert policy.wait_s("five zero") == pytest.approx(0.75)
    assert policy.wait_s("set a timer for") == pytest.approx(1.5)


def test_a_speaker_who_pauses_long_is_waited_for_and_a_hasty_one_is_not() -> None:
    slow, hasty = AdaptiveWait(0.5), AdaptiveWait(0.5)
    for _ in range(5):
        slow.paused(0.9)
        hasty.paused(0.2)
    assert slow.wait_s("stop") == pytest.approx(1.3 * 0.9)
    assert hasty.wait_s("stop") == pytest.approx(1.3 * 0.2)


@given(st.floats(0.2, 3.0), PAUSES, st.sampled_from(["", "five six", "stop"]))
def test_a_wait_is_never_out_of_bounds(first_s: float, pauses: list[float], said: str) -> None:
    policy = AdaptiveWait(first_s)
    for pause in pauses:
        policy.paused(pause)
    assert policy.LEAST_S <= policy.wait_s(said) <= policy.MOST_S


@given(PAUSES, st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_longer_pause_never_shortens_the_wait(
    before: list[float], one: float, more: float
) -> None:
    short, long = AdaptiveWait(0.5), AdaptiveWait(0.5)
    for policy, last in ((short, one), (long, one + more)):
        for pause in before:
            policy.paused(pause)
        policy.paused(last)
    assert short.wait_s("stop") <= long.wait_s("stop") + 1e-9
