"""What a check is: a name, a sentence, and a script for a probe."""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from labkit.course.probe import Probe, Trial

Script: TypeAlias = Callable[[Probe], Awaitable[None]]
ValueScript: TypeAlias = Callable[[Trial, Any], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        name: Its name, such as `ch1.pong`.
        title: What it asks for, in one sentence.
        probe: The script, for a check of a server.
        judge: The script, for a check of anything else, such as a function or a table.
        sends: What it sends, exactly: the script's docstring.
    """

    name: str
    title: str
    probe: Script | None
    judge: ValueScript | None
    sends: str

    @property
    def chapter(self) -> str:
        """The chapter that it belongs to, such as `ch1`."""
        return self.name.partition(".")[0]


def checked(name: str, title: str) -> Callable[[Script], Check]:
    """Make a check of a server out of a script; its docstring says what it sends, exactly."""
    return lambda script: Check(name, title, script, None, inspect.getdoc(script) or "")


def checked_value(name: str, title: str) -> Callable[[ValueScript], Check]:
    """Make a check of something that is no server, such as a function of the learner's."""
    return lambda script: Check(name, title, None, script, inspect.getdoc(script) or "")
