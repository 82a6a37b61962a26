"""What a drill found, promise by promise, and how far it has come."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

__all__ = ["Finding", "Progress", "Verdict"]

Progress = Callable[[str, int, int], None]
"""Is told what is done, how much of it is over, and how much there is."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One figure, and the promise that it has to keep.

    Attributes:
        name: What was looked at.
        value: What was found.
        bar: What was promised, in words; empty for a figure that is told and not judged.
        holds: Whether the promise was kept.
    """

    name: str
    value: str | float
    bar: str
    holds: bool

    @classmethod
    def told(cls, name: str, value: str | float) -> Self:
        """A figure that is told and not judged."""
        return cls(name, value, "", holds=True)

    @classmethod
    def at_most(cls, name: str, value: float, most: float, unit: str = "") -> Self:
        """A figure that must not be above `most`."""
        return cls(name, value, f"≤ {most:g} {unit}".strip(), holds=value <= most)

    @classmethod
    def none_of(cls, name: str, count: int) -> Self:
        """A count of what must not happen at all."""
        return cls(name, count, "none", holds=not count)

    @property
    def judged(self) -> bool:
        """Whether it has a bar."""
        return bool(self.bar)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The findings of one drill.

    Attributes:
        title: What was done, in a line.
        findings: A row each.
    """

    title: str
    findings: tuple[Finding, ...]

    @property
    def holds(self) -> bool:
        """Whether every promise was kept; a drill that judged nothing has shown nothing."""
        judged = [finding for finding in self.findings if finding.judged]
        return bool(judged) and all(finding.holds for finding in judged)
