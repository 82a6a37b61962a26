"""The command `labkit models verify`; what it runs lies with the models' recipes."""

import importlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from labkit.errors import LabkitError
from labkit.voice.models import data_folder

__all__ = ["verify"]


def verify(
    digits: Annotated[
        Path | None, typer.Option(help="Archive of human digits; without it, those rows are left.")
    ] = None,
) -> None:
    """Examine the embedded models on held-out material; exits 1 where a bar is missed."""
    checkout = data_folder().resolve().parent
    if not (checkout / "data/recipes/evaluation/verify.py").is_file():
        raise LabkitError(
            "models are examined by data/recipes/evaluation, which comes with a checkout and not "
            f"with the package, and {checkout} holds none; run this command in a checkout"
        )
    sys.path.insert(0, str(checkout))  # recipes import one another as data.recipes…
    examination = importlib.import_module("data.recipes.evaluation.verify")
    raise typer.Exit(examination.main(["--digits", str(digits)] if digits else []))
