"""Word error rate, and the normal form in which words are compared."""

import re
from collections.abc import Iterable

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
        The Levenshtein distance in words (substitutions, insertions and deletions), and the
        number of words in the reference.
    """
    said, heard = normalise(reference), normalise(hypothesis)
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(heard, start=1):
            substitution = diagonal + (word != other)
            diagonal = row[j]
            row[j] = min(substitution, row[j] + 1, row[j - 1] + 1)
    return row[-1], len(said)


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
