"""What is measured, and the way there."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve

from labkit.errors import ClientError, ServerError
from labkit.measure.links import Conditions, Link
from labkit.measure.networks import LOOPBACK, Profile
from labkit.measure.targets import Access, Target, distinct, way_to
from labkit.net import bearer, new_token
from labkit.server.app import VoiceServer
from labkit.session.settings import ServerSettings
from labkit.voice.pipeline import EchoPipeline

SLOW = Profile("slow", "Late.", Conditions(up=Link(delay_ms=20), down=Link(delay_ms=20)))


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A bare server that answers pings, and knows permessage-deflate as websockets does."""

    async def handle(socket: ServerConnection) -> None:
        async for message in socket:
            if message == "ping":
                await socket.send("pong")

    async with serve(handle, "127.0.0.1", 0) as serving:
        yield serving


def target(server: Server) -> Target:
    return Target.running(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")


def extensions(server: Server) -> list[str]:
    """What was agreed upon with the only caller."""
    (connection,) = server.connections
    return [extension.name for extension in connection.protocol.extensions]


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("network", [LOOPBACK, SLOW])
@pytest.mark.parametrize("deflate", [False, True])
async def test_every_server_is_reached_under_every_condition(
    server: Server, tls: bool, network: Profile, deflate: bool
) -> None:
    access = Access(network=network, tls=tls, deflate=deflate)
    async with way_to(target(server), access) as way, way.connect() as client:
        assert way.url.startswith("wss:" if tls else "ws:")
        assert await client.ping() >= 2e-3 * network.conditions.up.delay_ms
        assert extensions(server) == ["permessage-deflate"] * deflate


async def test_a_server_gets_the_token_that_it_asks_for() -> None:
    token = new_token()
    settings = ServerSettings(host="127.0.0.1", port=0, tokens=(token,))
    async with VoiceServer(EchoPipeline(), settings) as voice:
        target = Target.running(voice.url, headers=bearer(token))
        async with way_to(target, Access(network=SLOW)) as way, way.connect() as client:
            assert await client.ping() > 0
        async with way_to(Target.running(voice.url), Access()) as way:
            with pytest.raises(ClientError, match="401"):
                async with way.connect():
                    pass


async def test_the_end_of_tls_ends_with_the_server(server: Server) -> None:
    async with way_to(target(server), Access(tls=True)) as way:
        async with way.connect() as client:
            assert await client.ping() > 0
            await asyncio.gather(*(connection.close() for connection in server.connections))
            with pytest.raises(ClientError, match="closed the connection"):
                await client.ping()


async def test_a_file_of_python_is_started_on_the_port_that_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("REPLY = 'pong'\n")
    path = tmp_path / "mine.py"
    path.write_text("""
import asyncio, os
from websockets.asyncio.server import serve
from beside import REPLY

async def handle(socket):
    async for message in socket:
        if message == "ping":
            await socket.send(REPLY)

async def main():
    async with serve(handle, "127.0.0.1", int(os.environ["PORT"])) as server:
        await server.serve_forever()

asyncio.run(main())
""")
    async with way_to(Target.script(path), Access()) as way, way.connect() as client:
        assert await client.ping() > 0


def test_targets_have_names_that_tell_them_apart(tmp_path: Path) -> None:
    path = tmp_path / "labkit.py"
    path.touch()
    found = distinct(
        [Target.labkit(), Target.naive(), Target.script(path), Target.running("ws://[::1]:8765/x")]
    )
    assert [one.name for one in found] == ["labkit", "naive", "labkit-2", "[::1]:8765"]
    again = distinct([Target("a"), Target("a-2"), Target("a"), Target("a")])
    assert [one.name for one in again] == ["a", "a-2", "a-3", "a-4"]
    assert Target.running("ws://me:secret@box:1").name == "box:1"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("mine.py", "mine"),
        ("_mine.py", "mine"),
        ("$x^$.py", "x^"),
        ("_.py", "server"),
        ("b\udcff.py", "b?"),
    ],
)
def test_a_server_has_a_name_that_figures_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, name: str
) -> None:
    monkeypatch.setattr(Path, "is_file", lambda _: True)  # not every file system takes every name
    monkeypatch.setattr(Path, "is_dir", lambda _: False)
    assert Target.script(tmp_path / file).name == name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nowhere.py", "there is no file .*nowhere.py"),
        ("notes.txt", "is no file of Python"),
        (".", "is a folder; name a file of Python in it"),
    ],
)
def test_what_is_no_file_of_python_is_refused(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ServerError, match=why):
        Target.script(tmp_path / name)


def test_conditions_are_named() -> None:
    assert str(Access()) == "loopback"
    assert str(Access(network=SLOW, tls=True, deflate=True)) == "slow + TLS + permessage-deflate"
    assert Access(network=SLOW).about()["network"] == "slow: Late."
