"""What a caller notes, and which message belongs to which request."""

import pytest

from labkit.errors import CloseCode, ErrorCode
from labkit.measure.call_log import CallLog, Request
from labkit.protocol import plain

DONE = plain.Done(reply_text="", reply_samples=0).encode()
HEARD = plain.Transcript(text="hi").encode()


def refusal(code: ErrorCode) -> str:
    return plain.Error(code=code, message="no", hint="yes").encode()


def test_latency_counts_from_when_it_was_due() -> None:
    request = Request(due_ns=100)
    request.answer(350)
    request.answer(900)
    assert request.latency_ns(patience_ns=10_000) == 250


def test_a_lost_request_counts_with_the_whole_patience() -> None:
    assert Request(due_ns=100).latency_ns(10_000) == 10_000
    assert Request(due_ns=100, answered_ns=110, lost=True).latency_ns(10_000) == 10_000


def test_a_turn_is_answered_by_its_first_audio_and_over_with_done() -> None:
    log = CallLog()
    turn = log.ask(0)
    log.take(HEARD, 5)
    assert turn.answered_ns is None
    log.take(b"\0\0", 7)
    assert turn.answered_ns == 7
    assert log.is_open(turn)
    log.take(b"\0\0", 8)
    log.take(DONE, 9)
    assert (turn.answered_ns, turn.lost) == (7, False)
    assert not log.is_open(turn)
    assert log.bytes_received == len(HEARD) + 4 + len(DONE)


def test_a_reply_without_audio_is_answered_by_done() -> None:
    log = CallLog()
    turn = log.ask(0)
    log.take(b"", 4)
    log.take(DONE, 9)
    assert turn.answered_ns == 9


def test_a_late_answer_belongs_to_the_turn_that_was_given_up() -> None:
    log = CallLog()
    first = log.ask(0)
    first.lost = True
    second = log.ask(100)
    log.take(b"\0\0", 110)
    log.take(DONE, 120)
    assert (first.answered_ns, first.lost) == (110, True)
    assert (second.answered_ns, log.is_open(second)) == (None, True)
    log.take(DONE, 130)
    assert (second.answered_ns, second.lost) == (130, False)


def test_pongs_answer_pings_in_order() -> None:
    log = CallLog()
    first, second = log.ping(0), log.ping(10)
    log.take("pong", 12)
    assert (first.answered_ns, second.answered_ns) == (12, None)
    assert log.waits_for_pongs
    log.take("pong", 15)
    assert second.answered_ns == 15
    assert not log.waits_for_pongs


def test_a_turn_that_an_engine_failed_is_lost() -> None:
    log = CallLog()
    turn = log.ask(0)
    log.take(refusal(ErrorCode.ENGINE_FAILED), 3)
    log.take(DONE, 4)
    assert turn.lost
    assert not log.is_open(turn)
    assert log.errors == {"engine_failed": 1}


def test_one_turn_too_many_is_the_newest() -> None:
    log = CallLog()
    first, second = log.ask(0), log.ask(1)
    log.take(refusal(ErrorCode.TOO_MANY_TURNS), 2)
    assert (first.lost, second.lost) == (False, True)
    assert log.is_open(first)
    assert not log.is_open(second)


def test_other_errors_are_counted_and_lose_nothing() -> None:
    log = CallLog()
    turn = log.ask(0)
    log.take(refusal(ErrorCode.BUFFER_FULL), 2)
    log.take("nonsense", 2)
    assert not turn.lost
    assert log.errors == {"buffer_full": 1, "not_understood": 1}


@pytest.mark.parametrize("message", [b"\0\0", DONE, "pong", refusal(ErrorCode.ENGINE_FAILED)])
def test_what_nobody_asked_for_is_no_answer(message: str | bytes) -> None:
    log = CallLog()
    log.take(message, 1)
    assert (log.turns, log.pings) == ([], [])


@pytest.mark.parametrize(
    ("code", "name"), [(CloseCode.INTERNAL_ERROR, "closed_1011"), (None, "closed_1006")]
)
def test_a_lost_connection_loses_what_is_open(code: int | None, name: str) -> None:
    log = CallLog()
    turn, ping = log.ask(0), log.ping(0)
    log.hang_up(code)
    assert turn.lost
    assert ping.lost
    assert not log.refused
    assert log.errors == {name: 1}


def test_a_refused_caller_has_nothing_to_lose() -> None:
    log = CallLog()
    log.ping(0)
    log.hang_up(1013)
    assert log.refused
    assert (log.turns, log.pings, log.errors) == ([], [], {})
