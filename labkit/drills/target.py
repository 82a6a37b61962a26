"""A server to be drilled: any settings, any pipeline, in a process of its own; and how it is.

`running_target` runs it in `labkit.drills.served`, with one JSON object on its command line. How
the server is, its own `/metrics` and log tell, and an honest caller beside those that misuse it.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from http.client import HTTPException
from typing import Any, Final, Literal

import numpy as np
from websockets.asyncio.client import ClientConnection

from labkit.audio.pcm import SAMPLE_RATE, Float32, decode_s16le, encode_s16le, read_audio
from labkit.client.answers import Deadlines
from labkit.client.dial import Backoff, connected, server_url, shown
from labkit.client.plain import VoiceClient
from labkit.client.v1 import SessionClient, begin
from labkit.drills import Dialect
from labkit.errors import ClientError, LabkitError
from labkit.measure.recordings import load_manifest
from labkit.measure.server_process import RunningServer, figures_on, get_page, running_server
from labkit.protocol import plain, v1
from labkit.session.settings import ServerSettings

PipelineName = Literal["echo", "voice", "scripted"]
"""What answers: an echo, the engines, or engines that follow a script: what they hear is the
checksum of the audio, so that two transcripts are alike only where all samples are."""

_HERE: Final[Mapping[str, Any]] = {"host": "127.0.0.1", "port": 0}
_PATIENCE_S: Final = 10.0
_BEGIN_S: Final = 30.0
_LOOK_S: Final = 0.1
_FAULTS: Final = (" ERROR ", " CRITICAL ", "Traceback", "never retrieved", "never awaited")
"""Signs of a fault in a line of a log."""


def running_target(
    pipeline: PipelineName = "echo", *, model_set: str = "embedded", **settings: Any
) -> AbstractAsyncContextManager[RunningServer]:
    """Run the server for the length of a block, on a free port of this machine where none is named.

    `settings` are fields of `ServerSettings` that are not to have their defaults.

    Raises:
        ServerError: There is no such setting, its value is out of range, or the server does not
            start.
    """
    settings_of(settings)
    told = {"pipeline": pipeline, "model_set": model_set, "settings": settings}
    return running_server(["labkit.drills.served", json.dumps(told)])


def settings_of(told: Mapping[str, Any]) -> ServerSettings:
    """The server's settings with what is `told` of them; errors are those of `running_target`."""
    return ServerSettings(**{**_HERE, **told})


def spoken() -> list[Float32]:
    """All recorded speech of the data folder, each recording mono at 16 kHz."""
    recordings = load_manifest()
    return [read_audio(one.path) for one in recordings if one.kind.is_speech]


# -- what it tells of itself -------------------------------------------------------------------


class Vital(StrEnum):
    """A figure that a server of labkit tells of itself, by its name in `/metrics`."""

    SESSIONS = "labkit_sessions"
    TASKS = "labkit_tasks"
    HELD_BYTES = "labkit_held_bytes"
    QUEUED_CALLS = "labkit_queued_calls"
    CLOSES = "labkit_closes_total"
    OPEN_FILES = "process_open_fds"
    RSS_BYTES = "process_resident_memory_bytes"


Vitals = Mapping[str, int]
"""A server at one instant: the figures of its `/metrics` by name, each added up over its labels,
and by name and label (`labkit_closes_total 4008`). What it does not tell is not in it."""


def parse_vitals(page: str) -> Vitals:
    """Read a page in Prometheus' text format."""
    vitals: dict[str, int] = {}
    for name, by_label in figures_on(page).items():
        vitals[name] = int(sum(by_label.values()))
        vitals |= {f"{name} {label}": int(value) for label, value in by_label.items() if label}
    return vitals


async def vitals_of(url: str) -> Vitals:
    """How the server at `url` is now.

    Raises:
        ClientError: It does not answer.
    """
    status, page = await fetch(url, "/metrics")
    return parse_vitals(page) if status == 200 else {}


async def vitals_once(url: str, calm: Callable[[Vitals], bool], within_s: float) -> Vitals:
    """The vitals once they are `calm`, or after `within_s` seconds at the latest."""
    deadline = time.perf_counter() + within_s
    while True:
        vitals = await vitals_of(url)
        if calm(vitals) or time.perf_counter() >= deadline:
            return vitals
        await asyncio.sleep(_LOOK_S)


async def fetch(url: str, path: str) -> tuple[int, str]:
    """Get a page of the server at `url`: the HTTP status, and the text.

    Raises:
        ClientError: It does not answer, or not with HTTP.
    """
    try:
        return await asyncio.to_thread(get_page, shown(server_url(url)), path, _PATIENCE_S)
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error) or type(error).__name__
        raise ClientError(f"{shown(url)} does not give {path}: {reason}") from error


def memory_of(server: RunningServer) -> int:
    """Resident bytes of a server; 0 where the system does not tell."""
    usage = server.usage()
    return 0 if usage is None else usage.rss_bytes


def log_faults(log: str) -> list[str]:
    """Lines of a server's log that tell of a fault: errors, tracebacks, lost exceptions."""
    return [line for line in log.splitlines() if any(sign in line for sign in _FAULTS)]


# -- callers -----------------------------------------------------------------------------------


@asynccontextmanager
async def session(
    url: str, start: v1.SessionStart | None = None, *, within_s: float = _BEGIN_S, **options: Any
) -> AsyncIterator[ClientConnection]:
    """A connection over which a session of labkit.v1 was begun; `options` are those of `dial`.

    Raises:
        ClientError: Nobody answers there, or the server refuses.
        Lost: The server says nothing for `within_s` seconds, or hangs up.
    """
    async with connected(url, subprotocol=v1.SUBPROTOCOL, **options) as socket:
        await begin(socket, start or v1.SessionStart(), within_s)
        yield socket


@dataclass(frozen=True, slots=True)
class Heard:
    """What a caller got in one turn."""

    transcript: str
    reply: str
    """What the answer says."""
    audio: bytes
    """The spoken answer, s16le at 16 kHz."""


Ask = Callable[[Float32, float], Awaitable[Heard]]
"""Says an utterance, 16 kHz, at times the pace of speech (0 is at once), and gives the answer to
it. Raises `ClientError` where there is none."""


@asynccontextmanager
async def asking(
    url: str, dialect: Dialect, deadlines: Deadlines | None = None
) -> AsyncIterator[Ask]:
    """A caller in either dialect for the length of the block."""
    deadlines = deadlines or Deadlines()
    if dialect is Dialect.PLAIN:
        async with VoiceClient.connect(url, stream=False, deadlines=deadlines) as client:

            async def ask(said: Float32, pace: float) -> Heard:
                turn = await client.say(said, pace=pace)
                _require_answer(turn.errors)
                return Heard(turn.transcript, turn.reply_text, encode_s16le(turn.reply))

            yield ask
        return
    backoff = Backoff(give_up_s=deadlines.start_s)
    async with SessionClient.connect(url, deadlines=deadlines, backoff=backoff) as session:

        async def ask_in_v1(said: Float32, pace: float) -> Heard:
            answer = await session.say(said, pace=pace)
            _require_answer(answer.errors)
            return Heard(answer.transcript, " ".join(answer.sentences), bytes(answer.audio))

        yield ask_in_v1
        await session.end()


def _require_answer(errors: Sequence[plain.Error | v1.Error]) -> None:
    if errors:
        raise ClientError(f"the turn failed: {errors[0].message}")


async def well_served(url: str, dialect: Dialect) -> str:
    """What is wrong with one good turn against a server that echoes; empty where nothing is."""
    said = np.full(SAMPLE_RATE // 5, 0.25, np.float32)
    try:
        async with asking(url, dialect) as ask:
            heard = await ask(said, 0)
    except LabkitError as error:
        return f"{type(error).__name__}: {error}"
    if heard.transcript != "0.20 seconds of audio":
        return f"the transcript is {heard.transcript!r}, where only an echo server passes"
    reply = decode_s16le(heard.audio)
    if len(reply) != len(said) or np.abs(reply - said).max() > 1e-3:
        return f"the reply of {len(reply)} samples is not what was said"
    return ""
