"""labkit.v1 over real sockets: what a client of its own may do, and what it is told."""

import asyncio
import json
import threading
import time
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.typing import Subprotocol

from labkit.audio.formats import AudioFormat
from labkit.audio.pcm import Encoding, Float32, encode_s16le
from labkit.errors import Close, CloseCode
from labkit.server.v1 import V1Encoder
from labkit.session.events import Event, ReplyAudio, ReplyEnd, Status, TurnOver
from labkit.session.registry import State
from labkit.session.session import Session
from labkit.voice.pipeline import EchoPipeline, VoicePipeline
from labkit.voice.scheduling import Stop
from labkit.voice.scripted import ScriptedAsr, ScriptedLlm, scripted_engines
from tests.callers import (
    CHUNK,
    SECOND,
    Clock,
    calling,
    claimed,
    closed,
    receive,
    refused,
    send,
    serving,
    start,
    turn,
)
from tests.session.sessions import Inline
from tests.support import until


async def test_a_turn_in_order() -> None:
    async with serving() as server, calling(server) as socket:
        started = await start(socket)
        assert started["received"] == {"messages": 0, "samples": 0}
        assert started["limits"]["max_utterance_s"] == 60
        for _ in range(20):
            await socket.send(CHUNK)
        await send(socket, "audio.end")
        kinds, audio = await turn(socket)
        assert kinds == ["transcript.final", "response.started", "response.text", "response.done"]
        assert audio == CHUNK * 20


async def test_the_first_message_is_always_the_start_of_the_session() -> None:
    async with serving() as server:
        for _ in range(8):  # whether the last audio is acknowledged at once depends on the session
            async with calling(server) as socket:
                wire = socket.protocol
                wire.send_text(b'{"type": "session.start"}')
                wire.send_binary(CHUNK * 25)
                wire.send_text(b'{"type": "audio.end"}')
                socket.transport.write(b"".join(wire.data_to_send()))
                assert json.loads(await socket.recv())["type"] == "session.started"


def test_a_reply_is_whole_where_another_turn_ends_meanwhile() -> None:
    def reply(*between: Event) -> bytes:
        encoder = V1Encoder(AudioFormat(Encoding.PCM_S16LE, 48_000, 1))
        piece = ReplyAudio(1, np.linspace(-0.5, 0.5, 1600, dtype=np.float32))
        told = [
            one for event in (piece, *between, piece, ReplyEnd(1)) for one in encoder.encode(event)
        ]
        return b"".join(one for one in told if isinstance(one, bytes))

    assert reply(TurnOver(2, Status.CANCELLED, "", 0, {}, 0.0, {})) == reply()


@pytest.mark.parametrize("samples", [0, 1600])
def test_a_reply_that_was_stopped_leaves_nothing_in_the_next(samples: int) -> None:
    encoder = V1Encoder(AudioFormat(Encoding.PCM_S16LE, 48_000, 1))
    list(encoder.encode(ReplyAudio(1, np.ones(1600, np.float32))))
    list(encoder.encode(TurnOver(1, Status.CANCELLED, "", 0, {}, 0.0, {})))
    silence = [ReplyAudio(2, np.zeros(samples, np.float32))] if samples else []
    told = [one for event in (*silence, ReplyEnd(2)) for one in encoder.encode(event)]
    assert b"".join(one for one in told if isinstance(one, bytes)) == bytes(2 * 3 * samples)


async def test_nothing_heard_is_said_so() -> None:
    async with (
        serving(VoicePipeline(scripted_engines())) as server,
        calling(server) as socket,
    ):
        await start(socket)
        await socket.send(bytes(32_000))
        await send(socket, "audio.end")
        assert (await receive(socket, "transcript.final"))["text"] == ""
        assert (await receive(socket, "response.done"))["status"] == "nothing_heard"


SPOKEN = encode_s16le(np.full(16_000, 0.25, np.float32))
SILENCE = bytes(32_000)


async def test_the_server_ends_an_utterance_where_it_is_asked_to() -> None:
    pipeline = VoicePipeline(scripted_engines())
    async with serving(pipeline) as server, calling(server) as socket:
        await start(socket, turn_detection="server")
        for _ in range(2):
            await socket.send(SPOKEN + SILENCE)
            assert (await receive(socket, "speech.started"))["at_s"] == pytest.approx(0, abs=0.6)
            stopped = (await receive(socket, "speech.stopped"))["at_s"]
            kinds, audio = await turn(socket)
            assert kinds[0] == "transcript.final"
            assert audio
            assert 1.0 <= stopped < 1.6


async def test_two_utterances_in_one_message_are_two_turns() -> None:
    pipeline = VoicePipeline(scripted_engines())
    async with serving(pipeline) as server, calling(server) as socket:
        await start(socket, turn_detection="server")
        await socket.send(SPOKEN + SILENCE + SPOKEN + SILENCE)
        turns = 0
        while turns < 2:
            message = await socket.recv()
            if isinstance(message, str) and json.loads(message)["type"] == "response.done":
                turns += 1


async def test_an_open_microphone_in_a_silent_room_fills_nothing() -> None:
    pipeline = VoicePipeline(scripted_engines())
    async with serving(pipeline, burst_s=100.0) as server, calling(server) as socket:
        await start(socket, turn_detection="server")
        for _ in range(30):
            await socket.send(bytes(5 * 16_000))
            await send(socket, "ping")
            await receive(socket, "pong")
            await until(lambda: server.held_bytes() < 12 * 64_000)
        await send(socket, "audio.end")
        kinds, _ = await turn(socket)
        assert "error" not in kinds


async def test_an_echo_cannot_tell_where_speech_ends() -> None:
    async with serving() as server, calling(server) as socket:
        await send(socket, "session.start", turn_detection="server")
        await refused(socket, "invalid_field")


async def test_the_last_audio_is_acknowledged_once_no_more_comes() -> None:
    # A client whose microphone was muted would else give the server up, which has all it sent.
    async with serving() as server, calling(server) as socket:
        await start(socket)
        await socket.send(bytes(640))
        await until(lambda: [one.received_samples for one in server._registry._tasks] == [320])
        server.reap(time.perf_counter_ns())
        server.reap(time.perf_counter_ns() + 1_100_000_000)
        ack = await receive(socket, "audio.ack")
        assert ack["received"]["samples"] == 320


async def test_audio_is_acknowledged_while_it_comes() -> None:
    async with serving(acknowledge_s=0.2) as server, calling(server) as socket:
        await start(socket)
        for _ in range(5):
            await socket.send(CHUNK)
        ack = await receive(socket, "audio.ack")
        assert ack["received"]["messages"] == 0
        assert 0 < ack["received"]["samples"] <= 3200


@pytest.mark.parametrize(
    ("encoding", "rate", "channels"),
    [("pcm_s16le", 8000, 1), ("pcm_f32le", 48_000, 2), ("mulaw", 8000, 1), ("alaw", 8000, 1)],
)
async def test_formats_are_negotiated(encoding: str, rate: int, channels: int) -> None:
    spec = {"encoding": encoding, "sample_rate": rate, "channels": channels}
    frame = {"pcm_s16le": 2, "pcm_f32le": 4, "mulaw": 1, "alaw": 1}[encoding] * channels
    async with serving() as server, calling(server) as socket:
        started = await start(socket, input=spec, output=spec)
        assert started["input"] == started["output"] == spec
        for _ in range(10):
            await socket.send(bytes(frame * rate // 50))
        await send(socket, "audio.end")
        _, audio = await turn(socket)
        assert len(audio) == frame * rate // 5


async def test_a_session_is_resumed_where_it_was_cut() -> None:
    async with serving(acknowledge_s=0.1) as server:
        async with calling(server) as first:
            started = await start(first)
            await first.send(CHUNK * 3)
            await first.send(CHUNK * 2)
            await receive(first, "audio.ack")
            first.transport.abort()
        resume = {"session": started["session"], "token": started["token"]}
        async with calling(server) as second:
            again = await start(second, resume=resume)
            assert again["resumed"]
            assert again["session"] == started["session"]
            assert again["token"] != started["token"]
            assert again["received"]["samples"] in (1920, 3200)
            await second.send(CHUNK * 5)
            await send(second, "audio.end")
            _, audio = await turn(second)
            assert len(audio) == 2 * (again["received"]["samples"] + 3200)


async def test_a_second_connection_takes_the_session_over() -> None:
    async with serving() as server, calling(server) as first, calling(server) as second:
        started = await start(first)
        resume = {"session": started["session"], "token": started["token"]}
        assert (await start(second, resume=resume))["resumed"]
        error = await refused(first, "taken_over")
        assert error["fatal"]
        assert await closed(first) == CloseCode.TAKEN_OVER
        await second.send(CHUNK)
        await send(second, "audio.end")
        assert (await turn(second))[1] == CHUNK
        assert server.sessions == 1


async def test_a_turn_goes_on_without_its_client() -> None:
    asr = ScriptedAsr()
    asr.gate.clear()
    async with serving(VoicePipeline(scripted_engines(asr))) as server:
        async with calling(server) as first:
            started = await start(first)
            await first.send(CHUNK * 10)
            await send(first, "audio.end")
            await receive(first, "audio.ack")
        asr.gate.set()
        resume = {"session": started["session"], "token": started["token"]}
        async with calling(server) as second:
            await start(second, resume=resume)
            kinds, audio = await turn(second)
            assert kinds[0] == "transcript.final"
            assert audio


class ListenedTo(ScriptedAsr):
    """Tells when it begins."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.begun = threading.Event()

    def transcribe(self, audio: Float32, stop: Stop, before: str = "") -> str:
        self.begun.set()
        return super().transcribe(audio, stop, before)


async def test_a_turn_without_its_client_is_cancelled_after_a_while() -> None:
    asr, clock = ListenedTo(), Clock()
    asr.gate.clear()
    pipeline = VoicePipeline(scripted_engines(asr))
    async with serving(pipeline, clock, detached_turn_s=5.0) as server:
        async with calling(server) as first:
            started = await start(first)
            await first.send(CHUNK * 10)
            await send(first, "audio.end")
            await receive(first, "audio.ack")
        await until(lambda: server.states()[State.DETACHED] == 1 and asr.begun.is_set())
        clock.now_ns = 5 * SECOND
        server.reap(clock.now_ns)
        resume = {"session": started["session"], "token": started["token"]}
        async with calling(server) as second:
            await start(second, resume=resume)
            assert (await receive(second, "response.done"))["status"] == "cancelled"


async def test_a_response_is_cancelled_and_only_what_was_heard_is_remembered() -> None:
    heard: list[list[str]] = []

    def answer(messages: Any) -> str:
        heard.append([message.content for message in messages])
        return "One sentence. Another one."

    pipeline = VoicePipeline(scripted_engines(llm=ScriptedLlm(answer)))
    async with serving(pipeline) as server, calling(server) as socket:
        await start(socket)
        await socket.send(CHUNK * 10)
        await send(socket, "audio.end")
        await turn(socket)
        await send(socket, "response.cancel", turn=1, heard_samples=100)
        await socket.send(CHUNK * 10)
        await send(socket, "audio.end")
        await turn(socket)
        assert heard[1][1] == "One sentence."


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"\x00\x01\x02", "odd_length"),
        (bytes(300_000), "message_too_large"),
        ("x" * 300_000, "message_too_large"),
        ("é" * 150_000, "message_too_large"),
        ("hello", "invalid_json"),
        ('{"type": "what"}', "unknown_type"),
        ('{"type": "response.cancel"}', "invalid_field"),
        ('{"type": "session.start"}', "already_started"),
        ('{"type": "response.cancel", "turn": 9}', "unknown_response"),
        ('{"type": "response.ack", "received": {"samples": 1}}', "position_invalid"),
    ],
)
async def test_a_bad_message_is_refused_and_the_session_goes_on(
    message: str | bytes, code: str
) -> None:
    async with serving() as server, calling(server) as socket:
        await start(socket)
        await socket.send(CHUNK)
        await socket.send(message)
        error = await refused(socket, code)
        assert not error["fatal"]
        assert error["seq"] == 1
        assert error["cause"]["position"] == {"messages": 0, "samples": 640}
        await send(socket, "audio.end")
        assert (await turn(socket))[1] == CHUNK


async def test_audio_that_is_not_what_was_declared_is_told_once() -> None:
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 16_000)
    floats = tone.astype("<f4").tobytes()
    async with serving() as server, calling(server) as socket:
        await start(socket)
        for at in range(0, len(floats), 1280):
            await socket.send(floats[at : at + 1280])
        error = await refused(socket, "looks_like_float32")
        assert "pcm_f32le" in error["hint"]
        await send(socket, "audio.end")
        assert "error" not in (await turn(socket))[0]


@pytest.mark.parametrize(
    ("message", "counted"),
    [
        (b"\x00\x01\x02", claimed(0, 0)),
        (bytes(300_000), claimed(0, 0)),
        (np.full(10, np.nan, np.float32).tobytes(), claimed(0, 10)),
        ("hello", claimed(0, 0)),
        ('{"type": "audio.end", "at": 1}', claimed(0, 0)),
        ('{"type": "response.cancel", "turn": 9}', claimed(1, 0)),
    ],
    ids=["odd length", "too large", "no number", "no message", "wrong field", "unknown turn"],
)
async def test_what_is_refused_still_counts_where_it_could_be_read(
    message: str | bytes, counted: dict[str, int]
) -> None:
    async with serving() as server, calling(server) as socket:
        await start(socket, input={"encoding": "pcm_f32le"})
        await socket.send(message)
        await receive(socket, "error")
        await send(socket, "audio.end")
        received = claimed(counted["messages"] + 1, counted["samples"])
        while (await receive(socket, "audio.ack"))["received"] != received:
            pass


async def test_audio_that_no_longer_fits_counts() -> None:
    async with serving(max_utterance_s=0.1) as server, calling(server) as socket:
        await start(socket)
        for _ in range(5):
            await socket.send(CHUNK)
        await refused(socket, "buffer_full")
        await send(socket, "audio.end")
        while (await receive(socket, "audio.ack"))["received"] != claimed(1, 3200):
            pass


async def test_what_brings_nothing_new_is_not_acknowledged() -> None:
    async with serving() as server, calling(server) as socket:
        await start(socket)
        await send(socket, "response.ack", received=claimed(0, 0))
        await send(socket, "ping")
        assert json.loads(await socket.recv())["type"] == "pong"


@pytest.mark.parametrize("message", [CHUNK, '{"type": "audio.end"}', '{"type": "session.end"}'])
async def test_a_session_has_to_be_started(message: str | bytes) -> None:
    async with serving() as server, calling(server) as socket:
        await socket.send(message)
        await refused(socket, "not_started")
        await start(socket)


async def test_a_row_that_is_refused_before_the_start_is_over_when_text_comes() -> None:
    async with serving() as server, calling(server) as socket:
        for _ in range(3):
            await socket.send(b'{"type": "session.start"}')
        await send(socket, "ping")
        await refused(socket, "wrong_frame")
        await receive(socket, "pong")
        assert (await refused(socket, "wrong_frame"))["count"] == 2
        for _ in range(3):
            await socket.send(b'{"type": "session.start"}')
        await socket.send("{}")
        await refused(socket, "wrong_frame")
        assert (await refused(socket, "wrong_frame"))["count"] == 2
        await refused(socket, "unknown_type")


async def test_what_cannot_be_resumed_can_be_started_anew() -> None:
    async with serving() as server, calling(server) as socket:
        await send(socket, "session.start", resume={"session": "x", "token": "y"})
        await refused(socket, "session_unknown")
        assert not (await start(socket))["resumed"]


async def test_a_claim_to_have_what_was_never_sent_leaves_the_session_alone() -> None:
    async with serving() as server, calling(server) as first, calling(server) as second:
        started = await start(first)
        resume = {"session": started["session"], "token": started["token"]}
        claim = {**resume, "received": {"messages": 7, "samples": 0}}
        await send(second, "session.start", resume=claim)
        await refused(second, "position_invalid")
        await first.send(CHUNK)
        await send(first, "audio.end")
        await turn(first)
        assert (await start(second, resume={**resume, "received": claimed(4, 640)}))["resumed"]


async def test_a_full_utterance_is_told_once() -> None:
    async with serving(max_utterance_s=0.1) as server, calling(server) as socket:
        await start(socket)
        for _ in range(10):
            await socket.send(CHUNK)
        await refused(socket, "buffer_full")
        await send(socket, "audio.end")
        summary = await refused(socket, "buffer_full")
        assert summary["count"] == 7
        kinds, audio = await turn(socket)
        assert "error" not in kinds
        assert len(audio) == 3200


async def test_too_many_waiting_turns_are_refused() -> None:
    asr = ScriptedAsr()
    asr.gate.clear()
    pipeline = VoicePipeline(scripted_engines(asr))
    async with serving(pipeline, max_waiting_turns=1) as server, calling(server) as socket:
        await start(socket)
        for _ in range(3):
            await socket.send(CHUNK * 10)
            await send(socket, "audio.end")
        await refused(socket, "too_many_turns")
        asr.gate.set()


async def test_an_engine_that_fails_is_told_and_the_turn_ends() -> None:
    def fail(_: object) -> str:
        raise RuntimeError("out of memory")

    pipeline = VoicePipeline(scripted_engines(ScriptedAsr(fail)))
    async with serving(pipeline) as server, calling(server) as socket:
        await start(socket)
        await socket.send(CHUNK * 10)
        await send(socket, "audio.end")
        await refused(socket, "engine_failed")
        assert (await receive(socket, "response.done"))["status"] == "failed"


async def test_audio_that_comes_too_fast_is_told_and_none_is_lost() -> None:
    clock = Clock()
    async with (
        serving(clock=clock, burst_s=1.0, max_audio_speed=1000.0) as server,
        calling(server) as socket,
    ):
        await start(socket)
        for _ in range(50):
            await socket.send(CHUNK)
        await refused(socket, "audio_too_fast")
        await send(socket, "audio.end")
        assert (await turn(socket))[1] == CHUNK * 50


async def test_a_connection_that_never_starts_is_closed() -> None:
    clock = Clock()
    async with serving(clock=clock, start_s=5.0) as server, calling(server) as socket:
        server.reap(5 * SECOND - 1)
        await send(socket, "ping")
        await receive(socket, "pong")
        server.reap(5 * SECOND)
        await refused(socket, "start_timeout")
        assert await closed(socket) == CloseCode.START_TIMEOUT


@pytest.mark.parametrize(
    ("seconds", "code", "error", "left"),
    [
        (20, CloseCode.IDLE, "idle", 1),
        (60, CloseCode.SESSION_TOO_LONG, "session_too_long", 0),
    ],
)
async def test_a_silent_or_endless_session_is_closed(
    seconds: int, code: CloseCode, error: str, left: int
) -> None:
    clock = Clock()
    async with (
        serving(clock=clock, idle_s=20.0, max_session_s=60.0) as server,
        calling(server) as socket,
    ):
        await start(socket)
        clock.now_ns = seconds * SECOND
        server.reap(clock.now_ns)
        await refused(socket, error)
        assert await closed(socket) == code
        await until(lambda: server.sessions == left)


async def test_whoever_sends_something_that_is_accepted_is_not_idle() -> None:
    clock = Clock()
    async with serving(clock=clock, idle_s=20.0) as server, calling(server) as socket:
        await start(socket)
        for seconds in (15, 30, 45):
            clock.now_ns = seconds * SECOND
            await send(socket, "ping")
            await receive(socket, "pong")
            server.reap(clock.now_ns)
        clock.now_ns = 65 * SECOND
        server.reap(clock.now_ns)
        await refused(socket, "idle")


@pytest.mark.parametrize("message", ["nonsense", '{"type": "ping", "mood": 1}', b"", b"x"])
async def test_what_is_refused_or_empty_is_no_sign_of_life(message: str | bytes) -> None:
    clock = Clock()
    async with serving(clock=clock, idle_s=20.0) as server, calling(server) as socket:
        await start(socket)
        clock.now_ns = 15 * SECOND
        await socket.send(message)
        if message:
            await receive(socket, "error")
        clock.now_ns = 20 * SECOND
        server.reap(clock.now_ns)
        await refused(socket, "idle")


async def test_control_alone_does_not_keep_a_session_for_ever() -> None:
    clock = Clock()
    async with (
        serving(clock=clock, idle_s=20.0, idle_audio_s=30.0) as server,
        calling(server) as socket,
    ):
        await start(socket)
        for seconds in (10, 20, 29):
            clock.now_ns = seconds * SECOND
            await send(socket, "response.ack", received=claimed(0, 0))
            await send(socket, "ping")
            await receive(socket, "pong")
            server.reap(clock.now_ns)
        clock.now_ns = 30 * SECOND
        server.reap(clock.now_ns)
        assert (await refused(socket, "idle"))["message"] == "no audio came for 30 s"


async def test_a_detached_session_expires() -> None:
    clock = Clock()
    async with serving(clock=clock, resume_s=60.0) as server:
        async with calling(server) as socket:
            started = await start(socket)
        await until(lambda: server.states()[State.DETACHED] == 1)
        server.reap(60 * SECOND)
        assert server.sessions == 0
        async with calling(server) as socket:
            resume = {"session": started["session"], "token": started["token"]}
            await send(socket, "session.start", resume=resume)
            await refused(socket, "session_unknown")


async def test_a_session_that_was_ended_is_gone() -> None:
    async with serving() as server, calling(server) as socket:
        await start(socket)
        await send(socket, "session.end")
        assert (await receive(socket, "session.ended"))["reason"]
        assert await closed(socket) == CloseCode.NORMAL
        await until(lambda: server.sessions == 0)


async def test_a_session_that_was_ended_is_gone_at_once() -> None:
    async with serving() as server, calling(server) as socket, calling(server) as second:
        started = await start(socket)
        (session,) = server._registry._tasks
        feed = session.outgoing.feed
        assert feed is not None
        resume = {"session": started["session"], "token": started["token"]}
        feed.end(Close(None, "the client ended it", ""))  # and no more yet
        await send(second, "session.start", resume=resume)
        await refused(second, "session_unknown")


async def take_in(socket: Any, turns: int, frame_bytes: int = 2) -> dict[str, int]:
    """Read so many replies, and acknowledge each piece of audio; gives where the stream is."""
    messages = samples = 0
    while turns:
        message = await socket.recv()
        if isinstance(message, bytes):
            samples += len(message) // frame_bytes
            await send(socket, "response.ack", received=claimed(messages, samples))
            continue
        told = json.loads(message)
        messages = told.get("seq", messages)
        turns -= told["type"] == "response.done"
    return claimed(messages, samples)


async def test_a_client_that_acknowledges_as_often_as_it_is_asked_to_is_no_flood() -> None:
    loud = {"encoding": "pcm_f32le", "sample_rate": 48_000, "channels": 2}
    async with (
        serving(message_burst=8, max_messages_per_s=1.0) as server,
        calling(server, max_queue=None) as socket,
    ):
        await start(socket, output=loud, acknowledges=True)
        await socket.send(bytes(64_000))
        await send(socket, "audio.end")
        known = await take_in(socket, turns=1, frame_bytes=8)
        for _ in range(20):  # what is known already is counted
            await send(socket, "response.ack", received=known)
        assert (await receive(socket, "error"))["code"] == "too_many_messages"


async def test_acknowledgements_behind_audio_that_is_not_read_are_not_waited_for() -> None:
    limits: dict[str, Any] = {"send_timeout_s": 0.5, "max_held_bytes": 300_000, "replay_s": 1.0}
    async with serving(**limits) as server, calling(server, max_queue=None) as socket:
        await start(socket, acknowledges=True)
        for _ in range(3):
            for _ in range(10):
                await socket.send(bytes(16_000))
            await send(socket, "audio.end")
        assert (await take_in(socket, turns=3))["samples"] == 3 * 10 * 8_000


async def test_a_client_that_does_not_acknowledge_is_closed_and_can_resume() -> None:
    async with (
        serving(send_timeout_s=0.05, replay_bytes=4000) as server,
        calling(server) as socket,
    ):
        started = await start(socket, acknowledges=True)
        for _ in range(25):
            await socket.send(CHUNK)
        await send(socket, "audio.end")
        assert await closed(socket) == CloseCode.SLOW_READER
        async with calling(server) as second:
            resume = {"session": started["session"], "token": started["token"]}
            again = await start(second, resume=resume)
            assert "missing" not in again
            assert (await receive(second, "transcript.final"))["text"] == "1.00 seconds of audio"


async def audio(socket: Any) -> bytes:
    while isinstance(message := await socket.recv(), str):
        pass
    return message


async def test_a_resume_acknowledges_what_its_client_has() -> None:
    async with serving(replay_bytes=4000) as server:
        async with calling(server) as socket:
            started = await start(socket, acknowledges=True)
            for _ in range(10):
                await socket.send(CHUNK)
            await send(socket, "audio.end")
            assert len(await audio(socket)) == 6400
        await until(lambda: server.states()[State.DETACHED] == 1)
        async with calling(server) as second:
            resume = {"session": started["session"], "token": started["token"]}
            await start(second, resume={**resume, "received": claimed(3, 3200)})
            assert len(await audio(second)) == 6400
            assert (await receive(second, "response.done"))["status"] == "completed"


async def test_a_reply_longer_than_its_window_comes_where_others_hold_all_there_is() -> None:
    pipeline = Inline()
    pipeline.pieces = 130
    settings: dict[str, Any] = {"max_held_bytes_in_all": 1, "send_timeout_s": 5.0}
    async with (
        serving(pipeline, **settings) as server,
        calling(server, max_queue=None) as socket,
    ):
        await start(socket, acknowledges=True)
        await socket.send(CHUNK)
        await send(socket, "audio.end")
        assert (await take_in(socket, turns=1))["samples"] == 131 * 1600


async def test_what_waits_in_connections_counts_with_what_sessions_hold() -> None:
    async with serving(max_held_bytes_in_all=100_000) as server:
        async with calling(server) as away:
            await start(away)
            await away.send(CHUNK)
        await until(lambda: server.states()[State.DETACHED] == 1)
        async with calling(server) as unfinished:
            message = Frame(Opcode.BINARY, bytes(200_000), fin=False)
            unfinished.transport.write(message.serialize(mask=True))
            await until(lambda: server.held_bytes() >= 200_000)
            server.reap(server._clock())
            assert server.states()[State.DETACHED] == 0
        await until(lambda: not server.held_bytes())
        server.reap(server._clock())
        assert not server._registry._budget.used


async def test_refusals_that_are_not_taken_do_not_pile_up_over_connections() -> None:
    async with serving(replay_bytes=4000, message_burst=10_000) as server:
        start_with: dict[str, Any] = {"acknowledges": True}
        for _ in range(3):
            async with calling(server, max_queue=None) as socket:
                started = await start(socket, **start_with)
                start_with["resume"] = {k: started[k] for k in ("session", "token")}
                with pytest.raises(ConnectionClosed):
                    for _ in range(1000):
                        await socket.send("nonsense")
                        await socket.recv()
                assert socket.close_code == CloseCode.SLOW_READER
        async with calling(server, max_queue=None) as socket:
            await start(socket, **start_with)
            messages = [await socket.recv() for _ in range(8)]
        assert all(json.loads(message)["code"] == "invalid_json" for message in messages)
        (session,) = server._registry._tasks
        assert 8000 <= session.outgoing.window.held_bytes < 9000


async def test_what_can_no_longer_be_sent_again_is_named() -> None:
    async with serving(replay_bytes=4000) as server:
        async with calling(server) as first:
            started = await start(first)
            for _ in range(25):
                await first.send(CHUNK)
            await send(first, "audio.end")
            await turn(first)
        async with calling(server) as second:
            resume = {"session": started["session"], "token": started["token"]}
            again = await start(second, resume=resume)
            assert again["missing"]["after"] == claimed(0, 0)
            assert again["missing"]["up_to"]["messages"] == 3
            done = await receive(second, "response.done") if again else {}
            assert done["samples"] == 16_000


async def test_a_fault_of_the_server_ends_one_session_and_no_other() -> None:
    class Faulty(EchoPipeline):
        async def answer(self, turn: Any, sink: Any) -> Any:
            raise KeyError("oops")

    async with serving(Faulty()) as server, calling(server) as first, calling(server) as second:
        await start(first)
        await start(second)
        await first.send(CHUNK)
        await send(first, "audio.end")
        await refused(first, "internal")
        assert await closed(first) == CloseCode.INTERNAL_ERROR
        await send(second, "ping")
        await receive(second, "pong")
        assert server.sessions == 1


async def test_closing_tells_every_client() -> None:
    async with serving() as server, calling(server) as socket:
        await start(socket)
        closing = asyncio.create_task(server.close())
        await refused(socket, "shutting_down")
        assert await closed(socket) == CloseCode.GOING_AWAY
        await closing
        assert server.sessions == 0


async def test_a_client_that_knows_other_dialects_only_gets_the_plain_one() -> None:
    async with serving() as server:
        offered = [Subprotocol("chat")]
        async with connect(server.url, subprotocols=offered) as socket:
            assert socket.subprotocol is None
            await socket.send("ping")
            assert await socket.recv() == "pong"


@pytest.mark.parametrize("message", [b"\x00\x01\x02", "nonsense"])
async def test_a_fault_in_a_message_is_told_and_ends_that_session_alone(
    monkeypatch: pytest.MonkeyPatch, message: str | bytes
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("oops")

    async with serving() as server, calling(server) as first, calling(server) as second:
        started = await start(first)
        await start(second)
        with monkeypatch.context() as faulty:
            faulty.setattr(Session, "refuse", fail)
            await first.send(message)
            await refused(first, "internal")
        assert await closed(first) == CloseCode.INTERNAL_ERROR
        await send(second, "ping")
        await receive(second, "pong")
        async with calling(server) as third:
            resume = {"session": started["session"], "token": started["token"]}
            await send(third, "session.start", resume=resume)
            await refused(third, "session_unknown")
