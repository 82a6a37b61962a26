"""A server in a process of its own, with any settings, and how it is seen from outside."""

import pytest

from labkit.client.v1 import SessionClient
from labkit.drills import Dialect
from labkit.drills.target import (
    Vital,
    fetch,
    log_faults,
    parse_vitals,
    running_target,
    settings_of,
    vitals_of,
    vitals_once,
    well_served,
)
from labkit.errors import ClientError, ServerError
from labkit.server.app import VoiceServer
from labkit.voice.history import Exchange
from labkit.voice.pipeline import EchoPipeline
from labkit.voice.turn import Sink, Turn

PAGE = """
# TYPE labkit_sessions gauge
labkit_sessions{state="attached"} 2.0
labkit_sessions{state="detached"} 3.0
labkit_tasks 7.0
labkit_held_bytes 123.0
labkit_queued_calls{engine="asr"} 1.0
labkit_queued_calls{engine="tts"} 2.0
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 8.5e+07
# TYPE process_open_fds gauge
process_open_fds 12.0
# TYPE labkit_closes counter
labkit_closes_total{code="4004"} 3.0
"""


async def test_the_server_has_the_settings_that_it_is_told_and_its_log_can_be_read() -> None:
    async with running_target(history=3, max_messages_per_s=1e6) as server:
        async with SessionClient.connect(server.url) as client:
            assert client.started is not None
            assert client.started.limits.history == 3
            assert client.started.limits.max_messages_per_s == 1e6
        assert "begun" in server.log()


def test_it_takes_a_free_port_of_this_machine_unless_told_otherwise() -> None:
    assert (settings_of({}).host, settings_of({}).port) == ("127.0.0.1", 0)
    assert settings_of({"port": 9000}).port == 9000


def test_a_setting_that_is_none_is_named() -> None:
    with pytest.raises(ServerError, match="histroy"):
        running_target(histroy=3)


def test_sessions_of_all_states_are_added_up() -> None:
    assert parse_vitals(PAGE) == {
        "labkit_sessions": 5,
        "labkit_sessions attached": 2,
        "labkit_sessions detached": 3,
        Vital.TASKS: 7,
        Vital.HELD_BYTES: 123,
        Vital.QUEUED_CALLS: 3,
        f"{Vital.QUEUED_CALLS} asr": 1,
        f"{Vital.QUEUED_CALLS} tts": 2,
        Vital.OPEN_FILES: 12,
        Vital.RSS_BYTES: 85_000_000,
        Vital.CLOSES: 3,
        f"{Vital.CLOSES} 4004": 3,
    }


def test_what_a_page_does_not_tell_is_unknown() -> None:
    assert parse_vitals("") == {}


async def test_a_server_tells_of_its_sessions_and_that_it_is_alive() -> None:
    settings = settings_of({})
    async with VoiceServer(EchoPipeline(), settings) as server:
        assert await fetch(server.url, "/healthz") == (200, "alive\n")
        async with SessionClient.connect(server.url) as client:
            assert (await vitals_of(server.url))[Vital.SESSIONS] == 1
            await client.end()
        assert (await vitals_once(server.url, lambda now: not now[Vital.SESSIONS], 10))[
            Vital.SESSIONS
        ] == 0
        url = server.url
    with pytest.raises(ClientError, match="does not give /healthz"):
        await fetch(url, "/healthz")


def test_faults_are_found_in_a_log() -> None:
    good = "2026-01-01 10:00:00,000 INFO labkit.server.app: connection: closing, errors told"
    bad = [
        "2026-01-01 10:00:00,000 ERROR labkit.server.sessions: session a: failed",
        "Traceback (most recent call last):",
        "Task exception was never retrieved",
        "RuntimeWarning: coroutine 'x' was never awaited",
    ]
    assert log_faults("\n".join([good, *bad, good])) == bad


async def test_a_server_that_does_not_echo_is_told_that_it_cannot_pass() -> None:
    class Voice(EchoPipeline):
        async def answer(self, turn: Turn, sink: Sink) -> Exchange:
            await sink.transcript("hello")
            return Exchange("hello", "Hi.")

    async with VoiceServer(Voice(), settings_of({})) as server:
        told = await well_served(server.url, Dialect.PLAIN)
    assert told == "the transcript is 'hello', where only an echo server passes"


async def test_a_good_turn_has_to_give_back_what_was_said() -> None:
    class Deaf(EchoPipeline):
        async def answer(self, turn: Turn, sink: Sink) -> Exchange:
            await sink.transcript("0.20 seconds of audio")
            return Exchange("0.20 seconds of audio", "nothing")

    async with VoiceServer(Deaf(), settings_of({})) as server:
        for dialect in Dialect:
            assert "the reply of 0 samples" in await well_served(server.url, dialect)
    async with VoiceServer(EchoPipeline(), settings_of({})) as server:
        for dialect in Dialect:
            assert await well_served(server.url, dialect) == ""
