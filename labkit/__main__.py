"""The command line: parses, chooses, prints. What it does is done by the package."""

import asyncio
import json
import logging
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from labkit.audio import read_audio, write_wav
from labkit.client import ClientTurn, VoiceClient
from labkit.errors import LabkitError
from labkit.server.app import VoiceServer, serve_until_signal
from labkit.server.settings import DEFAULT_PORT, ServerSettings
from labkit.voice.pipeline import EchoPipeline

app = typer.Typer(
    name="labkit",
    help="A voice server you can hear, measure and build yourself.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


class PipelineName(StrEnum):
    """What answers: the engines, or an echo that measures the transport alone."""

    VOICE = "voice"
    ECHO = "echo"


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to bind.")] = "localhost",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any.")] = DEFAULT_PORT,
    pipeline: Annotated[PipelineName, typer.Option(help="What answers.")] = PipelineName.VOICE,
) -> None:
    """Run the voice server until Ctrl-C."""
    settings = ServerSettings(host=host, port=port)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )

    def announce(server: VoiceServer) -> None:
        sys.stdout.write(f"labkit is ready at {server.url}\n")
        sys.stdout.flush()

    asyncio.run(serve_until_signal(EchoPipeline(), settings, announce))


@app.command()
def talk(
    recording: Annotated[Path, typer.Argument(help="WAV or FLAC, any rate, any channels.")],
    url: Annotated[str, typer.Option(help="The server.")] = f"ws://localhost:{DEFAULT_PORT}",
    chunk_ms: Annotated[float, typer.Option(min=1, max=1000, help="Length of a message.")] = 40,
    out: Annotated[Path | None, typer.Option(help="Write the reply to this WAV file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say a recording to the server, at the pace of speech, and print the answer."""
    turn = asyncio.run(_talk(recording, url, chunk_ms))
    if out is not None:
        write_wav(out, turn.reply)
    if as_json:
        sys.stdout.write(json.dumps(_turn_object(turn)) + "\n")
    else:
        _print_turn(turn)


async def _talk(recording: Path, url: str, chunk_ms: float) -> ClientTurn:
    samples = read_audio(recording)
    async with VoiceClient.connect(url) as client:
        return await client.say(samples, chunk_ms=chunk_ms)


def _print_turn(turn: ClientTurn) -> None:
    console = Console()
    for error in turn.errors:
        refusal = escape(f"{error.message} ({error.hint})")
        console.print(f"[bold red]the server says:[/] {refusal}")
    heard, reply = escape(turn.transcript or "(nothing)"), escape(turn.reply_text or "(none)")
    console.print(f"[bold]heard[/]  {heard}")
    console.print(f"[bold]reply[/]  {reply}  ({turn.reply_seconds:.2f} s)")
    table = Table("stage", "ms", title="from the end of speech to the first audible reply")
    table.columns[1].justify = "right"
    for stage, milliseconds in turn.trace.stages_ms().items():
        table.add_row(stage.value.replace("_", " "), f"{milliseconds:.1f}")
    total = turn.trace.ttfa_ms()
    if total is not None:
        silence = total - (turn.trace.ttfb_ms() or total)
        table.add_row("leading silence of the reply", f"{silence:.1f}", end_section=True)
        table.add_row("total", f"{total:.1f}", style="bold")
        console.print(table)


def _turn_object(turn: ClientTurn) -> dict[str, object]:
    return {
        "transcript": turn.transcript,
        "reply_text": turn.reply_text,
        "reply_seconds": round(turn.reply_seconds, 3),
        "ttfa_ms": turn.trace.ttfa_ms(),
        "stages": {stage.value: ms for stage, ms in turn.trace.stages_ms().items()},
    }


def main() -> None:
    """Run the command line; labkit's own errors become one line and exit code 1."""
    try:
        app()
    except LabkitError as error:
        Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] {escape(str(error))}")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
