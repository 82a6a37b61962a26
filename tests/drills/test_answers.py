"""What a server may say, and that everything else is noticed."""

import json

import pytest

from labkit.drills.answers import PlainAnswers, Tally, V1Answers
from labkit.errors import ErrorCode
from labkit.protocol import plain, v1
from labkit.protocol.replay import Missing, Position
from labkit.server.v1 import limits_of
from labkit.session.settings import ServerSettings

PCM = bytes(640)
TRANSCRIPT = plain.Transcript(text="hi").encode()
DONE = plain.Done(reply_text="hi", reply_samples=320).encode()
ERROR = plain.Error(code=ErrorCode.UNKNOWN_COMMAND, message="x").encode()

Said = list[str | bytes]


def plain_faults(said: Said, asked: Said, *, stream: bool = True) -> list[str]:
    tally = Tally()
    answers = PlainAnswers(tally, stream=stream)
    for message in asked:
        answers.asked(message)
    for message in said:
        answers.take(message)
    return tally.examples


def test_turns_pongs_and_errors_are_what_the_plain_dialect_says() -> None:
    asked: Said = ["end_stream", " ping", "end_stream"]
    streamed: Said = [TRANSCRIPT, PCM, ERROR, PCM, "pong", DONE, TRANSCRIPT, DONE]
    assert plain_faults(streamed, asked) == []
    whole: Said = [TRANSCRIPT, "pong", PCM, TRANSCRIPT, b""]
    assert plain_faults(whole, asked, stream=False) == []


@pytest.mark.parametrize(
    ("said", "stream", "fault"),
    [
        ([PCM], True, "audio outside of a reply"),
        ([TRANSCRIPT, PCM, PCM], False, "audio outside of a reply"),
        ([TRANSCRIPT, DONE, PCM], True, "audio outside of a reply"),
        ([TRANSCRIPT, b"odd"], True, "no whole number of samples"),
        ([TRANSCRIPT, TRANSCRIPT], True, "a transcript inside of a reply"),
        ([DONE], True, "'done' without a reply"),
        ([TRANSCRIPT, DONE], False, "'done' without a reply"),
        (["hello"], True, "none of the plain dialect"),
        (["pong", "pong"], True, "a pong that nobody asked for"),
        ([TRANSCRIPT, DONE] * 3, True, "a transcript that nobody asked for"),
        ([plain.Error(code=ErrorCode.INTERNAL, message="").encode()], True, "error internal"),
    ],
)
def test_what_the_plain_dialect_does_not_say_is_noticed(
    said: Said, stream: bool, fault: str
) -> None:
    found = plain_faults(said, ["end_stream", "end_stream", "ping"], stream=stream)
    assert any(fault in one for one in found), found


def started(*, resumed: bool = False, missing: Missing | None = None) -> str:
    return v1.SessionStarted(
        session="s", token="t", resumed=resumed, input=v1.AudioSpec(), output=v1.AudioSpec(),
        turn_detection=v1.TurnDetection.CLIENT, received=Position(), missing=missing,
        limits=limits_of(ServerSettings()),
    ).encode()  # fmt: skip


def response(first: int) -> Said:
    return [
        v1.TranscriptFinal(seq=first, turn=1, text="hi").encode(),
        v1.ResponseStarted(seq=first + 1, turn=1).encode(),
        PCM,
        v1.ResponseDone(seq=first + 2, turn=1, status=v1.ResponseStatus.COMPLETED).encode(),
    ]


def v1_faults(said: Said, resumes_at: Position | None = None) -> list[str]:
    tally = Tally()
    answers = V1Answers(tally, resumes_at)
    for message in said:
        answers.take(message)
    return tally.examples


def error(seq: int | None) -> str:
    return v1.Error(seq=seq, code=ErrorCode.INVALID_JSON, message="x").encode()


def ack(samples: int) -> str:
    return v1.AudioAck(received=Position(samples=samples)).encode()


def test_what_labkit_v1_says_is_no_fault() -> None:
    assert v1_faults([error(None), started(), ack(1), *response(1), error(4), ack(1)]) == []


def test_a_resume_goes_on_where_it_was_asked_to_or_behind_what_is_missing() -> None:
    at = Position(messages=6, samples=9)
    assert v1_faults([started(resumed=True), PCM, error(7)], at) == []
    assert "number 8 after number 6" in v1_faults([started(resumed=True), error(8)], at)[0]
    gap = Missing(after=at, up_to=Position(messages=8, samples=9))
    assert v1_faults([started(resumed=True, missing=gap), error(9)], at) == []


def test_after_a_refused_resume_the_session_counts_from_its_own_beginning() -> None:
    at = Position(messages=6)
    assert v1_faults([error(None), started(resumed=True), error(40)], at) == []


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (["hello"], "no JSON object"),
        ([PCM], "audio outside of a response"),
        ([started(), PCM], "audio outside of a response"),
        ([started(), *response(1), PCM], "audio outside of a response"),
        ([started(), *response(1)[:2], b"odd"], "no whole number of samples"),
        ([started(), error(2)], "number 2 after number 0"),
        ([started(), error(1), error(1)], "number 1 after number 1"),
        ([error(1)], "number 1 before the session"),
        ([started(), started()], "a second 'session.started'"),
        ([started(), *response(1)[:2], response(2)[1]], "inside of a response"),
        ([started(), ack(9), ack(8)], "acknowledged after"),
    ],
)
def test_what_labkit_v1_does_not_say_is_noticed(said: Said, fault: str) -> None:
    assert any(fault in one for one in v1_faults(said)), v1_faults(said)


def test_a_ticket_says_how_far_the_client_has_come() -> None:
    answers = V1Answers(Tally())
    assert answers.ticket is None
    for message in [started(), *response(1)]:
        answers.take(message)
    assert answers.ticket is not None
    assert answers.ticket.received == Position(messages=3, samples=320)


def test_the_last_message_is_settled_by_its_own_answer() -> None:
    simple = PlainAnswers(Tally(), stream=True)
    simple.asked(simple.last)
    assert not simple.settled
    simple.take("pong")
    assert simple.settled
    answers = V1Answers(Tally())
    answers.take(v1.Pong(id="another").encode())
    assert not answers.settled
    answers.take(v1.Pong(id=v1.decode_client(answers.last).id).encode())
    assert answers.settled


@pytest.mark.parametrize(("code", "fault"), [(1000, 0), (1002, 0), (4008, 0), (1011, 1), (None, 1)])
def test_a_close_that_tells_of_a_fault_is_noticed(code: int | None, fault: int) -> None:
    tally = Tally()
    tally.take_close(code)
    assert tally.illegal == fault


def odd(count: int = 1) -> str:
    message = {"type": "error", "code": "odd_length", "message": "x", "count": count}
    return json.dumps(message)


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ([odd(), odd(), odd()], []),
        ([odd(), odd(2)], []),
        ([odd()], ["3 messages were odd_length, and 1 told of"]),
    ],
)
def test_every_refusal_is_told_one_by_one_or_as_a_count(said: list[str], fault: list[str]) -> None:
    answers = PlainAnswers(Tally(), stream=True)
    for _ in range(3):
        answers.asked(b"x")
    for message in said:
        answers.take(message)
    assert answers.untold == fault


def test_what_labkit_v1_refused_before_a_resume_is_told_again_and_not_counted() -> None:
    for resumed in (False, True):
        answers = V1Answers(Tally())
        answers.take(started(resumed=resumed))
        answers.asked("no JSON")
        assert bool(answers.untold) is not resumed
