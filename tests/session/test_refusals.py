"""Rows of refused audio: the first is told at once, the others are counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import ErrorCode, ProtocolError
from labkit.session.refusals import RefusalRow


def refusal(code: ErrorCode, number: int = 0) -> ProtocolError:
    return ProtocolError(code, f"message {number}", "hint")


def test_the_first_is_told_and_the_others_are_counted_when_the_row_is_over() -> None:
    row = RefusalRow()
    odd = [refusal(ErrorCode.ODD_LENGTH, number) for number in range(5)]
    told = [len(row.refuse(error, None, binary=True)) for error in odd]
    assert told == [1, 0, 0, 0, 0]
    (summary,) = row.end()
    assert (summary.count, str(summary.error)) == (4, "message 4")
    assert row.end() == []


def test_another_reason_ends_a_row() -> None:
    row = RefusalRow()
    for _ in range(3):
        row.refuse(refusal(ErrorCode.ODD_LENGTH), None, binary=True)
    told = row.refuse(refusal(ErrorCode.MESSAGE_TOO_LARGE), None, binary=True)
    assert [(one.error.code, one.count) for one in told] == [
        (ErrorCode.ODD_LENGTH, 2),
        (ErrorCode.MESSAGE_TOO_LARGE, 1),
    ]


@pytest.mark.parametrize(
    ("code", "outlasts"),
    [
        (ErrorCode.ODD_LENGTH, False),
        (ErrorCode.BUFFER_FULL, True),
        (ErrorCode.NOT_STARTED, True),
    ],
)
def test_text_ends_a_row_unless_its_cause_outlasts_text(code: ErrorCode, outlasts: bool) -> None:
    row = RefusalRow()
    for _ in range(3):
        row.refuse(refusal(code), None, binary=True)
    assert len(row.text_came()) == int(not outlasts)
    assert row.goes_on is outlasts


@given(
    st.lists(
        st.sampled_from([ErrorCode.ODD_LENGTH, ErrorCode.BUFFER_FULL, "text", "accepted"]),
        max_size=40,
    )
)
def test_the_counts_add_up_to_what_was_refused(steps: list[ErrorCode | str]) -> None:
    row, told = RefusalRow(), []
    for step in steps:
        match step:
            case ErrorCode():
                told += row.refuse(refusal(step), None, binary=True)
            case "text":
                told += row.text_came()
            case _:
                told += row.end()
    told += row.end()
    for code in (ErrorCode.ODD_LENGTH, ErrorCode.BUFFER_FULL):
        assert sum(one.count for one in told if one.error.code is code) == steps.count(code)
