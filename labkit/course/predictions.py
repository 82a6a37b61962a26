"""Predictions: made before a measurement, locked by it, and compared with it.

A cell of a notebook asks for the number where none is written in it, so that all cells can be run
at once, and still nothing is measured before it was predicted. Who ran the cells first and
predicted nothing may do so once, and it is said that it came late.
"""

from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from types import EllipsisType
from typing import Final

from labkit.course.folder import Prediction, Progress, noting
from labkit.course.shell import current_shell
from labkit.errors import LabkitError

_UNITS: Final = frozenset(("ms", "dB", "percent", "times", "exchanges", "callers"))
"""What the chapters predict."""


@dataclass(frozen=True, slots=True, repr=False)
class Comparison:
    """A prediction and its measurement, as far as they are there.

    Attributes:
        name: What it is about; its ending is the unit.
        predicted: What the learner expected.
        measured: What came out.
        late: Whether it was predicted when it was measured already.
    """

    name: str
    predicted: float | None
    measured: float | None
    late: bool = False

    def __repr__(self) -> str:
        """Both in a sentence."""
        unit = _unit(self.name)
        if self.measured is None:
            return f"{self.name}: you predict {self.predicted:g} {unit}; the measurement locks it."
        value = f"{self.measured:.0f}" if abs(self.measured) >= 100 else f"{self.measured:.3g}"
        if self.predicted is None:
            return (
                f"{self.name}: measured {value} {unit}; you have predicted nothing. You still may, "
                "once, and it will be said that it came after the measurement."
            )
        after = " after the measurement" if self.late else ""
        said = f"you predicted {self.predicted:g} {unit}{after}, measured: {value} {unit}"
        decibels = unit == "dB"  # a ratio already
        if (
            decibels
            or not self.predicted
            or not self.measured
            or self.measured / self.predicted < 0
        ):
            return f"{self.name}: {said}."
        if f"{self.predicted:g}" == value:
            return f"{self.name}: {said}, as predicted."
        return f"{self.name}: {said}, {_compared(self.measured / self.predicted)}."


def _unit(name: str) -> str:
    return name.rpartition("_")[2].replace("db", "dB")


def _compared(ratio: float) -> str:
    """A ratio in words: `8 % less`, `3.2 times as much`."""
    if ratio >= 2:
        return f"{ratio:.1f} times as much"
    if round(100 * ratio) == 100:
        return "nearly the same"
    return f"{abs(ratio - 1):.0%} {'more' if ratio > 1 else 'less'}".replace("%", " %")


def predict(name: str, value: "float | EllipsisType") -> Comparison:
    """Predict a measurement, before it is made; until then you may change your mind.

    Where it was made without a prediction, the first one still counts, and is noted as late.

    Args:
        name: What is predicted, such as ``"ch5.p95_ms"``; its ending is the unit.
        value: What you expect. With `...`, what was predicted before stays; where nothing was, a
            notebook asks for it.

    Raises:
        NotImplementedError: The value is `...`, and no number is known.
        LabkitError: The value is no number, or the name has no unit.
    """
    if _unit(name) not in _UNITS:
        raise LabkitError(
            f"there is no prediction {name!r}: its name ends with what is counted, such as "
            "ch5.wait_ms; copy it from the chapter"
        )
    if value is ...:
        known = Progress.load().predictions.get(name, Prediction()).predicted
        value = _asked(name) if known is None else known
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise LabkitError(f"a prediction is a number, such as predict({name!r}, 400)")
    with noting() as progress:
        noted = progress.predictions.setdefault(name, Prediction())
        if noted.measured is None or noted.predicted is None:
            noted.predicted, noted.late = float(value), noted.measured is not None
        return Comparison(name, noted.predicted, noted.measured, noted.late)


def _asked(name: str) -> float:
    """The number that the learner types into a box below the cell.

    Raises:
        NotImplementedError: Nothing is typed, or nobody can be asked.
    """
    said = " "
    with suppress(NotImplementedError, EOFError):  # nbconvert has nobody to ask
        while current_shell() is not None and said:
            said = input(f"What do you expect for {name}? A number, in {_unit(name)}: ").strip()
            with suppress(ValueError):
                return float(said.replace(",", "."))
    raise NotImplementedError(f"write the number that you expect: predict({name!r}, 400)")


def measured(name: str, value: float) -> Comparison:
    """Note a measurement, and lock its prediction; the first one counts."""
    with noting() as progress:
        noted = progress.predictions.setdefault(name, Prediction())
        if noted.measured is None:
            noted.measured = float(value)
        return Comparison(name, noted.predicted, float(value), noted.late)


def predicted(*names: str) -> None:
    """Make sure of predictions before the measurement that would give them away.

    Raises:
        NotImplementedError: One of them is missing, and not measured yet either.
    """
    noted = Progress.load().predictions
    for name in names:
        one = noted.get(name, Prediction())
        if one.predicted is None and one.measured is None:
            raise NotImplementedError(f"predict first: predict({name!r}, …), in the cell above")


def predictions_of(chapter: str) -> dict[str, Prediction]:
    """The predictions of a chapter, such as `ch5`, by name."""
    noted = Progress.load().predictions
    return {name: one for name, one in noted.items() if name.startswith(f"{chapter}.")}
