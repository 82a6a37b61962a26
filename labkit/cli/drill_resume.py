"""The command `labkit drill resume`."""

import asyncio
from typing import Annotated

import typer

from labkit.cli.drill import counting_bar, judge
from labkit.voice.models import data_folder

__all__ = ["resume"]


def resume(
    cuts: Annotated[int, typer.Option(min=0, help="Connections to cut while an echo answers.")] = (
        1000
    ),
    voice_cuts: Annotated[int, typer.Option(min=0, help="The same while the engines answer.")] = 20,
    seed: Annotated[int, typer.Option(help="Draws where they are cut.")] = 1,
) -> None:
    """Cut connections at random bytes, both ways; nothing may be lost or repeated."""
    from labkit.drills.resume import run_resume

    with counting_bar() as tell:
        verdict = asyncio.run(
            run_resume(
                cuts=cuts,
                voice_cuts=voice_cuts,
                seed=seed,
                recordings=data_folder() / "speech",
                tell=tell,
            )
        )
    judge(verdict)
