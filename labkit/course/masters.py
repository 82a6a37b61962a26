"""The chapters as they were written, with their solutions: read without jupytext.

A master is a script in jupytext's "percent" form. What makes a cell special stands behind its
marker:

========================  ====================================================================
marker                    the cell
========================  ====================================================================
``keep="audio"``          becomes the section `audio` of the learner's server
``exercise="ch1.x"``      is the stub that a learner fills in
``solution="ch1.x"``      is the solution, which learners' notebooks leave out
``guess="20"``            is the number in place of `...` where the tests run the chapter
``card="ch1.x"``          is replaced by the card of the exercise
========================  ====================================================================
"""

import ast
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from math import inf
from pathlib import Path
from typing import Final

from labkit.errors import LabkitError

_MASTERS: Final = Path(__file__).resolve().parents[2] / "notebooks" / "masters"
_MARKER: Final = re.compile(r"^# %%(?P<kind> \[markdown\])?(?P<marks>(?: \w+=\"[^\"]*\")*)$", re.M)
_MARK: Final = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a master.

    Attributes:
        code: Whether it is code; otherwise it is text.
        marks: What stands behind its marker.
        source: Its lines.
    """

    code: bool
    marks: dict[str, str]
    source: str


def masters() -> list[Path]:
    """Every master, in the order of the course.

    Raises:
        LabkitError: There are none: they come with labkit's checkout.
    """
    found = sorted(_MASTERS.glob("[0-9][0-9]_*.py"))
    if not found:
        raise LabkitError(f"there are no masters in {_MASTERS}; they come with labkit's checkout")
    return found


def master_of(chapter: int) -> Path:
    """The master of a chapter.

    Raises:
        LabkitError: There is no such chapter.
    """
    for path in masters():
        if int(path.name[:2]) == chapter:
            return path
    raise LabkitError(f"there is no chapter {chapter}")


def cells(master: Path) -> Iterator[Cell]:
    """The cells of a master."""
    text = master.read_text(encoding="utf-8")
    found = list(_MARKER.finditer(text))
    ends = [one.start() for one in found[1:]] + [len(text)]
    for marker, end in zip(found, ends, strict=True):
        marks = dict(_MARK.findall(marker["marks"]))
        yield Cell(not marker["kind"], marks, text[marker.end() : end].strip("\n"))


def _all_cells(up_to: float = inf) -> Iterator[tuple[int, Cell]]:
    """The cells of the chapters up to one, each with the number of its chapter."""
    for master in masters():
        if (chapter := int(master.name[:2])) <= up_to:
            yield from ((chapter, cell) for cell in cells(master))


def sections(up_to: int, *, stubs: Collection[str] = ()) -> dict[str, str]:
    """The server of the solved chapters up to one, as sections in their order.

    Args:
        up_to: The last chapter.
        stubs: Exercises that are left as they are given.
    """
    found: dict[str, str] = {}
    for _, cell in _all_cells(up_to):
        asked, solved = cell.marks.get("exercise"), cell.marks.get("solution")
        left_out = solved in stubs if asked is None else asked not in stubs
        if (name := cell.marks.get("keep")) and not left_out:
            found[name] = cell.source
    return found


def section_chapters(up_to: float = inf) -> dict[str, int]:
    """The sections of the learner's server, each with the last chapter up to one that keeps it."""
    return {
        cell.marks["keep"]: chapter for chapter, cell in _all_cells(up_to) if "keep" in cell.marks
    }


def solution_cells(exercise: str) -> list[str]:
    """The solution of an exercise, cell by cell."""
    return [cell.source for _, cell in _all_cells() if cell.marks.get("solution") == exercise]


@dataclass(frozen=True, slots=True)
class Stub:
    """A function that a learner has to write.

    Attributes:
        function: Its name.
        exercise: The exercise that it belongs to.
    """

    function: str
    exercise: str


@cache
def stubs() -> Mapping[str, Stub]:
    """Every function that a learner has to write, by the words that it raises until then."""
    return {
        words: Stub(function.name, cell.marks["exercise"])
        for _, cell in _all_cells()
        if "exercise" in cell.marks
        for function in ast.walk(ast.parse(cell.source))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for words in _raised(function)
    }


def still_to_write(kept: Mapping[str, str]) -> list[str]:
    """What a learner's server lacks: functions with their exercise, or sections, by name."""
    found = []
    for name, source in kept.items():
        if "raise NotImplementedError" in source:
            given = [stubs()[words] for words in _raised(ast.parse(source)) if words in stubs()]
            told = [f"{stub.function} (exercise {stub.exercise})" for stub in given]
            found += told or [name]
    return found


def _raised(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Raise(exc=ast.Call(args=[ast.Constant(value=str(words))])):
                yield words
