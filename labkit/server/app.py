"""From sockets to sessions: admission, serving, and an orderly shutdown."""

import asyncio
import logging
import secrets
import signal
import ssl
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self, TypeVar

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from labkit.errors import CloseCode, ErrorCode, ServerError
from labkit.net import wire_log
from labkit.net.tls import server_tls
from labkit.protocol import plain, v1
from labkit.server.access import (
    require_safe,
    warnings_about,
)
from labkit.server.connection import Closing, Connection, forget_frames
from labkit.server.door import Door
from labkit.server.farewell import HANG_UP_S, hang_up
from labkit.server.http import Pages
from labkit.server.metrics import Metrics
from labkit.server.plain import PlainConnection
from labkit.server.session import Session
from labkit.server.sessions import Sessions
from labkit.server.store import State
from labkit.server.v1 import V1Connection
from labkit.session.settings import ServerSettings
from labkit.voice.pipeline import Pipeline

__all__ = ["VoiceServer", "require_startable", "serve_until_signal"]

_log = logging.getLogger(__name__)

E = TypeVar("E", bound=BaseException)

_TLS_HANDSHAKE_S: Final = 5.0
"""Longest that a caller may take until it speaks TLS: as long, it may hold up the shutdown."""


class VoiceServer:
    """A voice server over one pipeline. Use as an async context manager, or `start` and `close`.

    The pipeline is loaded and warm when it comes here, so a server that accepts is ready.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        settings: ServerSettings | None = None,
        *,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        """Serve `pipeline` as `settings` say; `clock` gives monotonic nanoseconds."""
        self.settings = settings or ServerSettings()
        self.metrics = Metrics()
        self._clock = clock
        self._pipeline = pipeline
        self._v1_sessions = Sessions(pipeline, self.settings, self.metrics, clock)
        pages = Pages(ready=lambda: not self._door.closed, metrics=self._metrics_page)
        self._door = Door(self.settings, pages, self.metrics)
        self._connections: dict[Connection, asyncio.Task[None]] = {}
        self._reaper: asyncio.Task[None] | None = None
        self._server: Server | None = None

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
            ServerError: The address cannot be bound, the settings would let in anybody by
                accident, or the certificate is not usable.
            TokenError: One of the tokens is none.
        """
        tls = require_startable(self.settings)
        for warning in warnings_about(self.settings):
            _log.warning("%s", warning)
        host, port = self.settings.host, self.settings.port
        try:
            self._server = await serve(
                self._handle,
                host,
                port,
                process_request=self._door.process_request,
                process_response=self._door.process_response,
                compression=None,  # deflate costs CPU and latency, and PCM hardly shrinks
                max_size=self.settings.max_read_bytes,
                open_timeout=self.settings.start_s,
                ping_interval=self.settings.ping_interval_s,
                ping_timeout=self.settings.ping_timeout_s,
                subprotocols=[Subprotocol(v1.SUBPROTOCOL)],
                select_subprotocol=_choose_dialect,
                close_timeout=HANG_UP_S,
                server_header=None,
                logger=wire_log,
                ssl=tls,
                ssl_handshake_timeout=None if tls is None else _TLS_HANDSHAKE_S,
                ssl_shutdown_timeout=None if tls is None else HANG_UP_S,
                create_connection=self._door.watched(),
            )
        except OSError as error:
            raise ServerError(
                f"cannot listen on {host}:{port}: {error.strerror or error}. "
                "Choose another port with --port, or 0 for a free one"
            ) from error
        self._reaper = asyncio.create_task(self._reap_for_ever(), name="reaper")

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
        host = self.settings.host or "localhost"
        scheme = "ws" if self.settings.tls_cert is None else "wss"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def sessions(self) -> int:
        """Sessions at this moment: callers, and those that wait for their caller."""
        return sum(self.states().values())

    def states(self) -> dict[State, int]:
        """Sessions by state; those of the plain dialect end with their connection."""
        states = self._v1_sessions.counts()
        plain_ones = sum(isinstance(one, PlainConnection) for one in self._connections)
        return {**states, State.ATTACHED: states[State.ATTACHED] + plain_ones}

    def held_bytes(self) -> int:
        """Audio and messages held for all sessions, in bytes."""
        plain_ones = [one for one in self._connections if isinstance(one, PlainConnection)]
        return self._v1_sessions.held_bytes() + sum(one.held_bytes() for one in plain_ones)

    async def close(self) -> None:
        """Shut down in order: stop accepting, let turns finish, close, reap, stop the engines."""
        if self._server is None or self._door.closed:
            return
        # 1. Stop accepting: new connections are refused, open ones stay.
        self._door.closed = True
        self._server.close(close_connections=False)
        # 2. Let turns finish, for a bounded time.
        await self._finish_turns()
        # 3. Tell the clients and close their connections.
        await self._say_goodbye_to_all()
        await self._close_sockets()
        # 4. Reap: every handler has returned, and every session has ended.
        await self._server.wait_closed()
        await self._stop_reaper()
        await self._v1_sessions.close()
        # 5. Stop the engines' queues.
        self._pipeline.close()
        _log.info("closed")

    def reap(self, now_ns: int) -> None:
        """End what is overdue: silent connections, and sessions that nobody came back to."""
        for connection in list(self._connections):
            if (why := connection.overdue(now_ns)) is not None:
                connection.end(why)
        self._v1_sessions.reap(now_ns)

    async def _reap_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self.settings.reap_interval_s)
            try:
                self.reap(self._clock())
            except Exception:  # one fault must not keep everything that is abandoned for ever
                _log.exception("the reaper failed, and goes on")

    async def _stop_reaper(self) -> None:
        if self._reaper is not None:
            self._reaper.cancel()
            await asyncio.gather(self._reaper, return_exceptions=True)

    async def _finish_turns(self) -> None:
        draining = [asyncio.create_task(connection.drain()) for connection in self._connections]
        if not draining:
            return
        _log.info("closing: %d callers, turns get %g s", len(draining), self.settings.grace_s)
        _, late = await asyncio.wait(draining, timeout=self.settings.grace_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*draining, return_exceptions=True)

    async def _say_goodbye_to_all(self) -> None:
        for connection in self._connections:
            connection.end(_shutting_down())
        if self._connections:
            await asyncio.wait(self._connections.values(), timeout=HANG_UP_S)

    async def _close_sockets(self) -> None:
        """Those that have no session yet, or did not take their goodbye."""
        reason = "the server is shutting down"
        closing = [hang_up(socket, CloseCode.GOING_AWAY, reason) for socket in self._door.sockets]
        await asyncio.gather(*closing)

    def _metrics_page(self) -> bytes:
        for state, number in self.states().items():
            self.metrics.sessions.labels(state=state.value).set(number)
        for engine, waiting in self._pipeline.queued().items():
            self.metrics.queued.labels(engine=engine).set(waiting)
        now_ns = self._clock()
        behind = [one.behind_s(now_ns) for one in self._connections]
        self.metrics.behind.set(max([*behind, self._v1_sessions.behind_s(now_ns)]))
        self.metrics.tasks.set(len(asyncio.all_tasks()))
        self.metrics.held_bytes.set(self.held_bytes())
        return self.metrics.page()

    async def _handle(self, socket: ServerConnection) -> None:
        connection = self._connect(socket)
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("a handler runs in a task")
        self._connections[connection] = task
        try:
            await self._serve_one(socket, connection)
        finally:
            del self._connections[connection]

    def _connect(self, socket: ServerConnection) -> Connection:
        """The connection, in the dialect that was agreed on."""
        if socket.subprotocol == v1.SUBPROTOCOL:
            return V1Connection(
                socket,
                self._v1_sessions,
                self.settings,
                self.metrics,
                identity=self._door.identity_of(socket),
                clock=self._clock,
            )
        session = Session(secrets.token_hex(4), self._pipeline, self.settings, clock=self._clock)
        path = socket.request.path if socket.request else "/"
        return PlainConnection(
            socket,
            session,
            self.settings,
            self.metrics,
            stream=plain.wants_stream(path),
            clock=self._clock,
        )

    async def _serve_one(self, socket: ServerConnection, connection: Connection) -> None:
        _log.info("connection %s: open", socket.id.hex[:8])
        try:
            await connection.run()
        except BaseExceptionGroup as group:
            if group.split((Closing, ConnectionClosed))[1] is not None:
                raise  # a fault of the server
            forget_frames(group)
            await self._ended(socket, connection, group)
        finally:
            _log.info("connection %s: gone", socket.id.hex[:8])

    async def _ended(
        self, socket: ServerConnection, connection: Connection, group: BaseExceptionGroup
    ) -> None:
        """Part from a client in order, or note that it is gone."""
        if (closing := group.subgroup(Closing)) is not None:
            await self._say_goodbye(socket, connection, _first(closing))
        else:
            # Not the reason: it is in the client's words.
            _log.info("connection %s: lost, code %s", socket.id.hex[:8], socket.close_code)

    async def _say_goodbye(
        self, socket: ServerConnection, connection: Connection, why: Closing
    ) -> None:
        _log.info("connection %s: closing, %s", socket.id.hex[:8], why)
        self.metrics.closes.labels(code=str(why.close.value)).inc()
        await hang_up(socket, why.close, str(why), connection.farewell(why))


def require_startable(settings: ServerSettings) -> ssl.SSLContext | None:
    """Make sure that a server may start with these settings, and give its TLS, if it has any.

    Raises:
        ServerError: It would let in anybody by accident, or its certificate is not usable.
        TokenError: One of the tokens is none.
    """
    require_safe(settings)
    if settings.tls_cert is not None:
        return server_tls(settings.tls_cert, settings.tls_key)
    if settings.tls_key is not None:
        raise ServerError(
            f"tls_key is {settings.tls_key}, and there is no tls_cert; give the certificate, too"
        )
    return None


def _first(group: BaseExceptionGroup[E]) -> E:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _choose_dialect(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """labkit.v1 where the client offers it; the plain dialect where it offers nothing we know."""
    own = Subprotocol(v1.SUBPROTOCOL)
    return own if own in offered else None


def _shutting_down() -> Closing:
    return Closing(
        CloseCode.GOING_AWAY,
        ErrorCode.SHUTTING_DOWN,
        "the server is shutting down",
        "connect again later for a new session",
    )


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
        ServerError: See `VoiceServer.start`.
        TokenError: One of the tokens is none.
    """
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked.set)
    async with VoiceServer(pipeline, settings) as server:
        on_ready(server)
        await asked.wait()
