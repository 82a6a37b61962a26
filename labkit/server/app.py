"""From sockets to sessions: admission, serving, reaping, and an orderly shutdown."""

import asyncio
import errno
import logging
import os
import signal
import socket
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, cast

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State as SocketState
from websockets.typing import Subprotocol

from labkit.errors import Close, CloseCode, ErrorCode, ServerError
from labkit.net import addresses_to_bind, server_tls, wire_log
from labkit.protocol import plain, v1
from labkit.server.admission import Admission, require_safe, warnings_about
from labkit.server.connection import Connection, Dialect
from labkit.server.http import Metrics, Pages
from labkit.server.plain import PlainDialect
from labkit.server.v1 import V1Dialect
from labkit.server.websocket import BoundedConnection
from labkit.session.outgoing import Feed
from labkit.session.registry import Registry, State
from labkit.session.settings import ServerSettings
from labkit.tasks import stop
from labkit.trace import Trace
from labkit.voice.turn import Pipeline

_log = logging.getLogger(__name__)

_TLS_HANDSHAKE_S: Final = 5.0
"""Longest that a caller may take until it speaks TLS: as long, it may hold up the shutdown."""
_ACCEPTED_AT_ONCE: Final = 4
"""Connections that are taken in one turn of the loop; asyncio's own hundred would hold everybody
up for 50 ms where one caller connects again and again."""
_WAITING_TO_BE_ACCEPTED: Final = 128
_HANG_UP_S: Final = 1.0
"""Longest that closing one connection in order may take."""
_REASON: Final = 120
"""Most characters of a close reason; a close frame has room for 123 bytes."""
_CALM_NS: Final = 60 * 10**9
"""How long files have to be enough until it is worth a line that they ran out again."""
_IN_ORDER: Final = (CloseCode.NORMAL, CloseCode.GOING_AWAY)
_QUEUE: Final = (4000, 3000)
"""Frames that wait for the application before reading stops, and until it goes on: audio that is
read at its pace, while pings behind it are answered. `BoundedConnection` counts bytes, too."""


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
        on_turn: Callable[[Trace], None] | None = None,
    ) -> None:
        """Serve `pipeline` as `settings` say.

        Args:
            pipeline: What answers.
            settings: Where to listen and what to allow.
            clock: Monotonic nanoseconds.
            on_turn: Told each turn that was answered.
        """
        self.settings = settings or ServerSettings()
        self.metrics = Metrics(on_turn)
        self._clock = clock
        self._pipeline = pipeline
        self._registry = Registry(pipeline, self.settings, self.metrics, clock)
        pages = Pages(ready=lambda: not self._admission.closed, metrics=self._metrics_page)
        self._admission = Admission(self.settings, pages, self.metrics, self.behind_s)
        # From their first byte, before any handshake: one that never ends its handshake would
        # hold up a shutdown for as long as a handshake may take.
        self._sockets: set[BoundedConnection] = set()
        self._shaking_hands: OrderedDict[BoundedConnection, None] = OrderedDict()
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
        addresses = addresses_to_bind(self.settings.host, self.settings.port)
        self._server = await self._serve(addresses, tls)
        for listener in self._server.sockets:
            # Only now, since asyncio takes one figure for both: what may wait in the kernel, and
            # what is taken from there in one turn of the loop.
            with socket.socket(fileno=os.dup(listener.fileno())) as same:
                same.listen(_WAITING_TO_BE_ACCEPTED)
        self._reaper = asyncio.create_task(self._reap_for_ever(), name="reaper")

    async def _serve(self, addresses: Sequence[str], tls: ssl.SSLContext | None) -> Server:
        settings = self.settings
        connections = partial(BoundedConnection, settings, self._opened, self._lost)
        return await serve(
            self._handle,
            cast(str, addresses),  # asyncio takes several, websockets passes them on
            settings.port,
            backlog=_ACCEPTED_AT_ONCE,
            process_request=self._admission.process_request,
            process_response=self._admission.process_response,
            compression="deflate" if settings.deflate else None,
            max_size=settings.max_read_bytes,
            max_queue=_QUEUE,
            open_timeout=settings.start_s,
            ping_interval=settings.ping_interval_s,
            ping_timeout=settings.ping_timeout_s,
            subprotocols=[Subprotocol(v1.SUBPROTOCOL)],
            select_subprotocol=_choose_dialect,
            close_timeout=_HANG_UP_S,
            server_header=None,
            logger=wire_log,
            ssl=tls,
            ssl_handshake_timeout=None if tls is None else _TLS_HANDSHAKE_S,
            ssl_shutdown_timeout=None if tls is None else _HANG_UP_S,
            create_connection=cast(type[ServerConnection], connections),
        )

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
        return self._registry.counts()

    def held_bytes(self) -> int:
        """Bytes held for all callers: audio, messages, and what waits in their connections."""
        return self._registry.held_bytes() + self._held_below()

    def _held_below(self) -> int:
        return sum(one.held_bytes for one in self._sockets)

    async def close(self) -> None:
        """Shut down in order: stop accepting, let turns finish, close, reap, stop the engines."""
        if self._server is None or self._admission.closed:
            return
        # 1. Stop accepting: new connections are refused, open ones stay.
        self._admission.closed = True
        self._server.close(close_connections=False)
        # 2. Let turns finish, for a bounded time.
        await self._finish_turns()
        # 3. Tell the clients and close their connections.
        await self._say_goodbye_to_all()
        await self._close_sockets()
        # 4. Reap: every handler has returned, and every session has ended.
        await self._server.wait_closed()
        if self._reaper is not None:
            await stop(self._reaper)
        await self._registry.close()
        # 5. Stop the engines' queues.
        self._pipeline.close()
        _log.info("closed")

    def reap(self, now_ns: int) -> None:
        """End what is overdue: silent connections, and sessions that nobody came back to."""
        for connection in list(self._connections):
            connection.settle(now_ns)
            if (why := connection.overdue(now_ns)) is not None:
                connection.feed.end(why)
        self._registry.reap(now_ns, self._held_below())

    # Connections before their handshake.

    def _opened(self, socket: BoundedConnection) -> None:
        """Note a connection; where too many shake hands, the one that takes longest goes.

        Refusing the new one instead would let whoever opens connections and says nothing keep
        everybody else out.
        """
        self._sockets.add(socket)
        self._shaking_hands[socket] = None
        if len(self._shaking_hands) > self.settings.max_handshakes:
            oldest, _ = self._shaking_hands.popitem(last=False)
            oldest.transport.abort()

    def _lost(self, socket: BoundedConnection) -> None:
        self._sockets.discard(socket)
        self._shaking_hands.pop(socket, None)
        self._admission.leave(socket)

    # The life of one connection.

    async def _handle(self, socket: ServerConnection) -> None:
        bounded = cast(BoundedConnection, socket)
        self._shaking_hands.pop(bounded, None)
        feed = Feed(self.settings.send_timeout_s)
        dialect = self._speak(bounded, feed)
        connection = Connection(
            bounded, dialect, feed, self.settings, self.metrics, clock=self._clock
        )
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("a handler runs in a task")
        self._connections[connection] = task
        name = bounded.id.hex[:8]
        _log.info("connection %s: open", name)
        try:
            bounded.hear = connection.hear_at_once
            why = await connection.run()
            await self._part(bounded, connection, why)
        finally:
            bounded.hear = None
            del self._connections[connection]
            self._leave(connection, None)
            _log.info("connection %s: gone", name)

    def _speak(self, socket: BoundedConnection, feed: Feed) -> Dialect:
        """The dialect that was agreed on."""
        caller = self._admission.caller(socket)
        if socket.subprotocol == v1.SUBPROTOCOL:
            return V1Dialect(feed, self._registry, self.settings, caller)
        path = socket.request.path if socket.request else "/"
        stream = plain.wants_stream(path)
        return PlainDialect(feed, self._registry, self.settings, caller, stream=stream)

    async def _part(
        self, socket: BoundedConnection, connection: Connection, why: Close | None
    ) -> None:
        """Part from a client in order, or note that it is gone."""
        name = socket.id.hex[:8]
        # Before the goodbye, which may take a second: the session can be resumed meanwhile.
        self._leave(connection, why)
        if why is None:
            # Not the reason: it is in the client's words.
            parted = "closed" if socket.close_code in _IN_ORDER else "lost"
            _log.info("connection %s: %s, code %s", name, parted, socket.close_code)
            return
        _log.info("connection %s: closing, %s", name, why)
        self.metrics.closes.labels(code=str(why.close.value)).inc()
        await hang_up(socket, why, connection.dialect.farewell(why))

    def _leave(self, connection: Connection, why: Close | None) -> None:
        """Let go of the session; one that cannot be resumed after `why` ends."""
        session, connection.dialect.session = connection.dialect.session, None
        if session is not None:
            self._registry.leave(session, connection.feed, why)

    # Reaping and shutdown.

    async def _reap_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self.settings.reap_interval_s)
            try:
                self.reap(self._clock())
            except Exception:  # one fault must not keep everything that is abandoned for ever
                _log.exception("the reaper failed, and goes on")

    async def _finish_turns(self) -> None:
        sessions = [one.dialect.session for one in self._connections]
        draining = [asyncio.create_task(one.drained()) for one in sessions if one is not None]
        if not draining:
            return
        _log.info("closing: %d callers, turns get %g s", len(draining), self.settings.grace_s)
        _, late = await asyncio.wait(draining, timeout=self.settings.grace_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*draining, return_exceptions=True)

    async def _say_goodbye_to_all(self) -> None:
        for connection in self._connections:
            connection.feed.end(_shutting_down())
        if self._connections:
            await asyncio.wait(self._connections.values(), timeout=_HANG_UP_S)

    async def _close_sockets(self) -> None:
        """Those that have no session yet, or did not take their goodbye."""
        closing = [hang_up(socket, _shutting_down()) for socket in self._sockets]
        await asyncio.gather(*closing)

    def behind_s(self) -> float:
        """Longest that somebody has waited for an answer at this moment, in seconds."""
        return self._registry.behind_s(self._clock())

    def _metrics_page(self) -> bytes:
        for state, number in self.states().items():
            self.metrics.sessions.labels(state=state.value).set(number)
        for engine, waiting in self._pipeline.queued().items():
            self.metrics.queued.labels(engine=engine).set(waiting)
        self.metrics.behind.set(self.behind_s())
        self.metrics.tasks.set(len(asyncio.all_tasks()))
        self.metrics.held_bytes.set(self.held_bytes())
        return self.metrics.page()


async def hang_up(socket: BoundedConnection, why: Close, farewell: str | None = None) -> None:
    """Close a connection in order if that can be done in time, else cut it.

    The closing handshake waits until the client has read what was sent before, and a client that
    does not read never does; one that has not ended its opening handshake has none.

    Args:
        socket: The connection.
        why: How, and in plain ASCII words why.
        farewell: A last message, sent before.
    """
    socket.stop_listening()
    try:
        async with asyncio.timeout(_HANG_UP_S):
            if socket.state is SocketState.OPEN and farewell is not None:
                await socket.send(farewell)
            if socket.state is SocketState.OPEN:
                await socket.close(why.close, str(why)[:_REASON])
    except ConnectionClosed:
        pass  # it hung up itself
    except TimeoutError:
        _log.info("cutting %s: not closed within %g s", socket.remote_address, _HANG_UP_S)
    if socket.state is not SocketState.CLOSED:
        socket.transport.abort()


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
            f"tls_key (--tls-key) is {settings.tls_key}, and there is no tls_cert (--tls-cert); "
            "give the certificate, too"
        )
    return None


def _choose_dialect(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """labkit.v1 where the client offers it; the plain dialect where it offers nothing we know."""
    own = Subprotocol(v1.SUBPROTOCOL)
    return own if own in offered else None


def _shutting_down() -> Close:
    return Close(
        ErrorCode.SHUTTING_DOWN,
        "the server is shutting down",
        "connect again later for a new session",
    )


async def serve_until_signal(
    pipeline: Pipeline,
    settings: ServerSettings,
    on_ready: Callable[[VoiceServer], None],
    on_turn: Callable[[Trace], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, then shut down in order.

    Args:
        pipeline: Loaded and warm.
        settings: Where to listen and what to allow.
        on_ready: Called once callers are accepted.
        on_turn: Told each turn that was answered.

    Raises:
        ServerError: See `VoiceServer.start`.
        TokenError: One of the tokens is none.
    """
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_TellOnce())
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked.set)
    async with VoiceServer(pipeline, settings, on_turn=on_turn) as server:
        on_ready(server)
        await asked.wait()


class _TellOnce:
    """Logs that files ran out in one line; asyncio writes a traceback at every try to accept.

    It tries about once a second, for each address. The line is logged again once there was a
    minute without such a failure.
    """

    def __init__(self, clock: Callable[[], int] = time.perf_counter_ns) -> None:
        self._clock = clock
        self._last_ns: int | None = None

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)):
            loop.default_exception_handler(context)
            return
        last_ns, self._last_ns = self._last_ns, self._clock()
        if last_ns is None or self._last_ns - last_ns > _CALM_NS:
            _log.warning("no caller can come in: this process may open no more files (ulimit -n)")
