"""The proxy over real sockets on loopback."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError

from labkit.client.speech import Clock
from labkit.errors import InstrumentError
from labkit.measure import netem
from labkit.measure.links import Conditions, Direction, Fault, Link
from labkit.measure.netem import KERNEL_BYTES, UNCHANGED, Connection, Proxy
from tests.support import until

UP, DOWN = Direction.UP, Direction.DOWN
NOISE = random.Random(7).randbytes(300_000)
PROMPT_S = 5
"""Far above what a prompt close takes, and far below any wait that would be a fault."""

STALLED = Conditions(up=Link(cut_after=0, fault=Fault.STALL))


class Bench:
    """A proxy before a server that only accepts, and the two ends of connections through it."""

    def __init__(self, proxy: Proxy, listener: socket.socket, stack: AsyncExitStack) -> None:
        self.proxy = proxy
        self._listener = listener
        self._stack = stack

    async def connect(
        self, client_buffer: int | None = None
    ) -> tuple[socket.socket, socket.socket]:
        """The client's and the server's end of a new connection."""
        client = self._stack.enter_context(socket.socket())
        if client_buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, client_buffer)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, self.proxy.address)
        server, _ = await loop.sock_accept(self._listener)
        return client, self._stack.enter_context(server)

    @property
    def last(self) -> Connection:
        return self.proxy.connections[-1]


@asynccontextmanager
async def bench(
    conditions: Conditions | Callable[[int], Conditions] = UNCHANGED, **options: Any
) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.setblocking(False)
        port = listener.getsockname()[1]
        proxy = Proxy("127.0.0.1", port, conditions=conditions, **options)
        await stack.enter_async_context(proxy)
        yield Bench(proxy, listener, stack)


def conditions_of(direction: Direction, link: Link) -> Conditions:
    return Conditions(up=link) if direction is UP else Conditions(down=link)


def ordered(
    direction: Direction, ends: tuple[socket.socket, socket.socket]
) -> tuple[socket.socket, socket.socket]:
    """The end that sends in `direction`, and the one that receives."""
    client, server = ends
    return (client, server) if direction is UP else (server, client)


async def send(sock: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)


async def send_in_vain(sock: socket.socket, data: bytes) -> bool:
    """Send to a peer that may be gone; whether a reset was found, which is told only once."""
    try:
        await send(sock, data)
    except OSError as error:
        return isinstance(error, ConnectionResetError)
    return False


async def read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        got = await asyncio.get_running_loop().sock_recv(sock, size - len(data))
        assert got, f"ended after {len(data)} of {size} bytes"
        data += got
    return data


async def read_to_end(sock: socket.socket) -> tuple[bytes, bool]:
    """All that comes, and whether a reset ended it."""
    data = b""
    try:
        while got := await asyncio.get_running_loop().sock_recv(sock, 65_536):
            data += got
    except ConnectionResetError:
        return data, True
    return data, False


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


def nothing_there(sock: socket.socket) -> bool:
    """Whether `sock` is open and has nothing to read."""
    try:
        sock.recv(1)
    except BlockingIOError:
        return True
    return False


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("cut", [0, 1, 1234, 200_001])
@pytest.mark.parametrize("fault", [Fault.CLOSE, Fault.RESET])
async def test_exactly_so_many_bytes_pass_before_the_cut(
    direction: Direction, cut: int, fault: Fault
) -> None:
    link = Link(cut_after=cut, fault=fault)
    async with bench(conditions_of(direction, link)) as table, asyncio.TaskGroup() as group:
        ends = await table.connect()
        sender, receiver = ordered(direction, ends)
        sending = group.create_task(send_in_vain(sender, NOISE))
        assert await read_to_end(receiver) == (NOISE[:cut], fault is Fault.RESET)
        received, was_reset = await read_to_end(sender)
        assert received == b""
        assert (was_reset or await sending) is (fault is Fault.RESET)
        for end in ends:
            end.close()
        await until(lambda: not table.last.open)
        assert table.last.carried(direction) == cut
        assert table.last.faults == [fault]


@pytest.mark.parametrize("cut", [100_003, 120_002, 141_000])
async def test_a_reset_waits_for_a_slow_reader_and_takes_no_byte_away(cut: int) -> None:
    link = Link(cut_after=cut, fault=Fault.RESET)
    async with bench(Conditions(down=link)) as table:
        client, server = await table.connect(client_buffer=16_384)
        await send(server, NOISE)
        data = b""
        while table.last.carried(DOWN) < cut:
            data += await read(client, 500)
            await settle()  # so that its buffer is full whenever more is sent
        rest, was_reset = await read_to_end(client)
        assert (data + rest, was_reset) == (NOISE[:cut], True)


async def test_an_orderly_cut_resets_nobody_who_is_still_sending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(netem, "_LINGER_S", 60)
    async with bench(STALLED) as table, asyncio.TaskGroup() as group:
        client, server = await table.connect()
        sending = group.create_task(send(client, bytes(8_000_000)))
        await until(lambda: table.proxy.connections)
        await until(lambda: table.last.held(UP) == Link().window_bytes)
        table.proxy.cut(Fault.CLOSE)
        assert await read_to_end(client) == (b"", False)
        assert await read_to_end(server) == (b"", False)
        await sending


async def test_half_open_swallows_everything_and_tells_nobody() -> None:
    link = Link(cut_after=1000, fault=Fault.HALF_OPEN)
    async with bench(Conditions(up=link)) as table:
        client, server = await table.connect()
        for _ in range(20):  # more than all buffers between would hold
            await send(client, NOISE)
        for _ in range(20):
            await send(server, NOISE)
        assert await read(server, 1000) == NOISE[:1000]
        assert nothing_there(server)
        assert nothing_there(client)
        client.shutdown(socket.SHUT_WR)
        assert table.last.open
        assert (table.last.carried(UP), table.last.carried(DOWN)) == (1000, 0)
        assert table.last.faults == [Fault.HALF_OPEN]
        async with asyncio.timeout(PROMPT_S):
            await table.proxy.close()
        assert (await read_to_end(server))[0] == b""


@pytest.mark.parametrize("direction", Direction)
async def test_a_stall_holds_one_direction(direction: Direction) -> None:
    link = Link(cut_after=10, fault=Fault.STALL)
    async with bench(conditions_of(direction, link)) as table:
        sender, receiver = ordered(direction, await table.connect())
        await send(sender, NOISE[:30])
        assert await read(receiver, 10) == NOISE[:10]
        await send(receiver, b"the other way is open")
        assert await read(sender, 21) == b"the other way is open"
        await until(lambda: table.last.held(direction) == 20)
        assert nothing_there(receiver)
        assert table.last.faults == [Fault.STALL]


async def test_an_end_is_held_by_a_stall_as_bytes_are() -> None:
    async with bench(STALLED) as table:
        client, server = await table.connect()
        client.shutdown(socket.SHUT_WR)
        await settle()
        assert nothing_there(server)


@pytest.mark.parametrize("stalled", [True, False], ids=["stalled", "nobody reads"])
async def test_the_sender_feels_that_nothing_is_read(stalled: bool) -> None:
    own = 64 * 1024
    accepted = 0

    async def pour(sock: socket.socket, data: memoryview) -> None:
        nonlocal accepted
        while accepted < len(data):
            await send(sock, data[accepted : accepted + 1000])
            accepted += 1000

    data = memoryview(bytes(8_000_000))
    conditions = STALLED if stalled else UNCHANGED
    async with bench(conditions) as table, asyncio.TaskGroup() as group:
        client, server = await table.connect()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, own)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, own)
        await until(lambda: table.proxy.connections)
        pouring = group.create_task(pour(client, data))
        window = Link().window_bytes
        await until(lambda: table.last.held(UP) == window)
        # Linux doubles what it is asked for; nothing can have been accepted beyond all buffers.
        assert accepted <= window + 2 * (2 * own + 2 * KERNEL_BYTES)
        assert table.last.held(UP) == window
        if stalled:
            pouring.cancel()
        else:
            assert await read(server, len(data)) == data


async def test_connections_go_as_planned_by_their_numbers() -> None:
    plans = {
        0: Conditions(down=Link(cut_after=5, fault=Fault.RESET)),
        2: Conditions(Link(cut_after=3)),
    }
    async with bench(lambda number: plans.get(number, Conditions())) as table:
        first, second, third = [await table.connect() for _ in range(3)]
        for client, server in (first, second, third):
            await send(client, b"abcdefghij")
            await send_in_vain(server, b"0123456789")
        assert await read_to_end(first[0]) == (b"01234", True)
        assert await read_to_end(third[1]) == (b"abc", False)
        assert await read(second[0], 10) == b"0123456789"
        assert await read(second[1], 10) == b"abcdefghij"
        assert [c.number for c in table.proxy.connections] == [0, 1, 2]
        assert [c.faults for c in table.proxy.connections] == [[Fault.RESET], [], [Fault.CLOSE]]
        assert table.proxy.connections[1].open


async def test_what_a_stall_holds_does_not_pass_after_a_cut() -> None:
    async with bench(STALLED) as table:
        client, server = await table.connect()
        await until(lambda: table.proxy.connections)
        await send(client, b"late")
        await until(lambda: table.last.held(UP) == 4)
        table.proxy.cut(Fault.CLOSE)
        assert await read_to_end(server) == (b"", False)


async def test_all_open_connections_can_be_cut_at_once() -> None:
    async with bench() as table:
        ends = [end for _ in range(3) for end in await table.connect()]
        await until(lambda: len(table.proxy.connections) == 3)
        table.proxy.cut(Fault.RESET)
        table.proxy.cut(Fault.CLOSE)
        for end in ends:
            assert await read_to_end(end) == (b"", True)
        assert [c.faults for c in table.proxy.connections] == [[Fault.RESET]] * 3


async def test_an_end_goes_through_behind_the_data_and_leaves_the_other_way_open() -> None:
    async with bench() as table:
        client, server = await table.connect()
        await send(client, b"all I have")
        client.shutdown(socket.SHUT_WR)
        assert await read_to_end(server) == (b"all I have", False)
        await send(server, b"thanks")
        server.close()
        assert await read_to_end(client) == (b"thanks", False)
        await until(lambda: not table.last.open)
        assert table.last.faults == []


async def test_a_peers_reset_reaches_the_other_peer() -> None:
    async with bench() as table:
        client, server = await table.connect()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        server.close()
        assert await read_to_end(client) == (b"", True)


async def test_a_client_is_reset_when_there_is_no_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    async with Proxy("127.0.0.1", port) as proxy:
        with socket.socket() as client:
            client.setblocking(False)
            await asyncio.get_running_loop().sock_connect(client, proxy.address)
            assert await read_to_end(client) == (b"", True)


async def test_a_name_leads_to_a_server_on_either_family() -> None:
    async with serve(echo, "localhost", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with Proxy("localhost", port) as proxy, connect(proxy.url()) as client:
            await client.send("there?")
            assert await client.recv() == "there?"
    await asyncio.get_running_loop().shutdown_default_executor()  # it looked up the name


@pytest.mark.parametrize("fault", [None, *Fault])
async def test_closing_is_prompt_whatever_the_connections_do(fault: Fault | None) -> None:
    async with bench(Conditions(Link(delay_ms=3_600_000), Link(bytes_per_s=1))) as table:
        client, server = await table.connect()
        await send(client, NOISE[:1000])
        await send(server, NOISE[:1000])
        await until(lambda: table.last.held(UP) and table.last.held(DOWN))
        if fault is not None:
            table.proxy.cut(fault)
        async with asyncio.timeout(PROMPT_S):
            await table.proxy.close()
        assert not table.last.open
        assert (await read_to_end(server))[0] == b""


async def test_closing_also_ends_a_connection_that_was_only_just_accepted() -> None:
    async with bench() as table:
        client = socket.create_connection(table.proxy.address)
        with client:
            assert table.proxy._listener is not None
            table.proxy._accept(table.proxy._listener)
            await table.proxy.close()
            client.settimeout(PROMPT_S)
            with suppress(ConnectionResetError):
                assert client.recv(1) == b""


async def test_a_plan_that_fails_is_told_at_the_close() -> None:
    def plan(number: int) -> Conditions:
        raise ZeroDivisionError(f"no plan for {number}")

    with socket.socket() as client:
        client.setblocking(False)
        with pytest.raises(ZeroDivisionError, match="no plan for 0"):
            async with Proxy("127.0.0.1", 9, conditions=plan) as proxy:
                await asyncio.get_running_loop().sock_connect(client, proxy.address)
                await read_to_end(client)


class ShortTime:
    """A clock on which sleeping takes no time."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.clock = Clock(source=lambda: self.now_ns, sleep=self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)
        await asyncio.sleep(0)


async def test_bytes_are_late_by_the_delay_on_the_given_clock() -> None:
    time = ShortTime()
    async with bench(Conditions(up=Link(delay_ms=60_000)), clock=time.clock) as table:
        client, server = await table.connect()
        await send(client, b"slow")
        assert await read(server, 4) == b"slow"
        assert time.now_ns >= 60_000_000_000


async def test_bytes_come_no_faster_than_the_rate_on_the_given_clock() -> None:
    time = ShortTime()
    async with bench(Conditions(down=Link(bytes_per_s=100)), clock=time.clock) as table:
        client, server = await table.connect()
        await send(server, NOISE[:1000])
        assert await read(client, 1000) == NOISE[:1000]
        assert time.now_ns >= 9_900_000_000


async def echo(socket: ServerConnection) -> None:
    async for message in socket:
        await socket.send(message)


@asynccontextmanager
async def echo_behind(**options: Any) -> AsyncIterator[Proxy]:
    async with serve(echo, "127.0.0.1", 0, max_size=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with Proxy("127.0.0.1", port, **options) as proxy:
            yield proxy


@pytest.mark.parametrize(
    "link", [Link(), Link(delay_ms=1, jitter_ms=3), Link(bytes_per_s=5e6, jitter_ms=1)]
)
async def test_websocket_messages_go_through_unharmed(link: Link) -> None:
    messages = [NOISE[:size] for size in (0, 1, 125, 126, 640, 65_535, 65_536, 300_000)]
    async with (
        echo_behind(conditions=Conditions(link, link)) as proxy,
        connect(proxy.url(), max_size=None) as client,
    ):
        for message in messages:
            await client.send(message)
        assert [await client.recv() for _ in messages] == messages


async def test_a_websocket_cut_inside_a_frame_says_so_and_the_next_one_works() -> None:
    def plan(number: int) -> Conditions:
        return Conditions(down=Link(cut_after=1234)) if number == 0 else Conditions()

    async with echo_behind(conditions=plan) as proxy:
        async with connect(proxy.url()) as client:
            await client.send(NOISE[:10_000])
            with pytest.raises(ConnectionClosedError):
                await client.recv()
        assert proxy.connections[0].carried(DOWN) == 1234
        async with connect(proxy.url()) as client:
            await client.send(NOISE[:10_000])
            assert await client.recv() == NOISE[:10_000]


async def test_a_port_that_is_taken_is_named() -> None:
    async with Proxy("127.0.0.1", 9) as proxy:
        port = proxy.address[1]
        words = rf"cannot listen on 127.0.0.1:{port}: Address already in use\. Choose another"
        with pytest.raises(InstrumentError, match=words):
            async with Proxy("127.0.0.1", 9, port=port):
                pass


def test_a_proxy_that_was_not_started_has_no_address() -> None:
    with pytest.raises(InstrumentError, match="does not listen"):
        Proxy("127.0.0.1", 9).url()


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 99999), ("a..b", 1), ("x" * 300, 1)])
async def test_a_target_that_cannot_be_is_one_that_nobody_reaches(host: str, port: int) -> None:
    async with Proxy(host, port) as proxy:
        reader, writer = await asyncio.open_connection(*proxy.address)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
