"""Every error code and every close code: what a client does to get it, and what it is told."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from labkit.audio.misread import MISMATCHES
from labkit.errors import CloseCode, ErrorCode
from labkit.server.app import VoiceServer
from labkit.session.registry import State
from labkit.voice.pipeline import EchoPipeline, VoicePipeline
from labkit.voice.scripted import ScriptedAsr, scripted_engines
from labkit.voice.turn import Pipeline
from tests.callers import CHUNK, SECOND, Clock, closed, serving, start
from tests.support import until

PLAIN: Final = "plain"
V1: Final = "labkit.v1"
PAGE: Final = Path(__file__).resolve().parents[2] / "labkit/protocol/PROTOCOL.md"

CANCEL: Final = '{"type": "response.cancel", "turn": 9}'
ACK: Final = '{"type": "response.ack", "received": {"samples": 1}}'
PING: Final = '{"type": "ping"}'
TURN: Final = (CHUNK * 10, '{"type": "audio.end"}')
PLAIN_TURN: Final = (CHUNK * 10, "end_stream")
START: Final = '{"type": "session.start"}'
RESUME: Final = '{"type": "session.start", "resume": {"session": "x", "token": "y"}}'


@dataclass
class Scene:
    """A caller and its server.

    Attributes:
        server: The server.
        clock: Its time.
        socket: The caller's connection; what is told is read from here.
        dial: Opens another connection in the same dialect.
        started: What `session.started` said, empty where no session was started.
        closing: Closes the server, where that is under way.
    """

    server: VoiceServer
    clock: Clock
    socket: ClientConnection
    dial: Callable[[], Awaitable[ClientConnection]]
    started: dict[str, Any] = field(default_factory=dict)
    closing: "asyncio.Task[None] | None" = None


Provoke = Callable[[Scene], Awaitable[None]]


def sending(*messages: str | bytes) -> Provoke:
    """The caller sends this."""

    async def provoke(scene: Scene) -> None:
        for message in messages:
            await scene.socket.send(message)

    return provoke


def waiting(seconds: int) -> Provoke:
    """The caller does nothing for so long."""

    async def provoke(scene: Scene) -> None:
        scene.clock.now_ns = seconds * SECOND
        scene.server.reap(scene.clock.now_ns)

    return provoke


async def no_start(scene: Scene) -> None:
    """The caller, whose session waits, opens a connection and does nothing with it."""
    scene.socket = await scene.dial()
    await waiting(5)(scene)


async def invalid_text(scene: Scene) -> None:
    """The caller sends a text message that is not UTF-8."""
    await scene.socket.send(b"\xff", text=True)


async def broken_frame(scene: Scene) -> None:
    """The caller sends a frame of a kind that there is not (opcode 3), empty and masked."""
    scene.socket.transport.write(b"\x83\x80\0\0\0\0")


async def another_caller(scene: Scene) -> None:
    """Another connection resumes, and once more: by then, its first token was used."""
    started = scene.started
    for _ in range(2):
        resume = {"session": started["session"], "token": started["token"]}
        started = await start(await scene.dial(), resume=resume)


async def shutdown(scene: Scene) -> None:
    """The server closes."""
    scene.closing = asyncio.create_task(scene.server.close())


async def deaf(scene: Scene) -> None:
    """The caller's machine answers no keepalive ping, until the server has given up on it."""
    scene.socket.transport.pause_reading()
    await until(lambda: not scene.server.states()[State.ATTACHED])
    scene.socket.transport.resume_reading()


def stuck() -> Pipeline:
    """A recogniser that never comes to an end."""
    asr = ScriptedAsr()
    asr.gate.clear()
    return VoicePipeline(scripted_engines(asr))


def out_of_memory() -> Pipeline:
    """A recogniser that fails."""

    def fail(_: object) -> str:
        raise RuntimeError("out of memory")

    return VoicePipeline(scripted_engines(ScriptedAsr(fail)))


def baffled() -> Pipeline:
    """A recogniser that finds no words in speech."""
    return VoicePipeline(scripted_engines(ScriptedAsr(lambda _: "")))


class Faulty(EchoPipeline):
    """A fault of the server itself."""

    async def answer(self, turn: Any, sink: Any) -> Any:
        raise KeyError("oops")


@dataclass(frozen=True)
class Row:
    """One way to be told a code.

    Attributes:
        dialect: What the caller speaks.
        code: The error that comes; None where the close says it all.
        provoke: What the caller does.
        close: How the connection is closed then; None where it goes on.
        resumable: Whether the session can be resumed after the close.
        settings: Of the server.
        pipeline: What answers.
        start: What `session.start` asks for; None sends none.
    """

    dialect: str
    code: ErrorCode | None
    provoke: Provoke
    close: CloseCode | None = None
    resumable: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    pipeline: Callable[[], Pipeline] = EchoPipeline
    start: Mapping[str, Any] | None = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join([self.dialect, *(x.name for x in (self.code, self.close) if x)])


E, C = ErrorCode, CloseCode
SHORT: Final = {"max_utterance_s": 0.1}
BUSY: Final = {"max_waiting_turns": 1, "grace_s": 0.0}
TIMES: Final = {"idle_s": 20.0, "max_session_s": 60.0, "start_s": 5.0}
UNREAD: Final = {"send_timeout_s": 0.05, "replay_bytes": 4000}
IMPATIENT: Final = {"ping_interval_s": 0.05, "ping_timeout_s": 0.5}
LARGE: Final = bytes(300_000)
HUGE: Final = {"max_read_bytes": 100_000}
NAN: Final = np.full(10, np.nan, np.float32).tobytes()
FLOATS: Final = {"input": {"encoding": "pcm_f32le"}}
SURE: Final = {"acknowledges": True}
FAST: Final = {"burst_s": 1.0, "max_audio_speed": 1000.0}

# fmt: off
ROWS: Final = (
    # Something is refused, and the session goes on.
    Row(PLAIN, E.ODD_LENGTH, sending(b"\0\1\2")),
    Row(PLAIN, E.MESSAGE_TOO_LARGE, sending(LARGE)),
    Row(PLAIN, E.BUFFER_FULL, sending(CHUNK * 3), settings=SHORT),
    Row(PLAIN, E.UNKNOWN_COMMAND, sending("hello")),
    Row(PLAIN, E.WRONG_FRAME, sending(b"end_stream\n")),
    Row(PLAIN, E.TOO_MANY_TURNS, sending(*PLAIN_TURN * 3), settings=BUSY, pipeline=stuck),
    Row(PLAIN, E.ENGINE_FAILED, sending(*PLAIN_TURN), pipeline=out_of_memory),
    Row(PLAIN, E.AUDIO_TOO_FAST, sending(*[CHUNK] * 50), settings=FAST),
    Row(PLAIN, E.NOT_UNDERSTOOD, sending(*PLAIN_TURN), pipeline=baffled),
    Row(V1, E.NOT_UNDERSTOOD, sending(*TURN), pipeline=baffled),
    Row(V1, E.ODD_LENGTH, sending(b"\0\1\2")),
    Row(V1, E.MESSAGE_TOO_LARGE, sending(LARGE)),
    Row(V1, E.BUFFER_FULL, sending(CHUNK * 3), settings=SHORT),
    Row(V1, E.TOO_MANY_TURNS, sending(*TURN * 3), settings=BUSY, pipeline=stuck),
    Row(V1, E.ENGINE_FAILED, sending(*TURN), pipeline=out_of_memory),
    Row(V1, E.INVALID_AUDIO, sending(NAN), start=FLOATS),
    Row(V1, E.WRONG_FRAME, sending(PING.encode())),
    Row(V1, E.INVALID_JSON, sending("hello")),
    Row(V1, E.UNKNOWN_TYPE, sending('{"type": "what"}')),
    Row(V1, E.INVALID_FIELD, sending('{"type": "response.cancel"}')),
    Row(V1, E.NOT_STARTED, sending(CHUNK), start=None),
    Row(V1, E.ALREADY_STARTED, sending(START)),
    Row(V1, E.SESSION_UNKNOWN, sending(RESUME), start=None),
    Row(V1, E.POSITION_INVALID, sending(ACK)),
    Row(V1, E.UNKNOWN_RESPONSE, sending(CANCEL)),
    Row(V1, E.AUDIO_TOO_FAST, sending(*[CHUNK] * 50), settings=FAST),
    # The connection is closed, and its client told why before.
    Row(V1, E.START_TIMEOUT, no_start, C.START_TIMEOUT, True, TIMES),
    Row(V1, E.TAKEN_OVER, another_caller, C.TAKEN_OVER, False),
    Row(V1, E.TOO_MANY_MESSAGES, sending(*[PING] * 9), C.POLICY, True, {"message_burst": 5}),
    Row(V1, E.IDLE, waiting(20), C.IDLE, True, TIMES),
    Row(V1, E.SESSION_TOO_LONG, waiting(60), C.SESSION_TOO_LONG, False, TIMES),
    Row(V1, E.SLOW_READER, sending(*TURN), C.SLOW_READER, True, UNREAD, start=SURE),
    Row(V1, E.SHUTTING_DOWN, shutdown, C.GOING_AWAY, False),
    Row(V1, E.INTERNAL, sending(*TURN), C.INTERNAL_ERROR, False, pipeline=Faulty),
    # The connection is closed without a word before.
    Row(V1, None, sending('{"type": "session.end"}'), C.NORMAL, False),
    Row(V1, None, broken_frame, C.PROTOCOL_ERROR, True),
    Row(V1, None, invalid_text, C.INVALID_TEXT, True),
    Row(V1, None, sending(LARGE), C.MESSAGE_TOO_BIG, True, HUGE),
    Row(V1, None, deaf, C.INTERNAL_ERROR, True, IMPATIENT),
    Row(PLAIN, None, sending(*["ping"] * 9), C.POLICY, settings={"message_burst": 5}),
    Row(PLAIN, None, shutdown, C.GOING_AWAY),
    Row(PLAIN, None, broken_frame, C.PROTOCOL_ERROR),
    Row(PLAIN, None, invalid_text, C.INVALID_TEXT),
    Row(PLAIN, None, sending(LARGE), C.MESSAGE_TOO_BIG, settings=HUGE),
    Row(PLAIN, None, sending(*PLAIN_TURN), C.INTERNAL_ERROR, pipeline=Faulty),
    Row(PLAIN, None, waiting(20), C.IDLE, settings=TIMES),
    Row(PLAIN, None, waiting(60), C.SESSION_TOO_LONG, settings=TIMES),
)
# fmt: on


@asynccontextmanager
async def staged(row: Row) -> AsyncIterator[Scene]:
    """A server as the row wants it, and a caller that has begun."""
    clock = Clock()
    offers = [Subprotocol(V1)] if row.dialect == V1 else None
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving(row.pipeline(), clock, **row.settings))
        url = server.url

        async def dial() -> ClientConnection:
            return await stack.enter_async_context(connect(url, subprotocols=offers))

        scene = Scene(server, clock, await dial(), dial)
        if row.dialect == V1 and row.start is not None:
            scene.started = await start(scene.socket, **row.start)
        yield scene
        if scene.closing is not None:
            await scene.closing


async def next_where(
    socket: ClientConnection, wanted: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """The next JSON message that is wanted; others and audio may come before it."""
    while True:
        message = await socket.recv()
        if isinstance(message, str) and message != "pong":
            decoded: dict[str, Any] = json.loads(message)
            if wanted(decoded):
                return decoded


async def is_alive(scene: Scene, dialect: str) -> bool:
    """Whether the connection still serves."""
    if dialect == V1:
        await scene.socket.send(PING)
        return bool(await next_where(scene.socket, lambda told: told["type"] == "pong"))
    await scene.socket.send("ping")
    while await scene.socket.recv() != "pong":
        pass
    return True


async def can_resume(scene: Scene) -> bool:
    """Whether the caller's session is to be had again."""
    keys = {key: scene.started[key] for key in ("session", "token")}
    try:
        socket = await scene.dial()
    except OSError:
        return False
    await socket.send(json.dumps({"type": "session.start", "resume": keys}))
    told = await next_where(socket, lambda told: told["type"] in {"session.started", "error"})
    assert told["type"] == "session.started" or told["code"] == ErrorCode.SESSION_UNKNOWN
    return bool(told["type"] == "session.started")


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_a_code_is_told_as_its_row_says(row: Row) -> None:
    async with staged(row) as scene:
        await row.provoke(scene)
        if row.code is not None:
            error = await next_where(scene.socket, lambda told: told["type"] == "error")
            assert error["code"] == row.code
            assert error["message"]
            assert error["hint"]
            assert error.get("fatal", False) is (row.close is not None)
        if row.close is None:
            assert await is_alive(scene, row.dialect)
        else:
            assert await closed(scene.socket) == row.close
        if row.close is not None and row.dialect == V1:
            assert await can_resume(scene) is row.resumable


# What audio may look like is provoked in test_mismatches.py.
@pytest.mark.parametrize("code", [code for code in ErrorCode if code not in MISMATCHES])
def test_every_error_code_has_a_row(code: ErrorCode) -> None:
    assert [row for row in ROWS if row.code is code]


@pytest.mark.parametrize("code", CloseCode, ids=lambda code: code.name)
def test_every_close_code_has_a_row(code: CloseCode) -> None:
    assert [row for row in ROWS if row.close is code]


def test_errors_close_as_their_table_says() -> None:
    assert [str(row) for row in ROWS if row.code and row.close is not row.code.close] == []


@pytest.mark.parametrize("code", CloseCode, ids=lambda code: code.name)
def test_a_close_that_leaves_a_session_is_said_to(code: CloseCode) -> None:
    assert code.resumable is any(row.resumable for row in ROWS if row.close is code)


def test_the_page_names_the_errors_of_the_plain_dialect() -> None:
    page = PAGE.read_text(encoding="utf-8").rpartition("The errors that can come are")[2]
    named = re.findall(r"`(\w+)`", page.partition(".")[0])
    assert named == [row.code.value for row in ROWS if row.dialect == PLAIN and row.code]


def test_the_page_names_the_closes_of_the_plain_dialect() -> None:
    page = PAGE.read_text(encoding="utf-8").rpartition("the server closes the connection (")[2]
    named = {int(code) for code in re.findall(r"\d+", page.partition(")")[0])}
    assert named >= {row.close.value for row in ROWS if row.dialect == PLAIN and row.close}
