"""`labkit serve`: the voice server, until Ctrl-C."""

import gc
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Container
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from labkit import __version__
from labkit.cli.models import AsrOption, LlmOption, SetOption, TtsOption
from labkit.cli.terminal import run
from labkit.errors import LabkitError
from labkit.net import TOKEN_VARIABLE, addresses_to_bind, read_tokens, token_in
from labkit.session import (
    DEFAULT_MAX_PER_ADDRESS,
    DEFAULT_MAX_SESSIONS,
    DEFAULT_PORT,
)

if TYPE_CHECKING:
    from labkit.server.app import VoiceServer
    from labkit.voice.turn import Pipeline

_log = logging.getLogger("labkit")

_MOST_TOLD: Final = 1500
"""Characters of a system message, some 400 of the context's 1,024 tokens."""
_FILE_NAME: Final = re.compile(r"\S*/\S*|\S+\.(txt|md)")
"""One word that is hardly all that a model is to be told."""

_STUCK_S: Final = 5.0
"""No call of an engine takes so long to see that nobody wants its result."""

_access = partial(typer.Option, rich_help_panel="Who may come in")


def serve(
    host: Annotated[
        str,
        typer.Option(
            help="Address to bind. Beyond this machine, it takes --token-file or --insecure."
        ),
    ] = "localhost",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any.")] = DEFAULT_PORT,
    pipeline: Annotated[
        Literal["voice", "echo"],
        typer.Option(help="What answers: engines, or an echo that measures the transport alone."),
    ] = "voice",
    model_set: SetOption = "embedded",
    asr: AsrOption = None,
    llm: LlmOption = None,
    tts: TtsOption = None,
    threads: Annotated[
        int | None, typer.Option(min=1, max=256, help="CPU threads per engine.")
    ] = None,
    fit_window: Annotated[
        bool,
        typer.Option(
            "--fit-window/--full-window",
            help="Cut the recogniser's window to the utterance, as far as the model bears it.",
        ),
    ] = True,
    system: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT|FILE",
            help="What the language model is told before each conversation; by default what it "
            'needs to be heard rather than read. "" for nothing.',
        ),
    ] = None,
    work_ahead: Annotated[
        bool,
        typer.Option(
            "--work-ahead/--no-work-ahead",
            help="Recognise, and begin to answer, in pauses: before an utterance is over.",
        ),
    ] = True,
    deflate: Annotated[
        bool, typer.Option("--deflate", help="Compress messages for clients that offer to.")
    ] = False,
    log_transcripts: Annotated[
        bool, typer.Option("--log-transcripts", help="Log what was heard and answered.")
    ] = False,
    spans: Annotated[
        bool, typer.Option("--spans", help="Send each turn as OpenTelemetry spans; see README.md.")
    ] = False,
    max_sessions: Annotated[
        int, _access(min=1, help="Callers at a time; further ones are refused.")
    ] = DEFAULT_MAX_SESSIONS,
    max_per_address: Annotated[
        int,
        _access(
            min=1,
            help="Callers at a time from one address; those from this machine are not counted.",
        ),
    ] = DEFAULT_MAX_PER_ADDRESS,
    token_file: Annotated[
        Path | None,
        _access(
            metavar="FILE",
            help="Let in only those who show a token of this file: one per line, # comments. "
            f"The variable {TOKEN_VARIABLE} may hold one more. Make one with: labkit token.",
        ),
    ] = None,
    insecure: Annotated[
        bool,
        _access(
            "--insecure", help="Listen beyond this machine without a token: everybody may come in."
        ),
    ] = False,
    allow_origin: Annotated[
        list[str] | None,
        _access(
            metavar="ORIGIN",
            help="Let pages of another site call, such as https://voice.example; may be repeated. "
            "Pages of localhost and of the server's own address always may; those of its own name "
            "where tokens are asked for.",
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        _access(metavar="FILE", help="Speak TLS (wss://) with this certificate, in PEM."),
    ] = None,
    tls_key: Annotated[
        Path | None,
        _access(
            metavar="FILE", help="Its key, in PEM, not encrypted; none where --tls-cert holds it."
        ),
    ] = None,
) -> None:
    """Run the voice server until Ctrl-C."""
    from labkit.server.app import require_startable, serve_until_signal
    from labkit.session.settings import ServerSettings
    from labkit.spans import open_spans
    from labkit.voice.pipeline import EchoPipeline

    before = set(threading.enumerate())
    _log_to_stderr()
    host = host.removeprefix("[").removesuffix("]")  # as in an address of IPv6
    settings = ServerSettings(
        host=host,
        port=port,
        max_sessions=max_sessions,
        max_sessions_per_address=max_per_address,
        tokens=_tokens(token_file),
        insecure=insecure,
        allowed_origins=tuple(allow_origin or ()),
        tls_cert=tls_cert,
        tls_key=tls_key,
        deflate=deflate,
        work_ahead=work_ahead,
        log_transcripts=log_transcripts,
    )
    require_startable(settings)
    addresses_to_bind(host, port)  # now, and not after the seconds that the models take
    answering = (
        _voice(model_set, asr, llm, tts, _told(system), threads, fit_window)
        if pipeline == "voice"
        else EchoPipeline()
    )
    # What is loaded now lives as long as the process. A full collection would look at all of it
    # again and again, which holds the event loop for 50 ms; frozen, it is left out.
    gc.collect()
    gc.freeze()
    with open_spans("labkit serve") if spans else nullcontext() as told:
        run(serve_until_signal(answering, settings, _announce, told.export if told else None))
    leave_stuck_engines(before)


def leave_stuck_engines(before: Container[threading.Thread]) -> None:
    """End the process where an engine's call does not end: Python would wait for its thread.

    Threads that were there `before` are somebody else's.
    """
    until_s = time.monotonic() + _STUCK_S
    for thread in threading.enumerate():
        if thread not in before and thread.name.startswith("labkit-"):
            thread.join(max(0.0, until_s - time.monotonic()))
            if thread.is_alive():
                _log.error("an engine is stuck, and left: %s", thread.name)
                logging.shutdown()
                os._exit(1)


def _tokens(path: Path | None) -> tuple[str, ...]:
    of_file = () if path is None else read_tokens(path)
    own = token_in(os.environ)
    return of_file if own is None else (*of_file, own)


def _told(system: str | None) -> str | None:
    """The text of `--system`, or that of the file which it names; says which of them it is."""
    if system is None:
        return None
    source = "--system"
    if os.path.isfile(system):
        source = system
        try:
            system = Path(system).read_text(encoding="utf-8").strip()
        except UnicodeDecodeError as error:
            raise LabkitError(f"--system {system} is no text in UTF-8: {error}") from None
    elif os.path.isdir(system) or _FILE_NAME.fullmatch(system):
        raise typer.BadParameter(
            f"--system {system} looks like a file, and there is none; name one, or write a text"
        )
    if not _is_text(system):
        raise typer.BadParameter(
            "--system has bytes that are no UTF-8; write it in a terminal of UTF-8, or name a file"
        )
    if len(system) > _MOST_TOLD:
        raise typer.BadParameter(
            f"--system has {len(system)} characters, of {_MOST_TOLD} at most: "
            "the conversation has to fit into the model's context as well"
        )
    _log.info("the language model is told %d characters, from %s", len(system), source)
    return system


def _is_text(given: str) -> bool:
    """Whether all of an argument could be decoded; of other bytes, Python makes surrogates."""
    return not any("\ud800" <= char <= "\udfff" for char in given)


def _voice(
    model_set: str,
    asr: str | None,
    llm: str | None,
    tts: str | None,
    system: str | None,
    threads: int | None,
    fit_window: bool,
) -> "Pipeline":
    from labkit.voice.loading import default_threads, load_pipeline
    from labkit.voice.models import resolve

    paths = resolve(model_set, asr=asr, llm=llm, tts=tts, system=system)
    _log.info(
        "loading %s; %d thread(s) per engine",
        ", ".join(paths.names.values()),
        threads or default_threads(),
    )
    return load_pipeline(paths, threads=threads, fit_window=fit_window)


def _announce(server: "VoiceServer") -> None:
    sys.stdout.write(f"labkit {__version__} is ready at {server.url}\n")
    sys.stdout.flush()


def _log_to_stderr() -> None:
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=logging.INFO, format=form)
    for chatty in ("websockets", "faster_whisper", "httpx", "httpx2"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
