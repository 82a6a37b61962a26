"""The drill `hostile`: one hostile caller of each kind, beside an honest one.

Each kind attacks a fresh server with ordinary limits. Meanwhile the honest caller's pings come
back at once, and the server's memory grows by a bounded amount for each hostile connection; told
to end in the middle of the attack, the server ends soon. Two floods are looked at from the other
side: their senders are told, in order, what became of them.
"""

import asyncio
import math
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from labkit.drills.attackers import open_socket
from labkit.drills.attacks import ATTACKS
from labkit.drills.fuzz import well_served
from labkit.drills.inputs import Dialect
from labkit.drills.target import Pings, log_faults, pinging, settings_of, target_command
from labkit.drills.verdict import Finding, Progress, Verdict
from labkit.errors import ClientError, CloseCode, ErrorCode, InstrumentError
from labkit.measure.server_process import RunningServer, running_server
from labkit.protocol import v1

__all__ = ["NOBODY", "Endured", "audio_flood", "endure", "judged", "run_hostile", "text_flood"]

NOBODY: Final = "nobody"
"""Beside nobody, the honest caller shows what this machine itself does to its pings."""

_P99_MS: Final = 20.0
_WORST_MS: Final = 100.0
_EACH_BYTES: Final = 8 * 1024 * 1024
_END_S: Final = 5.0
_PATIENCE_S: Final = 20.0
_LOOK_S: Final = 0.05
_MEBI: Final = 1024 * 1024
_AUDIO_BURST_S: Final = 1.0
_FLOOD: Final = 2_000
"""Messages of a flood: ten times the burst that the server lets in."""


@dataclass(slots=True)
class Endured:
    """How a server bore one kind of hostile caller.

    Attributes:
        kind: Which.
        pings: Round trips of the honest caller meanwhile.
        grown_bytes: How much its memory grew, at most.
        ended_s: How long it took to end when it was told to, in the middle of the attack.
        faults: Lines of its log that tell of faults.
    """

    kind: str
    pings: Pings = field(default_factory=Pings)
    grown_bytes: int = 0
    ended_s: float = math.inf
    faults: list[str] = field(default_factory=list)


async def run_hostile(*, kinds: Sequence[str], seconds: float, tell: Progress) -> Verdict:
    """Run the drill.

    Args:
        kinds: Of `ATTACKS`; empty for all.
        seconds: How long each attacks.
        tell: Is told how it goes on.

    Raises:
        InstrumentError: There is no such kind.
        ServerError: The server does not start.
    """
    chosen = list(kinds or ATTACKS)
    if unknown := sorted(set(chosen) - set(ATTACKS)):
        raise InstrumentError(f"there is no {unknown[0]!r}; there are {', '.join(ATTACKS)}")
    findings = []
    for number, kind in enumerate([NOBODY, *chosen]):
        tell(kind, number, len(chosen) + 2)
        findings += judged(await endure(kind, seconds))
    tell("floods", len(chosen) + 1, len(chosen) + 2)
    async with running_server(target_command(burst_s=_AUDIO_BURST_S)) as server:
        findings += [
            await text_flood(server.url),
            await audio_flood(server.url, 3 * _AUDIO_BURST_S),
        ]
    tell("done", len(chosen) + 2, len(chosen) + 2)
    title = "hostile callers: pings p99/worst, memory, end after SIGTERM"
    return Verdict(title, tuple(findings))


async def endure(kind: str, seconds: float) -> Endured:
    """Let one kind attack a server for so long, and end the server in the middle of it."""
    endured = Endured(kind)
    async with running_server(target_command()) as server:
        for dialect in Dialect:  # what is loaded at the first turn is not the attack's
            await well_served(server.url, dialect)
        before = _memory(server)
        async with _attacking(kind, server.url):
            async with pinging(server.url, endured.pings):
                end = time.perf_counter() + seconds
                while time.perf_counter() < end:
                    await asyncio.sleep(_LOOK_S)
                    endured.grown_bytes = max(endured.grown_bytes, _memory(server) - before)
            endured.ended_s = await _end(server)
            endured.faults = log_faults(server.log())
    return endured


@asynccontextmanager
async def _attacking(kind: str, url: str) -> AsyncIterator[None]:
    """Run an attack in a process of its own for the length of the block."""
    if kind == NOBODY:
        yield
        return
    # As a child that ends with this process, however this process ends.
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "labkit.measure.child", "labkit.drills.attacks", kind, url),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        if process.stdout is not None:
            await process.stdout.readline()  # it says when it begins
        yield
    finally:
        process.kill()
        await process.wait()


def _memory(server: RunningServer) -> int:
    usage = server.usage()
    return 0 if usage is None else usage.rss_bytes


async def _end(server: RunningServer) -> float:
    """Tell the server to end; gives the seconds that it took, infinite where it did not."""
    if server.process is None:
        return 0.0
    server.process.terminate()
    start = time.perf_counter()
    while server.process.poll() is None:
        if time.perf_counter() - start > _PATIENCE_S:
            return math.inf
        await asyncio.sleep(_LOOK_S)
    return time.perf_counter() - start


def judged(endured: Endured) -> list[Finding]:
    """What one kind did, beside the promise: a row, and the faults that it caused."""
    pings, grown = endured.pings, endured.grown_bytes
    found = (
        f"{pings.p99_ms:.1f}/{pings.worst_ms:.0f} ms, "
        f"{grown / _MEBI:.1f} MiB, {endured.ended_s:.1f} s"
    )
    if endured.kind == NOBODY:
        return [Finding.told(NOBODY, found)]
    each, in_all = _EACH_BYTES, settings_of({}).max_held_bytes_in_all
    most = min(ATTACKS[endured.kind].connections * each, in_all)
    bar = f"{_P99_MS:g}/{_WORST_MS:g} ms, {most / _MEBI:.0f} MiB, {_END_S:g} s"
    kept = (
        pings.p99_ms < _P99_MS
        and pings.worst_ms < _WORST_MS
        and grown <= most
        and endured.ended_s <= _END_S
    )
    rows = [Finding(endured.kind, found, bar, kept)]
    if endured.faults:
        rows.append(Finding.none_of("its faults in the log", len(endured.faults)))
        rows += [Finding.told("such as", line) for line in endured.faults[:2]]
    return rows


async def text_flood(
    url: str, messages: int = _FLOOD, *, patience_s: float = _PATIENCE_S
) -> Finding:
    """Control messages without a pause: the connection is closed, and the client told why."""
    async with _session(url) as (socket, _):
        with suppress(ConnectionClosed):
            for _ in range(messages):
                await socket.send(v1.Ping().encode())
        told, _ = await _until_done(socket, patience_s)
    found = f"{', '.join(told) or 'no error'}, {socket.close_code}"
    bar = f"{ErrorCode.TOO_MANY_MESSAGES.value}, {CloseCode.POLICY.value}"
    return Finding("flood of text", found, bar, found == bar)


async def audio_flood(url: str, seconds: float) -> Finding:
    """Audio at once, more than the burst allows: it is slowed down, and none of it is lost."""
    async with _session(url) as (socket, started):
        spec = started.input
        await socket.send(bytes(spec.format.bytes_per_second))
        for _ in range(round((seconds - 1) * 10)):
            await socket.send(bytes(spec.format.bytes_per_second // 10))
        await socket.send(v1.AudioEnd().encode())
        told, done = await _until_done(socket, _PATIENCE_S)
    wanted = round(seconds * spec.sample_rate)
    found = f"{', '.join(told) or 'no error'}, {done.samples if done else 'no'} samples"
    bar = f"{ErrorCode.AUDIO_TOO_FAST.value}, {wanted} samples"
    return Finding("flood of audio", found, bar, found == bar)


@asynccontextmanager
async def _session(url: str) -> AsyncIterator[tuple[ClientConnection, v1.SessionStarted]]:
    """A connection with a session; at the end it is cut off."""
    socket = await open_socket(url, Dialect.V1)
    try:
        await socket.send(v1.SessionStart().encode())
        started = v1.decode_server(await socket.recv(decode=True))
        if not isinstance(started, v1.SessionStarted):
            raise ClientError(f"{url} began no session, but said {started}")
        yield socket, started
    finally:
        socket.transport.abort()


async def _until_done(
    socket: ClientConnection, patience_s: float
) -> tuple[list[str], v1.ResponseDone | None]:
    """Codes of the errors that come until a turn is over, or the server has hung up."""
    codes: list[str] = []
    with suppress(TimeoutError, ConnectionClosed):
        async with asyncio.timeout(patience_s):
            while True:
                message = await socket.recv()
                decoded = v1.decode_server(message) if isinstance(message, str) else None
                if isinstance(decoded, v1.Error):
                    codes.append(decoded.code.value)
                if isinstance(decoded, v1.ResponseDone):
                    return codes, decoded
    return codes, None
