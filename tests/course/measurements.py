"""Measurements of chapter 5 as a learner might have made them."""

from labkit.measure.exercise_summary import ExerciseSummary
from labkit.trace import Stage
from tests.measure.samples import REST, rows

SIZES = (20, 100, 500)
TWO_WRITES = {(1, True): [0.2], (1, False): [0.3], (2, True): [0.2], (2, False): [41.0, 43.0]}


def summary(more_ms: float = 0.0) -> ExerciseSummary:
    """An exercise of one server, `more_ms` away."""
    rest = {**REST, Stage.UPLINK: REST[Stage.UPLINK] + more_ms}
    return ExerciseSummary(rows(SIZES, 4, servers={"mine": rest}))
