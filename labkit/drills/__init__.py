"""Drills: a server is broken on purpose, and what it promises is checked.

A drill runs a server in a process of its own (`target`), misuses it in a way that its seed
decides, and gives a `Verdict`: a row for each promise, with the figure found and the bar.

Each module's `run_…` is a whole drill. It raises `LabkitError` where the server does not start,
nobody answers at the address, or a recording or a model that it needs is not here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Self


class Dialect(StrEnum):
    """What a caller speaks, or pretends to speak."""

    PLAIN = "plain"
    V1 = "v1"


@dataclass(frozen=True, slots=True)
class Finding:
    """One figure, and the promise that it has to keep."""

    name: str
    value: str | float
    bar: str
    """What was promised, in words; empty for a figure that is told and not judged."""
    holds: bool

    @classmethod
    def told(cls, name: str, value: str | float) -> Self:
        """A figure that is told and not judged."""
        return cls(name, value, "", holds=True)

    @classmethod
    def examples(cls, examples: Iterable[str]) -> list[Self]:
        """What was found, to be told below its count."""
        return [cls.told("such as", example) for example in examples]

    @classmethod
    def at_most(cls, name: str, value: float, most: float) -> Self:
        """A figure that must not be above `most`."""
        return cls(name, value, f"≤ {most:g}", holds=value <= most)

    @classmethod
    def none_of(cls, name: str, count: int) -> Self:
        """A count of what must not happen at all."""
        return cls(name, count, "none", holds=not count)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The findings of one drill, a row each, under a line that says what was done."""

    title: str
    findings: tuple[Finding, ...]

    @property
    def holds(self) -> bool:
        """Whether every promise was kept; a drill that judged nothing has shown nothing."""
        judged = [finding.holds for finding in self.findings if finding.bar]
        return bool(judged) and all(judged)
