"""Word error rate against cases counted by hand, and the laws that any distance obeys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.measure.wer import normalise, word_error_rate, word_errors

sentences = st.lists(st.sampled_from(["set", "a", "timer", "two", "don't", "7"]), max_size=7).map(
    " ".join
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Set a timer!", ["set", "a", "timer"]),
        ("Don't -- stop.", ["don't", "stop"]),
        ("don\u2019t", ["don't"]),
        ("'quoted' words'", ["quoted", "words"]),
        ("back-pressure", ["back", "pressure"]),
        ("7 o'clock", ["7", "o'clock"]),
        ("  \t\n", []),
        ("' '' ...", []),
        ("", []),
    ],
)
def test_normal_form(text: str, words: list[str]) -> None:
    assert normalise(text) == words


@given(st.text())
def test_the_normal_form_is_its_own_normal_form(text: str) -> None:
    words = normalise(text)
    assert normalise(" ".join(words)) == words


@pytest.mark.parametrize(
    ("reference", "hypothesis", "errors"),
    [
        ("set a timer", "set a timer", 0),
        ("set a timer", "Set a timer.", 0),
        ("set a timer", "set the timer", 1),
        ("set a timer", "set timer", 1),
        ("set a timer", "set up a timer", 1),
        ("set a timer", "", 3),
        ("", "set a timer", 3),
        ("", "", 0),
        ("one two three four", "two three four five", 2),
        ("one two three", "three two one", 2),
        ("turn on the lights", "turn the light off", 3),
    ],
)
def test_errors_counted_by_hand(reference: str, hypothesis: str, errors: int) -> None:
    assert word_errors(reference, hypothesis) == (errors, len(reference.split()))


def slow_distance(said: tuple[str, ...], heard: tuple[str, ...]) -> int:
    """The definition itself: the best of a substitution, a deletion and an insertion."""
    if not said or not heard:
        return len(said) + len(heard)
    return min(
        slow_distance(said[1:], heard[1:]) + (said[0] != heard[0]),
        slow_distance(said[1:], heard) + 1,
        slow_distance(said, heard[1:]) + 1,
    )


short = st.lists(st.sampled_from(["a", "b", "c"]), max_size=5).map(" ".join)


@given(short, short)
def test_agrees_with_the_definition(reference: str, hypothesis: str) -> None:
    wanted = slow_distance(tuple(reference.split()), tuple(hypothesis.split()))
    assert word_errors(reference, hypothesis)[0] == wanted


@given(sentences, sentences, sentences)
def test_is_a_distance(one: str, two: str, three: str) -> None:
    def distance(first: str, second: str) -> int:
        return word_errors(first, second)[0]

    assert distance(one, one) == 0
    assert distance(one, two) == distance(two, one)
    assert distance(one, three) <= distance(one, two) + distance(two, three)
    assert distance(one, two) <= max(len(one.split()), len(two.split()))


def test_the_rate_is_over_all_words_and_no_mean_of_rates() -> None:
    pairs = [("one", "two"), ("one two three four five six seven eight nine",) * 2]
    assert word_error_rate(pairs) == 0.1


def test_insertions_can_bring_the_rate_above_one() -> None:
    assert word_error_rate([("yes", "oh yes it is"), ("", "what")]) == 4.0


@pytest.mark.parametrize("pairs", [[], [("", "")], [("...", "word")]])
def test_no_reference_word_means_no_rate(pairs: list[tuple[str, str]]) -> None:
    with pytest.raises(ValueError, match="at least one reference word"):
        word_error_rate(pairs)
