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
        """Hear `utterance` with `pipeline`, for `session`."""
        self.utterance = utterance
        self.due = 0
        self._pipeline = pipeline
        self._session = session
        self._past: list[str] = []
        """Words of the stretches that are over."""
        self._over = 0
        self._agreement = Agreement()

    async def hear(self) -> tuple[str, str]:
        """All words so far, and those at their beginning that will not change.

        Raises:
            EngineError: The recogniser failed.
        """
        stretches = self._pipeline.stretches(self.utterance)
        # Taken before anything is waited for: meanwhile the utterance may end, and be forgotten.
        fresh = [self.utterance.audio(one.start, one.end) for one in stretches[self._over :]]
        words: list[str] = []
        for number, audio in enumerate(fresh, 1):
            words = self._agreement.feed(await self._pipeline.overhear(self._session, audio))
            if number < len(fresh):  # another one has begun behind it, so it will not grow
                self._past += words
                self._over += 1
                self._agreement, words = Agreement(), []
        confirmed = [*self._past, *self._agreement.confirmed]
        return " ".join([*self._past, *words]), " ".join(confirmed)
