"""The embedded models, measured against their bars on the shipped held-out material.

`labkit models verify` runs this, and so does ``python -m data.recipes.evaluation.verify``.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data.recipes.evaluation import answerer, recogniser, voice
from data.recipes.evaluation.figure import Figure
from labkit.voice.models import Role, data_folder, find, locate

__all__ = ["main", "report", "verify"]


def verify(data: Path, *, digits: Path | None = None) -> Iterator[tuple[str, list[Figure]]]:
    """Measure the three embedded models, one after the other.

    Args:
        data: The project's `data/` folder.
        digits: Human digits as a tar archive; their rows are not measured without it.

    Yields:
        The name of a model and its figures, as soon as they are there.

    Raises:
        ModelError: A model is missing or does not load.
    """
    held_out = data / "heldout"
    asr = locate(find(Role.ASR, "lab-asr-en"))
    yield (
        "lab-asr-en",
        recogniser.evaluate(
            asr, held_out=held_out / "recogniser", speech=data / "speech", digits=digits
        ),
    )
    llm = locate(find(Role.LLM, "lab-llm-en"))
    yield "lab-llm-en", answerer.evaluate(llm, held_out=held_out / "answerer")
    tts = locate(find(Role.TTS, "lab-voice-en"))
    yield "lab-voice-en", voice.evaluate(tts, held_out=held_out / "voice", recogniser=asr)


def report(examined: Iterator[tuple[str, list[Figure]]]) -> bool:
    """Print the figures of each model as they come; says whether every measured one holds."""
    console = Console()
    holds = True
    while True:
        with console.status("examining; this takes some minutes"):
            found = next(examined, None)
        if found is None:
            return holds
        model, figures = found
        console.print(_table(model, figures))
        holds &= all(figure.holds for figure in figures if figure.measured)


def _table(model: str, figures: Sequence[Figure]) -> Table:
    table = Table("", "figure", "bar", "on", "holds", "note", title=model)
    for column in table.columns[1:4]:
        column.justify = "right"
    for figure in figures:
        sign = "≤" if figure.at_most else "≥"
        holds = "[green]yes[/]" if figure.holds else "[bold red]no[/]"
        table.add_row(
            figure.name,
            f"{figure.value:.2f} {figure.unit}" if figure.measured else "-",
            f"{sign} {figure.bar:g} {figure.unit}",
            str(figure.sample),
            holds if figure.measured else "[dim]not measured[/]",
            escape(figure.note),
        )
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Examine the models; 1 where a bar is missed, 0 otherwise.

    Raises:
        ModelError: A model is missing or does not load.
    """
    parser = argparse.ArgumentParser(prog="labkit models verify", description=__doc__)
    parser.add_argument("--digits", type=Path, help="tar archive of human digits")
    options = parser.parse_args(arguments)
    return 0 if report(verify(data_folder(), digits=options.digits)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
