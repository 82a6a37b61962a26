"""Tokens that let callers in: made, read, and shown, never printed in an error.

A token is 16 to 256 letters, digits, "-" and "_" (base64url, RFC 4648 section 5), so that it fits
an `Authorization` header (RFC 6750) and the name of a subprotocol (RFC 6455) alike. It comes from
a file or from the environment, never from a command line, which everybody on a machine can read.
"""

import logging
import os
import re
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from labkit.errors import TokenError

VARIABLE: Final = "LABKIT_TOKEN"
"""The environment variable that may hold a token."""

_log = logging.getLogger(__name__)

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{16,256}")
_FRESH_BYTES: Final = 32


def new_token() -> str:
    """A fresh token of 256 random bits."""
    return secrets.token_urlsafe(_FRESH_BYTES)


def bearer(token: str) -> dict[str, str]:
    """The header by which a client shows `token` (RFC 6750, section 2.1)."""
    return {"Authorization": f"Bearer {token}"}


def require_token(token: str, where: str) -> str:
    """`token` itself, if it is one; `where` names its place in the error.

    Raises:
        TokenError: It is too short, too long, or of other characters.
    """
    if _TOKEN.fullmatch(token) is None:
        raise TokenError(
            f"{where}: no token, but {len(token)} characters. A token is 16 to 256 letters, "
            "digits, '-' and '_'; make one with 'labkit token'"
        )
    return token


def read_tokens(path: Path) -> tuple[str, ...]:
    """The tokens of a file, one per line; what follows a `#` is a comment.

    A file that everybody on the machine can read is warned of.

    Raises:
        TokenError: The file cannot be read, holds no token, or holds something else.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        mode = path.stat().st_mode
    except OSError as error:
        raise TokenError(f"token file {path} cannot be read: {error.strerror or error}") from error
    if os.name == "posix" and mode & stat.S_IROTH:
        _log.warning("everybody on this machine can read the tokens in %s; chmod 600 it", path)
    found = [(number, line.partition("#")[0].strip()) for number, line in enumerate(lines, start=1)]
    tokens = tuple(require_token(word, f"{path}, line {number}") for number, word in found if word)
    if not tokens:
        raise TokenError(f"token file {path} holds no token; make one with 'labkit token'")
    return tokens


def token_in(environment: Mapping[str, str]) -> str | None:
    """The token in the environment, None where the variable is not set.

    Raises:
        TokenError: It is set to something that is no token; empty is no token, either.
    """
    token = environment.get(VARIABLE)
    return None if token is None else require_token(token, f"the variable {VARIABLE}")
