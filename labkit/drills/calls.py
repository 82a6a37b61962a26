"""One conversation of several turns with a server, in either dialect, and all that was answered."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, Protocol

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, WebSocketException

from labkit.audio.pcm import SAMPLE_RATE, Float32, chunks, encode_s16le
from labkit.client.v1 import Answer, ReplyAudio, SessionClient
from labkit.drills.attackers import open_socket
from labkit.drills.hostile import Dialect
from labkit.errors import ClientError, ProtocolError
from labkit.protocol import plain

__all__ = ["Heard", "call"]

_CHUNK: Final = SAMPLE_RATE // 25
"""40 ms."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What a caller got in one turn.

    Attributes:
        transcript: What the server heard.
        reply: What its answer says.
        samples: Length of the spoken answer.
        audio: SHA-256 of the spoken answer, s16le at 16 kHz.
        wait_ms: From the end of the utterance to the first of the answer's audio, or to its
            end where it has none.
    """

    transcript: str
    reply: str
    samples: int
    audio: str
    wait_ms: float


class _Voice(Protocol):
    async def send(self, pcm: bytes) -> None: ...

    async def ask(self) -> Heard: ...


async def call(
    url: str,
    dialect: Dialect,
    utterances: Sequence[Float32],
    *,
    pace: float,
    patience_s: float,
    tell: Callable[[], None] = lambda: None,
) -> list[Heard]:
    """Say the utterances in one session, each after the answer to the one before.

    Args:
        url: The server.
        dialect: What to speak.
        utterances: Mono, 16 kHz.
        pace: Times real time; 0 sends at once.
        patience_s: Longest that one turn may take.
        tell: Called after each turn.

    Returns:
        A turn each; fewer, where the server did not answer or hung up.
    """
    heard: list[Heard] = []
    with suppress(ClientError, ProtocolError, ConnectionClosed, WebSocketException, OSError,
                  TimeoutError):  # fmt: skip
        async with _VOICES[dialect](url) as voice:
            for samples in utterances:
                async with asyncio.timeout(patience_s):
                    await _speak(samples, voice.send, pace)
                    heard.append(await voice.ask())
                tell()
    return heard


async def _speak(samples: Float32, send: Callable[[bytes], Awaitable[None]], pace: float) -> None:
    """Send each chunk once its last sample has been spoken."""
    start_ns, spoken = time.perf_counter_ns(), 0
    for chunk in chunks(samples, _CHUNK):
        spoken += len(chunk)
        if pace:
            due_ns = start_ns + round(spoken / SAMPLE_RATE / pace * 1e9)
            await asyncio.sleep(max(0.0, (due_ns - time.perf_counter_ns()) / 1e9))
        await send(encode_s16le(chunk))


class _Plain:
    """Speaks the plain dialect with streamed replies."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def send(self, pcm: bytes) -> None:
        await self._socket.send(pcm)

    async def ask(self) -> Heard:
        taken = _Taken()
        await self._socket.send("end_stream")
        transcript = ""
        while True:
            message = await self._socket.recv()
            if isinstance(message, bytes):
                taken.audio(message)
                continue
            match plain.decode_server(message):
                case plain.Transcript(text=text):
                    transcript = text
                case plain.Done(reply_text=reply):
                    return taken.heard(transcript, reply)
                case plain.Error() as error:
                    raise ClientError(f"{error.code.value}: {error.message}")


class _V1:
    """Speaks labkit.v1, in which the server's defaults are 16 kHz s16le as well."""

    def __init__(self, client: SessionClient) -> None:
        self._client = client

    async def send(self, pcm: bytes) -> None:
        await self._client.send_audio(pcm)

    async def ask(self) -> Heard:
        taken, answer = _Taken(), Answer()
        await self._client.end_utterance()
        complete = False
        while not complete:
            event = await self._client.next_event()
            if isinstance(event, ReplyAudio):
                taken.audio(event.payload)
            complete = answer.take(event)
        if answer.errors or answer.done is None:
            raise ClientError(f"the turn failed: {answer.errors}")
        return taken.heard(answer.transcript, answer.done.text)


class _Taken:
    """The audio of one answer, and when it began."""

    def __init__(self) -> None:
        self._asked_ns = time.perf_counter_ns()
        self._first_ns: int | None = None
        self._hash = hashlib.sha256()
        self._bytes = 0

    def audio(self, pcm: bytes) -> None:
        if self._first_ns is None:
            self._first_ns = time.perf_counter_ns()
        self._hash.update(pcm)
        self._bytes += len(pcm)

    def heard(self, transcript: str, reply: str) -> Heard:
        first_ns = self._first_ns or time.perf_counter_ns()
        wait_ms = (first_ns - self._asked_ns) / 1e6
        return Heard(transcript, reply, self._bytes // 2, self._hash.hexdigest(), wait_ms)


@asynccontextmanager
async def _plain_voice(url: str) -> AsyncIterator[_Voice]:
    async with await open_socket(url, Dialect.PLAIN, stream=True) as socket:
        yield _Plain(socket)


@asynccontextmanager
async def _v1_voice(url: str) -> AsyncIterator[_Voice]:
    async with SessionClient.connect(url) as client:
        yield _V1(client)
        await client.end()


_VOICES: Final = {Dialect.PLAIN: _plain_voice, Dialect.V1: _v1_voice}
