"""What a client of labkit.v1 is told: messages that are newer than it, or wrong, and answers."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.client.answers import Unknown
from labkit.client.events import (
    Answer,
    Event,
    ReplyAudio,
    UnknownError,
    read_message,
    refuses_end,
    settles,
)
from labkit.errors import ErrorCode, ProtocolError
from labkit.protocol import v1
from labkit.protocol.replay import Missing, Position

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def test_a_known_message_is_what_it_is() -> None:
    assert read_message('{"type": "pong", "id": "a", "mood": 1}') == v1.Pong(id="a")


@pytest.mark.parametrize(
    ("seq", "number"),
    [
        (7, 7),
        (7.0, 7),
        (0, 0),
        *((wrong, None) for wrong in (None, "7", True, False, -1, 7.5, [7])),
    ],
)
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
        ('{"type": "error", "code": 5, "message": "m"}', "field 'code' of 'error' is '5'"),
        ('{"type": "error"}', "field 'code' of 'error' is "),
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


DONE = v1.ResponseDone(turn=1, status=v1.ResponseStatus.COMPLETED)


def refused(kind: str) -> v1.Error:
    cause = v1.Cause(type=kind, position=Position())
    return v1.Error(code=ErrorCode.TOO_MANY_TURNS, message="m", cause=cause)


@pytest.mark.parametrize(
    ("event", "settled"),
    [
        (DONE, True),
        (refused("audio.end"), True),
        (refused("response.cancel"), False),
        (v1.Error(code=ErrorCode.INTERNAL, message="m"), False),
        (v1.TranscriptFinal(turn=1, text="hi"), False),
    ],
)
def test_an_utterance_is_settled_by_an_answer_or_a_refusal(event: Event, settled: bool) -> None:
    assert settles(event) == settled
    assert refuses_end(event) == (settled and event is not DONE)


def test_an_answer_is_made_up_of_what_is_told_until_it_is_done() -> None:
    answer = Answer()
    gap = Missing(after=Position(), up_to=Position(samples=2))
    events = (
        v1.SpeechStarted(at_s=0),
        v1.TranscriptFinal(turn=3, text="hi"),
        v1.ResponseText(turn=3, text="Hello."),
        ReplyAudio(0, b"12"),
        gap,
        ReplyAudio(2, b"34"),
        refused("audio"),
    )
    assert not any(map(answer.take, events))
    assert answer.take(DONE.model_copy(update={"turn": 3}))
    assert (answer.turn, answer.transcript, answer.sentences) == (3, "hi", ["Hello."])
    assert (bytes(answer.audio), answer.gaps, len(answer.errors)) == (b"1234", [gap], 1)
