"""A TCP proxy on loopback that delays, throttles, stalls and cuts what goes through it.

It stands between a WebSocket client and a voice server and knows nothing of either, so it cuts
at any byte, inside of a frame or of the opening handshake. What happens to a connection is
planned by its number, and can be changed while it runs::

    def plan(number: int) -> Conditions:
        return Conditions(down=Link(cut_after=1234)) if number == 0 else Conditions()

    async with Proxy("localhost", 8765, conditions=plan, seed=1) as proxy:
        async with VoiceClient.connect(proxy.url()) as client:
            ...
            proxy.cut(Fault.RESET)

What it does not do: the TCP handshake is answered at once, whatever the delay, and a packet is
never lost, only late, as TCP makes of loss. A peer's reset reaches the other peer without delay.

Each direction holds `Link.window_bytes` at most; beside them lie what the kernel keeps in
`KERNEL_BYTES` of receive buffer and as much of send buffer (Linux doubles the figure for its own
bookkeeping). When all are full, the sender feels that the reader does not read.
"""

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from typing import Final, Self

from labkit.client.speech import Clock
from labkit.errors import InstrumentError
from labkit.measure.links import Conditions, Direction, Fault, Link, Schedule
from labkit.net import is_address
from labkit.tasks import Changes

_log = logging.getLogger(__name__)

KERNEL_BYTES: Final = 64 * 1024
"""Asked of the kernel for each buffer. Less than a packet of loopback (64 KiB) would crawl."""

_HOST: Final = "127.0.0.1"
_READ_BYTES: Final = 16 * 1024
_LINGER_S: Final = 1.0
"""Longest that an orderly close waits for the peers; one that talks on is then cut off."""

UNCHANGED: Final = Conditions()
"""Bytes go through as they come."""


class _Line:
    """One direction at work: takes bytes in, holds them until they are due, gives them out."""

    def __init__(self, link: Link, seed: str, clock: Clock, cut: Callable[[], None]) -> None:
        self.carried = 0
        self.held = 0
        self.stalled = False
        self._link = link
        self._schedule = Schedule(link, seed)
        self._clock = clock
        self._cut = cut
        self._queue: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        self._drained = Changes()

    async def take_in(self, source: socket.socket) -> None:
        """Read to the end of the stream, whenever there is room; the end is queued, too."""
        loop = asyncio.get_running_loop()
        data = b"begin"
        while data:
            data = await loop.sock_recv(source, min(_READ_BYTES, await self._room()))
            self.held += len(data)
            due_ns = self._schedule.admit(len(data), self._clock.now_ns())
            self._queue.put_nowait((due_ns, data))

    async def give_out(self, sink: socket.socket) -> None:
        """Forward what is due, up to the end of the stream."""
        await self._cut_if_due(sink)
        data = b"begin"
        while data:
            due_ns, data = await self._queue.get()
            await self._clock.sleep_until(due_ns)
            await self._forward(data, sink)
        await self._unless_stalled()
        sink.shutdown(socket.SHUT_WR)

    async def _forward(self, data: bytes, sink: socket.socket) -> None:
        rest = memoryview(data)
        while rest:
            sent = await self._send(rest[: self._link.allowance(self.carried, len(rest))], sink)
            rest = rest[sent:]
            self.carried += sent
            self.held -= sent
            self._drained.tell()
            await self._cut_if_due(sink)
            await self._clock.sleep_until(self._schedule.spend(sent, self._clock.now_ns()))

    async def _send(self, piece: memoryview, sink: socket.socket) -> int:
        """Send a part of `piece` unless stalled, with nothing in between that could change that."""
        while True:
            await self._unless_stalled()
            try:
                return sink.send(piece)
            except BlockingIOError:
                await _writable(sink)

    async def _cut_if_due(self, sink: socket.socket) -> None:
        if self.carried == self._link.cut_after:
            # A reset throws away what the kernel has not sent yet.
            await _writable(sink)
            self._cut()

    async def _unless_stalled(self) -> None:
        """Wait for the end of the connection where nothing is to be forwarded any more."""
        if self.stalled:
            await asyncio.get_running_loop().create_future()

    async def _room(self) -> int:
        await self._drained.until(lambda: self.held < self._link.window_bytes)
        return self._link.window_bytes - self.held


class Connection:
    """One connection through the proxy: what became of it, and how to disturb it.

    Attributes:
        number: 0 for the first that the proxy accepted, and so on.
        conditions: What was planned for it.
        faults: What was done to it, in order.
        open: Whether the proxy still holds it. One that is half-open is held to the end.
    """

    def __init__(self, number: int, conditions: Conditions, seed: int, clock: Clock) -> None:
        self.number = number
        self.conditions = conditions
        self.faults: list[Fault] = []
        self.open = True
        self._fate: asyncio.Future[Fault] = asyncio.get_running_loop().create_future()
        self._lines = {
            way: _Line(conditions[way], f"{seed}/{number}/{way}", clock, partial(self._fail, way))
            for way in Direction
        }

    def carried(self, direction: Direction) -> int:
        """Bytes forwarded so far."""
        return self._lines[direction].carried

    def held(self, direction: Direction) -> int:
        """Bytes taken and not forwarded yet; at most the link's `window_bytes`."""
        return self._lines[direction].held

    def cut(self, fault: Fault = Fault.CLOSE) -> None:
        """Let it fail now; not another byte is forwarded. One that has failed stays as it is."""
        if self._fate.done() or not self.open:
            return
        for line in self._lines.values():
            line.stalled = True
        self._note(fault)
        if fault is not Fault.STALL:
            self._fate.set_result(fault)

    def _fail(self, direction: Direction) -> None:
        """Do what was planned for `direction` at this byte."""
        fault = self.conditions[direction].fault
        if fault is Fault.STALL:
            self._lines[direction].stalled = True
            self._note(fault)
        else:
            self.cut(fault)

    def _note(self, fault: Fault) -> None:
        self.faults.append(fault)
        _log.info("connection %d: %s at %s", self.number, fault, self)

    def __str__(self) -> str:
        return ", ".join(f"{line.carried} bytes {way}" for way, line in self._lines.items())

    async def run(self, client: socket.socket, host: str, port: int) -> None:
        """Carry bytes between `client` and the server until both end, or until a fault."""
        _log.info("connection %d: open", self.number)
        try:
            server = await self._reach(host, port)
            if server is None:
                await _finish(Fault.RESET, client)
                return
            with closing(server):
                await _finish(await self._carry(client, server), client, server)
        finally:
            self.open = False
            _log.info("connection %d: ended, %s", self.number, self)

    async def _reach(self, host: str, port: int) -> socket.socket | None:
        try:
            return await _dial(host, port)
        # Not only OSError: a port beyond all ports, a name that cannot be looked up.
        except (OSError, OverflowError, UnicodeError) as error:
            _log.warning("connection %d: cannot reach %s:%d: %s", self.number, host, port, error)
            return None

    async def _carry(self, client: socket.socket, server: socket.socket) -> Fault:
        """Carry bytes; returns how the connection has to end."""
        carrying = asyncio.create_task(self._carry_to_end(client, server))
        try:
            await asyncio.wait({carrying, self._fate}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            carrying.cancel()
            await asyncio.wait({carrying})
        return self._fate.result() if self._fate.done() else carrying.result()

    async def _carry_to_end(self, client: socket.socket, server: socket.socket) -> Fault:
        ways = ((Direction.UP, client, server), (Direction.DOWN, server, client))
        end = Fault.CLOSE
        try:
            async with asyncio.TaskGroup() as group:
                for way, source, sink in ways:
                    group.create_task(self._lines[way].take_in(source))
                    group.create_task(self._lines[way].give_out(sink))
        except* OSError:
            _log.info("connection %d: reset by a peer", self.number)
            end = Fault.RESET
        return end


class Proxy:
    """A proxy on a port of its own, for the length of an `async with` block."""

    def __init__(
        self,
        target_host: str,
        target_port: int,
        *,
        conditions: Conditions | Callable[[int], Conditions] = UNCHANGED,
        seed: int = 0,
        port: int = 0,
        clock: Clock | None = None,
    ) -> None:
        """Stand before the server at `target_host` and `target_port`.

        The `conditions` are for all connections, or for each by its number from 0 on; `seed` draws
        the jitter, for each connection and direction apart. It listens on `port` of 127.0.0.1, 0
        for a free one.
        """
        self._target = (target_host, target_port)
        self._plan = conditions if callable(conditions) else lambda _: conditions
        self._seed = seed
        self._asked_port = port
        self._clock = clock or Clock()
        self._listener: socket.socket | None = None
        self._connections: list[Connection] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            InstrumentError: The port cannot be had.
        """
        try:
            self._listener = socket.create_server((_HOST, self._asked_port))
        except (OSError, OverflowError) as error:
            number = getattr(error, "errno", None)
            raise InstrumentError(
                f"cannot listen on {_HOST}:{self._asked_port}: "
                f"{os.strerror(number) if number else error}. "
                "Choose another port, or 0 for a free one"
            ) from error
        _tune(self._listener)
        asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop listening and end every connection at once, stalled and half-open ones, too.

        Raises:
            Exception: What `conditions` raised for a connection.
        """
        if self._listener is None:
            return
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        self._listener = None
        for task in self._tasks:
            task.cancel()
        for end in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(end, Exception):
                raise end

    @property
    def address(self) -> tuple[str, int]:
        """Address and port that it listens on, for a client that is to call the server itself.

        Raises:
            InstrumentError: It does not listen.
        """
        if self._listener is None:
            raise InstrumentError("the proxy does not listen; use it as 'async with Proxy(…)'")
        return _HOST, int(self._listener.getsockname()[1])

    def url(self) -> str:
        """The address for clients."""
        host, port = self.address
        return f"ws://{host}:{port}"

    @property
    def connections(self) -> tuple[Connection, ...]:
        """All connections so far, by number, ended ones, too."""
        return tuple(self._connections)

    def cut(self, fault: Fault = Fault.CLOSE) -> None:
        """Let every open connection fail now."""
        for connection in self._connections:
            if connection.open:
                connection.cut(fault)

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):  # gone before it was picked up
            return
        _tune(client)
        task = asyncio.get_running_loop().create_task(self._serve(client))
        # Also where the task is cancelled before its first step.
        task.add_done_callback(lambda _: client.close())
        self._tasks.append(task)

    async def _serve(self, client: socket.socket) -> None:
        number = len(self._connections)
        connection = Connection(number, self._plan(number), self._seed, self._clock)
        self._connections.append(connection)
        await connection.run(client, *self._target)


def _tune(sock: socket.socket) -> None:
    """Let no byte wait in the kernel, and few bytes lie there."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Writable then means that everything was sent.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BYTES)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)


async def _dial(host: str, port: int) -> socket.socket:
    """Connect to the server; a name is tried as IPv4, then as IPv6."""
    if is_address(host):
        return await _dial_as(socket.AF_INET6 if ":" in host else socket.AF_INET, host, port)
    with suppress(OSError):
        return await _dial_as(socket.AF_INET, host, port)
    return await _dial_as(socket.AF_INET6, host, port)


async def _dial_as(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    sock = socket.socket(family)
    try:
        _tune(sock)
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
    except BaseException:
        sock.close()
        raise
    return sock


async def _writable(sock: socket.socket) -> None:
    """Wait until the kernel has sent all that it was given, or has learnt that it cannot."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(sock)


async def _finish(end: Fault, *sockets: socket.socket) -> None:
    """Do to the sockets what their owner's closing them then completes."""
    match end:
        case Fault.RESET:
            for sock in sockets:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        case Fault.CLOSE:
            for sock in sockets:
                with suppress(OSError):  # the peer may be gone
                    sock.shutdown(socket.SHUT_WR)
            # Closing while unread bytes lie in the buffer would reset.
            with suppress(TimeoutError):
                async with asyncio.timeout(_LINGER_S):
                    await _swallow(*sockets)
        case Fault.HALF_OPEN:
            await _swallow(*sockets)
            await asyncio.get_running_loop().create_future()  # until the proxy closes


async def _swallow(*sockets: socket.socket) -> None:
    """Read and drop until every peer has ended."""
    loop = asyncio.get_running_loop()

    async def swallow(sock: socket.socket) -> None:
        with suppress(OSError):
            while await loop.sock_recv(sock, _READ_BYTES):
                pass

    await asyncio.gather(*map(swallow, sockets))
