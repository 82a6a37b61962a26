"""The command `labkit bench`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from labkit.cli.experiment import carry_out, results_table
from labkit.cli.models import SetOption

if TYPE_CHECKING:
    from labkit.measure.bench import BenchSummary, Finding
    from labkit.measure.statistics import Estimate


def bench(
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROW",
            help="Measure this row: decided, endpointing, push, naive, ping, words, ahead, "
            "listening, four, eight or memory. May be repeated.",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer turns, and no 95th percentiles.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Draws order, recordings and phases.")] = 1,
    out: Annotated[Path, typer.Option(help="Results go into a folder in here.")] = Path("results"),
    model_set: SetOption = "embedded",
) -> None:
    """Hold labkit against its bars: each figure, measured as a ratio in this run, and a verdict.

    Of the whole machine: close what else computes. A whole run takes half an hour.
    """
    from labkit.measure.bench import Bench
    from labkit.measure.bench_rows import MEASURES
    from labkit.voice.models import resolve

    experiment = Bench(
        models=model_set,
        measures=MEASURES,
        only=only or (),
        quick=quick,
        seed=seed,
        load=lambda: os.getloadavg()[0],
    )
    resolve(model_set)  # it is better to miss a model now than in a subprocess
    carry_out(experiment, out, lambda summed: [findings_table(summed)])


def findings_table(summed: "BenchSummary") -> Table:
    """Every figure beside its bar."""
    table = results_table("What labkit is held to", map(_row, summed.findings))
    figure = table.columns[1]
    figure.justify, figure.no_wrap, figure.overflow = "left", False, "fold"
    table.columns[0].justify = "left"
    return table


def _row(one: "Finding") -> dict[str, str]:
    value, colours = one.reading.value, {"holds": "green", "short": "red"}
    colour = colours.get(one.verdict.value, "")
    verdict = one.verdict.value
    return {
        "name": one.name,
        "figure": one.bar.figure,
        "value": "-" if value is None else _short(value.value),
        "95 %\ninterval": _interval(value),
        "n": "-" if value is None else str(value.sample),
        "bar": str(one.bar),
        "verdict": f"[{colour}]{verdict}[/]" if colour else verdict.replace(" ", "\n"),
    }


def _interval(value: "Estimate | None") -> str:
    if value is None or value.low == value.high:
        return "-"
    return f"{_short(value.low)}–{_short(value.high)}"


def _short(value: float) -> str:
    """Three digits, and all of those before the point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
