"""A server written from the rules in README.md alone: bare websockets, and nothing of labkit.

Run it with ``python -m tests.client.rules_server``; `labkit talk --url ws://localhost:8766` works
with it.
"""

import asyncio
import json
import math
import struct

from websockets.asyncio.server import ServerConnection, serve

BEEP = b"".join(struct.pack("<h", round(8000 * math.sin(i / 5))) for i in range(4800))


async def handle(socket: ServerConnection) -> None:
    heard = 0
    async for message in socket:
        if isinstance(message, bytes):
            heard += len(message) // 2
        elif message == "ping":
            await socket.send("pong")
        elif message == "end_stream":
            text = f"{heard / 16_000:.2f} seconds" if heard else ""
            await socket.send(json.dumps({"type": "transcript", "text": text}))
            await socket.send(BEEP if heard else b"")
            heard = 0
        else:
            error = {"code": "unknown", "message": "what?", "hint": "send end_stream or ping"}
            await socket.send(json.dumps({"type": "error", **error}))


async def main() -> None:
    async with serve(handle, "127.0.0.1", 8766) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
