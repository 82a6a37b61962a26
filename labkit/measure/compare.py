"""Two runs of the latency exercise compared: recording by recording, with intervals."""

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from labkit.errors import InstrumentError
from labkit.measure.exercise_summary import FEW_BLOCKS, TOO_FEW, Row, by_server
from labkit.measure.statistics import Estimate, median
from labkit.trace import Stage

__all__ = ["Comparison", "Difference", "Run", "changed", "compare", "read_run"]

_TURNS: Final = "turns.csv"
_SUMMARY: Final = "summary.json"
_NOT_COMPARED: Final = frozenset({"clock"})


@dataclass(frozen=True, slots=True)
class Run:
    """A run of the exercise as its folder has it.

    Attributes:
        folder: Where it is.
        about: Machine, versions, settings and conditions; empty where the run did not end.
        servers: The turns that count, by server.
    """

    folder: Path
    about: Mapping[str, Any]
    servers: Mapping[str, Sequence[Row]]


@dataclass(frozen=True, slots=True)
class Difference:
    """What one part of the wait takes in two runs; milliseconds.

    Attributes:
        what: The part.
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
        first: Name of the server in the first run.
        second: In the second.
        parts: The whole wait first, then the effect of the chunk size, then each stage.
    """

    first: str
    second: str
    parts: Sequence[Difference]

    def sentence(self) -> str:
        """What it says of the whole wait, and no more than the data do."""
        whole = self.parts[0]
        named = self.first if self.first == self.second else f"{self.second} for {self.first}"
        span = f"95 % interval {whole.change.low:.0f} to {whole.change.high:.0f}"
        over = f"{whole.change.sample} recordings"
        if whole.verdict == TOO_FEW:
            return f"{named}: {TOO_FEW} ({over} in both runs)."
        if whole.verdict == "noise":
            return (
                f"{named}: the wait differs by {whole.change.value:+.0f} ms ({span}, {over}): "
                "noise."
            )
        return (
            f"{named}: the second run is {whole.verdict} by {abs(whole.change.value):.0f} ms "
            f"({span}, {over})."
        )


def read_run(folder: Path) -> Run:
    """Read what `labkit exercise` wrote into `folder`, also of a run that was interrupted.

    Raises:
        InstrumentError: There are no turns of an exercise in it.
    """
    try:
        with (folder / _TURNS).open(newline="", encoding="utf-8") as file:
            rows = [_row(columns) for columns in csv.DictReader(file)]
        summary = folder / _SUMMARY
        about = json.loads(summary.read_text(encoding="utf-8"))["about"] if summary.exists() else {}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InstrumentError(
            f"{folder} holds no turns of an exercise that can be read ({type(error).__name__}: "
            f"{error}); name a folder that 'labkit exercise' wrote"
        ) from error
    return Run(folder, about, by_server(rows))


def _row(columns: Mapping[str, str]) -> Row:
    """A turn as far as runs are compared by it."""

    def number(name: str) -> float | None:
        return float(columns[name]) if columns.get(name) else None

    stages = {stage: number(f"stage_{stage}_ms") for stage in Stage}
    return Row(
        utterance=columns["utterance"],
        voice=columns["voice"],
        chunk_ms=int(columns["chunk_ms"]),
        warmup=columns["warmup"] == "1",
        transcript=columns["transcript"],
        reply_text=columns["reply_text"],
        reply_seconds=float(columns["reply_seconds"]),
        ttfa_ms=number("ttfa_ms"),
        ttfb_ms=number("ttfb_ms"),
        server=columns["server"],
        block=int(columns["block"]) if columns["block"] else None,
        phase=number("phase") or 0.0,
        said=columns["said"],
        audio_seconds=float(columns["audio_seconds"]),
        messages=int(columns["messages"]),
        overhead_bytes=int(columns["overhead_bytes"]),
        listening_cpu_ms=number("listening_cpu_ms"),
        stages={stage: span for stage, span in stages.items() if span is not None},
    )


def compare(first: Run, second: Run, *, seed: int = 1) -> list[Comparison]:
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
    return [
        Comparison(a, b, _differences(first.servers[a], second.servers[b], seed)) for a, b in pairs
    ]


def changed(first: Run, second: Run) -> list[str]:
    """What else than the waits is different: machine, versions, settings and conditions."""
    before, after = (dict(run.about) for run in (first, second))
    for told in (before, after):
        told.update(told.pop("versions", {}))
    return [
        f"{name}: {before.get(name, 'not told')} -> {after.get(name, 'not told')}"
        for name in {**before, **after}
        if before.get(name) != after.get(name) and name not in _NOT_COMPARED
    ]


def _differences(first: Sequence[Row], second: Sequence[Row], seed: int) -> list[Difference]:
    sizes = {row.chunk_ms for row in first} & {row.chunk_ms for row in second}
    if not sizes:
        raise InstrumentError("the runs have no chunk size in common")
    small, large = min(sizes), max(sizes)
    sides = [[row for row in rows if row.chunk_ms in sizes] for rows in (first, second)]
    wanted: dict[str, Callable[[Iterable[Row]], dict[str, float]]] = {
        "the whole wait": lambda rows: _by_recording(rows, lambda row: row.ttfa_ms)
    }
    if small < large:
        wanted[f"effect of {small} to {large} ms"] = lambda rows: _effects(rows, small, large)
    for stage in Stage:
        wanted[stage.label] = lambda rows, stage=stage: _by_recording(  # type: ignore[misc]
            rows, lambda row: row.stages.get(stage)
        )
    found = [
        _difference(what, look(sides[0]), look(sides[1]), seed) for what, look in wanted.items()
    ]
    if found[0] is None:
        raise InstrumentError("the runs have no recording in common that both answered")
    return [difference for difference in found if difference is not None]


def _difference(
    what: str, before: Mapping[str, float], after: Mapping[str, float], seed: int
) -> Difference | None:
    both = [name for name in before if name in after]
    if not both:
        return None
    return Difference(
        what,
        fmean(before[name] for name in both),
        fmean(after[name] for name in both),
        median([after[name] - before[name] for name in both], seed=seed),
    )


def _by_recording(rows: Iterable[Row], value: Callable[[Row], float | None]) -> dict[str, float]:
    """Mean over the chunk sizes of the mean of each, by recording; those with a gap left out."""
    spans: dict[str, dict[int, list[float | None]]] = {}
    for row in rows:
        spans.setdefault(row.utterance, {}).setdefault(row.chunk_ms, []).append(value(row))
    most = max((len(sizes) for sizes in spans.values()), default=0)
    return {
        name: fmean(fmean(v for v in values if v is not None) for values in sizes.values())
        for name, sizes in spans.items()
        if len(sizes) == most and all(None not in values for values in sizes.values())
    }


def _effects(rows: Iterable[Row], small: int, large: int) -> dict[str, float]:
    """How much longer each recording's wait is with large chunks than with small ones."""
    rows = list(rows)
    low, high = (
        _by_recording([row for row in rows if row.chunk_ms == size], lambda row: row.ttfa_ms)
        for size in (small, large)
    )
    return {name: high[name] - low[name] for name in low if name in high}
