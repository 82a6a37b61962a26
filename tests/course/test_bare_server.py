"""The server that does the least."""

import numpy as np
from websockets.asyncio.server import serve

from labkit.client.plain import VoiceClient
from labkit.course.bare_server import handle


async def test_it_answers_pings_and_ends_turns_with_nothing() -> None:
    async with serve(handle, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with VoiceClient.connect(f"ws://127.0.0.1:{port}") as client:
            assert await client.ping() > 0
            turn = await client.say(np.zeros(320, np.float32), chunk_ms=10)
    assert (turn.transcript, turn.reply_text, len(turn.reply), turn.errors) == ("", "", 0, [])
