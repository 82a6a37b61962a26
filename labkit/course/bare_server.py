"""The least that a WebSocket server can do: what `labkit load` measures labkit's server against.

It discards audio, answers `ping` with `pong`, and ends a turn with an empty `done`. What it
costs is what the library and the system cost, so what a voice server takes beyond it is its own.
Run it with ``python -m labkit.course.bare_server``; it takes a free port and says which.
"""

import asyncio
import signal
import sys
from typing import Final

from websockets.asyncio.server import ServerConnection, serve

from labkit.protocol import plain

_DONE: Final = plain.Done(reply_text="", reply_samples=0).encode()


async def handle(socket: ServerConnection) -> None:
    """Serve one caller."""
    async for message in socket:
        if message == "ping":
            await socket.send(plain.PONG)
        elif message == "end_stream":
            await socket.send(_DONE)


async def _serve() -> None:
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
    async with serve(handle, "127.0.0.1", 0, compression=None, max_size=None) as server:
        address = server.sockets[0].getsockname()
        sys.stdout.write(f"the bare server is ready at ws://127.0.0.1:{address[1]}\n")
        sys.stdout.flush()
        await asked.wait()


def main() -> None:
    """Run the server until it is told to end."""
    asyncio.run(_serve())


if __name__ == "__main__":
    main()
