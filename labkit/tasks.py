"""Tasks that meet: one wakes the others, one stops another, and none keeps what it held."""

import asyncio
from collections.abc import Callable
from typing import Any


class Changes:
    """Wakes everybody who waits whenever something has changed; each then looks for itself."""

    def __init__(self) -> None:
        self._next: asyncio.Event | None = None

    def tell(self) -> None:
        """Say that something has changed."""
        if self._next is not None:
            self._next.set()
            self._next = None

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until `condition` holds; it holds when this returns."""
        while not condition():
            if self._next is None:
                self._next = asyncio.Event()
            await self._next.wait()


async def stop(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait for its end; what it raised is of no interest here."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    if task.cancelled():
        try:
            task.result()
        except asyncio.CancelledError as error:
            forget_frames(error)


def forget_frames(error: BaseException) -> None:
    """Let go of the frames that a handled exception came through.

    The frame of a task group that fails or is cancelled holds the error, and the error the frame:
    what they hold would else stay until the garbage collector comes by, which may be many
    connections later.
    """
    error.__traceback__ = None
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            forget_frames(inner)
