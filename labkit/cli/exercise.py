"""`labkit exercise`: the latency exercise."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from labkit.cli.experiment import carry_out, results_table
from labkit.cli.models import AsrOption, LlmOption, SetOption, TtsOption

if TYPE_CHECKING:
    from labkit.measure.exercise_summary import SizeSummary

__all__ = ["exercise", "sizes_table"]


def exercise(
    quick: Annotated[bool, typer.Option("--quick", help="Under two minutes.")] = False,
    baseline: Annotated[
        str | None, typer.Option(help="Measure another server beside labkit's: naive.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws order, recordings and phases.")] = 1,
    out: Annotated[Path, typer.Option(help="Results go into a folder in here.")] = Path("results"),
    model_set: SetOption = "embedded",
    asr: AsrOption = None,
    llm: LlmOption = None,
    tts: TtsOption = None,
) -> None:
    """Run the latency exercise: measure and plot how chunk size trades against latency."""
    from labkit.measure.exercise import Exercise
    from labkit.voice.models import data_folder, resolve

    if baseline not in (None, "naive"):
        raise typer.BadParameter(f"there is no baseline {baseline!r}; there is 'naive'")
    own = {"--models": model_set, "--asr": asr, "--llm": llm, "--tts": tts}
    options = tuple(word for key, value in own.items() if value for word in (key, value))
    resolve(model_set, asr=asr, llm=llm, tts=tts)
    experiment = Exercise.of_length(
        recordings=data_folder() / "speech",
        quick=quick,
        baseline=baseline is not None,
        seed=seed,
        model_options=options,
    )
    carry_out(experiment, out, lambda summed: [sizes_table(summed.sizes)])


def sizes_table(sizes: "Sequence[SizeSummary]") -> Table:
    """What was measured, a row per chunk size."""
    table = results_table(
        "End of speech to first audible reply, labkit",
        "chunk\nms", "median\nms", "95 %\ninterval", "p95\nms", "messages\nper s", "overhead\nB/s",
        "CPU\nms/s",
    )  # fmt: skip
    for size in sizes:
        middle = size.ttfa_p50
        table.add_row(
            str(size.chunk_ms),
            f"{middle.value:.0f}",
            f"{middle.low:.0f} to {middle.high:.0f}",
            f"{size.ttfa_p95.value:.0f}",
            f"{size.messages_per_s:.1f}",
            f"{size.overhead_bytes_per_s:.0f}",
            f"{size.cpu_ms_per_s:.1f}",
        )
    return table
