"""What is heard of an utterance while it goes on, and which of its words will not change any more.

A recogniser that hears an utterance again and again, each time a little more of it, changes its
mind about the last words. Those that two hypotheses in a row agree on, from the beginning, are
confirmed: LocalAgreement-2 (Liu, Spanakis and Niehues, "Low-Latency Sequence-to-Sequence Speech
Recognition and Translation by Partial Hypothesis Selection", Interspeech 2020).
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import Final

from labkit.voice.hearing import Utterance
from labkit.voice.pipeline import Pipeline

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


class Partials:
    """Hears one utterance again and again.

    Of an utterance with pauses only the last stretch of speech is heard again: work per second of
    speech does not grow with the utterance.

    Attributes:
        utterance: What is heard; it may grow at any time.
        due: Frames of it from which it is worth hearing again.
    """

    def __init__(
        self, pipeline: Pipeline, session: str, utterance: Utterance, before: str = ""
    ) -> None:
        """Hear `utterance` of `session`, said after `before`."""
        self.utterance = utterance
        self.due = 0
        self._pipeline = pipeline
        self._session = session
        self._before = before
        self._past: list[str] = []
        """Words of the stretches that are over."""
        self._first = self._heard = 0
        """Frames up to which they are over, and up to which anything was heard."""
        self._agreement = Agreement()

    async def hear(self) -> tuple[str, str]:
        """All words so far, and those at their beginning that will not change.

        Raises:
            EngineError: The recogniser failed.
        """
        frame = self.utterance.frame_samples or 1
        dropped = self.utterance.dropped_samples // frame
        stretches = self._pipeline.stretches(self.utterance, max(0, self._first - dropped))
        # Taken before anything is waited for: meanwhile the utterance may end, and be forgotten.
        fresh = [self.utterance.stretch(one) for one in stretches]
        ends = [dropped + one.end // frame for one in stretches]
        words = self._agreement.confirmed
        for number, stretch in enumerate(fresh):
            hypothesis = await self._pipeline.overhear(self._session, stretch, before=self._before)
            words = self._agreement.feed(hypothesis)
            if number + 1 < len(fresh):  # another one has begun behind it, so it will not grow
                words = self._end_stretch(words, len(hypothesis.split()), ends[number])
        self._heard = max([self._heard, *ends])
        confirmed = [*self._past, *self._agreement.confirmed]
        return " ".join([*self._past, *words]), " ".join(confirmed)

    def _end_stretch(self, words: list[str], heard: int, end: int) -> list[str]:
        """A stretch is over in frame `end`, with so many words heard last; gives what is left."""
        left: list[str] = []
        if end < self._heard:
            # It became too long and was cut: of its words, the rest lies in the next.
            words, left = words[:heard], self._agreement.confirmed[heard:]
        self._past += words
        self._first = end
        self._agreement = Agreement(left)
        return left
