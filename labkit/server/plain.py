"""One WebSocket that speaks the plain dialect, over a session that knows nothing of it."""

import asyncio
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from labkit.audio.formats import WIRE
from labkit.audio.pcm import Float32, chunks, decode_s16le, encode_s16le, to_int16
from labkit.errors import ProtocolError
from labkit.protocol import plain
from labkit.server.connection import Closing, Ending, Socket, first_of
from labkit.server.limits import MessagePace
from labkit.server.metrics import Metrics
from labkit.server.outbox import Outbox
from labkit.server.session import EndedUtterance, Session
from labkit.server.turns import Turns
from labkit.server.watch import Watch
from labkit.session.settings import ServerSettings
from labkit.voice.history import Exchange

__all__ = ["PlainConnection"]


class _Reply:
    """Sends a turn's results: at once where streaming was asked for, else in one message."""

    PIECE = WIRE.samples(0.2)
    """Samples per message of a streamed reply, so that a `pong` never waits for long."""

    def __init__(self, outbox: Outbox, metrics: Metrics, *, stream: bool) -> None:
        self._outbox = outbox
        self._metrics = metrics
        self._stream = stream
        self._kept: list[Float32] = []
        self._samples = 0

    async def transcript(self, text: str) -> None:
        await self._outbox.put(plain.Transcript(text=text).encode())

    async def text(self, sentence: str) -> None:
        """The plain dialect tells the reply's text at the end, in `done`."""

    async def audio(self, samples: Float32) -> None:
        self._samples += len(samples)
        if not self._stream:
            self._kept.append(samples)
            return
        for piece in chunks(samples, self.PIECE):
            await self._outbox.put(encode_s16le(piece))

    async def finish(self, ended: EndedUtterance, exchange: Exchange) -> None:
        self._metrics.observe_turn(ended.trace)
        await self._close(
            plain.Done(
                reply_text=exchange.assistant,
                reply_samples=self._samples,
                marks={mark.value: at for mark, at in ended.trace.marks.items()},
                listening_cpu_ms=ended.listening_cpu_ms,
            )
        )

    async def fail(self, error: ProtocolError) -> None:
        self._metrics.refusals.labels(code=error.code.value).inc()
        await self._outbox.put_urgent(plain.Error.of(error).encode())
        await self.cancelled()

    async def cancelled(self) -> None:
        await self._close(plain.Done(reply_text="", reply_samples=self._samples))

    async def _close(self, done: plain.Done) -> None:
        """Close the reply: `done` behind a stream, or the whole reply in one message."""
        if self._stream:
            await self._outbox.put(done.encode())
        else:
            whole = np.concatenate(self._kept) if self._kept else np.zeros(0, np.float32)
            await self._outbox.put(encode_s16le(whole))


class PlainConnection:
    """Reads commands, runs turns one after the other, and writes through one outbox."""

    def __init__(
        self,
        socket: Socket,
        session: Session,
        settings: ServerSettings,
        metrics: Metrics,
        *,
        stream: bool,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        """Serve `session` over `socket`; `stream` sends replies as they are synthesised."""
        self._socket = socket
        self._session = session
        self._settings = settings
        self._metrics = metrics
        self._outbox = Outbox(
            socket.send, max_bytes=settings.outbox_bytes, timeout_s=settings.send_timeout_s
        )
        # Without a way back to this object, which is gone as soon as nobody needs it then.
        open_reply = partial(_Reply, self._outbox, metrics, stream=stream)
        self._turns = Turns(session, settings, lambda _: open_reply())
        self._watch = Watch(WIRE, settings.watch_s, clock)
        self._clock = clock
        self._message_pace = MessagePace(settings, clock())
        self._ending = Ending()
        self._gone = asyncio.Event()

    async def run(self) -> None:
        """Serve until the client is gone.

        Raises:
            Closing: The connection is to be ended.
        """
        try:
            async with asyncio.TaskGroup() as group:
                workers = [
                    group.create_task(work())
                    for work in (self._ending.wait, self._outbox.run, self._turns.run)
                ]
                await self._read()
                for worker in workers:
                    worker.cancel()
        finally:
            self._gone.set()

    async def drain(self) -> None:
        """Wait until every turn is answered and every reply written, or the client is gone."""
        await first_of(self._answered, self._gone.wait)

    def held_bytes(self) -> int:
        """Bytes of audio and messages that it holds."""
        return self._turns.held_bytes() + self._outbox.waiting_bytes

    def overdue(self, now_ns: int) -> Closing | None:
        """See `Connection.overdue`; who waits for a reply is not idle."""
        if self._turns.busy or self._outbox.waiting_bytes:
            self._session.activity.wake(now_ns)
        return self._session.activity.overdue(now_ns, self._settings)

    def behind_s(self, now_ns: int) -> float:
        """See `Connection.behind_s`."""
        return self._turns.behind_s(now_ns)

    def end(self, why: Closing) -> None:
        """See `Connection.end`."""
        self._ending.ask(why)

    def farewell(self, _: Closing) -> None:
        """The plain dialect has no last message: the close frame gives the reason."""

    async def _answered(self) -> None:
        await self._turns.all_answered()
        await self._outbox.flushed()

    async def _read(self) -> None:
        async for message in self._socket:
            if isinstance(message, str):
                self._message_pace.take(self._clock())
            self._session.touch(audio=isinstance(message, bytes))
            try:
                await self._obey(message)
            except ProtocolError as error:
                await self._refuse(error)

    async def _obey(self, message: str | bytes) -> None:
        limit = self._settings.max_message_bytes
        match plain.decode_client(message, max_bytes=limit):
            case plain.Audio(pcm):
                for mismatch in self._watch.look(pcm):
                    await self._refuse(mismatch)
                self._turns.heard()
                self._session.hear(to_int16(decode_s16le(pcm)))
            case plain.EndStream():
                self._turns.end_utterance()
            case plain.Ping():
                await self._outbox.put_urgent(plain.PONG)

    async def _refuse(self, error: ProtocolError) -> None:
        self._metrics.refusals.labels(code=error.code.value).inc()
        await self._outbox.put_urgent(plain.Error.of(error).encode())
