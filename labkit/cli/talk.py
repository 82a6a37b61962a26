"""`labkit talk`: say recordings to a server."""

import json
import os
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer
from rich.table import Table

from labkit.cli.terminal import (
    console,
    number,
    print_table,
    require_file,
    require_writable,
    run,
    told,
    write_text,
)
from labkit.errors import LabkitError
from labkit.net import TOKEN_VARIABLE, bearer, read_tokens, token_in
from labkit.session import DEFAULT_PORT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from labkit.audio.pcm import Float32
    from labkit.client.dial import Reach
    from labkit.client.turn import ClientTurn
    from labkit.measure.recordings import Recording

_BAR: Final = 30
"""Signs of a waterfall from end to end."""


def talk(
    recordings: Annotated[
        list[Path],
        typer.Argument(
            metavar="RECORDING",
            help="WAV or FLAC, any rate, any channels, or the name of one that comes with labkit, "
            "such as ked-01; several are turns of one conversation.",
        ),
    ],
    url: Annotated[str, typer.Option(help="The server.")] = f"ws://localhost:{DEFAULT_PORT}",
    chunk_ms: Annotated[float, number(min=1, max=1000, help="Length of a message.")] = 40,
    out: Annotated[
        Path | None, typer.Option(help="Write the reply, or all replies, to this WAV file.")
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the marks for chrome://tracing or Perfetto (JSON)."
        ),
    ] = None,
    spans: Annotated[
        bool, typer.Option("--spans", help="Send turns as OpenTelemetry spans; see README.md.")
    ] = False,
    mode: Annotated[
        Literal["push", "vad"],
        typer.Option(
            help="Who decides that a turn is over: the client at once, or the server (labkit.v1)."
        ),
    ] = "push",
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help=f"Show its first token; else that of {TOKEN_VARIABLE}, if any."
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
        number(
            "--wait",
            min=0.1,
            max=3600,
            metavar="SECONDS",
            help="Longest wait for each step of an answer, and how late its audio may be.",
        ),
    ] = 15,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a turn, each on its line.")
    ] = False,
) -> None:
    """Say recordings to any server of the plain dialect, and print the answers and the waits.

    With `--mode vad`, to one of labkit.v1 that decides when a turn is over.
    Each is said at the pace of speech, up to the chunk in which the speech
    ends, and the next one once the answer is there: several are one
    conversation. The exit code is 1 where the server answered one with an error
    and no reply.
    """
    from labkit.client.dial import Reach
    from labkit.net import client_tls
    from labkit.spans import open_spans

    recordings = [_file_of(recording) for recording in recordings]
    _require_own_files(recordings, out, trace)
    shown = token_in(os.environ) if token_file is None else read_tokens(token_file)[0]
    headers = {} if shown is None else bearer(shown)
    reach = Reach(headers=headers, tls=None if ca is None else client_tls(ca))
    sayings = [_Saying.of(recording) for recording in recordings]
    turns: list[ClientTurn] = []

    def tell(saying: _Saying, turn: "ClientTurn") -> None:
        turns.append(turn)
        _print(saying, turn, as_json=as_json, named=len(sayings) > 1)

    asking = _converse(sayings, url, chunk_ms, wait_s, reach, tell, decided=mode == "vad")
    try:
        with open_spans("labkit talk") if spans else nullcontext() as exporter:
            try:
                run(asking)
            finally:
                if exporter is not None:
                    for turn in turns:
                        exporter.export(turn.trace)
    finally:
        # A disk that has become full takes nothing away from what was printed; a pipe that nobody
        # reads and a server that is lost in the midst, nothing from what is written.
        _write(turns, out, trace)
    if any(turn.errors and not len(turn.reply) for turn in turns):
        raise typer.Exit(1)  # what was wrong is printed with the turn


def _file_of(named: Path) -> Path:
    """The file, or else that of the recording of this name which comes with labkit."""
    from labkit.measure.recordings import load_manifest

    if named.parent == Path() and not named.suffix and not named.exists():
        named = {one.name: one.path for one in load_manifest()}.get(named.name, named)
    require_file(named)
    return named


def _require_own_files(recordings: "Sequence[Path]", out: Path | None, trace: Path | None) -> None:
    said = {recording.resolve() for recording in recordings}
    for file in (out, trace):
        if file is not None:
            if file.resolve() in said:
                raise LabkitError(f"{file} is the recording itself; name another file to write")
            require_writable(file)
    if out is not None and trace is not None and out.resolve() == trace.resolve():
        raise LabkitError(f"--out and --trace both name {out}; name two files")


@dataclass(frozen=True, slots=True)
class _Saying:
    """A recording to say; where its speech ends, its annotation or its energy tells, if at all."""

    path: Path
    recording: "Recording"
    samples: "Float32"
    end_of_speech: int | None

    @classmethod
    def of(cls, path: Path) -> "_Saying":
        from labkit.audio.pcm import read_audio
        from labkit.measure.recordings import recording_at

        recording, samples = recording_at(path), read_audio(path)
        return cls(path, recording, samples, recording.end_of_speech(samples))

    @property
    def end_in_words(self) -> str:
        from labkit.audio.pcm import SAMPLE_RATE

        length_s = len(self.samples) / SAMPLE_RATE
        if self.end_of_speech is None:
            return f"nothing stands out, so it ends with the recording at {length_s:.2f} s"
        known = "energy" if self.recording.end_of_speech_sample is None else "its annotation"
        end_s = (self.end_of_speech + 1) / SAMPLE_RATE
        return f"ends at {end_s:.2f} of {length_s:.2f} s, known by {known}"


async def _converse(
    sayings: "Sequence[_Saying]",
    url: str,
    chunk_ms: float,
    wait_s: float,
    reach: "Reach",
    tell: "Callable[[_Saying, ClientTurn], None]",
    *,
    decided: bool,
) -> None:
    """Say one after the other in one conversation, whoever decides when each is over."""
    from labkit.client.answers import Deadlines
    from labkit.client.plain import VoiceClient
    from labkit.measure.decided import conversation, say_to

    deadlines = Deadlines(answer_s=wait_s)
    if decided:
        async with conversation(url, deadlines=deadlines, **reach) as session:
            for one in sayings:
                end = len(one.samples) - 1 if one.end_of_speech is None else one.end_of_speech
                turn = await say_to(
                    session, one.samples, end_of_speech=end, chunk_ms=chunk_ms, answer_s=wait_s
                )
                tell(one, turn)
        return
    async with VoiceClient.connect(url, deadlines=deadlines, **reach) as client:
        for one in sayings:
            turn = await client.say(one.samples, chunk_ms=chunk_ms, end_of_speech=one.end_of_speech)
            tell(one, turn)


def _print(saying: _Saying, turn: "ClientTurn", *, as_json: bool, named: bool) -> None:
    if not as_json:
        if named:
            console().print(f"[bold]said[/]   {told(saying.path.name)}")
        print_turn(turn, saying.end_in_words)
        return
    named_by = {"recording": str(saying.path), "end_of_speech": saying.end_in_words}
    sys.stdout.write(json.dumps({**_turn_object(turn), **named_by}) + "\n")
    sys.stdout.flush()


def _write(turns: "Sequence[ClientTurn]", out: Path | None, trace: Path | None) -> None:
    import numpy as np

    from labkit.audio.pcm import write_wav
    from labkit.trace import chrome_events

    if turns and out is not None:
        write_wav(out, np.concatenate([turn.reply for turn in turns]))
    if turns and trace is not None:
        events = chrome_events(*(turn.trace for turn in turns))
        write_text(trace, json.dumps({"traceEvents": events}))


def _turn_object(turn: "ClientTurn") -> dict[str, object]:
    return {
        "transcript": turn.transcript,
        "reply_text": turn.reply_text,
        "reply_seconds": round(turn.reply_seconds, 3),
        "ttfa_ms": turn.trace.ttfa_ms(),
        "ttfb_ms": turn.trace.ttfb_ms(),
        "stages": {stage.value: ms for stage, ms in turn.trace.stages_ms().items()},
        "errors": [error.model_dump(mode="json") for error in turn.errors],
        "remarks": turn.remarks,
    }


def print_turn(turn: "ClientTurn", end_of_speech: str) -> None:
    """Print what was heard and answered, where the speech ended, and where the time went."""
    shown = console()
    for refusal in turn.refusals:
        shown.print(f"[bold red]the server says:[/] {told(refusal)}")
    shown.print(f"[bold]heard[/]  {told(turn.transcript or '(nothing)')}")
    reply = told(turn.reply_shown)
    shown.print(f"[bold]reply[/]  {reply}  ({turn.reply_seconds:.2f} s)")
    for remark in turn.remarks:
        shown.print(f"[bold]note[/]   {told(remark)}")
    shown.print(f"[bold]speech[/] {told(end_of_speech)}")
    if turn.trace.ttfa_ms() is None:
        shown.print("[bold]wait[/]   nothing audible came, so there is no wait to tell")
        return
    print_table(_waits(turn))
    if turn.clock_offset_ns is not None:
        shown.print(
            "The server's clock is another one: its offset was estimated from ping round trips, "
            "so uplink and downlink are half of the fastest each, give or take."
        )


def _waits(turn: "ClientTurn") -> Table:
    """The parts of the wait, each with its share of the whole and where it lies in it."""
    total, stages = turn.trace.ttfa_ms() or 0.0, turn.trace.stages_ms()
    ahead, start = turn.trace.ahead_ms(), 0.0
    table = Table("from the last word", "ms", "share", "to the first audible reply")
    for column in table.columns[1:3]:
        column.justify = "right"
    for stage, milliseconds in stages.items():
        share = f"{100 * milliseconds / total:.0f} %" if total else ""
        spans = [(start, start + milliseconds, "█"), (*ahead.get(stage, (0.0, 0.0)), "░")]
        table.add_row(stage.label, f"{milliseconds:.1f}", share, _bar(spans, total))
        start += milliseconds
    table.add_section()
    table.add_row("total", f"{total:.1f}", "", "░ worked on ahead" if ahead else "", style="bold")
    return table


def _bar(spans: "Sequence[tuple[float, float, str]]", total: float) -> str:
    """Spans of time as signs, on a line that is `total` long; the first of two goes above."""
    drawn = [" "] * _BAR
    for begun, ended, sign in reversed(spans):
        first, last = (round(_BAR * min(max(at / total, 0), 1)) for at in (begun, ended))
        if ended > begun:
            size = max(1, last - first)
            first = min(first, _BAR - size)
            drawn[first : first + size] = sign * size
    return "".join(drawn).rstrip()
