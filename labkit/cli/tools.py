"""Small commands around the server: `labkit doctor`, `labkit token` and `labkit protocol`."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from labkit.cli.models import SetOption
from labkit.cli.terminal import console, errors, require_writable, run, write_text
from labkit.errors import LabkitError


def doctor(model_set: SetOption = "embedded") -> None:
    """Say what this machine lacks, and the mend; exits 1 where something is amiss."""
    from labkit.doctor import run_checks
    from labkit.voice.models import models_of

    models = models_of(model_set)
    errors().print("looking; the models are loaded, which takes some seconds", highlight=False)
    checks = run(run_checks(models))
    shown = console()
    for check in checks:
        sign = "[green]ok  [/]" if check.ok else "[bold red]FAIL[/]"
        shown.print(
            f"{sign} {check.name:12} {escape(check.detail)}", soft_wrap=True, highlight=False
        )
        if check.mend:
            mend = f"     mend: {check.mend}"
            shown.print(mend, soft_wrap=True, highlight=False, markup=False)
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


def token() -> None:
    """Print a fresh token for --token-file, on the server and for its callers."""
    from labkit.net import new_token

    _print(f"{new_token()}\n")


def protocol(
    schema: Annotated[
        bool, typer.Option("--schema", help="The JSON Schema of labkit.v1 instead of the page.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write to this file.")] = None,
) -> None:
    """Print how to speak to a server: every message, field, code and limit."""
    from labkit.protocol.schema import schema_text

    if out is not None:
        require_writable(out)
    text = schema_text() if schema else reference_page()
    if out is None:
        _print(text)
    else:
        write_text(out, text)


def _print(text: str) -> None:
    """Print what the command is called for; in what was closed (`>&-`) it would be lost."""
    if sys.__stdout__ is None:
        raise LabkitError("stdout is closed, so there is nowhere to print to")
    sys.stdout.write(text)


def reference_page() -> str:
    """The reference page of the protocol, with the defaults of a server."""
    from labkit.protocol.page import page_text
    from labkit.server.v1 import limits_of
    from labkit.session.settings import ServerSettings

    settings = ServerSettings()
    return page_text(limits_of(settings), settings.model_dump())
