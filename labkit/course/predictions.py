"""Predictions: made before a measurement, locked by it, and compared with it."""

from dataclasses import dataclass

from labkit.course.folder import Prediction, noting
from labkit.errors import LabkitError

__all__ = ["Comparison", "measured", "predict"]


@dataclass(frozen=True, slots=True, repr=False)
class Comparison:
    """A prediction and its measurement, as far as they are there.

    Attributes:
        name: What it is about; its ending is the unit.
        predicted: What the learner expected.
        measured: What came out.
    """

    name: str
    predicted: float | None
    measured: float | None

    def __repr__(self) -> str:
        """Both in a sentence."""
        unit = self.name.rpartition("_")[2]
        if self.measured is None:
            return f"{self.name}: you predict {self.predicted:g} {unit}; the measurement locks it."
        value = f"{self.measured:.0f}" if abs(self.measured) >= 100 else f"{self.measured:.3g}"
        if self.predicted is None:
            return f"{self.name}: measured {value} {unit}; you have predicted nothing."
        said = f"you predicted {self.predicted:g} {unit}, measured are {value} {unit}"
        if not self.predicted or not self.measured:
            return f"{self.name}: {said}."
        ratio = self.measured / self.predicted
        more = f"{ratio:.1f} times as much" if ratio >= 1 else f"{1 / ratio:.1f} times less"
        return f"{self.name}: {said}, {more}."


def predict(name: str, value: float) -> Comparison:
    """Predict a measurement, before it is made; until then you may change your mind.

    Args:
        name: What is predicted, such as ``"ch5.p95_ms"``; its ending is the unit.
        value: What you expect.

    Raises:
        LabkitError: The value is no number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise LabkitError(f"a prediction is a number, such as predict({name!r}, 400)")
    with noting() as progress:
        noted = progress.predictions.setdefault(name, Prediction())
        if noted.measured is None:
            noted.predicted = float(value)
        return Comparison(name, noted.predicted, noted.measured)


def measured(name: str, value: float) -> Comparison:
    """Note a measurement, and lock its prediction; the first one counts."""
    with noting() as progress:
        noted = progress.predictions.setdefault(name, Prediction())
        if noted.measured is None:
            noted.measured = float(value)
        return Comparison(name, noted.predicted, float(value))
