"""`labkit endpointing`, `labkit load` and `labkit bench`, and what all commands that measure share.

That is the bar, the end, where the results are, and how they are told in tables of 80 columns.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeVar

import typer
from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from labkit.cli.models import AsrOption, SetOption
from labkit.cli.terminal import console, counting_bar, errors, number, print_table, run
from labkit.errors import LabkitError

if TYPE_CHECKING:
    from labkit.measure.bench import BenchSummary, Finding
    from labkit.measure.endpointing import EndpointingSummary, Line
    from labkit.measure.load_summary import Level, Ratio
    from labkit.measure.results import Experiment, Measured, Summary
    from labkit.measure.statistics import Estimate, Percentiles

S = TypeVar("S", bound="Summary")
R = TypeVar("R", bound="Measured")

OutOption = Annotated[Path, typer.Option(help="Results go into a folder in here.")]
RESULTS: Final = Path("results")
_MOST_SESSIONS: Final = 1000
"""One process holds no more: the usual limit is 1,024 open files."""


def carry_out(
    experiment: "Experiment[R, S]",
    out: Path,
    tables: Callable[[S], list[Table]],
    *,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None:
    """Run an experiment, write its results into a folder in `out`, and print what it found.

    The folder is tried before, and named: where two signals come at once, nothing can be told in
    the end. What `tables` makes of the summary is printed before its sentences; where a signal ends
    the experiment, it is told where the rows are that were measured.
    """
    from labkit.measure.results import Results, conduct

    results, found = Results.within(out), list[S]()
    begun = f"what is measured goes to {results.folder}"
    errors().print(begun, soft_wrap=True, markup=False, highlight=False)
    try:
        with counting_bar() as tell:
            run(conduct(experiment, results, tell, found.append), loop_factory=loop_factory)
    finally:
        for summed in found:  # also where it could not be written
            for table in tables(summed):
                print_table(table)
            for sentence in summed.sentences():
                console().print(sentence, markup=False)
        if results.measured and not results.complete:
            kept = f"not finished; the rows measured until then ({results.measured}) are in"
            errors().print(f"{kept} {results.folder}", soft_wrap=True, markup=False)
    console().print(f"Results: {results.folder}", soft_wrap=True, markup=False)


def results_table(title: str, rows: Iterable[Mapping[str, str | Text]]) -> Table:
    """A table that fits into 80 columns: rows of the same columns, at least one.

    All text is printed as it is, since names and errors of other servers are part of it.
    """
    rows = list(rows)
    table = Table(
        *map(escape, rows[0]), title=escape(title), box=box.SIMPLE_HEAD, padding=(0, 0),
        pad_edge=False,
    )  # fmt: skip
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else escape(cell) for cell in row.values()))
    for column in table.columns:
        column.justify, column.no_wrap = "right", True
    return table


def told_number(found: "float | Estimate | None", form: str = ".0f") -> str:
    """A number for a table, a dash where there is none."""
    if found is None:
        return "-"
    return f"{found if isinstance(found, float | int) else found.value:{form}}"


def whole_numbers(text: str) -> tuple[int, ...]:
    """The numbers in a text such as ``1,8,16``; none where it is no list of them."""
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        return ()


# -- endpointing -----------------------------------------------------------------------------------


def endpointing(
    model_set: SetOption = "embedded",
    asr: AsrOption = None,
    each: Annotated[
        int, typer.Option(min=1, max=50, help="Callers with each voice, of nine turns each.")
    ] = 2,
    seed: Annotated[int, typer.Option(help="Draws pauses, rhythms and noise.")] = 1,
    compare: Annotated[
        Path | None,
        typer.Option(help="A decisions.csv of other policies, for the same --each and --seed."),
    ] = None,
    out: OutOption = RESULTS,
) -> None:
    """Measure how well the end of a turn is found: cut-offs against dead air."""
    from labkit.measure.endpointing import EndpointingExperiment, read_decisions
    from labkit.voice.loading import load_engines
    from labkit.voice.models import Role, resolve

    compared = [] if compare is None else read_decisions(compare)
    paths = resolve(model_set, asr=asr)
    experiment = EndpointingExperiment(
        load_engines(paths).asr,
        models=paths.names[Role.ASR],
        seed=seed,
        each=each,
        compared=compared,
    )
    carry_out(experiment, out, lambda summed: [lines_table(summed)])


def lines_table(summed: "EndpointingSummary") -> Table:
    """Each policy where its line is read off."""
    return results_table("Turns cut off, against dead air", map(_line, summed.lines))


def _line(line: "Line") -> dict[str, str]:
    dead_air = {
        f"dead air, ms\nat {100 * at:.0f} % cut off": _scaled(seconds, 1000)
        for at, seconds in line.dead_air_s.items()
    }
    cut_off = {
        f"cut off, %\nat {1000 * at:.0f} ms": _scaled(share, 100)
        for at, share in line.cut_off.items()
    }
    return {"policy": line.policy, **dead_air, **cut_off}


def _scaled(value: float | None, times: int) -> str:
    return told_number(None if value is None else times * value)


# -- load ------------------------------------------------------------------------------------------


def load(
    pipeline: Annotated[
        Literal["echo", "voice"],
        typer.Option(help="What answers: an echo that measures the transport alone, or engines."),
    ] = "echo",
    sessions: Annotated[
        str, typer.Option(help="Numbers of callers, rising, a level each.")
    ] = "1,8,16,32,64",
    seconds: Annotated[float, number(min=2, max=3600, help="Length of a level.")] = 15,
    chunk_ms: Annotated[int, typer.Option(min=5, max=1000, help="Length of a message.")] = 40,
    seed: Annotated[int, typer.Option(help="Draws phases, recordings and order.")] = 1,
    out: OutOption = RESULTS,
    url: Annotated[
        str | None, typer.Option(help="Load a server that runs already; no memory, no CPU.")
    ] = None,
    model_set: SetOption = "embedded",
) -> None:
    """Find out how many callers the server bears, beside a bare server in the same run."""
    from labkit.measure.callers import Manners, fine_loop
    from labkit.measure.load import Load

    experiment = Load(
        pipeline=pipeline,
        sessions=parse_levels(sessions),
        seconds=seconds,
        manners=Manners(chunk_ms=chunk_ms),
        seed=seed,
        url=url,
        model_options=() if url or pipeline == "echo" else _model_options(model_set),
    )
    carry_out(
        experiment,
        out,
        lambda summed: [waits_table(summed.levels), costs_table(summed.levels)],
        loop_factory=fine_loop,
    )


def parse_levels(text: str) -> tuple[int, ...]:
    """Understand numbers of callers such as ``1,8,16``.

    Raises:
        LabkitError: They are no whole numbers from 1 to 1,000, or do not rise.
    """
    levels = whole_numbers(text)
    rising = all(a < b for a, b in pairwise(levels))
    if not levels or not rising or levels[0] < 1 or levels[-1] > _MOST_SESSIONS:
        raise LabkitError(
            f"sessions: {text!r} is no list of rising whole numbers from 1 to {_MOST_SESSIONS}; "
            "write them as 1,8,16,32"
        )
    return levels


def _model_options(model_set: str) -> tuple[str, ...]:
    """Options for a server with engines; it is better to miss a model now than in a subprocess."""
    from labkit.voice.models import resolve

    resolve(model_set)
    return ("--models", model_set)


def waits_table(levels: "Sequence[Level]") -> Table:
    """What callers waited, a row per level and server."""
    from labkit.measure.load_summary import LATENESS_BOUND_MS

    table = results_table("What callers waited, from when it was due", map(_waits, levels))
    if any(level.generator_limited for level in levels):
        table.caption = (
            f"! generator-limited: the callers themselves were more than {LATENESS_BOUND_MS:g} ms "
            "late (p95)"
        )
    return table


def _waits(level: "Level") -> dict[str, str | Text]:
    return {
        "sessions": str(level.sessions),
        "server": level.server,
        "turns": str(level.turns),
        "lost": str(level.lost),
        "refused": str(level.refused),
        "reply, ms\np50 p95 p99": _three(level.turn_ms),
        "ping, ms\np50 p95 p99": _three(level.ping_ms),
        "seconds\nbehind": f"{level.behind_s:.2f}",
        "callers\nlate, ms": _lateness(level),
    }


def costs_table(levels: "Sequence[Level]") -> Table:
    """What it cost the servers, and labkit's over the bare one's."""
    from labkit.measure.load_summary import ratios

    over = {(ratio.server, ratio.sessions): ratio for ratio in ratios(levels)}
    rows = (_costs(level, over.get((level.server, level.sessions))) for level in levels)
    table = results_table("What it cost the server", rows)
    if any(level.cpu_per_s is None for level in levels):
        table.caption = "-: unavailable; known only of servers that this command started"
    return table


def _costs(level: "Level", ratio: "Ratio | None") -> dict[str, str]:
    return {
        "sessions": str(level.sessions),
        "server": level.server,
        "memory, MB\nstart peak end": _memory(level),
        "CPU\ncores": told_number(level.cpu_per_s, ".2f"),
        "ms/s per\nsession": told_number(level.cpu_ms_per_session, ".2f"),
        "callers'\ncores": f"{level.generator_cpu_per_s:.2f}",
        "ping\n/ bare": f"{ratio.ping_p95:.2f}" if ratio else "",
        "CPU\n/ bare": f"{ratio.cpu:.2f}" if ratio and ratio.cpu is not None else "",
        "errors": ", ".join(f"{code} {count}" for code, count in level.errors.items()),
    }


def _three(found: "Percentiles | None") -> str:
    return "-" if found is None else " ".join(map(_short, (found.p50, found.p95, found.p99)))


def _short(milliseconds: float | None) -> str:
    return told_number(milliseconds, ".1f" if milliseconds and milliseconds < 10 else ".0f")


def _lateness(level: "Level") -> str | Text:
    if level.lateness_ms is None:
        return "-"
    late = _short(level.lateness_ms.p95)
    return Text(f"{late} !", "bold red") if level.generator_limited else late


def _memory(level: "Level") -> str:
    whole = (level.rss_before, level.rss_peak, level.rss_after)
    told = [f"{rss / 1e6:.0f}" for rss in whole if rss is not None]
    return " ".join(told) if len(told) == len(whole) else "-"


# -- bench -----------------------------------------------------------------------------------------


def bench(
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROW",
            help="Measure this row: decided, endpointing, push, naive, ping, barge-in, words, "
            "ahead, listening, four, eight or memory. May be repeated.",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer turns, and no 95th or 99th percentiles.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Draws order, recordings and phases.")] = 1,
    out: OutOption = RESULTS,
    model_set: SetOption = "embedded",
) -> None:
    """Hold labkit against its bars: each figure, measured as a ratio in this run, and a verdict.

    Of the whole machine: close what else computes. A whole run takes half an
    hour.
    """
    from labkit.measure.bench import Bench
    from labkit.measure.bench_rows import MEASURES
    from labkit.voice.models import resolve

    experiment = Bench(models=model_set, measures=MEASURES, only=only or (), quick=quick, seed=seed)
    resolve(model_set)  # it is better to miss a model now than in a subprocess
    carry_out(experiment, out, lambda summed: [findings_table(summed)])


def findings_table(summed: "BenchSummary") -> Table:
    """Every figure beside its bar."""
    table = results_table("What labkit is held to", map(_finding, summed.findings))
    figure = table.columns[1]
    figure.justify, figure.no_wrap, figure.overflow = "left", False, "fold"
    table.columns[0].justify = "left"
    return table


def _finding(one: "Finding") -> dict[str, str | Text]:
    value, colours = one.reading.value, {"holds": "green", "short": "red"}
    return {
        "name": one.name,
        "figure": one.bar.figure,
        "value": "-" if value is None else _digits(value.value),
        "95 %\ninterval": _interval(value),
        "n": "-" if value is None else str(value.sample),
        "bar": str(one.bar),
        "verdict": Text(one.verdict.value.replace(" ", "\n"), colours.get(one.verdict.value, "")),
    }


def _interval(value: "Estimate | None") -> str:
    if value is None or value.low == value.high:
        return "-"
    return f"{_digits(value.low)}–{_digits(value.high)}"


def _digits(value: float) -> str:
    """Three digits, and all of those before the point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
