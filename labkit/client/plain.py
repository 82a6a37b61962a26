"""A client of the plain dialect that speaks at the pace of speech, and notes the times.

It behaves like a microphone with a fixed block size: a chunk goes out once its last sample has
been spoken, never before, so what it measures is what a person would wait.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self
from urllib.parse import urlsplit

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from labkit.audio.pcm import (
    SAMPLE_RATE,
    Float32,
    chunks,
    decode_s16le,
    encode_s16le,
    leading_silence,
)
from labkit.errors import ClientError
from labkit.net.addresses import is_loopback
from labkit.net.wire_log import wire_log
from labkit.protocol import plain
from labkit.trace import Mark, Trace

__all__ = ["ClientTurn", "VoiceClient", "dialling", "proxy_for", "refusal_in", "untrusted"]

_MAX_READ: Final = 64 * 1024 * 1024
_REASON: Final = 400
"""Most characters of a refusal that are repeated."""
_PINGS: Final = 5
"""Round trips to estimate a clock's offset from; the fastest is the least disturbed."""


@dataclass(slots=True)
class ClientTurn:
    """One turn as the client saw it.

    Attributes:
        transcript: What the server heard.
        reply_text: What the spoken reply says; empty without a streamed reply.
        reply: The spoken reply, 16 kHz.
        trace: The marks of the client, and those of the server where it sent them.
        messages_sent: Binary messages of the utterance.
        bytes_sent: Payload bytes of the utterance.
        listening_cpu_ms: CPU time of the server's process while the utterance came in.
        errors: What the server refused during the turn.
        clock_offset_ns: The server's clock minus this one, estimated from ping round trips
            and taken out of the server's marks; None where both share one clock.
    """

    transcript: str = ""
    reply_text: str = ""
    reply: Float32 = field(default_factory=lambda: np.zeros(0, np.float32))
    trace: Trace = field(default_factory=Trace)
    messages_sent: int = 0
    bytes_sent: int = 0
    listening_cpu_ms: float = 0.0
    errors: list[plain.Error] = field(default_factory=list)
    clock_offset_ns: int | None = None

    @property
    def reply_seconds(self) -> float:
        """Length of the reply, its silences included."""
        return len(self.reply) / SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class _Received:
    """A message of the server, and when it came in."""

    message: str | bytes
    at_ns: int


class _Turn:
    """A turn while it happens: takes messages and marks, and knows when it is complete."""

    def __init__(self, clock: Callable[[], int], *, stream: bool) -> None:
        self.result = ClientTurn()
        self._clock = clock
        self._stream = stream
        self._pieces: list[Float32] = []
        self._silence_s = 0.0
        self._server_marks: dict[Mark, int] = {}

    def mark(self, mark: Mark, at_ns: int | None = None) -> None:
        self.result.trace.mark(mark, self._clock() if at_ns is None else at_ns)

    def take(self, received: _Received) -> bool:
        """Take one message of the server; True once the turn is complete."""
        if isinstance(received.message, bytes):
            self._take_audio(received.message, received.at_ns)
            complete = not self._stream
        else:
            complete = self._take_json(received.message, received.at_ns)
        if complete:
            self.mark(Mark.REPLY_RECEIVED, received.at_ns)
        return complete

    def _take_json(self, text: str, at_ns: int) -> bool:
        match plain.decode_server(text):
            case plain.Transcript(text=heard):
                self.mark(Mark.TRANSCRIPT_RECEIVED, at_ns)
                self.result.transcript = heard
            case plain.Error() as error:
                self.result.errors.append(error)
            case plain.Done() as done:
                self._take_done(done)
                return True
        return False

    def _take_audio(self, pcm: bytes, at_ns: int) -> None:
        samples = decode_s16le(pcm)
        if len(samples):
            self.mark(Mark.FIRST_AUDIO_RECEIVED, at_ns)
            self._look_for_sound(samples)
        self._pieces.append(samples)

    def _look_for_sound(self, samples: Float32) -> None:
        """Mark when the first audible sample can play, playback starting with the first byte."""
        if Mark.FIRST_AUDIO_HEARD in self.result.trace.marks:
            return
        silence = leading_silence(samples, SAMPLE_RATE)
        self._silence_s += silence
        if silence < len(samples) / SAMPLE_RATE:
            first = self.result.trace.marks[Mark.FIRST_AUDIO_RECEIVED]
            self.mark(Mark.FIRST_AUDIO_HEARD, first + round(self._silence_s * 1e9))

    def _take_done(self, done: plain.Done) -> None:
        self.result.reply_text = done.reply_text
        self.result.listening_cpu_ms = done.listening_cpu_ms
        known = {mark.value for mark in Mark}
        self._server_marks = {Mark(k): v for k, v in done.marks.items() if k in known}

    def shares_clock(self) -> bool:
        """Whether the server's marks lie inside of the turn on the client's own clock.

        Clocks of two machines count from their starts, seconds to months apart.
        """
        marks = self.result.trace.marks
        first, last = marks[Mark.END_STREAM_SENT], marks[Mark.REPLY_RECEIVED]
        return all(first <= at_ns <= last for at_ns in self._server_marks.values())

    def estimate_offset(self, round_trip_s: float) -> None:
        """Take it that `end_stream` was on its way for half of a round trip."""
        received = self._server_marks.get(Mark.END_STREAM_RECEIVED)
        if received is not None:
            sent = self.result.trace.marks[Mark.END_STREAM_SENT]
            self.result.clock_offset_ns = received - sent - round(round_trip_s * 1e9 / 2)

    def finish(self) -> ClientTurn:
        """The turn, with the server's marks on the client's clock."""
        self.result.trace.merge(self._server_marks, self.result.clock_offset_ns or 0)
        if self._pieces:
            self.result.reply = np.concatenate(self._pieces)
        return self.result


class VoiceClient:
    """A connection to a server that speaks the plain dialect.

    One turn at a time; `ping` may be called meanwhile.
    """

    def __init__(
        self,
        socket: ClientConnection,
        *,
        stream: bool,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        """Speak over `socket`; use `connect` instead of calling this."""
        self._socket = socket
        self._stream = stream
        self._clock = clock
        self._messages: asyncio.Queue[_Received | None] = asyncio.Queue()
        self._pongs: asyncio.Queue[_Received | None] = asyncio.Queue()

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        url: str,
        *,
        stream: bool = True,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> AsyncIterator[Self]:
        """Connect to `url`, such as ``ws://localhost:8765``.

        Args:
            url: The server's address.
            stream: Ask for the reply as it is synthesised.
            headers: Further headers of the handshake, such as those of `labkit.net.tokens.bearer`.
            tls: Whom to trust under ``wss://``, such as `labkit.net.tls.client_tls` gives; without
                it, whom this machine trusts.

        Raises:
            ClientError: Nobody answers there, not as a WebSocket, or with a refusal.
        """
        address = f"{url.rstrip('/')}/?reply=stream" if stream else url
        try:
            socket = await connect(address, max_size=_MAX_READ, **dialling(url, headers, tls))
        except InvalidStatus as error:
            raise ClientError(f"{url} refused the connection: {refusal_in(error)}") from error
        except ssl.SSLCertVerificationError as error:
            raise ClientError(untrusted(url, error)) from error
        except (OSError, WebSocketException, ValueError) as error:
            # ValueError: what urllib makes of addresses such as "ws://[".
            raise ClientError(
                f"no voice server answers at {url}: {error}. Start one with 'labkit serve'"
            ) from error
        async with socket:
            client = cls(socket, stream=stream)
            receiving = asyncio.create_task(client._receive())
            try:
                yield client
            finally:
                receiving.cancel()
                await asyncio.gather(receiving, return_exceptions=True)

    async def say(
        self, samples: Float32, *, chunk_ms: float = 40.0, end_of_speech: int | None = None
    ) -> ClientTurn:
        """Speak `samples` at the pace of speech, ask for the answer, and wait for all of it.

        Args:
            samples: Mono, 16 kHz.
            chunk_ms: Length of one message, in milliseconds.
            end_of_speech: Index of the last voiced sample. The chunk that holds it is the
                last one sent; without it all of `samples` is sent, and its end counts as the
                end of speech.

        Raises:
            ClientError: The connection was lost.
            ProtocolError: The server's answer is not of this dialect.
        """
        turn = _Turn(self._clock, stream=self._stream)
        end = len(samples) if end_of_speech is None else end_of_speech + 1
        try:
            await self._stream_out(turn, samples, chunk_ms, end)
            turn.mark(Mark.END_STREAM_SENT)  # before: the server may read it while send returns
            await self._socket.send("end_stream")
        except ConnectionClosed as error:
            raise self._lost() from error
        while not turn.take(await self._next(self._messages)):
            pass
        if not turn.shares_clock():
            turn.estimate_offset(min([await self.ping() for _ in range(_PINGS)]))
        return turn.finish()

    async def ping(self) -> float:
        """Send `ping`, wait for `pong`; gives the round trip in seconds.

        Raises:
            ClientError: The connection was lost.
        """
        sent = self._clock()
        try:
            await self._socket.send("ping")
        except ConnectionClosed as error:
            raise self._lost() from error
        return ((await self._next(self._pongs)).at_ns - sent) / 1e9

    async def _stream_out(self, turn: _Turn, samples: Float32, chunk_ms: float, end: int) -> None:
        """Send each chunk when its last sample has been spoken."""
        size = round(chunk_ms * SAMPLE_RATE / 1000)
        start = self._clock()
        turn.mark(Mark.STREAM_STARTED, start)
        turn.mark(Mark.END_OF_SPEECH, start + round(end * 1e9 / SAMPLE_RATE))
        spoken = 0
        for chunk in chunks(_up_to_chunk_of(samples, end, size), size):
            spoken += len(chunk)
            await self._sleep_until(start + round(spoken * 1e9 / SAMPLE_RATE))
            payload = encode_s16le(chunk)
            await self._socket.send(payload)
            turn.result.messages_sent += 1
            turn.result.bytes_sent += len(payload)
        turn.mark(Mark.LAST_CHUNK_SENT)

    async def _sleep_until(self, at_ns: int) -> None:
        await asyncio.sleep(max(0, at_ns - self._clock()) / 1e9)

    async def _receive(self) -> None:
        """Note when each message came; pongs go to whoever pinged, the rest to the turn."""
        try:
            async for message in self._socket:
                inbox = self._pongs if message == plain.PONG else self._messages
                inbox.put_nowait(_Received(message, self._clock()))
        except ConnectionClosed:
            pass  # whoever waits learns of it from the end marks below
        finally:
            self._messages.put_nowait(None)
            self._pongs.put_nowait(None)

    async def _next(self, inbox: asyncio.Queue[_Received | None]) -> _Received:
        received = await inbox.get()
        if received is None:
            inbox.put_nowait(None)
            raise self._lost()
        return received

    def _lost(self) -> ClientError:
        code, reason = self._socket.close_code, self._socket.close_reason or "no reason given"
        return ClientError(f"the server closed the connection: code {code}, {reason}")


def dialling(
    url: str, headers: Mapping[str, str] | None, tls: ssl.SSLContext | None
) -> dict[str, Any]:
    """How `websockets` is to connect to `url`, whatever the dialect.

    Raises:
        ValueError: `url` is no address.
    """
    return {
        "additional_headers": headers,
        "compression": None,
        "logger": wire_log,
        "proxy": proxy_for(url),
        **({} if tls is None else {"ssl": tls}),
    }


def refusal_in(error: InvalidStatus) -> str:
    """What a server said when it refused a handshake."""
    body = (error.response.body or b"").decode(errors="replace").strip()
    return f"HTTP {error.response.status_code}: {body[:_REASON]}"


def untrusted(url: str, error: ssl.SSLCertVerificationError) -> str:
    """That a certificate is not trusted, and how to trust it."""
    return (
        f"the certificate of {url} is not trusted: {error.verify_message}. If it is your own, "
        "give its file: labkit talk --ca FILE, or labkit.net.tls.client_tls(FILE)"
    )


def proxy_for(url: str) -> Literal[True] | None:
    """Whether to look for a proxy: never for this machine, whatever its environment says."""
    return None if is_loopback(urlsplit(url).hostname or "") else True


def _up_to_chunk_of(samples: Float32, end: int, size: int) -> Float32:
    """`samples` up to the end of the chunk that holds the last sample before `end`."""
    return samples[: -(-end // size) * size]
