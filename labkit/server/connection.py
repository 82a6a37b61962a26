"""One WebSocket that speaks the plain dialect, over a session that knows nothing of it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import numpy as np

from labkit.audio import Float32, chunks, encode_s16le
from labkit.errors import EngineError, ErrorCode, ProtocolError
from labkit.formats import WIRE
from labkit.protocol import plain
from labkit.server.metrics import Metrics
from labkit.server.outbox import Outbox
from labkit.server.session import EndedUtterance, Session
from labkit.server.settings import ServerSettings

__all__ = ["PlainConnection", "Socket"]

_log = logging.getLogger(__name__)


class Socket(Protocol):
    """What a connection needs of a WebSocket."""

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        """Messages of the client, until it is gone."""
        ...

    async def send(self, message: str | bytes) -> None:
        """Send one message; waits while the client does not read."""
        ...


class _ReplySink:
    """Sends a turn's results: at once where streaming was asked for, else in one message."""

    PIECE = WIRE.samples(0.2)
    """Samples per message of a streamed reply, so that a `pong` never waits for long."""

    def __init__(self, put: Callable[[str | bytes], Awaitable[None]], *, stream: bool) -> None:
        self._put = put
        self._stream = stream
        self._kept: list[Float32] = []
        self.samples = 0

    async def transcript(self, text: str) -> None:
        await self._put(plain.Transcript(text=text).encode())

    async def text(self, sentence: str) -> None:
        """The plain dialect tells the reply's text at the end, in `done`."""

    async def audio(self, samples: Float32) -> None:
        self.samples += len(samples)
        if not self._stream:
            self._kept.append(samples)
            return
        for piece in chunks(samples, self.PIECE):
            await self._put(encode_s16le(piece))

    async def finish(self, done: plain.Done) -> None:
        """Close the reply: `done` behind a stream, or the whole reply in one message."""
        if self._stream:
            await self._put(done.encode())
        else:
            whole = np.concatenate(self._kept) if self._kept else np.zeros(0, np.float32)
            await self._put(encode_s16le(whole))


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
    ) -> None:
        """Serve `session` over `socket`; `stream` sends replies as they are synthesised."""
        self._socket = socket
        self._session = session
        self._settings = settings
        self._metrics = metrics
        self._stream = stream
        self._outbox = Outbox(
            socket.send, max_bytes=settings.outbox_bytes, timeout_s=settings.send_timeout_s
        )
        self._turns: asyncio.Queue[EndedUtterance] = asyncio.Queue(settings.max_waiting_turns)
        self._heard = asyncio.Event()
        self._gone = asyncio.Event()

    async def run(self) -> None:
        """Serve until the client is gone.

        Raises:
            SlowReaderError: The client does not read its replies.
        """
        try:
            async with asyncio.TaskGroup() as group:
                workers = [
                    group.create_task(work())
                    for work in (self._outbox.run, self._take_turns, self._listen)
                ]
                await self._read()
                for worker in workers:
                    worker.cancel()
        finally:
            self._gone.set()

    async def drain(self) -> None:
        """Wait until every turn is answered and every reply written, or the client is gone."""
        waits = [asyncio.create_task(wait()) for wait in (self._answered, self._gone.wait)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _answered(self) -> None:
        await self._turns.join()
        await self._outbox.flushed()

    async def _read(self) -> None:
        async for message in self._socket:
            self._session.touch()
            try:
                await self._obey(message)
            except ProtocolError as error:
                await self._refuse(error)

    async def _obey(self, message: str | bytes) -> None:
        limit = self._settings.max_message_bytes
        match plain.decode_client(message, max_bytes=limit):
            case plain.Audio(pcm):
                self._heard.set()
                self._session.hear(pcm)
            case plain.EndStream():
                self._queue_turn()
            case plain.Ping():
                await self._outbox.put_urgent(plain.PONG)

    def _queue_turn(self) -> None:
        if self._turns.full():
            raise ProtocolError(
                ErrorCode.TOO_MANY_TURNS,
                f"{self._turns.qsize()} turns wait for their answer already",
                "wait for the answers before you send 'end_stream' again",
            )
        self._turns.put_nowait(self._session.end_utterance())

    async def _refuse(self, error: ProtocolError) -> None:
        self._metrics.refusals.labels(code=error.code.value).inc()
        await self._outbox.put_urgent(plain.Error.of(error).encode())

    async def _listen(self) -> None:
        """Work ahead while audio comes in; what piled up meanwhile is taken in one go."""
        while True:
            await self._heard.wait()
            self._heard.clear()
            try:
                await self._session.listen()
            except EngineError as error:
                _log.error("session %s: %s", self._session.id, error)

    async def _take_turns(self) -> None:
        while True:
            ended = await self._turns.get()
            try:
                await self._answer(ended)
            finally:
                self._turns.task_done()

    async def _answer(self, ended: EndedUtterance) -> None:
        sink = _ReplySink(self._outbox.put, stream=self._stream)
        try:
            exchange = await self._session.answer(ended, sink)
        except EngineError as error:
            _log.error("session %s: %s", self._session.id, error)
            await self._fail_turn(sink, error)
            return
        self._metrics.observe_turn(ended.trace)
        await sink.finish(
            plain.Done(
                reply_text=exchange.assistant,
                reply_samples=sink.samples,
                marks={mark.value: at for mark, at in ended.trace.marks.items()},
                listening_cpu_ms=ended.listening_cpu_ms,
            )
        )

    async def _fail_turn(self, sink: _ReplySink, error: EngineError) -> None:
        """Tell the client, and still close the reply: it may be waiting for that."""
        await self._refuse(
            ProtocolError(
                ErrorCode.ENGINE_FAILED,
                f"this turn could not be answered: {error}",
                "say it again; the server's log has the details",
            )
        )
        await sink.finish(plain.Done(reply_text="", reply_samples=sink.samples))
