"""A client of the plain dialect, for labkit's servers and for those of others.

It speaks at the pace of speech, notes when everything happened, and takes what a server answers
for as long as it can be understood. What is odd about an answer becomes a remark of the turn.
"""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final, Self, Unpack

import numpy as np
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from labkit.audio.pcm import SAMPLE_RATE, Float32, encode_s16le
from labkit.client.answers import Deadlines, Patience, TurnSoFar, send_within
from labkit.client.dial import Reach, connected, why_closed
from labkit.client.speech import Clock, chunk_samples, speak, spoken_ns
from labkit.client.turn import ClientTurn, RunningTurn
from labkit.errors import ClientError
from labkit.protocol import plain
from labkit.tasks import stop
from labkit.trace import Mark

_PINGS: Final = 5
"""Round trips to estimate a clock's offset from; the fastest is the least disturbed."""
_PING_S: Final = 2.0
"""Longest wait for one of them."""
_MOST_REPLY_BYTES: Final = 4 * 1024 * 1024
"""A server that does not stream sends a reply in one message: two minutes of it are taken."""
_QUIET_S: Final = 0.5
"""Twice so long a server that answers message by message is silent once it has answered."""


class VoiceClient:
    """A connection to a server that speaks the plain dialect.

    One turn at a time; `ping` may be called meanwhile.

    Attributes:
        stream: Replies are expected as they are made, with `done` behind them. It turns False
            once the server has shown that it does not offer that.
    """

    def __init__(
        self, socket: ClientConnection, *, stream: bool, deadlines: Deadlines, clock: Clock
    ) -> None:
        """Speak over `socket`; use `connect` instead of calling this."""
        self.stream = stream
        self._socket = socket
        self._deadlines = deadlines
        self._clock = clock
        self._turn = RunningTurn(clock, stream=stream)
        self._news = asyncio.Event()
        self._pongs: deque[asyncio.Future[int | None] | None] = deque()
        self._end = ""
        self._receiving = asyncio.create_task(self._receive())

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        url: str,
        *,
        stream: bool = True,
        deadlines: Deadlines | None = None,
        clock: Clock | None = None,
        **reach: Unpack[Reach],
    ) -> AsyncIterator[Self]:
        """Connect to `url`, such as ``ws://localhost:8765``.

        Args:
            url: The server's address; what its query asks for beside the reply stays.
            stream: Ask for the reply as it is synthesised. A server that does not offer that
                answers as it can.
            deadlines: How long to wait for what.
            clock: What the pace of speech goes by, and times are taken from.
            reach: Headers, certificates and such, as `labkit.client.dial.Reach` has them.

        Raises:
            ClientError: `url` is no address, or nobody answers there, not as a WebSocket, or with
                a refusal.
        """
        deadlines = deadlines or Deadlines()
        # No keepalive: a server that reads no faster than it works does not see pings in time.
        # Every wait has a deadline of its own instead.
        query = {"reply": "stream"} if stream else None
        connecting = connected(
            url, query=query, within_s=deadlines.connect_s, max_size=_MOST_REPLY_BYTES, **reach
        )
        streamed = stream or plain.wants_stream(url)  # an address may ask for it by itself
        async with connecting as socket:
            client = cls(socket, stream=streamed, deadlines=deadlines, clock=clock or Clock())
            try:
                yield client
            finally:
                await stop(client._receiving)

    @property
    def compresses(self) -> bool:
        """Whether client and server agreed to compress messages."""
        return bool(self._socket.protocol.extensions)

    @property
    def closed_with(self) -> int | None:
        """The close code, 1006 where the connection broke off; None while it is open."""
        return self._socket.close_code

    async def say(
        self,
        samples: Float32,
        *,
        chunk_ms: float = 40.0,
        end_of_speech: int | None = None,
        silence_s: float = 0.0,
        pace: float = 1.0,
        start_ns: int | None = None,
    ) -> ClientTurn:
        """Speak `samples` at the pace of speech, ask for the answer, and wait for all of it.

        Args:
            samples: Mono, 16 kHz.
            chunk_ms: Length of one message, in milliseconds.
            end_of_speech: Index of the last voiced sample, by annotation or by
                `labkit.audio.pcm.end_of_speech`. The chunk that holds it is the last one sent,
                filled with silence where the recording is over. Without it all of `samples` is
                sent, and its end counts as the end of speech.
            silence_s: Go on for so long behind the end of speech before asking, as a client does
                that finds the end by itself.
            pace: Times real time; 0 sends at once.
            start_ns: When the first sample is spoken, by the client's clock; by default now.

        Raises:
            ClientError: The connection was lost, or the rest of the answer did not come in time;
                says what came until then. Or an earlier turn is under way, or was given up: its
                answer would be taken for that of this one.
            ProtocolError: The server's answer is not of this dialect.
            ValueError: `chunk_ms` is no length of a chunk, or `pace` is below 0.
        """
        turn = self._coming()
        if self._end:
            raise self._gone(turn.so_far)
        if turn.begun:  # and not settled
            raise ClientError(
                "an earlier turn of this connection has not ended, and its answer may still come: "
                "one turn at a time, and a new connection after one that was given up"
            )
        turn.begun = True
        try:
            said, end = _up_to(samples, end_of_speech, silence_s, chunk_samples(chunk_ms))
            start_ns = self._clock.now_ns() if start_ns is None else start_ns
            turn.mark(Mark.STREAM_STARTED, start_ns)
            turn.mark(Mark.END_OF_SPEECH, start_ns + (spoken_ns(end, pace) if pace else 0))
            await self._speak(turn, said, chunk_ms, pace, start_ns)
            await self._ask(turn)
            await self._wait_for_answer(turn)
        except BaseException:
            turn.break_off()
            raise
        if not turn.shares_clock():
            turn.estimate_offset(await self._round_trip())
        return turn.finish()

    async def ping(self, within_s: float = math.inf) -> float:
        """Send `ping`, wait for `pong`; gives the round trip in seconds.

        Args:
            within_s: Longest wait, where that is less than an answer may take.

        Raises:
            ClientError: The connection was lost, or no `pong` came in time.
        """
        within_s, so_far = min(within_s, self._deadlines.answer_s), TurnSoFar(asked="ping")
        if self._end:
            raise self._gone(so_far)
        pong: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._pongs.append(pong)
        sent_ns = self._clock.now_ns()
        await self._send("ping", so_far)
        try:
            async with asyncio.timeout(within_s):
                answered_ns = await pong
        except TimeoutError:
            raise so_far.missing("no pong came", within_s) from None
        if answered_ns is None:
            raise self._gone(so_far)
        return (answered_ns - sent_ns) / 1e9

    async def _round_trip(self) -> float:
        """The fastest of several pings, in seconds; 0 where the server answers none."""
        trips = [0.0]
        with suppress(ClientError):
            trips = [await self.ping(_PING_S)]
            trips += [await self.ping() for _ in range(_PINGS - 1)]
        return min(trips)

    # -- what goes out ------------------------------------------------------------------------

    async def _speak(
        self, turn: RunningTurn, said: Float32, chunk_ms: float, pace: float, start_ns: int
    ) -> None:
        async def send(chunk: Float32) -> None:
            payload = encode_s16le(chunk)
            turn.result.messages_sent += 1
            turn.result.bytes_sent += len(payload)
            await self._send(payload, turn.so_far)
            turn.so_far.said_s += len(chunk) / SAMPLE_RATE

        await speak(said, send, chunk_ms=chunk_ms, pace=pace, clock=self._clock, start_ns=start_ns)
        turn.mark(Mark.LAST_CHUNK_SENT)

    async def _ask(self, turn: RunningTurn) -> None:
        turn.mark(Mark.END_STREAM_SENT)  # before: the server may read it while send returns
        await self._send("end_stream", turn.so_far)
        turn.so_far.asked = "end_stream"
        if self.stream:
            # Whoever answers one message after the other shows by its pong that the reply is over,
            # be there a `done` or not. Others answer at once, which says nothing.
            self._pongs.append(None)
            await self._send("ping", turn.so_far)

    async def _send(self, message: str | bytes, so_far: TurnSoFar) -> None:
        try:
            await send_within(self._socket, message, so_far, self._deadlines.answer_s)
        except ConnectionClosed as closed:
            await asyncio.wait([self._receiving])  # what came before is told, too
            raise self._gone(so_far) from closed

    # -- what comes in ------------------------------------------------------------------------

    def _coming(self) -> RunningTurn:
        """The turn to which belongs what comes: one under way, or the next."""
        if self._turn.settled:
            self._turn = RunningTurn(self._clock, stream=self.stream)
        return self._turn

    async def _receive(self) -> None:
        """Note when each message came; pongs go to whoever pinged, the rest to the turn."""
        try:
            while True:
                self._take(await self._socket.recv(), self._clock.now_ns())
        except ConnectionClosed as closed:
            self._end = why_closed(closed)
        finally:
            self._end = self._end or "the connection is closed"
            self._news.set()
            for pong in self._pongs:
                if pong is not None and not pong.done():
                    pong.set_result(None)  # no exception: whoever pinged may wait no longer

    def _take(self, message: str | bytes, at_ns: int) -> None:
        pong = self._pongs.popleft() if message == plain.PONG and self._pongs else None
        if pong is None:
            self._coming().take(message, at_ns)
            self._news.set()
        elif not pong.done():
            pong.set_result(at_ns)

    async def _wait_for_answer(self, turn: RunningTurn) -> None:
        """Wait for all of the answer; refusals and chatter are no steps of it."""
        loop, so_far, silences, reply_s = asyncio.get_running_loop(), turn.so_far, 0, 0.0
        patience = Patience(self._deadlines.answer_s, loop.time())
        while not self._is_answered(turn):
            if so_far.heard is not None:
                patience.step("transcript", loop.time())
            if so_far.reply_s > reply_s:
                patience.hear(so_far.reply_s - reply_s, loop.time())
                reply_s = so_far.reply_s
            due, quiet = patience.due_s, turn.in_turn and turn.looks_whole
            if await self._news_until(min(due, loop.time() + _QUIET_S) if quiet else due):
                silences = 0
                continue
            silences += 1
            # Where it was this process that stood still, `done` may have come and not been read
            # yet, as timers go first: the second wait is one for the server.
            if quiet and silences == 1 and loop.time() < due:
                continue
            if not turn.looks_whole or (patience.is_behind and loop.time() >= due):
                raise so_far.missing_answer(patience)
            why = "the server sent no 'done' behind the reply"
            self.stream = turn.settle_without_done(why)

    def _is_answered(self, turn: RunningTurn) -> bool:
        """Whether the turn is complete; an error where it never will be."""
        if turn.failure is not None:
            raise turn.failure
        if self._end and not turn.settled:
            if not turn.looks_whole:
                raise self._gone(turn.so_far)
            why = f"no 'done' came behind the reply, but {self._end}"
            self.stream = turn.settle_without_done(why)
        return turn.settled

    async def _news_until(self, until_s: float) -> bool:
        """Wait until something comes; False where the loop's time is `until_s` before it does."""
        self._news.clear()
        try:
            async with asyncio.timeout_at(until_s):
                return await self._news.wait()
        except TimeoutError:
            return False

    def _gone(self, so_far: TurnSoFar) -> ClientError:
        """The error that says how the connection ended, and what had come until then."""
        came = self._coming().so_far.received()
        return ClientError(f"{self._end}; {so_far.sent()}; {came}")


def _up_to(
    samples: Float32, end_of_speech: int | None, silence_s: float, chunk: int
) -> tuple[Float32, int]:
    """What is said, and how many samples of it there are up to the end of speech.

    A microphone fills the chunk in which the speech ends, too.
    """
    if end_of_speech is None:
        return samples, len(samples)
    end = end_of_speech + 1
    filled = -(-(end + round(silence_s * SAMPLE_RATE)) // chunk) * chunk
    return np.pad(samples[:filled], (0, max(0, filled - len(samples)))), end
