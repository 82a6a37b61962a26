"""Word errors, counted by jiwer in a normal form in which only words count."""

import re
from collections.abc import Iterable

import jiwer

__all__ = ["normalise", "word_error_rate", "word_errors"]

_NOT_A_WORD = re.compile(r"[^a-z0-9']+")


def normalise(text: str) -> list[str]:
    """Split `text` into words in lower case, without punctuation other than apostrophes."""
    words = _NOT_A_WORD.sub(" ", text.lower().replace("\u2019", "'")).split()
    return [word for word in (raw.strip("'") for raw in words) if word]


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
