"""Tells when the client begins and ends to speak, out of what the pipeline has detected."""

from labkit.audio.pcm import SAMPLE_RATE
from labkit.server.session import Session
from labkit.voice.hearing import SpeechChange, SpeechTracker

__all__ = ["Ears"]


class Ears:
    """Follows the utterance that comes in, whichever that is."""

    MOST_SILENCE_S = 10.0
    """An open microphone sends silence for ever: so much of it is enough to keep."""

    def __init__(self, session: Session) -> None:
        """Follow the utterances of `session`."""
        self._session = session
        self._begin()

    def changes(self) -> list[tuple[SpeechChange, float]]:
        """What is new since the last call, each with its place in seconds of the utterance."""
        if self._utterance is not self._session.utterance:
            self._begin()
        frame = self._session.frame_samples
        if frame is None:
            return []
        new = self._utterance.probabilities[self._seen :]
        self._seen += len(new)
        return [(change, change.frame * frame / SAMPLE_RATE) for change in self._tracker.feed(new)]

    def drop_long_silence(self) -> None:
        """Forget an utterance in which nothing was said for long."""
        if self._tracker.quiet and self._utterance.seconds >= self.MOST_SILENCE_S:
            self._session.begin_utterance()

    def _begin(self) -> None:
        self._utterance = self._session.utterance
        self._tracker = SpeechTracker(self._session.frame_samples or 1)
        self._seen = 0
