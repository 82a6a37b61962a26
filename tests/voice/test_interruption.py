"""What is said over a reply: signs of listening, asides, and interruptions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.voice.interruption import ASIDE_DB, Verdict, judge


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
