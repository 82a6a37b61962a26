"""The command `labkit lab`: the chapters in JupyterLab, as copies that are the learner's own."""

import os
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from labkit.errors import LabkitError
from labkit.notebook.copies import copy_chapters, jupyter_command, jupyter_environment

_CHECKOUT: Final = Path(__file__).resolve().parents[2]


def lab(
    context: typer.Context,
    mine: Annotated[Path, typer.Option(help="The folder with your copies.")] = _CHECKOUT / "mine",
) -> None:
    """Open copies of the chapters in JupyterLab, yours to change; takes its options, too."""
    from labkit.doctor import check_packages, required_packages

    packages = check_packages(required_packages())
    if not packages.ok:
        raise LabkitError(f"packages: {packages.detail}; {packages.mend}")
    if os.geteuid() == 0 and "--allow-root" not in context.args:
        raise LabkitError(
            "JupyterLab does not run as root unless it is told to: "
            "make lab ARGS=--allow-root (or labkit lab --allow-root)"
        )
    for sentence in copy_chapters(_CHECKOUT / "notebooks", mine):
        sys.stderr.write(f"{sentence}\n")
    command = jupyter_command(mine, context.args)
    os.execve(command[0], command, jupyter_environment())
