"""One WebSocket, whatever its dialect: one loop that reads, one that writes, and an end.

The reading loop gives each message to the dialect, which calls the session; the writing loop takes
from the connection's `Feed`. How fast and how much a client may send is decided here and below,
in `BoundedConnection`, for all dialects alike.

Nearly every message is a chunk of audio, fifty a second from each caller. Handing each to a task
costs more than hearing it, so one that nothing stands before is heard where it comes in
(`hear_at_once`); the reading loop takes the others.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol

from websockets.exceptions import ConnectionClosed

from labkit.errors import Close, ErrorCode, ProtocolError
from labkit.protocol.replay import Position
from labkit.session.events import Observer, Refused
from labkit.session.limits import TokenBucket
from labkit.session.outgoing import Feed, slow_reader
from labkit.session.refusals import RefusalRows, server_failed
from labkit.session.session import MOST_AT_ONCE, Session
from labkit.session.settings import ServerSettings
from labkit.tasks import forget_frames

_log = logging.getLogger(__name__)

_LONGEST_STRETCH_NS: Final = 500_000
"""After so long in one go, everybody else gets a turn of the loop."""
_LOOKS: Final = 4
"""Looks in a row at a client that does not read on, until it is given up on."""
_FILLED: Final = 0.01
"""Part of its time within which the buffers between are full: what goes then, nobody has read."""


class Socket(Protocol):
    """What a connection needs of a WebSocket."""

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        """Messages of the client, until it is gone."""
        ...

    @property
    def unread_bytes(self) -> int:
        """Bytes that were written and that the system has not taken."""
        ...

    async def send(self, message: str | bytes) -> None:
        """Send one message; waits while the client does not read."""
        ...

    async def drain(self) -> None:
        """Wait until the client has read most of what was written."""
        ...


class Dialect(Protocol):
    """A wire protocol over the session core: messages to calls, and calls to messages.

    Attributes:
        session: What the connection carries, once it does.
    """

    session: Session | None

    def open(self) -> None:
        """The connection begins."""
        ...

    def receive(self, message: str | bytes) -> None:
        """Do what a message asks for.

        Raises:
            ProtocolError: It is refused; the session goes on.
            Close: The connection is to be ended.
        """
        ...

    def settle(self) -> None:
        """No audio came for a while: say what there is to say of what came before."""
        ...

    def cause(self, message: str | bytes) -> object:
        """What a refusal of the message that was received last names as its cause, if anything."""
        ...

    def refusal(self, refused: Refused) -> str:
        """The message that tells of a refusal where no session is."""
        ...

    def farewell(self, why: Close) -> str | None:
        """The last message of a connection that ends; None where the dialect has none."""
        ...


class Connection:
    """Reads messages into a dialect, and writes what the session and the dialect have to say.

    Attributes:
        dialect: What the client speaks.
        feed: What is to be written, by the dialect and its session.
    """

    def __init__(
        self,
        socket: Socket,
        dialect: Dialect,
        feed: Feed,
        settings: ServerSettings,
        observer: Observer,
        *,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self.dialect = dialect
        self.feed = feed
        self._socket = socket
        self._settings = settings
        self._observer = observer
        self._clock = clock
        self._opened_ns = clock()
        burst = settings.message_burst
        self._texts = TokenBucket(settings.max_messages_per_s, burst, self._opened_ns)
        self._refusals = RefusalRows()
        self._is_holding_back = False

    async def run(self) -> Close | None:
        """Serve until the client is gone, or the connection is to be ended.

        Returns:
            Why and how it is to be ended; None where the client is gone.

        Raises:
            Exception: A fault of the server.
        """
        self.dialect.open()
        reading = asyncio.create_task(self._read())
        writing = asyncio.create_task(self._write())
        first: list[asyncio.Future[Any]] = [reading, writing, self.feed.ended]
        try:
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        finally:
            reading.cancel()
            writing.cancel()
            results = await asyncio.gather(reading, writing, return_exceptions=True)
        return self._outcome(results)

    def settle(self, now_ns: int) -> None:
        """Let the dialect settle what is open where no audio came for a second."""
        session = self.dialect.session
        if session is not None and now_ns - session.activity.audio_ns >= 1_000_000_000:
            self.dialect.settle()

    def overdue(self, now_ns: int) -> Close | None:
        """Why it should be ended, if it should."""
        if self.dialect.session is not None:
            return self.dialect.session.overdue(now_ns)
        if (now_ns - self._opened_ns) / 1e9 < self._settings.start_s:
            return None
        return Close(
            ErrorCode.START_TIMEOUT,
            f"no 'session.start' came within {self._settings.start_s:g} s",
            "send 'session.start' as the first message",
        )

    async def _read(self) -> None:
        began_ns = time.perf_counter_ns()
        async for message in self._socket:
            if self._must_hold_back():
                await self._hold_back()
            if self.feed.ended.done():
                return  # what still comes is no longer this connection's to judge
            self._attempt(self._receive, message)
            while self.dialect.session is not None and self.dialect.session.hears_on:
                await asyncio.sleep(0)
                self._attempt(self._hear_on, message)
            del message  # else the last one is kept until the next comes, however long it is
            # Messages that have come already are read without a turn of the loop between them.
            if time.perf_counter_ns() - began_ns > _LONGEST_STRETCH_NS:
                await asyncio.sleep(0)
                began_ns = time.perf_counter_ns()

    def hear_at_once(self, payload: bytes) -> bool:
        """Take audio that just came, unless something stands before it; gives whether it did.

        Called by the socket, outside of the reading loop: only while no message waits for that
        loop, so the order is kept.
        """
        if len(payload) > MOST_AT_ONCE or self._must_hold_back() or self.feed.ended.done():
            return False
        self._attempt(self._receive, payload)
        return True

    def _attempt(self, work: Callable[[str | bytes], None], message: str | bytes) -> None:
        """Do what a message asks for, or refuse it.

        What ends the connection is known before the next message comes: were audio counted behind
        a message that was not, nobody could resume there.
        """
        try:
            try:
                work(message)
            except ProtocolError as error:
                self._refuse(error, message)
        except Close as why:
            self.feed.end(why)
        except Exception:
            _log.exception("a connection failed")
            self.feed.end(server_failed())

    def _hear_on(self, _: str | bytes) -> None:
        if self.dialect.session is not None:
            self.dialect.session.hear_on()

    def _receive(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            self.dialect.receive(message)
            return
        now_ns = self._clock()
        if self._texts.take(1, now_ns):
            raise Close(
                ErrorCode.TOO_MANY_MESSAGES,
                f"more than {self._settings.max_messages_per_s:g} text messages a second",
                "send less control; audio goes in binary messages",
            )
        before = self._acknowledged
        self.dialect.receive(message)
        if (session := self.dialect.session) is None:
            self._tell(self._refusals.text_came())
            return
        if self._acknowledged != before:  # as often as the client is asked for it
            self._texts.give_back(1)
        for refused in self._refusals.end():  # what was refused before there was a session
            session.tell(refused)
        session.accepted_text(now_ns)

    @property
    def _acknowledged(self) -> Position | None:
        """Up to where the client has said that it has what was sent."""
        session = self.dialect.session
        if session is None or not session.options.acknowledges:
            return None
        return session.outgoing.window.base

    def _refuse(self, error: ProtocolError, message: str | bytes) -> None:
        binary = isinstance(message, bytes)
        cause = self.dialect.cause(message)
        if (session := self.dialect.session) is not None:
            session.refuse(error, cause, binary=binary)
        else:
            self._tell(self._refusals.refuse(error, cause, binary=binary))

    def _tell(self, told: Sequence[Refused]) -> None:
        """Tell what was refused while there is no session."""
        for refused in told:
            self._observer.refused(refused.error.code, refused.count)
            self.feed.put_urgent(self.dialect.refusal(refused))

    def _must_hold_back(self) -> bool:
        """Whether the next message has to wait."""
        session = self.dialect.session
        if session is not None and (session.wait_until_ns or session.must_wait):
            return True
        return self._is_holding_back or self.feed.crowded

    async def _hold_back(self) -> None:
        """Read on when pace, room and the client's own reading allow it.

        Nothing is lost: what comes meanwhile waits in the network, and the client with it.
        """
        self._is_holding_back = True
        try:
            session = self.dialect.session
            if session is not None:
                wait_s = (session.wait_until_ns - self._clock()) / 1e9
                await asyncio.sleep(max(0.0, wait_s))
                session.wait_until_ns = 0  # not before: a new connection would not wait at all
                await session.room()
            await self.feed.room()
        finally:
            self._is_holding_back = False

    async def _write(self) -> None:
        try:
            while (message := await self.feed.next()) is not None:
                await self._send(message)
                self.feed.written()
        except Close as why:
            self.feed.end(why)

    async def _send(self, message: str | bytes) -> None:
        """Send one message; gives up once its client has taken in nothing of it for too long.

        All of it may take longer than that: a whole reply of 30 s, on a line that is as fast as
        speech, comes in 30 s.
        """
        timeout_s = self._settings.send_timeout_s
        write: Callable[[], Awaitable[None]] = partial(self._socket.send, message)
        # Looked at for the first time as soon as that says anything: with nothing to compare it
        # with, the first look of the others would not count, and the last come a quarter late.
        unread, looks, wait_s = math.inf, 0, timeout_s * _FILLED
        while looks < _LOOKS:
            try:
                async with asyncio.timeout(wait_s):
                    return await write()
            except TimeoutError:
                before, unread = unread, self._socket.unread_bytes
                looks = looks + 1 if unread >= before else 0
                write, wait_s = self._socket.drain, timeout_s / _LOOKS  # what was written stays so
        raise slow_reader(timeout_s)

    def _outcome(self, results: Sequence[BaseException | None]) -> Close | None:
        """Why it ends: a reason that somebody gave comes before what happened meanwhile."""
        if self.feed.ended.done():
            return self.feed.ended.result()
        for error in filter(None, results):
            # A client that was killed is no fault of the server.
            if not isinstance(error, asyncio.CancelledError | ConnectionClosed | OSError):
                raise error
            forget_frames(error)
        return None
