"""The latency exercise in a notebook."""

import sys
from datetime import datetime
from pathlib import Path

from labkit.measure.exercise import run_and_write
from labkit.measure.exercise_summary import ExerciseSummary
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
    folder = Path(out) / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    summary = await run_and_write(
        folder,
        recordings=data_folder() / "speech",
        quick=quick,
        baseline=baseline,
        seed=seed,
        progress=progress_bar("turns"),
    )
    sys.stdout.write(f"{len(summary.rows)} turns; raw data and figures are in {folder}\n")
    return summary
