"""Hostile clients over real sockets: a crowd that opens connections and misuses them."""

import asyncio
import itertools
import json
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConcurrencyError, ConnectionClosed, WebSocketException

from labkit.client.dial import dial
from labkit.drills.answers import Answers, PlainAnswers, Tally, V1Answers
from labkit.drills.inputs import (
    Broken,
    Context,
    Dialect,
    Hostile,
    Kind,
    Ticket,
    broken_frames,
    broken_handshake,
    draw,
    handshake,
    start_message,
)
from labkit.drills.target import address_of
from labkit.errors import ConnectError
from labkit.protocol import v1
from labkit.protocol.replay import Position

__all__ = ["MAX_READ_BYTES", "Attackers", "Crowd", "open_socket"]

MAX_READ_BYTES: Final = 1024 * 1024
"""What a server that is drilled had better read at most, so that exceeding it is cheap."""

_CLOSE_S: Final = 5.0
_LATE_S: Final = 3.0
_MEAN_MESSAGES: Final = 120
"""Messages of a connection that nobody ends before."""
_RAW_SHARE: Final = 0.2
_ABORTED_SHARE: Final = 0.4
_BROKEN: Final = "broken bytes"
_TICKETS: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """Who attacks.

    Attributes:
        seed: Decides what each connection sends.
        dialects: What they pretend to speak.
        parallel: Connections at a time.
        max_message_bytes: The server's setting, so that some messages lie above it.
        max_read_bytes: Likewise.
        patience_s: Longest that the server may take to answer the last message, or to hang up.
    """

    seed: int = 1
    dialects: tuple[Dialect, ...] = tuple(Dialect)
    parallel: int = 8
    max_message_bytes: int = 256 * 1024
    max_read_bytes: int = MAX_READ_BYTES
    patience_s: float = 20.0


async def open_socket(url: str, dialect: Dialect, *, stream: bool = False) -> ClientConnection:
    """A WebSocket whose library lets everything out that the caller sends.

    Raises:
        ConnectError: Nobody answers there, it is no WebSocket, or the server is full.
    """
    stream = stream and dialect is Dialect.PLAIN
    return await dial(
        url,
        query={"reply": "stream"} if stream else None,
        subprotocol=v1.SUBPROTOCOL if dialect is Dialect.V1 else None,
        max_size=None,
    )


class Attackers:
    """Connections, several at a time, each with a script of its own.

    Attributes:
        tally: What they sent and got.
    """

    def __init__(self, url: str, crowd: Crowd, tell: Callable[[int], None]) -> None:
        """Attack the server at `url`; `tell` is given the messages sent since it was last."""
        self.tally = Tally()
        self._url = url
        self._crowd = crowd
        self._tell = tell
        self._tickets: deque[Ticket] = deque(maxlen=_TICKETS)
        self._numbers = itertools.count()
        self._left = 0

    async def send(self, messages: int) -> None:
        """Send so many messages, over as many connections as it takes."""
        self._left = messages
        async with asyncio.TaskGroup() as group:
            for _ in range(self._crowd.parallel):
                group.create_task(self._work())

    async def _work(self) -> None:
        while self._left > 0:
            rng = random.Random(f"{self._crowd.seed}/{next(self._numbers)}")
            self.tally.connections += 1
            try:
                if rng.random() < _RAW_SHARE:
                    await self._break_bytes(rng)
                else:
                    await self._misuse(rng, rng.choice(self._crowd.dialects))
            except (OSError, WebSocketException, ConnectError) as error:
                self._count("connection")
                self.tally.blame(f"no connection: {type(error).__name__}: {error}")

    def _count(self, what: str) -> None:
        self.tally.sent[what] += 1
        self._left -= 1
        self._tell(1)

    async def _misuse(self, rng: random.Random, dialect: Dialect) -> None:
        """One connection whose frames are right, with messages that are not."""
        stream = rng.random() < 0.5
        socket = await open_socket(self._url, dialect, stream=stream)
        if dialect is Dialect.PLAIN:
            simple = PlainAnswers(self.tally, stream=stream)
            await self._misusing(socket, simple).run(self._script(rng, dialect, simple), rng)
            return
        opening, resumed = self._opening(rng)
        answers = V1Answers(self.tally, resumed)
        script = itertools.chain(opening, self._script(rng, dialect, answers))
        await self._misusing(socket, answers).run(script, rng)
        if answers.ticket is not None:
            self._tickets.append(answers.ticket)

    def _misusing(self, socket: ClientConnection, answers: Answers) -> "_Misuse":
        return _Misuse(socket, answers, self.tally, self._crowd.patience_s)

    def _opening(self, rng: random.Random) -> tuple[list[Hostile], Position | None]:
        """How a connection of labkit.v1 begins: a session, an honest resume, or out of order."""
        start, chance = start_message(rng), rng.random()
        if chance < 0.1:
            return [], None
        if chance < 0.7 or not self._tickets:
            return [Hostile(Kind.VALID, json.dumps(start))], None
        ticket = rng.choice(self._tickets)
        resume = v1.Resume(session=ticket.session, token=ticket.token, received=ticket.received)
        start["resume"] = resume.model_dump()
        return [Hostile(Kind.VALID, json.dumps(start))], ticket.received

    def _script(
        self, rng: random.Random, dialect: Dialect, answers: PlainAnswers | V1Answers
    ) -> Iterator[Hostile]:
        """What a connection sends, as long as there are messages left; each is counted."""
        for _ in range(1 + round(rng.expovariate(1 / _MEAN_MESSAGES))):
            if self._left <= 0:
                return
            received = answers.received if isinstance(answers, V1Answers) else None
            context = Context(
                self._crowd.max_message_bytes,
                self._crowd.max_read_bytes,
                tuple(self._tickets),
                received or Position(),
            )
            message = draw(rng, dialect, context)
            self._count(message.kind.value)
            yield message

    async def _break_bytes(self, rng: random.Random) -> None:
        """One connection that is no WebSocket, or stops being one."""
        self._count(_BROKEN)
        opened = rng.random() < 0.5
        broken = broken_frames(rng) if opened else broken_handshake(rng)
        first = handshake(rng.choice((None, v1.SUBPROTOCOL))) if opened else b""
        reader, writer = await asyncio.open_connection(*address_of(self._url))
        try:
            async with asyncio.timeout(self._crowd.patience_s):
                with suppress(ConnectionError, asyncio.IncompleteReadError):
                    await _write_broken(reader, writer, first, broken)
        except TimeoutError:
            self.tally.stuck[broken.name] += 1
        finally:
            writer.transport.abort()


async def _write_broken(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bytes, broken: Broken
) -> None:
    """Write the bytes, behind a handshake if there is one, and wait for what has to follow."""
    if first:
        writer.write(first)
        await reader.readuntil(b"\r\n\r\n")
    writer.write(broken.data)
    await writer.drain()
    while broken.ends and await reader.read(65_536):
        pass


class _Misuse:
    """One connection: what is sent, and what comes meanwhile."""

    def __init__(
        self, socket: ClientConnection, answers: Answers, tally: Tally, patience_s: float
    ) -> None:
        self._patience_s = patience_s
        self._socket = socket
        self._answers = answers
        self._tally = tally
        self._news = asyncio.Event()
        self._pong: Awaitable[float] | None = None  # to the last ping
        self._may_break = False  # a server that stops reading a message may cut it off

    async def run(self, script: Iterator[Hostile], rng: random.Random) -> None:
        """Send the script, then hang up in order or not, and wait until all is over."""
        reading = asyncio.create_task(self._read())
        aborting = rng.random() < _ABORTED_SHARE
        try:
            with suppress(ConnectionClosed):
                await self._send(script)
                if not aborting:
                    await self._part(reading)
        finally:
            self._note_close(hung_up=aborting)
            self._socket.transport.abort()
            await reading

    async def _send(self, script: Iterator[Hostile]) -> None:
        for message in script:
            self._may_break |= message.kind in (Kind.UNREADABLE, Kind.NOT_UTF8)
            if message.kind is Kind.CONTROL:
                await self._control(message)
            else:
                if not message.as_text:
                    self._answers.asked(message.payload)
                pieces = self._pieces(message) if message.cuts else message.payload
                await self._socket.send(pieces, text=message.as_text or None)
            await asyncio.sleep(0)  # `send` waits for a full buffer only

    async def _control(self, message: Hostile) -> None:
        data = message.payload
        if message.as_text:
            await self._socket.pong(data)
            return
        with suppress(ConcurrencyError):  # such a ping is on its way already
            self._pong = await self._socket.ping(data)

    async def _pieces(self, message: Hostile) -> AsyncIterator[str | bytes]:
        """The message in fragments, with a ping between each two (RFC 6455, section 5.4)."""
        for start, end in itertools.pairwise((0, *message.cuts, len(message.payload))):
            yield message.payload[start:end]
            await self._control(Hostile(Kind.CONTROL, b"between"))

    async def _part(self, reading: asyncio.Task[None]) -> None:
        """Wait until everything that was sent is answered, then close in order."""
        farewell = self._answers.farewell()
        self._answers.asked(farewell)
        await self._socket.send(farewell)
        try:
            async with asyncio.timeout(self._patience_s):
                while not self._answers.settled and not reading.done():
                    self._news.clear()
                    await self._news.wait()
                if self._pong is not None and not reading.done():
                    await self._pong  # fails like everything else where the server hung up
                await self._all_told(reading)
                await self._socket.close()
        except TimeoutError:
            self._tally.stuck["the last message"] += 1

    async def _all_told(self, reading: asyncio.Task[None]) -> None:
        """Wait for refusals, which may come behind the answer to the last message."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LATE_S):
                while self._answers.untold and not reading.done():
                    self._news.clear()
                    await self._news.wait()
        if not reading.done():
            for missing in self._answers.untold:
                self._tally.blame(missing)

    async def _read(self) -> None:
        with suppress(ConnectionClosed):
            async for message in self._socket:
                self._answers.take(message)
                self._news.set()
        self._news.set()

    def _note_close(self, *, hung_up: bool) -> None:
        protocol = self._socket.protocol
        frame = protocol.close_rcvd
        if frame is not None and protocol.close_rcvd_then_sent:
            self._tally.take_close(frame.code, frame.reason)
        elif frame is None and not hung_up and not self._may_break:
            self._tally.take_close(None, "the connection broke off")
