"""Messages of newer servers, and of servers of something else."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.client.events import UnknownError, read_message
from labkit.client.foreign import Unknown
from labkit.errors import ErrorCode, ProtocolError
from labkit.protocol import v1

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def test_a_known_message_is_what_it_is() -> None:
    assert read_message('{"type": "pong", "id": "a", "mood": 1}') == v1.Pong(id="a")


@pytest.mark.parametrize(("seq", "number"), [(7, 7), (None, None), ("7", None)])
def test_an_unknown_type_is_handed_on_with_all_that_it_says(
    seq: object, number: int | None
) -> None:
    fields = {"type": "mood", "seq": seq, "mood": "good"}
    message = read_message(json.dumps(fields))
    assert message == Unknown("mood", fields)
    assert message.seq == number


def test_an_unknown_code_is_an_error_like_any_other() -> None:
    fields = {"type": "error", "seq": 3, "code": "brand_new", "message": "m", "fatal": True}
    message = read_message(json.dumps(fields))
    assert isinstance(message, UnknownError)
    assert (message.code, message.message, message.seq, message.fatal) == (
        "brand_new",
        "m",
        3,
        True,
    )
    assert not isinstance(
        read_message(v1.Error(code=ErrorCode.IDLE, message="m").encode()), UnknownError
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hello", "no JSON object"),
        ("[" * 100_000, "no JSON object"),
        ('"text"', "no object"),
        ("{}", "has no 'type'"),
        ('{"type": 5}', "type '5' is unknown"),
        ('{"type": "error", "code": 5, "message": "m"}', "field 'code' of 'error': "),
        ('{"type": "error"}', "field 'code' of 'error': Field required"),
        (
            '{"type": "transcript.final", "turn": 0, "text": ""}',
            "field 'turn' of 'transcript.final'",
        ),
    ],
)
def test_what_is_no_message_is_told_in_words(text: str, words: str) -> None:
    with pytest.raises(ProtocolError) as told:
        read_message(text)
    assert words in str(told.value)
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 300


@given(st.text() | JSON.map(json.dumps) | st.dictionaries(st.text(), JSON).map(json.dumps))
def test_no_text_raises_anything_else(text: str) -> None:
    try:
        read_message(text)
    except ProtocolError:
        pass
