"""What a turn goes on from and what it gives: the conversation before, the utterance, the sink."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from labkit.audio.pcm import Float32
from labkit.trace import Mark, Trace
from labkit.voice.hearing import Utterance
from labkit.voice.scheduling import Playback

_SAID: Final = 3
"""So many of the last utterances help to hear the next one."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    """Who said it."""
    content: str
    """The words."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """What was said in a turn, and what was answered."""

    user: str
    assistant: str


class History:
    """The last exchanges of a conversation, each known by the number of its turn.

    A turn can be recorded twice: once as it was answered, and again, shorter, when it turns out
    that less of the reply was heard. The number makes sure that this replaces the turn's own
    entry, and never the one of the turn before, which may have been recorded last.
    """

    def __init__(self, limit: int) -> None:
        """Keep `limit` exchanges at most; one more, and the older half of them is forgotten.

        Half of them at once, since a conversation that begins otherwise than before has to be
        read anew by the language model, all of it.
        """
        self.limit = limit
        self._exchanges: dict[int, Exchange] = {}
        self._forgotten = 0
        """The last turn whose exchange is no longer kept."""

    def __len__(self) -> int:
        return len(self._exchanges)

    def __iter__(self) -> Iterator[Exchange]:
        """The exchanges in the order of their turns, oldest first."""
        return iter([self._exchanges[turn] for turn in sorted(self._exchanges)])

    def record(self, turn: int, exchange: Exchange) -> None:
        """Add the exchange of turn number `turn`, or replace that turn's own.

        What comes late for a turn that was forgotten already is left out.
        """
        if turn <= self._forgotten:
            return
        self._exchanges[turn] = exchange
        if len(self._exchanges) > self.limit:
            kept = (self.limit + 1) // 2
            for old in sorted(self._exchanges)[: len(self._exchanges) - kept]:
                del self._exchanges[old]
                self._forgotten = old

    def said(self) -> str:
        """What was heard in the last turns, as much of it as helps to hear the next one."""
        return " ".join([one.user for one in self if one.user][-_SAID:])

    def messages(self, said: str) -> list[Message]:
        """The conversation as chat messages, with `said` as the last."""
        messages: list[Message] = []
        for one in self:
            messages += Message("user", one.user), Message("assistant", one.assistant)
        return [*messages, Message("user", said)]


class Sink(Protocol):
    """Where a turn's results go. Each call may wait until there is room."""

    async def transcript(self, text: str) -> None:
        """What was heard; empty where nothing was said."""
        ...

    async def text(self, sentence: str) -> None:
        """The next sentence of the reply as the model wrote it, before it is spoken."""
        ...

    async def audio(self, samples: Float32) -> None:
        """The next piece of the spoken reply, 16 kHz."""
        ...


@dataclass(slots=True)
class Turn:
    """What one turn needs to know.

    Attributes:
        session: Whose turn it is.
        utterance: What was said.
        history: What was said before.
        trace: Takes the marks of the turn.
        clock: The monotonic clock of the marks, in nanoseconds.
        playback: What the client has in hand of the reply: by it the engines' calls are due.
            Whoever takes the audio counts it there.
        missed: Takes the stretches in which somebody spoke and no words were found, in seconds
            of the utterance: what they said lacks in the transcript. Complete before the
            transcript is given to the sink.
    """

    session: str
    utterance: Utterance
    history: History
    trace: Trace = field(default_factory=Trace)
    clock: Callable[[], int] = time.perf_counter_ns
    playback: Playback = field(default_factory=lambda: Playback(time.perf_counter_ns()))
    missed: list[tuple[float, float]] = field(default_factory=list)

    def mark(self, mark: Mark) -> None:
        """Mark this instant."""
        self.trace.mark(mark, self.clock())
