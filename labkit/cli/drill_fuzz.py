"""The command `labkit drill fuzz`."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from typing import Annotated

import typer

from labkit.cli.drill import judge, progress_bar
from labkit.drills.attackers import Crowd
from labkit.drills.floods import flood_own_server
from labkit.drills.fuzz import fuzz, fuzz_own_server, judge_fuzz
from labkit.drills.hostile import Dialect
from labkit.drills.verdict import Verdict
from labkit.measure.server_process import RunningServer

__all__ = ["fuzz_command"]


class Spoken(StrEnum):
    """What the hostile clients pretend to speak."""

    BOTH = "both"
    PLAIN = "plain"
    V1 = "v1"

    @property
    def dialects(self) -> tuple[Dialect, ...]:
        """The dialects of it."""
        return tuple(Dialect) if self is Spoken.BOTH else (Dialect(self.value),)


def fuzz_command(
    messages: Annotated[int, typer.Option(min=2, help="Messages to send.")] = 100_000,
    seed: Annotated[int, typer.Option(help="Decides what each connection sends.")] = 1,
    dialect: Annotated[Spoken, typer.Option(help="What the clients pretend to speak.")] = (
        Spoken.BOTH
    ),
    parallel: Annotated[int, typer.Option(min=1, max=64, help="Connections at a time.")] = 8,
    url: Annotated[
        str | None,
        typer.Option(help="Attack a server that runs already, one of yours; no look at its log."),
    ] = None,
) -> None:
    """Send hostile messages; the server must answer each in its dialect, and lose nothing."""
    crowd = Crowd(seed=seed, dialects=dialect.dialects, parallel=parallel)
    with progress_bar("hostile messages", messages) as tell:
        verdict = asyncio.run(_attack(url, messages, crowd, tell))
    judge(verdict)


async def _attack(
    url: str | None, messages: int, crowd: Crowd, tell: Callable[[int], None]
) -> Verdict:
    if url is not None:
        found = await fuzz(RunningServer(url), messages, crowd, tell)
        return judge_fuzz(found, crowd)
    verdict = judge_fuzz(await fuzz_own_server(messages, crowd, tell), crowd)
    if Dialect.V1 not in crowd.dialects:
        return verdict
    return replace(verdict, findings=(*verdict.findings, *await flood_own_server()))
