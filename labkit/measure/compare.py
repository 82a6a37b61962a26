"""Two runs of the latency exercise compared: recording by recording, with intervals."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from pydantic import TypeAdapter

from labkit.errors import InstrumentError
from labkit.measure.exercise_summary import FEW_BLOCKS, TOO_FEW, Row, balanced_means, by_server
from labkit.measure.results import read_rows
from labkit.measure.statistics import Estimate, median
from labkit.trace import Stage

Part = Callable[[Sequence[Row]], dict[str, float]]
"""Gives milliseconds by recording."""

_RECORDING: Final = attrgetter("utterance")
_ROWS: Final = TypeAdapter(Row)
_TURNS: Final = "turns.csv"
_SUMMARY: Final = "summary.json"
_NOT_COMPARED: Final = frozenset({"clock"})


@dataclass(frozen=True, slots=True)
class Run:
    """A run of the exercise as its folder has it, with the turns that count by server.

    `about` has machine, versions, settings and conditions; it is empty where the run did not end.
    """

    folder: Path
    about: Mapping[str, Any]
    servers: Mapping[str, Sequence[Row]]


@dataclass(frozen=True, slots=True)
class Difference:
    """What one part of the wait takes in two runs; milliseconds.

    Attributes:
        first: Mean in the first run, over the recordings that both said.
        second: Mean in the second.
        change: Median of the differences over those recordings, with its 95 % interval.
    """

    what: str
    first: float
    second: float
    change: Estimate

    @property
    def verdict(self) -> str:
        """What the difference says, in a word or four."""
        if self.change.sample < FEW_BLOCKS:
            return TOO_FEW
        if not self.change.clear:
            return "noise"
        return "slower" if self.change.value > 0 else "faster"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One server of the first run beside one of the second.

    Attributes:
        parts: The whole wait first, then the effect of the chunk size, then each stage.
    """

    first: str
    second: str
    parts: Sequence[Difference]

    def sentence(self) -> str:
        """What it says of the whole wait, and no more than the data do."""
        whole = self.parts[0]
        named = self.first if self.first == self.second else f"{self.second} for {self.first}"
        over, by_ms = f"{whole.change.sample} recordings", whole.change.value
        if whole.verdict == TOO_FEW:
            return f"{named}: {TOO_FEW} ({over} in both runs)."
        sure = f"({whole.change.interval()}, {over})"
        if whole.verdict == "noise":
            return f"{named}: the wait differs by {by_ms:+.0f} ms {sure}: noise."
        return f"{named}: the second run is {whole.verdict} by {abs(by_ms):.0f} ms {sure}."


def read_run(folder: Path) -> Run:
    """Read what `labkit exercise` wrote into `folder`, also of a run that was interrupted.

    Raises:
        InstrumentError: There are no turns of an exercise in it.
    """
    summary = folder / _SUMMARY
    try:
        rows = read_rows(folder / _TURNS, _row)
        told = summary.read_text(encoding="utf-8") if summary.exists() else '{"about": {}}'
        about = dict(json.loads(told)["about"])
        about.update(about.pop("versions", {}))
    except (InstrumentError, OSError, KeyError, TypeError, ValueError) as error:
        ours = isinstance(error, InstrumentError)
        why = error if ours else f"{summary} is not as this labkit writes it"
        raise InstrumentError(
            f"{folder} holds no turns of an exercise: {why}; "
            "name a folder that 'labkit exercise' wrote"
        ) from error
    return Run(folder, about, by_server(rows))


def _row(columns: Mapping[str, str]) -> Row:
    """A turn as a file of turns has it, without its marks."""
    told: dict[str, Any] = {"heard_ms": None}  # which earlier versions did not have
    told |= {
        name: text or None if name.endswith(("_ms", "_bytes", "block")) else text
        for name, text in columns.items()
    }
    told["stages"] = {s: span for s in Stage if (span := told.get(f"stage_{s}_ms"))}
    return _ROWS.validate_python(told)


def compare(first: Run, second: Run) -> list[Comparison]:
    """Compare every server that both runs have, or their only ones.

    Raises:
        InstrumentError: They have no server, or no recording in no chunk size, in common.
    """
    shared = [name for name in first.servers if name in second.servers]
    pairs = [(name, name) for name in shared]
    if not pairs and len(first.servers) == len(second.servers) == 1:
        pairs = [(next(iter(first.servers)), next(iter(second.servers)))]
    if not pairs:
        raise InstrumentError(
            f"the runs have no server in common: {', '.join(first.servers)} in {first.folder}, "
            f"{', '.join(second.servers)} in {second.folder}"
        )
    return [Comparison(a, b, _differences(first.servers[a], second.servers[b])) for a, b in pairs]


def changed(first: Run, second: Run) -> list[str]:
    """What else than the waits is different: machine, versions, settings and conditions."""
    before, after = first.about, second.about
    return [
        f"{name}: {before.get(name, 'not told')} -> {after.get(name, 'not told')}"
        for name in {**before, **after}
        if before.get(name) != after.get(name) and name not in _NOT_COMPARED
    ]


def _differences(first: Sequence[Row], second: Sequence[Row]) -> list[Difference]:
    sizes = {row.chunk_ms for row in first} & {row.chunk_ms for row in second}
    if not sizes:
        raise InstrumentError("the runs have no chunk size in common")
    small, large = min(sizes), max(sizes)
    sides = [[row for row in rows if row.chunk_ms in sizes] for rows in (first, second)]
    by_recording = partial(balanced_means, key=_RECORDING)
    wanted: dict[str, Part] = {"the whole wait": by_recording}
    if small < large:
        wanted[f"effect of {small} to {large} ms"] = partial(_effects, small=small, large=large)
    for stage in Stage:
        wanted[stage.label] = partial(by_recording, value=partial(_span, stage))
    found = [_difference(what, *map(part, sides)) for what, part in wanted.items()]
    if found[0] is None:
        raise InstrumentError("the runs have no recording in common that both answered")
    return [difference for difference in found if difference is not None]


def _span(stage: Stage, row: Row) -> float | None:
    return row.stages.get(stage)


def _difference(
    what: str, before: Mapping[str, float], after: Mapping[str, float]
) -> Difference | None:
    both = [name for name in before if name in after]
    if not both:
        return None
    return Difference(
        what,
        fmean(before[name] for name in both),
        fmean(after[name] for name in both),
        median([after[name] - before[name] for name in both]),
    )


def _effects(rows: Sequence[Row], small: int, large: int) -> dict[str, float]:
    """How much longer each recording's wait is with large chunks than with small ones."""
    low, high = (
        balanced_means([row for row in rows if row.chunk_ms == size], _RECORDING)
        for size in (small, large)
    )
    return {name: high[name] - low[name] for name in low if name in high}
