"""A fair queue before each engine.

An engine serves one call at a time: llama.cpp crashes or freezes under concurrent calls on one
context (llama-cpp-python issues 471, 1529, 1995), and two calls at once on few cores cost far
more than one after the other. So each engine has one worker thread, and `FairQueue` decides who
is next: final work before speculative work, and round-robin across sessions within each.
"""

import asyncio
import threading
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from enum import IntEnum
from typing import TypeVar

__all__ = ["FairQueue", "Priority", "Stop"]

T = TypeVar("T")

Stop = threading.Event
"""Set when the caller no longer wants the result: the engine stops at its next step."""


class Priority(IntEnum):
    """How urgent a piece of work is; lower values go first."""

    FINAL = 0
    """Somebody waits for it."""
    SPECULATIVE = 1
    """Done ahead of time; its result may never be needed."""


class _Waiting:
    """Callers that wait, in the order in which they will be served."""

    def __init__(self) -> None:
        self._lines: dict[Priority, OrderedDict[str, deque[asyncio.Future[None]]]] = {
            priority: OrderedDict() for priority in Priority
        }

    def add(self, owner: str, priority: Priority, ticket: asyncio.Future[None]) -> None:
        self._lines[priority].setdefault(owner, deque()).append(ticket)

    def pop(self) -> asyncio.Future[None] | None:
        """The next ticket whose caller still waits; its session goes to the end of the round."""
        for sessions in self._lines.values():
            while sessions:
                owner, tickets = sessions.popitem(last=False)
                ticket = tickets.popleft()
                if tickets:
                    sessions[owner] = tickets
                if not ticket.done():
                    return ticket
        return None

    def __len__(self) -> int:
        return sum(
            not ticket.done()
            for sessions in self._lines.values()
            for tickets in sessions.values()
            for ticket in tickets
        )


class FairQueue:
    """Runs an engine's blocking calls one at a time, outside the event loop, in fair order.

    One queue belongs to one event loop.
    """

    def __init__(self, name: str) -> None:
        """Make a queue; `name` is what its worker thread is called."""
        self.name = name
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"labkit-{name}")
        self._waiting = _Waiting()
        self._busy = False

    def __len__(self) -> int:
        """How many calls wait, the running one not counted."""
        return len(self._waiting)

    async def run(self, owner: str, priority: Priority, work: Callable[[Stop], T]) -> T:
        """Run `work` on the engine's thread when it is this caller's turn.

        Args:
            owner: The session that the work belongs to; sessions take turns.
            priority: Final work goes before speculative work.
            work: The blocking call. It is given a `Stop`, which is set when the caller was
                cancelled, and looks at it between its steps.

        Returns:
            What `work` returned. Whatever it raises is raised here.
        """
        async with self.turn(owner, priority):
            return await self.call(work)

    @asynccontextmanager
    async def turn(self, owner: str, priority: Priority) -> AsyncIterator[None]:
        """Wait for this caller's turn, and hold it: inside, `call` may be used.

        For work that depends on what has come in while the caller waited; else there is `run`.
        """
        if self._busy:
            await self._wait(owner, priority)
        self._busy = True
        try:
            yield
        finally:
            self._pass_on()

    async def call(self, work: Callable[[Stop], T]) -> T:
        """Run `work` on the engine's thread, while this caller holds the turn."""
        stop = Stop()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, work, stop)
        finally:
            stop.set()

    async def _wait(self, owner: str, priority: Priority) -> None:
        ticket = asyncio.get_running_loop().create_future()
        self._waiting.add(owner, priority, ticket)
        try:
            await ticket
        except asyncio.CancelledError:
            # The turn may have been handed over in the very step in which the caller gave up.
            if ticket.done() and not ticket.cancelled():
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        ticket = self._waiting.pop()
        if ticket is None:
            self._busy = False
        else:
            ticket.set_result(None)

    def close(self) -> None:
        """Take no more work and drop what has not started. Does not wait for a running call."""
        self._worker.shutdown(wait=False, cancel_futures=True)
