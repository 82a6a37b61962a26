"""Servers of others: what they do otherwise is taken, named, or told with all that came."""

import asyncio
import json
import re
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection

from labkit.audio.pcm import encode_s16le, read_audio
from labkit.client.answers import Deadlines
from labkit.client.plain import VoiceClient
from labkit.client.turn import ClientTurn
from labkit.errors import ClientError, ProtocolError
from labkit.trace import Mark, Stage
from tests.client.conftest import VirtualTime
from tests.client.peers import LOOP_CLOCK, Handler, websocket
from tests.paths import ROOT

SAID = np.full(1600, 0.1, np.float32)
SPEECH = read_audio(ROOT / "data" / "speech" / "ked-01.flac")
AUDIO = encode_s16le(SPEECH)
HEARD = json.dumps({"type": "transcript", "text": "hi"})
DONE = json.dumps({"type": "done"})
SOON = dict[str, Any](deadlines=Deadlines(answer_s=0.5), clock=LOOP_CLOCK)

pytestmark = pytest.mark.usefixtures("virtual_time")


def in_turn(*answers: str | bytes, pongs: bool = True) -> Handler:
    """A server of a few lines: one message after the other, `answers` to each `end_stream`."""

    async def handle(socket: ServerConnection) -> None:
        async for message in socket:
            if message == "ping" and pongs:
                await socket.send("pong")
            elif message == "end_stream":
                for answer in answers:
                    await socket.send(answer)

    return handle


async def said_to(handle: Handler, *, stream: bool = True, turns: int = 1) -> ClientTurn:
    """The last of some turns with a server."""
    async with (
        websocket(handle) as url,
        VoiceClient.connect(url, stream=stream, **SOON) as client,
    ):
        for _ in range(turns):
            turn = await client.say(SAID)
    return turn


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("rest", [(), (DONE,)])
async def test_streaming_is_an_offer_that_nobody_has_to_make(
    rest: tuple[str, ...], stream: bool
) -> None:
    turn = await said_to(in_turn(HEARD, AUDIO, *rest), stream=stream, turns=3)
    assert turn.transcript == "hi"
    assert np.allclose(turn.reply, SPEECH, atol=1 / 32768)
    assert turn.trace.ttfa_ms() is not None


async def test_that_a_server_does_not_stream_is_told_once_and_known_from_then_on() -> None:
    """Without its pong behind the reply, this would wait for `done` until the deadline."""
    async with (
        websocket(in_turn(HEARD, AUDIO)) as url,
        VoiceClient.connect(url, deadlines=Deadlines(answer_s=100)) as client,
    ):
        first = await client.say(SAID)
        assert not client.stream
        second = await client.say(SAID)
    assert first.remarks == [
        "the server sent no 'done' behind the reply: it does not offer ?reply=stream"
    ]
    assert second.remarks == []


async def test_a_client_that_stood_still_does_not_take_its_own_silence_for_the_server_s(
    virtual_time: VirtualTime,
) -> None:
    async def handle(socket: ServerConnection) -> None:
        async for message in socket:
            if message == "end_stream":
                await socket.send(HEARD)
                await socket.send(AUDIO)
            elif message == "ping":
                await socket.send("pong")
                await asyncio.sleep(0.05)
                virtual_time.now_s += 1.2  # both ends share the loop that stands still
                await socket.send(DONE)

    async with (
        websocket(handle) as url,
        VoiceClient.connect(url, deadlines=Deadlines(answer_s=10)) as client,
    ):
        assert (await client.say(SAID)).remarks == []


@pytest.mark.parametrize("pieces", [1, 2])
async def test_a_server_without_pong_and_done_is_waited_for(pieces: int) -> None:
    """One message may be a whole reply; two are one that broke off."""
    handle = in_turn(HEARD, *[AUDIO] * pieces, pongs=False)
    if pieces == 1:
        assert (await said_to(handle)).remarks
    else:
        with pytest.raises(ClientError, match="no more of the reply came within 0.5 s"):
            await said_to(handle)


async def test_pieces_without_done_end_with_the_pong_behind_them() -> None:
    turn = await said_to(in_turn(HEARD, AUDIO[:2000], AUDIO[2000:]), turns=2)
    assert len(turn.reply) == len(SPEECH)
    assert turn.remarks == [
        "the server sent no 'done' behind the reply: the reply came in pieces, though"
    ]


async def test_a_server_that_leaves_after_its_reply() -> None:
    async def handle(socket: ServerConnection) -> None:
        async for message in socket:
            if message == "end_stream":
                await socket.send(HEARD)
                await socket.send(AUDIO)
                return

    (remark,) = (await said_to(handle)).remarks
    assert "no 'done' came" in remark
    assert "the server closed the connection: code 1000" in remark


async def test_what_a_server_does_not_tell_is_a_part_of_the_wait() -> None:
    turn = await said_to(in_turn(HEARD, AUDIO))
    stages = turn.trace.stages_ms()
    assert list(stages) == [Stage.PACKETISATION, Stage.UNTOLD, Stage.LEADING_SILENCE]
    assert sum(stages.values()) == pytest.approx(turn.trace.ttfa_ms())
    assert turn.listening_cpu_ms is None


@pytest.mark.parametrize(
    "marks",
    [
        {"end_stream_received": 1.5e9, "asr_done": 9e18},  # no clock of one turn
        {"asr_done": 12.5},  # a clock of its own, and nothing that says which
        {"end_stream_sent": 5, "transcript_received": 7, "mood": -1},  # not the server's to set
    ],
)
async def test_marks_that_make_no_sense_are_left_out(marks: dict[str, float]) -> None:
    done = json.dumps({"type": "done", "marks": marks, "mood": "good"})
    turn = await said_to(in_turn(HEARD, AUDIO, done))
    assert Mark.ASR_DONE not in turn.trace.marks
    assert turn.trace.marks[Mark.STREAM_STARTED] < turn.trace.marks[Mark.TRANSCRIPT_RECEIVED]
    assert bool(turn.remarks) == ("asr_done" in marks)


async def test_a_clock_of_its_own_without_a_pong() -> None:
    """The round trip is not known then, and taken for nothing; the turn is not lost for it."""

    async def handle(socket: ServerConnection) -> None:
        async for message in socket:
            if message == "end_stream":
                now = LOOP_CLOCK.now_ns() + 10**15
                marks = {"end_stream_received": now, "asr_done": now}
                for answer in (HEARD, AUDIO, json.dumps({"type": "done", "marks": marks})):
                    await socket.send(answer)

    turn = await said_to(handle)
    assert turn.trace.stages_ms()[Stage.UPLINK] == 0


async def test_what_comes_unasked_is_named_and_left_out() -> None:
    async def handle(socket: ServerConnection) -> None:
        for unasked in ("Welcome!", HEARD, AUDIO, '{"type": "error", "message": "rate limit"}'):
            await socket.send(unasked)
        await in_turn(HEARD, AUDIO[:4000], DONE)(socket)

    async with websocket(handle) as url, VoiceClient.connect(url, **SOON) as client:
        await client.ping()  # its greeting has come when its pong has
        turn = await client.say(SAID)
    assert len(turn.reply) == 2000
    assert [error.message for error in turn.errors] == ["rate limit"]
    assert turn.remarks == [
        "the text 'Welcome!' came before 'end_stream' was sent, and was left out",
        "'transcript' came before 'end_stream' was sent, and was left out",
        "audio came before 'end_stream' was sent, and was left out",
    ]


async def test_a_server_that_sends_back_what_it_gets_is_told_so() -> None:
    async def echo(socket: ServerConnection) -> None:
        async for message in socket:
            await socket.send(message)

    async with websocket(echo) as url, VoiceClient.connect(url, **SOON) as client:
        with pytest.raises(ProtocolError) as told:
            await client.say(np.zeros(16_000, np.float32))
    assert "the text message 'end_stream' is no JSON object" in str(told.value)
    assert "sent 1.0 s of audio and 'end_stream'" in str(told.value)
    assert re.search(r"what came: \d+ × audio before 'end_stream'", str(told.value))


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ((HEARD,), "no reply came within 0.5 s; what came: transcript 'hi'"),
        ((AUDIO[:32_000],), "no transcript came within 0.5 s; what came: 1.0 s of reply"),
        (('{"type": "error", "message": "tired"}',), "what came: error ''; the server said: tired"),
        (('{"type": "mood"}',), "no transcript came within 0.5 s; what came: mood"),
        ((), "no transcript came within 0.5 s; nothing else came"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_what_did_not_come_is_told_within_the_deadline(
    answers: tuple[str | bytes, ...], words: str, stream: bool
) -> None:
    with pytest.raises(ClientError) as told:
        await said_to(in_turn(*answers), stream=stream)
    assert words in str(told.value), str(told.value)


@pytest.mark.parametrize(
    ("endless", "words"),
    [('{"type": "mood"}', "no transcript came within 0.5 s"), (AUDIO * 10, "does not end")],
)
async def test_a_server_that_never_stops_is_given_up(
    endless: str | bytes, words: str, virtual_time: VirtualTime
) -> None:
    async def handle(socket: ServerConnection) -> None:
        async for message in socket:
            if message == "end_stream":
                while True:
                    await socket.send(endless)
                    virtual_time.now_s += 0.001
                    await asyncio.sleep(0)  # in another process, it could not hold up the client

    with pytest.raises(ClientError, match=words):
        async with asyncio.timeout(20):
            await said_to(handle)


async def test_what_a_server_said_before_it_left_is_told() -> None:
    async def handle(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send('{"type": "error", "code": "full", "message": "come back tomorrow"}')
        await socket.close(1013)

    async with websocket(handle) as url, VoiceClient.connect(url, **SOON) as client:
        with pytest.raises(ClientError, match="code 1013.*the server said: come back tomorrow"):
            await client.say(np.zeros(16_000, np.float32), chunk_ms=20)


@pytest.mark.parametrize("code", [1000, 1008, 1011])
async def test_a_server_that_closes_tells_why_and_what_had_come(code: int) -> None:
    async def handle(socket: ServerConnection) -> None:
        async for message in socket:
            if message == "end_stream":
                await socket.send(HEARD)
                await socket.close(code, "no more")

    with pytest.raises(ClientError) as told:
        await said_to(handle)
    assert f"code {code}, no more; sent 0.1 s" in str(told.value)
    assert "what came: transcript 'hi'" in str(told.value)


@pytest.mark.parametrize("chunk_ms", [10, 100, 500])
async def test_the_last_chunk_is_full_and_counted_from_the_end_of_speech(chunk_ms: int) -> None:
    """A file that is over 1 ms after the last word does not make chunks of 500 ms quick."""
    async with (
        websocket(in_turn(HEARD, AUDIO, DONE)) as url,
        VoiceClient.connect(url, **SOON) as client,
    ):
        turn = await client.say(SAID, chunk_ms=chunk_ms, end_of_speech=1583)
    chunk = chunk_ms * 16
    assert turn.bytes_sent == 2 * chunk * -(-1584 // chunk)
    waited = turn.trace.stages_ms()[Stage.PACKETISATION]
    assert waited >= (turn.bytes_sent / 2 - 1584) / 16
