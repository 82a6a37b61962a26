"""What hostile clients send: reproducible, varied, and mostly wrong, down to the frames."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from websockets.exceptions import WebSocketException
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

from labkit.drills import Dialect, inputs
from labkit.drills.inputs import (
    LIMITS,
    Context,
    Kind,
    break_bytes,
    draw,
    fitting,
    frame,
    handshake,
    mutated,
    start_message,
)
from labkit.errors import ErrorCode, ProtocolError
from labkit.protocol import v1
from labkit.protocol.replay import Position
from labkit.protocol.schema import schema

TICKETS = (
    v1.Resume(session="a session", token="a token", received=Position(messages=3, samples=40)),
)
CONTEXT = {dialect: Context(dialect, TICKETS) for dialect in Dialect}
MANY = 600
SCHEMA = schema()


def drawn(dialect: Dialect, seed: int = 1) -> list[tuple[Kind, str | bytes]]:
    rng = random.Random(seed)
    messages = [draw(rng, CONTEXT[dialect]) for _ in range(MANY)]
    return [(message.kind, message.payload) for message in messages]


@pytest.mark.parametrize("dialect", Dialect)
def test_the_same_seed_draws_the_same_messages(dialect: Dialect) -> None:
    assert drawn(dialect) == drawn(dialect)
    assert drawn(dialect) != drawn(dialect, seed=2)


def test_every_kind_is_drawn() -> None:
    kinds = {
        dialect: {kind for kind, (weights, _) in inputs._MAKERS.items() if weights[dialect]}
        for dialect in Dialect
    }
    assert kinds[Dialect.V1] == set(Kind)
    assert kinds[Dialect.PLAIN] == set(Kind) - {Kind.RESUME, Kind.ACK}


def test_messages_are_as_wrong_as_their_kind_says() -> None:
    rng, context = random.Random(1), CONTEXT[Dialect.V1]
    rare = [(kind, make(rng, context)) for kind, (_, make) in inputs._MAKERS.items()]
    for kind, payload in [*drawn(Dialect.V1), *rare]:
        match kind:
            case Kind.VALID:
                assert isinstance(payload, str)
                v1.decode_client(payload)
            case Kind.FRAGMENTS | Kind.PING | Kind.PONG:
                pass  # as binary messages are, and no message at all
            case Kind.EMPTY:
                assert not payload
            case Kind.NOT_UTF8:
                assert isinstance(payload, bytes)
                with pytest.raises(UnicodeDecodeError):
                    payload.decode()
            case Kind.TOO_LARGE | Kind.UNREADABLE:
                unread = kind is Kind.UNREADABLE
                limit = LIMITS.max_read_bytes if unread else LIMITS.max_message_bytes
                size = len(payload.encode() if isinstance(payload, str) else payload)
                assert size > limit
            case Kind.RANDOM_TEXT:
                assert isinstance(payload, str)
                payload.encode()  # whatever it is, it can be sent


def test_acknowledgements_and_resumes_are_sometimes_right() -> None:
    acks = {payload for kind, payload in drawn(Dialect.V1) if kind is Kind.ACK}
    assert len(acks) > 3
    resumes = [json.loads(payload) for kind, payload in drawn(Dialect.V1) if kind is Kind.RESUME]
    tokens = {start["resume"]["token"] for start in resumes}
    assert "a token" in tokens
    assert len(tokens) > 3


@given(st.randoms(use_true_random=False))
def test_what_is_made_from_the_schema_fits_it_and_the_server_agrees(rng: random.Random) -> None:
    message = fitting(rng, SCHEMA["$defs"]["client"])
    Draft202012Validator(SCHEMA).validate(message)
    v1.decode_client(json.dumps(message))


def test_fragments_and_pings_are_what_a_frame_may_hold() -> None:
    rng = random.Random(1)
    for _ in range(500):
        message = draw(rng, CONTEXT[Dialect.PLAIN])
        assert list(message.cuts) == sorted(message.cuts)
        assert all(0 <= cut <= len(message.payload) for cut in message.cuts)
        assert message.kind not in (Kind.PING, Kind.PONG) or len(message.payload) <= 125


@given(st.randoms(use_true_random=False))
def test_a_start_is_one_that_a_server_has_to_accept(rng: random.Random) -> None:
    assert isinstance(v1.decode_client(json.dumps(start_message(rng))), v1.SessionStart)


def test_mutated_messages_are_refused_in_many_ways_and_never_by_accident() -> None:
    rng, codes = random.Random(1), set()
    for _ in range(1_000):
        try:
            v1.decode_client(mutated(rng, start_message(rng)))
        except ProtocolError as error:
            codes.add(error.code)
            assert len(str(error)) < 1_000
    assert codes == {
        ErrorCode.INVALID_JSON,
        ErrorCode.UNKNOWN_TYPE,
        ErrorCode.INVALID_FIELD,
        ErrorCode.MESSAGE_TOO_LARGE,
    }


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
    broken = break_bytes(random.Random(seed), opened=True)
    server = opened()
    server.receive_data(broken.data)
    if broken.ends and "UTF-8" not in broken.name:  # text is decoded later
        assert server.close_expected(), broken.name


@pytest.mark.parametrize("seed", range(60))
def test_handshakes_that_must_fail_are_none(seed: int) -> None:
    broken = break_bytes(random.Random(seed), opened=False)
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


@pytest.mark.parametrize("opened", [True, False])
def test_a_seed_breaks_in_the_same_way(opened: bool) -> None:
    made = [break_bytes(random.Random(5), opened=opened) for _ in range(2)]
    assert made[0] == made[1]
    names = {break_bytes(random.Random(seed), opened=opened).name for seed in range(300)}
    assert len(names) > 15
