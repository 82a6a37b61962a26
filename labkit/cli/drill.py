"""The commands `labkit drill …`: break the server on purpose, and check what it promises."""

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from labkit.measure.drills.verdict import Finding, Verdict

__all__ = ["drill", "judge", "verdict_table"]

drill = typer.Typer(
    help="Break the server on purpose, and check what it promises.", no_args_is_help=True
)


def judge(verdict: Verdict) -> None:
    """Print what a drill found; ends the command with code 1 where a promise was broken."""
    Console().print(verdict_table(verdict))
    if not verdict.holds:
        raise typer.Exit(1)


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
            return f"{number:.2f}"


def _holds(finding: Finding) -> str:
    if not finding.judged:
        return "[dim]told[/]"
    return "[green]yes[/]" if finding.holds else "[bold red]no[/]"
