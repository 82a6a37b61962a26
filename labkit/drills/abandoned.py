"""The drill `abandoned`: clients that leave in every way there is, and what is left of them.

Each way is tried by several clients at once, against a server with short limits. After the limits
have passed, everything that the server counts is what it was before: sessions, tasks, bytes held,
calls that wait for an engine, and open files.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import WebSocketException

from labkit.audio.pcm import encode_s16le
from labkit.client.conversation import Lost
from labkit.client.dial import address_of, connected
from labkit.drills import Finding, Verdict
from labkit.drills.stalled import stall
from labkit.drills.target import (
    PipelineName,
    Vital,
    Vitals,
    running_target,
    session,
    spoken,
    vitals_once,
)
from labkit.errors import ClientError
from labkit.measure.links import Fault
from labkit.measure.netem import Proxy
from labkit.measure.results import Tell
from labkit.protocol import v1

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

_ALL_LIMITS_S: Final = 30.0
"""All limits together, one after the other, and as much again."""
_WARM_UP_S: Final = 6.0
"""The warm-up has to pass all limits, too, before it counts as the beginning."""
_HALF_OPEN_S: Final = 4.0
"""Longer than a keepalive ping and its patience."""
_LEFT_BEHIND: Final[Mapping[str, str]] = {
    "sessions": Vital.SESSIONS,
    "tasks": Vital.TASKS,
    "held bytes": Vital.HELD_BYTES,
    "queued calls": Vital.QUEUED_CALLS,
    "open files": Vital.OPEN_FILES,
}
_AT_REST: Final[Vitals] = {Vital.SESSIONS: 0, Vital.HELD_BYTES: 0}
"""Of a server without callers, whatever the warm-up may have left."""
_CHUNK: Final = 3200


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a client is abandoned."""

    url: str
    proxy: Proxy
    """Stands before the server, and can be made to fail."""
    speech: bytes
    """Something to say, s16le at 16 kHz."""


Way = Callable[[Scene], Awaitable[None]]
"""One client that is abandoned. It returns when it has nothing left to do."""


async def _knock(scene: Scene) -> None:
    """Opens a TCP connection, and never says hello."""
    reader, writer = await asyncio.open_connection(*address_of(scene.url))
    with suppress(OSError):
        await reader.read()
    writer.transport.abort()


async def _never_start(scene: Scene) -> None:
    """Ends the handshake, and never starts a session."""
    async with connected(scene.url, subprotocol=v1.SUBPROTOCOL) as client:
        await _take(client)


async def _fall_silent(scene: Scene) -> None:
    """Starts a session, and says nothing more."""
    async with session(scene.url) as client:
        await _take(client)


async def _fall_silent_plain(scene: Scene) -> None:
    """The same in the plain dialect, with half an utterance said."""
    async with connected(scene.url) as client:
        await client.send(scene.speech[:_CHUNK])
        await _take(client)


async def _ping_for_ever(scene: Scene) -> None:
    """Keeps its session alive with pings, and never speaks."""
    async with session(scene.url) as client:
        while True:
            await client.send(v1.Ping().encode())
            await _take(client, 0.5)


async def _talk_for_ever(scene: Scene) -> None:
    """Speaks at the pace of speech, and never ends its utterance."""
    async with session(scene.url) as client:
        while True:
            await client.send(scene.speech[:_CHUNK])
            await _take(client, 0.1)


async def _vanish_while_speaking(scene: Scene) -> None:
    """Its connection is reset in the middle of an utterance."""
    async with session(scene.url) as client:
        await client.send(scene.speech[:_CHUNK])
        client.transport.abort()


async def _vanish_in_a_turn(scene: Scene) -> None:
    """Its connection is reset while the engines work on its answer."""
    async with session(scene.url) as client:
        await client.send(scene.speech)
        await client.send(v1.AudioEnd().encode())
        client.transport.abort()


async def _never_read(scene: Scene) -> None:
    """Asks for much audio, and reads nothing of it."""
    async with stall(scene.url, scene.speech, acknowledges=True):
        await asyncio.sleep(2 * LIMITS["send_timeout_s"])


async def _half_open(scene: Scene) -> None:
    """The network swallows everything from now on, both ways, and says nothing."""
    async with session(scene.proxy.url()) as client:
        whole = [one for one in scene.proxy.connections if one.open and not one.faults]
        whole[0].cut(Fault.HALF_OPEN)
        await _take(client, _HALF_OPEN_S)
        client.transport.abort()


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


async def _take(client: ClientConnection, seconds: float = _ALL_LIMITS_S) -> None:
    """Read whatever comes, for so long, or until the server has hung up."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                await client.recv()


async def abandon(url: str, speech: bytes, clients: int, tell: Tell) -> None:
    """Let `clients` clients be abandoned in each of `WAYS`, all at once."""
    async with Proxy(*address_of(url)) as proxy:
        scene = Scene(url, proxy, speech)
        waits = [_leave(way, scene) for way in WAYS for _ in range(clients)]
        for done, one in enumerate(asyncio.as_completed(waits), start=1):
            await one
            tell("abandoning", done, len(waits))


async def _leave(way: Way, scene: Scene) -> None:
    # That the server hangs up is the aim; on a busy machine, it may do so before a session began.
    with suppress(ClientError, Lost, WebSocketException):
        await way(scene)


async def settled(url: str, before: Vitals, patience_s: float = _ALL_LIMITS_S) -> Vitals:
    """The server's vitals once nothing is more than `before`, or when the patience is over."""
    return await vitals_once(
        url, lambda now: all(finding.holds for finding in left_behind(before, now)), patience_s
    )


def left_behind(before: Vitals, after: Vitals) -> list[Finding]:
    """What is left, beside what there was; a server without engines has no calls to tell of."""
    return [
        Finding(
            name,
            f"{before.get(figure, 0)} before, {after.get(figure, '?')} after",
            "no more than before",
            figure in after and after[figure] <= before.get(figure, 0),
        )
        if figure in before or figure in after
        else Finding.told(name, "not told by this server")
        for name, figure in _LEFT_BEHIND.items()
    ]


async def run_abandoned(clients: int, pipeline: PipelineName, tell: Tell) -> Verdict:
    """Run the drill with so many `clients` for each way of being abandoned."""
    speech = encode_s16le(spoken()[0])
    async with running_target(pipeline, **LIMITS) as server:
        await abandon(server.url, speech, 1, lambda *_: None)  # threads and caches are there now
        before = {**await settled(server.url, {}, _WARM_UP_S), **_AT_REST}
        await abandon(server.url, speech, clients, tell)
        after = await settled(server.url, before)
    codes = (
        f"{after[name]} with {name.split()[1]}" for name in after if f"{Vital.CLOSES} " in name
    )
    return Verdict(
        f"abandoned: {clients * len(WAYS)} clients, {len(WAYS)} ways of leaving",
        (
            *left_behind(before, after),
            Finding.told("closed by the server, warm-up included", ", ".join(codes)),
        ),
    )
