"""Servers that are checked: the solution, servers that are wrong, and odd ones that are right.

Each is the solved server of a chapter with some lines after it, which replace parts of it. So a
wrong server shows in two or three lines what is wrong with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from labkit.course.chapters import exercise_of
from labkit.course.hosting import Handler
from labkit.course.keep import assembled
from labkit.course.masters import sections

STUB = "stub"
"""The name of the server whose exercise was not touched; every check has it."""
SOLUTION = "solution"


@dataclass(frozen=True)
class Servers:
    """What the checks of a chapter are tried on.

    Attributes:
        chapter: Its number: the solved server is the one up to it.
        wrong: By check and name, the lines that make the server wrong.
        odd: By name, the lines that make it unusual, and leave it right.
    """

    chapter: int
    wrong: Mapping[str, Mapping[str, str]]
    odd: Mapping[str, str]

    def cases(self) -> list[tuple[int, str, str]]:
        """Chapter, check and name of every server."""
        return [
            (self.chapter, check, name)
            for check, wrong in self.wrong.items()
            for name in (SOLUTION, STUB, *wrong, *self.odd)
        ]

    def handler(self, check: str, name: str) -> Handler:
        """The server of that name, for that check."""
        stubs = (exercise_of(check)[0],) if name == STUB else ()
        lines = {**self.wrong[check], **self.odd, STUB: "", SOLUTION: ""}[name]
        namespace: dict[str, object] = {"__name__": "server"}
        for source in (assembled(sections(self.chapter, stubs=stubs)), lines):
            exec(compile(source, "server.py", "exec"), namespace)
        handle = namespace["handle"]
        assert callable(handle)
        return handle
