"""What one connection can make the server hold and do, below the application."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.typing import Subprotocol

from labkit.server.app import VoiceServer
from labkit.server.websocket import _MOST_UNREAD, _PIECE, BoundedConnection, _Hold
from tests.callers import serving, start
from tests.support import until

MIB = 1024 * 1024


def frames(opcode: Opcode, payload: bytes, count: int) -> bytes:
    """So many masked frames of a client, as they go over the wire."""
    return Frame(opcode, payload).serialize(mask=True) * count


@asynccontextmanager
async def calling(server: VoiceServer, v1: bool = True) -> AsyncIterator[ClientConnection]:
    offered = [Subprotocol("labkit.v1")] if v1 else None
    async with connect(
        server.url, subprotocols=offered, ping_interval=None, compression=None
    ) as socket:
        if v1:
            await start(socket)
        try:
            yield socket
        finally:
            socket.transport.abort()


def only_socket(server: VoiceServer) -> BoundedConnection:
    (socket,) = server._sockets
    return socket


async def longest_stretch(server: VoiceServer, work: asyncio.Task[None]) -> int:
    """Most frames that were taken between two looks, each a turn of the loop apart."""
    most, before = 0, 0
    while not work.done():
        await asyncio.sleep(0)
        now = sum(socket._frames for socket in server._sockets)
        most, before = max(most, now - before), now
    return most


@pytest.mark.parametrize(
    ("opcode", "payload"), [(Opcode.BINARY, b""), (Opcode.PING, b""), (Opcode.PONG, b"x")]
)
async def test_frames_of_any_kind_are_read_at_a_pace_and_in_short_stretches(
    opcode: Opcode, payload: bytes
) -> None:
    async with (
        serving(max_frames_per_s=1.0, frame_burst=1000) as server,
        calling(server) as socket,
    ):
        socket.transport.write(frames(opcode, payload, 5000))
        await until(lambda: only_socket(server)._frames > 1000)
        for _ in range(50):
            await asyncio.sleep(0)
        # The burst, and what one piece of bytes beyond it holds.
        assert only_socket(server)._frames < 1000 + 2048 / 6 + 10


async def test_pings_that_nobody_reads_are_bounded() -> None:
    async with (
        serving(max_frames_per_s=1e9, frame_burst=10**9) as server,
        calling(server) as socket,
    ):
        socket.transport.pause_reading()
        flood = frames(Opcode.PING, b"x" * 125, 1000)
        for _ in range(60):
            socket.transport.write(flood)
        await until(lambda: _Hold.UNREAD in only_socket(server)._holds)
        for _ in range(200):
            await asyncio.sleep(0)
        held = only_socket(server)
        assert held._holds >= {_Hold.UNREAD}
        # The bound, and the pongs to one piece of pings that were parsed when it was reached.
        assert held.unread_bytes < _MOST_UNREAD + 2 * _PIECE
        assert server.held_bytes() < 3 * MIB


async def test_pings_are_answered_again_once_the_pongs_are_read() -> None:
    async with (
        serving(max_frames_per_s=1e9, frame_burst=10**9) as server,
        calling(server) as socket,
    ):
        held = only_socket(server)
        socket.transport.pause_reading()
        flood = frames(Opcode.PING, b"x" * 125, 1000)
        for _ in range(60):
            socket.transport.write(flood)
        await until(lambda: _Hold.UNREAD in held._holds)
        socket.transport.resume_reading()
        await until(lambda: held._frames > 60_000)
        await until(lambda: not held._holds)
        assert await asyncio.wait_for(await socket.ping(), 10) >= 0


async def test_frames_that_wait_for_a_reader_that_is_held_up_are_bounded_by_their_bytes() -> None:
    async with serving(burst_s=1.0, max_audio_speed=0.001) as server, calling(server) as socket:
        socket.transport.write(frames(Opcode.BINARY, bytes(64_000), 1))
        socket.transport.write(frames(Opcode.BINARY, bytes(MIB - 100), 8))
        await until(lambda: only_socket(server)._holds)
        for _ in range(200):
            await asyncio.sleep(0)
        assert MIB < only_socket(server).held_bytes < 4.5 * MIB


def sent_at_once(socket: BoundedConnection, stream: bytes) -> None:
    """Let `stream` come before anything of it is read."""
    socket.data_received(stream)
    while socket._unparsed and _Hold.QUEUE not in socket._holds:
        socket._parse()


@pytest.mark.parametrize("letter", ["e", "é", "€", "😀"])
async def test_texts_that_waited_are_counted_in_bytes_as_they_came(letter: str) -> None:
    async with (
        serving(max_frames_per_s=1e9, frame_burst=10**9) as server,
        calling(server) as client,
    ):
        socket = only_socket(server)
        text = letter * (16_000 // len(letter.encode()))
        sent_at_once(socket, frames(Opcode.TEXT, text.encode(), 120))
        assert _Hold.QUEUE in socket._holds
        await until(lambda: not socket._queued_bytes)
        await client.send('{"type": "ping"}')
        async with asyncio.timeout(10):
            while "pong" not in str(await client.recv()):
                pass


async def test_a_message_in_pieces_comes_to_its_end_however_long_it_may_be() -> None:
    rest = [Frame(Opcode.CONT, bytes(60_000), fin=number == 49) for number in range(50)]
    pieces = [Frame(Opcode.BINARY, bytes(60_000), fin=False), *rest]
    async with serving(max_read_bytes=4 * MIB) as server, calling(server) as client:
        for piece in pieces:
            client.transport.write(piece.serialize(mask=True))
        async with asyncio.timeout(10):
            assert "message_too_large" in str(await client.recv())


async def test_a_message_that_is_not_whole_yet_is_counted() -> None:
    async with serving() as server, calling(server) as client:
        for opcode in (Opcode.BINARY, Opcode.CONT, Opcode.CONT):
            client.transport.write(Frame(opcode, bytes(60_000), fin=False).serialize(mask=True))
        await until(lambda: server.held_bytes() >= 180_000)


async def test_pings_behind_audio_that_waits_for_its_pace_are_answered() -> None:
    async with serving(burst_s=1.0, max_audio_speed=0.001) as server, calling(server) as socket:
        for _ in range(100):
            await socket.send(bytes(6400))
        async with asyncio.timeout(10):
            await (await socket.ping())


async def test_a_message_above_the_limit_is_not_even_read() -> None:
    async with serving() as server, calling(server) as socket:
        with pytest.raises(Exception, match="1009"):
            await socket.send(bytes(MIB + 1))
            await socket.recv()
            await socket.recv()


async def test_a_client_that_is_held_back_is_not_judged_by_the_keepalive() -> None:
    async with (
        serving(burst_s=1.0, max_audio_speed=0.001) as server,
        calling(server) as socket,
    ):
        held = only_socket(server)
        socket.transport.write(frames(Opcode.BINARY, bytes(64_000), 1))
        socket.transport.write(frames(Opcode.BINARY, bytes(MIB - 100), 4))
        await until(lambda: held._holds)
        socket.transport.pause_reading()  # its pongs would lie behind what is held back anyhow
        held.ping_interval, held.ping_timeout = 0.01, 0.02  # until here, no client is so quick
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(held.keepalive(), 0.2)
        assert held.state is State.OPEN
        assert server.sessions == 1
        assert server._sockets


async def test_whoever_sends_is_there_although_no_ping_is_answered() -> None:
    async def send_on(socket: ClientConnection) -> None:
        while True:
            socket.transport.write(frames(Opcode.BINARY, bytes(640), 1))
            await asyncio.sleep(0)

    free = {"max_frames_per_s": 1e9, "frame_burst": 10**9, "max_audio_speed": 1e6}
    async with serving(**free) as server, calling(server) as socket:
        held = only_socket(server)
        socket.transport.pause_reading()  # so that it never answers
        held.ping_interval, held.ping_timeout = 0.01, 0.02
        sending = asyncio.create_task(send_on(socket))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(held.keepalive(), 0.3)
        assert held.state is State.OPEN
        sending.cancel()
        keeping = asyncio.create_task(held.keepalive())
        await until(lambda: held.state is not State.OPEN)
        await asyncio.gather(keeping, return_exceptions=True)


async def test_handshakes_that_never_end_make_room_for_others() -> None:
    async with serving(max_handshakes=3) as server:
        silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(10)]
        await until(lambda: len(server._shaking_hands) == 3)
        async with connect(server.url) as socket:
            await socket.send("ping")
            assert await socket.recv() == "pong"
        for _, writer in silent:
            writer.close()


async def test_chunks_are_heard_whole_and_in_order_however_the_network_cuts_them() -> None:
    async with (
        serving(max_frames_per_s=1e9, frame_burst=10**9) as server,
        calling(server),
    ):
        heard: list[bytes] = []
        socket = only_socket(server)
        socket.hear = lambda payload: heard.append(payload) or True

        @given(
            sizes=st.lists(st.sampled_from([0, 1, 125, 126, 640, 1920, 5000]), max_size=6),
            pieces=st.lists(st.sampled_from([1, 2, 3, 5, 8, 126, 648, 2048, 9000]), min_size=1),
            controls=st.booleans(),
        )
        def deliver(sizes: list[int], pieces: list[int], controls: bool) -> None:
            heard.clear()
            sent = [bytes([number]) * size for number, size in enumerate(sizes)]
            ping = frames(Opcode.PING, b"", int(controls))
            stream = b"".join(frames(Opcode.BINARY, one, 1) + ping for one in sent)
            sizes_in_turn = cycle(pieces)
            while stream:
                size = next(sizes_in_turn)
                socket.data_received(stream[:size])
                stream = stream[size:]
            while socket._unparsed:
                socket._parse()
            assert heard == sent

        deliver()


async def test_a_chunk_in_one_piece_needs_no_parser() -> None:
    # What the parser is asked for is known by a name inside of the library: if that changes, this
    # fails, and chunks cost three times as much.
    async with serving() as server, calling(server) as client:
        socket = only_socket(server)
        heard: list[bytes] = []
        socket.hear = lambda payload: heard.append(payload) or True
        socket.protocol.receive_data = None  # type: ignore[method-assign, assignment]
        socket.data_received(frames(Opcode.BINARY, b"ab" * 320, 1))
        assert heard == [b"ab" * 320]
        del socket.protocol.receive_data
        await (await client.ping())


@pytest.mark.parametrize(
    "before",
    [
        Frame(Opcode.BINARY, b"x", fin=False).serialize(mask=True),
        frames(Opcode.BINARY, b"y" * 640, 1)[:2],
        frames(Opcode.BINARY, b"y" * 640, 1)[:8],
        frames(Opcode.BINARY, b"y" * 640, 1)[:300],
        frames(Opcode.CLOSE, b"", 1),
    ],
    ids=["in a message", "2 bytes", "8 bytes", "300 bytes", "behind the end"],  # masks are random
)
async def test_what_looks_like_a_chunk_in_the_midst_of_something_else_is_none(
    before: bytes,
) -> None:
    async with serving() as server, calling(server):
        socket = only_socket(server)
        heard: list[bytes] = []
        socket.hear = lambda payload: heard.append(payload) or True
        socket.data_received(before)
        socket.data_received(frames(Opcode.BINARY, b"ab" * 320, 1))
        assert b"ab" * 320 not in heard


@pytest.mark.parametrize(("headers", "taken"), [(3, True), (5, False)])
async def test_a_handshake_is_bounded_in_all_its_headers(headers: int, taken: bool) -> None:
    async with serving() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        lines = [f"X-{number}: {'a' * 8000}" for number in range(headers)]
        request = ["GET /healthz HTTP/1.1", "Host: localhost", *lines, "", ""]
        writer.write("\r\n".join(request).encode())
        answer = b""
        with suppress(ConnectionResetError):
            answer = await reader.read()
        # What was not read yet resets the connection, and may take the answer with it.
        assert answer[:12] in ([b"HTTP/1.1 200"] if taken else [b"HTTP/1.1 431", b""])
        await until(lambda: not server._shaking_hands)
        writer.close()


@pytest.mark.parametrize("opcode", [Opcode.BINARY, Opcode.PING])
async def test_of_a_flood_behind_the_close_little_is_looked_at_and_nothing_kept(
    opcode: Opcode,
) -> None:
    async with serving() as server, calling(server) as client:
        socket = only_socket(server)
        socket.stop_listening()
        before = socket._frames
        client.transport.pause_reading()
        for _ in range(4):
            client.transport.write(frames(opcode, b"", 20_000))
        await until(lambda: client.transport.get_write_buffer_size() == 0)
        for _ in range(50):
            await asyncio.sleep(0)
        assert socket._frames - before < 256 + 2048 / 6 + 1
        assert socket.held_bytes < 2048


async def test_an_answer_to_the_close_is_found_behind_what_had_no_room() -> None:
    answer = frames(Opcode.CLOSE, b"\x03\xe8", 1)
    async with serving() as server, calling(server):
        socket = only_socket(server)
        socket._holds.add(_Hold.QUEUE)
        socket.data_received(frames(Opcode.BINARY, bytes(3000), 1) + answer[:3])
        socket.stop_listening()
        socket.data_received(answer[3:])
        assert socket.protocol.close_rcvd is not None


async def test_why_a_connection_is_lost_keeps_nothing_in_memory() -> None:
    async with serving() as server, calling(server):
        (connection,) = server._sockets
        try:
            raise BrokenPipeError("nobody reads")
        except BrokenPipeError as error:
            connection.set_connection_exc(error)
        assert isinstance(connection.connection_exc, BrokenPipeError)
        assert connection.connection_exc.__traceback__ is None
