"""An honest caller that pings: what it counts, and from when."""

import asyncio
import time

import pytest
from websockets.asyncio.server import ServerConnection

from labkit.client.dial import address_of
from labkit.errors import ClientError
from labkit.measure.netem import Proxy
from labkit.measure.pings import Pings, pinging
from labkit.server.app import VoiceServer
from labkit.session.settings import ServerSettings
from labkit.voice.pipeline import EchoPipeline
from tests.client.peers import websocket
from tests.support import until


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
