"""Turns as rows, their columns, and that the exercise runs as planned."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection, serve

from labkit.audio.pcm import encode_s16le
from labkit.client.turn import ClientTurn
from labkit.errors import InstrumentError, LabkitError
from labkit.measure import exercise as exercise_module
from labkit.measure.exercise import Exercise, failed_row, row_of
from labkit.measure.plan import PlannedTurn
from labkit.measure.recordings import load_manifest
from labkit.measure.results import Results, conduct, read_rows
from labkit.measure.targets import Access, Target
from labkit.server.app import VoiceServer
from labkit.session.settings import ServerSettings
from labkit.trace import Mark, Stage, Trace
from labkit.voice.pipeline import VoicePipeline
from labkit.voice.scripted import ScriptedAsr, scripted_engines
from tests.measure.samples import rows
from tests.paths import SPEECH


def test_a_turn_becomes_a_row() -> None:
    recording = load_manifest(SPEECH)[0]
    marks = {
        Mark.STREAM_STARTED: 1_000_000_000,
        Mark.END_OF_SPEECH: 1_500_000_000,
        Mark.END_STREAM_SENT: 1_520_000_000,
        Mark.FIRST_AUDIO_RECEIVED: 1_600_000_000,
        Mark.FIRST_AUDIO_HEARD: 1_630_000_000,
    }
    turn = ClientTurn("hi", "Hi!", np.zeros(8000, np.float32), Trace(dict(marks)), 25, 32_000, 1.5)
    made = row_of(PlannedTurn("labkit", 0, 20, 0.3, 5), recording, turn)
    assert (made.ttfb_ms, made.ttfa_ms) == (100.0, 130.0)
    assert made.stages == {
        Stage.PACKETISATION: 20.0,
        Stage.UNTOLD: 80.0,
        Stage.LEADING_SILENCE: 30.0,
    }
    assert made.marks[Mark.END_OF_SPEECH] == 500.0
    assert (made.reply_seconds, made.audio_seconds, made.messages) == (0.5, 1.0, 25)
    assert (made.block, made.warmup) == (5, False)
    assert (made.utterance, made.said) == (recording.path.name, recording.text)


def test_a_row_has_a_column_per_stage_and_mark() -> None:
    flat = [row.columns() for row in rows()]
    head = "utterance,voice,chunk_ms,warmup,transcript,reply_text,reply_seconds,ttfa_ms"
    assert list(flat[0])[:8] == head.split(",")
    assert list(flat[0]) == list(Exercise.columns)
    assert {f"mark_{mark.value}_ms" for mark in Mark} <= set(flat[0])
    assert [columns["warmup"] for columns in flat[:2]] == [1, 0]
    for columns in flat:
        parts = sum(columns[f"stage_{stage.value}_ms"] or 0.0 for stage in Stage)
        assert parts == pytest.approx(columns["ttfa_ms"])


def test_a_turn_that_failed_is_a_row_that_says_why() -> None:
    recording = load_manifest(SPEECH)[0]
    made = failed_row(PlannedTurn("mine", 0, 20, 0.3, 5), recording, "it hung up")
    assert (made.ttfa_ms, made.errors, made.messages) == (None, "it hung up", 0)
    assert (made.server, made.block, made.listening_cpu_ms) == ("mine", 5, None)


def test_servers_share_the_time_down_to_five_blocks() -> None:
    def blocks(quick: bool, servers: int) -> int:
        targets = [Target(str(number)) for number in range(servers)]
        return Exercise.of_length(quick=quick, targets=targets, recordings=SPEECH).blocks

    assert [blocks(False, servers) for servers in (1, 2, 3, 9)] == [20, 10, 6, 5]
    assert [blocks(True, servers) for servers in (1, 2)] == [8, 5]
    targets = [Target(name) for name in "abc"]
    assert Exercise.of_length(quick=True, targets=targets, chunk_sizes_ms=(40,)).blocks == 8


async def test_recordings_that_are_too_long_are_told(tmp_path: Path) -> None:
    (tmp_path / "long.wav").touch()
    (tmp_path / "manifest.jsonl").write_text(
        '{"file": "long.wav", "text": "hi", "voice": "v", "kind": "utterance", "synthesiser": "s",'
        ' "licence": "l", "end_of_speech_sample": 160000}'
    )
    with pytest.raises(LabkitError, match="no recording ends within 2.6 s"):
        await Exercise(recordings=tmp_path).run(lambda _: None, lambda *_: None)


def answering(*, pongs: bool) -> Callable[[ServerConnection], Awaitable[None]]:
    """A server that answers with a tone, and perhaps pings; the third turn is its last."""
    turns = 0
    tone = encode_s16le(np.full(1_600, 0.5, np.float32))

    async def handle(socket: ServerConnection) -> None:
        nonlocal turns
        async for message in socket:
            if message == "ping" and pongs:
                await socket.send("pong")
            elif message == "end_stream":
                turns += 1
                if turns > 2:
                    await socket.close(1011, "out of memory")
                    return
                await socket.send('{"type": "transcript", "text": "I\'m Oliver."}')
                await socket.send(tone)

    return handle


async def test_servers_are_measured_by_turns_and_what_they_lack_is_told(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        targets = []
        for name, pongs, compression in (("a", True, "deflate"), ("b", False, None)):
            serving = serve(answering(pongs=pongs), "127.0.0.1", 0, compression=compression)
            server = await stack.enter_async_context(serving)
            port = server.sockets[0].getsockname()[1]
            targets.append(Target(name, url=f"ws://127.0.0.1:{port}"))
        exercise = Exercise(
            recordings=SPEECH,
            targets=targets,
            access=Access(deflate=True, patience_s=5.0),
            blocks=1,
            chunk_sizes_ms=(40,),
            longest_s=1.1,
        )
        summed = await conduct(exercise, Results(tmp_path / "results"))
    assert [row.server for row in summed.rows[:2]] == ["a", "b"]
    assert all("stream" in row.errors for row in summed.rows[:2])
    assert all(row.errors == "" for row in summed.rows[2:4])
    last = summed.rows[4:]
    assert {row.server for row in last} == {"a", "b"}
    assert all(row.ttfa_ms is None and "out of memory" in row.errors for row in last)
    a, b = summed.servers
    assert (a.asked, a.turns, b.word_error_rate) == (2, 1, 0)
    assert summed.rtts_ms["a"]
    assert not summed.rtts_ms["b"]
    words = " ".join(summed.sentences())
    assert "b does not compress: measured without." in words
    assert "a left 1 of 2 turns without an audible answer; of 1 it is told: " in words
    sent = [server.middle.wire_bytes_per_s for server in (a, b)]
    assert sent[0] is not None
    assert sent[1] is not None
    assert sent[0] < 32_000 < sent[1]


async def test_a_server_that_fails_at_its_first_turn_ends_the_run(tmp_path: Path) -> None:
    async def handle(socket: ServerConnection) -> None:
        await socket.close(1008, "no microphone")

    async with serve(handle, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        target = Target("mine", url=url)
        exercise = Exercise(recordings=SPEECH, targets=[target], longest_s=1.1)
        with pytest.raises(LabkitError, match="mine failed at its first turn: .*no microphone"):
            await conduct(exercise, Results(tmp_path / "results"))
    assert not (tmp_path / "results").exists()


async def test_the_server_decides_or_its_client_where_it_cannot(tmp_path: Path) -> None:
    pipeline = VoicePipeline(scripted_engines(asr=ScriptedAsr(lambda audio: "I'm Oliver.")))
    async with (
        VoiceServer(pipeline, ServerSettings(host="127.0.0.1", port=0)) as labkit,
        serve(answering(pongs=True), "127.0.0.1", 0) as bare,
    ):
        url = f"ws://127.0.0.1:{bare.sockets[0].getsockname()[1]}"
        exercise = Exercise(
            recordings=SPEECH,
            targets=[Target("labkit", url=labkit.url), Target("bare", url=url)],
            blocks=1,
            chunk_sizes_ms=(100,),
            longest_s=1.1,
            decided=True,
        )
        summed = await conduct(exercise, Results(tmp_path / "results"))
    first, second = summed.servers
    assert (first.turns, second.word_error_rate) == (2, 0)
    for server in summed.servers:
        assert server.parts[Stage.DEAD_AIR] >= 500
        assert Stage.PACKETISATION not in server.parts
    assert Stage.ASR in first.parts
    assert "bare has no turns whose end it decides" in " ".join(summed.sentences())
    assert "labkit has no turns" not in " ".join(summed.sentences())
    assert exercise.about()["end_of_a_turn"] == "decided by the server"


def test_parts_that_do_not_add_up_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exercise_module, "wrong_parts", lambda stages, ttfa: "ASR takes -5 ms")

    async def run() -> None:
        async with serve(answering(pongs=True), "127.0.0.1", 0) as server:
            url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            exercise = Exercise(recordings=SPEECH, targets=[Target("mine", url=url)], longest_s=1.1)
            with pytest.raises(InstrumentError, match="a turn of mine cannot be believed: ASR"):
                await conduct(exercise, Results(tmp_path / "results"))

    asyncio.run(run())
    assert len(read_rows(tmp_path / "results" / "turns.csv", dict)) == 1


def test_no_password_of_an_address_is_kept() -> None:
    exercise = Exercise(targets=[Target.running("ws://me:secret@box:1/x")])
    assert exercise.about()["servers"] == {"box:1": "ws://box:1/x"}
