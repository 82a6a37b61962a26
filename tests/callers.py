"""A server within the test, time that moves when told to, and bare clients of labkit.v1."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from labkit.audio.pcm import encode_s16le
from labkit.server.app import VoiceServer
from labkit.session.settings import ServerSettings
from labkit.voice.pipeline import EchoPipeline
from labkit.voice.turn import Pipeline

CHUNK = encode_s16le(np.full(640, 0.25, np.float32))
SECOND = 10**9


class Clock:
    """Time that moves when told to."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


@asynccontextmanager
async def serving(
    pipeline: Pipeline | None = None, clock: Clock | None = None, **settings: Any
) -> AsyncIterator[VoiceServer]:
    """A server whose reaper works only when the test calls `reap`."""
    chosen = ServerSettings(host="127.0.0.1", port=0, reap_interval_s=3600.0, **settings)
    async with VoiceServer(pipeline or EchoPipeline(), chosen, clock=clock or Clock()) as server:
        yield server


@asynccontextmanager
async def calling(server: VoiceServer, **options: Any) -> AsyncIterator[ClientConnection]:
    offered = [Subprotocol("labkit.v1")]
    async with connect(server.url, subprotocols=offered, **options) as socket:
        yield socket


async def send(socket: ClientConnection, kind: str, **fields: Any) -> None:
    await socket.send(json.dumps({"type": kind, **fields}))


PASSING = {"audio.ack", "speech.started", "speech.stopped"}


async def receive(socket: ClientConnection, kind: str) -> dict[str, Any]:
    """The next message of a kind; only those that come at any time may come before it."""
    while True:
        message = await socket.recv()
        assert isinstance(message, str), f"audio instead of {kind}"
        decoded: dict[str, Any] = json.loads(message)
        if decoded["type"] == kind:
            return decoded
        assert decoded["type"] in PASSING, decoded


async def start(socket: ClientConnection, **fields: Any) -> dict[str, Any]:
    await send(socket, "session.start", **fields)
    return await receive(socket, "session.started")


async def refused(socket: ClientConnection, code: str) -> dict[str, Any]:
    error = await receive(socket, "error")
    assert error["code"] == code, error
    assert error["message"]
    assert error["hint"]
    return error


async def turn(socket: ClientConnection) -> tuple[list[str], bytes]:
    """The types of the messages of one turn, and its audio."""
    kinds, audio = [], b""
    while "response.done" not in kinds:
        message = await socket.recv()
        if isinstance(message, bytes):
            audio += message
        elif (kind := json.loads(message)["type"]) not in PASSING:
            kinds.append(kind)
    return kinds, audio


async def closed(socket: ClientConnection) -> int:
    with pytest.raises(ConnectionClosed):
        while True:
            await socket.recv()
    assert socket.close_code is not None
    return socket.close_code


def claimed(messages: int, samples: int) -> dict[str, int]:
    return {"messages": messages, "samples": samples}
