"""Which words of growing hypotheses are confirmed."""

from hypothesis import given
from hypothesis import strategies as st

from labkit.voice.agreement import Agreement

WORDS = st.sampled_from(["set", "a", "timer", "Timer.", "for", "four", "five"])
HYPOTHESES = st.lists(st.lists(WORDS, max_size=6).map(" ".join), max_size=8)


def test_what_two_hypotheses_agree_on_is_confirmed() -> None:
    agreement = Agreement()
    assert agreement.feed("set a time") == ["set", "a", "time"]
    assert agreement.confirmed == []
    assert agreement.feed("set a timer") == ["set", "a", "timer"]
    assert agreement.confirmed == ["set", "a"]
    agreement.feed("Set a timer, for")
    assert agreement.confirmed == ["set", "a", "timer,"]


@given(HYPOTHESES)
def test_confirmed_words_never_change(hypotheses: list[str]) -> None:
    agreement, before = Agreement(), list[str]()
    for hypothesis in hypotheses:
        shown = agreement.feed(hypothesis)
        assert agreement.confirmed[: len(before)] == before
        assert shown[: len(agreement.confirmed)] == agreement.confirmed
        before = list(agreement.confirmed)


@given(HYPOTHESES)
def test_nothing_is_confirmed_that_was_not_heard_twice_in_its_place(hypotheses: list[str]) -> None:
    agreement = Agreement()
    for hypothesis in hypotheses:
        agreement.feed(hypothesis)
    heard = [[word.strip(".").casefold() for word in h.split()] for h in hypotheses]
    for place, word in enumerate(agreement.confirmed):
        bare = word.strip(".").casefold()
        times = [place < len(words) and words[place] == bare for words in heard]
        assert any(a and b for a, b in zip(times, times[1:], strict=False))
