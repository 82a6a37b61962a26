"""The drill `stalled`: clients that ask for much audio and read none of it.

The server's memory may grow by a bounded amount for each, and other callers wait no longer than
without them. A client that stands still for too long is closed with a code after which it can
resume.
"""

import asyncio
import math
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import numpy as np

from labkit.audio.pcm import Encoding, Float32, encode_s16le
from labkit.client.dial import address_of
from labkit.client.plain import VoiceClient
from labkit.drills import Finding, Verdict
from labkit.drills.target import (
    Vital,
    Vitals,
    memory_of,
    running_target,
    session,
    spoken,
    vitals_once,
)
from labkit.errors import CloseCode
from labkit.measure.results import Tell
from labkit.protocol import v1
from labkit.trace import Mark

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
