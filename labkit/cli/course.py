"""The course: `labkit lab` opens it, `labkit check` and `labkit progress` say how far one is."""

import os
import sys
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.markdown import Markdown

from labkit.cli.terminal import console, run
from labkit.errors import LabkitError
from labkit.notebook.copies import copy_chapters, jupyter_command, jupyter_environment

_CHECKOUT: Final = Path(__file__).resolve().parents[2]


def lab(
    context: typer.Context,
    mine: Annotated[Path, typer.Option(help="The folder with your copies.")] = _CHECKOUT / "mine",
) -> None:
    """Open copies of the chapters in JupyterLab, yours to change; takes its options, too."""
    from labkit.doctor import check_home, check_packages, jupyter_folders, required_packages

    packages = check_packages(required_packages())
    if not packages.ok:
        raise LabkitError(f"packages: {packages.detail}; {packages.mend}")
    home = check_home(jupyter_folders())  # Jupyter itself would give a traceback
    if not home.ok:
        raise LabkitError(f"{home.detail}; {home.mend}")
    if os.geteuid() == 0 and "--allow-root" not in context.args:
        raise LabkitError(
            "JupyterLab does not run as root unless it is told to: "
            "make lab ARGS=--allow-root (or labkit lab --allow-root)"
        )
    for sentence in copy_chapters(_CHECKOUT / "notebooks", mine):
        sys.stderr.write(f"{sentence}\n")
    command = jupyter_command(mine, context.args)
    os.execve(command[0], command, jupyter_environment())


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
    from labkit.client.dial import server_url
    from labkit.course.checking import check as run_checks
    from labkit.course.verdict import Report, Reports

    if (url is None) == (server is None):
        raise typer.BadParameter("give either --url or --server")
    if url is not None:
        server_url(url)  # says what is wrong with it
    ended: list[Report] = []
    try:
        result = run(run_checks(name, url or server, seed=seed, tell=ended.append))
    except BaseException:
        if ended:
            _print(f"not finished; found until then:\n{Reports(tuple(ended))!r}")
        raise
    _print(repr(result))
    if not result.passed:
        raise typer.Exit(1)


def _print(found: str) -> None:
    console().print(found, markup=False, highlight=False, soft_wrap=True)


def progress() -> None:
    """Say which checks of the course have passed, and what was predicted."""
    from labkit.course.cards import progress as shown

    console().print(Markdown(str(shown())))
