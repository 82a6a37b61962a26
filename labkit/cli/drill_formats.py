"""The command `labkit drill formats`."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from labkit.voice.models import data_folder

if TYPE_CHECKING:
    from labkit.drills.plausibility import Outcome

__all__ = ["formats"]


def formats(
    quick: Annotated[bool, typer.Option("--quick", help="Every ninth recording only.")] = False,
) -> None:
    """Send audio that is not what it is declared to be; exits 1 where a bar is missed.

    Of each lie that can be told, 95 % must be found and named; of audio that is as declared,
    nothing may be said.
    """
    from labkit.drills.plausibility import false_alarms, measure
    from labkit.measure.recordings import load_manifest

    console = Console()
    recordings = load_manifest(data_folder() / "speech")
    spoken = [r for r in recordings if r.kind.is_speech][:: 9 if quick else 1]
    silent = [r for r in recordings if not r.kind.is_speech]
    with console.status("sending audio in wrong formats; this takes some minutes"):
        outcomes = list(measure(spoken))
    console.print(_table(outcomes))
    with console.status("sending audio as declared"):
        truth = false_alarms([*spoken, *silent])
    for alarm in truth.alarms:
        console.print(f"false alarm: {alarm}", markup=False)
    console.print(f"{len(truth.alarms)} false alarms over {truth.streams} streams, at most 0")
    if truth.alarms or not all(outcome.holds for outcome in outcomes):
        raise typer.Exit(1)


def _table(outcomes: "Iterable[Outcome]") -> Table:
    table = Table(
        "sent", "declared", "finding", "found %", "named right %", "median s", "streams", "holds",
        title="Audio that is not what was declared; bar 95 %",
    )  # fmt: skip
    for column in table.columns[3:7]:
        column.justify = "right"
    for outcome in outcomes:
        told = outcome.kind is not None
        table.add_row(
            outcome.sent,
            outcome.declared,
            str(outcome.kind) if told else "[dim]cannot be told[/]",
            f"{outcome.detected_percent:.0f}",
            f"{outcome.named_percent:.0f}" if told else "-",
            "-" if outcome.median_s is None else f"{outcome.median_s:.2f}",
            str(outcome.streams),
            "[green]yes[/]" if outcome.holds else "[bold red]no[/]",
        )
    return table
