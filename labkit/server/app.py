"""From sockets to sessions: admission, serving, and an orderly shutdown."""

import asyncio
import logging
import secrets
import signal
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self
from weakref import WeakSet

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State

from labkit.errors import CloseCode, ServerError
from labkit.protocol import plain
from labkit.server.connection import PlainConnection
from labkit.server.http import Pages
from labkit.server.metrics import Metrics
from labkit.server.outbox import SlowReaderError
from labkit.server.session import Session
from labkit.server.settings import ServerSettings
from labkit.voice.pipeline import Pipeline

__all__ = ["VoiceServer", "serve_until_signal"]

_log = logging.getLogger(__name__)

_HANG_UP_S: Final = 1.0
"""Longest that closing one connection in order may take."""


class VoiceServer:
    """A voice server over one pipeline. Use as an async context manager, or `start` and `close`.

    The pipeline is loaded and warm when it comes here, so a server that accepts is ready.
    """

    def __init__(self, pipeline: Pipeline, settings: ServerSettings | None = None) -> None:
        """Serve `pipeline` as `settings` say."""
        self.settings = settings or ServerSettings()
        self.metrics = Metrics()
        self._pipeline = pipeline
        self._pages = Pages(ready=lambda: not self._closing, metrics=self._metrics_page)
        self._connections: dict[str, PlainConnection] = {}
        self._sockets: WeakSet[ServerConnection] = WeakSet()
        self._server: Server | None = None
        self._closing = False

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        await self.close()

    async def start(self) -> None:
        """Bind and accept callers.

        Raises:
            ServerError: The address cannot be bound.
        """
        host, port = self.settings.host, self.settings.port
        try:
            self._server = await serve(
                self._handle,
                host,
                port,
                process_request=self._process_request,
                compression=None,  # deflate costs CPU and latency, and PCM hardly shrinks
                max_size=self.settings.max_read_bytes,
                ping_interval=self.settings.ping_interval_s,
                close_timeout=_HANG_UP_S,
                server_header=None,
                create_connection=_tracked_in(self._sockets),
            )
        except OSError as error:
            raise ServerError(
                f"cannot listen on {host}:{port}: {error.strerror or error}. "
                "Choose another port with --port, or 0 for a free one"
            ) from error

    @property
    def port(self) -> int:
        """The port that it listens on.

        Raises:
            ServerError: It was not started.
        """
        if self._server is None:
            raise ServerError("the server was not started")
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """The address for clients."""
        host = self.settings.host
        return f"ws://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def sessions(self) -> int:
        """Callers at this moment."""
        return len(self._connections)

    async def close(self) -> None:
        """Shut down in order: stop accepting, let turns finish, close, reap, stop the engines."""
        if self._server is None or self._closing:
            return
        # 1. Stop accepting: new connections are refused, open ones stay.
        self._closing = True
        self._server.close(close_connections=False)
        # 2. Let turns finish, for a bounded time.
        await self._finish_turns()
        # 3. Tell the clients and close their connections.
        await self._close_sockets()
        # 4. Reap: every handler has returned.
        await self._server.wait_closed()
        # 5. Stop the engines' queues.
        self._pipeline.close()
        _log.info("closed")

    async def _finish_turns(self) -> None:
        draining = [
            asyncio.create_task(connection.drain()) for connection in self._connections.values()
        ]
        if not draining:
            return
        _log.info("closing: %d callers, turns get %g s", len(draining), self.settings.grace_s)
        _, late = await asyncio.wait(draining, timeout=self.settings.grace_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*draining, return_exceptions=True)

    async def _close_sockets(self) -> None:
        reason = "the server is shutting down"
        closing = [_hang_up(socket, CloseCode.GOING_AWAY, reason) for socket in self._sockets]
        await asyncio.gather(*closing)

    def _process_request(self, _: ServerConnection, request: Request) -> Response | None:
        return self._pages.answer(request)

    def _metrics_page(self) -> bytes:
        self.metrics.sessions.set(self.sessions)
        for engine, waiting in self._pipeline.queued().items():
            self.metrics.queued.labels(engine=engine).set(waiting)
        return self.metrics.page()

    async def _handle(self, socket: ServerConnection) -> None:
        if self.sessions >= self.settings.max_sessions:
            reason = f"all {self.settings.max_sessions} places are taken"
            await socket.close(CloseCode.TRY_AGAIN_LATER, reason)
            return
        session = Session(secrets.token_hex(4), self._pipeline, self.settings)
        path = socket.request.path if socket.request else "/"
        connection = PlainConnection(
            socket, session, self.settings, self.metrics, stream=plain.wants_stream(path)
        )
        self._connections[session.id] = connection
        _log.info("session %s: connected", session.id)
        try:
            await self._serve_one(socket, connection, session.id)
        finally:
            del self._connections[session.id]
            _log.info("session %s: gone", session.id)

    async def _serve_one(
        self, socket: ServerConnection, connection: PlainConnection, session_id: str
    ) -> None:
        try:
            await connection.run()
        except* SlowReaderError as group:
            _log.warning("session %s: %s", session_id, group.exceptions[0])
            await _hang_up(socket, CloseCode.SLOW_READER, "replies were not read in time")
        except* ConnectionClosed as group:
            _log.info("session %s: %s", session_id, group.exceptions[0])


def _tracked_in(sockets: WeakSet[ServerConnection]) -> type[ServerConnection]:
    """Connections that are in `sockets` from their first byte, before any handshake.

    One that never ends its handshake would hold up the shutdown for as long as a handshake may
    take.
    """

    class Tracked(ServerConnection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            sockets.add(self)

    return Tracked


async def _hang_up(socket: ServerConnection, code: CloseCode, reason: str) -> None:
    """Close a connection in order if that can be done in time, else cut it.

    The closing handshake waits until the client has read what was sent before, and a client
    that does not read never does; one that has not ended its opening handshake has none.
    """
    try:
        async with asyncio.timeout(_HANG_UP_S):
            if socket.state is State.OPEN:
                await socket.close(code, reason)
    except TimeoutError:
        _log.info("cutting %s: not closed within %g s", socket.remote_address, _HANG_UP_S)
    if socket.state is not State.CLOSED:
        socket.transport.abort()


async def serve_until_signal(
    pipeline: Pipeline,
    settings: ServerSettings,
    on_ready: Callable[[VoiceServer], None],
) -> None:
    """Serve until SIGINT or SIGTERM, then shut down in order.

    Args:
        pipeline: Loaded and warm.
        settings: Where to listen and what to allow.
        on_ready: Called once callers are accepted.

    Raises:
        ServerError: The address cannot be bound.
    """
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked.set)
    async with VoiceServer(pipeline, settings) as server:
        on_ready(server)
        await asked.wait()
