"""The client of labkit.v1: lost connections, and what it makes of them."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count, islice
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from labkit.audio.pcm import Encoding, encode_s16le
from labkit.client.answers import Deadlines, Unknown
from labkit.client.dial import Backoff
from labkit.client.events import Interrupted, ReplyAudio
from labkit.client.speech import Clock
from labkit.client.v1 import SessionClient
from labkit.errors import ClientError, ConnectError, ErrorCode
from labkit.measure.links import Conditions, Fault, Link
from labkit.measure.netem import Proxy
from labkit.protocol import v1
from labkit.protocol.replay import Missing, Position
from labkit.server.app import VoiceServer
from labkit.server.v1 import limits_of
from labkit.session.registry import State
from labkit.session.settings import ServerSettings
from labkit.voice.pipeline import EchoPipeline, VoicePipeline
from labkit.voice.scripted import ScriptedLlm, scripted_engines
from labkit.voice.turn import Pipeline
from tests.client.peers import LOOP_CLOCK, Handler, silent, websocket
from tests.support import until

NOISE = np.random.default_rng(1).uniform(-0.5, 0.5, 8000).astype(np.float32)
QUICK = dict[str, Any](backoff=Backoff(first_s=0.01, limit_s=0.05), seed=1)
SOON = dict[str, Any](deadlines=Deadlines(answer_s=0.5), clock=LOOP_CLOCK)


@asynccontextmanager
async def serving(pipeline: Pipeline | None = None, **settings: Any) -> AsyncIterator[VoiceServer]:
    chosen = ServerSettings(host="127.0.0.1", port=0, **settings)
    async with VoiceServer(pipeline or EchoPipeline(), chosen) as server:
        yield server


def proxy(server: VoiceServer, *cuts: Link) -> Proxy:
    """A proxy that cuts the first connections on their way up as planned."""
    target = urlsplit(server.url)

    def plan(number: int) -> Conditions:
        return Conditions(up=cuts[number]) if number < len(cuts) else Conditions()

    return Proxy(target.hostname or "", target.port or 0, conditions=plan)


async def test_a_turn_survives_a_cut_and_says_so() -> None:
    async with (
        serving() as server,
        proxy(server, Link(cut_after=9000, fault=Fault.RESET)) as cut,
        SessionClient.connect(cut.url(), **QUICK) as client,
    ):
        answer = await client.say(NOISE, pace=0)
        assert bytes(answer.audio) == encode_s16le(NOISE)
        assert answer.transcript == "0.50 seconds of audio"
        assert len(answer.interruptions) == 1
        assert client.lost == ""
        assert answer.done is not None
        assert answer.done.status is v1.ResponseStatus.COMPLETED


async def test_the_conversation_survives_a_cut() -> None:
    pipeline = VoicePipeline(scripted_engines(llm=ScriptedLlm(lambda said: f"{len(said)} said.")))
    async with (
        serving(pipeline) as server,
        proxy(server) as cut,
        SessionClient.connect(cut.url(), **QUICK) as client,
    ):
        assert (await client.say(NOISE, pace=0)).sentences == ["1 said."]
        cut.cut(Fault.RESET)
        assert (await client.say(NOISE, pace=0)).sentences == ["3 said."]


async def test_a_reply_is_cancelled_where_it_was_heard() -> None:
    """It is so long that the server waits for whoever listens, and cannot be done before."""
    llm = ScriptedLlm(lambda _: "One two three. " * 2000)
    async with (
        serving(VoicePipeline(scripted_engines(llm=llm))) as server,
        SessionClient.connect(server.url) as client,
    ):
        await client.send_audio(encode_s16le(NOISE))
        await client.end_utterance()
        while not isinstance(await client.next_event(), ReplyAudio):
            pass
        await client.cancel(1, heard_samples=100)
        answer = await client.answer()
        assert answer.done is not None
        assert answer.done.status is v1.ResponseStatus.CANCELLED
        assert not answer.errors


async def test_what_is_said_while_there_is_no_connection_is_kept() -> None:
    async with (
        serving() as server,
        proxy(server) as cut,
        SessionClient.connect(cut.url(), **QUICK) as client,
    ):
        cut.cut()
        await until(lambda: server.states()[State.DETACHED] == 1)
        answer = await client.say(NOISE, pace=0)
        assert bytes(answer.audio) == encode_s16le(NOISE)


async def test_why_there_is_no_connection_is_known_until_there_is_one() -> None:
    async with (
        serving() as server,
        proxy(server) as cut,
        SessionClient.connect(cut.url(), **QUICK) as client,
    ):
        assert client.lost == ""
        client._tries.backoff = Backoff(first_s=3600.0)
        client._tries.begin()
        cut.cut(Fault.RESET)
        await until(lambda: client.lost)


async def test_a_full_ring_makes_the_speaker_wait_and_loses_nothing() -> None:
    options = dict[str, Any](backoff=QUICK["backoff"], ring_s=1.0)
    async with (
        serving() as server,
        SessionClient.connect(server.url, **options) as client,
    ):
        said = np.tile(NOISE, 6)
        answer = await client.say(said, pace=0)
        assert bytes(answer.audio) == encode_s16le(said)
        assert client.conversation.window.held_bytes < 2 * 16_000 * 2


@pytest.mark.parametrize("seconds", [0.0, 0.99, -1.0])
async def test_a_ring_that_cannot_work_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="ring_s must be at least 1 second"):
        async with SessionClient.connect("ws://127.0.0.1:1", ring_s=seconds):
            pytest.fail("a client came about")


async def test_a_gap_that_the_server_cannot_fill_is_told() -> None:
    start = v1.SessionStart(acknowledges=False)
    async with (
        serving(replay_bytes=4000) as server,
        proxy(server) as cut,
        SessionClient.connect(cut.url(), start, **QUICK) as client,
    ):
        await client.say(NOISE, pace=0)
        client.conversation.received = Position()  # as if nothing had come
        cut.cut(Fault.RESET)
        events = [await client.next_event() for _ in range(2)]
        assert isinstance(events[0], Interrupted)
        assert isinstance(events[1], Missing)
        assert client.conversation.received == events[1].up_to


@asynccontextmanager
async def answering(*answers: str | bytes) -> AsyncIterator[str]:
    """A server that answers whatever comes first with `answers`, and then waits."""

    async def handle(socket: ServerConnection) -> None:
        await socket.recv()
        for answer in answers:
            await socket.send(answer)
        await socket.wait_closed()

    offered = [Subprotocol("labkit.v1")]
    async with serve(handle, "127.0.0.1", 0, subprotocols=offered) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


STARTED = v1.SessionStarted(
    session="s",
    token="t",
    resumed=False,
    input=v1.AudioSpec(),
    output=v1.AudioSpec(),
    turn_detection=v1.TurnDetection.CLIENT,
    received=Position(),
    limits=limits_of(ServerSettings()),
).encode()


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            v1.TranscriptFinal(seq=2, turn=1, text="a").encode(),
            "message 2 came where message 1 was due",
        ),
        ('{"type": "pong", "id": 5}', "field 'id' of 'pong' is '5'"),
        ("hello", "no JSON object"),
        ('{"type": "audio.ack", "received": {"messages": 1}}', "was never sent"),
        (b"odd", "a binary message of 3 bytes is no"),
        (STARTED, "'session.started' came in the middle of a session"),
    ],
)
async def test_a_server_that_does_not_keep_to_the_protocol_is_told(
    message: str | bytes, words: str
) -> None:
    async with answering(STARTED, message) as url, SessionClient.connect(url) as client:
        with pytest.raises(ClientError, match=f"does not keep to labkit.v1: .*{words}"):
            await client.next_event()


async def test_a_turn_that_ends_twice_is_told() -> None:
    done = [
        v1.ResponseDone(seq=seq, turn=1, status=v1.ResponseStatus.COMPLETED).encode()
        for seq in (1, 2)
    ]
    async with answering(STARTED, *done) as url, SessionClient.connect(url) as client:
        await client.next_event()
        with pytest.raises(ClientError, match="turn 1 ended, and turn 1 had ended before"):
            await client.next_event()


async def test_the_reason_of_a_server_that_ends_the_session_is_told() -> None:
    ended = v1.SessionEnded(reason="closing time\n")
    async with answering(STARTED, ended.encode()) as url, SessionClient.connect(url) as client:
        assert await client.next_event() == ended
        with pytest.raises(ClientError, match="the server ended the session: closing time$"):
            await client.next_event()


async def test_what_nobody_foresaw_is_told() -> None:
    start = v1.SessionStart(resume=v1.Resume(session="s", token="t"))
    gap = {"after": {}, "up_to": {"samples": 2**53}}
    started = json.dumps(json.loads(STARTED) | {"resumed": True, "missing": gap})
    async with answering(started, bytes(2)) as url, SessionClient.connect(url, start) as client:
        await client.next_event()
        with pytest.raises(ClientError, match="the session with .* failed: .*less than or equal"):
            await client.next_event()


@pytest.mark.parametrize("message", ["response.text", b"audio"])
async def test_a_reply_that_never_ends_is_given_up(
    message: str | bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labkit.client.answers._MOST_NUMBERED", 50)

    async def talks(socket: ServerConnection) -> None:
        for seq in count(1):
            sentence = v1.ResponseText(seq=seq, turn=1, text="And so on.").encode()
            await socket.send(bytes(2**20) if isinstance(message, bytes) else sentence)
            await asyncio.sleep(0)  # in another process, it could not hold up the client

    async with (
        asyncio.timeout(20),
        starting(talks) as (url, _),
        SessionClient.connect(url) as client,
    ):
        with pytest.raises(ClientError, match="the reply does not end; what came: "):
            await client.answer()


async def test_a_newer_server_ends_no_session() -> None:
    """Types, codes and fields that are not known, in numbered messages and in others."""
    started = json.loads(STARTED)
    started["input"]["bits"] = started["limits"]["max_moods"] = started["mood"] = 1
    messages = (
        '{"type": "mood", "seq": 1, "mood": "good"}',
        '{"type": "audio.ack", "received": {"messages": 0, "samples": 0, "words": 0}}',
        '{"type": "weather"}',
        '{"type": "error", "seq": 2, "code": "brand_new", "message": "m"}',
        '{"type": "transcript.final", "seq": 3, "turn": 1, "text": "hi", "words": []}',
        '{"type": "response.done", "seq": 4, "turn": 1, "status": "completed", "cost": 0}',
    )
    async with (
        answering(json.dumps(started), *messages) as url,
        SessionClient.connect(url) as client,
    ):
        events = [await client.next_event() for _ in range(5)]
        assert [event.type for event in events if not isinstance(event, Interrupted)] == [
            "mood", "weather", "error", "transcript.final", "response.done",
        ]  # fmt: skip
        assert isinstance(events[0], Unknown)
        assert events[0].fields["mood"] == "good"
        assert isinstance(events[2], v1.Error)
        assert str(events[2].code) == "brand_new"
        assert client.conversation.received.messages == 4


async def test_what_was_refused_says_how_often() -> None:
    errors = [
        v1.Error(seq=seq, code=ErrorCode.ODD_LENGTH, message="odd", count=count).encode()
        for seq, count in enumerate((1, 70_000), start=1)
    ]
    done = v1.ResponseDone(seq=3, turn=1, status=v1.ResponseStatus.NOTHING_HEARD)
    async with (
        answering(STARTED, *errors, done.encode()) as url,
        SessionClient.connect(url) as client,
    ):
        assert [error.count for error in (await client.answer()).errors] == [1, 70_000]


async def chatty(socket: ServerConnection) -> None:
    """Tells more than a client keeps, then acknowledges whatever comes, and answers once."""
    await socket.recv()
    await socket.send(STARTED)
    for _ in range(100):
        await socket.send('{"type": "weather"}')
    samples = 0
    async for message in socket:
        if isinstance(message, str):
            await socket.send(v1.TranscriptFinal(seq=1, turn=1, text="all").encode())
            done = v1.ResponseDone(seq=2, turn=1, status=v1.ResponseStatus.COMPLETED)
            await socket.send(done.encode())
            break
        samples += len(message) // 2
        await socket.send(v1.AudioAck(received=Position(samples=samples)).encode())
    await socket.wait_closed()


async def test_a_server_that_tells_much_holds_no_speaker_up() -> None:
    async with (
        asyncio.timeout(20),
        websocket(chatty) as url,
        SessionClient.connect(url, ring_s=1) as client,
    ):
        answer = await client.say(np.tile(NOISE, 6), pace=0)
    assert answer.transcript == "all"


@pytest.mark.usefixtures("virtual_time")
async def test_whoever_speaks_and_takes_nothing_is_told() -> None:
    async with websocket(chatty) as url, SessionClient.connect(url, ring_s=1, **SOON) as client:
        with pytest.raises(ClientError, match="64 events wait that nobody takes"):
            for _ in range(6):
                await client.send_audio(encode_s16le(NOISE))


@asynccontextmanager
async def starting(then: Handler) -> AsyncIterator[tuple[str, list[str]]]:
    """A server that begins a session over each connection; and what came first over each."""
    asked: list[str] = []

    async def handle(socket: ServerConnection) -> None:
        asked.append(str(await socket.recv()))
        await socket.send(STARTED)
        await then(socket)

    async with websocket(handle) as url:
        yield url, asked


async def test_what_is_too_large_is_not_asked_for_again() -> None:
    async def large(socket: ServerConnection) -> None:
        await socket.send("x" * 2_000_000)
        await socket.wait_closed()

    async with starting(large) as (url, asked), SessionClient.connect(url, **QUICK) as client:
        with pytest.raises(ClientError, match="a message that is too large to take"):
            await client.next_event()
    assert len(asked) == 1


async def test_a_session_that_was_ended_is_not_resumed() -> None:
    async def restarts(socket: ServerConnection) -> None:
        assert json.loads(await socket.recv())["type"] == "session.end"
        await socket.close(1012, "restart")

    async with starting(restarts) as (url, asked), SessionClient.connect(url, **QUICK) as client:
        await client.end()
        with pytest.raises(ClientError, match="the session is over"):
            await client.next_event()
    assert len(asked) == 1


@pytest.mark.usefixtures("virtual_time")
async def test_a_server_that_does_not_heed_the_end_is_left() -> None:
    async with starting(silent) as (url, _), SessionClient.connect(url, **QUICK) as client:
        await client.end()
        with pytest.raises(ClientError, match="the session is over"):
            await client.next_event()


class Turns:
    """A server that answers each `audio.end` as told: `answer` gets the number of its turn."""

    def __init__(self, answer: Callable[["Turns", int], Awaitable[None]]) -> None:
        self.asked = asyncio.Event()
        self.go = asyncio.Event()
        self.received = Position()
        self._answer = answer
        self._seq = self._turn = 0

    async def __call__(self, socket: ServerConnection) -> None:
        self.socket = socket
        async for message in socket:
            if isinstance(message, bytes):
                self.received = self.received.plus(samples=len(message) // 2)
            elif json.loads(message)["type"] == "audio.end":
                self.received = self.received.plus(messages=1)
                self._turn += 1
                await self._answer(self, self._turn)

    async def hear(self, turn: int) -> None:
        await self._send(v1.TranscriptFinal(turn=turn, text=f"number {turn}"))

    async def end(self, turn: int) -> None:
        await self._send(v1.ResponseDone(turn=turn, status=v1.ResponseStatus.COMPLETED))

    async def refuse(self, message: int) -> None:
        cause = v1.Cause(type="audio.end", position=Position(messages=message))
        await self._send(v1.Error(code=ErrorCode.TOO_MANY_TURNS, message="wait", cause=cause))

    async def _send(self, message: v1.TranscriptFinal | v1.ResponseDone | v1.Error) -> None:
        self._seq += 1
        await self.socket.send(message.model_copy(update={"seq": self._seq}).encode())


async def in_two_halves(server: Turns, turn: int) -> None:
    """Its first answer breaks off in the middle, until it may go on."""
    await server.hear(turn)
    server.asked.set()
    if turn == 1:
        await server.go.wait()
    await server.end(turn)


async def heard(client: SessionClient) -> None:
    """The transcript of the first turn has come, and whoever waits has taken it."""
    stream = client.conversation
    await until(lambda: stream.last_turn == 1 and not stream._events)


async def test_the_answer_to_a_call_that_was_cancelled_is_not_taken_for_the_next_one() -> None:
    server = Turns(in_two_halves)
    async with starting(server) as (url, _), SessionClient.connect(url) as client:
        given_up = asyncio.create_task(client.say(NOISE, pace=0))
        await heard(client)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        again = asyncio.create_task(client.say(NOISE, pace=0))
        await asyncio.sleep(0)
        server.go.set()
        answer = await again
        assert (answer.turn, answer.transcript) == (2, "number 2")


async def test_a_second_call_for_an_answer_is_refused_and_the_first_one_goes_on() -> None:
    server = Turns(in_two_halves)
    async with starting(server) as (url, _), SessionClient.connect(url) as client:
        first = asyncio.create_task(client.say(NOISE, pace=0))
        await server.asked.wait()
        for second in (client.say(NOISE, pace=0), client.answer(), client.next_event()):
            with pytest.raises(ClientError, match="one turn at a time"):
                await second
        server.go.set()
        assert (await first).transcript == "number 1"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.next_event(), 0.01)
        assert (await client.say(NOISE, pace=0)).transcript == "number 2"


async def end_and_give_up(client: SessionClient) -> None:
    """End an utterance, and cancel the call for its answer once that has the transcript."""
    await client.end_utterance()
    waiting = asyncio.create_task(client.answer())
    await heard(client)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_what_a_cancelled_call_took_is_in_the_answer_to_the_next() -> None:
    server = Turns(in_two_halves)
    async with starting(server) as (url, _), SessionClient.connect(url) as client:
        await end_and_give_up(client)
        server.go.set()
        assert (await client.answer()).transcript == "number 1"


async def test_events_that_are_taken_one_by_one_are_in_no_later_answer() -> None:
    server = Turns(in_two_halves)
    async with starting(server) as (url, _), SessionClient.connect(url) as client:
        await end_and_give_up(client)
        server.go.set()
        assert isinstance(await client.next_event(), v1.ResponseDone)
        await client.end_utterance()
        answer = await client.answer()
        assert (answer.turn, answer.transcript) == (2, "number 2")


async def test_an_end_that_was_refused_ends_the_call() -> None:
    async def refuse(server: Turns, turn: int) -> None:
        if turn == 1:
            await server.refuse(0)
        else:
            await server.hear(turn - 1)
            await server.end(turn - 1)

    async with (
        asyncio.timeout(20),
        starting(Turns(refuse)) as (url, _),
        SessionClient.connect(url) as client,
    ):
        answer = await client.say(NOISE, pace=0)
        assert answer.done is None
        assert [error.code for error in answer.errors] == [ErrorCode.TOO_MANY_TURNS]
        assert (await client.say(NOISE, pace=0)).transcript == "number 1"


async def test_where_the_server_decides_the_answer_is_to_what_was_over_later() -> None:
    async def answer(server: Turns, _: int) -> None:
        await server.end(1)
        await server.hear(2)
        await server.end(2)

    server = Turns(answer)

    async def decides(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(json.dumps(json.loads(STARTED) | {"turn_detection": "server"}))
        server.socket = socket
        await server.hear(1)
        await server(socket)

    async with websocket(decides) as url, SessionClient.connect(url) as client:
        await until(lambda: client.conversation.last_turn == 1)
        told = await client.say(NOISE, pace=0)
        assert (told.turn, told.transcript) == (2, "number 2")


async def test_speech_goes_on_behind_its_first_answer() -> None:
    """Its server decides when an utterance is over, and tells more than a client keeps."""

    async def decides(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(json.dumps(json.loads(STARTED) | {"turn_detection": "server"}))
        server.socket = socket
        samples = len(await socket.recv()) // 2
        await server.hear(1)
        await server.end(1)
        for _ in range(100):
            await socket.send('{"type": "weather"}')
        async for message in socket:
            if isinstance(message, bytes):  # and no acknowledgement of the client's
                samples += len(message) // 2
                await socket.send(v1.AudioAck(received=Position(samples=samples)).encode())

    server = Turns(in_two_halves)
    async with (
        asyncio.timeout(20),
        websocket(decides) as url,
        SessionClient.connect(url, ring_s=1) as client,
    ):
        assert (await client.say(np.tile(NOISE, 6), pace=0)).transcript == "number 1"


async def nothing(server: Turns) -> None:
    pass


def losing(
    server: Turns, lost: int, go_on: Callable[[Turns], Awaitable[None]] = nothing
) -> Handler:
    """Has lost so many of its messages when the client is back, and goes on behind them."""

    async def handle(socket: ServerConnection) -> None:
        start = v1.SessionStart.model_validate_json(await socket.recv())
        if start.resume is not None:
            server._seq += lost
            up_to = Position(messages=server._seq)
            started = v1.SessionStarted.model_validate_json(STARTED).model_copy(
                update={
                    "resumed": True,
                    "received": server.received,
                    "missing": Missing(after=start.resume.received, up_to=up_to),
                }
            )
            await socket.send(started.encode())
            server.socket = socket
            await go_on(server)
        else:
            await socket.send(STARTED)
        await server(socket)

    return handle


async def hang_up_in_the_first(server: Turns, turn: int) -> None:
    """Answers, but hangs up behind the transcript of the first turn."""
    await server.hear(turn)
    if turn == 1:
        await server.socket.close(1012)
    else:
        await server.end(turn)


@pytest.mark.usefixtures("virtual_time")
async def test_an_answer_whose_end_is_missing_ends_when_it_is_due() -> None:
    handle = losing(Turns(hang_up_in_the_first), 1)
    async with websocket(handle) as url, SessionClient.connect(url, **QUICK, **SOON) as client:
        answer = await client.say(NOISE, pace=0)
        assert (answer.transcript, answer.done) == ("number 1", None)
        assert [gap.up_to.messages for gap in answer.gaps] == [2]
        assert (await client.say(NOISE, pace=0)).transcript == "number 2"


@pytest.mark.parametrize("told", [["number 1", "number 2"], ["", "number 2"]])
async def test_an_answer_whose_end_is_missing_ends_where_the_next_one_begins(
    told: list[str],
) -> None:
    """The first turn, or its end, is missing; the second begins behind that."""

    async def answer(server: Turns, turn: int) -> None:
        if turn == 1 and told[0]:
            await server.hear(1)
        elif turn == 2:
            await server.socket.close(1012)

    async def go_on(server: Turns) -> None:
        await server.hear(2)
        await server.end(2)

    handle = losing(Turns(answer), 1 if told[0] else 2, go_on)
    async with (
        asyncio.timeout(20),
        websocket(handle) as url,
        SessionClient.connect(url, **QUICK) as client,
    ):
        for _ in range(2):
            await client.send_audio(encode_s16le(NOISE))
            await client.end_utterance()
            await until(lambda: client.conversation.received.messages >= bool(told[0]))
        answers = [await client.answer() for _ in range(2)]
        assert [answer.transcript for answer in answers] == told
        assert [answer.done is None for answer in answers] == [True, False]
        assert client.conversation.turns == 0


@pytest.mark.parametrize("options", [{"pace": -1}, {"chunk_ms": 0}])
async def test_what_cannot_be_said_leaves_the_session_as_it_was(options: dict[str, float]) -> None:
    async with serving() as server, SessionClient.connect(server.url) as client:
        with pytest.raises(ValueError, match="must be at least 0|needs at least one sample"):
            await client.say(NOISE, **options)
        assert len((await client.say(NOISE, pace=0)).audio) == 2 * len(NOISE)


@pytest.mark.parametrize("other", [{"session": "z", "resumed": True}, {"session": "s"}])
async def test_another_session_is_not_taken_for_the_one_that_was_lost(
    other: dict[str, object],
) -> None:
    answers = [STARTED, json.dumps(json.loads(STARTED) | other)]

    async def forgets(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(answers.pop(0))
        if answers:
            await socket.close(1012)
        await socket.wait_closed()

    async with websocket(forgets) as url, SessionClient.connect(url, **QUICK) as client:
        with pytest.raises(ClientError, match="began another session in place of resuming"):
            await client.next_event()


GAP = {"after": {"messages": 0, "samples": 0}, "up_to": {"messages": 1, "samples": 0}}


@pytest.mark.parametrize("fields", [{"resumed": True}, {"missing": GAP}])
async def test_a_session_that_was_to_begin_does_not_go_on(fields: dict[str, object]) -> None:
    words = "does not keep to labkit.v1: .* says that a session goes on which was to begin"
    async with answering(json.dumps(json.loads(STARTED) | fields)) as url:
        with pytest.raises(ClientError, match=words):
            async with SessionClient.connect(url):
                pass


@pytest.mark.parametrize("received", [Position(messages=1), Position(samples=5)])
async def test_a_gap_begins_where_the_client_is(received: Position) -> None:
    start = v1.SessionStart(resume=v1.Resume(session="s", token="t", received=received))
    started = json.loads(STARTED) | {"resumed": True, "missing": GAP}
    async with answering(json.dumps(started)) as url:
        with pytest.raises(ClientError, match="names a gap that does not begin where"):
            async with SessionClient.connect(url, start):
                pass


@pytest.mark.parametrize(("session", "resumed"), [("s", False), ("z", True)])
async def test_a_session_that_was_to_go_on_does_not_begin(session: str, resumed: bool) -> None:
    start = v1.SessionStart(resume=v1.Resume(session="s", token="t"))
    started = json.loads(STARTED) | {"session": session, "resumed": resumed}
    async with answering(json.dumps(started)) as url:
        with pytest.raises(ClientError, match="began another session in place of resuming"):
            async with SessionClient.connect(url, start):
                pass


@pytest.mark.parametrize("way", ["input", "output"])
async def test_another_format_than_was_asked_for_is_told(way: str) -> None:
    started = json.loads(STARTED)
    started[way]["sample_rate"] = 48_000
    async with answering(json.dumps(started)) as url:
        with pytest.raises(ClientError, match=f"agreed to {way} of .*48000.*asked was .*16000"):
            async with SessionClient.connect(url):
                pass


async def test_no_password_is_repeated() -> None:
    async with answering(STARTED, "hello") as url:
        address = url.replace("ws://", "ws://user:secret@")
        async with SessionClient.connect(address) as client:
            with pytest.raises(ClientError, match="does not keep to") as told:
                await client.next_event()
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("hello", "'hello'; a text message is no JSON object"),
        ('{"type": "session.started"}', "'{.*}'; field 'session' of 'session.started' is"),
        (b"hello", "b'hello'"),
    ],
)
async def test_something_else_than_a_labkit_server_is_told(answer: str | bytes, why: str) -> None:
    async with answering(answer) as url:
        with pytest.raises(ClientError, match=f"answered 'session.start' with {why}"):
            async with SessionClient.connect(url):
                pass


async def test_formats_are_converted_for_the_server() -> None:
    telephone = v1.AudioSpec(encoding=Encoding.MULAW, sample_rate=8000)
    start = v1.SessionStart(input=telephone, output=telephone, acknowledges=True)
    async with serving() as server, SessionClient.connect(server.url, start) as client:
        answer = await client.say(NOISE, pace=0)
        assert answer.transcript == "0.50 seconds of audio"
        assert len(answer.audio) == 4000


async def test_a_session_that_another_one_took_over_is_over() -> None:
    async with serving() as server, SessionClient.connect(server.url) as client:
        assert client.started is not None
        resume = v1.Resume(session=client.started.session, token=client.started.token)
        async with SessionClient.connect(server.url, v1.SessionStart(resume=resume)):
            with pytest.raises(ClientError, match="another connection has resumed"):
                while True:
                    await client.next_event()


async def test_a_session_that_expired_meanwhile_is_over() -> None:
    async with (
        serving() as server,
        proxy(server, Link()) as cut,
        SessionClient.connect(cut.url(), **QUICK) as client,
    ):
        assert client.started is not None
        session = client.started.session
        client.started = client.started.model_copy(update={"token": "forgotten"})
        cut.cut(Fault.RESET)
        with pytest.raises(ClientError, match="session_unknown"):
            while True:
                await client.next_event()
        assert session
        with pytest.raises(ClientError, match="session_unknown"):
            await client.send_audio(bytes(2))


@pytest.mark.parametrize(("answer_s", "keepalive_s"), [(0.5, 1), (30, 10), (600, 20)])
async def test_a_connection_that_is_dead_is_found_before_an_answer_is_overdue(
    answer_s: float, keepalive_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that is busy for a moment is not dead, however short the deadlines are."""
    asked = []

    async def dial(url: str, **options: Any) -> None:
        asked.append(options["keepalive_s"])
        raise ConnectError("as planned", retry=False)

    monkeypatch.setattr("labkit.client.v1.dial", dial)
    with pytest.raises(ConnectError):
        async with SessionClient.connect("ws://box", deadlines=Deadlines(answer_s=answer_s)):
            pass
    assert asked == [keepalive_s]


async def test_nobody_there_is_told_at_once() -> None:
    async with serving() as server:
        url = server.url
    with pytest.raises(ClientError, match=f"no voice server answers at {url}: Connection refused"):
        async with SessionClient.connect(url):
            pass


async def test_a_server_that_stays_away_is_given_up() -> None:
    options = dict[str, Any](backoff=Backoff(first_s=0.01, limit_s=0.01, give_up_s=1.0))
    async with serving() as server:
        target = urlsplit(server.url)
        async with (
            Proxy(target.hostname or "", target.port or 0, conditions=_only_the_first) as cut,
            SessionClient.connect(cut.url(), **options) as client,
        ):
            cut.cut(Fault.RESET)
            with pytest.raises(ClientError, match="no session with"):
                await client.next_event()


def _only_the_first(number: int) -> Conditions:
    return Conditions() if number == 0 else Conditions(up=Link(cut_after=0))


async def test_a_full_server_names_the_wait() -> None:
    """The only place is taken when the client comes back, and free after the named wait."""
    waits: list[float] = []
    others: list[ClientConnection] = []

    async def pause(seconds: float) -> None:
        waits.append(seconds)
        if not others:
            await until(lambda: server.states()[State.DETACHED] == 1)
            others.append(await connect(server.url))
        elif seconds == 5:
            await others[0].close()

    def now_ns() -> int:
        return time.perf_counter_ns() + round(sum(waits) * 1e9)

    options = dict[str, Any](backoff=QUICK["backoff"], clock=Clock(source=now_ns, sleep=pause))
    async with (
        serving(max_sessions=1) as server,
        proxy(server) as cut,
        SessionClient.connect(cut.url(), **options) as client,
    ):
        cut.cut(Fault.RESET)
        event = await client.next_event()
        assert isinstance(event, Interrupted)
        assert 5 in waits
        assert event.seconds >= sum(waits)  # and not only since the last try
        assert "503" not in event.reason


async def test_leaving_while_the_connection_breaks_ends_the_client() -> None:
    async with serving() as server, proxy(server) as cut:
        async with SessionClient.connect(cut.url(), **QUICK):
            cut.cut(Fault.RESET)
            await until(lambda: server.states()[State.DETACHED] == 1)


def test_waits_are_drawn_below_a_bound_that_doubles() -> None:
    backoff = Backoff(first_s=1.0, limit_s=4.0)
    draws = [list(islice(backoff.delays(random.Random(seed)), 5)) for seed in range(200)]
    for number, bound in enumerate([1, 2, 4, 4, 4]):
        waits = [draw[number] for draw in draws]
        assert 0 <= min(waits)
        assert bound * 0.9 < max(waits) <= bound


def test_a_seed_repeats_the_waits() -> None:
    first, second = (list(islice(Backoff().delays(random.Random(7)), 8)) for _ in range(2))
    assert first == second
