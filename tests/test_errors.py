"""The exception tree, the tables of codes, and what the messages say."""

import inspect
import re
from pathlib import Path

import pytest

from labkit import errors

CLASSES = [
    member
    for _, member in inspect.getmembers(errors, inspect.isclass)
    if issubclass(member, Exception) and member.__module__ == errors.__name__
]


def drawn_tree() -> dict[str, str]:
    """Each class drawn in the module's docstring with its parent, by indentation."""
    assert errors.__doc__ is not None
    parents: dict[str, str] = {}
    stack: list[tuple[int, str]] = []
    for line in errors.__doc__.splitlines():
        if found := re.match(r"^[ │├└─]*?([A-Z]\w+Error|Close)\b", line):
            column, name = found.start(1), found.group(1)
            stack = [entry for entry in stack if entry[0] < column]
            parents[name] = stack[-1][1] if stack else "Exception"
            stack.append((column, name))
    return parents


def test_the_docstring_draws_the_tree_as_it_is() -> None:
    actual = {member.__name__: member.__mro__[1].__name__ for member in CLASSES}
    assert drawn_tree() == actual


def test_error_codes_are_written_as_their_names() -> None:
    assert [code.value for code in errors.ErrorCode] == [
        code.name.lower() for code in errors.ErrorCode
    ]


@pytest.mark.parametrize("table", [errors.ErrorCode, errors.CloseCode])
def test_every_code_is_explained(table: type) -> None:
    source = inspect.getsource(table)
    names = re.findall(r"^    ([A-Z0-9_]+) = .+\n    \"\"\"\S.+\"\"\"$", source, flags=re.MULTILINE)
    assert names == list(table.__members__)


def test_an_error_that_closes_names_a_code_and_the_others_none() -> None:
    closing = {code.name for code in errors.ErrorCode if code.close is not None}
    same = {code.name for code in errors.ErrorCode} & {code.name for code in errors.CloseCode}
    assert same < closing
    assert errors.ErrorCode.SHUTTING_DOWN.close is errors.CloseCode.GOING_AWAY
    assert errors.ErrorCode.ODD_LENGTH.close is None


def test_close_codes_are_codes_that_a_server_may_send() -> None:
    # 1005, 1006 and 1015 must never be sent; 3000 to 4999 belong to libraries and applications.
    registered = {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014}
    for code in errors.CloseCode:
        assert code in registered or 3000 <= code <= 4999


def test_a_connection_ends_with_the_code_of_its_error() -> None:
    assert errors.Close(errors.ErrorCode.IDLE, "", "").close is errors.CloseCode.IDLE
    assert errors.Close(None, "", "").close is errors.CloseCode.NORMAL
    with pytest.raises(KeyError):
        errors.Close(errors.ErrorCode.ODD_LENGTH, "", "")


def test_a_protocol_error_carries_code_and_hint() -> None:
    error = errors.ProtocolError(errors.ErrorCode.BUFFER_FULL, "too much", "send less")
    assert (str(error), error.code, error.hint) == (
        "too much",
        errors.ErrorCode.BUFFER_FULL,
        "send less",
    )


def test_a_missing_model_names_model_place_and_mend() -> None:
    error = errors.ModelNotFoundError("tiny", Path("models/tiny"), "Run 'mend'.")
    assert str(error) == "model 'tiny' is not here (looked for models/tiny). Run 'mend'."
    assert str(errors.ModelNotFoundError("tiny", None, "Run 'mend'.")) == (
        "model 'tiny' is not here. Run 'mend'."
    )


def test_a_broken_model_names_file_reason_and_mend() -> None:
    error = errors.ModelBrokenError(Path("a.gguf"), "bad magic", "Run 'mend'.")
    assert str(error) == "model file a.gguf does not load: bad magic. Run 'mend'."


def test_a_changed_model_names_both_versions_and_the_mend() -> None:
    error = errors.ModelChangedError(Path("a.gguf"), "aa", "bb", "Run 'mend'.")
    assert str(error) == "model file a.gguf changed: recorded aa, found bb. Run 'mend'."
