"""Word errors, counted by jiwer in a normal form in which only words count.

Recognisers write what they hear in their own ways: "15 minutes" or "fifteen minutes", "10%" or
"ten percent", "I'm" or "I am", "508" or "five zero eight". Without one form for all of them, a
good one seems to mishear a quarter of the words.
"""

import re
from collections.abc import Iterable
from itertools import product
from typing import Final

import jiwer
from num2words import num2words

from labkit.voice.normalisation import normalise as in_words

_contractions: Final = jiwer.ExpandCommonEnglishContractions()
_GROUP: Final = re.compile(r"(?<=[0-9]),(?=[0-9]{3})")
_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_CANNOT: Final = re.compile(r"\bcannot\b")
_AND: Final = re.compile(r"\b(hundred|thousand|million) and\b")
_NOT_A_WORD: Final = re.compile(r"[^a-z0-9']+")
_LONGEST_NUMBER: Final = 6
"""Digits; longer numbers, such as those of telephones, are said digit by digit."""


def normalise(text: str, *, digit_by_digit: bool = False) -> list[str]:
    """Split `text` into words in lower case, with numbers, signs and contractions as words.

    "508" is "five hundred eight", or, `digit_by_digit`, "five zero eight".
    """
    text = _GROUP.sub("", in_words(text.replace("\u2019", "'")).lower()).replace("%", " percent ")
    text = _NUMBER.sub(lambda found: _said(found[0], digit_by_digit), text)
    text = _AND.sub(r"\1", _contractions(_CANNOT.sub("can not", text)))
    return [word for raw in _NOT_A_WORD.sub(" ", text).split() if (word := raw.strip("'"))]


def _said(number: str, digit_by_digit: bool) -> str:
    whole, _, behind = number.partition(".")
    long = len(whole) > _LONGEST_NUMBER or (whole[0] == "0" and len(whole) > 1)
    words = _digits(whole) if digit_by_digit or long else str(num2words(int(whole)))
    return f" {words.replace(',', '')} " + (f"point {_digits(behind)} " if behind else "")


def _digits(digits: str) -> str:
    return " ".join(num2words(int(digit)) for digit in digits)


def word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """Count the word errors of `hypothesis`; gives them, and the words of the reference.

    Errors are substitutions, insertions and deletions. A number in figures may stand for either way
    of saying it; the one that fits better counts.
    """
    said, heard = (
        [normalise(text, digit_by_digit=how) for how in (False, True)]
        for text in (reference, hypothesis)
    )
    return min(_errors(*pair) for pair in product(said, heard))


def _errors(said: list[str], heard: list[str]) -> tuple[int, int]:
    found = jiwer.process_words(" ".join(said), " ".join(heard))
    return found.substitutions + found.insertions + found.deletions, len(said)


def word_error_rate(pairs: Iterable[tuple[str, str]]) -> float:
    """Word error rate over `(reference, hypothesis)` pairs: all errors over all words.

    Raises:
        ValueError: There is no reference word to divide by.
    """
    counts = [word_errors(reference, hypothesis) for reference, hypothesis in pairs]
    words = sum(said for _, said in counts)
    if words == 0:
        raise ValueError("word error rate needs at least one reference word")
    return sum(errors for errors, _ in counts) / words


def percent_right(pairs: Iterable[tuple[str, str]]) -> float:
    """Percentage of the words said that came out right; words too many count as wrong ones.

    Raises:
        ValueError: As `word_error_rate`.
    """
    return max(0.0, 100 * (1 - word_error_rate(pairs)))
