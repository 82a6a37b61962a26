"""`labkit exercise`: the latency exercise."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from labkit.cli.models import AsrOption, LlmOption, SetOption, TtsOption
from labkit.cli.terminal import console, counting_bar, run

if TYPE_CHECKING:
    from labkit.measure.report import Report

__all__ = ["exercise"]


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
    from labkit.measure.exercise import run_and_write
    from labkit.measure.report import sentences
    from labkit.voice.models import data_folder, resolve

    if baseline not in (None, "naive"):
        raise typer.BadParameter(f"there is no baseline {baseline!r}; there is 'naive'")
    own = {"--models": model_set, "--asr": asr, "--llm": llm, "--tts": tts}
    options = tuple(word for key, value in own.items() if value for word in (key, value))
    resolve(model_set, asr=asr, llm=llm, tts=tts)
    folder = out / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    with counting_bar() as tell:
        summed = run(
            run_and_write(
                folder,
                recordings=data_folder() / "speech",
                quick=quick,
                baseline=baseline is not None,
                seed=seed,
                model_options=options,
                progress=lambda step: tell(step.now, step.done, step.total),
            )
        )
    shown = console()
    shown.print(_exercise_table(summed))
    for sentence in sentences(summed):
        shown.print(sentence)
    shown.print(f"Raw data, summary and figures: {folder}", soft_wrap=True, markup=False)


def _exercise_table(summed: "Report") -> Table:
    table = Table(
        "chunk ms", "median ms", "95 % interval", "p95 ms", "messages/s", "overhead B/s",
        "CPU ms/s", title="End of speech to first audible reply, labkit",
    )  # fmt: skip
    for column in table.columns:
        column.justify = "right"
    for size in summed.sizes:
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
