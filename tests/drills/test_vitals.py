"""How a server is, as its own pages tell."""

import pytest

from labkit.client.v1 import SessionClient
from labkit.drills.vitals import Vitals, address_of, fetch, parse_vitals, quiet_vitals
from labkit.errors import ClientError
from labkit.server.app import VoiceServer
from labkit.session.settings import ServerSettings
from labkit.voice.pipeline import EchoPipeline

PAGE = """
# TYPE labkit_sessions gauge
labkit_sessions{state="attached"} 2.0
labkit_sessions{state="detached"} 3.0
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 8.5e+07
# TYPE process_open_fds gauge
process_open_fds 12.0
"""


def test_sessions_of_all_states_are_added_up() -> None:
    assert parse_vitals(PAGE) == Vitals(5, 85_000_000, 12)


def test_what_a_page_does_not_tell_is_unknown() -> None:
    assert parse_vitals("") == Vitals()


@pytest.mark.parametrize("url", ["wss://localhost", "localhost:1", "ws://[", "http://x"])
def test_an_address_that_cannot_be_drilled_is_named(url: str) -> None:
    with pytest.raises(ClientError, match="url: .* is no address that can be drilled"):
        address_of(url)


def test_the_port_is_that_of_http_where_none_is_named() -> None:
    assert address_of("ws://example/") == ("example", 80)
    assert address_of("ws://[::1]:9/") == ("::1", 9)


async def test_a_server_tells_of_its_sessions_and_that_it_is_alive() -> None:
    settings = ServerSettings(host="127.0.0.1", port=0)
    async with VoiceServer(EchoPipeline(), settings) as server:
        assert await fetch(server.url, "/healthz") == (200, "alive\n")
        async with SessionClient.connect(server.url) as client:
            assert (await quiet_vitals(server.url, 0)).sessions == 1
            await client.end()
        assert (await quiet_vitals(server.url, 10)).sessions == 0
        url = server.url
    with pytest.raises(ClientError, match="does not give /healthz"):
        await fetch(url, "/healthz")
