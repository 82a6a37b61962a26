"""The drill `stalled`: clients that ask for much audio and read none of it.

While they stand still, the server's memory may grow by a bounded amount for each, and other
callers wait no longer than without them. A client that stands still for too long is closed with
a code after which it can resume.
"""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
from websockets.asyncio.client import ClientConnection

from labkit.audio.formats import Encoding
from labkit.audio.pcm import Float32, encode_s16le, read_audio
from labkit.client.dial import dial
from labkit.client.v1 import ReplyAudio, SessionClient
from labkit.drills.target import target_command, vitals_of
from labkit.drills.verdict import Finding, Progress, Verdict
from labkit.errors import CloseCode
from labkit.measure.recordings import load_manifest
from labkit.measure.server_process import RunningServer, running_server
from labkit.protocol import v1

__all__ = ["Waits", "judged", "listen", "run_stalled", "stall"]

_CALLERS: Final = 2
_RECEIVE_BUFFER: Final = 16 * 1024
_LIMIT_BYTES: Final = 1024 * 1024
_TOLERANCE: Final = 1.2
_PATIENCE_S: Final = 120.0
_LOOK_S: Final = 0.5
_CLOSED_AFTER_S: Final = 1.0
_CLOSED_CLIENTS: Final = 10
_LOUD: Final = v1.AudioSpec(encoding=Encoding.PCM_F32LE, sample_rate=48_000, channels=2)
"""Twelve times the bytes of 16 kHz s16le: a short reply is more than any buffer takes."""


@dataclass(slots=True)
class Waits:
    """How long callers waited for the first audio of their replies.

    Attributes:
        seconds: A value for each turn.
    """

    seconds: list[float] = field(default_factory=list)

    @property
    def p95_ms(self) -> float:
        """95th percentile in milliseconds."""
        return float(np.percentile(self.seconds, 95)) * 1000 if self.seconds else float("nan")


@asynccontextmanager
async def stall(url: str, speech: bytes, number: int) -> AsyncIterator[ClientConnection]:
    """A client that says `speech` (s16le, 16 kHz) twice, and reads nothing from then on.

    Args:
        url: The server.
        speech: What it says.
        number: Every other client has said that it acknowledges what it gets.
    """
    target = urlsplit(url)
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)  # before it connects
    raw.connect((target.hostname, target.port))
    client = await dial(url, sock=raw, subprotocol=v1.SUBPROTOCOL)
    try:
        start = v1.SessionStart(output=_LOUD, acknowledges=number % 2 == 0)
        await client.send(start.encode())
        await client.recv()
        client.transport.pause_reading()
        for _ in range(2):
            await client.send(speech)
            await client.send(v1.AudioEnd().encode())
        yield client
    finally:
        client.transport.abort()


async def listen(url: str, speech: Sequence[Float32], seconds: float, tell: Progress) -> Waits:
    """Let a few callers speak and wait for `seconds`, each turn in a session of its own."""
    waits = Waits()
    end = time.perf_counter() + seconds

    async def call(number: int) -> None:
        turn = number
        while time.perf_counter() < end:
            waits.seconds.append(await _first_audio(url, speech[turn % len(speech)]))
            turn += _CALLERS
            left = max(0.0, end - time.perf_counter())
            tell("other callers", round(seconds - left), round(seconds))

    await asyncio.gather(*(call(number) for number in range(_CALLERS)))
    return waits


async def _first_audio(url: str, said: Float32) -> float:
    """Seconds from the end of an utterance, sent at once, to the first audio of its reply."""
    async with SessionClient.connect(url) as client:
        await client.send_audio(encode_s16le(said))
        asked = time.perf_counter()
        await client.end_utterance()
        heard: float | None = None
        while True:
            match await client.next_event():
                case ReplyAudio() if heard is None:
                    heard = time.perf_counter() - asked
                case v1.ResponseDone():
                    return heard if heard is not None else time.perf_counter() - asked


async def run_stalled(*, clients: int, seconds: float, recordings: Path, tell: Progress) -> Verdict:
    """Run the drill with the engines.

    Args:
        clients: Clients that stand still.
        seconds: How long the other callers are timed, before, meanwhile and after.
        recordings: Folder of what is said.
        tell: Is told how it goes on.

    Raises:
        ServerError: The server does not start.
        AudioError: There is no recording to say.
    """
    speech = [read_audio(r.path) for r in load_manifest(recordings) if r.kind.is_speech]
    patient: dict[str, Any] = {"send_timeout_s": 3600.0, "ping_interval_s": 3600.0, "resume_s": 1.0}
    command = target_command("voice", max_sessions=clients + 16, **patient)
    async with running_server(command) as server:
        await listen(server.url, speech, seconds / 2, tell)
        without = await listen(server.url, speech, seconds, tell)
        before = _memory(server)
        async with AsyncExitStack() as standing:
            for number in range(clients):
                said = encode_s16le(speech[number % len(speech)])
                await standing.enter_async_context(stall(server.url, said, number))
                tell("clients that stall", number + 1, clients)
            held = await _calm(server.url)
            grown = _memory(server) - before
            meanwhile = await listen(server.url, speech, seconds, tell)
            grown = max(grown, _memory(server) - before)
        await _calm(server.url)
        after = await listen(server.url, speech, seconds, tell)
    closed = await _closed_in_time(encode_s16le(speech[0]))
    both = Waits([*without.seconds, *after.seconds])
    return Verdict(
        f"stalled: {clients} clients that do not read",
        judged(clients, grown, held, both, meanwhile, closed),
    )


def judged(
    clients: int, grown: int, held: int, without: Waits, meanwhile: Waits, closed: int
) -> tuple[Finding, ...]:
    """What was found, beside the promise.

    Args:
        clients: Clients that stood still.
        grown: Bytes that the server's memory grew by.
        held: Bytes that the server says it held for its sessions.
        without: How long other callers waited before and after.
        meanwhile: How long they waited meanwhile.
        closed: How many of `_CLOSED_CLIENTS` were closed in the end, as they should.
    """
    ratio = meanwhile.p95_ms / without.p95_ms
    mebi = 1024 * 1024
    return (
        Finding.at_most("memory growth, MiB", grown / mebi, clients * _LIMIT_BYTES / mebi),
        Finding.told("of it held for sessions, MiB", held / mebi),
        Finding.told("for each stalled client, KiB", grown / clients / 1024),
        Finding.told("other callers' p95 without, ms", without.p95_ms),
        Finding.told("other callers' p95 meanwhile, ms", meanwhile.p95_ms),
        Finding.told("turns timed", f"{len(without.seconds)} and {len(meanwhile.seconds)}"),
        Finding.at_most("p95 meanwhile / without", ratio, _TOLERANCE),
        Finding(
            f"closed with {CloseCode.SLOW_READER.value} after {_CLOSED_AFTER_S:g} s",
            f"{closed} of {_CLOSED_CLIENTS}",
            "all",
            closed == _CLOSED_CLIENTS,
        ),
    )


async def _closed_in_time(speech: bytes) -> int:
    """How many clients a server closes that stand still for longer than it allows."""
    limits: dict[str, Any] = {"send_timeout_s": _CLOSED_AFTER_S, "ping_interval_s": 3600.0}
    async with (
        running_server(target_command("echo", **limits)) as server,
        AsyncExitStack() as standing,
    ):
        for number in range(_CLOSED_CLIENTS):
            await standing.enter_async_context(stall(server.url, speech, number))
        closed, deadline = 0, time.perf_counter() + 10 * _CLOSED_AFTER_S
        while closed < _CLOSED_CLIENTS and time.perf_counter() < deadline:
            await asyncio.sleep(_LOOK_S)
            codes = (await vitals_of(server.url)).closes
            closed = codes.get(str(CloseCode.SLOW_READER.value), 0)
        return closed


async def _calm(url: str) -> int:
    """Wait until no engine has work any more and nothing changes; gives the bytes held."""
    before, deadline = None, time.perf_counter() + _PATIENCE_S
    while True:
        now = await vitals_of(url)
        still = before is not None and now.held_bytes == before.held_bytes
        if (still and not now.queued_calls) or time.perf_counter() >= deadline:
            return now.held_bytes or 0
        before = now
        await asyncio.sleep(_LOOK_S)


def _memory(server: RunningServer) -> int:
    """Resident bytes of the server; 0 where the system does not tell."""
    usage = server.usage()
    return 0 if usage is None else usage.rss_bytes
