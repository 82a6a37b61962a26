"""A server to be drilled: any settings, any pipeline, in a process of its own; and how it is.

Run it through `labkit.measure.server_process.running_server` with the command that
`target_command` gives. What it is told comes as one JSON object on its command line. How it is,
its own `/metrics` and log tell, and an honest caller beside those that misuse it.
"""

import asyncio
import json
import math
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import httpx2
import numpy as np
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import WebSocketException

from labkit.client.dial import connected
from labkit.errors import ClientError, InstrumentError
from labkit.session.settings import ServerSettings

__all__ = [
    "Pings",
    "PipelineName",
    "Vitals",
    "address_of",
    "fetch",
    "log_faults",
    "parse_vitals",
    "pinging",
    "quiet_vitals",
    "settings_of",
    "target_command",
    "vitals_of",
]

PipelineName = Literal["echo", "voice", "scripted"]
"""What answers: an echo, the engines, or engines that follow a script: what they hear is the
checksum of the audio, so that two transcripts are alike only where all samples are."""

_HERE: Final[Mapping[str, Any]] = {"host": "127.0.0.1", "port": 0}
_PATIENCE_S: Final = 10.0
_LOOK_S: Final = 0.1
_PING_EVERY_NS: Final = 30_000_000
_FAULTS: Final = (" ERROR ", " CRITICAL ", "Traceback", "never retrieved", "never awaited")
"""Signs of a fault in a line of a log."""


def target_command(
    pipeline: PipelineName = "echo",
    *,
    model_set: str = "embedded",
    threads: int | None = None,
    **settings: Any,
) -> list[str]:
    """The command that runs the server, on a free port of this machine where none is named.

    Args:
        pipeline: What answers.
        model_set: Where the engines' models come from.
        threads: CPU threads of each engine; by default what `labkit serve` takes.
        settings: Fields of `ServerSettings` that are not to have their defaults.

    Raises:
        InstrumentError: There is no such setting.
    """
    settings_of(settings)
    told = {
        "pipeline": pipeline,
        "model_set": model_set,
        "threads": threads,
        "settings": settings,
    }
    return ["labkit.drills.served", json.dumps(told)]


def settings_of(told: Mapping[str, Any]) -> ServerSettings:
    """The server's settings with what is `told` of them.

    Raises:
        InstrumentError: There is no such setting.
    """
    known = set(ServerSettings.model_fields)
    if unknown := sorted(set(told) - known):
        raise InstrumentError(
            f"the server has no setting {unknown[0]!r}; it has {', '.join(sorted(known))}"
        )
    return ServerSettings(**{**_HERE, **told})


@dataclass(frozen=True, slots=True)
class Vitals:
    """A server at one instant, as its `/metrics` tell. What it does not tell is None.

    Attributes:
        sessions: Sessions, attached or not.
        tasks: Tasks of its event loop.
        held_bytes: Bytes of audio and messages.
        queued_calls: Calls that wait for an engine.
        open_files: Open file descriptors.
        rss_bytes: Resident memory.
        closes: Connections that it closed, by close code.
    """

    sessions: int | None = None
    tasks: int | None = None
    held_bytes: int | None = None
    queued_calls: int | None = None
    open_files: int | None = None
    rss_bytes: int | None = None
    closes: Mapping[str, int] = field(default_factory=dict)


_NAMES: Final = {
    "sessions": "labkit_sessions",
    "tasks": "labkit_tasks",
    "held_bytes": "labkit_held_bytes",
    "queued_calls": "labkit_queued_calls",
    "open_files": "process_open_fds",
    "rss_bytes": "process_resident_memory_bytes",
}


def parse_vitals(page: str) -> Vitals:
    """Read a page in Prometheus' text format."""
    sums: dict[str, float] = {}
    closes: dict[str, int] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
            if sample.name == "labkit_closes_total":
                closes[sample.labels["code"]] = int(sample.value)
    told = {field: int(sums[name]) for field, name in _NAMES.items() if name in sums}
    return Vitals(**told, closes=closes)


async def vitals_of(url: str) -> Vitals:
    """How the server at `url` is now.

    Raises:
        ClientError: It does not answer.
    """
    status, page = await fetch(url, "/metrics")
    return parse_vitals(page) if status == 200 else Vitals()


async def quiet_vitals(url: str, seconds: float) -> Vitals:
    """The vitals once no session is left, or after `seconds` at the latest."""
    deadline_ns = time.perf_counter_ns() + round(seconds * 1e9)
    while True:
        vitals = await vitals_of(url)
        if not vitals.sessions or time.perf_counter_ns() >= deadline_ns:
            return vitals
        await asyncio.sleep(_LOOK_S)


async def fetch(url: str, path: str) -> tuple[int, str]:
    """Get a page of the server at `url`: the HTTP status, and the text.

    Raises:
        ClientError: It does not answer, or not with HTTP.
    """
    address_of(url)
    page = httpx2.URL(url.replace("ws", "http", 1)).join(path)
    try:
        # Not the environment's proxies: what is drilled runs on this machine, or is one's own.
        async with httpx2.AsyncClient(timeout=_PATIENCE_S, trust_env=False) as client:
            response = await client.get(page)
    except httpx2.HTTPError as error:
        reason = str(error) or type(error).__name__
        raise ClientError(f"{url} does not give {path}: {reason}") from error
    return response.status_code, response.text


def address_of(url: str) -> tuple[str, int]:
    """Host and port of a WebSocket address.

    Raises:
        ClientError: It is no `ws://` address.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme == "ws" and parts.hostname:
            return parts.hostname, parts.port or 80
    except ValueError:
        pass
    raise ClientError(f"url: {url!r} is no address that can be drilled; name one with ws://")


def log_faults(log: str) -> list[str]:
    """Lines of a server's log that tell of a fault: errors, tracebacks, lost exceptions."""
    return [line for line in log.splitlines() if any(sign in line for sign in _FAULTS)]


@dataclass(slots=True)
class Pings:
    """Round trips of an honest caller.

    They tell how long others are kept waiting. Each counts from when it was due, so that a
    server which stands still for a second is seen to do so by every ping of that second. On a
    server with more work than it can do, such waits add up, and each trip by itself tells how
    long its loop was held.

    Attributes:
        ms: Each in milliseconds, from when it was due.
        longest_trip_ms: The longest from when it was sent.
        lost: Times that the caller lost its connection, or got no answer.
    """

    ms: list[float] = field(default_factory=list)
    longest_trip_ms: float = 0.0
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
    """Let an honest caller ping the server at `url` for the length of the block.

    It runs in a thread with an event loop of its own: what hostile clients do in this one must
    not count.
    """
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
                sent_ns = time.perf_counter_ns()
                await socket.send("ping")
                async with asyncio.timeout(_PATIENCE_S):
                    await socket.recv()
                answered_ns = time.perf_counter_ns()
                pings.ms.append((answered_ns - start_ns) / 1e6)
                trip_ms = (answered_ns - sent_ns) / 1e6
                pings.longest_trip_ms = max(pings.longest_trip_ms, trip_ms)
                due_ns += _PING_EVERY_NS
    except (ClientError, TimeoutError, WebSocketException):
        pings.lost += 1
