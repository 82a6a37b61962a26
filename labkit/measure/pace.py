"""When things are due: the clock that paced callers go by, and sleeping until it says so."""

import asyncio
import select
import selectors
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Pace", "fine_loop"]


@dataclass(frozen=True, slots=True)
class Pace:
    """A clock, and how to wait for it.

    Attributes:
        speed: Seconds of this clock per real second; above 1, a rehearsal takes less time.
        source: Real monotonic nanoseconds.
    """

    speed: int = 1
    source: Callable[[], int] = time.perf_counter_ns

    def now_ns(self) -> int:
        """Nanoseconds of this clock."""
        return self.source() * self.speed

    async def sleep_until(self, due_ns: int) -> int:
        """Sleep until the clock says `due_ns`, not at all where that is past.

        Returns:
            By how much the event loop woke the caller too late, in nanoseconds. What was past
            already as the caller went to sleep does not count.
        """
        asked_ns = self.now_ns()
        await asyncio.sleep(max(0, due_ns - asked_ns) / 1e9 / self.speed)
        return self.now_ns() - max(asked_ns, due_ns)

    def timeout(self, seconds: float) -> asyncio.Timeout:
        """A block that may take `seconds` of this clock, then raises `TimeoutError`."""
        return asyncio.timeout(seconds / self.speed)


def fine_loop() -> asyncio.AbstractEventLoop:
    """An event loop that sleeps to some 0.1 ms.

    The ordinary loop of Linux rounds every sleep up to a whole millisecond, the unit of
    `epoll_wait`. That is longer than a ping over the loopback takes, so latencies measured from
    when something was due would mostly be the instrument's own. `kqueue` does not round.
    """
    if sys.platform != "linux":
        return asyncio.new_event_loop()
    return asyncio.SelectorEventLoop(_FineSelector())


if sys.platform == "linux":

    class _FineSelector(selectors.EpollSelector):
        """Waits with `select`, which counts microseconds, for epoll's own descriptor."""

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            """See `selectors.BaseSelector.select`."""
            if timeout is not None and timeout > 0:
                select.select([self.fileno()], [], [], timeout)
                timeout = 0
            return super().select(timeout)
