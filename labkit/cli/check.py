"""`labkit check` and `labkit progress`: the course's checks on any server, and how far one is."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown

from labkit.cli.terminal import console, run


def check(
    name: Annotated[
        str, typer.Argument(metavar="CHAPTER|NAME|all", help="Such as 'ch1' or 'ch1.pong'.")
    ],
    url: Annotated[
        str | None, typer.Option(help="Check a server that runs already, such as ws://….")
    ] = None,
    server: Annotated[
        Path | None, typer.Option(help="Check a file, in a process of its own.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Draws all inputs; by default LABKIT_SEED, or any.")
    ] = None,
) -> None:
    """Run the course's checks on a server; exits 1 where one does not pass."""
    from labkit.course.checking import check as run_checks

    if (url is None) == (server is None):
        raise typer.BadParameter("give either --url or --server")
    result = run(run_checks(name, url or server, seed=seed))
    console().print(repr(result), markup=False, highlight=False, soft_wrap=True)
    if not result.passed:
        raise typer.Exit(1)


def progress() -> None:
    """Say which checks of the course have passed, and what was predicted."""
    from labkit.course.cards import progress as shown

    console().print(Markdown(str(shown())))
