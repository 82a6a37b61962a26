"""One measured figure beside the bar that it answers to."""

from dataclasses import dataclass

__all__ = ["Figure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A measured value and its bar.

    Attributes:
        name: What was measured, in words.
        value: The measured value, in `unit`.
        bar: The value to reach, in the same unit.
        unit: "%", "ms", "MB", "x" (a ratio) or "" (a count).
        at_most: True where the bar is a ceiling, False where it is a floor.
        sample: How many items the value was measured on.
        note: What a reader should know besides, such as why it was not measured.
    """

    name: str
    value: float
    bar: float
    unit: str
    at_most: bool
    sample: int
    note: str = ""

    @property
    def measured(self) -> bool:
        """Whether there was anything to measure it on."""
        return self.sample > 0

    @property
    def holds(self) -> bool:
        """Whether the value was measured and reaches its bar."""
        reached = self.value <= self.bar if self.at_most else self.value >= self.bar
        return self.measured and reached
