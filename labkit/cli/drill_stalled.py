"""The command `labkit drill stalled`."""

import asyncio
from typing import Annotated

import typer

from labkit.cli.drill import counting_bar, judge
from labkit.voice.models import data_folder

__all__ = ["stalled"]


def stalled(
    clients: Annotated[int, typer.Option(min=1, help="Clients that read nothing.")] = 100,
    seconds: Annotated[
        float, typer.Option(min=1, help="How long other callers are timed, three times.")
    ] = 30,
) -> None:
    """Let clients read nothing of their replies; neither memory nor others may suffer."""
    from labkit.drills.stalled import run_stalled

    with counting_bar() as tell:
        verdict = asyncio.run(
            run_stalled(
                clients=clients,
                seconds=seconds,
                recordings=data_folder() / "speech",
                tell=tell,
            )
        )
    judge(verdict)
