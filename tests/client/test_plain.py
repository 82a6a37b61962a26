"""The client against a server in the same process."""

import asyncio
import math
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection, serve

from labkit.audio.pcm import encode_s16le
from labkit.client.answers import Deadlines
from labkit.client.plain import VoiceClient
from labkit.client.speech import Clock
from labkit.errors import ClientError
from labkit.protocol import plain
from labkit.server.app import VoiceServer
from labkit.session.settings import ServerSettings
from labkit.trace import STAGES, Mark, Stage
from labkit.voice.pipeline import EchoPipeline, VoicePipeline
from labkit.voice.scripted import scripted_engines
from labkit.voice.turn import Pipeline
from tests.client.peers import saying, websocket

PATIENT = Deadlines(answer_s=600)
TONE = (0.3 * np.sin(np.arange(8000) / 5)).astype(np.float32)


@asynccontextmanager
async def calling(
    pipeline: Callable[[], Pipeline] = EchoPipeline, *, stream: bool = True
) -> AsyncIterator[VoiceClient]:
    settings = ServerSettings(host="127.0.0.1", port=0)
    async with (
        VoiceServer(pipeline(), settings) as server,
        VoiceClient.connect(server.url, stream=stream) as client,
    ):
        yield client


@pytest.mark.parametrize("stream", [True, False])
async def test_what_was_said_comes_back(stream: bool) -> None:
    async with calling(stream=stream) as client:
        turn = await client.say(TONE, chunk_ms=20)
    assert turn.transcript == "0.50 seconds of audio"
    assert np.allclose(turn.reply, TONE, atol=1 / 32768)
    assert (turn.messages_sent, turn.bytes_sent) == (25, 16_000)
    assert turn.reply_text == ("0.50 seconds of audio" if stream else "")


async def test_speech_may_begin_when_it_was_due_to() -> None:
    clock = Clock()
    due_ns = clock.now_ns() - 10**9
    async with calling() as client:
        turn = await client.say(TONE, start_ns=due_ns)
    marks = turn.trace.marks
    assert marks[Mark.STREAM_STARTED] == due_ns
    assert marks[Mark.END_OF_SPEECH] == due_ns + 5 * 10**8


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("end", ["", "/", "/?reply=stream", "/?lang=en", "?reply=stream", "/#top"])
async def test_an_address_may_have_a_path_a_query_and_a_fragment(end: str, stream: bool) -> None:
    async with (
        VoiceServer(EchoPipeline(), ServerSettings(host="127.0.0.1", port=0)) as server,
        VoiceClient.connect(server.url.rstrip("/") + end, stream=stream) as client,
    ):
        turn = await client.say(TONE[:800])
    assert len(turn.reply) == 800
    assert bool(turn.reply_text) == (stream or "reply=stream" in end)


async def test_a_long_reply_of_labkit_s_server_is_whole() -> None:
    at_once = Clock(sleep=lambda _: asyncio.sleep(0))
    said = np.tile(TONE, 62)  # 31 s
    async with (
        VoiceServer(EchoPipeline(), ServerSettings(host="127.0.0.1", port=0)) as server,
        VoiceClient.connect(server.url, stream=False, clock=at_once) as client,
    ):
        turn = await client.say(said, chunk_ms=100)
    assert np.allclose(turn.reply, said, atol=1 / 32768)


@pytest.mark.parametrize("rest", [b"", bytes(20)])
async def test_a_long_reply_comes_in_several_messages(rest: bytes) -> None:
    whole = bytes(960_000)
    answers = plain.Transcript(text="hi").encode(), whole, whole, rest
    async with (
        websocket(saying(*answers, after="end_stream")) as url,
        VoiceClient.connect(url, stream=False) as client,
    ):
        turn = await client.say(TONE[:800])
    assert len(turn.reply) * 2 == 1_920_000 + len(rest)


async def test_a_message_of_two_minutes_is_taken_and_a_longer_one_is_told() -> None:
    done = plain.Done(reply_text="", reply_samples=2**21).encode()
    async with (
        websocket(saying(bytes(2**22), done, bytes(2**22 + 1), after="end_stream")) as url,
        VoiceClient.connect(url) as client,
    ):
        assert len((await client.say(TONE[:800])).reply) == 2**21
        with pytest.raises(ClientError, match="sent a message that is too large to take"):
            await client.say(TONE[:800])


async def test_a_newer_server_ends_no_turn() -> None:
    answers = (
        '{"type": "mood", "mood": "good"}',
        '{"type": "error", "code": "brand_new", "message": "m", "hint": "h", "count": 3}',
        '{"type": "transcript", "text": "hi", "words": ["hi"]}',
        '{"type": "done", "reply_text": "Hi.", "reply_samples": 0, "marks": {"new": 5}}',
    )
    async with (
        websocket(saying(*answers, after="end_stream")) as url,
        VoiceClient.connect(url) as client,
    ):
        turn = await client.say(TONE[:800])
    assert (turn.transcript, turn.reply_text) == ("hi", "Hi.")
    assert [str(error.code) for error in turn.errors] == ["brand_new"]
    assert turn.errors[0].model_dump(mode="json")["code"] == "brand_new"
    assert turn.errors[0].count == 3


@pytest.mark.parametrize(("end_of_speech", "chunks"), [(1_599, 1), (1_600, 2), (0, 1)])
async def test_the_end_of_speech_is_an_index(end_of_speech: int, chunks: int) -> None:
    async with calling() as client:
        turn = await client.say(TONE, chunk_ms=100, end_of_speech=end_of_speech)
    assert turn.messages_sent == chunks


async def test_a_client_that_finds_the_end_by_itself_goes_on_in_silence() -> None:
    async with calling() as client:
        turn = await client.say(TONE, chunk_ms=100, end_of_speech=1_599, silence_s=0.25)
    assert turn.messages_sent == 4
    waited = turn.trace.between_ms(Mark.END_OF_SPEECH, Mark.END_STREAM_SENT)
    assert waited is not None
    assert waited >= 250


async def test_a_proxy_in_the_environment_is_not_asked_for_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with calling() as client:
        assert await client.ping() > 0


async def test_chunks_never_go_out_before_they_were_spoken() -> None:
    async with calling() as client:
        turn = await client.say(TONE, chunk_ms=50)
    spoken = turn.trace.between_ms(Mark.STREAM_STARTED, Mark.LAST_CHUNK_SENT)
    assert spoken is not None
    assert spoken >= 500


async def test_leading_silence_of_the_reply_counts_as_waiting() -> None:
    late = np.concatenate([np.zeros(4_000, np.float32), TONE])
    async with calling() as client:
        turn = await client.say(late, chunk_ms=100)
    waited = turn.trace.between_ms(Mark.FIRST_AUDIO_RECEIVED, Mark.FIRST_AUDIO_HEARD)
    assert waited == pytest.approx(250, abs=1)


async def test_silence_has_no_first_audio() -> None:
    async with calling(lambda: VoicePipeline(scripted_engines())) as client:
        turn = await client.say(np.zeros(1600, np.float32))
    assert (turn.transcript, turn.reply_text, len(turn.reply)) == ("", "", 0)
    assert turn.trace.ttfa_ms() is None


@asynccontextmanager
async def abroad(offset_ns: int) -> AsyncIterator[str]:
    """A server on another machine: its clock is `offset_ns` ahead of the client's."""

    async def answer(socket: ServerConnection) -> None:
        async for message in socket:
            if message == "ping":
                await socket.send("pong")
            elif message == "end_stream":
                names = ["end_stream_received", *(ends[1] for ends in list(STAGES.values())[2:-2])]
                marks = {name: time.perf_counter_ns() + offset_ns for name in names}
                await socket.send(plain.Transcript(text="hi").encode())
                await socket.send(encode_s16le(TONE))
                done = plain.Done(reply_text="Hi.", reply_samples=len(TONE), marks=marks)
                await socket.send(done.encode())

    async with serve(answer, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("offset_ns", [10**15, -(10**15), 10**10])
async def test_the_clock_of_another_machine_is_estimated(offset_ns: int) -> None:
    async with abroad(offset_ns) as url, VoiceClient.connect(url) as client:
        turn = await client.say(TONE[:800])
    assert turn.clock_offset_ns is not None
    assert abs(turn.clock_offset_ns - offset_ns) < 10**9
    stages = turn.trace.stages_ms()
    assert list(stages) == list(STAGES)
    assert sum(stages.values()) == pytest.approx(turn.trace.ttfa_ms(), abs=1e-6)
    assert stages[Stage.UPLINK] > 0


async def test_a_shared_clock_is_taken_as_it_is() -> None:
    async with abroad(0) as url, VoiceClient.connect(url) as client:
        turn = await client.say(TONE[:800])
    assert turn.clock_offset_ns is None
    assert list(turn.trace.stages_ms()) == list(STAGES)


async def test_ping_while_a_turn_runs() -> None:
    async with calling() as client:
        turn, rtt = await asyncio.gather(client.say(TONE), client.ping())
    assert turn.transcript
    assert rtt > 0


async def test_several_turns_on_one_connection() -> None:
    async with calling() as client:
        turns = [await client.say(TONE[: 160 * n], chunk_ms=10) for n in (1, 2, 3)]
    assert [len(turn.reply) for turn in turns] == [160, 320, 480]


async def test_the_answer_of_a_turn_that_was_given_up_is_not_taken_for_the_next_one() -> None:
    asked, over = asyncio.Event(), asyncio.Event()

    async def slow(socket: ServerConnection) -> None:
        async for message in socket:
            if message == "end_stream":
                asked.set()
                await over.wait()
                await socket.send(plain.Transcript(text="the first").encode())
                await socket.send(encode_s16le(TONE))

    async with websocket(slow) as url, VoiceClient.connect(url) as client:
        given_up = asyncio.create_task(client.say(TONE, pace=0))
        await asked.wait()
        with pytest.raises(ClientError, match="one turn at a time"):
            await client.say(TONE, pace=0)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        over.set()
        with pytest.raises(ClientError, match="a new connection after one that was given up"):
            await client.say(TONE, pace=0)


@pytest.mark.parametrize("end", [None, 10])
@pytest.mark.parametrize(
    "options",
    [
        {"chunk_ms": 0},
        {"chunk_ms": math.nan},
        {"pace": -1},
        {"pace": math.nan},
        {"pace": 1e-320},
        {"silence_s": math.nan, "end_of_speech": 5},
    ],
)
async def test_what_cannot_be_said_breaks_no_turn_off(
    end: int | None, options: dict[str, Any]
) -> None:
    async with calling() as client:
        with pytest.raises((ValueError, OverflowError)):
            await client.say(TONE, **{"end_of_speech": end, **options})
        turn = await client.say(TONE, pace=0)
    assert turn.transcript
    assert turn.trace.marks[Mark.STREAM_STARTED] > 0
    assert turn.trace.ttfa_ms() is not None


async def test_a_turn_that_is_cancelled_before_a_word_was_said_is_none() -> None:
    waits = asyncio.Event()

    async def wait(_: float) -> None:
        waits.set()
        await asyncio.Event().wait()

    async with (
        VoiceServer(EchoPipeline(), ServerSettings(host="127.0.0.1", port=0)) as server,
        VoiceClient.connect(server.url, clock=Clock(sleep=wait)) as client,
    ):
        early = asyncio.create_task(client.say(TONE))
        await waits.wait()
        early.cancel()
        await asyncio.gather(early, return_exceptions=True)
        assert len((await client.say(TONE, pace=0)).reply) == len(TONE)


async def test_whoever_waits_for_nothing_is_sent_nothing_to_keep() -> None:
    """Ten minutes of speech, a thousand kinds of text, and errors, which nobody asked for."""

    async def talks(socket: ServerConnection) -> None:
        for number in range(1000):
            await socket.send(bytes(19_200))
            await socket.send(f"hello {number}")
            await socket.send('{"type": "error", "message": "no"}')
        async for message in socket:
            if message == "ping":
                await socket.send("pong")

    async with websocket(talks) as url, VoiceClient.connect(url, deadlines=PATIENT) as client:
        tracemalloc.start()
        await client.ping()  # all of it has come when the pong has
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert held < 2_000_000


async def test_a_server_that_goes_away_is_named() -> None:
    async def leave(socket: ServerConnection) -> None:
        await socket.close(1011, "out of coffee")

    async with serve(leave, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with VoiceClient.connect(f"ws://127.0.0.1:{port}") as client:
            with pytest.raises(ClientError, match="code 1011, out of coffee"):
                await client.say(TONE)
            with pytest.raises(ClientError, match="out of coffee"):
                await client.ping()
