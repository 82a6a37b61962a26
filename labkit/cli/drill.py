"""The commands `labkit drill …`: break the server on purpose, and check what it promises."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from labkit.drills.verdict import Finding, Verdict

__all__ = ["counting_bar", "drill", "judge", "progress_bar", "verdict_table"]

drill = typer.Typer(
    help="Break the server on purpose, and check what it promises.", no_args_is_help=True
)


@contextmanager
def counting_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar that is told what is done, how much of it is over, and how much there is in all."""
    with _bar() as bar:
        task = bar.add_task("starting")
        yield lambda now, done, total: bar.update(
            task, description=now, completed=done, total=total
        )


def judge(verdict: Verdict) -> None:
    """Print what a drill found; ends the command with code 1 where a promise was broken."""
    Console().print(verdict_table(verdict))
    if not verdict.holds:
        raise typer.Exit(1)


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar over `total` of something; it is told how many more are done."""
    with _bar() as bar:
        task = bar.add_task(what, total=total)
        yield lambda more: bar.advance(task, more)


def _bar() -> Progress:
    columns = (
        TextColumn("{task.description:20}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True))


def verdict_table(verdict: Verdict) -> Table:
    """A row for each finding."""
    table = Table("", "found", "promised", "holds", title=escape(verdict.title))
    table.columns[1].justify = "right"
    for finding in verdict.findings:
        table.add_row(
            escape(finding.name), escape(_value(finding)), escape(finding.bar), _holds(finding)
        )
    return table


def _value(finding: Finding) -> str:
    match finding.value:
        case str() as words:
            return words
        case int() as whole:
            return f"{whole:,}"
        case number:
            return f"{round(number, 2) + 0:.2f}"  # + 0: there is a zero below zero


def _holds(finding: Finding) -> str:
    if not finding.judged:
        return "[dim]told[/]"
    return "[green]yes[/]" if finding.holds else "[bold red]no[/]"
