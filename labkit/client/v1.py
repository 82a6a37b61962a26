"""A client of labkit.v1 whose session survives lost connections.

What the server has not acknowledged is kept in a ring. When the connection is lost, the client
connects again, resumes, sends what the server lacks and gets what it lacks itself: whoever uses
the client sees one stream of events without a gap. A `Conversation` is both streams of the
session, whatever carries them; a `SessionClient` gives it one connection after the other.
"""

import asyncio
import json
import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Self, TypeVar, Unpack

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from labkit.audio.formats import AudioFormat, StreamEncoder
from labkit.audio.pcm import Float32
from labkit.client.answers import Deadlines, TurnSoFar, Unknown
from labkit.client.dial import Backoff, Reach, dial, hang_up, in_words, shown, why_closed
from labkit.client.speech import Clock, speak
from labkit.errors import ClientError, CloseCode, ConnectError, ErrorCode, ProtocolError
from labkit.protocol import v1
from labkit.protocol.replay import Missing, Position, ReplayWindow

E = TypeVar("E", bound=BaseException)

_log = logging.getLogger(__name__)

_KEEPALIVE_S: Final = 20.0
"""A connection that is silent for so long is asked for a sign of life, and given as long again."""
_EVENTS: Final = 64
"""Events that may wait for whoever uses the client; then the server has to wait."""
_ACK_BYTES: Final = 16 * 1024
_TEXT_WEIGHT: Final = 512
"""What a text message counts for: short ones must be acknowledged, too."""
_LOOKS: Final = 10
"""Looks for progress within one deadline, so a deadline is a tenth late at most."""
_NOT_TAKEN: Final = frozenset({1002, 1007, 1009})
"""Codes that this side closes with: what it cannot take would come again over the next one."""
_AS_AGREED: Final = "keep to the protocol: /schema.json, labkit/protocol/PROTOCOL.md"


# -- what is told -----------------------------------------------------------------------------


class UnknownError(v1.Error):
    """An error of a code that this client does not know."""

    code: str  # type: ignore[assignment] # wider on purpose
    """The code, as it came."""


TextMessage = v1.ServerMessage | Unknown
"""A text message of the server."""


def read_message(text: str) -> TextMessage:
    """Understand a text message of the server.

    Raises:
        ProtocolError: It is no message, or one of a known type that is wrong.
    """
    try:
        return v1.decode_server(text)
    except ProtocolError as wrong:
        if wrong.code is ErrorCode.UNKNOWN_TYPE:
            fields = json.loads(text)
            if isinstance(kind := fields.get("type"), str):
                return Unknown(kind, fields)
        with suppress(ValueError):  # an error of a code that is new
            return UnknownError.model_validate_json(text)
        # Where the code is no text at all, the list of all known codes does not help.
        raise ProtocolError(wrong.code, f"{wrong!s:.200}", wrong.hint) from None


@dataclass(frozen=True, slots=True)
class ReplyAudio:
    """A piece of a spoken reply."""

    start: int
    """Position of its first sample among all reply audio of the session."""
    payload: bytes
    """The audio, in the format that was agreed on."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The connection was lost, and is back."""

    seconds: float
    """How long it was gone."""
    reason: str
    """Why it was lost."""


Event = TextMessage | ReplyAudio | Interrupted | Missing
"""What a client is told; of what is missing, the server could not send it again."""


class Lost(Exception):  # noqa: N818 - it is mended, or told as another error
    """A connection is gone, and another one may go on.

    Attributes:
        retry_s: The least wait that the server asked for.
    """

    def __init__(self, reason: str, retry_s: float = 0.0) -> None:
        """Say why."""
        super().__init__(reason)
        self.retry_s = retry_s


async def begin(
    socket: ClientConnection, start: v1.SessionStart, within_s: float
) -> v1.SessionStarted:
    """Begin or resume a session over `socket`, and wait for the server's word.

    Raises:
        Lost: It did not come in time, or the connection was lost.
        ClientError: The server refuses, or answers something else.
    """
    try:
        async with asyncio.timeout(within_s):
            await socket.send(start.encode())
            answer = await socket.recv()
    except TimeoutError:
        raise Lost(
            "the server took the connection and did not answer 'session.start' within "
            f"{within_s:.3g} s"
        ) from None
    except ConnectionClosed as closed:
        raise _lost(closed) from closed
    message = None
    if isinstance(answer, str):
        with suppress(ProtocolError):  # told below, with what came
            message = read_message(answer)
    match message:
        case v1.SessionStarted() as started:
            return started
        case v1.Error() as error:
            told = f"{error.code!s}: {error.message}. {error.hint}".rstrip(". ")
            raise ClientError(in_words(told))
    unsure = "" if socket.subprotocol else "; it agreed to no subprotocol"
    raise ClientError(f"the server answered 'session.start' with {answer[:80]!r}{unsure}")


# -- both streams of a session ------------------------------------------------------------------


class Conversation:
    """Both streams of a session, and what the server owes.

    Whoever speaks adds to the stream up and waits while its window is full; whoever listens takes
    events. `carry` works at the other ends of both, over the connection of the moment.

    The server owes acknowledgements of what it was sent, and an answer for each utterance that
    ended. While it owes nothing, it may be silent for as long as the session lives.

    Attributes:
        window: What goes up, kept until it was acknowledged.
        received: What was handed on of what came down; after a lost connection the rest comes
            again.
        failure: Why the session is over; None while it lives.
        attached: A connection carries it.
        worked: Something of the conversation came over the latest one.
        progress_ns: When the last sign of progress came.
        turns: Utterances that ended, and have no `response.done` yet.
        waiting: Calls that wait for an answer, whoever ends the utterance.
        so_far: What went out and what came of the turn, for words.
    """

    def __init__(
        self, window: ReplayWindow, received: Position, clock: Clock, within_s: float = 60.0
    ) -> None:
        """Send what `window` holds, and go on behind `received`.

        Args:
            window: What goes up.
            received: What is known of what comes down.
            clock: What progress is timed by.
            within_s: How long the server may owe something and give no sign, in seconds.
        """
        self.window = window
        self.received = received
        self.failure: ClientError | None = None
        self.attached = self.worked = False
        self.progress_ns = clock.now_ns()
        self.turns = self.waiting = 0
        self.so_far = TurnSoFar()
        self._clock = clock
        self._within_s = within_s
        self._urgent: deque[str] = deque()
        self._acknowledgement: str | None = None
        self._unacknowledged = 0
        self._events: deque[Event] = deque()
        self._changed = asyncio.Event()

    # -- up: from whoever speaks to the server ------------------------------------------------

    async def put(self, payload: str | bytes, samples: int = 0) -> None:
        """Add a numbered message, or `samples` samples of audio (per channel), once there is room.

        Raises:
            ClientError: The session is over, or nobody takes what came, which holds up the
                acknowledgements that make room.
        """
        self.expect_more()
        while self.failure is None and not self.window.has_room:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._within_s):
                    await self._until(lambda: self.failure or self.window.has_room)
            if self.is_full and not self.window.has_room:
                raise ClientError(
                    f"no room for {self._within_s:.3g} s: {_EVENTS} events wait that nobody takes, "
                    "and the acknowledgements behind them; take events while you speak"
                )
        self.require_alive()
        if isinstance(payload, str):
            self.window.add_text(payload)
        else:
            self.window.add_audio(payload, samples)
        self._tell()

    async def put_urgent(self, payload: str) -> None:
        """Send an unnumbered message before everything that waits; it is lost with a connection.

        Raises:
            ClientError: The server reads nothing.
        """
        self._urgent.append(payload)
        self._tell()
        try:
            async with asyncio.timeout(self._within_s):
                await self._until(lambda: not self._urgent)
        except TimeoutError:
            raise self._unread() from None

    def acknowledge_reply(self, payload: str) -> None:
        """Tell the server what has come; only the latest that waits is of use."""
        # Without a wait for room: a reader that waits for its writer, while the server waits to
        # be read before it reads, would wait for ever.
        self._acknowledgement = payload
        self._tell()

    async def next_payload(self) -> str | bytes:
        """The next message to send, as soon as there is one."""
        await self._until(
            lambda: self._urgent or self._acknowledgement or self.window.waiting_bytes
        )
        payload = self._take()
        self._tell()
        return payload

    def acknowledged(self, position: Position) -> bool:
        """The server has everything up to `position`; there may be room again.

        Returns:
            Whether that is more than it had before.

        Raises:
            ProtocolError: That was never sent.
        """
        held = self.window.held_bytes
        self.window.acknowledge(position)
        self._tell()
        return self.window.held_bytes < held

    def resume(self, position: Position) -> None:
        """A new connection begins, to a server that has everything up to `position`.

        No acknowledgement of the old connection can come after this: its reader has ended before
        the new one was asked for. So the window never forgets what it is about to send again.

        Raises:
            ProtocolError: That was never sent.
        """
        self._drop_urgent()
        self.window.rewind(position)
        self._tell()

    def fail(self, failure: ClientError) -> None:
        """The session is over: whoever waits, or comes later, is told why."""
        self.failure = failure
        self._drop_urgent()

    def require_alive(self) -> None:
        """Refuse to go on once the session is over.

        Raises:
            ClientError: It is, and this is why.
        """
        if self.failure is not None:
            raise self.failure

    # -- down: from the server to whoever listens ---------------------------------------------

    @property
    def is_full(self) -> bool:
        """Whether whoever uses the client does not take what came."""
        return len(self._events) >= _EVENTS

    async def hand_on(self, event: Event, *, messages: int = 0, samples: int = 0) -> None:
        """Hand on an event, and only then count what it is of the stream.

        A connection may be lost while this waits for room. Counted before, the event would be
        lost; counted behind, in the same step as the waiting ends, it comes again or not at all.
        """
        await self._until(lambda: not self.is_full)
        self._events.append(event)
        self.received = self.received.plus(messages, samples)
        self._tell()

    async def next_event(self) -> Event:
        """The next event; what came before the session was over is still told.

        Raises:
            ClientError: The session is over.
        """
        await self._until(lambda: self._events or self.failure is not None)
        if not self._events:
            self.require_alive()
        event = self._events.popleft()
        self._tell()
        return event

    # -- over one connection ------------------------------------------------------------------

    async def carry(self, socket: ClientConnection, started: v1.SessionStarted) -> None:
        """Send and receive over `socket` until it is lost.

        Raises:
            Lost: Another connection may go on.
            ClientError: The session is over.
            ProtocolError: The server does not keep to the protocol.
        """
        output, limits = started.output.format, started.limits
        # The server stops when its window is full, so it has to hear well before that.
        window = min(limits.replay_bytes, output.bytes_per_second * limits.replay_s)
        self.attached, self.worked, self._unacknowledged = True, False, 0
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write(socket))
                group.create_task(self._read(socket, output, min(_ACK_BYTES, round(window / 4))))
                group.create_task(self._watch())
        except* ConnectionClosed as closed:
            raise _lost(_first(closed)) from None
        except* (ClientError, ProtocolError) as wrong:
            raise _first(wrong) from None
        finally:
            self.attached = False
            self._drop_urgent()

    async def _write(self, socket: ClientConnection) -> None:
        while True:
            payload = await self.next_payload()
            try:
                async with asyncio.timeout(self._within_s):
                    await socket.send(payload)
            except TimeoutError:
                raise self._unread() from None

    async def _read(self, socket: ClientConnection, output: AudioFormat, ack_bytes: int) -> None:
        while True:
            message = await socket.recv()
            if isinstance(message, bytes):
                weight, now = await self._take_audio(message, output), False
            else:
                told = read_message(message)
                weight, now = await self._take_text(told), isinstance(told, v1.ResponseDone)
            self._unacknowledged += weight
            if now or self._unacknowledged >= ack_bytes:
                self._unacknowledged = 0
                self.acknowledge_reply(v1.ResponseAck(received=self.received).encode())

    async def _take_audio(self, payload: bytes, output: AudioFormat) -> int:
        """Hand on a piece of a reply; gives what it weighs in acknowledgements."""
        samples, rest = divmod(len(payload), output.frame_bytes)
        if rest:
            raise _broken(f"a binary message of {len(payload)} bytes is no {output}")
        await self.hand_on(ReplyAudio(self.received.samples, payload), samples=samples)
        if samples:
            self.note_progress()
        self.so_far.reply_s += output.seconds(samples)
        return len(payload)

    async def _take_text(self, message: TextMessage) -> int:
        """Hand on a message, or heed it; gives what it weighs in acknowledgements."""
        match message:
            case v1.Pong():
                return 0
            case v1.AudioAck(received=received):
                if self.acknowledged(received):
                    self.note_progress()
                return 0
        number: int | None = getattr(message, "seq", None)
        expected = self.received.messages + 1
        if number is not None and number != expected:
            raise _broken(f"message {number} came where message {expected} was due")
        await self.hand_on(message, messages=int(number is not None))
        if number is not None:
            self.note_progress()
        self.note(message)
        return _TEXT_WEIGHT if number is not None else 0

    async def _watch(self) -> None:
        """End the session when the server owes something and gives no sign for too long."""
        while True:
            await asyncio.sleep(self._within_s / _LOOKS)
            if self.is_full:  # it is this side that does not read
                self.progress_ns = self._clock.now_ns()
            if self.is_overdue():
                raise self._missing()

    # -- what the server owes -----------------------------------------------------------------

    @property
    def _owes(self) -> bool:
        return self.turns + self.waiting + self.window.held_bytes > 0

    def expect_more(self) -> None:
        """More will be owed; where nothing was, the time for it begins now."""
        if not self._owes:
            self.progress_ns = self._clock.now_ns()

    def note_progress(self) -> None:
        """The conversation went on; chatter about the connection alone is no progress."""
        self.worked = True
        self.progress_ns = self._clock.now_ns()

    def is_overdue(self) -> bool:
        """Whether something is owed and no sign of it came for too long."""
        return self._owes and self._clock.now_ns() - self.progress_ns > self._within_s * 1e9

    def note(self, message: TextMessage) -> None:
        """Note a message of the conversation, which may settle what was owed."""
        match message:
            case v1.TranscriptFinal(text=text):
                self.so_far.hear(message.type, text)
            case v1.Error(code=code, cause=cause):
                self.so_far.refuse(str(code), message.message, message.count)
                if cause is not None and cause.type == "audio.end":
                    self.turns = max(0, self.turns - 1)  # it was refused, and has no answer
            case v1.ResponseDone():
                self.turns = max(0, self.turns - 1)
                self.so_far = TurnSoFar()
            case _:
                self.so_far.meet(message.type)

    def _missing(self) -> ClientError:
        if not self.turns + self.waiting:
            return self.so_far.missing("nothing of it was acknowledged", self._within_s)
        return self.so_far.missing_answer(self._within_s)

    def _unread(self) -> ClientError:
        return self.so_far.missing("the server read no more", self._within_s)

    # -- waiting ------------------------------------------------------------------------------

    def _take(self) -> str | bytes:
        if self._urgent:
            return self._urgent.popleft()
        if (payload := self._acknowledgement) is not None:
            self._acknowledgement = None
            return payload
        taken = self.window.take()
        assert taken is not None, "`next_payload` waits until something waits"
        return taken

    def _drop_urgent(self) -> None:
        """The connection is gone, and with it what concerned it alone."""
        self._urgent.clear()
        self._acknowledgement = None
        self._tell()

    def _tell(self) -> None:
        """Wake whoever waits; each then looks for itself."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await self._changed.wait()


def _broken(what: str) -> ProtocolError:
    return ProtocolError(ErrorCode.POSITION_INVALID, what, _AS_AGREED)


def _first(group: BaseExceptionGroup[E]) -> E:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _lost(closed: ConnectionClosed) -> Lost | ClientError:
    """What a close means: try again, or the session is over."""
    if not closed.rcvd_then_sent and closed.sent is not None and closed.sent.code in _NOT_TAKEN:
        return ClientError(why_closed(closed))
    frame = closed.rcvd
    if frame is not None and frame.code in set(CloseCode) and not CloseCode(frame.code).resumable:
        return ClientError(
            f"the server closed the session: code {frame.code}, {in_words(frame.reason)}"
        )
    return Lost(why_closed(closed))


# -- a session over many connections -----------------------------------------------------------


@dataclass(slots=True)
class Answer:
    """One turn as the client saw it."""

    turn: int = 0
    """Its number."""
    transcript: str = ""
    """What the server heard."""
    sentences: list[str] = field(default_factory=list)
    """What the reply says."""
    audio: bytearray = field(default_factory=bytearray)
    """The reply's audio, in the format that was agreed on."""
    done: v1.ResponseDone | None = None
    """How it ended; None while it has not."""
    errors: list[v1.Error] = field(default_factory=list)
    """What the server refused meanwhile; each says how many messages it is about."""
    interruptions: list[Interrupted] = field(default_factory=list)
    """Lost connections meanwhile."""
    gaps: list[Missing] = field(default_factory=list)
    """What the server could not send again."""

    def take(self, event: Event) -> bool:
        """Take the next event; True once the turn is complete."""
        match event:
            case v1.TranscriptFinal(turn=turn, text=text):
                self.turn, self.transcript = turn, text
            case v1.ResponseText(text=text):
                self.sentences.append(text)
            case ReplyAudio(payload=payload):
                self.audio += payload
            case v1.Error():
                self.errors.append(event)
            case Interrupted():
                self.interruptions.append(event)
            case Missing():
                self.gaps.append(event)
            case v1.ResponseDone():
                self.done = event
        return self.done is not None


class SessionClient:
    """A session with a server, over as many connections as it takes.

    Attributes:
        url: The server's address.
        conversation: What goes to the server and comes from it.
        started: What the server agreed to, from its latest `session.started`.
    """

    def __init__(
        self,
        url: str,
        start: v1.SessionStart,
        *,
        ring_s: float,
        backoff: Backoff,
        deadlines: Deadlines,
        seed: int | None,
        clock: Clock,
        reach: Reach,
    ) -> None:
        """Prepare; use `connect` instead of calling this."""
        if ring_s < 1:
            raise ValueError(f"ring_s must be at least 1 second, got {ring_s:g}")
        audio = start.input.format
        ring = ReplayWindow(
            max_bytes=round(audio.bytes_per_second * ring_s),
            max_samples=audio.samples(ring_s),
            until_acknowledged=True,
        )
        received = start.resume.received if start.resume else Position()
        self.url = url
        self.conversation = Conversation(ring, received, clock, deadlines.answer_s)
        self.started: v1.SessionStarted | None = None
        self._start = start
        self._reach = reach
        self._backoff = backoff
        self._deadlines = deadlines
        self._clock = clock
        self._random = random.Random(seed)
        self._encoder = StreamEncoder(audio)
        self._opened = asyncio.Event()
        self._leaving = False
        self._attached_ns: int | None = None

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        url: str,
        start: v1.SessionStart | None = None,
        *,
        ring_s: float = 60.0,
        backoff: Backoff | None = None,
        deadlines: Deadlines | None = None,
        seed: int | None = None,
        clock: Clock | None = None,
        **reach: Unpack[Reach],
    ) -> AsyncIterator[Self]:
        """Open a session for the length of the block.

        Args:
            url: The server's address, such as ``ws://localhost:8765``.
            start: What to ask for; by default 16 kHz s16le both ways, with acknowledgements.
            ring_s: Most audio that is kept while the server has not acknowledged it. A server does
                so several times a second; below one second of ring, speech would wait for that.
            backoff: When to try again after a lost connection, and when to give up.
            deadlines: How long to wait for what.
            seed: Draws the waits before each try; without it, they differ at each run.
            clock: What time is taken from, and how to wait.
            reach: Headers, certificates and such, as `labkit.client.dial.Reach` has them.

        Raises:
            ClientError: Nobody answers there in time, or the session was refused.
            ValueError: `ring_s` is below 1.
        """
        client = cls(
            url,
            start or v1.SessionStart(acknowledges=True),
            ring_s=ring_s,
            backoff=backoff or Backoff(),
            deadlines=deadlines or Deadlines(),
            seed=seed,
            clock=clock or Clock(),
            reach=reach,
        )
        running = asyncio.create_task(client._run())
        try:
            await client._opened.wait()
            client.conversation.require_alive()
            yield client
        finally:
            client._leaving = True
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def send_audio(self, payload: bytes) -> None:
        """Send audio in the format that was agreed on; waits while the ring is full.

        Raises:
            ClientError: The session is over.
            ValueError: `payload` is no whole number of samples.
        """
        audio = self._start.input.format
        samples, rest = divmod(len(payload), audio.frame_bytes)
        if rest or not samples:
            raise ValueError(f"{len(payload)} bytes are no whole number of samples of {audio}")
        await self.conversation.put(payload, samples)
        self.conversation.so_far.said_s += audio.seconds(samples)

    async def end_utterance(self) -> None:
        """Ask for the answer to what was said.

        Raises:
            ClientError: The session is over.
        """
        if tail := self._encoder.flush():
            await self.send_audio(tail)
        await self.conversation.put(v1.AudioEnd().encode())
        self.conversation.turns += 1
        self.conversation.so_far.asked = "audio.end"

    async def cancel(self, turn: int, heard_samples: int) -> None:
        """Stop the reply of `turn`, of which `heard_samples` samples were played.

        Raises:
            ClientError: The session is over.
        """
        message = v1.ResponseCancel(turn=turn, heard_samples=heard_samples)
        await self.conversation.put(message.encode())

    async def say(self, samples: Float32, *, chunk_ms: float = 40.0, pace: float = 1.0) -> Answer:
        """Speak `samples`, ask for the answer, and wait for all of it.

        Args:
            samples: Mono, 16 kHz.
            chunk_ms: Length of one message, in milliseconds.
            pace: Times real time; 0 sends at once.

        Raises:
            ClientError: The session is over, or the server owed an answer for too long.
        """

        async def send(chunk: Float32) -> None:
            if payload := self._encoder.feed(chunk):
                await self.send_audio(payload)

        # Taken while it speaks: acknowledgements lie behind events that nobody takes.
        taking = asyncio.create_task(self._take_turn())
        try:
            await speak(samples, send, chunk_ms=chunk_ms, pace=pace, clock=self._clock)
            await self.end_utterance()
            return await self._due(taking)
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)

    async def answer(self) -> Answer:
        """Wait for the rest of the current turn, or for all of the next.

        Whoever waits here says that an answer is due: where nothing goes on for `answer_s`, not
        even an acknowledgement of more speech, the session ends.

        Raises:
            ClientError: The session is over, or the server owed an answer for too long.
        """
        return await self._due(self._take_turn())

    async def _take_turn(self) -> Answer:
        answer = Answer()
        while not answer.take(await self.next_event()):
            pass
        return answer

    async def _due(self, coming: Awaitable[Answer]) -> Answer:
        """Wait for an answer that the server owes from now on."""
        self.conversation.expect_more()
        self.conversation.waiting += 1
        try:
            return await coming
        finally:
            self.conversation.waiting -= 1

    async def next_event(self) -> Event:
        """The next thing that the server tells, in order, without a gap and without repetition.

        Waits for as long as the session lives. That ends when the server owes something (an
        acknowledgement of audio, an answer) and gives no sign of progress for `answer_s`.

        Raises:
            ClientError: The session is over.
        """
        return await self.conversation.next_event()

    async def end(self) -> None:
        """End the session for good: it is not resumed, however the connection ends.

        Raises:
            ClientError: There is no connection, or the server reads nothing.
        """
        self.conversation.require_alive()
        if not self.conversation.attached:
            raise ClientError("there is no connection at the moment")
        self._leaving = True
        await self.conversation.put_urgent(v1.SessionEnd().encode())

    async def _run(self) -> None:
        """Keep a connection, until the session is over."""
        failure = ClientError("the session is over")
        try:
            await self._stay_connected()
        except ProtocolError as wrong:
            failure = ClientError(f"{shown(self.url)} does not keep to labkit.v1: {wrong}")
        except ClientError as error:
            failure = error
        finally:
            self.conversation.fail(failure)
            self._opened.set()

    async def _stay_connected(self) -> None:
        """Connect again whenever a connection is lost.

        Raises:
            ClientError: The session is over, or there is none for too long.
            ProtocolError: The server does not keep to the protocol.
        """
        since_ns = lost_ns = self._clock.now_ns()
        reason = ""
        delays = self._backoff.delays(self._random)
        while True:
            try:
                async with self._dialled(since_ns) as socket:
                    within_s = min(self._deadlines.start_s, self._left_s(since_ns))
                    started = await begin(socket, self._opening(), within_s)
                    await self._attach(started, lost_ns, reason)
                    await self.conversation.carry(socket, started)
            except Lost as lost:
                # Leaving against losing: where a task of the group has just failed, the group
                # drops the cancellation of its parent, so `connect` has said so beforehand.
                if self._leaving:
                    return
                lost_ns, reason = self._clock.now_ns(), str(lost)
                if self._worked(lost_ns):
                    since_ns = lost_ns
                    delays = self._backoff.delays(self._random)
                self._attached_ns = None
                await self._wait(next(delays), lost, since_ns)

    def _opening(self) -> v1.SessionStart:
        """The message that begins the session, or resumes it where it was lost."""
        if self.started is None:
            return self._start
        resume = v1.Resume(
            session=self.started.session,
            token=self.started.token,
            received=self.conversation.received,
        )
        return self._start.model_copy(update={"resume": resume})

    async def _attach(self, started: v1.SessionStarted, lost_ns: int, reason: str) -> None:
        """Send what the server lacks, and go on where it goes on."""
        self._require_agreed(started)
        now_ns = self._clock.now_ns()
        if self.started is not None:
            await self.conversation.hand_on(Interrupted((now_ns - lost_ns) / 1e9, reason))
            self.conversation.progress_ns += now_ns - lost_ns  # nothing could come meanwhile
        self.conversation.resume(started.received)
        if started.missing is not None:
            self.conversation.received = started.missing.up_to
            await self.conversation.hand_on(started.missing)
        self.started = started
        self._attached_ns = now_ns
        self._opened.set()

    def _require_agreed(self, started: v1.SessionStarted) -> None:
        """Make sure that it is the session that was asked for.

        Raises:
            ClientError: It is another one, or hears or speaks another format.
        """
        before = self.started
        if before is not None and (before.session != started.session or not started.resumed):
            raise ClientError(
                f"{shown(self.url)} began another session in place of resuming this one"
            )
        asked = self._start
        for what, agreed, wanted in (
            ("input", started.input.format, asked.input.format),
            ("output", started.output.format, asked.output.format),
        ):
            if agreed != wanted:
                raise ClientError(
                    f"{shown(self.url)} agreed to {what} of {agreed}; asked was {wanted}"
                )

    def _worked(self, lost_ns: int) -> bool:
        """Whether the connection that was lost had been one that works.

        A server that accepts every resume and hangs up at once gives none, and is given up like
        one that does not answer at all.
        """
        if self._attached_ns is None:
            return False
        held_s = (lost_ns - self._attached_ns) / 1e9
        return self.conversation.worked or held_s >= self._backoff.limit_s

    async def _wait(self, delay_s: float, lost: Lost, since_ns: int) -> None:
        """Wait before the next try, or give up."""
        delay_s = max(delay_s, lost.retry_s)
        if self.started is None and isinstance(lost.__cause__, ConnectError):
            raise lost.__cause__
        if self.started is None or self._left_s(since_ns) <= delay_s:
            raise ClientError(f"no session with {shown(self.url)}: {lost}") from lost
        _log.info("connection lost (%s), trying again", lost)
        await self._clock.sleep(delay_s)

    def _left_s(self, since_ns: int) -> float:
        """How long there may still be no session, if there has been none since `since_ns`."""
        return self._backoff.give_up_s - (self._clock.now_ns() - since_ns) / 1e9

    @asynccontextmanager
    async def _dialled(self, since_ns: int) -> AsyncIterator[ClientConnection]:
        deadlines = self._deadlines
        try:
            socket = await dial(
                self.url,
                subprotocol=v1.SUBPROTOCOL,
                within_s=min(deadlines.connect_s, self._left_s(since_ns)),
                max_queue=4,  # what waits in here is not acknowledged, so keep it short
                # A connection that is found dead before an answer over it is overdue is replaced,
                # and the answer comes over the next one.
                keepalive_s=min(_KEEPALIVE_S, deadlines.answer_s / 3),
                **self._reach,
            )
        except ConnectError as error:
            if not error.retry:
                raise
            raise Lost(str(error), error.retry_after_s) from error
        try:
            yield socket
        finally:
            await hang_up(socket)
