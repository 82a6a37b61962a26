"""The turns of one caller of a learner's server, one after the other, while messages are read."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from labkit.errors import ErrorCode, ProtocolError
from labkit.protocol import v1


class Turns:
    """Runs turns one after the other, in a task of its own, whatever becomes of the connection.

    Where a turn raises, its caller is told so, with `engine_failed`, and the next one runs. ::

        turns = Turns(4, session.tell)
        turns.add(answer, session, audio)    # runs answer(session, audio) when it is its turn
    """

    def __init__(self, most: int, tell: Callable[[v1.Error], Awaitable[object]]) -> None:
        """Let `most` turns wait; `tell` sends a message of labkit.v1 to the caller."""
        self._most = most
        self._tell = tell
        self._waiting: deque[Callable[[], Awaitable[object]]] = deque()
        self._task: asyncio.Task[None] | None = None

    def add(self, turn: Callable[..., Awaitable[object]], *arguments: Any) -> None:
        """Run `turn(*arguments)` behind those that wait.

        Raises:
            ProtocolError: As many wait as may, `too_many_turns`.
        """
        if len(self._waiting) == self._most:
            what = f"{self._most} turns wait for their answer already"
            raise ProtocolError(ErrorCode.TOO_MANY_TURNS, what, "send audio.end later")
        self._waiting.append(partial(turn, *arguments))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    def cancel(self) -> None:
        """End the turn that runs, and forget those that wait."""
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while self._waiting:
            try:
                await self._waiting.popleft()()
            except Exception as error:  # nobody awaits this task, so it is told here or nowhere
                failed = ProtocolError(ErrorCode.ENGINE_FAILED, repr(error), "say it again")
                await self._tell(v1.Error.of(failed, cause=None))
