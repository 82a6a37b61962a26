"""One conversation: what comes in, what is to be answered, and what goes out.

A session may outlive its connection. It owns the utterance that comes in, the turns, the history,
the limits, and the stream to its client; it knows neither sockets nor dialects. A dialect calls
`hear`, `end_utterance` and `cancel`, and writes the events that come back in its own words.

The way of a chunk: `hear` decodes and appends it; `_examine` lets the pipeline's voice activity
detector judge whole frames, tells where speech begins and ends, and ends utterances where the
client wants that; `_answer` lets the pipeline answer one utterance after the other, and what the
pipeline gives goes through `_emit` to the stream.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol
from zlib import crc32

import numpy as np

from labkit.audio.formats import WIRE, AudioFormat, StreamDecoder
from labkit.audio.pcm import SAMPLE_RATE, Float32, chunks
from labkit.errors import AudioError, Close, EngineError, ErrorCode, ProtocolError
from labkit.protocol.replay import Position, ReplayWindow
from labkit.session import refusals
from labkit.session.ahead import WorkAhead
from labkit.session.barge_in import BargeIn
from labkit.session.events import (
    Cause,
    Encoder,
    Event,
    PartialTranscript,
    Refused,
    ReplyAudio,
    ReplyEnd,
    ReplyInterrupted,
    ReplyPaused,
    ReplyResumed,
    Sentence,
    SpeechStarted,
    SpeechStopped,
    Transcript,
    TurnOver,
)
from labkit.session.limits import Activity, Budget, TokenBucket
from labkit.session.outgoing import Changes, Feed, Outgoing
from labkit.session.partials import Partials
from labkit.session.playout import Pacer
from labkit.session.settings import ServerSettings
from labkit.session.turn import (
    Answered,
    Begin,
    Cancel,
    Effect,
    End,
    Fail,
    Flushed,
    Heard,
    Input,
    Over,
    Played,
    Remember,
    Said,
    Stop,
    TakenBack,
    Turn,
)
from labkit.trace import Mark, Trace
from labkit.voice import pipeline as voice
from labkit.voice.endpointing import AdaptiveWait, FixedWait, Pauses
from labkit.voice.hearing import Endpointing, SpeechTracker, Utterance, frames_in
from labkit.voice.history import Exchange, History
from labkit.voice.interruption import Verdict
from labkit.voice.prosody import WINDOW_SAMPLES, prosody
from labkit.voice.scheduling import Playback

_log = logging.getLogger(__name__)

_MOST_SILENCE_S: Final = 10.0
"""An open microphone sends silence for ever: so much of it is enough to keep."""
_MOST_UNEXAMINED: Final = 64
"""Utterances that a client may end before the detector has looked at them."""
MOST_AT_ONCE: Final = 32 * 1024
"""Bytes of a message that are decoded in one go, about a millisecond's work: one message may hold
131 s of µ-law, which would keep everybody else waiting."""
_PARTIALS_S: Final = 0.4
"""Least time between two partial transcripts: about the length of a word."""
_SPEECH_AT_ONCE: Final = 3
"""Frames of speech that are examined in one go: fewer than lie between the beginning of a pause and
the first decision about it."""
_SILENCE_AT_ONCE: Final = 12
_HUSH: Final = 33
"""Samples below -60 dBFS: quieter than a room with a microphone in it."""
_PIECE_S: Final = 0.2
_PIECE_BYTES: Final = 16 * 1024
"""Most audio of a reply that is put at a time: a `pong` never waits for long behind it, and no
more than that lies beyond the bound on what waits."""


class Carrier(Protocol):
    """The connection that carries a session at this moment."""

    def end(self, why: Close) -> None:
        """End the connection; the first reason is the one that counts."""
        ...


class Watch(Protocol):
    """Who looks whether audio is what it was declared to be."""

    def feed(self, payload: bytes, at_ns: int) -> Sequence[ProtocolError]:
        """Take a message before it is decoded; give what is new about it."""
        ...


MakeWatch = Callable[[AudioFormat, float, float], Watch]
"""From what was declared, the seconds to look at, and when to begin, 0 to 1, a watch."""


class Observer(Protocol):
    """Who counts what sessions do."""

    def turn_answered(self, trace: Trace) -> None:
        """A turn was answered, or nothing was heard in it."""
        ...

    def refused(self, code: ErrorCode, count: int) -> None:
        """So many messages were refused, or turns failed."""
        ...

    def underrun(self) -> None:
        """A client that plays at once has run out of reply audio."""
        ...

    def worked_ahead(self, *, used: bool) -> None:
        """An answer was begun in a pause; `used` where the pause was the end."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """What was agreed on with one client.

    Attributes:
        input: The audio that it sends.
        output: The audio that it hears.
        server_ends: The server decides where an utterance ends.
        silence_s: Silence behind speech that ends one then, in seconds.
        adaptive: How much silence that is follows the speaker, what was said and how it sounds;
            `silence_s` is for those of whom nothing is known.
        partials: The client is told what is heard of an utterance while it goes on.
        barge_in: Speech over a reply stops it, and replies are sent at the pace at which they are
            played; for servers that end utterances.
        acknowledges: The client says what it has, so nothing that it lacks is forgotten.
        resumable: What was written may have to be written again.
    """

    input: AudioFormat
    output: AudioFormat
    server_ends: bool = False
    silence_s: float = 0.5
    adaptive: bool = False
    partials: bool = False
    barge_in: bool = False
    acknowledges: bool = False
    resumable: bool = False


@dataclass(slots=True)
class _Ended:
    """An utterance that is over, and its turn from there on."""

    utterance: Utterance
    trace: Trace
    heard_s: float
    listening_cpu_ms: float
    turn: Turn = field(default_factory=lambda: Turn(0))
    ahead: WorkAhead | None = None
    sink: "_Sink | None" = None

    async def drop_ahead(self) -> None:
        """End what was begun ahead, where there is anything."""
        if self.ahead is not None:
            await self.ahead.drop()


class Session:
    """One conversation that may outlive its connection.

    Attributes:
        id: Names it in logs and in the engines' queues.
        options: What was agreed on.
        history: What is remembered; written by this class alone, from the turns' effects.
        outgoing: Everything that goes to the client.
        activity: When something last came.
        carrier: The connection that carries it at this moment.
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
        pipeline: voice.Pipeline,
        encoder: Encoder,
        options: SessionOptions,
        settings: ServerSettings,
        observer: Observer,
        *,
        budget: Budget,
        watch: MakeWatch | None = None,
        clock: Callable[[], int] = time.perf_counter_ns,
        cpu_clock: Callable[[], int] = time.process_time_ns,
    ) -> None:
        """Begin a conversation.

        Args:
            session_id: A name of its own.
            pipeline: What answers.
            encoder: Writes events in the words of the client's dialect.
            options: What was agreed on.
            settings: The limits that apply.
            observer: Told what is to be counted.
            budget: Bounds what is held, here and above.
            watch: Makes what looks whether the audio is as declared; None does not look.
            clock: Monotonic nanoseconds.
            cpu_clock: CPU nanoseconds of this process.
        """
        self.id = session_id
        self.options = options
        self.history = History(settings.history)
        self.carrier: Carrier | None = None
        self.phase = crc32(session_id.encode()) / 2**32
        self.received_messages = 0
        self.received_samples = 0
        self.wait_until_ns = 0
        self.must_wait = False
        self.outgoing = Outgoing(
            ReplayWindow(
                max_bytes=settings.replay_bytes,
                max_samples=options.output.samples(settings.replay_s),
                until_acknowledged=options.acknowledges,
            ),
            options.output.frame_bytes,
            keep=options.resumable,
        )
        self._pipeline = pipeline
        self._encoder = encoder
        self._settings = settings
        self._observer = observer
        self._budget = budget
        self._clock = clock
        self._cpu_clock = cpu_clock
        now_ns = clock()
        self.activity = Activity.starting(now_ns)
        self._pace = TokenBucket(
            per_second=settings.max_audio_speed, burst=settings.burst_s, now_ns=now_ns
        )
        self._seconds_per_byte = 1 / options.input.bytes_per_second
        self._frame_bytes = options.input.frame_bytes
        piece_s = min(_PIECE_S, _PIECE_BYTES / options.output.bytes_per_second)
        self._piece = round(piece_s * SAMPLE_RATE)
        self._decoder = StreamDecoder(options.input)
        self._undecoded = memoryview(b"")
        self._most_at_once = MOST_AT_ONCE - MOST_AT_ONCE % options.input.frame_bytes
        self._comes_as_kept = options.input == WIRE
        self._watch = watch and watch(options.input, settings.watch_s, self.phase)
        self._too_fast = False
        self._refusals = refusals.RefusalRow()

        self._frame = pipeline.frame_samples
        self._rules = Endpointing(stop_s=options.silence_s)
        self._tracker = self._fresh_tracker()
        self._utterance = self._fresh_utterance()
        self._cpu_at_start = 0
        self._unexamined: deque[_Ended] = deque()
        self._waiting: deque[_Ended] = deque()
        self._pauses = Pauses(
            (AdaptiveWait if options.adaptive else FixedWait)(options.silence_s),
            frame_s=(self._frame or 1) / SAMPLE_RATE,
            shortest=self._ahead_frames,
        )
        self._ahead: WorkAhead | None = None
        self._barge_in: BargeIn | None = None
        if options.barge_in and self._frame is not None:
            self._barge_in = BargeIn(self._frame, self._rules, settings.send_lead_s, clock)
        self._answering: _Ended | None = None
        self._running: asyncio.Task[None] | None = None
        self._turns: dict[int, Turn] = {}
        self._turns_begun = 0
        self._audio = asyncio.Event()
        self._changes = Changes()

    # What is known of it.

    @property
    def received(self) -> Position:
        """What came from the client."""
        return Position(messages=self.received_messages, samples=self.received_samples)

    @property
    def busy(self) -> bool:
        """Whether a turn runs or waits."""
        return self._answering is not None or bool(self._waiting) or bool(self._unexamined)

    def behind_s(self, now_ns: int) -> float:
        """Seconds that the oldest utterance without an audible answer has waited for it."""
        if self._answering is None or Mark.TTS_FIRST_AUDIO in self._answering.trace.marks:
            return 0.0
        return (now_ns - self._answering.trace.marks[Mark.END_STREAM_RECEIVED]) / 1e9

    def held_bytes(self) -> int:
        """Bytes of audio and messages that it holds."""
        ended = [*self._unexamined, *self._waiting, *([self._answering] if self._answering else [])]
        return (
            self._utterance.nbytes
            + len(self._undecoded)
            + sum(one.utterance.nbytes for one in ended)
            + sum(one.held_bytes for one in self._aheads())
            + sum(one.sink.held_bytes for one in ended if one.sink is not None)
            + (0 if self._barge_in is None else self._barge_in.held_bytes)
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
        if self._watch is not None:
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
        if len(self._waiting) + len(self._unexamined) >= limit:
            raise refusals.too_many_turns(limit)
        self._hear_out()
        self._append_pcm(self._decoder.flush().tobytes())
        for refused in self._refusals.end():
            self.tell(refused)
        ended = self._end(self._utterance)
        self._utterance = self._fresh_utterance()
        if self._frame is None:
            self._hand_over(ended)
        else:
            # Only once all of it was examined: what speech is told must not depend on how fast
            # the audio came.
            self._unexamined.append(ended)
            self._audio.set()

    def cancel(self, turn: int, heard_samples: int) -> None:
        """Stop a reply, and remember only what was heard of it.

        Raises:
            ProtocolError: There is no such turn, or it is too long ago.
        """
        if (known := self._turns.get(turn)) is None:
            raise refusals.unknown_turn(turn, len(self._turns))
        self._perform(known, known.step(Cancel(heard_samples)))
        if self._barge_in is not None and self._barge_in.turn is known:
            self._barge_in.end()
            self._changes.tell()

    def cancel_running(self) -> None:
        """Stop the turn that runs: its client has been away for too long."""
        if self._answering is not None and not self._answering.turn.over:
            turn = self._answering.turn
            self._perform(turn, turn.step(Cancel()))

    # What the client is told outside of turns.

    def tell(self, event: Event) -> None:
        """Tell something at once, whether or not there is room for it.

        Raises:
            Close: The client is told more than it takes in.
        """
        if isinstance(event, Refused):
            self._observer.refused(event.error.code, event.count)
            if self.outgoing.window.is_overfull:
                raise refusals.untaken_refusals()
        for message in self._encoder.encode(event):
            self.outgoing.put_now(message)

    def refuse(self, error: ProtocolError, cause: Cause | None, *, binary: bool) -> None:
        """Tell that a message was refused: text always, of a row of binary ones the first.

        Raises:
            Close: The client is told more than it takes in.
        """
        if binary:
            told = self._refusals.refuse(error, cause)
        else:
            told = [*self._refusals.text_came(), Refused(error, cause=cause)]
        for refused in told:
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
        self._changes.tell()

    def acknowledge(self, received: Position) -> None:
        """Forget what the client has.

        Raises:
            ProtocolError: It claims to have what was never sent.
        """
        self.outgoing.acknowledge(received)
        self.recount()

    # Its connections.

    def attach(self, carrier: Carrier, feed: Feed) -> None:
        """Let `carrier` carry it from now on; `feed` takes what it has to send."""
        self.carrier = carrier
        self.activity.wake(self._clock())
        self.outgoing.attach(feed)

    def detach(self) -> None:
        """Go on without a connection."""
        self.carrier = None
        self.outgoing.detach()

    def close(self) -> None:
        """It is over: nothing is held any more."""
        self.detach()
        self._budget.hold(0)

    # Its work.

    def work(self) -> tuple[Callable[[], Coroutine[Any, Any, None]], ...]:
        """What has to run for it, until cancelled."""
        if self._frame is None:
            return (self._answer_all,)
        if self.options.partials:
            return (self._listen, self._overhear, self._answer_all)
        return (self._listen, self._answer_all)

    async def all_answered(self) -> None:
        """Wait until no turn runs or waits."""
        await self._changes.until(lambda: not self.busy)

    async def drained(self) -> None:
        """Wait until everything is answered and written."""
        await self.all_answered()
        await self.outgoing.flushed()

    # Hearing.

    def _append(self, payload: bytes, more: int = 0) -> None:
        try:
            # What comes as it is kept needs no decoder: nearly all chunks of most callers.
            pcm = payload if self._comes_as_kept else self._decoder.feed(payload).tobytes()
        except AudioError as error:
            raise refusals.invalid_audio(error) from None
        dropped = self._append_pcm(pcm)
        if dropped:
            seconds = dropped / SAMPLE_RATE + more * self._seconds_per_byte
            raise refusals.buffer_full(self._settings, seconds)
        if self._refusals.goes_on:
            for refused in self._refusals.end():
                self.tell(refused)

    def _append_pcm(self, pcm: bytes) -> int:
        utterance = self._utterance
        if not len(utterance):
            self._cpu_at_start = self._cpu_clock()
        before = utterance.nbytes
        dropped = utterance.append_s16le(pcm)
        if utterance.nbytes != before:  # it grows by blocks, so this is once a second
            self._budget.hold(self.held_bytes())
            self.must_wait = self._budget.full
        # Of what decides nothing now, several frames are examined at a time.
        if utterance.unexamined() >= self._worth_a_look(pcm):
            self._audio.set()
        return dropped

    def _worth_a_look(self, pcm: bytes) -> int:
        """So many unexamined frames are examined at once.

        No decision depends on it, and none that somebody waits for comes later: in the midst of
        speech a pause has only begun, and before it near silence is followed by more.
        """
        tracker = self._tracker
        if tracker.pause or (self._barge_in is not None and self._barge_in.contended):
            return 1
        if tracker.speaking:
            return _SPEECH_AT_ONCE
        samples = np.frombuffer(pcm, "<i2")
        quiet = tracker.quiet and len(samples) and -_HUSH < samples.min() <= samples.max() < _HUSH
        return _SILENCE_AT_ONCE if quiet else 1

    def _slow_down(self, now_ns: int, wait_s: float) -> None:
        """Say once that audio comes too fast, until it no longer does."""
        self.wait_until_ns = now_ns + round(wait_s * 1e9) if wait_s else 0
        if wait_s and not self._too_fast:
            self.tell(Refused(refusals.too_fast(self._settings)))
        self._too_fast = wait_s > 0

    def _fresh_utterance(self) -> Utterance:
        # Where the server decides, one buffer may hold several utterances until the detector has
        # looked at them; then the budget is what bounds it.
        seconds = self._settings.max_utterance_s
        if self.options.server_ends:
            seconds += self._settings.max_held_bytes / (2 * SAMPLE_RATE)
        return Utterance(round(seconds * SAMPLE_RATE), self._frame)

    # Endpointing: the one reader of what the detector says.

    async def _listen(self) -> None:
        """Examine audio while it comes in; what piled up meanwhile is taken in one go."""
        try:
            while True:
                await self._more_audio()
                self._audio.clear()
                await self._examine()
        finally:
            await self._drop_ahead()

    async def _more_audio(self) -> None:
        """Wait for audio.

        A client whose microphone was switched off speaks no longer, though its silence never comes:
        the reply that was paused for it goes on. A lost connection may bring the rest, and waits.
        """
        while not self._audio.is_set():
            contended = self._barge_in is not None and self._barge_in.contended
            try:
                async with asyncio.timeout(self._settings.muted_s if contended else None):
                    await self._audio.wait()
            except TimeoutError:
                if self._barge_in is not None and self._barge_in.contended and self.carrier:
                    self._play_on(self._barge_in, "")

    async def _examine(self) -> None:
        """Examine all that came, in order, and hand on the utterances that are over."""
        while True:
            ended = self._unexamined[0] if self._unexamined else None
            utterance = self._utterance if ended is None else ended.utterance
            left = utterance.unexamined(ended=ended is not None)
            if left and await self._detect(utterance, ended=ended is not None):
                await self._follow(utterance)
                if self.options.partials:
                    self._changes.tell()
                continue
            if ended is None:
                return
            # All of it was judged, or cannot be: then its turn fails, and says so.
            await self._drop_ahead()
            self._interrupt()  # its client wants an answer
            await self._room_for_turn()
            self._tracker = self._fresh_tracker()
            self._pauses.begin_anew()  # the next utterance begins where its client likes
            self._hand_over(self._unexamined.popleft())

    async def _detect(self, utterance: Utterance, *, ended: bool) -> bool:
        """Let the pipeline judge what has not been judged of `utterance`; gives whether it did."""
        try:
            await self._pipeline.listen(self.id, utterance, ended=ended)
        except EngineError as error:
            _log.error("session %s: %s", self.id, error)
            return False
        return True

    async def _follow(self, utterance: Utterance) -> None:
        """Tell where speech begins and ends in the frames that were just judged.

        Frame by frame, so that nothing depends on how many were judged at a time. A decision is
        about the frames up to it: what came behind them is examined as what it is, the next
        utterance.
        """
        tracker, frame = self._tracker, self._frame or 1

        def next_frame() -> int:
            return tracker.frames - utterance.dropped_samples // frame

        while (index := next_frame()) < len(utterance.probabilities):
            if self._barge_in is not None and self._barge_in.expects_echo(utterance, index):
                if self._barge_in.is_echo(utterance, index):
                    utterance.probabilities[index] = 0.0
                await asyncio.sleep(0)  # a look takes a millisecond, and a burst has many frames
            stopped = change = None
            for change in tracker.feed([utterance.probabilities[index]]):
                at_s = change.frame * frame / SAMPLE_RATE
                self.tell(SpeechStarted(at_s) if change.speaking else SpeechStopped(at_s))
                stopped = None if change.speaking else change.frame
            self._pauses.follow(tracker.pause, change)
            if self._barge_in is not None:
                if change is not None and change.speaking:
                    self._contend(self._barge_in, change.frame)
                    utterance.drop_front(self._barge_in.echo_before(utterance, change.frame))
                if await self._contest(self._barge_in, utterance, stopped=stopped is not None):
                    return
            if self.options.server_ends:
                dropped = utterance.dropped_samples // frame
                held = tracker.frames - dropped
                if stopped is not None:
                    # As much silence as was heard ahead, so that it makes no difference.
                    heard = min(held, stopped - dropped + self._ahead_frames)
                    await self._cut(utterance, held, heard)
                    return
                if held >= self._longest_frames:
                    self._interrupt()
                    await self._drop_ahead()
                    self._pauses.begin_anew()
                    await self._cut(utterance, held, held)
                    return
                await self._follow_pause(utterance, held)
                self._drop_silence(utterance)

    async def _follow_pause(self, utterance: Utterance, held: int) -> None:
        """Begin to answer in a pause that may be the end, and drop it where speech goes on."""
        pause = self._tracker.pause
        if pause == self._ahead_frames:
            self._work_ahead(utterance, held)
            if self.options.adaptive:
                # Waited for, so that what is decided depends on the audio alone. The reply could
                # not come before the transcript anyway.
                said = None if self._ahead is None else await self._ahead.said()
                end = held * (self._frame or 1)
                sound = prosody(utterance.audio(max(0, end - WINDOW_SAMPLES), end))
                wait_s = self._pauses.policy.wait_s(said, sound)
                self._tracker.stop_frames = frames_in(wait_s, self._frame or 1)
        elif not pause:
            await self._drop_ahead()

    def _work_ahead(self, utterance: Utterance, held: int) -> None:
        if self._settings.work_ahead and not self.busy:
            said = utterance.beginning(held)
            turn = voice.Turn(self.id, said, self.history, clock=self._clock)
            self._ahead = WorkAhead(self._pipeline, turn)
            self.recount()

    async def _drop_ahead(self) -> None:
        if self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            self._observer.worked_ahead(used=False)
            await ahead.drop()
            self.recount()

    def _aheads(self) -> list[WorkAhead]:
        """Every answer that is worked on ahead, or was begun so."""
        ended = [*self._waiting, *([self._answering] if self._answering else [])]
        begun = [self._ahead, *(one.ahead for one in ended)]
        return [one for one in begun if one is not None]

    def _drop_silence(self, utterance: Utterance) -> None:
        """Forget long silence before the first word, but for what recognition wants of it."""
        frame = self._frame or 1
        silent = self._tracker.leading_silence - utterance.dropped_samples // frame
        if silent >= frames_in(_MOST_SILENCE_S, frame):
            utterance.drop_front(silent - frames_in(self._rules.pad_s, frame))

    async def _cut(self, utterance: Utterance, frames: int, heard: int) -> None:
        """End `utterance` after so many frames; the rest is the next one, and unexamined.

        Of those frames, the last ones may be silence that nobody needs to hear.
        """
        await self._room_for_turn()
        self._split(utterance, frames)
        utterance.split(heard * (self._frame or 1))
        if self._barge_in is not None:
            self._barge_in.learn(utterance)
        ended = self._end(utterance)
        ended.ahead = await self._confirmed()
        if ended.ahead is not None:
            ended.trace = ended.ahead.turn.trace
            utterance.forget()
        self._hand_over(ended)

    def _split(self, utterance: Utterance, frames: int) -> None:
        """Leave so many frames in `utterance`; what comes behind them is the next one."""
        self._tracker = self._fresh_tracker()
        if self._barge_in is not None:
            self._barge_in.next_utterance()
        rest = utterance.split(frames * (self._frame or 1))
        # Looked up only now: the client may have ended the utterance meanwhile.
        if self._utterance is utterance:
            self._utterance = rest
        else:
            self._unexamined[0].utterance = rest

    async def _confirmed(self) -> WorkAhead | None:
        """What was worked on ahead, where it is of use: the past has not changed meanwhile."""
        if self._ahead is None or self.busy or self._ahead.context != tuple(self.history):
            await self._drop_ahead()
            return None
        ahead, self._ahead = self._ahead, None
        self._observer.worked_ahead(used=True)
        ahead.confirm()
        return ahead

    async def _room_for_turn(self) -> None:
        """Wait until one more utterance may wait; meanwhile audio is kept, and read later.

        Refusing it instead would lose speech that came in a burst, as after a resume.
        """
        if self.options.server_ends:
            most = self._settings.max_waiting_turns
            await self._changes.until(lambda: len(self._waiting) < most)

    @property
    def _longest_frames(self) -> int:
        return int(self._settings.max_utterance_s * SAMPLE_RATE) // (self._frame or 1)

    @property
    def _ahead_frames(self) -> int:
        return frames_in(self._rules.ahead_s, self._frame or 1)

    def _fresh_tracker(self) -> SpeechTracker:
        return SpeechTracker(self._frame or 1, self._rules)

    # Barge-in.

    def _contend(self, barge_in: BargeIn, frame: int) -> None:
        """Somebody began to speak: a reply that plays is paused, whatever it is that they say."""
        if barge_in.contend(frame) and barge_in.turn is not None:
            self.tell(ReplyPaused(barge_in.turn.number))

    async def _contest(self, barge_in: BargeIn, utterance: Utterance, *, stopped: bool) -> bool:
        """Look whether what is said over a reply ends it; gives whether it was nothing at all.

        Then it is dropped: nobody wants an answer to a cough.
        """
        tracker = self._tracker
        due = barge_in.is_due(tracker.frames, tracker.pause, self._ahead_frames)
        if not barge_in.contended or not (stopped or due):
            return False
        held = tracker.frames - utterance.dropped_samples // (self._frame or 1)
        over = stopped or tracker.pause > 0
        spoken = utterance.beginning(held)
        turn = barge_in.turn
        said = await self._said(spoken)
        if barge_in.turn is not turn:  # its client has cancelled it meanwhile
            return False
        verdict = barge_in.judge(spoken, said, tracker.frames, over=over)
        if verdict is Verdict.ENDS:
            self._interrupt()
        if verdict is not Verdict.GOES_ON:
            return False
        if not stopped:
            at = tracker.frames - tracker.pause
            self.tell(SpeechStopped(at * (self._frame or 1) / SAMPLE_RATE))
        self._play_on(barge_in, said)
        self._pauses.begin_anew()
        self._split(utterance, held)
        return True

    async def _said(self, utterance: Utterance) -> str:
        """The words of an utterance that may go on, which somebody waits for."""
        now_ns = self._clock()
        stretches = self._pipeline.stretches(utterance)
        try:
            words = [
                await self._pipeline.overhear(
                    self.id, utterance.audio(one.start, one.end), since_ns=now_ns
                )
                for one in stretches
            ]
        except EngineError as error:  # its turn will fail, and say so
            _log.warning("session %s: %s", self.id, error)
            return ""
        return " ".join(words)

    def _play_on(self, barge_in: BargeIn, said: str) -> None:
        paused_ns = barge_in.go_on()
        if barge_in.turn is not None:
            self.tell(ReplyResumed(barge_in.turn.number, said))
        if self._answering is not None and self._answering.sink is not None:
            self._answering.sink.postpone(paused_ns)
        self._changes.tell()

    def _interrupt(self) -> None:
        """End the reply that somebody speaks over, if anybody does."""
        if self._barge_in is None or not self._barge_in.contended:
            return
        turn = self._barge_in.turn
        heard = round(self._barge_in.end() * self.options.output.sample_rate)
        self._changes.tell()
        if turn is None:
            return
        if not turn.over:
            turn.step(TakenBack(self.outgoing.take_back(turn.samples)))
        self.tell(ReplyInterrupted(turn.number, min(heard, turn.samples)))
        self._perform(turn, turn.step(Cancel(heard)))

    # Partial transcripts.

    async def _overhear(self) -> None:
        """Tell what is heard of utterances that go on: of each moment the latest, or nothing."""
        partials = Partials(self._pipeline, self.id, self._utterance)
        while True:
            await self._changes.until(partial(self._may_overhear, partials))
            utterance = self._utterance
            if partials.utterance is not utterance:
                partials = Partials(self._pipeline, self.id, utterance)
            came, begun_ns = utterance.position, self._clock()
            try:
                text, confirmed = await partials.hear()
            except EngineError as error:  # its turn will fail, and say so
                _log.warning("session %s: %s", self.id, error)
                text, confirmed = "", ""
            # For half of the time at most, so that what somebody waits for is not far behind it.
            took_s = (self._clock() - begun_ns) / 1e9
            rest_s = max(_PARTIALS_S - took_s, took_s)
            partials.due = self._tracker.frames + frames_in(rest_s, self._frame or 1)
            if text and self._utterance is utterance and not self.outgoing.window.is_overfull:
                behind_s = (utterance.position - came) / SAMPLE_RATE
                number = self._turns_begun + 1
                self.tell(PartialTranscript(number, text, confirmed, behind_s))

    def _may_overhear(self, partials: Partials) -> bool:
        """Whether somebody speaks, does not pause for long, and has said something new."""
        speaking = self._tracker.speaking and self._tracker.pause < self._ahead_frames
        new = self._tracker.frames >= partials.due or self._utterance is not partials.utterance
        return speaking and new and not self._unexamined

    # Turns: the one writer of the history.

    def _end(self, utterance: Utterance) -> _Ended:
        cpu_ms = (self._cpu_clock() - self._cpu_at_start) / 1e6 if len(utterance) else 0.0
        ended = _Ended(utterance, Trace(), utterance.seconds, cpu_ms)
        ended.trace.mark(Mark.END_STREAM_RECEIVED, self._clock())
        return ended

    def _hand_over(self, ended: _Ended) -> None:
        """Let an utterance wait for its answer, as the next turn."""
        self._turns_begun += 1
        ended.turn = turn = Turn(self._turns_begun)
        turn.step(End())
        self._turns[turn.number] = turn
        self._turns.pop(turn.number - self._settings.history - self._settings.max_waiting_turns, 0)
        self._waiting.append(ended)
        self._changes.tell()

    async def _answer_all(self) -> None:
        try:
            while True:
                await self._changes.until(lambda: self._waiting)
                self._answering = ended = self._waiting.popleft()
                try:
                    if not ended.turn.over:
                        await self._answer(ended)
                finally:
                    # Cancelled or not, begun or not: nobody else ends what was begun ahead.
                    await ended.drop_ahead()
                    self._answering = None
                    self.recount()
                    self._changes.tell()
        finally:
            for waiting in self._waiting:
                await waiting.drop_ahead()

    async def _answer(self, ended: _Ended) -> None:
        """Answer one utterance in a task of its own, which a cancel can stop at any moment."""
        # Begun before the task runs: a cancel may come between.
        ended.turn.step(Begin())
        self._running = task = asyncio.create_task(self._give(ended))
        try:
            await asyncio.wait([task])
        finally:
            self._running = None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, EngineError):
            _log.error("session %s: turn %d: %s", self.id, ended.turn.number, error)
            if not ended.turn.over:
                self._perform(ended.turn, ended.turn.step(Fail(refusals.not_answered(error))))
        elif error is not None:
            raise error

    async def _give(self, ended: _Ended) -> None:
        turn, ahead = ended.turn, ended.ahead
        if (barge_in := self._barge_in) is not None:
            # The reply before it may be over and still be played: its client waits for a verdict.
            await self._changes.until(lambda: not barge_in.contended)
            barge_in.begin(turn)
        if ahead is not None:
            asked = ahead.turn
        else:
            asked = voice.Turn(self.id, ended.utterance, self.history, ended.trace, self._clock)
            # Due from now, not from its end: turns that wait for each other claim no more for it.
            asked.playback = Playback(self._clock())
        ended.sink = sink = _Sink(self, turn, asked, barge_in)
        try:
            exchange = await (ahead.deliver(sink) if ahead else self._pipeline.answer(asked, sink))
            await sink.drain()
        finally:
            await sink.drop()
        turn.step(Answered(exchange))
        # The last audio may have to wait for room. Until then the turn is not over, so that a
        # cancel that comes meanwhile still stops it.
        await self._emit(turn, ReplyEnd(turn.number))
        self._perform(turn, turn.step(Flushed()))
        self._observer.turn_answered(ended.trace)
        self._log_turn(ended)

    def _perform(self, turn: Turn, effects: tuple[Effect, ...]) -> None:
        for effect in effects:
            match effect:
                case Remember(exchange):
                    self.history.record(turn.number, exchange)
                    if self._settings.log_transcripts:
                        self._log_words(exchange)
                case Stop():
                    if self._running is not None and self._answers(turn):
                        self._running.cancel()
                case Over():
                    self._tell_over(turn, effect)

    def _answers(self, turn: Turn) -> bool:
        return self._answering is not None and self._answering.turn is turn

    def _tell_over(self, turn: Turn, over: Over) -> None:
        if over.error is not None:
            self._observer.refused(over.error.code, 1)
            for message in self._encoder.encode(Refused(over.error)):
                self.outgoing.put_now(message)
        ended = self._answering if self._answers(turn) else None
        marks = {} if ended is None else {m.value: at for m, at in ended.trace.marks.items()}
        ahead = {} if ended is None else {m.value: at for m, at in ended.trace.ahead.items()}
        cpu_ms = 0.0 if ended is None else ended.listening_cpu_ms
        event = TurnOver(turn.number, over.status, over.text, turn.samples, marks, cpu_ms, ahead)
        for message in self._encoder.encode(event):
            self.outgoing.put_now(message)

    async def _emit(self, turn: Turn, event: Event) -> None:
        """Put what tells of `event` into the stream, as soon as there is room."""
        for message in self._encoder.encode(event):
            samples = await self.outgoing.put(message)
            if samples:
                turn.step(Played(samples))
        self.recount()

    def _log_words(self, exchange: Exchange) -> None:
        _log.info("session %s: %r, answered %r", self.id, exchange.user, exchange.assistant)

    def _log_turn(self, ended: _Ended) -> None:
        wait_ms = ended.trace.between_ms(Mark.END_STREAM_RECEIVED, Mark.TTS_FIRST_AUDIO)
        after = "no reply" if wait_ms is None else f"first sound after {wait_ms:.0f} ms"
        _log.info(
            "session %s: turn %d: %.1f s heard, %s",
            self.id,
            ended.turn.number,
            ended.heard_s,
            after,
        )


class _Sink:
    """Where the pipeline puts what it makes of one turn: into the turn, and to the client.

    Where the client may speak over it, the reply goes out at the pace at which it is played.
    """

    def __init__(
        self, session: Session, turn: Turn, asked: voice.Turn, barge_in: BargeIn | None
    ) -> None:
        self._session = session
        self._turn = turn
        self._asked = asked
        self._first = True
        self._barge_in = barge_in
        self._pacer: Pacer | None = None
        if barge_in is not None:
            clock, changes = session._clock, session._changes
            self._pacer = Pacer(barge_in.playout, self._send, changes, clock)

    @property
    def held_bytes(self) -> int:
        return 0 if self._pacer is None else self._pacer.held_bytes

    async def transcript(self, text: str) -> None:
        if self._take(Heard(_text(text, "the transcript"))):
            await self._session._emit(self._turn, Transcript(self._turn.number, text))
            for start_s, end_s in self._asked.missed:
                self._session.tell(Refused(refusals.not_understood(start_s, end_s)))

    async def text(self, sentence: str) -> None:
        first, self._first = self._first, False
        text = _text(sentence, "a sentence of the reply")
        await self._put(Sentence(self._turn.number, text, first))

    async def audio(self, samples: Float32) -> None:
        if samples.ndim != 1 or not np.isfinite(samples).all():
            raise EngineError("the reply's audio is no row of finite numbers")
        if self._asked.playback.produced(len(samples) / SAMPLE_RATE, self._session._clock()):
            self._session._observer.underrun()
        for piece in chunks(samples, self._session._piece):
            await self._put(ReplyAudio(self._turn.number, piece))

    def postpone(self, paused_ns: int) -> None:
        """The client did not play for so long: the rest is due that much later."""
        self._asked.playback.postpone(paused_ns)

    async def drain(self) -> None:
        """Wait until all of it went out."""
        if self._pacer is not None:
            await self._pacer.drain()

    async def drop(self) -> None:
        """Let nothing more of it out."""
        if self._pacer is not None:
            await self._pacer.drop()

    async def _put(self, part: Sentence | ReplyAudio) -> None:
        if self._pacer is None:
            await self._send(part)
        else:
            await self._pacer.put(part)

    async def _send(self, part: Sentence | ReplyAudio) -> None:
        """Let the next part out, unless the turn is over.

        An engine may run a step more after a cancel.
        """
        if isinstance(part, Sentence) and not self._take(Said(part.text)):
            return
        if self._turn.over:
            return
        await self._session._emit(self._turn, part)
        if self._barge_in is not None and isinstance(part, ReplyAudio):
            self._barge_in.sent(part.samples)

    def _take(self, given: Input) -> bool:
        """Step, unless the turn is over."""
        if self._turn.over:
            return False
        self._turn.step(given)
        return True


def _text(value: object, what: str) -> str:
    """`value`, if it can be written into a message.

    Raises:
        EngineError: It is no text, or holds half a character.
    """
    if not isinstance(value, str):
        raise EngineError(f"{what} is no text, but {type(value).__name__}")
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise EngineError(f"{what} holds half a character (a lone surrogate)")
    return value
