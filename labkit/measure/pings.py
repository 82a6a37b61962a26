"""An honest caller that pings beside something else, and how long its answers took.

It tells how long others are kept waiting. Each round trip counts from when it was due, so that a
server which stands still for a second is seen to do so by every ping of that second.
"""

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Unpack

import numpy as np
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import WebSocketException

from labkit.client.dial import Reach, connected
from labkit.errors import ClientError

_EVERY_S: Final = (0.015, 0.045)
"""Pings are so far apart; a steady beat would always meet the same part of a caller's chunks."""
_PATIENCE_S: Final = 30.0


@dataclass(slots=True)
class Pings:
    """Round trips of an honest caller."""

    ms: list[float] = field(default_factory=list)
    """Each in milliseconds, from when it was due."""
    longest_trip_ms: float = 0.0
    """The longest from when it was sent: on a server with more work than it can do, waits add up,
    and each trip by itself tells how long its loop was held."""
    lost: int = 0
    """Times that the caller lost its connection, or got no answer."""
    until_ns: float = math.inf
    """Those that are due before are all waited for."""

    @property
    def worst_ms(self) -> float:
        """The longest; infinite where one was lost, or none was sent."""
        return math.inf if self.lost or not self.ms else max(self.ms)

    @property
    def p99_ms(self) -> float:
        """99th percentile; infinite likewise."""
        return math.inf if self.lost or not self.ms else float(np.percentile(self.ms, 99))

    def require_answers(self) -> None:
        """Make sure that none was lost.

        Raises:
            ClientError: One was.
        """
        if self.lost:
            raise ClientError("a caller that only pinged was lost, or had no answer")


@asynccontextmanager
async def pinging(url: str, pings: Pings, **reach: Unpack[Reach]) -> AsyncIterator[None]:
    """Let an honest caller ping the server at `url`, from the begin of the block to its end.

    It runs in a thread with an event loop of its own: what other clients do in this one must not
    count.
    """
    loop, there = asyncio.get_running_loop(), asyncio.Event()
    pings.until_ns = math.inf
    call = _call(url, pings, reach, lambda: loop.call_soon_threadsafe(there.set))
    caller = asyncio.create_task(asyncio.to_thread(asyncio.run, call))
    try:
        await there.wait()
        yield
    finally:
        pings.until_ns = time.perf_counter_ns()
        await caller


async def _call(url: str, pings: Pings, reach: Reach, there: Callable[[], object]) -> None:
    """Connect, say that the caller is `there`, and ping; also where nobody answers."""
    try:
        async with connected(url, **reach) as socket:
            there()
            await _ping(socket, pings)
    except (ClientError, TimeoutError, WebSocketException):
        pings.lost += 1
    finally:
        there()


async def _ping(socket: ClientConnection, pings: Pings) -> None:
    rng, due_ns = random.Random(), time.perf_counter_ns()
    while True:
        held_up = time.perf_counter_ns() >= due_ns  # the answer before came so late
        await asyncio.sleep(max(0.0, (due_ns - time.perf_counter_ns()) / 1e9))
        if due_ns >= pings.until_ns:
            return
        sent_ns = time.perf_counter_ns()
        await socket.send("ping")
        async with asyncio.timeout(_PATIENCE_S):
            while await socket.recv() != "pong":
                pass
        trip_ms = (time.perf_counter_ns() - sent_ns) / 1e6
        # That a sleep lasted too long is this machine's doing, and not the server's.
        pings.ms.append(trip_ms + (held_up and (sent_ns - due_ns) / 1e6))
        pings.longest_trip_ms = max(pings.longest_trip_ms, trip_ms)
        due_ns += round(rng.uniform(*_EVERY_S) * 1e9)
