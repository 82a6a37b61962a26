"""The server over real sockets, with engines that follow a script."""

import asyncio
import errno
import json
import socket as sockets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from labkit.audio.pcm import encode_s16le
from labkit.errors import CloseCode, ServerError
from labkit.protocol.schema import schema_text
from labkit.server.app import VoiceServer, _TellOnce
from labkit.session.settings import ServerSettings
from labkit.voice.history import Exchange
from labkit.voice.pipeline import EchoPipeline, VoicePipeline
from labkit.voice.scripted import ScriptedAsr, ScriptedLlm, scripted_engines
from labkit.voice.turn import Pipeline, Sink, Turn
from tests.support import until

CHUNK = encode_s16le(np.full(640, 0.25, np.float32))


@asynccontextmanager
async def serving(pipeline: Pipeline | None = None, **settings: Any) -> AsyncIterator[VoiceServer]:
    chosen = ServerSettings(host="127.0.0.1", port=0, **settings)
    async with VoiceServer(pipeline or EchoPipeline(), chosen) as server:
        yield server


async def error_of(socket: ClientConnection) -> dict[str, Any]:
    message = json.loads(await socket.recv())
    assert message["type"] == "error"
    assert message["message"]
    assert message["hint"]
    return dict(message)


async def test_the_plain_dialect_as_the_chapter_describes_it() -> None:
    async with serving() as server, connect(server.url) as socket:
        for _ in range(5):
            await socket.send(CHUNK)
        await socket.send("end_stream")
        assert json.loads(await socket.recv()) == {
            "type": "transcript",
            "text": "0.20 seconds of audio",
        }
        assert await socket.recv() == CHUNK * 5


async def test_a_whole_reply_that_waits_for_its_end_is_held_for_all_to_see() -> None:
    class Halting(EchoPipeline):
        async def answer(self, turn: Turn, sink: Sink) -> Exchange:
            await sink.transcript("hello")
            await sink.audio(np.zeros(16_000, np.float32))
            await asyncio.Event().wait()
            raise AssertionError("nobody sets it")

    async with serving(Halting(), grace_s=0.0) as server, connect(server.url) as socket:
        await socket.send("end_stream")
        await until(lambda: server.held_bytes() >= 32_000)


async def test_a_streamed_reply_ends_with_done() -> None:
    async with serving() as server, connect(f"{server.url}/?reply=stream") as socket:
        for _ in range(20):
            await socket.send(CHUNK)
        await socket.send("end_stream")
        await socket.recv()
        audio = b""
        while isinstance(message := await socket.recv(), bytes):
            audio += message
        done = json.loads(message)
        assert audio == CHUNK * 20
        assert done["type"] == "done"
        assert done["reply_samples"] == 20 * 640
        assert done["reply_text"] == "0.80 seconds of audio"
        marks = [done["marks"][name] for name in ("end_stream_received", "asr_done", "tts_done")]
        assert marks == sorted(marks)


@pytest.mark.parametrize("deflate", [False, True])
async def test_messages_are_compressed_where_both_want_it(deflate: bool) -> None:
    offering = {"compression": "deflate"}
    async with serving(deflate=deflate) as server, connect(server.url, **offering) as socket:
        await socket.send(CHUNK)
        await socket.send("end_stream")
        await socket.recv()
        assert await socket.recv() == CHUNK
        assert bool(socket.protocol.extensions) is deflate
    async with serving(deflate=deflate) as server, connect(server.url, compression=None) as socket:
        await socket.send("ping")
        assert await socket.recv() == "pong"
        assert not socket.protocol.extensions


async def test_silence_is_answered_with_nothing() -> None:
    async with serving(VoicePipeline(scripted_engines())) as server, connect(server.url) as socket:
        await socket.send(bytes(32_000))
        await socket.send("end_stream")
        assert json.loads(await socket.recv())["text"] == ""
        assert await socket.recv() == b""


async def test_ping_is_answered_while_a_turn_runs() -> None:
    asr = ScriptedAsr()
    asr.gate.clear()
    async with (
        serving(VoicePipeline(scripted_engines(asr))) as server,
        connect(server.url) as socket,
    ):
        await socket.send(CHUNK * 10)
        await socket.send("end_stream")
        for _ in range(3):
            await socket.send("ping")
            assert await socket.recv() == "pong"
        asr.gate.set()
        assert json.loads(await socket.recv())["type"] == "transcript"
        assert await socket.recv()


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"\x00\x01\x02", "odd_length"),
        (bytes(300_000), "message_too_large"),
        ("x" * 300_000, "message_too_large"),
        ("hello", "unknown_command"),
        ('{"type": "config"}', "unknown_command"),
    ],
)
async def test_a_bad_message_is_refused_and_the_session_goes_on(
    message: str | bytes, code: str
) -> None:
    async with serving() as server, connect(server.url) as socket:
        await socket.send(CHUNK)
        await socket.send(message)
        assert (await error_of(socket))["code"] == code
        await socket.send("end_stream")
        assert json.loads(await socket.recv())["text"] == "0.04 seconds of audio"


async def test_a_flood_of_commands_closes_the_connection() -> None:
    async with serving(message_burst=10) as server, connect(server.url) as socket:
        with suppress(ConnectionClosed):
            for _ in range(100):
                await socket.send("ping")
        await socket.wait_closed()
        assert socket.close_code == CloseCode.POLICY
        assert socket.close_reason == "more than 50 text messages a second"


async def test_the_buffer_is_bounded() -> None:
    async with serving(max_utterance_s=1.0) as server, connect(server.url) as socket:
        for _ in range(30):
            await socket.send(CHUNK)
        await socket.send("end_stream")
        told = [await error_of(socket) for _ in range(2)]
        assert [(error["code"], error.get("count", 1)) for error in told] == [
            ("buffer_full", 1),
            ("buffer_full", 4),
        ]
        assert json.loads(await socket.recv())["text"] == "1.00 seconds of audio"


async def test_callers_never_mix() -> None:
    asr = ScriptedAsr(lambda audio: f"level {float(np.abs(audio).max()):.2f}")
    llm = ScriptedLlm(lambda messages: " / ".join(m.content for m in messages if m.role == "user"))

    async def call(url: str, level: float) -> list[str]:
        heard = []
        async with connect(f"{url}/?reply=stream") as socket:
            for _ in range(3):
                await socket.send(encode_s16le(np.full(4096, level, np.float32)))
                await asyncio.sleep(0)
                await socket.send("end_stream")
                async for message in socket:
                    if isinstance(message, str) and (found := json.loads(message)):
                        heard.append(found.get("text", found.get("reply_text")))
                        if found["type"] == "done":
                            break
        return heard

    levels = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    async with serving(VoicePipeline(scripted_engines(asr, llm))) as server:
        answers = await asyncio.gather(*(call(server.url, level) for level in levels))
    for level, heard in zip(levels, answers, strict=True):
        said = f"level {level:.2f}"
        assert heard == [said, said, said, f"{said} / {said}", said, f"{said} / {said} / {said}"]


async def test_a_flood_of_turns_is_refused_politely() -> None:
    asr = ScriptedAsr()
    asr.gate.clear()
    async with (
        serving(VoicePipeline(scripted_engines(asr)), max_waiting_turns=2) as server,
        connect(server.url) as socket,
    ):
        for _ in range(4):
            await socket.send(CHUNK * 10)
            await socket.send("end_stream")
        assert (await error_of(socket))["code"] == "too_many_turns"
        asr.gate.set()


async def test_too_many_callers_are_told_to_come_back() -> None:
    async with serving(max_sessions=1) as server:
        async with connect(server.url):
            with pytest.raises(InvalidStatus) as refused:
                await connect(server.url)
            response = refused.value.response
            assert response.status_code == 503
            assert response.headers["Retry-After"] == "5"
            assert response.body == b"all 1 places are taken; try again later\n"
        await until(lambda: not server.sessions)
        async with connect(server.url) as third:
            await third.send("ping")
            assert await third.recv() == "pong"


async def test_nobody_is_let_in_while_callers_wait_for_too_long() -> None:
    asr = ScriptedAsr()
    asr.gate.clear()
    pipeline = VoicePipeline(scripted_engines(asr))
    async with serving(pipeline, max_wait_s=0) as server, connect(server.url) as socket:
        await socket.send(CHUNK * 10)
        await socket.send("end_stream")
        await until(lambda: server.behind_s() > 0)
        with pytest.raises(InvalidStatus) as refused:
            await connect(server.url)
        response = refused.value.response
        assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
        assert b"callers wait for more than 0 s" in (response.body or b"")
        asr.gate.set()
        assert json.loads(await socket.recv())["type"] == "transcript"
        assert await socket.recv()
        async with connect(server.url) as second:
            await second.send("ping")
            assert await second.recv() == "pong"


async def test_an_engine_that_fails_is_reported_and_the_turn_still_ends() -> None:
    def fail(_: object) -> str:
        raise RuntimeError("out of memory")

    pipeline = VoicePipeline(scripted_engines(ScriptedAsr(fail)))
    async with serving(pipeline) as server, connect(server.url) as socket:
        await socket.send(CHUNK * 10)
        await socket.send("end_stream")
        error = await error_of(socket)
        assert error["code"] == "engine_failed"
        assert "speech recognition failed: RuntimeError: out of memory" in error["message"]
        assert await socket.recv() == b""
        await socket.send("ping")
        assert await socket.recv() == "pong"


async def test_closing_lets_a_turn_finish_and_then_says_goodbye() -> None:
    asr = ScriptedAsr()
    asr.gate.clear()
    async with serving(VoicePipeline(scripted_engines(asr)), grace_s=30.0) as server:
        socket = await connect(server.url)
        await socket.send(CHUNK * 10)
        await socket.send("end_stream")
        await socket.send("ping")
        assert await socket.recv() == "pong"
        closing = asyncio.create_task(server.close())
        asr.gate.set()
        assert json.loads(await socket.recv())["type"] == "transcript"
        assert await socket.recv()
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert socket.close_code == CloseCode.GOING_AWAY
        await closing


async def test_closing_does_not_wait_for_ever() -> None:
    asr = ScriptedAsr()
    asr.gate.clear()
    async with serving(VoicePipeline(scripted_engines(asr)), grace_s=0.0) as server:
        socket = await connect(server.url)
        await socket.send(CHUNK * 10)
        await socket.send("end_stream")
        await socket.send("ping")
        assert await socket.recv() == "pong"
        await server.close()
        assert server.sessions == 0
        with pytest.raises(ConnectionClosed):
            await socket.recv()


async def test_closing_does_not_wait_for_the_turns_of_a_client_that_left_meanwhile() -> None:
    asr = ScriptedAsr()
    asr.gate.clear()
    async with serving(VoicePipeline(scripted_engines(asr)), grace_s=30.0) as server:
        socket = await connect(server.url)
        for _ in range(3):
            await socket.send(CHUNK * 10)
            await socket.send("end_stream")
        await socket.send("ping")
        await socket.recv()
        closing = asyncio.create_task(server.close())
        await asyncio.sleep(0)
        socket.transport.abort()
        async with asyncio.timeout(5):
            await closing


async def test_closing_does_not_wait_for_a_caller_that_never_says_hello() -> None:
    server = VoiceServer(EchoPipeline(), ServerSettings(host="127.0.0.1", port=0))
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET / HTTP/1.1\r\n")
    async with connect(server.url) as socket:
        await socket.send("ping")
        await socket.recv()
    async with asyncio.timeout(5):
        await server.close()
    with suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()


async def deafened(server: VoiceServer) -> ClientConnection:
    """A client that never reads, with more replies to read than any buffer on the way holds."""
    socket = await connect(server.url, max_queue=1)
    socket.transport.pause_reading()
    for _ in range(5):
        for _ in range(7):
            await socket.send(bytes(250_000))
        await socket.send("end_stream")
    return socket


async def test_closing_does_not_wait_for_a_client_that_does_not_read() -> None:
    async with serving(grace_s=0.1) as server:
        socket = await deafened(server)
        async with asyncio.timeout(5):
            await server.close()
        assert server.sessions == 0
        socket.transport.abort()


async def test_a_client_that_does_not_read_loses_its_place() -> None:
    async with serving(send_timeout_s=0.1) as server:
        socket = await deafened(server)
        await until(lambda: not server.sessions, seconds=5)
        socket.transport.abort()


async def test_a_client_that_vanishes_leaves_nothing_behind() -> None:
    asr = ScriptedAsr()
    asr.gate.clear()
    async with serving(VoicePipeline(scripted_engines(asr))) as server:
        socket = await connect(server.url)
        await socket.send(CHUNK * 10)
        await socket.send("end_stream")
        await socket.send("ping")
        await socket.recv()
        socket.transport.abort()
        await until(lambda: not server.sessions)


async def _page(server: VoiceServer, path: str) -> tuple[str, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    text = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    head, _, body = text.partition("\r\n\r\n")
    return head.splitlines()[0], body


async def test_health_and_metrics_on_the_same_port() -> None:
    async with serving() as server, connect(server.url) as socket:
        await socket.send(CHUNK)
        await socket.send("end_stream")
        await socket.recv()
        await socket.recv()
        assert "200" in (await _page(server, "/healthz"))[0]
        assert "200" in (await _page(server, "/readyz"))[0]
        status, body = await _page(server, "/metrics")
        assert "200" in status
        assert "labkit_turns_total 1.0" in body
        assert 'labkit_sessions{state="attached"} 1.0' in body
        assert (await _page(server, "/schema.json"))[1] == schema_text()


async def test_a_reaper_that_fails_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks: list[int] = []

    def fail(now_ns: int) -> None:
        looks.append(now_ns)
        raise KeyError("oops")

    async with serving(reap_interval_s=0.001) as server:
        monkeypatch.setattr(server, "reap", fail)
        await until(lambda: len(looks) > 2)
    assert "the reaper failed" in caplog.text


async def test_files_that_ran_out_are_told_once_an_episode(
    caplog: pytest.LogCaptureFixture,
) -> None:
    times_s = iter([0, 1, 2, 61, 120, 181, 182])
    tell, loop = _TellOnce(lambda: next(times_s) * 10**9), asyncio.get_running_loop()
    told = []
    for _ in range(7):
        caplog.clear()
        tell(loop, {"message": "accept failed", "exception": OSError(errno.EMFILE, "no more")})
        told.append("ulimit -n" in caplog.text)
    assert told == [True, False, False, False, False, True, False]  # 61 s lie between 120 and 181
    tell(loop, {"message": "something else", "exception": OSError(errno.EIO, "broken")})
    assert "something else" in caplog.text


async def test_a_port_in_use_is_named() -> None:
    async with serving() as server:
        second = VoiceServer(EchoPipeline(), ServerSettings(host="127.0.0.1", port=server.port))
        with pytest.raises(ServerError, match=rf"127\.0\.0\.1:{server.port}.*--port"):
            await second.start()


async def test_audio_is_not_deflated() -> None:
    async with serving() as server, connect(server.url, compression="deflate") as socket:
        assert not socket.protocol.extensions


async def test_a_crowd_that_connects_at_once_is_taken_in_small_parts() -> None:
    crowd = 60
    async with AsyncExitStack() as stack:
        this = await stack.enter_async_context(serving())
        # The kernel ends these handshakes by itself: the loop has not had a turn since.
        for _ in range(crowd):
            stack.enter_context(sockets.create_connection(("127.0.0.1", this.port)))
        taken = [0]
        async with asyncio.timeout(10):
            while taken[-1] < crowd:
                await asyncio.sleep(0)
                taken.append(len(this._sockets))
        assert max(after - before for before, after in pairwise(taken)) <= 8
