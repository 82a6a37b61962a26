"""Callers against servers in the same process, by a clock that runs faster than real time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import cast

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection, serve

from labkit.audio.pcm import Float32
from labkit.measure.call_log import CallLog
from labkit.measure.callers import Caller, Manners, connect_caller
from labkit.measure.pace import Pace
from labkit.measure.script import Script, speech_of
from labkit.server.app import VoiceServer
from labkit.session.settings import ServerSettings
from labkit.voice.pipeline import EchoPipeline, VoicePipeline
from labkit.voice.scripted import ScriptedAsr, scripted_engines

PACE = Pace(speed=20)
SECOND = 10**9
SPEECH = [speech_of(np.full(3_200, 0.1 * n, np.float32), chunk_ms=40) for n in (1, 2)]
SCRIPT = Script(phase_ns=20_000_000, skip=0.0, ping_phase_ns=300_000_000, order=(0, 1))
PATIENT = Manners(pause_s=0.5, patience_s=200)
IMPATIENT = Manners(pause_s=0.5, patience_s=2)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[ClientConnection]:
    socket = await connect_caller(url)
    assert socket is not None
    async with socket:
        yield socket


async def calling(
    socket: ClientConnection, manners: Manners = PATIENT, *, seconds: float = 4
) -> CallLog:
    begin = PACE.now_ns()
    caller = Caller(socket, SCRIPT, SPEECH, manners, PACE)
    return await caller.call(begin, begin + round(seconds * SECOND))


async def call(url: str, manners: Manners = PATIENT) -> CallLog:
    async with connected(url) as socket:
        return await calling(socket, manners)


@asynccontextmanager
async def server_that(
    answers: Callable[[ServerConnection], Awaitable[None]],
) -> AsyncIterator[str]:
    async with serve(answers, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_turns_and_pings_of_a_good_server_are_all_answered() -> None:
    settings = ServerSettings(host="127.0.0.1", port=0)
    async with VoiceServer(EchoPipeline(), settings) as server:
        log = await call(server.url)
    assert log.turns
    assert len(log.pings) == 4
    requests = [*log.turns, *log.pings]
    assert not any(request.lost for request in requests)
    assert all(request.latency_ns(0) >= 0 for request in requests)
    assert (log.errors, log.refused) == ({}, False)
    assert log.bytes_sent >= 6_400 * len(log.turns)
    assert log.bytes_received > 6_400 * len(log.turns)
    assert log.lateness_ns


async def test_the_turns_follow_the_timetable_of_an_answered_caller() -> None:
    async with VoiceServer(EchoPipeline(), ServerSettings(host="127.0.0.1", port=0)) as server:
        async with connected(server.url) as socket:
            begin = PACE.now_ns()
            caller = Caller(socket, SCRIPT, SPEECH, Manners(pause_s=100, patience_s=200), PACE)
            log = await caller.call(begin, begin + SECOND)
    (turn,) = log.turns
    assert turn.due_ns == begin + SCRIPT.phase_ns + SECOND // 5
    assert [ping.due_ns - begin for ping in log.pings] == [SCRIPT.ping_phase_ns]
    assert log.behind_ns == 0


async def test_a_silent_server_loses_every_turn_and_ping_and_falls_behind() -> None:
    async def listen(socket: ServerConnection) -> None:
        async for _ in socket:
            pass

    async with server_that(listen) as url:
        log = await call(url, IMPATIENT)
    assert log.turns
    assert len(log.pings) == 4
    assert all(request.lost for request in [*log.turns, *log.pings])
    assert log.behind_ns >= (IMPATIENT.patience_s - IMPATIENT.pause_s) * SECOND
    assert log.errors == {}


async def test_a_server_that_hangs_up_loses_the_turn_and_is_counted_by_its_code() -> None:
    async def leave(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.close(1011, "out of coffee")

    async with server_that(leave) as url:
        log = await call(url)
    assert [turn.lost for turn in log.turns] == [True]
    assert log.errors == {"closed_1011": 1}
    assert not log.refused


async def test_a_caller_for_whom_there_is_no_place_is_refused() -> None:
    settings = ServerSettings(host="127.0.0.1", port=0, max_sessions=1)
    async with VoiceServer(EchoPipeline(), settings) as server, connected(server.url):
        assert await connect_caller(server.url) is None


async def test_nobody_there_is_a_refusal() -> None:
    assert await connect_caller("ws://127.0.0.1:1") is None


async def test_a_turn_that_an_engine_failed_is_lost_and_counted() -> None:
    def fail(_: Float32) -> str:
        raise RuntimeError("out of memory")

    engines = scripted_engines(asr=ScriptedAsr(fail))
    settings = ServerSettings(host="127.0.0.1", port=0)
    async with VoiceServer(VoicePipeline(engines), settings) as server:
        log = await call(server.url)
    assert log.turns
    assert all(turn.lost for turn in log.turns)
    assert log.errors["engine_failed"] == len(log.turns)


class Stuck:
    """A connection whose other end stops reading: after `room` messages, `send` blocks."""

    close_code = None

    def __init__(self, room: int) -> None:
        self.room = room

    async def send(self, message: str | bytes) -> None:
        if self.room <= 0:
            await asyncio.Event().wait()
        self.room -= 1

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        await asyncio.Event().wait()
        yield ""


@pytest.mark.parametrize("room", [0, 2, 7])
async def test_what_was_due_and_could_not_be_sent_is_lost(room: int) -> None:
    log = await calling(cast(ClientConnection, Stuck(room)), IMPATIENT)
    assert log.turns
    assert len(log.pings) == 4
    assert all(request.lost for request in [*log.turns, *log.pings])
    assert log.behind_ns > 0
    assert log.blocked_ns > SECOND
