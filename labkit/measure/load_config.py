"""What a load is to run, and how its levels are written and drawn up."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from labkit.errors import LabkitError
from labkit.measure.callers import Manners

__all__ = ["MOST_SESSIONS", "LoadConfig", "parse_levels", "plan_levels"]

MOST_SESSIONS: Final = 1000
"""One process holds no more: the usual limit is 1,024 open files."""

_BOUND_MS: Final = {"echo": 100.0, "voice": 1000.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadConfig:
    """What to run.

    Attributes:
        recordings: Folder with recordings and their manifest.
        pipeline: What answers in labkit's server.
        sessions: Numbers of callers, rising; see `parse_levels`.
        seconds: How long each level lasts.
        chunk_ms: Length of one message.
        seed: Draws phases, orders of recordings, and which server comes first.
        url: Load this server instead of labkit's and the bare one.
        manners: How callers behave.
        model_options: Options that name the models, handed on to labkit's server.
    """

    recordings: Path
    pipeline: Literal["echo", "voice"] = "echo"
    sessions: tuple[int, ...] = (1, 8, 16, 32, 64)
    seconds: float = 15.0
    chunk_ms: int = 40
    seed: int = 1
    url: str | None = None
    manners: Manners = field(default_factory=Manners)
    model_options: tuple[str, ...] = ()

    @property
    def bound_ms(self) -> float:
        """What the 95th percentile of a turn is held against."""
        return _BOUND_MS[self.pipeline]


def parse_levels(text: str) -> tuple[int, ...]:
    """Understand numbers of callers such as ``1,8,16``.

    Raises:
        LabkitError: They are no whole numbers from 1 to 1,000, or do not rise.
    """
    try:
        levels = tuple(int(word) for word in text.split(","))
    except ValueError:
        levels = ()
    rising = all(a < b for a, b in zip(levels, levels[1:], strict=False))
    if not levels or not rising or levels[0] < 1 or levels[-1] > MOST_SESSIONS:
        raise LabkitError(
            f"sessions: {text!r} is no list of rising whole numbers from 1 to {MOST_SESSIONS}; "
            "write them as 1,8,16,32"
        )
    return levels


def plan_levels(
    sessions: Sequence[int], servers: Sequence[str], *, seed: int
) -> list[tuple[int, str]]:
    """Numbers of callers with the server that they call, in the order in which to run them.

    Numbers rise. Servers follow one another at the same number, in random order, so that a slow
    minute of the machine falls on all of them.
    """
    rng = random.Random(seed)
    return [(count, name) for count in sessions for name in rng.sample(servers, len(servers))]
