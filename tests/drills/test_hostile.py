"""What hostile clients send: reproducible, varied, and mostly wrong."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.drills.hostile import (
    Context,
    Dialect,
    Kind,
    Ticket,
    draw,
    mutated,
    start_message,
)
from labkit.errors import ErrorCode, ProtocolError
from labkit.protocol import v1
from labkit.protocol.replay import Position

CONTEXT = Context(
    2_000, 10_000, (Ticket("a session", "a token", Position(messages=3, samples=40)),)
)
MANY = 10_000


def drawn(dialect: Dialect, seed: int = 1) -> list[tuple[Kind, str | bytes, bool]]:
    rng = random.Random(seed)
    messages = [draw(rng, dialect, CONTEXT) for _ in range(MANY)]
    return [(message.kind, message.payload, message.as_text) for message in messages]


@pytest.mark.parametrize("dialect", Dialect)
def test_the_same_seed_draws_the_same_messages(dialect: Dialect) -> None:
    assert drawn(dialect) == drawn(dialect)
    assert drawn(dialect) != drawn(dialect, seed=2)


def test_every_kind_is_drawn() -> None:
    assert {kind for kind, *_ in drawn(Dialect.V1)} == set(Kind)
    assert {kind for kind, *_ in drawn(Dialect.PLAIN)} == set(Kind) - {Kind.RESUME, Kind.ACK}


def test_messages_are_as_wrong_as_their_kind_says() -> None:
    for kind, payload, as_text in drawn(Dialect.V1):
        match kind:
            case Kind.VALID:
                assert isinstance(payload, str)
                v1.decode_client(payload)
            case Kind.EMPTY:
                assert not payload
            case Kind.NOT_UTF8:
                assert as_text and isinstance(payload, bytes)
                with pytest.raises(UnicodeDecodeError):
                    payload.decode()
            case Kind.TOO_LARGE | Kind.UNREADABLE:
                limit = 10_000 if kind is Kind.UNREADABLE else 2_000
                size = len(payload.encode() if isinstance(payload, str) else payload)
                assert size > limit
            case Kind.RANDOM_TEXT:
                assert isinstance(payload, str)
                payload.encode()  # whatever it is, it can be sent


def test_acknowledgements_and_resumes_are_sometimes_right() -> None:
    acks = {payload for kind, payload, _ in drawn(Dialect.V1) if kind is Kind.ACK}
    assert len(acks) > 3
    resumes = [json.loads(payload) for kind, payload, _ in drawn(Dialect.V1) if kind is Kind.RESUME]
    tokens = {start["resume"]["token"] for start in resumes}
    assert "a token" in tokens
    assert len(tokens) > 3


@given(st.randoms(use_true_random=False))
def test_a_start_is_one_that_a_server_has_to_accept(rng: random.Random) -> None:
    assert isinstance(v1.decode_client(json.dumps(start_message(rng))), v1.SessionStart)


def test_mutated_messages_are_refused_in_many_ways_and_never_by_accident() -> None:
    rng, codes = random.Random(1), set()
    for _ in range(3_000):
        try:
            v1.decode_client(mutated(rng, start_message(rng)))
        except ProtocolError as error:
            codes.add(error.code)
            assert len(str(error)) < 1_000
    assert codes == {ErrorCode.INVALID_JSON, ErrorCode.UNKNOWN_TYPE, ErrorCode.INVALID_FIELD}
