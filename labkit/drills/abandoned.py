"""The drill `abandoned`: clients that leave in every way there is, and what is left of them.

Each way of being abandoned is tried by several clients at once, against a server with short
limits. After the limits have passed, everything that the server counts is what it was before:
sessions, tasks, bytes held, calls that wait for an engine, and open files.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import WebSocketException

from labkit.audio.formats import Encoding
from labkit.audio.pcm import encode_s16le, read_audio
from labkit.client.dial import connected
from labkit.drills.target import PipelineName, Vitals, target_command, vitals_of
from labkit.drills.verdict import Finding, Progress, Verdict
from labkit.errors import ClientError, InstrumentError
from labkit.measure.netem import Fault, Proxy
from labkit.measure.recordings import load_manifest
from labkit.measure.server_process import running_server
from labkit.protocol import v1

__all__ = [
    "LIMITS",
    "WAYS",
    "abandon",
    "judged",
    "run_abandoned",
    "settled",
]

LIMITS: Final[dict[str, Any]] = {
    "start_s": 1.0,
    "idle_s": 2.0,
    "idle_audio_s": 3.0,
    "max_session_s": 6.0,
    "resume_s": 2.0,
    "detached_turn_s": 1.0,
    "send_timeout_s": 2.0,
    "ping_interval_s": 1.0,
    "ping_timeout_s": 1.0,
    "reap_interval_s": 0.2,
    "max_sessions": 1000,
}
"""Settings of the server: every limit within seconds."""

_PATIENCE_S: Final = 30.0
"""All limits together, one after the other, and as much again."""
_WARM_UP_S: Final = 6.0
"""The warm-up has to pass all limits, too, before it counts as the beginning."""
_HALF_OPEN_S: Final = 4.0
"""Longer than a keepalive ping and its patience."""
_LOOK_S: Final = 0.25
_LEFT_BEHIND: Final = ("sessions", "tasks", "held_bytes", "queued_calls", "open_files")
_CHUNK: Final = 3200


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a client is abandoned.

    Attributes:
        url: The server.
        proxy: A proxy before it that can be made to fail.
        speech: Something to say, s16le at 16 kHz.
    """

    url: str
    proxy: Proxy
    speech: bytes


class _TooLateError(InstrumentError):
    """On a busy machine, a client may miss the short limits; then it is abandoned earlier."""


Way = Callable[[Scene], Awaitable[None]]
"""One client that is abandoned. It returns when it has nothing left to do."""


async def _knock(scene: Scene) -> None:
    """Opens a TCP connection, and never says hello."""
    target = urlsplit(scene.url)
    reader, writer = await asyncio.open_connection(target.hostname, target.port)
    with suppress(OSError):
        await reader.read()
    writer.transport.abort()


async def _never_start(scene: Scene) -> None:
    """Ends the handshake, and never starts a session."""
    async with _dial(scene.url) as socket:
        await _until_closed(socket)


async def _fall_silent(scene: Scene) -> None:
    """Starts a session, and says nothing more."""
    async with _session(scene.url) as socket:
        await _until_closed(socket)


async def _fall_silent_plain(scene: Scene) -> None:
    """The same in the plain dialect, with half an utterance said."""
    async with connected(scene.url) as socket:
        await socket.send(scene.speech[:_CHUNK])
        await _until_closed(socket)


async def _ping_for_ever(scene: Scene) -> None:
    """Keeps its session alive with pings, and never speaks."""
    async with _session(scene.url) as socket:
        with suppress(WebSocketException):
            while True:
                await socket.send(v1.Ping().encode())
                await _listen(socket, 0.5)


async def _talk_for_ever(scene: Scene) -> None:
    """Speaks at the pace of speech, and never ends its utterance."""
    async with _session(scene.url) as socket:
        with suppress(WebSocketException):
            while True:
                await socket.send(scene.speech[:_CHUNK])
                await _listen(socket, 0.1)


async def _vanish_while_speaking(scene: Scene) -> None:
    """Its connection is reset in the middle of an utterance."""
    async with _session(scene.url) as socket:
        await socket.send(scene.speech[:_CHUNK])
        socket.transport.abort()


async def _vanish_in_a_turn(scene: Scene) -> None:
    """Its connection is reset while the engines work on its answer."""
    async with _session(scene.url) as socket:
        await socket.send(scene.speech)
        await socket.send(v1.AudioEnd().encode())
        socket.transport.abort()


async def _never_read(scene: Scene) -> None:
    """Asks for much audio, and reads nothing of it."""
    loud = v1.AudioSpec(encoding=Encoding.PCM_F32LE, sample_rate=48_000, channels=2)
    async with _session(scene.url, v1.SessionStart(output=loud, acknowledges=True)) as socket:
        await socket.send(scene.speech)
        await socket.send(v1.AudioEnd().encode())
        socket.transport.pause_reading()
        await asyncio.sleep(2 * LIMITS["send_timeout_s"])
        socket.transport.abort()


async def _half_open(scene: Scene) -> None:
    """The network swallows everything from now on, both ways, and says nothing."""
    async with _session(scene.proxy.url()) as socket:
        whole = [one for one in scene.proxy.connections if one.open and not one.faults]
        whole[0].cut(Fault.HALF_OPEN)
        await _listen(socket, _HALF_OPEN_S)
        socket.transport.abort()


WAYS: Final[tuple[Way, ...]] = (
    _knock,
    _never_start,
    _fall_silent,
    _fall_silent_plain,
    _ping_for_ever,
    _talk_for_ever,
    _vanish_while_speaking,
    _vanish_in_a_turn,
    _never_read,
    _half_open,
)
"""Every way of being abandoned."""


def _dial(url: str) -> AbstractAsyncContextManager[ClientConnection]:
    return connected(url, subprotocol=v1.SUBPROTOCOL)


@asynccontextmanager
async def _session(url: str, start: v1.SessionStart | None = None) -> AsyncIterator[Any]:
    async with _dial(url) as socket:
        await socket.send((start or v1.SessionStart()).encode())
        started = json.loads(await socket.recv())
        if started["type"] != "session.started":
            raise _TooLateError(f"the server answered {started}")
        yield socket


async def _until_closed(socket: ClientConnection) -> None:
    with suppress(WebSocketException):
        await _listen(socket, _PATIENCE_S)


async def _listen(socket: ClientConnection, seconds: float) -> None:
    """Read whatever comes, for so long."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                await socket.recv()


async def abandon(url: str, speech: bytes, clients: int, tell: Progress) -> None:
    """Let `clients` clients be abandoned in each of `WAYS`, all at once."""
    target = urlsplit(url)
    async with Proxy(target.hostname or "", target.port or 0) as proxy:
        scene = Scene(url, proxy, speech)
        waits = [_leave(way, scene) for way in WAYS for _ in range(clients)]
        for done, one in enumerate(asyncio.as_completed(waits), start=1):
            await one
            tell("abandoning", done, len(waits))


async def _leave(way: Way, scene: Scene) -> None:
    with suppress(_TooLateError, ClientError, WebSocketException):
        await way(scene)


async def settled(url: str, before: Vitals, *, patience_s: float = _PATIENCE_S) -> Vitals:
    """The server's vitals once nothing is more than `before`, or when the patience is over."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + patience_s
    while True:
        now = await vitals_of(url)
        if all(finding.holds for finding in judged(before, now)) or clock() >= deadline:
            return now
        await asyncio.sleep(_LOOK_S)


def judged(before: Vitals, after: Vitals) -> list[Finding]:
    """What is left, beside what there was."""
    was, left = asdict(before), asdict(after)
    return [
        Finding(
            name.replace("_", " "),
            f"{was[name] or 0} before, {left[name] or 0} after",
            "no more than before",
            (left[name] or 0) <= (was[name] or 0),
        )
        for name in _LEFT_BEHIND
    ]


async def run_abandoned(
    *, clients: int, pipeline: PipelineName, recordings: Path, tell: Progress
) -> Verdict:
    """Run the drill.

    Args:
        clients: Clients for each way of being abandoned.
        pipeline: What answers: an echo, or the engines.
        recordings: Folder of what is said.
        tell: Is told how it goes on.

    Raises:
        ServerError: The server does not start.
        AudioError: There is no recording to say.
    """
    said = next(r for r in load_manifest(recordings) if r.kind.is_speech)
    speech = encode_s16le(read_audio(said.path))
    async with running_server(target_command(pipeline, **LIMITS)) as server:
        await abandon(server.url, speech, 1, lambda *_: None)  # threads and caches are there now
        empty = Vitals(0, 0, 0, 0, 0)
        before = await settled(server.url, empty, patience_s=_WARM_UP_S)
        await abandon(server.url, speech, clients, tell)
        after = await settled(server.url, before)
        codes = (await vitals_of(server.url)).closes
    number = clients * len(WAYS)
    told = ", ".join(f"{count} with {code}" for code, count in codes.items())
    return Verdict(
        f"abandoned: {number} clients, {len(WAYS)} ways of leaving",
        (*judged(before, after), Finding.told("closed by the server, warm-up included", told)),
    )
