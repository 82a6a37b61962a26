"""The drills `stalled` and `abandoned`: clients that stand still, and clients that leave.

While clients ask for much audio and read none of it, the server's memory may grow by a bounded
amount for each, and other callers wait no longer than without them. A client that stands still for
too long is closed with a code after which it can resume.

Each way of being abandoned is tried by several clients at once, against a server with short
limits. After the limits have passed, everything that the server counts is what it was before:
sessions, tasks, bytes held, calls that wait for an engine, and open files.
"""

import asyncio
import math
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import WebSocketException

from labkit.audio.pcm import Encoding, Float32, encode_s16le
from labkit.client.conversation import Lost
from labkit.client.dial import address_of, connected
from labkit.client.plain import VoiceClient
from labkit.drills import Finding, Verdict
from labkit.drills.target import (
    PipelineName,
    Vital,
    Vitals,
    memory_of,
    running_target,
    session,
    spoken,
    vitals_once,
)
from labkit.errors import ClientError, CloseCode
from labkit.measure.links import Fault
from labkit.measure.netem import Proxy
from labkit.measure.results import Tell
from labkit.protocol import v1
from labkit.trace import Mark

# -- clients that stand still ------------------------------------------------------------------

_LOUD: Final = v1.AudioSpec(encoding=Encoding.PCM_F32LE, sample_rate=48_000, channels=2)
"""Twelve times the bytes of 16 kHz s16le: a short reply is more than any buffer takes."""
_CALLERS: Final = 2
_RECEIVE_BUFFER: Final = 16 * 1024
_LIMIT_MIB: Final = 1.0
_SWAYS_MIB: Final = 8.0
"""By so much a server that works grows and shrinks, whoever stalls."""
_TOLERANCE: Final = 1.2
_PATIENCE_S: Final = 120.0
_STILL: Final = 5
"""Looks, a tenth of a second apart, in which nothing may change."""
_CLOSED_AFTER_S: Final = 1.0
_CLOSED_CLIENTS: Final = 10
_MIB: Final = 1024 * 1024


@asynccontextmanager
async def stall(url: str, speech: bytes, *, acknowledges: bool) -> AsyncIterator[None]:
    """A client that says `speech` (s16le, 16 kHz) twice, and reads nothing from then on.

    Where it `acknowledges`, it has said before that it would.
    """
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)  # before it connects
    raw.connect(address_of(url))
    start = v1.SessionStart(output=_LOUD, acknowledges=acknowledges)
    async with session(url, start, within_s=_PATIENCE_S, sock=raw) as client:
        client.transport.pause_reading()
        try:
            for _ in range(2):
                await client.send(speech)
                await client.send(v1.AudioEnd().encode())
            yield
        finally:
            client.transport.abort()


@asynccontextmanager
async def stalling(
    url: str, speech: Sequence[Float32], clients: int, tell: Tell
) -> AsyncIterator[None]:
    """Clients that stand still, every other one of which has said that it acknowledges."""
    async with AsyncExitStack() as standing:
        for number in range(clients):
            said = encode_s16le(speech[number % len(speech)])
            await standing.enter_async_context(stall(url, said, acknowledges=number % 2 == 0))
            tell("clients that stall", number + 1, clients)
        yield


async def listen(url: str, speech: Sequence[Float32], seconds: float, tell: Tell) -> list[float]:
    """Let a few callers speak for so long, each turn in a session of its own.

    Returns:
        Milliseconds from the end of each utterance, sent at once, to the first audio of its reply;
        infinite where there was none, since a server that refuses is quick.
    """
    waits: list[float] = []
    end = time.perf_counter() + seconds

    async def call(turn: int) -> None:
        while time.perf_counter() < end:
            async with VoiceClient.connect(url) as client:
                said = await client.say(speech[turn % len(speech)], pace=0)
            wait = said.trace.between_ms(Mark.END_STREAM_SENT, Mark.FIRST_AUDIO_RECEIVED)
            waits.append(math.inf if wait is None or said.errors else wait)
            turn += _CALLERS
            left = max(0.0, end - time.perf_counter())
            tell("other callers", round(seconds - left), round(seconds))

    await asyncio.gather(*(call(number) for number in range(_CALLERS)))
    return waits


async def run_stalled(clients: int, seconds: float, tell: Tell) -> Verdict:
    """Run the drill with the engines, others timed for `seconds` before, meanwhile and after."""
    speech = spoken()
    target = running_target(
        "voice",
        max_sessions=clients + 16,
        send_timeout_s=3600.0,
        ping_interval_s=3600.0,
        resume_s=1.0,
        # A hundred who ask at once wait longer than admission bears on a slow machine.
        max_wait_s=3600.0,
    )
    async with target as server:
        url = server.url
        await listen(url, speech, seconds / 2, tell)  # it grows to its working size
        without = await listen(url, speech, seconds, tell)
        before = memory_of(server)
        async with stalling(url, speech, clients, tell):
            held = await _calm(url)
            grown = memory_of(server) - before
            meanwhile = await listen(url, speech, seconds, tell)
            grown = max(grown, memory_of(server) - before)
        await _calm(url)
        without += await listen(url, speech, seconds, tell)
    return Verdict(
        f"stalled: {clients} clients that do not read",
        judged(clients, grown, held, without, meanwhile, await _closed_in_time(speech[:1])),
    )


def judged(
    clients: int,
    grown: int,
    held: int,
    without: Sequence[float],
    meanwhile: Sequence[float],
    closed: int,
) -> tuple[Finding, ...]:
    """What was found, beside the promise. Pure.

    Args:
        clients: Clients that stood still.
        grown: Bytes that the server's memory grew by.
        held: Bytes that the server says it held for its sessions.
        without: Milliseconds that other callers waited before and after, as `listen` gives them.
        meanwhile: Milliseconds that they waited meanwhile.
        closed: How many of `_CLOSED_CLIENTS` were closed in the end, as they should.
    """
    answered = [[wait for wait in waits if wait < math.inf] for waits in (without, meanwhile)]
    refused = len(without) + len(meanwhile) - sum(map(len, answered))
    calm, busy = (float(np.percentile(waits, 95)) if waits else math.nan for waits in answered)
    return (
        Finding.at_most("memory growth, MiB", grown / _MIB, max(clients * _LIMIT_MIB, _SWAYS_MIB)),
        Finding.told("of it held for sessions, MiB", held / _MIB),
        Finding.told("for each stalled client, KiB", grown / clients / 1024),
        Finding.told("other callers' p95 without, ms", calm),
        Finding.told("other callers' p95 meanwhile, ms", busy),
        Finding.told("turns timed", f"{len(without)} and {len(meanwhile)}"),
        Finding.none_of("turns of theirs without a reply", refused),
        Finding.at_most("p95 meanwhile / without", busy / calm, _TOLERANCE),
        Finding(
            f"closed with {CloseCode.SLOW_READER.value} after {_CLOSED_AFTER_S:g} s",
            f"{closed} of {_CLOSED_CLIENTS}",
            "all",
            closed == _CLOSED_CLIENTS,
        ),
    )


async def _closed_in_time(speech: Sequence[Float32]) -> int:
    """How many clients a server closes that stand still for longer than it allows."""
    closed = f"{Vital.CLOSES} {CloseCode.SLOW_READER.value}"
    async with (
        running_target(send_timeout_s=_CLOSED_AFTER_S, ping_interval_s=3600.0) as server,
        stalling(server.url, speech, _CLOSED_CLIENTS, lambda *_: None),
    ):
        vitals = await vitals_once(
            server.url,
            lambda now: now.get(closed, 0) >= _CLOSED_CLIENTS,
            within_s=10 * _CLOSED_AFTER_S,
        )
    return vitals.get(closed, 0)


async def _calm(url: str) -> int:
    """Wait until no engine has work any more and nothing changes; gives the bytes held."""
    looks: list[int] = []

    def calm(now: Vitals) -> bool:
        looks.append(now.get(Vital.HELD_BYTES, 0))
        still = len(looks) > _STILL and len(set(looks[-_STILL:])) == 1
        return still and not now.get(Vital.QUEUED_CALLS)

    await vitals_once(url, calm, _PATIENCE_S)
    return looks[-1]


# -- clients that leave ------------------------------------------------------------------------

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
