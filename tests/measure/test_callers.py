"""Callers, what they note, and the clock that they go by; servers are in the same process."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection

from labkit.audio.pcm import Float32
from labkit.client.dial import address_of
from labkit.client.speech import Clock
from labkit.client.turn import ClientTurn
from labkit.errors import ClientError, CloseCode, ErrorCode
from labkit.measure.callers import Caller, CallLog, Manners, Pings, fine_loop, pinging
from labkit.measure.netem import Proxy
from labkit.measure.plan import Script
from labkit.protocol import plain
from labkit.server.app import VoiceServer
from labkit.session.settings import ServerSettings
from labkit.trace import Mark, Trace
from labkit.voice.pipeline import EchoPipeline, VoicePipeline
from labkit.voice.scripted import ScriptedAsr, scripted_engines
from tests.client.peers import websocket
from tests.support import until

CLOCK = Clock(speed=20)
SECOND = 10**9
SPEECH = [np.full(3_200, 0.1 * n, np.float32) for n in (1, 2)]
SCRIPT = Script(phase_ns=20_000_000, skip=0.0, ping_phase_ns=300_000_000, order=(0, 1))
PATIENT = Manners(pause_s=0.5, patience_s=200)
IMPATIENT = Manners(pause_s=0.5, patience_s=2)


def caller_to(url: str, manners: Manners = PATIENT) -> Caller:
    return Caller(url, SCRIPT, SPEECH, manners, CLOCK)


async def call(url: str, manners: Manners = PATIENT, *, seconds: float = 4) -> CallLog:
    caller = caller_to(url, manners)
    await caller.connect()
    begin = CLOCK.now_ns()
    try:
        return await caller.call(begin, begin + round(seconds * SECOND))
    finally:
        await caller.hang_up()


async def test_turns_and_pings_of_a_good_server_are_all_answered() -> None:
    settings = ServerSettings(host="127.0.0.1", port=0)
    async with VoiceServer(EchoPipeline(), settings) as server:
        log = await call(server.url)
    assert log.turns_ns
    assert len(log.pings_ns) == 4
    assert min(*log.turns_ns, *log.pings_ns) >= 0
    assert (log.turns_lost, log.pings_lost, log.errors, log.refused) == (0, 0, {}, False)
    assert log.lateness_ns


async def test_the_turns_follow_the_timetable_of_an_answered_caller() -> None:
    async with VoiceServer(EchoPipeline(), ServerSettings(host="127.0.0.1", port=0)) as server:
        log = await call(server.url, Manners(pause_s=100, patience_s=200), seconds=1)
    assert (len(log.turns_ns), len(log.pings_ns), log.behind_ns) == (1, 1, 0)


async def listen(socket: ServerConnection) -> None:
    async for _ in socket:
        pass


async def test_a_silent_server_loses_every_turn_and_ping_and_falls_behind() -> None:
    async with websocket(listen) as url:
        log = await call(url, IMPATIENT)
    assert (log.turns_ns, log.pings_ns, log.pings_lost) == ([], [], 4)
    assert log.turns_lost > 0
    assert log.behind_ns >= (IMPATIENT.patience_s - IMPATIENT.pause_s) * SECOND
    assert log.errors == {}


async def test_who_gave_an_answer_up_calls_again() -> None:
    calls = 0

    async def answer_the_second(socket: ServerConnection) -> None:
        nonlocal calls
        calls += 1
        async for message in socket:
            if message == "end_stream" and calls > 1:
                await socket.send(plain.Done(reply_text="", reply_samples=0).encode())

    async with websocket(answer_the_second) as url:
        log = await call(url, Manners(pause_s=0.5, patience_s=10), seconds=20)
    assert log.turns_lost > 0
    assert log.turns_ns
    assert calls > 1


def hangs_up(code: int) -> Callable[[ServerConnection], Awaitable[None]]:
    async def leave(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.close(code, "out of coffee")

    return leave


async def test_a_server_that_hangs_up_loses_turns_and_is_counted_by_its_code() -> None:
    async with websocket(hangs_up(CloseCode.INTERNAL_ERROR)) as url:
        log = await call(url)
    assert log.turns_lost > 0
    assert log.errors == {"closed_1011": log.turns_lost}
    assert not log.refused


async def test_who_is_taken_only_to_be_turned_away_is_refused() -> None:
    async with websocket(hangs_up(1013)) as url:
        log = await call(url)
    assert log.refused
    assert (log.turns_ns, log.turns_lost, log.pings_lost, log.errors) == ([], 0, 0, {})


async def test_a_caller_for_whom_there_is_no_place_is_refused() -> None:
    settings = ServerSettings(host="127.0.0.1", port=0, max_sessions=1)
    async with VoiceServer(EchoPipeline(), settings) as server:
        first, second = caller_to(server.url), caller_to(server.url)
        await first.connect()
        await second.connect()
        await first.hang_up()
    assert (first.log.refused, second.log.refused) == (False, True)


async def test_nobody_there_is_a_refusal() -> None:
    nobody = caller_to("ws://127.0.0.1:1")
    await nobody.connect()
    assert nobody.log.refused


async def test_a_turn_that_an_engine_failed_is_lost_and_counted() -> None:
    def fail(_: Float32) -> str:
        raise RuntimeError("out of memory")

    engines = scripted_engines(asr=ScriptedAsr(fail))
    settings = ServerSettings(host="127.0.0.1", port=0)
    async with VoiceServer(VoicePipeline(engines), settings) as server:
        log = await call(server.url)
    assert log.turns_ns == []
    assert log.errors["engine_failed"] == log.turns_lost > 0


async def test_what_is_no_answer_loses_the_turn_and_is_counted() -> None:
    async def mumble(socket: ServerConnection) -> None:
        async for message in socket:
            if message == "end_stream":
                await socket.send("nonsense")

    async with websocket(mumble) as url:
        log = await call(url)
    assert log.errors == {"not_understood": log.turns_lost}
    assert log.turns_lost > 0


def noted(turn: ClientTurn) -> CallLog:
    caller = caller_to("ws://127.0.0.1:1")
    caller.log.turns_lost = 1
    caller._note(turn, due_ns=100)
    return caller.log


def test_a_wait_counts_from_when_it_was_due_to_the_first_audio() -> None:
    whole = {Mark.END_STREAM_SENT: 300, Mark.REPLY_RECEIVED: 900}
    heard = noted(ClientTurn(trace=Trace(whole | {Mark.FIRST_AUDIO_RECEIVED: 350})))
    assert (heard.turns_ns, heard.turns_lost) == ([250], 0)
    assert noted(ClientTurn(trace=Trace(whole))).turns_ns == [800]


@pytest.mark.parametrize(
    ("code", "lost"), [(ErrorCode.BUFFER_FULL, 0), (ErrorCode.TOO_MANY_TURNS, 1)]
)
def test_an_error_counts_for_all_the_messages_that_it_speaks_of(code: ErrorCode, lost: int) -> None:
    refusal = plain.Error(code=code, message="no", hint="yes", count=41)
    trace = Trace({Mark.REPLY_RECEIVED: 900})
    log = noted(ClientTurn(errors=[refusal], trace=trace))
    assert (log.errors, log.turns_lost) == ({code: 41}, lost)


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


async def test_a_server_that_stands_still_is_seen_by_every_ping_of_that_time() -> None:
    pings = Pings()
    async with VoiceServer(EchoPipeline(), ServerSettings(host="127.0.0.1", port=0)) as server:
        async with pinging(server.url, pings):
            await until(lambda: bool(pings.ms))
            before = len(pings.ms)
            time.sleep(0.3)  # noqa: ASYNC251 - the server's loop is held on purpose
            await until(lambda: len(pings.ms) >= before + 8)
    late = [ms for ms in pings.ms if ms > 50]
    assert pings.worst_ms > 200
    assert pings.longest_trip_ms > 200
    assert len(late) >= 5
    assert not pings.lost


async def test_a_server_that_is_gone_is_worse_than_any_round_trip() -> None:
    pings = Pings()
    async with pinging("ws://127.0.0.1:1", pings):
        pass
    assert pings.worst_ms == pings.p99_ms == float("inf")
    with pytest.raises(ClientError, match="lost, or had no answer"):
        pings.require_answers()


async def test_every_ping_that_a_server_holds_up_counts_also_where_the_block_is_over() -> None:
    pings, asked, answer = Pings(), asyncio.Event(), asyncio.Event()

    async def hold_up(socket: ServerConnection) -> None:
        async for _ in socket:
            asked.set()
            await answer.wait()
            await socket.send("a word of its own")
            await socket.send("pong")

    async with websocket(hold_up) as url:
        async with pinging(url, pings):
            await asked.wait()
            begun_s = time.perf_counter()
            await until(lambda: time.perf_counter() > begun_s + 0.3)
            asyncio.get_running_loop().call_later(0.01, answer.set)  # once the block is over
    assert not pings.lost
    assert len(pings.ms) > 0.3 / 0.045
    assert pings.ms[0] >= pings.longest_trip_ms >= 300
    assert pings.ms[1] > 200
    pings.require_answers()


async def test_the_caller_is_there_when_the_block_begins() -> None:
    async def answer(socket: ServerConnection) -> None:
        async for _ in socket:
            await socket.send("pong")

    async with websocket(answer) as url, Proxy(*address_of(url)) as proxy:
        async with pinging(proxy.url(), Pings()):
            assert len(proxy.connections) == 1  # so that the next one is the speaker's
