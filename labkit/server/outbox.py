"""The one door through which everything goes that a connection sends.

It owns the order of messages, the bound on what may wait, and the deadline of each write.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from labkit.errors import CloseCode, ErrorCode
from labkit.server.connection import Closing

__all__ = ["Outbox"]


class Outbox:
    """Messages on their way to one client.

    Urgent messages (`pong`, errors) overtake replies that wait, but never each other.
    """

    URGENT_LIMIT = 64
    """Urgent messages that may wait before the reader of the socket has to wait, too."""

    def __init__(
        self,
        write: Callable[[str | bytes], Awaitable[None]],
        *,
        max_bytes: int,
        timeout_s: float,
    ) -> None:
        """Send through `write`.

        Args:
            write: Writes one message to the socket; may wait for the client to read.
            max_bytes: Most bytes that may wait; then `put` waits.
            timeout_s: Longest that one write may take.
        """
        self._write = write
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._urgent: deque[str | bytes] = deque()
        self._ordinary: deque[str | bytes] = deque()
        self._waiting_bytes = 0
        self._unwritten = 0
        self._changed = asyncio.Condition()

    @property
    def waiting_bytes(self) -> int:
        """Bytes of ordinary messages that wait."""
        return self._waiting_bytes

    async def put(self, message: str | bytes) -> None:
        """Send `message` after those before it; waits while too much is on its way.

        A message larger than the bound goes alone, so it is never refused.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self._has_room(len(message)))
            self._ordinary.append(message)
            self._waiting_bytes += len(message)
            self._unwritten += 1
            self._changed.notify_all()

    async def put_urgent(self, message: str | bytes) -> None:
        """Send `message` before everything that is not urgent."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._urgent) < self.URGENT_LIMIT)
            self._urgent.append(message)
            self._unwritten += 1
            self._changed.notify_all()

    async def flushed(self) -> None:
        """Wait until every message was written, the one in hand and empty ones included."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._unwritten)

    async def run(self) -> None:
        """Write messages until cancelled.

        Raises:
            Closing: A write took too long.
        """
        while True:
            message, ordinary = await self._next()
            await self._write_in_time(message)
            async with self._changed:
                self._unwritten -= 1
                if ordinary:
                    self._waiting_bytes -= len(message)
                self._changed.notify_all()

    def _has_room(self, size: int) -> bool:
        return not self._waiting_bytes or self._waiting_bytes + size <= self._max_bytes

    async def _next(self) -> tuple[str | bytes, bool]:
        async with self._changed:
            await self._changed.wait_for(lambda: self._urgent or self._ordinary)
            if self._urgent:
                return self._urgent.popleft(), False
            return self._ordinary.popleft(), True

    async def _write_in_time(self, message: str | bytes) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._write(message)
        except TimeoutError:
            raise Closing(
                CloseCode.SLOW_READER,
                ErrorCode.SLOW_READER,
                f"a message of {len(message)} bytes was not read within {self._timeout_s:g} s",
                "read the replies while they come",
            ) from None
