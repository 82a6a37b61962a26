"""The JSON Schema takes what the models take, and refuses what they refuse."""

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from labkit.errors import ProtocolError
from labkit.protocol import v1
from labkit.protocol.page import CLIENT_EXAMPLES, server_examples
from labkit.protocol.schema import schema, schema_text
from labkit.server.v1 import limits_of
from labkit.session.settings import ServerSettings

SERVER_EXAMPLES = server_examples(limits_of(ServerSettings()))
DOCUMENT = schema()


def validator(side: str) -> Draft202012Validator:
    one_side = {key: value for key, value in DOCUMENT.items() if key != "anyOf"}
    return Draft202012Validator({**one_side, "$ref": f"#/$defs/{side}"})


CLIENT, SERVER = validator("client"), validator("server")


def test_the_document_is_a_schema_that_names_the_dialect() -> None:
    Draft202012Validator.check_schema(DOCUMENT)
    assert DOCUMENT["title"] == "labkit.v1"
    assert "$id" not in DOCUMENT
    assert json.loads(schema_text()) == DOCUMENT


@pytest.mark.parametrize(
    ("examples", "union"),
    [(CLIENT_EXAMPLES, v1.ClientMessage), (SERVER_EXAMPLES, v1.ServerMessage)],
)
def test_there_is_one_example_of_each_message(examples: tuple[Any, ...], union: Any) -> None:
    assert [type(example) for example in examples] == list(get_args(union))


@pytest.mark.parametrize(
    ("example", "side"),
    [(one, CLIENT) for one in CLIENT_EXAMPLES] + [(one, SERVER) for one in SERVER_EXAMPLES],
    ids=lambda value: getattr(value, "type", ""),
)
def test_every_example_fits(example: Any, side: Draft202012Validator) -> None:
    message = json.loads(example.encode())
    side.validate(message)
    Draft202012Validator(DOCUMENT).validate(message)


@pytest.mark.parametrize("model", get_args(v1.ClientMessage), ids=lambda model: model.__name__)
def test_a_message_has_a_type(model: type[BaseModel]) -> None:
    assert "type" in DOCUMENT["$defs"][model.__name__]["required"]


@pytest.mark.parametrize(
    "message",
    [
        {},
        [],
        {"type": "audio.stop"},
        {"type": "pong"},
        {"type": "response.cancel"},
        {"type": "response.cancel", "turn": 0},
        {"type": "response.cancel", "turn": "1"},
        {"type": "ping", "id": "x" * 65},
        {"type": "ping", "mood": "good"},
        {"type": "session.start", "input": {"sample_rate": 7999}},
        {"type": "session.start", "acknowledges": "yes"},
        {"type": "session.start", "silence_s": 0.1},
        {"type": "response.cancel", "turn": 1.5},
    ],
    ids=json.dumps,
)
def test_a_bad_message_of_a_client_does_not_fit(message: object) -> None:
    assert not CLIENT.is_valid(message)


FIELDS = [
    "id", "turn", "heard_samples", "acknowledges", "received", "resume", "input", "silence_s",
    "turn_detection", "protocol", "other",
]  # fmt: skip
NUMBERS = st.integers(-1, 3) | st.sampled_from(
    [0.0, 0.5, 1.0, -1.0, 2.5, 8000, 8000.0, 16e3, 48_000.5, 2**53, 2.0**53, 2**53 + 1, 1e300]
)
PARTS = st.dictionaries(
    st.sampled_from(["samples", "messages", "sample_rate", "channels", "encoding", "session"]),
    NUMBERS | st.sampled_from(["alaw", "mulaw", "opus", "x", None, True]),
    max_size=2,
)
VALUES = (
    st.none()
    | st.booleans()
    | NUMBERS
    | PARTS
    | st.sampled_from(["", "1", "x" * 64, "x" * 65, "client", "server", "labkit.v1", [], [1]])
    | st.fixed_dictionaries({"session": st.just("a"), "token": st.just("b")})
)


@given(
    st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=3),
    st.sampled_from([example.type for example in CLIENT_EXAMPLES]),
)
def test_the_server_takes_exactly_what_fits(fields: dict[str, object], kind: str) -> None:
    message = {**fields, "type": kind}
    try:
        v1.decode_client(json.dumps(message))
    except ProtocolError:
        assert not CLIENT.is_valid(message)
    else:
        CLIENT.validate(message)
