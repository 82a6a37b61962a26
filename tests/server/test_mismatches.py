"""A caller that sends something else than it declared is told what it seems to send."""

import json
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection

from labkit.audio.misread import MISMATCHES
from labkit.audio.pcm import SAMPLE_RATE, read_audio
from labkit.drills.misdeclared import lies
from labkit.errors import ErrorCode
from tests.callers import SECOND, Clock, calling, send, serving, start
from tests.paths import ROOT

CHUNKS = 250
"""Ten seconds in messages of 40 ms."""
SPEECH = np.resize(read_audio(ROOT / "data/speech/slt-01.flac"), 10 * SAMPLE_RATE)


async def told(socket: ClientConnection) -> list[dict[str, Any]]:
    """What is found before the answer to a ping; audio that is no number is refused beside it."""
    await send(socket, "ping")
    errors: list[dict[str, Any]] = []
    while (message := json.loads(await socket.recv()))["type"] != "pong":
        told_of = message["type"] == "error" and message["code"] != "invalid_audio"
        errors += [message] * told_of
    return errors


@pytest.mark.parametrize("kind", sorted(MISMATCHES))
async def test_a_caller_is_told_what_its_audio_looks_like(kind: ErrorCode) -> None:
    lie = next(lie for lie in lies() if lie.kinds == (kind,))
    data, form, clock = lie.send(SPEECH), lie.declared, Clock()
    size = max(1, round(len(data) / CHUNKS / form.frame_bytes)) * form.frame_bytes
    errors: list[dict[str, Any]] = []
    async with serving(clock=clock) as server, calling(server) as socket:
        await start(
            socket,
            input={
                "encoding": form.encoding,
                "sample_rate": form.sample_rate,
                "channels": form.channels,
            },
        )
        for at in range(0, len(data) - size, size):
            clock.now_ns += round(10 * SECOND * size / len(data))
            await socket.send(data[at : at + size])
            errors += await told(socket)
        errors += await told(socket)
    assert [error["code"] for error in errors] == [kind]
    assert errors[0]["hint"]
    assert not errors[0]["fatal"]
