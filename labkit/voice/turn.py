"""What the pipeline knows of a turn, and where it puts what it makes of one."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from labkit.audio.pcm import Float32
from labkit.trace import Mark, Trace
from labkit.voice.hearing import Utterance
from labkit.voice.history import History
from labkit.voice.scheduling import Playback


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
