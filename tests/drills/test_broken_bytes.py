"""Frames and handshakes, right and broken."""

import random

import pytest
from websockets.exceptions import WebSocketException
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

from labkit.drills.broken_bytes import broken_frames, broken_handshake, frame, handshake


def opened() -> ServerProtocol:
    """The library's own view of a server, without a socket."""
    server = ServerProtocol()
    server.receive_data(handshake())
    (request,) = server.events_received()
    server.send_response(server.accept(request))  # type: ignore[arg-type]
    server.data_to_send()
    return server


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_a_whole_frame_is_understood_by_the_library(size: int) -> None:
    server = opened()
    server.receive_data(frame(2, bytes(size)))
    (got,) = server.events_received()
    assert isinstance(got, Frame)
    assert got.opcode is Opcode.BINARY
    assert bytes(got.data) == bytes(size)


def test_fragments_are_fragments() -> None:
    server = opened()
    server.receive_data(frame(1, b"pi", fin=False) + frame(0, b"ng"))
    first, second = server.events_received()
    assert isinstance(first, Frame) and isinstance(second, Frame)
    assert (first.opcode is Opcode.TEXT, first.fin, second.fin) == (True, False, True)


@pytest.mark.parametrize("seed", range(60))
def test_frames_that_must_end_the_connection_do(seed: int) -> None:
    broken = broken_frames(random.Random(seed))
    server = opened()
    server.receive_data(broken.data)
    if broken.ends and "UTF-8" not in broken.name:  # text is decoded later
        assert server.close_expected(), broken.name


@pytest.mark.parametrize("seed", range(60))
def test_handshakes_that_must_fail_are_none(seed: int) -> None:
    broken = broken_handshake(random.Random(seed))
    server = ServerProtocol()
    server.receive_data(broken.data)
    if not broken.ends or broken.name in ("two requests", "wrong subprotocols"):
        return
    requests = server.events_received()
    if requests:
        response = server.accept(requests[0])  # type: ignore[arg-type]
        assert response.status_code != 101, broken.name
    else:
        assert isinstance(server.handshake_exc, WebSocketException | ValueError | EOFError), (
            broken.name
        )


def test_a_seed_breaks_in_the_same_way() -> None:
    for break_bytes in (broken_frames, broken_handshake):
        assert break_bytes(random.Random(5)) == break_bytes(random.Random(5))
        assert len({break_bytes(random.Random(seed)).name for seed in range(300)}) > 15
