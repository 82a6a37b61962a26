"""Who has the turn: the sound of an end, the silence behind it, and speech over a reply."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.audio.pcm import SAMPLE_RATE, Float32
from labkit.voice.turn_taking import (
    ASIDE_DB,
    WINDOW_SAMPLES,
    AdaptiveWait,
    Ending,
    FixedWait,
    Prosody,
    Verdict,
    ending,
    judge,
    prosody,
)

# -- the sound of an end -----------------------------------------------------------------------


def voice(*hertz: float, each_s: float = 0.4, gain: float = 0.1) -> Float32:
    """A buzz with ten harmonics that goes from pitch to pitch."""
    pitch = np.repeat(hertz, round(each_s * SAMPLE_RATE))
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    return gain * np.sum([np.sin(n * phase) / n for n in range(1, 11)], axis=0, dtype=np.float32)


def silence(seconds: float, level: float = 0.001) -> Float32:
    noise = np.random.default_rng(0).normal(0, level, round(seconds * SAMPLE_RATE))
    return noise.astype(np.float32)


@pytest.mark.parametrize("hertz", [80, 120, 200, 330])
def test_a_pitch_is_found(hertz: float) -> None:
    found = prosody(np.concatenate([voice(hertz), silence(0.2)]))
    assert found is not None
    assert found.pitch == pytest.approx(np.log2(hertz), abs=0.05)
    assert found.last_pitch == pytest.approx(np.log2(hertz), abs=0.05)


def test_a_fall_at_the_end_is_heard_over_the_silence_behind_it() -> None:
    found = prosody(np.concatenate([voice(200, 200, 200, 150), silence(0.2)]))
    assert found is not None
    assert found.pitch - found.last_pitch == pytest.approx(np.log2(200 / 150), abs=0.05)


def test_a_softer_end_is_heard() -> None:
    said = [voice(120), voice(120, gain=0.05, each_s=0.2), silence(0.2)]
    found = prosody(np.concatenate(said))
    assert found is not None
    assert found.last_db == pytest.approx(-6, abs=0.5)


def test_only_what_was_said_last_counts() -> None:
    last = np.concatenate([voice(*[150] * 7), silence(0.2)])
    assert len(last) == WINDOW_SAMPLES
    assert prosody(np.concatenate([voice(90, 330), last])) == prosody(last)


@pytest.mark.parametrize("samples", [0, 1, 700, SAMPLE_RATE])
def test_without_a_voice_nothing_is_told(samples: int) -> None:
    assert prosody(np.zeros(samples, np.float32)) is None
    assert prosody(silence(1.0, 0.1)[:samples]) is None
    assert prosody(np.cumsum(silence(1.0))[:samples]) is None
    assert prosody(np.repeat(np.float32([0.3, 0.0]), samples // 2)) is None


@given(st.integers(0, 2**32 - 1), st.integers(1, 40_000), st.floats(0.0, 1.0))
def test_whatever_is_heard_gives_numbers_or_none(seed: int, samples: int, level: float) -> None:
    rng = np.random.default_rng(seed)
    found = prosody(np.cumsum(rng.normal(0, level, samples)).astype(np.float32))
    assert found is None or np.isfinite([found.pitch, found.last_pitch, found.last_db]).all()


# -- the end of a turn -------------------------------------------------------------------------

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


# -- speech over a reply -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "said", ["yeah", "Uh-huh.", "Oh, really?", "I see.", "mm hm", "Got it!", ""]
)
def test_who_listens_does_not_interrupt(said: str) -> None:
    assert judge(said, over=True, outlasts=False) is Verdict.GOES_ON
    assert judge(said, over=False, outlasts=False) is Verdict.OPEN


@pytest.mark.parametrize("said", ["No.", "Stop!", "wait", "What about tomorrow?", "yeah but why"])
def test_who_says_something_takes_the_turn(said: str) -> None:
    assert judge(said, over=True, outlasts=False) is Verdict.ENDS


def test_a_first_word_may_be_the_beginning_of_another() -> None:
    assert judge("no", over=False, outlasts=False) is Verdict.OPEN
    assert judge("yeah okay right sure", over=False, outlasts=False) is Verdict.ENDS


def test_a_yes_that_outlasts_the_reply_answers_it() -> None:
    assert judge("Yes.", over=True, outlasts=True) is Verdict.ENDS


def test_an_aside_is_to_somebody_else() -> None:
    aside = judge("did you feed the cat", over=True, outlasts=False, quieter_db=ASIDE_DB + 1)
    assert aside is Verdict.GOES_ON


@given(st.text(), st.booleans(), st.floats(-60, 60))
def test_a_pause_always_settles_it(said: str, outlasts: bool, quieter_db: float) -> None:
    verdict = judge(said, over=True, outlasts=outlasts, quieter_db=quieter_db)
    assert verdict is not Verdict.OPEN
    earlier = judge(said, over=False, outlasts=outlasts, quieter_db=quieter_db)
    assert earlier in {Verdict.OPEN, verdict}
