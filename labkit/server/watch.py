"""Looks at the beginning of a session's audio, whether it is what was declared."""

from collections.abc import Callable, Sequence

from labkit.audio.formats import AudioFormat
from labkit.audio.misread.watch import FormatWatch
from labkit.errors import ProtocolError

__all__ = ["Watch"]


class Watch:
    """Watches the first seconds: who lies about the format does so from the start."""

    def __init__(self, declared: AudioFormat, seconds: float, clock: Callable[[], int]) -> None:
        """Expect audio as `declared`.

        Args:
            declared: What the client said that it sends.
            seconds: How much audio is looked at; looking costs time for each message.
            clock: Monotonic nanoseconds.
        """
        self._watch = FormatWatch(declared, seconds)
        self._clock = clock

    def look(self, payload: bytes) -> Sequence[ProtocolError]:
        """What to tell the client after this message; each finding comes once."""
        found = self._watch.feed(payload, self._clock())
        return [ProtocolError(one.kind, one.message, one.hint) for one in found]
