"""The latency exercise from start to end: run, sum up, write, draw."""

from collections.abc import Callable
from pathlib import Path

from labkit.measure.experiment import ExerciseConfig, Progress, run_exercise
from labkit.measure.plots import save_figures
from labkit.measure.report import Report, report, write_report, write_turns

__all__ = ["repeats_for", "run_and_write"]


def repeats_for(*, quick: bool, baseline: bool) -> int:
    """Turns per chunk size and server.

    A turn takes about two and a half seconds, nearly all of them speech; 18 turns for each of
    eight sizes take six to seven minutes, and two servers share that time.
    """
    repeats = 4 if quick else 18
    return repeats // 2 if baseline else repeats


async def run_and_write(
    folder: Path,
    *,
    recordings: Path,
    quick: bool = False,
    baseline: bool = False,
    seed: int = 1,
    model_options: tuple[str, ...] = (),
    progress: Callable[[Progress], None] = lambda _: None,
) -> Report:
    """Run the exercise and write its raw data, summary and figures into `folder`.

    Args:
        folder: Made where it does not exist.
        recordings: Folder with recordings and their manifest.
        quick: Fewer repeats: under two minutes instead of under eight.
        baseline: Measure the naive server beside labkit's.
        seed: Draws order, recordings and phases.
        model_options: Options that name the models, handed on to the servers.
        progress: Told before each turn.

    Raises:
        LabkitError: A recording is not usable, a server did not start, or no turn was answered.
    """
    config = ExerciseConfig(
        recordings=recordings,
        seed=seed,
        repeats=repeats_for(quick=quick, baseline=baseline),
        baseline=baseline,
        model_options=model_options,
    )
    exercise = await run_exercise(config, progress)
    write_turns(exercise, folder)  # first, so that it is kept where there is nothing to sum up
    summed = report(exercise)
    write_report(summed, folder)
    save_figures(summed, folder)
    return summed
