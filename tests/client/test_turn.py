"""A turn of the plain dialect: what of the messages belongs to it, and when it is complete."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.audio.pcm import encode_s16le, wav_file
from labkit.client.speech import Clock
from labkit.client.turn import ClientTurn, RunningTurn
from labkit.errors import ClientError, LabkitError, ProtocolError
from labkit.protocol.plain import PONG
from labkit.trace import Mark

AUDIO = encode_s16le(np.full(1600, 0.1, np.float32))
HEARD = json.dumps({"type": "transcript", "text": "hi"})
DONE = json.dumps({"type": "done"})


def wav(samples: int) -> bytes:
    return wav_file(np.zeros(samples, np.float32), 8000)


def running(*early: str | bytes, stream: bool = True) -> RunningTurn:
    """One whose answer was asked for, behind what came unasked."""
    turn = RunningTurn(Clock(), stream=stream)
    turn.begun = True
    for message in early:
        turn.take(message, 0)
    turn.mark(Mark.END_STREAM_SENT)
    turn.so_far.said_s, turn.so_far.asked = 0.1, "end_stream"
    return turn


def answered(*messages: str | bytes, stream: bool = True) -> ClientTurn:
    """A turn that was complete with the last of `messages`."""
    turn = running(stream=stream)
    for message in messages:
        assert not turn.settled
        turn.take(message, Clock().now_ns())
    assert turn.settled
    return turn.finish()


@pytest.mark.parametrize("stream", [True, False])
def test_another_order_is_taken_and_named(stream: bool) -> None:
    turn = answered(AUDIO, HEARD, *[DONE] * stream, stream=stream)
    assert (turn.transcript, len(turn.reply)) == ("hi", 1600)
    assert turn.remarks[:1] == ["the reply came before the transcript"]


def test_text_in_a_binary_message_is_named() -> None:
    turn = answered(HEARD.encode(), AUDIO, DONE.encode())
    assert (turn.transcript, len(turn.reply)) == ("hi", 1600)
    assert "'transcript' came as a binary message, where text is due" in turn.remarks


def test_a_done_alone_ends_the_turn_and_is_named() -> None:
    turn = answered(DONE)
    assert (turn.transcript, len(turn.reply)) == ("", 0)
    assert turn.remarks == ["no transcript came"]


def test_a_done_before_its_reply_is_named() -> None:
    turn = answered(HEARD, json.dumps({"type": "done", "reply_text": "Hi."}))
    assert turn.remarks == ["'done' tells of a reply, and came before any of its audio"]


@pytest.mark.parametrize("messages", [(HEARD, AUDIO, PONG), (AUDIO, PONG, HEARD)])
def test_a_pong_behind_the_reply_shows_that_messages_are_answered_in_turn(
    messages: tuple[str | bytes, ...],
) -> None:
    turn = running()
    for message in (PONG, *messages):
        assert not turn.looks_whole or not turn.in_turn
        turn.take(message, 1)
    assert turn.looks_whole
    assert turn.in_turn


def test_a_mistake_is_told_with_what_came_before_it() -> None:
    turn = running()
    for message in (HEARD, "hello", "again"):
        turn.take(message, 1)
    assert isinstance(turn.failure, ProtocolError)
    assert str(turn.failure).endswith(
        "; sent 0.1 s of audio and 'end_stream'; what came: transcript 'hi'"
    )
    assert "'hello' is no JSON object" in str(turn.failure)


def test_a_reply_without_an_end_is_given_up() -> None:
    turn = running()
    for _ in range(21):
        turn.take(bytes(2 * 16_000 * 30), 1)
    assert isinstance(turn.failure, ClientError)
    assert str(turn.failure) == "the reply does not end; what came: 630.0 s of reply"


def test_a_turn_that_was_given_up_takes_nothing() -> None:
    turn = running(AUDIO)
    turn.break_off()
    for message in (HEARD, AUDIO, DONE):
        turn.take(message, 1)
    assert (turn.settled, turn.so_far.heard, turn.so_far.reply_s) == (False, None, 0)


def test_a_turn_of_which_nothing_went_out_has_not_begun() -> None:
    turn = RunningTurn(Clock(), stream=True)
    turn.take('{"type": "error", "message": "rate limit"}', 0)
    turn.begun = True
    turn.mark(Mark.STREAM_STARTED, 5)
    turn.break_off()
    assert (turn.begun, turn.failure, turn.result.trace.marks) == (False, None, {})
    assert len(turn.result.errors) == 1, "what came unasked is still told"


@pytest.mark.parametrize(
    "unasked", [lambda number: AUDIO, str, '{{"type": "error", "message": "no {0}"}}'.format]
)
def test_what_nobody_asked_for_is_counted_and_not_kept(unasked: object) -> None:
    assert callable(unasked)
    turn = running(*(unasked(number) for number in range(1000)))
    assert len(turn.result.remarks) + len(turn.result.errors) <= 100
    assert len(turn.so_far.came) <= 21
    assert sum(turn.so_far.came.values()) == 1000
    assert len(turn.finish().reply) == 0


FIELDS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
NAMES = st.sampled_from(("text", "code", "message", "hint", "count", "reply_text", "marks", "type"))
TYPES = st.sampled_from(("transcript", "done", "error", "mood", ""))
TEXTS = st.builds(
    lambda kind, fields: json.dumps({"type": kind, **fields}),
    TYPES,
    st.dictionaries(NAMES, FIELDS | st.dictionaries(st.text(max_size=3), FIELDS, max_size=2)),
)
MESSAGES = (
    TEXTS
    | TEXTS.map(str.encode)
    | st.text(max_size=20)
    | st.binary(max_size=50)
    | st.sampled_from((PONG, HEARD, DONE, AUDIO, wav(0), wav(1), wav(50)[:60], wav(50) * 2))
)


@given(st.lists(MESSAGES, max_size=3), st.lists(MESSAGES, max_size=8), st.booleans())
def test_whatever_comes_the_turn_goes_on_or_fails_in_words(
    early: list[str | bytes], messages: list[str | bytes], stream: bool
) -> None:
    turn = running(*early, stream=stream)
    for at_ns, message in enumerate(messages):
        if not turn.settled:
            turn.take(message, at_ns)
    if turn.failure is not None:
        assert isinstance(turn.failure, LabkitError), turn.failure
        assert "\n" not in str(turn.failure)
    else:
        assert turn.finish().reply_seconds == pytest.approx(turn.so_far.reply_s, abs=0.01)
