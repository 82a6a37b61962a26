"""What the connections of all dialects have in common: the socket, and being ended."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Protocol

from labkit.errors import CloseCode, ErrorCode, ServerError

__all__ = ["Closing", "Connection", "Ending", "Socket", "first_of", "forget_frames"]


class Socket(Protocol):
    """What a connection needs of a WebSocket."""

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        """Messages of the client, until it is gone."""
        ...

    async def send(self, message: str | bytes) -> None:
        """Send one message; waits while the client does not read."""
        ...


class Closing(ServerError):  # noqa: N818 - the end of a connection is not always an error
    """A connection ends, for a reason that its client is told.

    Attributes:
        close: The WebSocket close code.
        code: The error code, None where nothing went wrong.
        hint: What the client can do.
    """

    def __init__(self, close: CloseCode, code: ErrorCode | None, reason: str, hint: str) -> None:
        """Say how and why it ends."""
        super().__init__(reason)
        self.close = close
        self.code = code
        self.hint = hint


class Ending:
    """Lets others end a connection while it runs."""

    def __init__(self) -> None:
        """Nobody has asked yet."""
        self._asked = asyncio.Event()
        self._why: Closing | None = None

    def ask(self, why: Closing) -> None:
        """End the connection; the first reason is the one that counts."""
        if self._why is None:
            self._why = why
            self._asked.set()

    async def wait(self) -> None:
        """Wait until somebody asks.

        Raises:
            Closing: Somebody did.
        """
        await self._asked.wait()
        if self._why is not None:
            raise self._why


async def first_of(*waits: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Wait until one of `waits` is over, and stop the others."""
    tasks = [asyncio.create_task(wait()) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Connection(Protocol):
    """One WebSocket with its dialect."""

    async def run(self) -> None:
        """Serve until the client is gone.

        Raises:
            Closing: The connection is to be ended.
        """
        ...

    async def drain(self) -> None:
        """Wait until everything is answered and written, or the client is gone."""
        ...

    def overdue(self, now_ns: int) -> Closing | None:
        """Why it should be ended, if it should."""
        ...

    def behind_s(self, now_ns: int) -> float:
        """Seconds that its oldest unanswered utterance has waited."""
        ...

    def end(self, why: Closing) -> None:
        """End it."""
        ...

    def farewell(self, why: Closing) -> str | None:
        """The last message, in the words of the dialect; None where it has none."""
        ...


def forget_frames(error: BaseException) -> None:
    """Let go of the frames that a handled exception came through.

    What a connection held would else stay until the garbage collector comes by, which may be
    many connections later: the frame of a `TaskGroup` holds the exception that holds the frame.
    """
    error.__traceback__ = None
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            forget_frames(inner)
