"""Word errors, counted by jiwer in a normal form in which only words count.

Recognisers write what they hear in their own ways: "15 minutes" or "fifteen minutes", "10%" or
"ten percent". Without one form for numbers and signs, a good one seems to mishear a quarter of
the words.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

import jiwer

__all__ = ["normalise", "word_error_rate", "word_errors"]

_ONES: Final = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen",
)  # fmt: skip
_TENS: Final = (
    "", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety",
)  # fmt: skip
_SCALES: Final = ((1_000, "thousand"), (100, "hundred"))
_WRITTEN: Final = (
    (re.compile("\u2019"), "'"),
    (re.compile(r"(?<=[0-9]),(?=[0-9]{3})"), ""),
    (re.compile(r"(?<=[0-9])\.(?=[0-9])"), " point "),
    (re.compile(r"%"), " percent "),
    (re.compile(r"&"), " and "),
)
"""What stands for a word, or is a part of a number."""
_NOT_A_WORD: Final = re.compile(r"[^a-z0-9']+")
_LONGEST_NUMBER: Final = 6
"""Digits; longer numbers, such as those of telephones, are said digit by digit."""


def normalise(text: str) -> list[str]:
    """Split `text` into words in lower case: no punctuation but apostrophes, numbers in words."""
    text = text.lower()
    for written, spoken in _WRITTEN:
        text = written.sub(spoken, text)
    words = (raw.strip("'") for raw in _NOT_A_WORD.sub(" ", text).split())
    return [spoken for word in words if word for spoken in _spoken(word)]


def _spoken(word: str) -> Iterator[str]:
    if not word.isdecimal():
        yield word
    elif len(word) > _LONGEST_NUMBER or (word[0] == "0" and len(word) > 1):
        yield from (_ONES[int(digit)] for digit in word)
    else:
        yield from _in_words(int(word))


def _in_words(number: int) -> Iterator[str]:
    for scale, name in _SCALES:
        if number >= scale:
            yield from _in_words(number // scale)
            yield name
            number %= scale
            if not number:
                return
    if number >= 20:
        yield _TENS[number // 10]
        number %= 10
        if not number:
            return
    yield _ONES[number]


def word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """Count the word errors of `hypothesis`.

    Args:
        reference: What was said.
        hypothesis: What was heard.

    Returns:
        Substitutions, insertions and deletions together, and the words of the reference.
    """
    said, heard = normalise(reference), normalise(hypothesis)
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
