"""A client of the plain dialect that speaks at the pace of speech, and notes the times.

It behaves like a microphone with a fixed block size: a chunk goes out once its last sample has
been spoken, never before, so what it measures is what a person would wait.
"""

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Self

import numpy as np
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from labkit.audio.formats import WIRE
from labkit.audio.pcm import SAMPLE_RATE, Float32, decode_s16le, encode_s16le, leading_silence
from labkit.client.answers import Deadlines, TurnSoFar, count_refused, read
from labkit.client.dial import connected, why_closed
from labkit.client.speech import Clock, chunk_samples, speak, spoken_ns
from labkit.errors import ClientError, ErrorCode, ProtocolError
from labkit.protocol import plain
from labkit.trace import Mark, Trace

__all__ = ["ClientTurn", "UnknownError", "VoiceClient"]

_PINGS: Final = 5
"""Round trips to estimate a clock's offset from; the fastest is the least disturbed."""
_FULL_PIECE: Final = plain.LONGEST_REPLY * WIRE.frame_bytes
"""Bytes of a binary message of a whole reply that another one follows."""


class UnknownError(plain.Error):
    """An error of a code that this client does not know."""

    code: str  # type: ignore[assignment] # wider on purpose
    """The code, as it came."""


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

    @property
    def refused(self) -> Counter[str]:
        """Messages that the server refused, by code; one error may speak of many."""
        return count_refused(self.errors)


@dataclass(frozen=True, slots=True)
class _Received:
    """A message of the server, and when it came in."""

    message: str | bytes
    at_ns: int


class _Turn:
    """A turn while it happens: takes messages and marks, and knows when it is complete."""

    def __init__(self, clock: Clock, *, stream: bool) -> None:
        self.result = ClientTurn()
        self.so_far = TurnSoFar()
        self._clock = clock
        self._stream = stream
        self._pieces: list[Float32] = []
        self._silence_s = 0.0
        self._server_marks: dict[Mark, int] = {}

    def mark(self, mark: Mark, at_ns: int | None = None) -> None:
        self.result.trace.mark(mark, self._clock.now_ns() if at_ns is None else at_ns)

    @property
    def progress(self) -> tuple[bool, float]:
        """Grows whenever the answer goes on; refusals and chatter are no progress."""
        return "transcript" in self.so_far.came, self.so_far.reply_s

    def take(self, received: _Received) -> bool:
        """Take one message of the server; True once the turn is complete."""
        if isinstance(received.message, bytes):
            self._take_audio(received.message, received.at_ns)
            # A piece of the full length says that another one follows, which may be empty.
            complete = not self._stream and len(received.message) != _FULL_PIECE
        else:
            complete = self._take_json(received.message, received.at_ns)
        if complete:
            self.mark(Mark.REPLY_RECEIVED, received.at_ns)
        return complete

    def _take_json(self, text: str, at_ns: int) -> bool:
        message = read(text, plain.decode_server, plain.ServerMessage, UnknownError)
        self.so_far.note(message)
        match message:
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
        if len(pcm) % 2:
            raise ProtocolError(
                ErrorCode.ODD_LENGTH,
                f"the server sent a binary message of {len(pcm)} bytes, which is no whole number "
                "of 16-bit samples",
                "check that the address is a labkit server",
            )
        samples = decode_s16le(pcm)
        if len(samples):
            self.mark(Mark.FIRST_AUDIO_RECEIVED, at_ns)
            self._look_for_sound(samples)
        self._pieces.append(samples)
        self.so_far.reply_s += len(samples) / SAMPLE_RATE

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
        deadlines: Deadlines | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Speak over `socket`; use `connect` instead of calling this."""
        self._socket = socket
        self._stream = stream
        self._deadlines = deadlines or Deadlines()
        self._clock = clock or Clock()
        self._messages: asyncio.Queue[_Received | None] = asyncio.Queue()
        self._pongs: asyncio.Queue[_Received | None] = asyncio.Queue()
        self._end = ""

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        url: str,
        *,
        stream: bool = True,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        deadlines: Deadlines | None = None,
        clock: Clock | None = None,
    ) -> AsyncIterator[Self]:
        """Connect to `url`, such as ``ws://localhost:8765``.

        Args:
            url: The server's address; what its query asks for beside the reply stays.
            stream: Ask for the reply as it is synthesised.
            headers: Further headers of the handshake, such as those of `labkit.net.tokens.bearer`.
            tls: Whom to trust under ``wss://``, such as `labkit.net.tls.client_tls` gives; without
                it, whom this machine trusts.
            deadlines: How long to wait for what.
            clock: What the pace of speech goes by, and times are taken from.

        Raises:
            ClientError: `url` is no address, or nobody answers there, not as a WebSocket, or with
                a refusal.
        """
        deadlines = deadlines or Deadlines()
        # No keepalive: a server that reads no faster than it works does not see pings in time.
        # Every wait has a deadline of its own instead.
        connecting = connected(
            url,
            query={"reply": "stream"} if stream else None,
            headers=headers,
            tls=tls,
            within_s=deadlines.connect_s,
        )
        streamed = stream or plain.wants_stream(url)  # an address may ask for it by itself
        async with connecting as socket:
            client = cls(socket, stream=streamed, deadlines=deadlines, clock=clock)
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
            ClientError: The connection was lost, or the next sign of the answer did not come in
                time; says what came until then.
            ProtocolError: The server's answer is not of this dialect.
        """
        turn = _Turn(self._clock, stream=self._stream)
        end = len(samples) if end_of_speech is None else end_of_speech + 1
        await self._speak(turn, samples, chunk_ms, end)
        turn.mark(Mark.END_STREAM_SENT)  # before: the server may read it while send returns
        await self._send("end_stream", turn.so_far)
        turn.so_far.asked = "end_stream"
        await self._take_answer(turn)
        if not turn.shares_clock():
            turn.estimate_offset(min([await self.ping() for _ in range(_PINGS)]))
        return turn.finish()

    async def ping(self) -> float:
        """Send `ping`, wait for `pong`; gives the round trip in seconds.

        Raises:
            ClientError: The connection was lost, or no `pong` came in time.
        """
        so_far = TurnSoFar(asked="ping")
        sent_ns = self._clock.now_ns()
        await self._send("ping", so_far)
        try:
            async with asyncio.timeout(self._deadlines.answer_s):
                pong = await self._next(self._pongs, so_far)
        except TimeoutError:
            raise so_far.missing("no pong came", self._deadlines.answer_s) from None
        return (pong.at_ns - sent_ns) / 1e9

    async def _speak(self, turn: _Turn, samples: Float32, chunk_ms: float, end: int) -> None:
        """Send each chunk when its last sample has been spoken, up to the one that holds `end`."""
        start_ns = self._clock.now_ns()
        turn.mark(Mark.STREAM_STARTED, start_ns)
        turn.mark(Mark.END_OF_SPEECH, start_ns + spoken_ns(end))

        async def send(chunk: Float32) -> None:
            payload = encode_s16le(chunk)
            await self._send(payload, turn.so_far)
            turn.so_far.said_s += len(chunk) / SAMPLE_RATE
            turn.result.messages_sent += 1
            turn.result.bytes_sent += len(payload)

        size = chunk_samples(chunk_ms)
        said = samples[: -(-end // size) * size]
        await speak(said, send, chunk_ms=chunk_ms, clock=self._clock, start_ns=start_ns)
        turn.mark(Mark.LAST_CHUNK_SENT)

    async def _send(self, message: str | bytes, so_far: TurnSoFar) -> None:
        """Send a message, unless the server reads nothing for too long."""
        within_s = self._deadlines.answer_s
        try:
            async with asyncio.timeout(within_s):
                await self._socket.send(message)
        except TimeoutError:
            raise so_far.missing("the server read no more", within_s) from None
        except ConnectionClosed as closed:
            raise ClientError(f"{why_closed(closed)}; {so_far.sent()}") from closed

    async def _receive(self) -> None:
        """Note when each message came; pongs go to whoever pinged, the rest to the turn."""
        try:
            while True:
                message = await self._socket.recv()
                inbox = self._pongs if message == plain.PONG else self._messages
                inbox.put_nowait(_Received(message, self._clock.now_ns()))
        except ConnectionClosed as closed:
            self._end = why_closed(closed)  # whoever waits learns of it from the end marks below
        finally:
            self._messages.put_nowait(None)
            self._pongs.put_nowait(None)

    async def _take_answer(self, turn: _Turn) -> None:
        """Wait for all of the answer; each sign that it goes on has the whole deadline."""
        within_s = self._deadlines.answer_s
        try:
            async with asyncio.timeout(within_s) as deadline:
                complete = False
                while not complete:
                    before = turn.progress
                    complete = turn.take(await self._next(self._messages, turn.so_far))
                    if turn.progress != before:
                        deadline.reschedule(asyncio.get_running_loop().time() + within_s)
        except TimeoutError:
            raise turn.so_far.missing_answer("transcript", within_s) from None

    async def _next(self, inbox: asyncio.Queue[_Received | None], so_far: TurnSoFar) -> _Received:
        """The next message, however long it takes."""
        received = await inbox.get()
        if received is None:
            inbox.put_nowait(None)
            raise ClientError(f"{self._end}; {so_far.sent()}; {so_far.received()}")
        return received
