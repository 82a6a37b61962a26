"""The audio of one utterance while it comes in, and what was exchanged before it."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from labkit.audio.pcm import SAMPLE_RATE, Float32
from labkit.voice.engines import Message, VadState

__all__ = ["Exchange", "History", "Utterance"]


class Utterance:
    """Audio that was said so far, and how far the voice activity detector has come in it.

    The event loop appends while the detector's thread reads. One writer and any number of
    readers need no lock: the count is raised after the samples lie in the buffer, readers take
    the count before the buffer, and a buffer that is too small is replaced by a larger copy.

    Attributes:
        limit: Most samples that it holds.
        probabilities: Speech probability of each frame that the detector has seen.
        vad_state: What the detector carries to the next frame, None before the first.
    """

    def __init__(self, limit: int) -> None:
        """Begin with no audio and room for `limit` samples at 16 kHz."""
        self.limit = limit
        self.probabilities: list[float] = []
        self.vad_state: VadState | None = None
        self._buffer: Float32 = np.zeros(0, np.float32)
        self._samples = 0

    def __len__(self) -> int:
        """Samples held."""
        return self._samples

    @property
    def nbytes(self) -> int:
        """Bytes of its buffer."""
        return int(self._buffer.nbytes)

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self._samples / SAMPLE_RATE

    def append(self, audio: Float32) -> int:
        """Take as much of `audio` as there is room for; gives the samples that did not fit."""
        kept = audio[: self.limit - self._samples]
        end = self._samples + len(kept)
        if end > len(self._buffer):
            self._grow(end)
        self._buffer[self._samples : end] = kept
        self._samples = end
        return len(audio) - len(kept)

    def _grow(self, needed: int) -> None:
        """Make room for `needed` samples; twice as much each time, so copies stay rare."""
        room = max(needed, SAMPLE_RATE, 2 * len(self._buffer))
        larger = np.zeros(min(room, self.limit), np.float32)
        larger[: self._samples] = self._buffer[: self._samples]
        self._buffer = larger

    def audio(self) -> Float32:
        """All of it, 16 kHz, shape `(samples,)`."""
        samples = self._samples
        return self._buffer[:samples]

    def split(self, samples: int, frame_samples: int) -> Float32:
        """Keep the first `samples` samples, whole frames of them; gives the rest."""
        rest = self.audio()[samples:].copy()
        self._samples = min(samples, self._samples)
        del self.probabilities[samples // frame_samples :]
        return rest

    def forget(self) -> None:
        """Drop the audio: it was heard, and its reply may take long to go out."""
        self._samples = 0
        self._buffer = np.zeros(0, np.float32)

    def unseen(self, frame_samples: int, *, last: bool = False) -> Float32:
        """What the detector has not looked at yet, as whole frames.

        Args:
            frame_samples: Samples per frame.
            last: No more audio comes: fill the last frame up with silence.
        """
        start = len(self.probabilities) * frame_samples
        rest = self.audio()[start:]
        if last:
            return np.pad(rest, (0, -len(rest) % frame_samples))
        return rest[: len(rest) // frame_samples * frame_samples]


@dataclass(frozen=True, slots=True)
class Exchange:
    """What was said and what was answered."""

    user: str
    assistant: str


class History:
    """The last exchanges of a conversation, oldest first."""

    def __init__(self, limit: int) -> None:
        """Keep the last `limit` exchanges."""
        self._exchanges: deque[Exchange] = deque(maxlen=limit)

    def __len__(self) -> int:
        """Exchanges kept."""
        return len(self._exchanges)

    def __iter__(self) -> Iterator[Exchange]:
        """The exchanges, oldest first."""
        return iter(tuple(self._exchanges))

    def add(self, exchange: Exchange) -> None:
        """Add an exchange; the oldest goes where there are too many."""
        self._exchanges.append(exchange)

    def amend(self, exchange: Exchange) -> None:
        """Replace the last exchange: less of the reply was heard than was given."""
        if self._exchanges:
            self._exchanges[-1] = exchange

    def messages(self, said: str) -> list[Message]:
        """The conversation as chat messages, with `said` as the last."""
        past = [
            message
            for exchange in self._exchanges
            for message in (
                Message("user", exchange.user),
                Message("assistant", exchange.assistant),
            )
        ]
        return [*past, Message("user", said)]
