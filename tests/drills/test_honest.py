"""An honest caller sees how long a server stands still, from when each ping was due."""

import time

from labkit.drills.honest import Pings, pinging
from labkit.drills.target import settings_of
from labkit.server.app import VoiceServer
from labkit.voice.pipeline import EchoPipeline
from tests.support import until


async def test_a_server_that_stands_still_is_seen_by_every_ping_of_that_time() -> None:
    pings = Pings()
    async with VoiceServer(EchoPipeline(), settings_of({})) as server:
        async with pinging(server.url, pings):
            await until(lambda: bool(pings.ms))
            before = len(pings.ms)
            time.sleep(0.3)  # noqa: ASYNC251 - the server's loop is held on purpose
            await until(lambda: len(pings.ms) >= before + 8)
    late = [ms for ms in pings.ms if ms > 50]
    assert pings.worst_ms > 200
    assert len(late) >= 5
    assert not pings.lost


async def test_a_server_that_is_gone_is_worse_than_any_round_trip() -> None:
    pings = Pings()
    async with pinging("ws://127.0.0.1:1", pings):
        pass
    assert pings.worst_ms == pings.p99_ms == float("inf")
