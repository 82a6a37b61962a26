"""`labkit talk`: say a recording to a server."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from labkit.cli.terminal import console, require_file, require_writable, run
from labkit.net.tokens import VARIABLE, bearer, read_tokens, token_in
from labkit.session.defaults import DEFAULT_PORT

if TYPE_CHECKING:
    import ssl

    from labkit.client.plain import ClientTurn

__all__ = ["print_turn", "talk"]


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
    wait_s: Annotated[
        float,
        typer.Option(
            "--wait", min=0.1, metavar="SECONDS", help="Longest wait for each sign of an answer."
        ),
    ] = 15,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say a recording to a server, at the pace of speech, and print the answer."""
    from labkit.audio.pcm import write_wav
    from labkit.net.tls import client_tls

    require_file(recording)
    if out is not None:
        require_writable(out)
    shown = token_in(os.environ) if token_file is None else read_tokens(token_file)[0]
    headers = {} if shown is None else bearer(shown)
    tls = None if ca is None else client_tls(ca)
    turn = run(_say(recording, url, chunk_ms, headers, tls, wait_s))
    if out is not None:
        write_wav(out, turn.reply)
    if as_json:
        sys.stdout.write(json.dumps(_turn_object(turn)) + "\n")
    else:
        print_turn(turn)


async def _say(
    recording: Path,
    url: str,
    chunk_ms: float,
    headers: dict[str, str],
    tls: "ssl.SSLContext | None",
    wait_s: float,
) -> "ClientTurn":
    from labkit.audio.pcm import read_audio
    from labkit.client.answers import Deadlines
    from labkit.client.plain import VoiceClient

    samples = read_audio(recording)
    deadlines = Deadlines(answer_s=wait_s)
    async with VoiceClient.connect(url, headers=headers, tls=tls, deadlines=deadlines) as client:
        return await client.say(samples, chunk_ms=chunk_ms)


def _turn_object(turn: "ClientTurn") -> dict[str, object]:
    return {
        "transcript": turn.transcript,
        "reply_text": turn.reply_text,
        "reply_seconds": round(turn.reply_seconds, 3),
        "ttfa_ms": turn.trace.ttfa_ms(),
        "stages": {stage.value: ms for stage, ms in turn.trace.stages_ms().items()},
        "errors": [error.model_dump(mode="json") for error in turn.errors],
    }


def print_turn(turn: "ClientTurn") -> None:
    """Print what was heard and answered, and where the time between went."""
    shown = console()
    for error in turn.errors:
        refusal = escape(f"{error.message} ({error.hint})")
        shown.print(f"[bold red]the server says:[/] {refusal}")
    heard, reply = escape(turn.transcript or "(nothing)"), escape(turn.reply_text or "(none)")
    shown.print(f"[bold]heard[/]  {heard}")
    shown.print(f"[bold]reply[/]  {reply}  ({turn.reply_seconds:.2f} s)")
    total = turn.trace.ttfa_ms()
    if total is None:
        return
    table = Table("from the end of speech to the first audible reply", "ms")
    table.columns[1].justify = "right"
    for stage, milliseconds in turn.trace.stages_ms().items():
        table.add_row(stage.label, f"{milliseconds:.1f}")
    table.add_section()
    table.add_row("total", f"{total:.1f}", style="bold")
    shown.print(table)
    if turn.clock_offset_ns is not None:
        shown.print(
            "The server's clock is another one: its offset was estimated from ping round trips, "
            "so uplink and downlink are half of the fastest each, give or take."
        )
