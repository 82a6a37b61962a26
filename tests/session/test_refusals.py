"""Rows of refused audio: the first is told at once, the others are counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import ErrorCode, ProtocolError
from labkit.session.events import Refused
from labkit.session.refusals import RefusalRows


def refusal(code: ErrorCode, number: int = 0) -> ProtocolError:
    return ProtocolError(code, f"message {number}", "hint")


def test_the_first_is_told_and_the_others_are_counted_when_the_row_is_over() -> None:
    row = RefusalRows()
    odd = [refusal(ErrorCode.ODD_LENGTH, number) for number in range(5)]
    told = [len(row.refuse(error, None, binary=True)) for error in odd]
    assert told == [1, 0, 0, 0, 0]
    (summary,) = row.end()
    assert (summary.count, str(summary.error)) == (4, "message 4")
    assert row.end() == []


def test_each_reason_is_told_once_though_they_take_turns() -> None:
    rows, told = RefusalRows(), list[Refused]()
    for code in (ErrorCode.ODD_LENGTH, ErrorCode.MESSAGE_TOO_LARGE) * 10:
        told += rows.refuse(refusal(code), None, binary=True)
    assert [(one.error.code, one.count) for one in [*told, *rows.end()]] == [
        (ErrorCode.ODD_LENGTH, 1),
        (ErrorCode.MESSAGE_TOO_LARGE, 1),
        (ErrorCode.ODD_LENGTH, 9),
        (ErrorCode.MESSAGE_TOO_LARGE, 9),
    ]


def test_a_few_good_chunks_in_between_end_no_row_and_a_second_of_them_does() -> None:
    rows, told = RefusalRows(), list[Refused]()
    for _ in range(8):
        told += rows.refuse(refusal(ErrorCode.ODD_LENGTH), None, binary=True)
        for _ in range(9):
            told += rows.accepted(0.1)
    assert [one.count for one in told] == [1]
    assert [one.count for one in rows.accepted(0.2)] == [7]
    assert not rows.go_on


@pytest.mark.parametrize(
    ("code", "outlasts"),
    [
        (ErrorCode.ODD_LENGTH, False),
        (ErrorCode.BUFFER_FULL, True),
        (ErrorCode.NOT_STARTED, True),
    ],
)
def test_text_ends_a_row_unless_its_cause_outlasts_text(code: ErrorCode, outlasts: bool) -> None:
    row = RefusalRows()
    for _ in range(3):
        row.refuse(refusal(code), None, binary=True)
    assert len(row.text_came()) == int(not outlasts)
    assert row.go_on is outlasts


@given(
    st.lists(
        st.sampled_from([ErrorCode.ODD_LENGTH, ErrorCode.BUFFER_FULL, "text", "accepted"]),
        max_size=40,
    )
)
def test_the_counts_add_up_to_what_was_refused(steps: list[ErrorCode | str]) -> None:
    row, told = RefusalRows(), []
    for step in steps:
        match step:
            case ErrorCode():
                told += row.refuse(refusal(step), None, binary=True)
            case "text":
                told += row.text_came()
            case _:
                told += row.accepted(0.3)
    told += row.end()
    for code in (ErrorCode.ODD_LENGTH, ErrorCode.BUFFER_FULL):
        assert sum(one.count for one in told if one.error.code is code) == steps.count(code)
