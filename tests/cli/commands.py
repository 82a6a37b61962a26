"""The whole command line within a test: what it prints, and the code that it ends with."""

from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed."""

    code: object
    out: str
    err: str


Labkit = Callable[..., Done]
"""Runs `labkit` with these words."""


def printed(table: Table, width: int = 80) -> str:
    """A table on a terminal so wide; every line of it fits, and no figure is cut."""
    console = Console(width=width)
    with console.capture() as capture:
        console.print(table)
    assert "…" not in capture.get()
    assert all(len(line) <= width for line in capture.get().splitlines())
    return capture.get()
