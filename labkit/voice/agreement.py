"""Words of a transcript that will not change any more, while speech goes on.

A recogniser that hears an utterance again and again, each time a little more of it, changes its
mind about the last words. Those that two hypotheses in a row agree on, from the beginning, are
confirmed: LocalAgreement-2 (Liu, Spanakis and Niehues, "Low-Latency Sequence-to-Sequence Speech
Recognition and Translation by Partial Hypothesis Selection", Interspeech 2020).
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import Final

_PUNCTUATION: Final = ".,;:!?\"'()-"


class Agreement:
    """The hypotheses of one utterance, and what they agree on.

    Attributes:
        confirmed: Words that will not change; it only grows.
    """

    def __init__(self, confirmed: Sequence[str] = ()) -> None:
        """Begin without a hypothesis, but for words that were confirmed before."""
        self.confirmed = list(confirmed)
        self._before: list[str] = []

    def feed(self, hypothesis: str) -> list[str]:
        """Take the next hypothesis; gives the words so far, those that are confirmed first."""
        words = hypothesis.split()
        pairs = takewhile(lambda pair: _same(*pair), zip(self._before, words, strict=False))
        agreed = sum(1 for _ in pairs)
        self.confirmed += words[len(self.confirmed) : agreed]
        self._before = words
        return [*self.confirmed, *words[len(self.confirmed) :]]


def _same(one: str, other: str) -> bool:
    """Whether two words are the same but for case and for the punctuation around them."""
    return one.strip(_PUNCTUATION).casefold() == other.strip(_PUNCTUATION).casefold()
