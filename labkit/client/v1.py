"""A client of labkit.v1 whose session survives lost connections.

What the server has not acknowledged is kept in a ring. When the connection is lost, the client
connects again, resumes, sends what the server lacks and gets what it lacks itself: whoever uses
the client sees one stream of events without a gap.
"""

import asyncio
import logging
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Self, TypeVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from labkit.audio.formats import StreamEncoder
from labkit.audio.pcm import SAMPLE_RATE, Float32, chunks
from labkit.client.backoff import Backoff
from labkit.client.plain import dialling, refusal_in, untrusted
from labkit.errors import ClientError, CloseCode, ProtocolError
from labkit.outgoing import Feed, Outgoing
from labkit.protocol import v1
from labkit.protocol.replay import Missing, Position, ReplayWindow

__all__ = ["Answer", "ClientOptions", "Event", "Gap", "Interrupted", "ReplyAudio", "SessionClient"]

_log = logging.getLogger(__name__)

E = TypeVar("E", bound=BaseException)

_ACK_BYTES: Final = 16 * 1024
_TEXT_WEIGHT: Final = 512
"""What a text message counts for: short ones must be acknowledged, too."""
_EVENTS: Final = 64
"""Events that may wait for whoever uses the client; then the server has to wait."""


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


Event = v1.ServerMessage | ReplyAudio | Interrupted | Gap


@dataclass(slots=True)
class Answer:
    """One turn as the client saw it.

    Attributes:
        turn: Its number.
        transcript: What the server heard.
        sentences: What the reply says.
        audio: The reply's audio, in the format that was agreed on.
        done: How it ended; None while it has not.
        errors: What the server refused meanwhile.
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
        backoff: When to try again after a lost connection.
        seed: Draws the waits before each try; without it, they differ at each run.
        pause: Waits for some seconds.
    """

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    tls: ssl.SSLContext | None = None
    ring_s: float = 60.0
    backoff: Backoff = Backoff()
    seed: int | None = None
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep

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

    def __init__(
        self, url: str, start: v1.SessionStart, options: ClientOptions, clock: Callable[[], int]
    ) -> None:
        """Prepare; use `connect` instead of calling this."""
        audio = start.input.format
        self.url = url
        self.received = start.resume.received if start.resume is not None else Position()
        self.started: v1.SessionStarted | None = None
        self.outgoing = Outgoing(
            ReplayWindow(
                max_bytes=round(audio.bytes_per_second * options.ring_s),
                max_samples=audio.samples(options.ring_s),
                until_acknowledged=True,
            )
        )
        self._start = start
        self._options = options
        self._clock = clock
        self._random = random.Random(options.seed)
        self._events: asyncio.Queue[Event | None] = asyncio.Queue(_EVENTS)
        self._failure: ClientError | None = None
        self._opened = asyncio.Event()
        self._leaving = False
        self._encoder = StreamEncoder(audio)
        self._feed: Feed | None = None
        self._pongs: dict[str, asyncio.Future[int]] = {}
        self._unacknowledged = 0
        self._ack_bytes = _ACK_BYTES

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        url: str,
        start: v1.SessionStart | None = None,
        options: ClientOptions | None = None,
        *,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> AsyncIterator[Self]:
        """Open a session for the length of the block.

        Args:
            url: The server's address, such as ``ws://localhost:8765``.
            start: What to ask for; by default 16 kHz s16le both ways, with acknowledgements.
            options: How to behave towards a network that fails.
            clock: Monotonic nanoseconds.

        Raises:
            ClientError: Nobody answers there, or the session was refused.
        """
        start = start or v1.SessionStart(acknowledges=True)
        client = cls(url, start, options or ClientOptions(), clock)
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
        """
        self._require_alive()
        frame = self._start.input.format.frame_bytes
        await self.outgoing.put_audio(payload, len(payload) // frame)

    async def end_utterance(self) -> None:
        """Ask for the answer to what was said.

        Raises:
            ClientError: The session is over.
        """
        if tail := self._encoder.flush():
            await self.send_audio(tail)
        await self._send(v1.AudioEnd())

    async def cancel(self, turn: int, heard_samples: int) -> None:
        """Stop the reply of `turn`, of which `heard_samples` samples were played.

        Raises:
            ClientError: The session is over.
        """
        await self._send(v1.ResponseCancel(turn=turn, heard_samples=heard_samples))

    async def ping(self) -> float:
        """Send `ping`, wait for `pong`; gives the round trip in seconds.

        Raises:
            ClientError: There is no connection, or it was lost meanwhile.
        """
        self._require_alive()
        feed = self._require_connection()
        name, sent_ns = f"ping-{self._clock()}", self._clock()
        pong: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._pongs[name] = pong
        await feed.put_urgent(v1.Ping(id=name).encode())
        if feed.closed and self._pongs.pop(name, None) is not None:
            raise ClientError("the connection was lost")
        return (await pong - sent_ns) / 1e9

    async def say(self, samples: Float32, *, chunk_ms: float = 40.0, pace: float = 1.0) -> Answer:
        """Speak `samples`, ask for the answer, and wait for all of it.

        Args:
            samples: Mono, 16 kHz.
            chunk_ms: Length of one message, in milliseconds.
            pace: Times real time; 0 sends at once.

        Raises:
            ClientError: The session is over.
        """
        start_ns, spoken = self._clock(), 0
        for chunk in chunks(samples, round(chunk_ms * SAMPLE_RATE / 1000)):
            spoken += len(chunk)
            if pace:
                due_ns = start_ns + round(spoken / SAMPLE_RATE / pace * 1e9)
                await self._options.pause(max(0.0, (due_ns - self._clock()) / 1e9))
            if payload := self._encoder.feed(chunk):
                await self.send_audio(payload)
        await self.end_utterance()
        return await self.answer()

    async def answer(self) -> Answer:
        """Wait for the rest of the current turn.

        Raises:
            ClientError: The session is over.
        """
        answer = Answer()
        while not answer.take(await self.next_event()):
            pass
        return answer

    async def next_event(self) -> Event:
        """The next thing that the server tells, in order, without a gap and without repetition.

        Raises:
            ClientError: The session is over.
        """
        event = await self._events.get()
        if event is None:
            self._events.put_nowait(None)
            raise self._failure or ClientError("the session is over")
        return event

    async def end(self) -> None:
        """End the session for good; it cannot be resumed.

        Raises:
            ClientError: There is no connection.
        """
        await self._require_connection().put_urgent(v1.SessionEnd().encode())

    async def _send(self, message: v1.AudioEnd | v1.ResponseCancel) -> None:
        self._require_alive()
        await self.outgoing.put_text(lambda _: message.encode())

    def _require_connection(self) -> Feed:
        if self._feed is None or self._feed.closed:
            raise ClientError("there is no connection at the moment")
        return self._feed

    def _require_alive(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def _run(self) -> None:
        """Keep a connection, until the session is over."""
        try:
            await self._stay_connected()
        except ClientError as error:
            self._failure = error
        finally:
            self._opened.set()
            self.outgoing.close()
            await self._events.put(None)

    async def _stay_connected(self) -> None:
        lost_ns = self._clock()
        reason = ""
        delays = self._options.backoff.delays(self._random)
        while True:
            try:
                async with self._dialled() as socket:
                    started = await self._begin(socket)
                    if self.started is not None:
                        await self._events.put(Interrupted((self._clock() - lost_ns) / 1e9, reason))
                    await self._attach(started)
                    delays = self._options.backoff.delays(self._random)
                    lost_ns = 0
                    await self._carry(socket)
            except _Lost as lost:
                # A task group whose task has just failed drops the cancellation of its parent.
                if self._leaving:
                    return
                lost_ns, reason = lost_ns or self._clock(), str(lost)
                await self._wait(next(delays), lost, lost_ns)

    async def _wait(self, delay_s: float, lost: _Lost, lost_ns: int) -> None:
        """Wait before the next try, or give up."""
        gone_s = (self._clock() - lost_ns) / 1e9
        if self.started is None or gone_s >= self._options.backoff.give_up_s:
            raise ClientError(f"no session with {self.url}: {lost}") from lost
        _log.info("connection lost (%s), trying again", lost)
        await self._options.pause(max(delay_s, lost.retry_s))

    @asynccontextmanager
    async def _dialled(self) -> AsyncIterator[ClientConnection]:
        try:
            socket = await connect(
                self.url,
                subprotocols=[Subprotocol(v1.SUBPROTOCOL)],
                max_queue=4,  # what waits in here is not acknowledged, so keep it short
                **dialling(self.url, self._options.headers, self._options.tls),
            )
        except InvalidStatus as error:
            raise _refused(error) from error
        except ssl.SSLCertVerificationError as error:
            raise ClientError(untrusted(self.url, error)) from error
        except (OSError, WebSocketException, ValueError, EOFError) as error:
            raise _Lost(f"{error or type(error).__name__}") from error
        async with socket:
            yield socket

    async def _begin(self, socket: ClientConnection) -> v1.SessionStarted:
        """Begin or resume, and wait for the server's word."""
        resume = self._start.resume
        if self.started is not None:
            resume = v1.Resume(
                session=self.started.session, token=self.started.token, received=self.received
            )
        try:
            await socket.send(self._start.model_copy(update={"resume": resume}).encode())
            answer = await socket.recv()
        except ConnectionClosed as closed:
            raise _lost(closed) from closed
        match self._understood(answer):
            case v1.SessionStarted() as started:
                return started
            case v1.Error() as error:
                raise ClientError(f"{error.code.value}: {error.message}. {error.hint}")
        raise ClientError(f"{self.url} answered 'session.start' with {answer[:80]!r}")

    def _understood(self, answer: str | bytes) -> v1.ServerMessage | None:
        """The message, or None where it is none of labkit.v1."""
        with suppress(ProtocolError):
            return v1.decode_server(answer) if isinstance(answer, str) else None
        return None

    async def _attach(self, started: v1.SessionStarted) -> None:
        """Send what the server lacks, and go on where it goes on."""
        self.outgoing.rewind(started.received)
        if started.missing is not None:
            self.received = started.missing.up_to
            await self._events.put(Gap(started.missing))
        self.started = started
        # The server stops when its window is full, so it has to hear well before that.
        window = started.output.format.bytes_per_second * started.limits.replay_s
        self._ack_bytes = min(_ACK_BYTES, round(min(started.limits.replay_bytes, window) / 4))
        self._unacknowledged = 0
        self._feed = self.outgoing.open()
        self._opened.set()

    async def _carry(self, socket: ClientConnection) -> None:
        """Send and receive until the connection is lost."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write(socket))
                group.create_task(self._read(socket))
        except* ConnectionClosed as closed:
            raise _lost(_first(closed)) from None
        except* (ClientError, ProtocolError) as wrong:
            raise ClientError(f"{self.url} does not keep to labkit.v1: {_first(wrong)}") from None
        finally:
            self.outgoing.close()
            self._give_up_pings()

    def _give_up_pings(self) -> None:
        for pong in self._pongs.values():
            if not pong.done():
                pong.set_exception(ClientError("the connection was lost"))
        self._pongs.clear()

    async def _write(self, socket: ClientConnection) -> None:
        while self._feed is not None and (payload := await self._feed.next()) is not None:
            await socket.send(payload)

    async def _read(self, socket: ClientConnection) -> None:
        while True:
            message = await socket.recv()
            if isinstance(message, bytes):
                await self._take_audio(message)
            else:
                await self._take_text(v1.decode_server(message))

    async def _take_audio(self, payload: bytes) -> None:
        """Hand the audio on, and only then count it: what was not handed on comes again."""
        await self._events.put(ReplyAudio(self.received.samples, payload))
        frame = self._start.output.format.frame_bytes
        self.received = self.received.plus(samples=len(payload) // frame)
        self._unacknowledged += len(payload)
        await self._acknowledge()

    async def _take_text(self, message: v1.ServerMessage) -> None:
        match message:
            case v1.AudioAck(received=received):
                self.outgoing.acknowledge(received)
                return
            case v1.Pong(id=str(name)) if (pong := self._pongs.pop(name, None)) is not None:
                if not pong.done():
                    pong.set_result(self._clock())
                return
            case v1.Pong():
                return
        if (number := getattr(message, "seq", None)) is not None:
            self._require_next(number)
        await self._events.put(message)
        if number is not None:
            self.received = self.received.plus(messages=1)
            self._unacknowledged += _TEXT_WEIGHT
            await self._acknowledge(now=isinstance(message, v1.ResponseDone))

    def _require_next(self, number: int) -> None:
        if number != self.received.messages + 1:
            raise ClientError(
                f"the server's message {number} came after message {self.received.messages}: "
                "one was lost or repeated"
            )

    async def _acknowledge(self, *, now: bool = False) -> None:
        if self._feed is not None and (now or self._unacknowledged >= self._ack_bytes):
            self._unacknowledged = 0
            await self._feed.put_urgent(v1.ResponseAck(received=self.received).encode())


def _first(group: BaseExceptionGroup[E]) -> E:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _lost(closed: ConnectionClosed) -> _Lost | ClientError:
    """What a close means: try again, or the session is over."""
    frame = closed.rcvd
    if frame is None:
        return _Lost("the connection broke off")
    known = frame.code in set(CloseCode)
    if known and not CloseCode(frame.code).resumable:
        return ClientError(f"the server closed the session: code {frame.code}, {frame.reason}")
    return _Lost(f"code {frame.code}, {frame.reason or 'no reason given'}")


def _refused(error: InvalidStatus) -> _Lost | ClientError:
    """A handshake that was refused: for now, or for good."""
    reason = refusal_in(error)
    retry = error.response.headers.get("Retry-After", "")
    if retry.isdecimal():
        return _Lost(reason, float(retry))
    return ClientError(f"the server refused the connection: {reason}")
