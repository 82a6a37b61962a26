"""What is recognised while somebody speaks: kept for the end, or told in partial transcripts.

A recogniser that hears an utterance again and again, each time a little more of it, changes its
mind about the last words. Those that two hypotheses in a row agree on, from the beginning, are
confirmed: LocalAgreement-2 (Liu, Spanakis and Niehues, "Low-Latency Sequence-to-Sequence Speech
Recognition and Translation by Partial Hypothesis Selection", Interspeech 2020).
"""

import logging
from collections.abc import Sequence
from functools import partial
from itertools import takewhile
from typing import Final

from labkit.audio.pcm import SAMPLE_RATE
from labkit.errors import EngineError
from labkit.session.answering import Answers
from labkit.session.common import Common
from labkit.session.events import PartialTranscript
from labkit.session.listening import Listening
from labkit.voice.hearing import Utterance, frames_in
from labkit.voice.turn import Pipeline

_log = logging.getLogger(__name__)

_PARTIALS_S: Final = 0.4
"""Least time between two partial transcripts: about the length of a word."""
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


class Overhearing:
    """Hears the utterance that is being said, behind all work that somebody waits for."""

    def __init__(self, common: Common, listening: Listening, answers: Answers) -> None:
        self._common = common
        self._listening = listening
        self._answers = answers

    async def keep(self) -> None:
        """Recognise stretches of speech that are over while their utterance goes on.

        They will not change any more, so nothing of it is in vain, and however long somebody
        speaks, at the end only the last stretch is left to be recognised.
        """
        common, listening = self._common, self._listening
        utterance, heard = listening.utterance, 1

        def has_more() -> bool:
            known = heard if listening.utterance is utterance else 1
            return listening.tracker.stretches > known and not listening.unexamined

        while True:
            await common.changes.until(has_more)
            utterance, heard = listening.utterance, listening.tracker.stretches
            before = self._answers.history.said()
            try:
                for one in common.pipeline.stretches(utterance, finished=True):
                    if listening.utterance is not utterance:  # its turn recognises the rest
                        break
                    await common.pipeline.overhear(common.id, utterance.stretch(one), before=before)
            except EngineError as error:  # its turn will fail, and say so
                _log.warning("session %s: %s", common.id, error)

    async def tell(self) -> None:
        """Tell what is heard of utterances that go on: of each moment the latest, or nothing."""
        common, listening = self._common, self._listening
        partials = self._fresh_partials()
        while True:
            await common.changes.until(partial(self._is_due, partials))
            utterance = listening.utterance
            if partials.utterance is not utterance:
                partials = self._fresh_partials()
            came, begun_ns = utterance.position, common.clock()
            try:
                text, confirmed = await partials.hear()
            except EngineError as error:  # its turn will fail, and say so
                _log.warning("session %s: %s", common.id, error)
                text, confirmed = "", ""
            # For half of the time at most, so that what somebody waits for is not far behind it.
            took_s = (common.clock() - begun_ns) / 1e9
            rest_s = max(_PARTIALS_S - took_s, took_s)
            rest = frames_in(rest_s, utterance.frame_samples or 1)
            partials.due = listening.tracker.frames + rest
            if text and listening.utterance is utterance and not common.outgoing.window.is_overfull:
                behind_s = (utterance.position - came) / SAMPLE_RATE
                common.tell(PartialTranscript(self._answers.next_turn, text, confirmed, behind_s))

    def _fresh_partials(self) -> Partials:
        common, before = self._common, self._answers.history.said()
        return Partials(common.pipeline, common.id, self._listening.utterance, before)

    def _is_due(self, partials: Partials) -> bool:
        """Whether somebody speaks, does not pause for long, and has said something new."""
        listening = self._listening
        fresh = listening.utterance is not partials.utterance
        new = fresh or listening.tracker.frames >= partials.due
        return new and not listening.may_be_over and not listening.unexamined
