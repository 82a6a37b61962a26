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

from labkit.errors import Close, CloseCode, ErrorCode, ProtocolError
from labkit.session.events import Cause, Observer, Refused
from labkit.session.limits import TokenBucket
from labkit.session.outgoing import Feed, slow_reader
from labkit.session.refusals import RefusalRow
from labkit.session.session import MOST_AT_ONCE, Session
from labkit.session.settings import ServerSettings
from labkit.session.tasks import forget_frames

_log = logging.getLogger(__name__)

_LONGEST_STRETCH_NS: Final = 3_000_000
"""After so long in one go, everybody else gets a turn of the loop."""
_LOOKS: Final = 4
"""Looks in a row at a client that does not read on, until it is given up on."""


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
    """A wire protocol over the session core: messages to calls, and calls to messages."""

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

    def cause(self, message: str | bytes) -> Cause | None:
        """What a refusal of the message that was received last names as its cause."""
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
        feed: What is to be written.
        session: The session that it carries, once there is one.
    """

    def __init__(
        self,
        socket: Socket,
        settings: ServerSettings,
        observer: Observer,
        *,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        """Serve a client over `socket`; `speak` says in which dialect."""
        self.feed = Feed(settings.send_timeout_s)
        self.session: Session | None = None
        self._socket = socket
        self._settings = settings
        self._observer = observer
        self._clock = clock
        self._opened_ns = clock()
        self._texts = TokenBucket(
            per_second=settings.max_messages_per_s,
            burst=settings.message_burst,
            now_ns=self._opened_ns,
        )
        self._refusals = RefusalRow()
        self._ended: asyncio.Future[Close] = asyncio.get_running_loop().create_future()
        self._gone = asyncio.Event()
        self._dialect: Dialect | None = None
        self._is_holding_back = False

    async def run(self, dialect: Dialect) -> Close | None:
        """Serve until the client is gone, or the connection is to be ended.

        Returns:
            Why and how it is to be ended; None where the client is gone.

        Raises:
            Exception: A fault of the server.
        """
        self._dialect = dialect
        dialect.open()
        reading = asyncio.create_task(self._read(dialect))
        writing = asyncio.create_task(self._write())
        first: list[asyncio.Future[Any]] = [reading, writing, self._ended]
        try:
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._gone.set()
            reading.cancel()
            writing.cancel()
            results = await asyncio.gather(reading, writing, return_exceptions=True)
        return self._outcome(results)

    def carry(self, session: Session) -> None:
        """Carry `session` from now on."""
        self.session = session
        session.attach(self, self.feed)
        for refused in self._refusals.end():
            session.tell(refused)

    def end(self, why: Close) -> None:
        """End the connection; the first reason is the one that counts."""
        if not self._ended.done():
            self._ended.set_result(why)

    async def drain(self) -> None:
        """Wait until everything is answered and written, or the client is gone."""
        if self.session is None:
            return
        waits = [
            asyncio.create_task(self.session.drained()),
            asyncio.create_task(self._gone.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    def farewell(self, why: Close) -> str | None:
        """The last message, in the words of the dialect; None where it has none."""
        return None if self._dialect is None else self._dialect.farewell(why)

    def close(self) -> None:
        """Let go of the dialect: it and the connection would keep each other in memory."""
        self._dialect = None

    def settle(self, now_ns: int) -> None:
        """Let the dialect settle what is open where no audio came for a second."""
        session = self.session
        if self._dialect and session and now_ns - session.activity.audio_ns >= 1_000_000_000:
            self._dialect.settle()

    def overdue(self, now_ns: int) -> Close | None:
        """Why it should be ended, if it should."""
        if self.session is not None:
            return self.session.overdue(now_ns)
        if (now_ns - self._opened_ns) / 1e9 < self._settings.start_s:
            return None
        return Close(
            CloseCode.START_TIMEOUT,
            ErrorCode.START_TIMEOUT,
            f"no 'session.start' came within {self._settings.start_s:g} s",
            "send 'session.start' as the first message",
        )

    async def _read(self, dialect: Dialect) -> None:
        began_ns = time.perf_counter_ns()
        async for message in self._socket:
            if self._must_hold_back():
                await self._hold_back()
            if self._ended.done():
                return  # what still comes is no longer this connection's to judge
            self._take(dialect, message)
            while self.session is not None and self.session.hears_on:
                await asyncio.sleep(0)
                self._hear_on(dialect, message)
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
        dialect = self._dialect
        if dialect is None or self._must_hold_back() or self._ended.done():
            return False
        if len(payload) > MOST_AT_ONCE:
            return False
        try:
            self._take(dialect, payload)
        except Close as why:
            self.end(why)
        except Exception:  # no task is here that could fail: asyncio would just cut the connection
            _log.exception("a connection failed")
            self.end(_failed())
        return True

    def _take(self, dialect: Dialect, message: str | bytes) -> None:
        try:
            self._receive(dialect, message)
        except ProtocolError as error:
            self._refuse(dialect, error, message)

    def _hear_on(self, dialect: Dialect, message: str | bytes) -> None:
        try:
            if self.session is not None:
                self.session.hear_on()
        except ProtocolError as error:
            self._refuse(dialect, error, message)

    def _receive(self, dialect: Dialect, message: str | bytes) -> None:
        if isinstance(message, bytes):
            dialect.receive(message)
            return
        now_ns = self._clock()
        if self._texts.take(1, now_ns):
            raise self._too_many_texts()
        dialect.receive(message)
        if self.session is not None:
            self.session.accepted_text(now_ns)
        else:
            self._tell(dialect, self._refusals.text_came())

    def _refuse(self, dialect: Dialect, error: ProtocolError, message: str | bytes) -> None:
        binary = isinstance(message, bytes)
        cause = dialect.cause(message)
        if self.session is not None:
            self.session.refuse(error, cause, binary=binary)
            return
        row = self._refusals
        if binary:
            told = row.refuse(error, cause)
        else:
            told = [*row.text_came(), Refused(error, cause=cause)]
        self._tell(dialect, told)

    def _tell(self, dialect: Dialect, told: Sequence[Refused]) -> None:
        """Tell what was refused while there is no session."""
        for refused in told:
            self._observer.refused(refused.error.code, refused.count)
            self.feed.put_urgent(dialect.refusal(refused))

    def _must_hold_back(self) -> bool:
        """Whether the next message has to wait."""
        session = self.session
        if session is not None and (session.wait_until_ns or session.must_wait):
            return True
        return self._is_holding_back or self.feed.crowded

    async def _hold_back(self) -> None:
        """Read on when pace, room and the client's own reading allow it.

        Nothing is lost: what comes meanwhile waits in the network, and the client with it.
        """
        self._is_holding_back = True
        try:
            session = self.session
            if session is not None:
                wait_s = (session.wait_until_ns - self._clock()) / 1e9
                session.wait_until_ns = 0
                await asyncio.sleep(max(0.0, wait_s))
                await session.room()
            await self.feed.room()
        finally:
            self._is_holding_back = False

    async def _write(self) -> None:
        while (message := await self.feed.next()) is not None:
            await self._send(message)
            self.feed.written()

    async def _send(self, message: str | bytes) -> None:
        """Send one message; gives up once its client has taken in nothing of it for too long.

        All of it may take longer than that: a whole reply of 30 s, on a line that is as fast as
        speech, comes in 30 s.
        """
        timeout_s = self._settings.send_timeout_s
        write: Callable[[], Awaitable[None]] = partial(self._socket.send, message)
        unread, looks = math.inf, 0
        while looks < _LOOKS:
            try:
                async with asyncio.timeout(timeout_s / _LOOKS):
                    return await write()
            except TimeoutError:
                before, unread = unread, self._socket.unread_bytes
                looks = looks + 1 if unread >= before else 0
                write = self._socket.drain  # what was written stays so
        raise slow_reader(timeout_s)

    def _outcome(self, results: Sequence[BaseException | None]) -> Close | None:
        """Why it ends: a reason that somebody gave comes before what happened meanwhile."""
        if self._ended.done():
            return self._ended.result()
        errors = [error for error in results if error is not None]
        for error in errors:
            if isinstance(error, Close):
                forget_frames(error)
                return error
        for error in errors:
            # A client that was killed is no fault of the server.
            if not isinstance(error, asyncio.CancelledError | ConnectionClosed | OSError):
                raise error
            forget_frames(error)
        return None

    def _too_many_texts(self) -> Close:
        return Close(
            CloseCode.POLICY,
            ErrorCode.TOO_MANY_MESSAGES,
            f"more than {self._settings.max_messages_per_s:g} text messages a second",
            "send less control; audio goes in binary messages",
        )


def _failed() -> Close:
    return Close(
        CloseCode.INTERNAL_ERROR,
        ErrorCode.INTERNAL,
        "the server has failed in this connection",
        "connect again; the server's log has the details",
    )
