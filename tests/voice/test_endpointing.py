"""How much silence ends a turn."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.voice.endpointing import AdaptiveWait, Ending, FixedWait, ending
from labkit.voice.prosody import Prosody

PAUSES = st.lists(st.floats(0.0, 10.0), max_size=20)


def sound(fall_octaves: float, last_db: float = -6.0) -> Prosody:
    return Prosody(7.0, 7.0 - fall_octaves, last_db)


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
    def wait_s(said: str) -> float:
        return AdaptiveWait(0.5).wait_s(said, sound(0.15))

    assert wait_s("stop") == pytest.approx(0.5)
    assert wait_s("five zero") == pytest.approx(0.625)
    assert wait_s("set a timer for") == pytest.approx(0.75)


def test_where_the_sound_is_unknown_it_waits_clearly_longer_than_usual() -> None:
    assert AdaptiveWait(0.5).wait_s("stop") == pytest.approx(0.65)


def test_a_speaker_who_pauses_long_is_waited_for_and_a_hasty_one_is_not() -> None:
    slow, hasty = AdaptiveWait(0.5), AdaptiveWait(0.5)
    for _ in range(20):
        slow.paused(0.9)
        hasty.paused(0.3)
    assert slow.wait_s("stop", sound(0.15)) == pytest.approx(0.9, abs=0.01)
    assert hasty.wait_s("stop", sound(0.15)) == pytest.approx(0.3, abs=0.01)


def test_a_low_and_soft_end_shortens_the_wait_and_a_level_one_lengthens_it() -> None:
    def wait_s(heard: Prosody) -> float:
        return AdaptiveWait(0.5).wait_s("stop", heard)

    assert wait_s(sound(0.15)) == pytest.approx(0.5)
    assert wait_s(sound(0.2)) < 0.5 < wait_s(sound(0.1))
    assert wait_s(sound(0.15, -12.0)) < 0.5 < wait_s(sound(0.15, 0.0))
    # However low: one measurement that is wrong by an octave is not believed more than that.
    assert wait_s(sound(1.2)) == wait_s(sound(0.3)) == AdaptiveWait.LEAST_S
    assert wait_s(sound(-1.0)) == wait_s(sound(0.0)) == pytest.approx(0.5 * math.e)


def test_pitch_is_judged_by_what_is_usual_for_the_speaker() -> None:
    policy = AdaptiveWait(0.5)
    for _ in range(20):
        policy.wait_s("stop", Prosody(7.0, 7.0, -6.0))
        policy.paused(0.5)
    low_all_along = Prosody(6.6, 6.6, -6.0)
    assert policy.wait_s("stop", low_all_along) < AdaptiveWait(0.5).wait_s("stop", low_all_along)


def test_who_always_ends_with_a_small_fall_is_known_by_it() -> None:
    ends, pauses = AdaptiveWait(0.5), AdaptiveWait(0.5)
    for _ in range(20):
        assert ends.wait_s("stop", sound(0.12)) <= pauses.wait_s("stop", sound(0.12))
        pauses.paused(0.5)  # it was no end: nothing is learnt of it
    assert ends.wait_s("stop", sound(0.12)) == AdaptiveWait.LEAST_S
    assert pauses.wait_s("stop", sound(0.12)) > 0.5


def test_an_open_ending_is_waited_for_even_where_it_falls() -> None:
    wait_s = AdaptiveWait(0.5).wait_s("set a timer for", sound(0.5, -20.0))
    assert wait_s == 1.5 * AdaptiveWait.LEAST_S


SOUNDS = st.none() | st.builds(Prosody, *[st.floats(-100, 100)] * 3)


@given(st.floats(0.2, 3.0), PAUSES, st.sampled_from(["", "five six", "stop"]), SOUNDS)
def test_a_wait_is_never_out_of_bounds(
    first_s: float, pauses: list[float], said: str, heard: Prosody | None
) -> None:
    policy = AdaptiveWait(first_s)
    for pause in pauses:
        policy.paused(pause)
    assert policy.LEAST_S <= policy.wait_s(said, heard) <= policy.MOST_S


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
