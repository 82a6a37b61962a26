"""A pipeline in virtual time: its queues and threads are real, and its engines take no time.

Each call of an engine takes as long as it says by `VirtualTime.work`. The clock moves on only when
every engine's thread is at such work or has none, to the moment at which the first of them is done.
So a minute of four callers takes a tenth of a second, and gives the same each time.
"""

import asyncio
import selectors
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

import pytest

from labkit.voice import pipeline, scheduling
from labkit.voice.scheduling import EngineQueue, Stop

_LOST_S: Final = 10.0
"""A thread that computes for so long in real time never comes back."""


class VirtualTime(asyncio.SelectorEventLoop):
    """An event loop with a clock of its own.

    Attributes:
        computing: Threads that do something other than wait for this clock.
    """

    def __init__(self) -> None:
        self.computing = 0
        self._now_s = 1000.0
        super().__init__(_Waits(self))

    def time(self) -> float:
        return self._now_s

    def time_ns(self) -> int:
        return round(1e9 * self._now_s)

    def skip(self, seconds: float) -> None:
        self._now_s += seconds

    def work(self, seconds: float) -> None:
        """Let so much time pass for this thread, which belongs to an engine."""
        over = threading.Event()

        def begin() -> None:
            self.computing -= 1
            self.call_later(seconds, end)

        def end() -> None:
            self.computing += 1
            over.set()

        self.call_soon_threadsafe(begin)
        assert over.wait(_LOST_S)


class _Waits(selectors.DefaultSelector):
    def __init__(self, loop: VirtualTime) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout == 0:
            return super().select(0)
        if self._loop.computing:
            found = super().select(_LOST_S)
            assert found, "an engine's thread is lost"
            return found
        assert timeout is not None, "everybody waits for somebody else"
        self._loop.skip(timeout)
        return super().select(0)


def use(loop: VirtualTime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the pipeline and its queues live in the time of `loop`."""
    call = EngineQueue.call

    async def counted(queue: EngineQueue, work: Callable[[Stop], Any]) -> Any:
        loop.computing += 1
        try:
            return await call(queue, work)
        finally:
            loop.computing -= 1

    monkeypatch.setattr(EngineQueue, "call", counted)
    for module in (pipeline, scheduling):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter_ns=loop.time_ns))
