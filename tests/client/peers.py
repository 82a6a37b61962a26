"""Servers that a client should not have to wait for: silent, foreign, or newer than it is."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any, cast

from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from labkit.client.speech import Clock
from tests.paths import ROOT

LOOP_CLOCK = Clock(source=lambda: round(asyncio.get_running_loop().time() * 1e9))
"""For clients that go by the time of the test's loop, which may be a virtual one."""
Handler = Callable[[ServerConnection], Awaitable[None]]


def _chosen(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return offered[0] if offered else None


@asynccontextmanager
async def websocket(handle: Handler, **options: Any) -> AsyncIterator[str]:
    """A WebSocket server that agrees to any dialect; its address."""
    options = {"select_subprotocol": _chosen, "close_timeout": 0.1} | options
    async with serve(handle, "127.0.0.1", 0, **options) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


@asynccontextmanager
async def tcp(
    answer: bytes = b"", *, reset: bool = False, silent: bool = False
) -> AsyncIterator[str]:
    """A server of something else; its address as a WebSocket's."""
    over = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if reset:
            writer.transport.abort()
            return
        await reader.read(1)
        writer.write(answer)
        if silent:
            await over.wait()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        over.set()


async def silent(socket: ServerConnection) -> None:
    """Takes the connection, reads everything, and never says anything."""
    async for _ in socket:
        pass


async def deaf(socket: ServerConnection) -> None:
    """Takes the connection and reads nothing."""
    socket.transport.pause_reading()
    await socket.wait_closed()


def saying(*messages: str | bytes, after: str | None = None) -> Handler:
    """Says `messages` once the client has said `after` (its first message by default)."""

    async def handle(socket: ServerConnection) -> None:
        async for message in socket:
            if after is None or message == after:
                for answer in messages:
                    await socket.send(answer)
                break
        await silent(socket)

    return handle


def of_the_readme() -> Handler:
    """The server of bare websockets that README.md shows beside the rules that it keeps to."""
    shown = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", shown, re.M | re.S)
    (source,) = [block for block in blocks if "BEEP" in block]
    module = ModuleType("bare")
    exec(source.replace("asyncio.run(main())", ""), module.__dict__)
    return cast(Handler, module.converse)
