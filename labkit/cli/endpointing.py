"""The command `labkit endpointing`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from labkit.cli.experiment import carry_out, results_table, told_number
from labkit.cli.models import AsrOption, SetOption

if TYPE_CHECKING:
    from labkit.measure.endpointing import EndpointingSummary, Line


def endpointing(
    model_set: SetOption = "embedded",
    asr: AsrOption = None,
    each: Annotated[
        int, typer.Option(min=1, max=50, help="Callers with each voice, of nine turns each.")
    ] = 2,
    seed: Annotated[int, typer.Option(help="Draws pauses, rhythms and noise.")] = 1,
    compare: Annotated[
        Path | None,
        typer.Option(help="A decisions.csv of other policies, for the same --each and --seed."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Results go into a folder in here.")] = Path("results"),
) -> None:
    """Measure how well the end of a turn is found: cut-offs against dead air."""
    from labkit.measure.endpointing import EndpointingExperiment, read_decisions
    from labkit.voice.catalogue import Role
    from labkit.voice.models import load_engines, resolve

    compared = [] if compare is None else read_decisions(compare)
    paths = resolve(model_set, asr=asr)
    experiment = EndpointingExperiment(
        load_engines(paths).asr,
        models=paths.names[Role.ASR],
        seed=seed,
        each=each,
        compared=compared,
    )
    carry_out(experiment, out, lambda summed: [lines_table(summed)])


def lines_table(summed: "EndpointingSummary") -> Table:
    """Each policy where its line is read off."""
    return results_table("Turns cut off, against dead air", map(_row, summed.lines))


def _row(line: "Line") -> dict[str, str]:
    dead_air = {
        f"dead air, ms\nat {100 * at:.0f} % cut off": _told(seconds, 1000)
        for at, seconds in line.dead_air_s.items()
    }
    cut_off = {
        f"cut off, %\nat {1000 * at:.0f} ms": _told(share, 100)
        for at, share in line.cut_off.items()
    }
    return {"policy": line.policy, **dead_air, **cut_off}


def _told(value: float | None, times: int) -> str:
    return told_number(None if value is None else times * value)
