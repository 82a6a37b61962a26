"""The figures that labkit is held to, each as a ratio within one run, and what became of them.

A bar is a promise with a number. What a row measures is in `labkit.measure.bench_rows`; here is
what its readings are held against, and nothing is said to hold that was not measured.
"""

import operator
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal

from labkit.errors import ClientError, LabkitError, ProtocolError, ServerError
from labkit.measure.results import Experiment, Tell
from labkit.measure.statistics import Estimate

_SENSES: Final = {"≤": operator.le, "<": operator.lt, "≥": operator.ge}


@dataclass(frozen=True, slots=True)
class Bar:
    """What one figure has to reach.

    Attributes:
        row: What measures it, for `--only`.
        bound: What it is held against; None for what is only stated.
        sense: On which side of the bound it has to be.
    """

    row: str
    figure: str
    bound: float | None
    unit: str = ""
    sense: Literal["≤", "<", "≥"] = "≤"

    def __str__(self) -> str:
        return "stated" if self.bound is None else f"{self.sense} {self.bound:g}{self.unit}"

    def holds(self, value: float) -> bool:
        """Whether `value` reaches it; nothing falls short of what is only stated."""
        return self.bound is None or bool(_SENSES[self.sense](value, self.bound))


class Verdict(StrEnum):
    """What became of a bar."""

    HOLDS = "holds"
    SHORT = "short"
    STATED = "stated"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Reading:
    """What was measured for one bar.

    Attributes:
        value: With its interval; None where there is none.
        why: Why it does not say whether the bar holds; empty where it does.
    """

    value: Estimate | None = None
    why: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """A bar and what was measured for it."""

    name: str
    bar: Bar
    reading: Reading

    @property
    def verdict(self) -> Verdict:
        """What became of the bar."""
        if self.reading.why or self.reading.value is None:
            return Verdict.NOT_MEASURED
        if self.bar.bound is None:
            return Verdict.STATED
        return Verdict.HOLDS if self.bar.holds(self.reading.value.value) else Verdict.SHORT

    def columns(self) -> dict[str, Any]:
        """The finding as columns."""
        value = self.reading.value
        return {
            "name": self.name,
            "figure": self.bar.figure,
            "value": value and value.value,
            "low": value and value.low,
            "high": value and value.high,
            "n": value and value.sample,
            "unit": self.bar.unit.strip(),
            "held_against": str(self.bar),
            "verdict": self.verdict.value,
            "why": self.reading.why,
            "note": self.reading.note,
        }


def bars(models: str) -> dict[str, Bar]:
    """Every bar by its name, for this set of models; the order is that of the table."""
    over_floor = {"embedded": 0.25}.get(models, 0.35)
    audible = None if models == "embedded" else 700.0  # what a person would feel
    return {
        "decided p50": Bar("decided", "first audio less the wait, server-decided / floor, p50",
                           over_floor),
        "decided p95": Bar("decided", "the same, p95", 1.0),
        "audible p50": Bar("decided", "last word to first audible reply, server-decided, p50",
                           audible, " ms"),
        "audible p95": Bar("decided", "the same, p95", None, " ms"),
        "dead air": Bar("endpointing", "dead air at 5 % cut off, adaptive / fixed wait", 0.5),
        "push p50": Bar("push", "push-to-talk: asked to first audio / floor, p50", 1.05),
        "naive": Bar("naive", "first audio, naive / labkit, replies of five sentences", 5.0,
                     sense="≥"),
        "ping": Bar("ping", "ping p99 while four turns run, naive / labkit", 20.0, sense="≥"),
        "ping p99": Bar("ping", "labkit's ping p99 meanwhile", 10.0, " ms", sense="<"),
        "barge-in p95": Bar("barge-in", "speech found over the reply to its last sample, p95",
                            100.0, " ms"),
        "pause p95": Bar("barge-in", "speech over the reply to its pause, p95", None, " ms"),
        "words": Bar("words", "words misheard with partials, less one-shot's, points", 0.0, " %"),
        "ahead calls": Bar("ahead", "recogniser calls in vain, work ahead, per turn", 0.6),
        "ahead cpu": Bar("ahead", "CPU a turn, with work ahead / without", 1.5),
        "listening": Bar("listening", "CPU while listening / Silero's own", 1.3),
        "four p95": Bar("four", "first audio p95, four callers within a second / one", 2.5),
        "four underruns": Bar("four", "times that their audio ran out", 0.0),
        "eight p95": Bar("eight", "first audio p95, eight callers for a minute", None, " ms"),
        "eight underruns": Bar("eight", "times that their audio ran out", 0.0),
        "idle": Bar("memory", "memory of an idle session", 64.0, " KiB", sense="<"),
        "active": Bar("memory", "memory of one that has heard 2 s", None, " KiB"),
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class BenchSummary:
    """Every bar that was asked for, and what became of it.

    Attributes:
        findings: In the order of the table.
        load: How busy the machine was, before and after.
    """

    findings: Sequence[Finding]
    load: Sequence[float] = ()

    def sentences(self) -> list[str]:
        """What became of them, counted, and what the table has no room for."""
        counted = {v: sum(f.verdict is v for f in self.findings) for v in Verdict}
        told = [", ".join(f"{n} {verdict}" for verdict, n in counted.items() if n) + "."]
        for one in self.findings:
            why = f"not measured, {one.reading.why}" if one.reading.why else ""
            if said := "; ".join(filter(None, (why, one.reading.note))):
                told.append(f"{one.name}: {said}.")
        if self.load:
            told.append(
                f"Load of the machine: {self.load[0]:.1f} before, {self.load[-1]:.1f} after; "
                "what is measured above its cores is the machine's as much as labkit's."
            )
        return told

    def content(self) -> Mapping[str, Any]:
        """The same in figures."""
        return {
            "load": self.load,
            "findings": [{**one.columns(), "bar": asdict(one.bar)} for one in self.findings],
        }


Measure = Callable[["Bench", Tell], Awaitable[Mapping[str, Reading]]]
"""Measures bars, by their names; is given whom to tell how far it has come."""


@dataclass(slots=True, kw_only=True)
class Bench(Experiment[Finding, BenchSummary]):
    """What to measure, through `labkit.measure.results.conduct`.

    Attributes:
        measures: What measures what: rows, and how.
        only: Rows to measure; all where there is none.
        quick: Fewer turns; 95th percentiles are not measured then.
        seed: Draws order, recordings and phases.
    """

    models: str = "embedded"
    measures: Sequence[tuple[frozenset[str], Measure]] = ()
    only: Sequence[str] = ()
    quick: bool = False
    seed: int = 1
    loads: list[float] = field(default_factory=list)

    raw = "bench.csv"
    summary = "bench.json"
    columns = tuple(Finding("", Bar("", "", None), Reading()).columns())

    def __post_init__(self) -> None:
        """Refuse rows that nobody knows.

        Raises:
            LabkitError: There is no such row.
        """
        rows = list(dict.fromkeys(bar.row for bar in bars(self.models).values()))
        if unknown := [row for row in self.only if row not in rows]:
            raise LabkitError(f"there is no row {unknown[0]!r}; rows: {', '.join(rows)}")

    def wants(self, row: str) -> bool:
        """Whether a row is to be measured."""
        return not self.only or row in self.only

    async def run(self, record: Callable[[Finding], None], tell: Tell) -> None:
        """Measure row after row; each finding is recorded as soon as it is there.

        Raises:
            InstrumentError: A turn cannot be believed.
        """
        wanted = {name: bar for name, bar in bars(self.models).items() if self.wants(bar.row)}
        self.loads.append(os.getloadavg()[0])
        for rows, measure in self.measures:
            if any(map(self.wants, rows)):
                try:
                    found = await measure(self, tell)
                except (ClientError, ProtocolError, ServerError) as error:
                    # The other rows are worth their half hour; what cannot be believed ends it.
                    found = {
                        name: Reading(why=str(error))
                        for name, bar in wanted.items()
                        if bar.row in rows
                    }
                for name in [name for name in wanted if name in found]:
                    record(Finding(name, wanted.pop(name), found[name]))
        for name, bar in wanted.items():
            record(Finding(name, bar, Reading(why="nothing measured it")))
        self.loads.append(os.getloadavg()[0])
        tell("done", 1, 1)

    def summarise(self, rows: Sequence[Finding]) -> BenchSummary:
        """The findings, in the order of the table."""
        order = list(bars(self.models))
        return BenchSummary(sorted(rows, key=lambda one: order.index(one.name)), self.loads)

    def about(self) -> Mapping[str, Any]:
        """What was asked for."""
        return {
            "models": self.models, "only": list(self.only), "quick": self.quick, "seed": self.seed,
        }  # fmt: skip
