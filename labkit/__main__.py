"""The command line: parses, chooses, prints. What it does is done by the package."""

import asyncio
import json
import os
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from labkit import doctor
from labkit.audio.pcm import read_audio, write_wav
from labkit.cli.drill import drill
from labkit.cli.drill_abandoned import abandoned
from labkit.cli.drill_crosstalk import crosstalk_command
from labkit.cli.drill_formats import formats
from labkit.cli.drill_fuzz import fuzz_command
from labkit.cli.drill_resume import resume
from labkit.cli.drill_stalled import stalled
from labkit.cli.load import load
from labkit.cli.options import AsrOption, LlmOption, SetOption, TtsOption
from labkit.cli.protocol import protocol
from labkit.cli.proxy import proxy
from labkit.cli.serve import serve
from labkit.cli.token import token
from labkit.cli.verify import verify
from labkit.client.plain import ClientTurn, VoiceClient
from labkit.errors import LabkitError, ModelNotFoundError
from labkit.net.tls import client_tls
from labkit.net.tokens import VARIABLE, bearer, read_tokens, token_in
from labkit.session.settings import DEFAULT_PORT
from labkit.voice import hub
from labkit.voice.models import SETS, Model, Role, data_folder, find, locate, models_of, resolve

if TYPE_CHECKING:
    from labkit.measure.experiment import Progress as Step
    from labkit.measure.report import Report

app = typer.Typer(
    name="labkit",
    help="A voice server you can hear, measure and build yourself.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
models = typer.Typer(help="Find, pull and examine models.", no_args_is_help=True)
app.add_typer(models, name="models")
models.command("verify")(verify)
app.add_typer(drill, name="drill")
drill.command("abandoned")(abandoned)
drill.command("formats")(formats)
drill.command("resume")(resume)
drill.command("stalled")(stalled)
drill.command("fuzz")(fuzz_command)
drill.command("crosstalk")(crosstalk_command)
app.command("proxy")(proxy)
app.command("protocol")(protocol)
app.command("load")(load)
app.command("serve")(serve)
app.command("token")(token)


@app.command()
def talk(
    recording: Annotated[Path, typer.Argument(help="WAV or FLAC, any rate, any channels.")],
    url: Annotated[str, typer.Option(help="The server.")] = f"ws://localhost:{DEFAULT_PORT}",
    chunk_ms: Annotated[float, typer.Option(min=1, max=1000, help="Length of a message.")] = 40,
    out: Annotated[Path | None, typer.Option(help="Write the reply to this WAV file.")] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help=f"Show its first token; else that of {VARIABLE}, if any."
        ),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Trust this certificate (PEM), such as a self-signed one."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say a recording to a server, at the pace of speech, and print the answer."""
    shown = token_in(os.environ) if token_file is None else read_tokens(token_file)[0]
    headers = {} if shown is None else bearer(shown)
    tls = None if ca is None else client_tls(ca)
    turn = asyncio.run(_talk(recording, url, chunk_ms, headers, tls))
    if out is not None:
        write_wav(out, turn.reply)
    if as_json:
        sys.stdout.write(json.dumps(_turn_object(turn)) + "\n")
    else:
        _print_turn(turn)


async def _talk(
    recording: Path,
    url: str,
    chunk_ms: float,
    headers: dict[str, str],
    tls: ssl.SSLContext | None,
) -> ClientTurn:
    samples = read_audio(recording)
    async with VoiceClient.connect(url, headers=headers, tls=tls) as client:
        return await client.say(samples, chunk_ms=chunk_ms)


def _turn_object(turn: ClientTurn) -> dict[str, object]:
    return {
        "transcript": turn.transcript,
        "reply_text": turn.reply_text,
        "reply_seconds": round(turn.reply_seconds, 3),
        "ttfa_ms": turn.trace.ttfa_ms(),
        "stages": {stage.value: ms for stage, ms in turn.trace.stages_ms().items()},
        "errors": [error.model_dump(mode="json") for error in turn.errors],
    }


def _print_turn(turn: ClientTurn) -> None:
    console = Console()
    for error in turn.errors:
        refusal = escape(f"{error.message} ({error.hint})")
        console.print(f"[bold red]the server says:[/] {refusal}")
    heard, reply = escape(turn.transcript or "(nothing)"), escape(turn.reply_text or "(none)")
    console.print(f"[bold]heard[/]  {heard}")
    console.print(f"[bold]reply[/]  {reply}  ({turn.reply_seconds:.2f} s)")
    total = turn.trace.ttfa_ms()
    if total is None:
        return
    table = Table("from the end of speech to the first audible reply", "ms")
    table.columns[1].justify = "right"
    for stage, milliseconds in turn.trace.stages_ms().items():
        table.add_row(stage.value.replace("_", " "), f"{milliseconds:.1f}")
    table.add_section()
    table.add_row("total", f"{total:.1f}", style="bold")
    console.print(table)
    if turn.clock_offset_ns is not None:
        console.print(
            "The server's clock is another one: its offset was estimated from ping round trips, "
            "so uplink and downlink are half of the fastest each, give or take."
        )


@app.command()
def exercise(
    quick: Annotated[bool, typer.Option("--quick", help="Under two minutes.")] = False,
    baseline: Annotated[
        str | None, typer.Option(help="Measure another server beside labkit's: naive.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws order, recordings and phases.")] = 1,
    out: Annotated[Path, typer.Option(help="Results go into a folder in here.")] = Path("results"),
    model_set: SetOption = "embedded",
    asr: AsrOption = None,
    llm: LlmOption = None,
    tts: TtsOption = None,
) -> None:
    """Run the latency exercise: measure and plot how chunk size trades against latency."""
    # Drawing libraries take a second to load, which the other commands need not wait for.
    from labkit.measure.exercise import run_and_write
    from labkit.measure.report import sentences

    if baseline not in (None, "naive"):
        raise typer.BadParameter(f"there is no baseline {baseline!r}; there is 'naive'")
    own = {"--models": model_set, "--asr": asr, "--llm": llm, "--tts": tts}
    options = tuple(word for key, value in own.items() if value for word in (key, value))
    resolve(model_set, asr=asr, llm=llm, tts=tts)
    folder = out / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    with _turn_bar() as tell:
        summed = asyncio.run(
            run_and_write(
                folder,
                recordings=data_folder() / "speech",
                quick=quick,
                baseline=baseline is not None,
                seed=seed,
                model_options=options,
                progress=tell,
            )
        )
    console = Console()
    console.print(_exercise_table(summed))
    for sentence in sentences(summed):
        console.print(sentence)
    console.print(f"Raw data, summary and figures: {folder}", soft_wrap=True, markup=False)


@contextmanager
def _turn_bar() -> "Iterator[Callable[[Step], None]]":
    """A progress bar over the turns of an exercise, with the time left."""
    columns = (
        TextColumn("{task.description:24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("starting")
        yield lambda step: bar.update(
            task, completed=step.done, total=step.total, description=step.now
        )


def _exercise_table(summed: "Report") -> Table:
    table = Table(
        "chunk ms", "median ms", "95 % interval", "p95 ms", "messages/s", "overhead B/s",
        "CPU ms/s", title="End of speech to first audible reply, labkit",
    )  # fmt: skip
    for column in table.columns:
        column.justify = "right"
    for size in summed.sizes:
        middle = size.ttfa_p50
        table.add_row(
            str(size.chunk_ms),
            f"{middle.value:.0f}",
            f"{middle.low:.0f} to {middle.high:.0f}",
            f"{size.ttfa_p95.value:.0f}",
            f"{size.messages_per_s:.1f}",
            f"{size.overhead_bytes_per_s:.0f}",
            f"{size.cpu_ms_per_s:.1f}",
        )
    return table


@app.command("doctor")
def doctor_command() -> None:
    """Say what this machine lacks, and the mend; exits 1 where something is amiss."""
    console = Console()
    with console.status("looking; the models are loaded, which takes some seconds"):
        checks = doctor.run_checks()
    for check in checks:
        sign = "[green]ok  [/]" if check.ok else "[bold red]FAIL[/]"
        console.print(
            f"{sign} {check.name:12} {escape(check.detail)}", soft_wrap=True, highlight=False
        )
        if check.mend:
            mend = f"     mend: {check.mend}"
            console.print(mend, soft_wrap=True, highlight=False, markup=False)
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


@models.command("list")
def list_models() -> None:
    """List the sets, their models, and where each lies on this machine."""
    table = Table("set", "role", "model", "on this machine")
    for name, chosen in SETS.items():
        for model in models_of(name):
            table.add_row(name, model.role.value, model.name, _place(model))
        table.add_row("", "", f"[dim]{chosen.about}[/]", "", end_section=True)
    Console().print(table)


def _place(model: Model) -> str:
    try:
        return escape(str(locate(model)))
    except ModelNotFoundError:
        return "[dim]no[/]"


@models.command()
def pull(
    name: Annotated[str | None, typer.Argument(help="A set.", metavar="SET")] = None,
    asr: AsrOption = None,
    llm: LlmOption = None,
    tts: TtsOption = None,
) -> None:
    """Pull a set, or single models, into the ordinary cache of the model hub."""
    own = {Role.ASR: asr, Role.LLM: llm, Role.TTS: tts}
    wanted = list(models_of(name)) if name else []
    wanted += [find(role, word) for role, word in own.items() if word]
    if not wanted:
        raise typer.BadParameter("name a set or a model, such as: labkit models pull small")
    for model in wanted:
        if model.source is None:
            here = f"{model.name}: nothing to pull, it lies at {locate(model)}"
            Console().print(here, soft_wrap=True, markup=False)
            continue
        with _download_bars() as tell:
            path = hub.pull(model.source, tell)
        Console().print(f"{model.name}: {path}", soft_wrap=True, markup=False)


@contextmanager
def _download_bars() -> Iterator[hub.Progress]:
    """A bar for each file that is pulled."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True)) as bars:

        def tell(file: str, done: int, total: int) -> None:
            if file not in tasks:
                tasks[file] = bars.add_task(file)
            bars.update(tasks[file], completed=done, total=total or None)

        yield tell


@models.command()
def path(
    name: Annotated[str, typer.Argument(help="A model of any set, or as the options name it.")],
    role: Annotated[Role | None, typer.Option(help="What it does, if not plain.")] = None,
) -> None:
    """Print where a model lies on this machine."""
    known = {m.name: m for set_name in SETS for m in models_of(set_name)}
    model = known.get(name) if role is None else find(role, name)
    if model is None:
        raise typer.BadParameter(f"{name!r} is in no set; say what it does with --role")
    sys.stdout.write(f"{locate(model)}\n")


def main() -> None:
    """Run the command line; labkit's own errors become one line and exit code 1."""
    try:
        app()
    except LabkitError as error:
        Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
