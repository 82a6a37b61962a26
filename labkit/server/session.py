"""One conversation: its audio, its history, its limits. Knows nothing of sockets."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from labkit.audio.pcm import SAMPLE_RATE, Int16
from labkit.errors import ErrorCode, ProtocolError
from labkit.server.limits import Activity
from labkit.session.settings import ServerSettings
from labkit.trace import Mark, Trace
from labkit.voice.hearing import Utterance
from labkit.voice.history import Exchange, History
from labkit.voice.pipeline import Pipeline, Sink, Turn

__all__ = ["EndedUtterance", "Session"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EndedUtterance:
    """An utterance that is over and waits for its answer.

    Attributes:
        utterance: The audio.
        trace: Takes the marks of its turn.
        listening_cpu_ms: CPU time of the process while the audio came in.
    """

    utterance: Utterance
    trace: Trace
    listening_cpu_ms: float


class Session:
    """One conversation with its own buffer, history and activity."""

    def __init__(
        self,
        session_id: str,
        pipeline: Pipeline,
        settings: ServerSettings,
        *,
        clock: Callable[[], int] = time.perf_counter_ns,
        cpu_clock: Callable[[], int] = time.process_time_ns,
    ) -> None:
        """Begin a conversation.

        Args:
            session_id: Names it in logs and in the engines' queues.
            pipeline: What answers.
            settings: The limits that apply.
            clock: Monotonic nanoseconds.
            cpu_clock: CPU nanoseconds of this process.
        """
        self.id = session_id
        self.history = History(settings.history)
        self._pipeline = pipeline
        self._settings = settings
        self._number = 0
        self._utterance: Utterance
        self._clock = clock
        self._cpu_clock = cpu_clock
        self.activity = Activity.starting(clock())
        self.begin_utterance()

    @property
    def utterance(self) -> Utterance:
        """What is being said."""
        return self._utterance

    def touch(self, *, audio: bool) -> None:
        """Note that the client sent something."""
        self.activity.touch(self._clock(), audio=audio)

    def hear(self, samples: Int16) -> None:
        """Take the next piece of the utterance, mono, 16 kHz.

        Raises:
            ProtocolError: The utterance is full; what did not fit was dropped.
        """
        if not len(self._utterance):
            self._cpu_at_start = self._cpu_clock()
        dropped = self._utterance.append(samples)
        if dropped:
            limit = self._settings.max_utterance_s
            raise ProtocolError(
                ErrorCode.BUFFER_FULL,
                f"one utterance holds {limit:g} s of audio; {dropped / SAMPLE_RATE:.2f} s dropped",
                "end the utterance to get an answer to what was said so far",
            )

    async def listen(self) -> None:
        """Let the pipeline work ahead on what was heard so far."""
        await self._pipeline.listen(self.id, self._utterance)

    @property
    def frame_samples(self) -> int | None:
        """See `Pipeline.frame_samples`."""
        return self._pipeline.frame_samples

    def end_utterance(self) -> EndedUtterance:
        """The utterance is over; audio that comes from now on belongs to the next."""
        cpu_ms = (self._cpu_clock() - self._cpu_at_start) / 1e6 if len(self._utterance) else 0.0
        ended = EndedUtterance(self._utterance, Trace(), cpu_ms)
        ended.trace.mark(Mark.END_STREAM_RECEIVED, self._clock())
        self.begin_utterance()
        return ended

    def end_utterance_at(self, frames: int) -> EndedUtterance:
        """The same, where the utterance was over `frames` frames after it began."""
        rest = self._utterance.split(frames * (self.frame_samples or 1))
        ended = self.end_utterance()
        self._utterance = rest
        return ended

    async def answer(self, ended: EndedUtterance, sink: Sink) -> Exchange:
        """Run one turn and remember it.

        Raises:
            EngineError: An engine failed; the history is as it was.
        """
        turn = Turn(self.id, ended.utterance, self.history, ended.trace, self._clock)
        exchange = await self._pipeline.answer(turn, sink)
        self.remember(exchange)
        return exchange

    def remember(self, exchange: Exchange) -> None:
        """Add an exchange to the history, if anything was said in it."""
        if self._settings.log_transcripts:
            _log.info("session %s: %r, answered %r", self.id, exchange.user, exchange.assistant)
        if exchange.user:
            self._number += 1
            self.history.record(self._number, exchange)

    def amend(self, exchange: Exchange) -> None:
        """Replace the last exchange: less of the reply was heard than was given."""
        if len(self.history):
            self.history.record(self._number, exchange)

    def begin_utterance(self) -> None:
        """Forget what was said since the last utterance ended."""
        limit = round(self._settings.max_utterance_s * SAMPLE_RATE)
        self._utterance = Utterance(limit, self._pipeline.frame_samples)
        self._cpu_at_start = 0
