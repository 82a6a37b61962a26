"""Floods against a server with its ordinary limits: they are stopped, slowed down, or bounded."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from labkit.drills.attackers import open_socket
from labkit.drills.inputs import Dialect
from labkit.drills.target import quiet_vitals, target_command
from labkit.drills.verdict import Finding
from labkit.errors import ClientError, CloseCode, ErrorCode
from labkit.measure.server_process import running_server
from labkit.protocol import v1

__all__ = ["audio_flood", "flood_own_server", "text_flood", "untaken_refusals"]

_AUDIO_BURST_S: Final = 1.0
_FLOOD: Final = 2_000
"""Messages of a flood: ten times the burst that the server lets in."""
_ROUNDS: Final = 4
_GROWTH_MB: Final = 5.0
_PATIENCE_S: Final = 20.0


async def flood_own_server() -> tuple[Finding, ...]:
    """Start a server with ordinary limits, but a short burst of audio, and flood it.

    Raises:
        ServerError: It did not start.
    """
    async with running_server(target_command(audio_burst_s=_AUDIO_BURST_S)) as server:
        return (
            await text_flood(server.url),
            await audio_flood(server.url, 3 * _AUDIO_BURST_S),
            *await untaken_refusals(server.url),
        )


async def text_flood(
    url: str, messages: int = _FLOOD, *, patience_s: float = _PATIENCE_S
) -> Finding:
    """Control messages without a pause: the connection is closed, and the client told why."""
    async with _session(url) as (socket, _):
        with suppress(ConnectionClosed):
            for _ in range(messages):
                await socket.send(v1.Ping().encode())
        codes = await _last_errors(socket, patience_s)
    found = f"{', '.join(codes) or 'no error'}, closed with {socket.close_code}"
    bar = f"{ErrorCode.TOO_MANY_MESSAGES.value}, closed with {CloseCode.POLICY.value}"
    return Finding("a flood of control messages", found, bar, found == bar)


async def audio_flood(url: str, seconds: float) -> Finding:
    """Audio at once, more than the burst allows: it is slowed down, and none of it is lost."""
    async with _session(url) as (socket, started):
        spec = started.input
        await socket.send(bytes(spec.format.bytes_per_second))
        for _ in range(round((seconds - 1) * 10)):
            await socket.send(bytes(spec.format.bytes_per_second // 10))
        await socket.send(v1.AudioEnd().encode())
        told, done = await _until_done(socket)
    wanted = round(seconds * spec.sample_rate)
    found = f"{', '.join(told) or 'no error'}, {done.samples if done else 'no'} samples answered"
    bar = f"{ErrorCode.AUDIO_TOO_FAST.value}, {wanted} samples answered"
    return Finding("a flood of audio", found, bar, found == bar)


async def untaken_refusals(
    url: str, messages: int = _FLOOD, *, patience_s: float = _PATIENCE_S
) -> tuple[Finding, ...]:
    """Wrong messages over several connections of one session, none of whose refusals is taken."""
    before = await quiet_vitals(url, 0)
    resume: dict[str, Any] = {}
    codes = []
    for _ in range(_ROUNDS):
        async with _session(url, acknowledges=True, **resume) as (socket, started):
            resume = {"resume": v1.Resume(session=started.session, token=started.token)}
            with suppress(ConnectionClosed):
                for _ in range(messages):
                    await socket.send(b"x")
            await _last_errors(socket, patience_s)
        codes.append(str(socket.close_code))
    after = await quiet_vitals(url, 0)
    wanted = str(CloseCode.SLOW_READER.value)
    closed = Finding(
        "refusals that nobody takes", f"closed with {', '.join(codes)}", f"closed with {wanted}",
        codes[-1] == wanted,
    )  # fmt: skip
    if before.rss_bytes is None or after.rss_bytes is None:
        return (closed,)
    grown = (after.rss_bytes - before.rss_bytes) / 1e6
    return closed, Finding.at_most("growth through them, MB", grown, _GROWTH_MB)


@asynccontextmanager
async def _session(
    url: str, **fields: Any
) -> AsyncIterator[tuple[ClientConnection, v1.SessionStarted]]:
    """A connection with a session; at the end it is cut off."""
    socket = await open_socket(url, Dialect.V1)
    try:
        await socket.send(v1.SessionStart(**fields).encode())
        started = v1.decode_server(await socket.recv(decode=True))
        if not isinstance(started, v1.SessionStarted):
            raise ClientError(f"{url} began no session, but said {started}")
        yield socket, started
    finally:
        socket.transport.abort()


async def _last_errors(socket: ClientConnection, patience_s: float) -> list[str]:
    """Codes of the errors that are fatal, once the server has hung up."""
    codes: list[str] = []
    with suppress(TimeoutError, ConnectionClosed):
        async with asyncio.timeout(patience_s):
            while True:
                message = await socket.recv()
                decoded = v1.decode_server(message) if isinstance(message, str) else None
                if isinstance(decoded, v1.Error) and decoded.fatal:
                    codes.append(decoded.code.value)
    return codes


async def _until_done(socket: ClientConnection) -> tuple[list[str], v1.ResponseDone | None]:
    codes: list[str] = []
    with suppress(TimeoutError, ConnectionClosed):
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                message = await socket.recv()
                decoded = v1.decode_server(message) if isinstance(message, str) else None
                if isinstance(decoded, v1.Error):
                    codes.append(decoded.code.value)
                if isinstance(decoded, v1.ResponseDone):
                    return codes, decoded
    return codes, None
