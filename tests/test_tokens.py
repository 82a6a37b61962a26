"""Tokens: made, read, and kept out of errors."""

import logging
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import TokenError
from labkit.tokens import VARIABLE, bearer, new_token, read_tokens, require_token, token_in

ONE = "one-token-of-sixteen"
TWO = "two_token_of_sixteen"


def written(folder: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path = folder / "tokens.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return path


def test_a_fresh_token_is_one_and_another_each_time() -> None:
    fresh = {new_token() for _ in range(20)}
    assert len(fresh) == 20
    assert all(require_token(token, "here") == token and len(token) == 43 for token in fresh)


def test_a_token_is_shown_in_a_header() -> None:
    assert bearer(ONE) == {"Authorization": f"Bearer {ONE}"}


def test_a_file_has_a_token_per_line_and_comments(tmp_path: Path) -> None:
    text = f"\ufeff# laptops\n{ONE}   # of the first\r\n\n  {TWO}\n"
    assert read_tokens(written(tmp_path, text)) == (ONE, TWO)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no token"),
        ("# none yet\n", "holds no token"),
        (f"{ONE}\nshort\n", "line 2: no token, but 5 characters"),
        ("sixteen characters", "line 1: no token"),
        ("padding-is-no-part=", "line 1: no token"),
        (b"\xff" * 20, "line 1: no token"),
        ("ä" * 20, "line 1: no token"),
        ("x" * 257, "257 characters"),
    ],
)
def test_a_file_without_tokens_is_refused(tmp_path: Path, text: str | bytes, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(TokenError, match=said) as refused:
        read_tokens(path)
    assert str(path) in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenError, match=r"none\.txt cannot be read: No such file"):
        read_tokens(tmp_path / "none.txt")


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_file_that_everybody_can_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warned: bool
) -> None:
    with caplog.at_level(logging.WARNING, logger="labkit"):
        read_tokens(written(tmp_path, ONE, mode))
    assert ("chmod 600" in caplog.text) == warned
    assert ONE not in caplog.text


def test_the_environment_may_hold_a_token() -> None:
    assert token_in({}) is None
    assert token_in({VARIABLE: ONE}) == ONE


@pytest.mark.parametrize("value", ["", "short", f"{ONE} "])
def test_a_variable_that_holds_no_token_is_refused(value: str) -> None:
    with pytest.raises(TokenError, match=VARIABLE):
        token_in({VARIABLE: value})


@given(st.text(min_size=8).filter(lambda text: not re.fullmatch("[A-Za-z0-9_-]{16,256}", text)))
def test_no_error_repeats_what_may_be_a_secret(text: str) -> None:
    secret = f"!{text}!"
    with pytest.raises(TokenError) as refused:
        require_token(secret, "here")
    assert secret not in str(refused.value)
