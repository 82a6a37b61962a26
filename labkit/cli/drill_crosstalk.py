"""The command `labkit drill crosstalk`."""

import asyncio
from typing import Annotated

import typer

from labkit.cli.drill import judge, progress_bar
from labkit.drills.crosstalk import Crosstalk, Schedule, crosstalk, judge_crosstalk
from labkit.drills.facts import plan_callers
from labkit.drills.questions import spoken_questions
from labkit.drills.target import target_command
from labkit.measure.recordings import load_manifest
from labkit.measure.server_process import running_server
from labkit.voice.models import SETS, data_folder, resolve

__all__ = ["crosstalk_command"]


def crosstalk_command(
    sessions: Annotated[int, typer.Option(min=1, help="Callers at once.")] = 16,
    turns: Annotated[int, typer.Option(min=2, max=8, help="Utterances of each caller.")] = 4,
    seed: Annotated[int, typer.Option(help="Draws who says what, and when each begins.")] = 1,
    pace: Annotated[
        float, typer.Option(min=0, help="Times the pace of speech, in the crowd; 0 is at once.")
    ] = 1.0,
    model_set: Annotated[
        str, typer.Option("--models", help=f"Set of models: {', '.join(SETS)}.")
    ] = "embedded",
) -> None:
    """Let many callers talk at once; each must hear what it hears alone."""
    resolve(model_set)
    plans = plan_callers(load_manifest(data_folder() / "speech"), sessions, turns, seed)
    questions = spoken_questions()

    async def run() -> Crosstalk:
        async with running_server(target_command("voice", model_set=model_set)) as server:
            return await crosstalk(server.url, plans, questions, Schedule(pace=pace), tell)

    with progress_bar("turns", 3 * sessions * turns) as tell:
        result = asyncio.run(run())
    judge(judge_crosstalk(plans, result, seed))
