"""What a connection held is freed when it ends, not when the garbage collector comes by."""

import gc
from collections.abc import Iterator

import pytest
from websockets.asyncio.client import connect
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from labkit.server.app import VoiceServer
from labkit.server.connection import Connection
from labkit.server.websocket import BoundedConnection
from labkit.session.session import Session
from labkit.session.settings import ServerSettings
from labkit.voice.pipeline import EchoPipeline
from tests.support import until


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def in_memory(kind: type) -> int:
    return sum(type(thing) is kind for thing in gc.get_objects())


@pytest.mark.parametrize(
    ("dialect", "ending"),
    [
        ("plain", "closed"),
        ("plain", "broken off"),
        ("v1", "closed"),
        ("v1", "broken off"),
        ("v1", "ended by the client"),
        ("plain", "refused"),
        ("v1", "refused"),
        ("plain", "too long"),
        ("v1", "too long, once inflated"),
    ],
)
async def test_a_session_is_freed_when_it_ends(
    dialect: str, ending: str, no_collector: None
) -> None:
    v1 = dialect == "v1"
    # The library's protocol has what was not parsed yet, and the state of its compression.
    kinds = (Session, Connection, BoundedConnection, ServerProtocol)
    before = [in_memory(kind) for kind in kinds]
    deflate = "inflated" in ending
    settings = ServerSettings(
        host="127.0.0.1", port=0, resume_s=0.0, reap_interval_s=0.01, deflate=deflate
    )
    async with VoiceServer(EchoPipeline(), settings) as server:
        offered = [Subprotocol("labkit.v1")] if v1 else None
        compression = "deflate" if deflate else None
        async with connect(server.url, compression=compression, subprotocols=offered) as socket:
            if v1:
                await socket.send('{"type": "session.start"}')
                await socket.recv()
            await socket.send(bytes(3200))
            await socket.send('{"type": "audio.end"}' if v1 else "end_stream")
            await socket.recv()
            assert [in_memory(kind) for kind in kinds] == [number + 1 for number in before]
            if ending == "refused":
                await socket.send(b"\0")
                while "odd_length" not in str(await socket.recv()):
                    pass
            elif ending == "ended by the client":
                await socket.send('{"type": "session.end"}')
                await socket.wait_closed()
            elif ending == "broken off":
                socket.transport.abort()
            elif "too long" in ending:
                await socket.send(bytes(server.settings.max_read_bytes + 1))
                await socket.wait_closed()
                assert socket.close_code == 1009
        await until(lambda: [in_memory(kind) for kind in kinds] == before)
