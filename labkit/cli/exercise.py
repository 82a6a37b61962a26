"""`labkit exercise`: the latency exercise, and `labkit exercise diff`: two runs compared."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from labkit.cli.measure import (
    RESULTS,
    OutOption,
    carry_out,
    results_table,
    told_number,
    whole_numbers,
)
from labkit.cli.models import AsrOption, LlmOption, SetOption, TtsOption
from labkit.cli.terminal import console, print_table
from labkit.errors import LabkitError

if TYPE_CHECKING:
    from labkit.measure.exercise import Comparison
    from labkit.measure.exercise_summary import ExerciseSummary, ServerSummary, SizeSummary
    from labkit.measure.statistics import Estimate

_beside = partial(typer.Option, rich_help_panel="Servers beside labkit's")
_condition = partial(typer.Option, rich_help_panel="Conditions")

exercise = typer.Typer(invoke_without_command=True)


@exercise.callback()
def run_exercise(
    context: typer.Context,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer, shorter recordings: three minutes.")
    ] = False,
    chunks: Annotated[
        str | None, typer.Option(metavar="MS,MS", help="Other chunk sizes, such as 20,100,500.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws order, recordings and phases.")] = 1,
    out: OutOption = RESULTS,
    baseline: Annotated[
        Literal["naive"] | None, _beside(help="The server as one writes it first.")
    ] = None,
    server: Annotated[
        list[Path] | None,
        _beside(
            metavar="FILE.py",
            help="A server of your own: it is started, and told its port by the environment "
            "variable PORT. May be given several times.",
        ),
    ] = None,
    url: Annotated[
        list[str] | None,
        _beside(metavar="ws://…", help="A server that runs already. May be given several times."),
    ] = None,
    token_file: Annotated[
        Path | None, _beside(metavar="FILE", help="Show its first token to the servers at --url.")
    ] = None,
    ca: Annotated[
        Path | None, _beside(metavar="FILE", help="Trust this certificate (PEM) of theirs.")
    ] = None,
    compare: Annotated[
        bool,
        _beside(
            "--compare",
            help="Naive, streaming, and streaming with work ahead, in the mode vad and, where no "
            "--chunks are named, in chunks of 40 ms.",
        ),
    ] = False,
    own: Annotated[bool, _beside("--labkit/--no-labkit", help="Labkit's own.")] = True,
    mode: Annotated[
        Literal["push", "vad"],
        _condition(help="Who decides that a turn is over: the client at once, or the server."),
    ] = "push",
    network: Annotated[
        str,
        _condition(
            metavar="NAME|FILE",
            help="loopback, lan, wifi, 4g, 3g, satellite, or a file that describes one.",
        ),
    ] = "loopback",
    tls: Annotated[bool, _condition("--tls", help="Encrypted.")] = False,
    deflate: Annotated[
        bool, _condition("--deflate", help="permessage-deflate is offered.")
    ] = False,
    model_set: SetOption = "embedded",
    asr: AsrOption = None,
    llm: LlmOption = None,
    tts: TtsOption = None,
) -> None:
    """Measure and plot how chunk size trades against latency, on any server.

    Servers speak the plain dialect (its rules are in README.md); several take
    turns on the same recordings.
    """
    if context.invoked_subcommand is not None:
        return
    from labkit.measure.chunking import CHUNK_SIZES_MS
    from labkit.measure.exercise import Exercise
    from labkit.measure.networks import read_profile
    from labkit.measure.targets import Access, Target, distinct
    from labkit.net import bearer, client_tls, read_tokens
    from labkit.voice.models import resolve

    models = {"--models": model_set, "--asr": asr, "--llm": llm, "--tts": tts}
    options = tuple(
        word for key, value in models.items() if value is not None for word in (key, value)
    )
    labkit = partial(Target.labkit, *options, *(["--deflate"] if deflate else []))
    targets = [labkit()] if own else []
    if compare:
        waiting = labkit("--no-work-ahead")
        targets = [replace(labkit(), name="work ahead"), replace(waiting, name="streaming")]
    targets += [Target.naive(*options)] if baseline or compare else []
    targets += [Target.script(path) for path in server or ()]
    headers = None if token_file is None else bearer(read_tokens(token_file)[0])
    trusted = None if ca is None else client_tls(ca)
    targets += [Target.running(address, headers=headers, tls=trusted) for address in url or ()]
    if own or baseline or compare:  # it is better to miss a model now than in a subprocess
        resolve(model_set, asr=asr, llm=llm, tts=tts)
    experiment = Exercise.of_length(
        quick=quick,
        targets=distinct(targets),
        seed=seed,
        chunk_sizes_ms=parse_chunks(chunks)
        if chunks is not None
        else (40,)
        if compare
        else CHUNK_SIZES_MS,
        decided=compare or mode == "vad",
        access=Access(
            network=read_profile(network),
            tls=tls,
            deflate=deflate,
            seed=seed,
        ),
    )
    carry_out(experiment, out, _tables)


@exercise.command("diff")
def diff(
    first: Annotated[Path, typer.Argument(help="Folder of a run.")],
    second: Annotated[Path, typer.Argument(help="Folder of another run.")],
) -> None:
    """Compare two runs, recording by recording, and say what is no more than noise."""
    from labkit.measure.exercise import changed, compare, read_run

    runs = read_run(first), read_run(second)
    found = compare(*runs)
    for comparison in found:
        print_table(diff_table(comparison))
    for comparison in found:
        console().print(comparison.sentence(), markup=False, highlight=False)
    console().print(
        "What the machine did between the runs is in no interval: to compare servers, measure "
        "them in one run.",
        highlight=False,
    )
    for line in changed(*runs):
        console().print(f"Also different: {line}", markup=False, highlight=False)


def parse_chunks(text: str) -> tuple[int, ...]:
    """Understand chunk sizes such as ``20,100,500``.

    Raises:
        LabkitError: They are no whole numbers from 5 to 1,000.
    """
    from labkit.measure.chunking import are_chunk_sizes

    sizes = tuple(sorted({*whole_numbers(text)}))
    if not are_chunk_sizes(sizes):
        raise LabkitError(
            f"chunks: {text!r} is no list of whole milliseconds from 5 to 1000; write them as "
            "20,100,500"
        )
    return sizes


def _tables(summed: "ExerciseSummary") -> list[Table]:
    tables = [sizes_table(server) for server in summed.servers]
    return [*tables, servers_table(summed.servers)] if len(tables) > 1 else tables


def sizes_table(server: "ServerSummary") -> Table:
    """What was measured on one server, a row per chunk size."""
    table = results_table(
        f"End of speech to first audible reply: {server.name}", map(_size_row, server.sizes)
    )
    table.caption = "added: how much later the transcript comes than with the smallest chunks"
    return table


def _size_row(size: "SizeSummary") -> dict[str, str]:
    return {
        "chunk\nms": str(size.chunk_ms),
        "added\nms": told_number(size.effect, "+.0f"),
        "95 %\ninterval": _interval(size.effect),
        "model\nms": told_number(size.predicted_ms if size.effect else None),
        "wait\nms": f"{size.wait.value:.0f}",
        "p95\nms": told_number(size.wait_p95),
        "messages\nper s": f"{size.messages_per_s:.1f}",
        "headers\nB/s": f"{size.overhead_bytes_per_s:.0f}",
        "CPU\nms/s": told_number(size.cpu_ms_per_s, ".1f"),
        "turns": str(size.turns),
    }


def servers_table(servers: "Sequence[ServerSummary]") -> Table:
    """The servers beside each other."""
    rows = (_server_row(server, servers[0].name) for server in servers)
    table = results_table("The servers, over all chunk sizes", rows)
    table.columns[0].no_wrap, table.columns[0].overflow = False, "fold"  # names may be long
    return table


def _server_row(server: "ServerSummary", first: str) -> dict[str, str]:
    effect, misheard = server.sizes[-1].effect, server.word_error_rate
    return {
        "server": server.name,
        "wait\nms": f"{server.wait_ms:.0f}",
        f"against\n{first}, ms": told_number(server.longer, "+.0f"),
        "95 %\ninterval": _interval(server.longer),
        "chunk size\nadds, ms": told_number(effect, "+.0f"),
        "ping p99\nms": told_number(server.ping_p99_ms, ".1f"),
        "words\nmisheard": "-" if misheard is None else f"{100 * misheard:.1f} %",
        "turns": str(server.turns)
        if server.turns == server.asked
        else f"{server.turns}/{server.asked}",
    }


def diff_table(comparison: "Comparison") -> Table:
    """Two runs of one server, a row per part of the wait."""
    names = comparison.first, comparison.second
    table = results_table(
        f"{names[0]}, first run and second" if len({*names}) == 1 else " and ".join(names),
        (
            {
                "": part.what,
                "first\nms": f"{part.first:.1f}",
                "second\nms": f"{part.second:.1f}",
                "change\nms": f"{part.change.value:+.1f}",
                "95 %\ninterval": f"{part.change.low:.1f} to {part.change.high:.1f}",
                "verdict": part.verdict,
            }
            for part in comparison.parts
        ),
    )
    table.caption = "first, second: means; change: median of the differences"
    return table


def _interval(found: "Estimate | None") -> str:
    from labkit.measure.exercise_summary import FEW_BLOCKS

    if found is None or found.sample < FEW_BLOCKS:
        return "-"
    return f"{found.low:.0f} to {found.high:.0f}"
