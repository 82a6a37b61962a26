"""The latency exercise in a notebook."""

import sys
from pathlib import Path

from labkit.measure.exercise import Exercise
from labkit.measure.exercise_summary import ExerciseSummary
from labkit.measure.results import Results, conduct
from labkit.notebook.show import progress_bar
from labkit.voice.models import data_folder

__all__ = ["run_exercise"]


async def run_exercise(
    *, quick: bool = False, baseline: bool = False, seed: int = 1, out: Path | str = "results"
) -> ExerciseSummary:
    """Run the latency exercise, with a progress bar in the cell that runs.

    Args:
        quick: Fewer repeats: under two minutes instead of under eight.
        baseline: Measure the naive server beside labkit's; the two share the time.
        seed: Draws order, recordings and phases.
        out: Raw data, summary and figures go into a folder in here, named by the time.

    Raises:
        LabkitError: The folder cannot be written, a recording is not usable, a server did not
            start, or no turn was answered.
    """
    exercise = Exercise.of_length(
        quick=quick, baseline=baseline, seed=seed, recordings=data_folder() / "speech"
    )
    results = Results.within(Path(out))
    try:
        return await conduct(exercise, results, progress_bar("turns"))
    finally:  # also where the cell is interrupted: what was measured until then is kept
        if results.measured:
            sys.stdout.write(f"{results.measured} turns; raw data and figures: {results.folder}\n")
