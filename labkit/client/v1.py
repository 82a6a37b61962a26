"""A client of labkit.v1 whose session survives lost connections.

What the server has not acknowledged is kept in a ring. When the connection is lost, the client
connects again, resumes, sends what the server lacks and gets what it lacks itself: whoever uses
the client sees one stream of events without a gap.
"""

import asyncio
import itertools
import logging
import random
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Self, TypeVar, get_args

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from labkit.audio.formats import StreamEncoder
from labkit.audio.pcm import Float32
from labkit.client.deadlines import Deadlines, Ledger
from labkit.client.dial import Backoff, dial, hang_up, why_closed
from labkit.client.foreign import Unknown, read
from labkit.client.speech import SpeechClock, speak
from labkit.client.upstream import Upstream
from labkit.errors import ClientError, CloseCode, ConnectError, ProtocolError
from labkit.protocol import v1
from labkit.protocol.replay import Missing, Position, ReplayWindow

__all__ = [
    "Answer",
    "ClientOptions",
    "Event",
    "Gap",
    "Interrupted",
    "ReplyAudio",
    "SessionClient",
    "UnknownError",
]

_log = logging.getLogger(__name__)

E = TypeVar("E", bound=BaseException)

_ACK_BYTES: Final = 16 * 1024
_TEXT_WEIGHT: Final = 512
"""What a text message counts for: short ones must be acknowledged, too."""
_EVENTS: Final = 64
"""Events that may wait for whoever uses the client; then the server has to wait."""
_KEEPALIVE_S: Final = 20.0
"""A connection that is silent for so long is asked for a sign of life, and given as long again."""
_LOOKS: Final = 10
"""Looks for progress within one deadline, so a deadline is a tenth late at most."""
_TYPES: Final = frozenset(
    str(model.model_fields["type"].default) for model in get_args(v1.ServerMessage)
)


class UnknownError(v1.Error):
    """An error of a code that this client does not know."""

    code: str  # type: ignore[assignment] # wider on purpose
    """The code, as it came."""


@dataclass(frozen=True, slots=True)
class ReplyAudio:
    """A piece of a spoken reply.

    Attributes:
        start: Position of its first sample among all reply audio of the session.
        payload: The audio, in the format that was agreed on.
    """

    start: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The connection was lost, and is back.

    Attributes:
        seconds: How long it was gone.
        reason: Why it was lost.
    """

    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Gap:
    """The server could not keep all that was to be sent again.

    Attributes:
        missing: What is lost.
    """

    missing: Missing


Event = v1.ServerMessage | Unknown | ReplyAudio | Interrupted | Gap
"""What a client is told."""


@dataclass(slots=True)
class Answer:
    """One turn as the client saw it.

    Attributes:
        turn: Its number.
        transcript: What the server heard.
        sentences: What the reply says.
        audio: The reply's audio, in the format that was agreed on.
        done: How it ended; None while it has not.
        errors: What the server refused meanwhile; each says how many messages it is about.
        interruptions: Lost connections meanwhile.
        gaps: What the server could not send again.
    """

    turn: int = 0
    transcript: str = ""
    sentences: list[str] = field(default_factory=list)
    audio: bytearray = field(default_factory=bytearray)
    done: v1.ResponseDone | None = None
    errors: list[v1.Error] = field(default_factory=list)
    interruptions: list[Interrupted] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)

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
            case Gap():
                self.gaps.append(event)
            case v1.ResponseDone():
                self.done = event
        return self.done is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """How a client behaves towards a network that fails.

    Attributes:
        headers: Further headers of the handshake, such as those of `labkit.net.tokens.bearer`.
        tls: Whom to trust under ``wss://``, such as `labkit.net.tls.client_tls` gives; without it,
            whom this machine trusts.
        ring_s: Most audio that is kept while the server has not acknowledged it. A server does
            so several times a second; below one second of ring, speech would wait for that.
        backoff: When to try again after a lost connection, and when to give up.
        deadlines: How long to wait for what.
        seed: Draws the waits before each try; without it, they differ at each run.
        clock: What time is taken from, and how to wait.
    """

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    tls: ssl.SSLContext | None = None
    ring_s: float = 60.0
    backoff: Backoff = Backoff()
    deadlines: Deadlines = Deadlines()
    seed: int | None = None
    clock: SpeechClock = SpeechClock()

    def __post_init__(self) -> None:
        """Refuse a ring that cannot work.

        Raises:
            ValueError: The ring is too short.
        """
        if self.ring_s < 1:
            raise ValueError(f"ring_s must be at least 1 second, got {self.ring_s:g}")


class _Lost(Exception):  # noqa: N818 - it is mended, or told as another error
    """A connection is gone; `retry_s` is the least wait that the server asked for."""

    def __init__(self, reason: str, retry_s: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_s = retry_s


class SessionClient:
    """A session with a server, over as many connections as it takes.

    Attributes:
        url: The server's address.
        outgoing: What goes to the server and was not acknowledged.
        received: What came from the server.
        started: What the server agreed to, from its latest `session.started`.
    """

    def __init__(self, url: str, start: v1.SessionStart, options: ClientOptions) -> None:
        """Prepare; use `connect` instead of calling this."""
        audio = start.input.format
        self.url = url
        self.received = start.resume.received if start.resume is not None else Position()
        self.started: v1.SessionStarted | None = None
        self.outgoing = Upstream(
            ReplayWindow(
                max_bytes=round(audio.bytes_per_second * options.ring_s),
                max_samples=audio.samples(options.ring_s),
                until_acknowledged=True,
            )
        )
        self._start = start
        self._options = options
        self._clock = options.clock
        self._random = random.Random(options.seed)
        self._encoder = StreamEncoder(audio)
        self._events: asyncio.Queue[Event | None] = asyncio.Queue(_EVENTS)
        self._opened = asyncio.Event()
        self._leaving = False
        self._socket: ClientConnection | None = None
        self._pongs: dict[str, asyncio.Future[int]] = {}
        self._ping_names = (f"ping-{number}" for number in itertools.count(1))
        self._unacknowledged = 0
        self._ack_bytes = _ACK_BYTES
        self._owed_turns = 0  # utterances that ended and have no `response.done` yet
        self._awaiting = 0  # calls of `answer` that wait, whoever ends the utterance
        self._ledger = Ledger()
        self._progress_ns = self._clock.now_ns()
        self._came = False  # anything over this connection, after `session.started`
        self._attached_ns = 0

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        url: str,
        start: v1.SessionStart | None = None,
        options: ClientOptions | None = None,
    ) -> AsyncIterator[Self]:
        """Open a session for the length of the block.

        Args:
            url: The server's address, such as ``ws://localhost:8765``.
            start: What to ask for; by default 16 kHz s16le both ways, with acknowledgements.
            options: How to behave towards a network that fails.

        Raises:
            ClientError: Nobody answers there in time, or the session was refused.
        """
        start = start or v1.SessionStart(acknowledges=True)
        client = cls(url, start, options or ClientOptions())
        running = asyncio.create_task(client._run())
        try:
            await client._opened.wait()
            client._require_alive()
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
        self._note_debt()
        await self.outgoing.put_audio(payload, samples)
        self._ledger.said_s += audio.seconds(samples)

    async def end_utterance(self) -> None:
        """Ask for the answer to what was said.

        Raises:
            ClientError: The session is over.
        """
        if tail := self._encoder.flush():
            await self.send_audio(tail)
        self._note_debt()
        await self.outgoing.put_text(v1.AudioEnd().encode())
        self._owed_turns += 1
        self._ledger.asked = "audio.end"

    async def cancel(self, turn: int, heard_samples: int) -> None:
        """Stop the reply of `turn`, of which `heard_samples` samples were played.

        Raises:
            ClientError: The session is over.
        """
        self._note_debt()
        message = v1.ResponseCancel(turn=turn, heard_samples=heard_samples)
        await self.outgoing.put_text(message.encode())

    async def ping(self) -> float:
        """Send `ping`, wait for `pong`; gives the round trip in seconds.

        Raises:
            ClientError: There is no connection, it was lost meanwhile, or no pong came in time.
        """
        self._require_connection()
        name, sent_ns = next(self._ping_names), self._clock.now_ns()
        pong: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._pongs[name] = pong
        self.outgoing.put_urgent(v1.Ping(id=name).encode())
        within_s = self._options.deadlines.answer_s
        try:
            async with asyncio.timeout(within_s):
                return (await pong - sent_ns) / 1e9
        except TimeoutError:
            raise Ledger(asked="ping").missing("no pong came", within_s) from None
        finally:
            self._pongs.pop(name, None)

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

        await speak(samples, send, chunk_ms=chunk_ms, pace=pace, clock=self._clock)
        await self.end_utterance()
        return await self.answer()

    async def answer(self) -> Answer:
        """Wait for the rest of the current turn.

        Raises:
            ClientError: The session is over, or the server owed an answer for too long.
        """
        self._note_debt()
        self._awaiting += 1
        answer = Answer()
        try:
            while not answer.take(await self.next_event()):
                pass
        finally:
            self._awaiting -= 1
        return answer

    async def next_event(self) -> Event:
        """The next thing that the server tells, in order, without a gap and without repetition.

        Waits for as long as the session lives. That ends when the server owes something (an
        acknowledgement of audio, an answer) and gives no sign of progress for `answer_s`.

        Raises:
            ClientError: The session is over.
        """
        event = await self._events.get()
        if event is None:
            self._events.put_nowait(None)
            raise self.outgoing.failure or ClientError("the session is over")
        return event

    async def end(self) -> None:
        """End the session for good; it cannot be resumed.

        Raises:
            ClientError: There is no connection, or the server reads nothing.
        """
        self._require_connection()
        self.outgoing.put_urgent(v1.SessionEnd().encode())
        within_s = self._options.deadlines.answer_s
        try:
            async with asyncio.timeout(within_s):
                await self.outgoing.urgent_sent()
        except TimeoutError:
            raise self._ledger.missing("the server read no more", within_s) from None

    def _require_alive(self) -> None:
        if self.outgoing.failure is not None:
            raise self.outgoing.failure

    def _require_connection(self) -> None:
        self._require_alive()
        if self._socket is None:
            raise ClientError("there is no connection at the moment")

    def _owes(self) -> bool:
        """Whether the server has to give a sign: an acknowledgement, or an answer."""
        waited_for = self._owed_turns + self._awaiting
        return waited_for > 0 or self.outgoing.window.held_bytes > 0

    def _note_debt(self) -> None:
        """The server is about to owe something; it has all of the time for that from now on."""
        if not self._owes():
            self._progress_ns = self._clock.now_ns()

    async def _run(self) -> None:
        """Keep a connection, until the session is over."""
        failure = ClientError("the session is over")
        try:
            await self._stay_connected()
        except ProtocolError as wrong:
            failure = ClientError(f"{self.url} does not keep to labkit.v1: {wrong}")
        except ClientError as error:
            failure = error
        finally:
            self.outgoing.fail(failure)
            self._opened.set()
            await self._events.put(None)

    async def _stay_connected(self) -> None:
        """Connect again whenever a connection is lost.

        Raises:
            ClientError: The session is over, or there is none for too long.
        """
        since_ns = lost_ns = self._clock.now_ns()
        reason = ""
        delays = self._options.backoff.delays(self._random)
        while True:
            try:
                async with self._dialled(since_ns) as socket:
                    started = await self._begin(socket, since_ns)
                    await self._attach(socket, started, lost_ns, reason)
                    await self._carry(socket)
            except _Lost as lost:
                # Leaving against losing: where a task of the group has just failed, the group
                # drops the cancellation of its parent, so `connect` has said so beforehand.
                if self._leaving:
                    return
                lost_ns, reason = self._clock.now_ns(), str(lost)
                if self._worked(lost_ns):
                    since_ns = lost_ns
                    delays = self._options.backoff.delays(self._random)
                self._attached_ns = 0
                await self._wait(next(delays), lost, since_ns)

    def _worked(self, lost_ns: int) -> bool:
        """Whether the connection that was lost had been one that works.

        A server that accepts every resume and hangs up at once gives none, and is given up like
        one that does not answer at all.
        """
        held_ns = lost_ns - self._attached_ns if self._attached_ns else 0
        return self._came or held_ns >= self._options.backoff.limit_s * 1e9

    async def _wait(self, delay_s: float, lost: _Lost, since_ns: int) -> None:
        """Wait before the next try, or give up."""
        delay_s = max(delay_s, lost.retry_s)
        if self.started is None or self._left_s(since_ns) <= delay_s:
            if self.started is None and isinstance(lost.__cause__, ConnectError):
                raise lost.__cause__
            raise ClientError(f"no session with {self.url}: {lost}") from lost
        _log.info("connection lost (%s), trying again", lost)
        await self._clock.sleep(delay_s)

    def _left_s(self, since_ns: int) -> float:
        """How long there may still be no session, if there has been none since `since_ns`."""
        return self._options.backoff.give_up_s - (self._clock.now_ns() - since_ns) / 1e9

    @asynccontextmanager
    async def _dialled(self, since_ns: int) -> AsyncIterator[ClientConnection]:
        options, deadlines = self._options, self._options.deadlines
        try:
            socket = await dial(
                self.url,
                subprotocol=v1.SUBPROTOCOL,
                headers=options.headers,
                tls=options.tls,
                within_s=min(deadlines.connect_s, self._left_s(since_ns)),
                max_queue=4,  # what waits in here is not acknowledged, so keep it short
                # A connection that is found dead before an answer over it is overdue is replaced,
                # and the answer comes over the next one.
                keepalive_s=min(_KEEPALIVE_S, deadlines.answer_s / 3),
            )
        except ConnectError as error:
            if not error.retry:
                raise
            raise _Lost(str(error), error.retry_after_s) from error
        try:
            yield socket
        finally:
            self._socket = None
            await hang_up(socket)

    async def _begin(self, socket: ClientConnection, since_ns: int) -> v1.SessionStarted:
        """Begin or resume, and wait for the server's word."""
        resume = self._start.resume
        if self.started is not None:
            resume = v1.Resume(
                session=self.started.session, token=self.started.token, received=self.received
            )
        within_s = min(self._options.deadlines.start_s, self._left_s(since_ns))
        try:
            async with asyncio.timeout(within_s):
                await socket.send(self._start.model_copy(update={"resume": resume}).encode())
                answer = await socket.recv()
        except TimeoutError:
            raise _Lost(
                f"the server took the connection and did not answer 'session.start' within "
                f"{within_s:.3g} s"
            ) from None
        except ConnectionClosed as closed:
            raise _lost(closed) from closed
        match _understood(answer):
            case v1.SessionStarted() as started:
                return started
            case v1.Error() as error:
                raise ClientError(f"{error.code!s}: {error.message}. {error.hint}".rstrip(". "))
        hint = "" if socket.subprotocol else "; it agreed to no subprotocol, so it may not speak it"
        raise ClientError(f"{self.url} answered 'session.start' with {answer[:80]!r}{hint}")

    async def _attach(
        self, socket: ClientConnection, started: v1.SessionStarted, lost_ns: int, reason: str
    ) -> None:
        """Send what the server lacks, and go on where it goes on."""
        now_ns = self._clock.now_ns()
        if self.started is not None:
            await self._events.put(Interrupted((now_ns - lost_ns) / 1e9, reason))
            self._progress_ns += now_ns - lost_ns  # nothing could come meanwhile
        self.outgoing.resume(started.received)
        if started.missing is not None:
            self.received = started.missing.up_to
            await self._events.put(Gap(started.missing))
        self.started = started
        # The server stops when its window is full, so it has to hear well before that.
        window = started.output.format.bytes_per_second * started.limits.replay_s
        self._ack_bytes = min(_ACK_BYTES, round(min(started.limits.replay_bytes, window) / 4))
        self._unacknowledged = 0
        self._attached_ns, self._came = now_ns, False
        self._socket = socket
        self._opened.set()

    async def _carry(self, socket: ClientConnection) -> None:
        """Send and receive until the connection is lost."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write(socket))
                group.create_task(self._read(socket))
                group.create_task(self._watch())
        except* ConnectionClosed as closed:
            raise _lost(_first(closed)) from None
        except* (ClientError, ProtocolError) as wrong:
            raise _first(wrong) from None
        finally:
            self.outgoing.drop_urgent()
            self._give_up_pings()

    def _give_up_pings(self) -> None:
        for pong in self._pongs.values():
            if not pong.done():
                pong.set_exception(ClientError("the connection was lost"))
        self._pongs.clear()

    async def _write(self, socket: ClientConnection) -> None:
        within_s = self._options.deadlines.answer_s
        while True:
            payload = await self.outgoing.next()
            try:
                async with asyncio.timeout(within_s):
                    await socket.send(payload)
            except TimeoutError:
                raise self._ledger.missing("the server read no more", within_s) from None

    async def _watch(self) -> None:
        """End the session when the server owes something and gives no sign for too long."""
        within_s = self._options.deadlines.answer_s
        while True:
            await asyncio.sleep(within_s / _LOOKS)
            now_ns = self._clock.now_ns()
            if self._events.full():  # it is this side that does not read
                self._progress_ns = now_ns
            if self._owes() and now_ns - self._progress_ns > within_s * 1e9:
                raise self._ledger.missing(self._awaited(), within_s)

    def _awaited(self) -> str:
        """What has to come next, as said where it does not come."""
        if self._owed_turns == 0 and not self._awaiting:
            return "nothing of it was acknowledged"
        if "transcript.final" not in self._ledger.came:
            return "no transcript came"
        return "no more of the reply came" if self._ledger.reply_s else "no reply came"

    async def _read(self, socket: ClientConnection) -> None:
        while True:
            message = await socket.recv()
            self._came = True
            if isinstance(message, bytes):
                await self._take_audio(message)
            else:
                await self._take_text(read(message, v1.decode_server, _TYPES, UnknownError))

    async def _take_audio(self, payload: bytes) -> None:
        """Hand the audio on, and only then count it: what was not handed on comes again."""
        assert self.started is not None, "a connection is read once it is attached"
        audio = self.started.output.format
        samples, rest = divmod(len(payload), audio.frame_bytes)
        if rest:
            raise self._wrong(f"a binary message of {len(payload)} bytes is no {audio}")
        await self._events.put(ReplyAudio(self.received.samples, payload))
        self.received = self.received.plus(samples=samples)
        self._ledger.reply_s += audio.seconds(samples)
        self._unacknowledged += len(payload)
        self._progress_ns = self._clock.now_ns()
        self._acknowledge()

    async def _take_text(self, message: v1.ServerMessage | Unknown) -> None:
        match message:
            case v1.Pong(id=name):
                self._take_pong(name)
                return
            case v1.AudioAck(received=received):
                self._progress_ns = self._clock.now_ns()
                self.outgoing.received(received)
                return
        number: int | None = getattr(message, "seq", None)
        if number is not None and number != self.received.messages + 1:
            raise self._wrong(
                f"message {number} came after message {self.received.messages}: one was lost or "
                "repeated"
            )
        await self._events.put(message)
        # Counted only now, as the audio: a resume asks again for what was not handed on.
        if number is not None:
            self.received = self.received.plus(messages=1)
            self._unacknowledged += _TEXT_WEIGHT
        self._progress_ns = self._clock.now_ns()
        self._note(message)
        self._acknowledge(now=isinstance(message, v1.ResponseDone))

    def _take_pong(self, name: str | None) -> None:
        pong = self._pongs.pop(name or "", None)
        if pong is not None and not pong.done():
            pong.set_result(self._clock.now_ns())

    def _note(self, message: v1.ServerMessage | Unknown) -> None:
        """Keep count of the answers that the server owes."""
        self._ledger.note(message)
        match message:
            case v1.ResponseDone():
                self._owed_turns = max(0, self._owed_turns - 1)
                self._ledger = Ledger()
            case v1.Error(cause=v1.Cause(type="audio.end")):
                self._owed_turns = max(0, self._owed_turns - 1)

    def _wrong(self, what: str) -> ClientError:
        return ClientError(f"{self.url} does not keep to labkit.v1: {what}")

    def _acknowledge(self, *, now: bool = False) -> None:
        if now or self._unacknowledged >= self._ack_bytes:
            self._unacknowledged = 0
            self.outgoing.acknowledge_reply(v1.ResponseAck(received=self.received).encode())


def _understood(answer: str | bytes) -> v1.ServerMessage | Unknown | None:
    """The message, or None where it is none of labkit.v1."""
    if isinstance(answer, bytes):
        return None
    with suppress(ProtocolError):
        return read(answer, v1.decode_server, _TYPES, UnknownError)
    return None


def _first(group: BaseExceptionGroup[E]) -> E:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _lost(closed: ConnectionClosed) -> _Lost | ClientError:
    """What a close means: try again, or the session is over."""
    frame = closed.rcvd
    if frame is not None and frame.code in set(CloseCode) and not CloseCode(frame.code).resumable:
        return ClientError(f"the server closed the session: code {frame.code}, {frame.reason}")
    return _Lost(why_closed(closed))
