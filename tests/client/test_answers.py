"""Answers that are newer than the client, wrong, or never come: no client waits for ever."""

import asyncio
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection

from labkit.audio.pcm import encode_s16le
from labkit.client.answers import Deadlines, Patience, TurnSoFar
from labkit.client.dial import Backoff
from labkit.client.plain import VoiceClient
from labkit.client.speech import Clock
from labkit.client.v1 import SessionClient
from labkit.errors import ClientError, ErrorCode
from labkit.protocol import plain, v1
from labkit.protocol.replay import Position
from tests.client.peers import LOOP_CLOCK, Handler, deaf, saying, silent, tcp, websocket
from tests.client.test_v1 import STARTED

SAID = np.full(1600, 0.1, np.float32)
AUDIO = encode_s16le(SAID)
SHORT = Deadlines(answer_s=0.5)
SOON = dict[str, Any](deadlines=SHORT, clock=LOOP_CLOCK)
OPTIONS = dict[str, Any](backoff=Backoff(first_s=0.01), **SOON)

pytestmark = pytest.mark.usefixtures("virtual_time")


@contextmanager
def gives_up(*words: str) -> Iterator[None]:
    """The block ends with an error that says all of `words`."""
    with pytest.raises(ClientError) as told:
        yield
    for part in words:
        assert part in str(told.value), str(told.value)


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan])
def test_a_deadline_that_leaves_no_time_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="answer_s must be above 0"):
        Deadlines(answer_s=seconds)


def test_what_was_sent_and_what_came_is_told() -> None:
    so_far = TurnSoFar(said_s=3.21, asked="end_stream")
    assert str(so_far.missing("no transcript came", 60)) == (
        "sent 3.2 s of audio and 'end_stream'; no transcript came within 60 s; nothing else came"
    )
    so_far.hear("transcript", "hi")
    for _ in range(2):
        so_far.refuse("odd_length", "odd", 1)
    so_far.reply_s = 1.5
    assert so_far.received() == (
        "what came: transcript 'hi', 2 × error 'odd_length', 1.5 s of reply; the server said: odd"
    )
    assert TurnSoFar().sent() == "sent nothing"


def test_each_step_of_an_answer_has_the_whole_deadline_once() -> None:
    patience = Patience(10, now_s=0)
    for now_s, due_s in ((9, 19), (12, 19)):
        patience.step("transcript", now_s)
        assert patience.due_s == due_s
    patience.hear(1, now_s=18)
    assert patience.due_s == 28
    patience.begin(20)
    patience.step("transcript", 25)
    assert patience.due_s == 35


@pytest.mark.parametrize(
    ("piece_s", "each_s", "until_s"),
    [
        (1.0, 0.9, math.inf),  # as fast as it plays
        (1.0, 2.0, 19.0),  # a server of half the pace may be late by ten seconds
        (0.0, 0.5, 10.0),  # one that drips, too
        (12.0, 9.9, math.inf),  # long sentences with long waits between them
    ],
)
def test_audio_may_be_late_by_one_deadline_altogether(
    piece_s: float, each_s: float, until_s: float
) -> None:
    patience, now_s = Patience(10, now_s=0), 0.0
    while now_s <= min(patience.due_s, 1000):
        patience.hear(piece_s, now_s)
        now_s += each_s
    assert (now_s > 1000) if until_s == math.inf else patience.due_s == pytest.approx(until_s, 0.1)


def test_a_reply_that_drips_is_told_from_one_that_stopped() -> None:
    so_far = TurnSoFar(said_s=1, asked="end_stream", heard="hi", reply_s=2)
    patience = Patience(10, now_s=0)
    patience.hear(2, now_s=1)
    assert "no more of the reply came within 10 s" in str(so_far.missing_answer(patience))
    for now_s in range(1, 11):
        patience.hear(0.01, now_s)
    assert str(so_far.missing_answer(patience)) == (
        "sent 1.0 s of audio and 'end_stream'; the reply came slower than it plays, by more than "
        "10 s; what came: 2.0 s of reply"
    )


def done(seq: int) -> str:
    return v1.ResponseDone(seq=seq, turn=1, status=v1.ResponseStatus.COMPLETED).encode()


def ack(messages: int, samples: int) -> str:
    return v1.AudioAck(received=Position(messages=messages, samples=samples)).encode()


TRANSCRIPT = plain.Transcript(text="hi").encode()


def chattering(chatter: str | bytes, *, after: str, first: str | None = None) -> Handler:
    """Says `first` at once, and `chatter` again and again from `after` on."""

    async def handle(socket: ServerConnection) -> None:
        async for message in socket:
            if first is not None and "session.start" in str(message):
                await socket.send(first)
            if message == after:
                break
        while True:
            await socket.send(chatter)
            await asyncio.sleep(0.05)

    return handle


@pytest.mark.parametrize(
    ("stream", "pieces", "reply_s"), [(True, (AUDIO, AUDIO), 0.2), (False, (bytes(960_000),), 30.0)]
)
async def test_a_plain_server_that_falls_silent_in_a_reply(
    stream: bool, pieces: tuple[bytes, ...], reply_s: float
) -> None:
    async with (
        websocket(saying(TRANSCRIPT, *pieces, after="end_stream")) as url,
        VoiceClient.connect(url, stream=stream, **SOON) as client,
    ):
        words = f"what came: transcript 'hi', {reply_s} s of reply"
        with gives_up(f"'end_stream'; no more of the reply came within 0.5 s; {words}"):
            await client.say(SAID)


async def test_a_plain_server_that_goes_on_is_waited_for() -> None:
    """Each step has the whole deadline: all of them take longer than one may."""

    async def slow(socket: ServerConnection) -> None:
        async for message in socket:
            if message == "end_stream":
                await socket.send(TRANSCRIPT)
                for _ in range(3):
                    await asyncio.sleep(0.5)
                    await socket.send(AUDIO)
                await socket.send(plain.Done(reply_text="", reply_samples=0).encode())

    patient = dict[str, Any](deadlines=Deadlines(answer_s=1.2), clock=LOOP_CLOCK)
    async with websocket(slow) as url, VoiceClient.connect(url, **patient) as client:
        assert len((await client.say(SAID)).reply) == 3 * len(SAID)


@pytest.mark.parametrize(
    "chatter",
    [
        b"",
        '{"type": "weather"}',
        TRANSCRIPT,
        plain.Error(code=ErrorCode.INTERNAL, message="oh").encode(),
    ],
)
async def test_chatter_of_a_plain_server_is_no_progress(chatter: str | bytes) -> None:
    async with (
        websocket(chattering(chatter, after="end_stream")) as url,
        VoiceClient.connect(url, **SOON) as client,
    ):
        with gives_up("came within 0.5 s"):
            await client.say(SAID)


@pytest.mark.parametrize("chatter", [ack(1, 1600), '{"type": "weather"}', b""])
async def test_chatter_in_a_session_is_no_progress(chatter: str | bytes) -> None:
    async with (
        websocket(chattering(chatter, after=v1.AudioEnd().encode(), first=STARTED)) as url,
        SessionClient.connect(url, **OPTIONS) as client,
    ):
        with gives_up("within 0.5 s"):
            await client.say(SAID, pace=0)


@pytest.mark.parametrize("pongs", [True, False])
async def test_a_plain_server_that_drips_is_given_up(pongs: bool) -> None:
    async def drips(socket: ServerConnection) -> None:
        async for message in socket:
            if message == "end_stream":
                await socket.send(TRANSCRIPT)
                await socket.send(bytes(2))
                if pongs:
                    await socket.send("pong")
                while True:
                    await socket.send(bytes(2))
                    await asyncio.sleep(0.1)

    async with (
        asyncio.timeout(20),
        websocket(drips) as url,
        VoiceClient.connect(url, **SOON) as client,
    ):
        with gives_up("the reply came slower than it plays, by more than 0.5 s; what came: "):
            await client.say(SAID)


def numbered(kind: str, seq: int) -> str:
    more = {"confirmed": "", "behind_s": 0.0} if kind == "transcript.partial" else {}
    return json.dumps({"type": kind, "seq": seq, "turn": 1, "text": "so", **more})


@pytest.mark.parametrize(
    ("drip", "words"),
    [
        (lambda seq: bytes(2), "the reply came slower than it plays, by more than 0.5 s"),
        (lambda seq: numbered("response.text", seq), "no transcript came within 0.5 s"),
        (lambda seq: numbered("transcript.partial", seq), "no transcript came within 0.5 s"),
        (lambda seq: numbered("transcript.final", seq), "no reply came within 0.5 s"),
    ],
    ids=["audio", "sentences", "partials", "transcripts"],
)
async def test_a_session_that_drips_is_given_up(
    drip: Callable[[int], str | bytes], words: str
) -> None:
    async def drips(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(STARTED)
        async for message in socket:
            if isinstance(message, str) and "audio.end" in message:
                break
        for seq in count(1):
            await socket.send(drip(seq))
            await asyncio.sleep(0.1)

    async with (
        asyncio.timeout(20),
        websocket(drips) as url,
        SessionClient.connect(url, **OPTIONS) as client,
    ):
        with gives_up(words, "what came: "):
            await client.say(SAID, pace=0)


async def test_a_session_that_takes_speech_far_too_slowly_is_given_up() -> None:
    async def drips(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(STARTED)
        for acknowledged in count(1):
            await asyncio.sleep(0.1)
            await socket.send(ack(0, acknowledged * 16))

    async with (
        asyncio.timeout(20),
        websocket(drips, max_queue=None) as url,
        SessionClient.connect(url, **OPTIONS) as client,
    ):
        with gives_up("sent 0.5 s of audio", "came within 0.5 s"):
            await client.say(np.tile(SAID, 5), chunk_ms=1, pace=0)


async def test_a_plain_server_that_answers_no_ping() -> None:
    async with websocket(silent) as url, VoiceClient.connect(url, **SOON) as client:
        with gives_up("sent 'ping'; no pong came within 0.5 s"):
            await client.ping()


async def test_a_plain_server_that_stops_reading() -> None:
    at_once = Clock(sleep=lambda _: asyncio.sleep(0))
    minute = np.zeros(16_000 * 60, np.float32)
    async with (
        websocket(deaf) as url,
        VoiceClient.connect(url, deadlines=SHORT, clock=at_once) as client,
    ):
        with gives_up("the server read no more within 0.5 s"):
            await client.say(np.tile(minute, 10), chunk_ms=10_000)


async def test_a_server_that_takes_the_connection_and_no_handshake() -> None:
    hasty = Deadlines(connect_s=0.2)
    async with tcp(silent=True) as url:
        with gives_up("did not answer the handshake within 0.2 s"):
            async with VoiceClient.connect(url, deadlines=hasty):
                pass
        with gives_up("did not answer the handshake within 0.2 s"):
            async with SessionClient.connect(url, deadlines=hasty):
                pass


@pytest.mark.parametrize("handle", [silent, deaf])
async def test_a_session_that_is_never_started(handle: Handler) -> None:
    options = dict[str, Any](deadlines=Deadlines(start_s=0.2), clock=LOOP_CLOCK)
    async with websocket(handle) as url:
        with gives_up("did not answer 'session.start' within 0.2 s"):
            async with SessionClient.connect(url, **options):
                pass


async def test_a_server_that_agreed_to_no_subprotocol_is_said_to_speak_another_dialect() -> None:
    async with websocket(silent, select_subprotocol=None) as url:
        with gives_up("within 2 s; it agreed to no subprotocol, so it does not speak labkit.v1"):
            async with SessionClient.connect(url, clock=LOOP_CLOCK):
                pass


async def test_giving_up_bounds_a_server_that_accepts_and_says_nothing() -> None:
    options = dict[str, Any](backoff=Backoff(give_up_s=0.2), clock=LOOP_CLOCK)
    async with websocket(silent) as url:
        with gives_up("did not answer 'session.start' within "):
            async with SessionClient.connect(url, **options):
                pass


HEARD = v1.TranscriptFinal(seq=1, turn=1, text="hi").encode()


def answering(*messages: str | bytes) -> Handler:
    """Starts a session, acknowledges 0.1 s and `audio.end`, says `messages`, and no more."""

    async def handle(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(STARTED)
        async for message in socket:
            if isinstance(message, str) and "audio.end" in message:
                for answer in messages:
                    await socket.send(answer)

    return handle


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ((), "nothing else came"),
        ((ack(1, 1600),), "no transcript came within 0.5 s; nothing else came"),
        ((ack(1, 1600), HEARD), "no reply came within 0.5 s; what came: transcript.final"),
        ((ack(1, 1600), HEARD, AUDIO), "no more of the reply came within 0.5 s; what came: "),
    ],
)
async def test_a_session_that_falls_silent(messages: tuple[str | bytes, ...], words: str) -> None:
    async with (
        websocket(answering(*messages)) as url,
        SessionClient.connect(url, **OPTIONS) as client,
    ):
        with gives_up("sent 0.1 s of audio and 'audio.end'", words):
            await client.say(SAID, pace=0)
        with gives_up("sent 0.1 s of audio and 'audio.end'", words):
            await client.send_audio(AUDIO)


async def test_a_session_in_which_nothing_is_acknowledged() -> None:
    async with (
        websocket(answering()) as url,
        SessionClient.connect(url, **OPTIONS) as client,
    ):
        await client.send_audio(AUDIO)
        with gives_up("sent 0.1 s of audio; nothing of it was acknowledged within 0.5 s"):
            await client.next_event()


async def test_a_speaker_that_waits_for_room_is_told_that_the_session_is_over() -> None:
    async with (
        websocket(answering()) as url,
        SessionClient.connect(url, ring_s=1.0, **OPTIONS) as client,
    ):
        with gives_up("nothing of it was acknowledged within 0.5 s"):
            while True:
                await client.send_audio(bytes(16_000))


async def test_a_session_whose_server_stops_reading() -> None:
    async def handle(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(STARTED)
        socket.transport.pause_reading()
        while True:  # signs of life, which do not help
            await socket.send(v1.Pong(id="unasked").encode())
            await asyncio.sleep(0.05)

    async with (
        websocket(handle) as url,
        SessionClient.connect(url, ring_s=600.0, **OPTIONS) as client,
    ):
        with gives_up("within 0.5 s"):
            while True:
                await client.send_audio(bytes(1_000_000))


async def test_a_session_in_which_nothing_is_owed_may_be_silent() -> None:
    async with (
        websocket(answering(ack(1, 1600), HEARD, done(2))) as url,
        SessionClient.connect(url, **OPTIONS) as client,
    ):
        assert (await client.say(SAID, pace=0)).transcript == "hi"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.next_event(), 1.0)


async def test_a_server_that_begins_every_session_and_hangs_up_is_given_up() -> None:
    again = v1.SessionStarted.model_validate_json(STARTED).model_copy(update={"resumed": True})

    async def handle(socket: ServerConnection) -> None:
        start = v1.SessionStart.model_validate_json(await socket.recv())
        await socket.send(again.encode() if start.resume else STARTED)
        socket.transport.abort()

    options = dict[str, Any](backoff=Backoff(first_s=0.01, give_up_s=1.0), clock=LOOP_CLOCK)
    async with websocket(handle) as url, SessionClient.connect(url, **options) as client:
        with gives_up("no session with ws://"):
            while True:
                await client.next_event()


def test_what_came_is_told_in_a_line_that_can_be_printed() -> None:
    so_far = TurnSoFar()
    so_far.meet("\x1b[31m" + "x" * 900_000)
    so_far.refuse("\ud800", "m\n" * 900_000, 1)
    line = so_far.received()
    assert line.isprintable()
    assert len(line) < 1000
