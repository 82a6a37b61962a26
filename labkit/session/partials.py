"""What is heard of an utterance while it goes on."""

from labkit.voice.agreement import Agreement
from labkit.voice.hearing import Utterance
from labkit.voice.pipeline import Pipeline


class Partials:
    """Hears one utterance again and again, and tells which of its words are sure.

    Of an utterance with pauses only the last stretch of speech is heard again: work per second of
    speech does not grow with the utterance.

    Attributes:
        utterance: What is heard; it may grow at any time.
        due: Frames of it from which it is worth hearing again.
    """

    def __init__(self, pipeline: Pipeline, session: str, utterance: Utterance) -> None:
        self.utterance = utterance
        self.due = 0
        self._pipeline = pipeline
        self._session = session
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
        fresh = [self.utterance.audio(one.start, one.end) for one in stretches]
        ends = [dropped + one.end // frame for one in stretches]
        words = self._agreement.confirmed
        for number, audio in enumerate(fresh):
            hypothesis = await self._pipeline.overhear(self._session, audio)
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
