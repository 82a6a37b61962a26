"""The command `labkit drill abandoned`."""

import asyncio
from typing import Annotated

import typer

from labkit.cli.drill import counting_bar, judge
from labkit.cli.load import Answering
from labkit.voice.models import data_folder

__all__ = ["abandoned"]


def abandoned(
    clients: Annotated[int, typer.Option(min=1, help="Clients for each way of leaving.")] = 10,
    pipeline: Annotated[Answering, typer.Option(help="What answers.")] = Answering.VOICE,
) -> None:
    """Abandon sessions in every way there is; nothing of them may be left."""
    from labkit.drills.abandoned import run_abandoned

    with counting_bar() as tell:
        verdict = asyncio.run(
            run_abandoned(
                clients=clients,
                pipeline=pipeline.value,
                recordings=data_folder() / "speech",
                tell=tell,
            )
        )
    judge(verdict)
