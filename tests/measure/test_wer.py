"""The normal form of words, and error rates against cases counted by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.measure.wer import normalise, word_error_rate, word_errors


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Set a timer!", ["set", "a", "timer"]),
        ("Don't -- stop.", ["do", "not", "stop"]),
        ("don\u2019t", ["do", "not"]),
        ("I'm sure you cannot", ["i", "am", "sure", "you", "can", "not"]),
        ("can't", ["can", "not"]),
        ("one hundred and five", ["one", "hundred", "five"]),
        ("105", ["one", "hundred", "five"]),
        ("the 21st", ["the", "twenty", "first"]),
        ("$5 an hour", ["five", "dollars", "an", "hour"]),
        ("Dr. Smith", ["doctor", "smith"]),
        ("'quoted' words'", ["quoted", "words"]),
        ("back-pressure", ["back", "pressure"]),
        ("7 o'clock", ["seven", "o'clock"]),
        ("15 minutes", ["fifteen", "minutes"]),
        ("Twenty-five", ["twenty", "five"]),
        ("40", ["forty"]),
        ("10%", ["ten", "percent"]),
        (
            "1,250.5 & 0",
            ["one", "thousand", "two", "hundred", "fifty", "point", "five", "and", "zero"],
        ),
        ("600", ["six", "hundred"]),
        ("7:30", ["seven", "thirty"]),
        ("007", ["zero", "zero", "seven"]),
        ("5551234", ["five", "five", "five", "one", "two", "three", "four"]),
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
        ("set a timer for fifteen minutes", "Set a timer for 15 minutes.", 0),
        ("dim it to ninety five percent", "Dim it to 95%.", 0),
        ("say four eight nine three zero zero", "Say 489300.", 0),
        ("two two five nine", "2,259", 0),
        ("two thousand two hundred fifty nine", "2259", 0),
        ("two two five nine", "2258", 1),
        ("i am oliver", "I'm Oliver.", 0),
    ],
)
def test_errors_counted_by_hand(reference: str, hypothesis: str, errors: int) -> None:
    assert word_errors(reference, hypothesis) == (errors, len(reference.split()))


def test_the_rate_is_over_all_words_and_no_mean_of_rates() -> None:
    pairs = [("one", "two"), ("one two three four five six seven eight nine",) * 2]
    assert word_error_rate(pairs) == 0.1


def test_insertions_can_bring_the_rate_above_one() -> None:
    assert word_error_rate([("yes", "oh yes it is"), ("", "what")]) == 4.0


@pytest.mark.parametrize("pairs", [[], [("", "")], [("...", "word")]])
def test_no_reference_word_means_no_rate(pairs: list[tuple[str, str]]) -> None:
    with pytest.raises(ValueError, match="at least one reference word"):
        word_error_rate(pairs)
