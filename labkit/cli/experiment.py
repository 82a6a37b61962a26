"""What the commands that measure have in common: the bar, the end, and where the results are."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich import box
from rich.table import Table

from labkit.cli.terminal import console, counting_bar, errors, run

if TYPE_CHECKING:
    from labkit.measure.results import Experiment, Results, Summary

S = TypeVar("S", bound="Summary")
R = TypeVar("R")


def carry_out(
    experiment: "Experiment[R, S]",
    out: Path,
    tables: Callable[[S], list[Table]],
    *,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None:
    """Run an experiment, write its results into a folder in `out`, and print what it found.

    Args:
        experiment: What to run.
        out: Tried before the experiment begins.
        tables: Makes of the summary what is printed before its sentences.
        loop_factory: Makes the event loop, where an ordinary one will not do.

    Raises:
        LabkitError: The results cannot be written, or the experiment failed.
        SystemExit: A signal ended it; where the rows are that were measured is then printed.
    """
    from labkit.measure.results import Results, conduct

    results = Results.within(out)
    try:
        with counting_bar() as tell:
            summed = run(conduct(experiment, results, tell), loop_factory=loop_factory)
    finally:
        if not results.complete:
            _say_what_is_kept(results)
    for table in tables(summed):
        console().print(table)
    for sentence in summed.sentences():
        console().print(sentence)
    where = f"Raw data, summary and figures: {results.folder}"
    console().print(where, soft_wrap=True, markup=False)


def _say_what_is_kept(results: "Results") -> None:
    if results.measured:
        kept = f"not finished; the rows measured until then ({results.measured}) are in"
        errors().print(f"{kept} {results.folder}", soft_wrap=True, markup=False)


def results_table(title: str, rows: Iterable[Mapping[str, str]]) -> Table:
    """A table that fits into 80 columns: rows of the same columns, at least one."""
    rows = list(rows)
    table = Table(*rows[0], title=title, box=box.SIMPLE_HEAD, padding=(0, 0), pad_edge=False)
    for row in rows:
        table.add_row(*row.values())
    for column in table.columns:
        column.justify, column.no_wrap = "right", True
    return table


def told_number(value: float | None, form: str = ".0f") -> str:
    """A number for a table, a dash where there is none."""
    return "-" if value is None else f"{value:{form}}"
