"""The command `labkit token`."""

import sys

from labkit.tokens import new_token

__all__ = ["token"]


def token() -> None:
    """Print a fresh token for --token-file, on the server and for its callers."""
    sys.stdout.write(f"{new_token()}\n")
