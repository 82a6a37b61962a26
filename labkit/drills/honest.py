"""An honest caller beside hostile ones: how long its pings take tells how long others are kept.

It pings at a fixed pace and counts each round trip from when the ping was due, so that a server
which stands still for a second is seen to do so once for each ping of that second. It runs in a
thread with an event loop of its own: what the hostile clients do in theirs must not count.
"""

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from websockets.exceptions import WebSocketException

from labkit.client.dial import connected
from labkit.errors import ClientError

__all__ = ["Pings", "pinging"]

_EVERY_NS: Final = 30_000_000
_PATIENCE_S: Final = 10.0


@dataclass(slots=True)
class Pings:
    """Round trips of an honest caller.

    Attributes:
        ms: Each in milliseconds, from when it was due.
        lost: Times that the caller lost its connection, or got no answer.
    """

    ms: list[float] = field(default_factory=list)
    lost: int = 0

    @property
    def worst_ms(self) -> float:
        """The longest; infinite where one was lost, or none was sent."""
        return math.inf if self.lost or not self.ms else max(self.ms)

    @property
    def p99_ms(self) -> float:
        """99th percentile; infinite likewise."""
        return math.inf if self.lost or not self.ms else float(np.percentile(self.ms, 99))


@asynccontextmanager
async def pinging(url: str, pings: Pings) -> AsyncIterator[None]:
    """Let an honest caller ping the server at `url` for the length of the block."""
    over = threading.Event()
    caller = asyncio.create_task(asyncio.to_thread(asyncio.run, _ping_until(over, url, pings)))
    try:
        yield
    finally:
        over.set()
        await caller


async def _ping_until(over: threading.Event, url: str, pings: Pings) -> None:
    try:
        async with connected(url) as socket:
            due_ns = time.perf_counter_ns()
            while not over.is_set():
                late = time.perf_counter_ns() >= due_ns  # the answer before came so late
                await asyncio.sleep(max(0.0, (due_ns - time.perf_counter_ns()) / 1e9))
                # That a sleep lasted too long is this machine's doing, and not the server's.
                start_ns = due_ns if late else time.perf_counter_ns()
                await socket.send("ping")
                async with asyncio.timeout(_PATIENCE_S):
                    await socket.recv()
                pings.ms.append((time.perf_counter_ns() - start_ns) / 1e6)
                due_ns += _EVERY_NS
    except (ClientError, TimeoutError, WebSocketException):
        pings.lost += 1
