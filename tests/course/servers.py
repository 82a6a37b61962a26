"""Servers that are checked: the solution, servers that are wrong, and odd ones that are right.

Each is the solved server of a chapter with some lines after it, which replace parts of it. So a
wrong server shows in two or three lines what is wrong with it. What is no server, such as a
function, is the cells of its exercise with such lines after them.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from labkit.course.chapters import exercise_of
from labkit.course.hosting import Handler
from labkit.course.keep import assembled
from labkit.course.masters import cells, master_of, sections

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
        values: By check, the expression of what is checked, where that is no server.
        before: Lines before the cells of such an exercise.
    """

    chapter: int
    wrong: Mapping[str, Mapping[str, str]]
    odd: Mapping[str, str]
    values: Mapping[str, str] = field(default_factory=dict)
    before: str = ""

    def cases(self) -> list[tuple[int, str, str]]:
        """Chapter, check and name of every server."""
        return [
            (self.chapter, check, name)
            for check, wrong in self.wrong.items()
            for name in (SOLUTION, STUB, *wrong, *self.odd)
        ]

    def target(self, check: str, name: str) -> Any:
        """What is checked under that name."""
        return self._value(check, name) if check in self.values else self.handler(check, name)

    def _value(self, check: str, name: str) -> Any:
        lines = {**self.wrong[check], **self.odd, STUB: "", SOLUTION: ""}[name]
        namespace: dict[str, object] = {}
        exec(self.before, namespace)
        for source in self._cells(exercise_of(check)[0], stub=name == STUB):
            with suppress(NotImplementedError):  # the next cell of a notebook runs all the same
                exec(compile(source, "cell", "exec"), namespace)
        exec(compile(lines, "cell", "exec"), namespace)
        return eval(self.values[check], namespace)

    def _cells(self, exercise: str, *, stub: bool) -> Iterator[str]:
        kind = "exercise" if stub else "solution"
        for cell in cells(master_of(self.chapter)):
            if cell.marks.get(kind) == exercise:
                yield cell.source

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
