"""One conversation: what comes in, what is to be answered, and what goes out.

A session may outlive its connection. It knows neither sockets nor dialects: a dialect calls `hear`,
`end_utterance` and `cancel`, and writes the events that come back in its own words.

The way of a chunk: `hear` decodes it, `Listening` lets the detector judge it, tells where speech
begins and ends, and ends utterances where the client wants that; `Answers` lets the pipeline answer
one utterance after the other, and puts what the pipeline gives into the stream.
"""

import time
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, Final
from zlib import crc32

from labkit.audio.formats import WIRE, StreamDecoder
from labkit.audio.misread import FormatWatch
from labkit.audio.pcm import SAMPLE_RATE
from labkit.errors import AudioError, Close, ProtocolError
from labkit.protocol.replay import Position
from labkit.session import refusals
from labkit.session.answering import Answers
from labkit.session.barge_in import BargeIn
from labkit.session.common import Common
from labkit.session.events import Encoder, Event, Observer, Refused
from labkit.session.limits import Activity, Budget, TokenBucket
from labkit.session.listening import Listening
from labkit.session.outgoing import Feed, Outgoing
from labkit.session.overhearing import Overhearing
from labkit.session.settings import ServerSettings, SessionOptions
from labkit.tasks import Changes
from labkit.voice.hearing import Endpointing
from labkit.voice.history import History
from labkit.voice.turn import Pipeline

_MOST_UNEXAMINED: Final = 64
"""Utterances that a client may end before the detector has looked at them."""
MOST_AT_ONCE: Final = 32 * 1024
"""Bytes of a message that are decoded in one go, about a millisecond's work: one message may hold
131 s of µ-law, which would keep everybody else waiting."""


class Session:
    """One conversation that may outlive its connection.

    Attributes:
        id: Names it in logs and in the engines' queues.
        options: What was agreed on.
        outgoing: Everything that goes to the client.
        activity: When something last came.
        phase: From 0 to 1, another in each session: what is done again and again is not done for
            all sessions that began together in the same instant.
        received_messages: Numbered messages that came from the client.
        received_samples: Samples of audio that came, per channel, in the client's format.
        wait_until_ns: When more audio should be read, on its clock; 0 where it may be at once.
        must_wait: Whether as much is held as may be: what comes next should be read later.
    """

    def __init__(
        self,
        session_id: str,
        pipeline: Pipeline,
        encoder: Encoder,
        options: SessionOptions,
        settings: ServerSettings,
        observer: Observer,
        *,
        budget: Budget,
        clock: Callable[[], int] = time.perf_counter_ns,
        cpu_clock: Callable[[], int] = time.process_time_ns,
    ) -> None:
        """Begin a conversation, named `session_id` in logs and in the engines' queues.

        `clock` gives monotonic nanoseconds, `cpu_clock` those of the CPU that this process took.
        """
        self.id = session_id
        self.options = options
        self.phase = crc32(session_id.encode()) / 2**32
        self.received_messages = 0
        self.received_samples = 0
        self.wait_until_ns = 0
        self.must_wait = False
        self._changes = Changes()
        self.outgoing = Outgoing(
            settings.replay_window(options.output.sample_rate, options.acknowledges),
            options.output.frame_bytes,
            self._changes,
            keep=options.resumable,
        )
        self._settings = settings
        self._budget = budget
        self._clock = clock
        now_ns = clock()
        self.activity = Activity(now_ns)
        self._pace = TokenBucket(settings.max_audio_speed, settings.burst_s, now_ns)
        self._seconds_per_byte = 1 / options.input.bytes_per_second
        self._frame_bytes = options.input.frame_bytes
        self._decoder = StreamDecoder(options.input)
        self._undecoded = memoryview(b"")
        self._most_at_once = MOST_AT_ONCE - MOST_AT_ONCE % options.input.frame_bytes
        self._comes_as_kept = options.input == WIRE
        self._watch = FormatWatch(options.input, settings.watch_s, self.phase)
        self._too_fast = False
        self._refusals = refusals.RefusalRows()
        self._dropped_s = 0.0
        self._common = Common(
            id=session_id,
            pipeline=pipeline,
            encoder=encoder,
            outgoing=self.outgoing,
            options=options,
            settings=settings,
            observer=observer,
            clock=clock,
            changes=self._changes,
            recount=_weakly(self.recount),
        )
        rules = Endpointing(stop_s=options.silence_s)
        barge_in = None
        if options.barge_in and pipeline.frame_samples is not None:
            barge_in = BargeIn(
                pipeline.frame_samples, rules, settings.send_lead_s, clock, self._common.tell
            )
        self._answers = Answers(self._common, barge_in)
        self._listening = Listening(self._common, self._answers, rules, cpu_clock)
        self._overhearing = Overhearing(self._common, self._listening, self._answers)

    # What is known of it.

    @property
    def received(self) -> Position:
        """What came from the client."""
        return Position(messages=self.received_messages, samples=self.received_samples)

    @property
    def history(self) -> History:
        """What is remembered of the conversation."""
        return self._answers.history

    @property
    def busy(self) -> bool:
        """Whether a turn runs or waits."""
        return self._answers.busy or self._listening.unexamined > 0

    def behind_s(self, now_ns: int) -> float:
        """Seconds that the oldest utterance without an audible answer has waited for it."""
        return self._answers.behind_s(now_ns)

    def held_bytes(self) -> int:
        """Bytes of audio and messages that it holds."""
        return (
            len(self._undecoded)
            + self._listening.held_bytes
            + self._answers.held_bytes
            + self._common.encoder.held_bytes
            + self.outgoing.window.held_bytes
        )

    def overdue(self, now_ns: int) -> Close | None:
        """Why its connection should be ended, if it should; who waits for a reply is not idle."""
        if self.busy or self.outgoing.window.waiting:
            self.activity.wake(now_ns)
        return self.activity.overdue(now_ns, self._settings)

    # What the client does.

    def hear(self, payload: bytes) -> None:
        """Take the next audio, in the client's format.

        Of a long message this is the beginning: `hear_on` takes the rest, piece by piece.

        Raises:
            ProtocolError: It is no whole number of samples, holds what is no number, or does not
                fit into the utterance any more; what fitted was kept.
        """
        if self._undecoded:
            self._hear_out()
        samples, rest = divmod(len(payload), self._frame_bytes)
        if rest:
            raise refusals.odd_length(len(payload), self.options.input)
        if not samples:
            return
        self.received_samples += samples
        now_ns = self._clock()
        wait_s = self._pace.take(len(payload) * self._seconds_per_byte, now_ns)
        if wait_s or self._too_fast:
            self._slow_down(now_ns, wait_s)
        for fault in self._watch.feed(payload, now_ns):
            self.tell(Refused(fault))
        self.activity.audio_ns = now_ns
        if len(payload) <= MOST_AT_ONCE:
            self._append(payload)
        else:
            self._undecoded = memoryview(payload)
            self.hear_on()

    @property
    def hears_on(self) -> bool:
        """Whether there is more of the last message to hear."""
        return bool(self._undecoded)

    def hear_on(self) -> None:
        """Take the next piece of a long message.

        Raises:
            ProtocolError: As from `hear`; what is left of the message is dropped with it.
        """
        piece, rest = self._undecoded[: self._most_at_once], self._undecoded[self._most_at_once :]
        self._undecoded = memoryview(b"")
        self._append(bytes(piece), more=len(rest))
        self._undecoded = rest

    def _hear_out(self) -> None:
        """Take what a connection that was lost in the midst of a long message had left of it."""
        try:
            while self._undecoded:
                self.hear_on()
        except ProtocolError as error:
            self.refuse(error, None, binary=True)

    def end_utterance(self) -> None:
        """The client says that the utterance is over: it is answered.

        Raises:
            ProtocolError: Too many wait for their answer; this one goes on.
        """
        limit = _MOST_UNEXAMINED if self.options.server_ends else self._settings.max_waiting_turns
        if self._answers.waiting + self._listening.unexamined >= limit:
            raise refusals.too_many_turns(limit)
        self._hear_out()
        self._listening.append(self._decoder.flush().tobytes())
        for refused in self._refusals.end():
            self.tell(refused)
        self._dropped_s = 0.0
        self._listening.end()

    def cancel(self, turn: int, heard_samples: int) -> None:
        """Stop a reply, and remember only what was heard of it.

        Raises:
            ProtocolError: There is no such turn, or it is too long ago.
        """
        self._answers.cancel(turn, heard_samples)

    def cancel_running(self) -> None:
        """Stop the turn that runs: its client has been away for too long."""
        self._answers.cancel_running()

    # What the client is told outside of turns.

    def tell(self, event: Event) -> None:
        """Tell something at once, whether or not there is room for it."""
        self._common.tell(event)

    def refuse(self, error: ProtocolError, cause: object, *, binary: bool) -> None:
        """Tell that a message was refused: text always, of a row of binary ones the first."""
        for refused in self._refusals.refuse(error, cause, binary=binary):
            self.tell(refused)

    def accepted_text(self, now_ns: int) -> None:
        """A text message was accepted: the client lives, and a row of refused audio is over."""
        self.activity.control_ns = now_ns
        for refused in self._refusals.text_came():
            self.tell(refused)

    # How long the reader of its connection should wait.

    async def room(self) -> None:
        """Wait until less is held."""
        await self._changes.until(lambda: not self.must_wait)

    def recount(self) -> None:
        """Count anew what is held, for this session and the levels above it."""
        self._budget.hold(self.held_bytes())
        self.must_wait = self._budget.full
        # Acknowledgements lie behind what is not read: what was written counts until it is.
        unread = self.must_wait and self.outgoing.attached
        self.outgoing.window.until_acknowledged = self.options.acknowledges and not unread
        self.outgoing.is_read_late = unread or self._too_fast
        self._changes.tell()

    def acknowledge(self, received: Position) -> None:
        """Forget what the client has.

        Raises:
            ProtocolError: It claims to have what was never sent.
        """
        self.outgoing.acknowledge(received)
        self.recount()

    # Its connections.

    def attach(self, feed: Feed) -> None:
        """Let the connection of `feed` carry it from now on."""
        self.activity.wake(self._clock())
        self.outgoing.attach(feed)
        self._answers.attached()
        self._hear_out()
        self._listening.attached()
        self.recount()

    def detach(self) -> None:
        """Go on without a connection."""
        self.outgoing.detach()
        self.recount()

    def close(self) -> None:
        """It is over: nothing is held any more."""
        self.detach()
        self._budget.hold(0)
        # Its tasks end later, and count once more: that must not be held for ever.
        self._budget = Budget(self._budget.limit)

    # Its work.

    def work(self) -> tuple[Callable[[], Coroutine[Any, Any, None]], ...]:
        """What has to run for it, until cancelled."""
        if self._common.pipeline.frame_samples is None:
            return (self._answers.run,)
        work = [self._listening.run, self._answers.run]
        if self.options.partials:
            work.append(self._overhearing.tell)
        elif self._common.settings.work_ahead:
            work.append(self._overhearing.keep)
        return tuple(work)

    async def all_answered(self) -> None:
        """Wait until no turn runs or waits."""
        await self._changes.until(lambda: not self.busy)

    async def drained(self) -> None:
        """Wait until everything is answered and written, or its client is gone."""
        out = self.outgoing
        await self._changes.until(lambda: not out.attached or not self.busy and out.flushed)

    # Hearing.

    def _append(self, payload: bytes, more: int = 0) -> None:
        try:
            # What comes as it is kept needs no decoder: nearly all chunks of most callers.
            pcm = payload if self._comes_as_kept else self._decoder.feed(payload).tobytes()
        except AudioError as error:
            raise refusals.invalid_audio(error) from None
        dropped = self._listening.append(pcm)
        if dropped:
            self._dropped_s += dropped / SAMPLE_RATE + more * self._seconds_per_byte
            raise refusals.buffer_full(self._settings, self._dropped_s)
        if self._refusals.go_on:
            self._accepted(len(payload) * self._seconds_per_byte)

    def _accepted(self, seconds: float) -> None:
        """So much audio was accepted behind some that was refused, which may be over now."""
        for refused in self._refusals.accepted(seconds):
            self.tell(refused)
        if not self._refusals.go_on:
            self._dropped_s = 0.0

    def _slow_down(self, now_ns: int, wait_s: float) -> None:
        """Say once that audio comes too fast, until it no longer does.

        It does not while the bucket stays nearly empty: whoever waits no longer than told to sends
        a chunk without a wait now and then.
        """
        self.wait_until_ns = now_ns + round(wait_s * 1e9) if wait_s else 0
        if wait_s and not self._too_fast:
            self.tell(Refused(refusals.too_fast(self._settings)))
        self._too_fast = self.outgoing.is_read_late = not self._pace.half_full


def _weakly(method: Callable[[], None]) -> Callable[[], None]:
    """`method`, without a hold on whose it is: a session is freed when it is let go of."""
    weak = weakref.WeakMethod(method)

    def call() -> None:
        if (strong := weak()) is not None:
            strong()

    return call
