"""One level of a load: a number of callers against one server, and what that costs."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from websockets.asyncio.client import ClientConnection

from labkit.measure.callers import Caller, connect_caller
from labkit.measure.capacity import Level, Resources, summarise_level
from labkit.measure.load_config import LoadConfig
from labkit.measure.pace import Pace
from labkit.measure.script import Script, Speech, draw_scripts, due_times
from labkit.measure.server_process import RunningServer, Usage

__all__ = ["run_level"]

_LEAD_S: Final = 0.1
_SAMPLE_S: Final = 0.25
_AT_ONCE: Final = 32
"""Connections that are opened at a time, well below what a listening socket lets wait."""


async def run_level(
    server: RunningServer,
    sessions: int,
    speeches: Sequence[Speech],
    config: LoadConfig,
    *,
    name: str,
    pace: Pace,
    tell: Callable[[float], None] = lambda _: None,
) -> Level:
    """Run one level on one server.

    Args:
        server: Where it answers, and its process.
        sessions: How many callers.
        speeches: What there is to say.
        config: How long, with which messages and manners; everything but the sessions.
        name: What to call the server.
        pace: The clock that callers go by.
        tell: Told several times a second how many seconds have passed.
    """
    before = server.usage()
    sockets = await _connect(server.url, sessions)
    callers = [
        Caller(socket, script, speeches, config.manners, pace)
        for socket, script in zip(sockets, _scripts(sessions, config, speeches), strict=True)
        if socket is not None
    ]
    begin_ns = pace.now_ns() + round(_LEAD_S * 1e9)
    end_ns = begin_ns + round(config.seconds * 1e9)
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(_watch(server, begin_ns, end_ns, pace, tell))
        calls = [group.create_task(caller.call(begin_ns, end_ns)) for caller in callers]
    await asyncio.gather(*(socket.close() for socket in sockets if socket is not None))
    after = server.usage()
    return summarise_level(
        server=name,
        seconds=config.seconds,
        patience_s=config.manners.patience_s,
        logs=[call.result() for call in calls],
        unconnected=sessions - len(callers),
        resources=replace(
            watch.result(),
            rss_before=before.rss_bytes if before else None,
            rss_after=after.rss_bytes if after else None,
        ),
    )


def _scripts(sessions: int, config: LoadConfig, speeches: Sequence[Speech]) -> list[Script]:
    return draw_scripts(
        seed=config.seed,
        callers=sessions,
        recordings=len(speeches),
        chunk_ms=config.chunk_ms,
        ping_every_s=config.manners.ping_every_s,
    )


async def _connect(url: str, sessions: int) -> list[ClientConnection | None]:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one() -> ClientConnection | None:
        async with gate:
            return await connect_caller(url)

    return await asyncio.gather(*(one() for _ in range(sessions)))


async def _watch(
    server: RunningServer, begin_ns: int, end_ns: int, pace: Pace, tell: Callable[[float], None]
) -> Resources:
    """Memory and CPU from `begin_ns` to `end_ns`, read a few times a second."""
    await pace.sleep_until(begin_ns)
    seen = [server.usage()]
    own_s = time.process_time()
    for due_ns in [*due_times(begin_ns, _SAMPLE_S, end_ns)[1:], end_ns]:
        await pace.sleep_until(due_ns)
        seen.append(server.usage())
        tell((due_ns - begin_ns) / 1e9)
    return _resources(seen, time.process_time() - own_s, (end_ns - begin_ns) / 1e9)


def _resources(seen: Sequence[Usage | None], own_s: float, seconds: float) -> Resources:
    first, last = seen[0], seen[-1]
    return Resources(
        rss_peak=max((usage.rss_bytes for usage in seen if usage), default=None),
        cpu_per_s=(last.cpu_s - first.cpu_s) / seconds if first and last else None,
        generator_cpu_per_s=own_s / seconds,
    )
