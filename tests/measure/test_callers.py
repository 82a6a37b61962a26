"""Callers, what they note, and the clock that they go by; servers are in the same process."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import cast

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection, serve

from labkit.audio.pcm import Float32
from labkit.client.speech import Clock
from labkit.errors import CloseCode, ErrorCode
from labkit.measure.callers import (
    Caller,
    CallLog,
    Manners,
    Request,
    connect_caller,
    fine_loop,
)
from labkit.measure.plan import Script, speech_of
from labkit.protocol import plain
from labkit.server.app import VoiceServer
from labkit.session.settings import ServerSettings
from labkit.voice.pipeline import EchoPipeline, VoicePipeline
from labkit.voice.scripted import ScriptedAsr, scripted_engines

CLOCK = Clock(speed=20)
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
    begin = CLOCK.now_ns()
    caller = Caller(socket, SCRIPT, SPEECH, manners, CLOCK)
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
            begin = CLOCK.now_ns()
            caller = Caller(socket, SCRIPT, SPEECH, Manners(pause_s=100, patience_s=200), CLOCK)
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


DONE = plain.Done(reply_text="", reply_samples=0).encode()
HEARD = plain.Transcript(text="hi").encode()


def refusal(code: ErrorCode, count: int = 1) -> str:
    return plain.Error(code=code, message="no", hint="yes", count=count).encode()


def test_latency_counts_from_when_it_was_due() -> None:
    request = Request(due_ns=100)
    request.answer(350)
    request.answer(900)
    assert request.latency_ns(patience_ns=10_000) == 250


def test_a_lost_request_counts_with_the_whole_patience() -> None:
    assert Request(due_ns=100).latency_ns(10_000) == 10_000
    assert Request(due_ns=100, answered_ns=110, lost=True).latency_ns(10_000) == 10_000


def test_an_error_counts_for_all_the_messages_that_it_speaks_of() -> None:
    log = CallLog()
    log.take(refusal(ErrorCode.BUFFER_FULL), 1)
    log.take(refusal(ErrorCode.BUFFER_FULL, count=41), 2)
    assert log.errors == {"buffer_full": 42}


def test_a_turn_is_answered_by_its_first_audio_and_over_with_done() -> None:
    log = CallLog()
    turn = log.ask(0)
    log.take(HEARD, 5)
    assert turn.answered_ns is None
    log.take(b"\0\0", 7)
    assert turn.answered_ns == 7
    assert log.is_open(turn)
    log.take(b"\0\0", 8)
    log.take(DONE, 9)
    assert (turn.answered_ns, turn.lost) == (7, False)
    assert not log.is_open(turn)
    assert log.bytes_received == len(HEARD) + 4 + len(DONE)


def test_a_reply_without_audio_is_answered_by_done() -> None:
    log = CallLog()
    turn = log.ask(0)
    log.take(b"", 4)
    log.take(DONE, 9)
    assert turn.answered_ns == 9


def test_without_streaming_a_reply_is_one_message_or_full_ones_and_a_shorter_one() -> None:
    log = CallLog(stream=False)
    turn, other = log.ask(0), log.ask(1)
    log.take(HEARD, 5)
    log.take(bytes(960_000), 7)
    assert (turn.answered_ns, log.is_open(turn)) == (7, True)
    log.take(b"", 8)
    assert (turn.answered_ns, log.is_open(turn)) == (7, False)
    log.take(b"", 9)
    assert (other.answered_ns, log.is_open(other)) == (9, False)


def test_a_late_answer_belongs_to_the_turn_that_was_given_up() -> None:
    log = CallLog()
    first = log.ask(0)
    first.lost = True
    second = log.ask(100)
    log.take(b"\0\0", 110)
    log.take(DONE, 120)
    assert (first.answered_ns, first.lost) == (110, True)
    assert (second.answered_ns, log.is_open(second)) == (None, True)
    log.take(DONE, 130)
    assert (second.answered_ns, second.lost) == (130, False)


def test_pongs_answer_pings_in_order() -> None:
    log = CallLog()
    first, second = log.ping(0), log.ping(10)
    log.take("pong", 12)
    assert (first.answered_ns, second.answered_ns) == (12, None)
    assert log.waits_for_pongs
    log.take("pong", 15)
    assert second.answered_ns == 15
    assert not log.waits_for_pongs


def test_a_turn_that_an_engine_failed_is_lost() -> None:
    log = CallLog()
    turn = log.ask(0)
    log.take(refusal(ErrorCode.ENGINE_FAILED), 3)
    log.take(DONE, 4)
    assert turn.lost
    assert not log.is_open(turn)
    assert log.errors == {"engine_failed": 1}


def test_one_turn_too_many_is_the_newest() -> None:
    log = CallLog()
    first, second = log.ask(0), log.ask(1)
    log.take(refusal(ErrorCode.TOO_MANY_TURNS), 2)
    assert (first.lost, second.lost) == (False, True)
    assert log.is_open(first)
    assert not log.is_open(second)


def test_other_errors_are_counted_and_lose_nothing() -> None:
    log = CallLog()
    turn = log.ask(0)
    log.take(refusal(ErrorCode.BUFFER_FULL), 2)
    log.take("nonsense", 2)
    assert not turn.lost
    assert log.errors == {"buffer_full": 1, "not_understood": 1}


@pytest.mark.parametrize("message", [b"\0\0", DONE, "pong", refusal(ErrorCode.ENGINE_FAILED)])
def test_what_nobody_asked_for_is_no_answer(message: str | bytes) -> None:
    log = CallLog()
    log.take(message, 1)
    assert (log.turns, log.pings) == ([], [])


@pytest.mark.parametrize(
    ("code", "name"), [(CloseCode.INTERNAL_ERROR, "closed_1011"), (None, "closed_1006")]
)
def test_a_lost_connection_loses_what_is_open(code: int | None, name: str) -> None:
    log = CallLog()
    turn, ping = log.ask(0), log.ping(0)
    log.hang_up(code)
    assert turn.lost
    assert ping.lost
    assert not log.refused
    assert log.errors == {name: 1}


def test_a_refused_caller_has_nothing_to_lose() -> None:
    log = CallLog()
    log.ping(0)
    log.hang_up(1013)
    assert log.refused
    assert (log.turns, log.pings, log.errors) == ([], [], {})


def test_the_fine_loop_sleeps_waits_and_talks() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(4))
        writer.close()
        await writer.wait_closed()

    async def talk() -> bytes:
        clock = Clock()
        assert await clock.sleep_until(clock.now_ns() + 300_000) >= 0
        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"ping")
            said = await reader.readexactly(4)
            writer.close()
            await writer.wait_closed()
            return said

    with asyncio.Runner(loop_factory=fine_loop) as runner:
        assert runner.run(talk()) == b"ping"
