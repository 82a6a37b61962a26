"""The command `labkit protocol`: the reference page or the schema, as this version speaks."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from labkit.protocol.page import page_text
from labkit.protocol.schema import schema_text
from labkit.server.v1 import limits_of
from labkit.session.settings import ServerSettings

__all__ = ["page", "protocol"]


def protocol(
    schema: Annotated[
        bool, typer.Option("--schema", help="The JSON Schema of labkit.v1 instead of the page.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write to this file.")] = None,
) -> None:
    """Print how to speak to a server: every message, field, code and limit."""
    text = schema_text() if schema else page()
    if out is None:
        sys.stdout.write(text)
    else:
        out.write_text(text, encoding="utf-8")


def page() -> str:
    """The reference page, with the defaults of a server."""
    settings = ServerSettings()
    return page_text(limits_of(settings), asdict(settings))
