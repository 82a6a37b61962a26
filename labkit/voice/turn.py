"""What a pipeline is to whoever lets it answer: turns go in, and their results into a sink.

It knows no engine: `labkit.voice.pipeline` has those that answer.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from labkit.audio.pcm import Float32
from labkit.trace import Mark, Trace
from labkit.voice.hearing import SpeechSpan, Stretch, Utterance
from labkit.voice.history import Exchange, History
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


class Pipeline(Protocol):
    """What turns utterances into replies; by default, it does nothing before they are over."""

    @property
    def frame_samples(self) -> int | None:
        """Samples of a frame of `Utterance.probabilities`; None where speech is not detected."""
        return None

    async def listen(self, session: str, utterance: Utterance, *, ended: bool = False) -> None:
        """Work ahead on an utterance, on two seconds of it at most.

        More might have to be thrown away, where the utterance turns out to end in them.

        Args:
            session: Whose utterance it is.
            utterance: What was said so far. It may grow, be split, and lose its front meanwhile.
            ended: It is over, so this is no longer work ahead: somebody waits for it.

        Raises:
            EngineError: An engine failed.
        """
        return

    def stretches(
        self, utterance: Utterance, first: int = 0, *, finished: bool = False
    ) -> list[SpeechSpan]:
        """Where somebody speaks in what was judged so far, from frame `first` on.

        Each stretch is recognised by itself.

        Args:
            utterance: What was said so far.
            first: The frame to begin with.
            finished: Only those that will not change any more.
        """
        return []

    async def overhear(
        self, session: str, stretch: Stretch, *, before: str = "", since_ns: int | None = None
    ) -> str:
        """The words of a stretch, before its utterance is over.

        Args:
            session: Whose speech it is.
            stretch: What is said; it may go on.
            before: What was said in the turns before, as `History.said`.
            since_ns: When somebody began to wait for them. Without it nobody does, and everybody
                else goes first.

        Raises:
            EngineError: An engine failed.
        """
        return ""

    async def answer(self, turn: Turn, sink: Sink) -> Exchange:
        """Run one turn; gives what was exchanged, both empty where nothing was said.

        Raises:
            EngineError: An engine failed.
        """
        ...

    def queued(self) -> dict[str, int]:
        """How many calls wait for each engine."""
        return {}

    def close(self) -> None:
        """Stop taking work."""
        return
