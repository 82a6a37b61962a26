"""Turns as rows, their columns, and that the exercise runs as planned."""

import asyncio
import random
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from labkit.client.plain import ClientTurn, VoiceClient
from labkit.client.speech import Clock
from labkit.errors import LabkitError
from labkit.measure.exercise import Exercise, overhead_bytes, ping_until, row_of
from labkit.measure.plan import PlannedTurn
from labkit.measure.recordings import load_manifest
from labkit.trace import Mark, Stage, Trace
from tests.measure.samples import rows
from tests.paths import SPEECH


@pytest.mark.parametrize(
    ("chunk_ms", "per_message"),
    [(10, 8 + 52), (40, 8 + 52), (60, 8 + 2 * 52), (500, 8 + 12 * 52)],
)
def test_overhead_counts_frames_and_segments(chunk_ms: int, per_message: int) -> None:
    messages = 1000 // chunk_ms
    assert overhead_bytes(messages * chunk_ms * 32, messages) == messages * per_message
    assert overhead_bytes(0, 0) == 0


def test_small_and_large_frames_have_other_headers() -> None:
    assert overhead_bytes(100, 1) == 6 + 52
    assert overhead_bytes(70_000, 1) == 14 + 49 * 52


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
    exercise = Exercise(recordings=SPEECH)
    flat = [exercise.flat(row) for row in rows()]
    head = "utterance,voice,chunk_ms,warmup,transcript,reply_text,reply_seconds,ttfa_ms"
    assert list(flat[0])[:8] == head.split(",")
    assert list(flat[0]) == list(exercise.columns)
    assert {f"mark_{mark.value}_ms" for mark in Mark} <= set(flat[0])
    assert [columns["warmup"] for columns in flat[:2]] == [1, 0]
    for columns in flat:
        parts = sum(columns[f"stage_{stage.value}_ms"] or 0.0 for stage in Stage)
        assert parts == pytest.approx(columns["ttfa_ms"])


def test_two_servers_share_the_time() -> None:
    def repeats(*, quick: bool, baseline: bool) -> int:
        return Exercise.of_length(quick=quick, baseline=baseline, recordings=SPEECH).repeats

    assert repeats(quick=False, baseline=True) * 2 == repeats(quick=False, baseline=False)
    assert repeats(quick=True, baseline=False) < repeats(quick=False, baseline=True)


async def test_recordings_that_are_too_long_are_told(tmp_path: Path) -> None:
    (tmp_path / "long.wav").touch()
    (tmp_path / "manifest.jsonl").write_text(
        '{"file": "long.wav", "text": "hi", "voice": "v", "kind": "utterance", "synthesiser": "s",'
        ' "licence": "l", "end_of_speech_sample": 160000}'
    )
    with pytest.raises(LabkitError, match="no recording ends within 2.6 s"):
        await Exercise(recordings=tmp_path).run(lambda _: None, lambda _: None)


class Standing:
    """A server that stands still for a second at the first ping, which is the last of a turn."""

    def __init__(self, over: asyncio.Event) -> None:
        self.now_ns = 0
        self.over = over

    async def sleep(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)

    async def ping(self) -> None:
        self.now_ns += 10**6 if self.over.is_set() else 10**9
        self.over.set()


class Every100Ms(random.Random):
    def expovariate(self, lambd: float = 1.0) -> float:
        return 0.1


async def test_every_ping_that_a_server_holds_up_counts() -> None:
    over, rtts_ms = asyncio.Event(), list[float]()
    server = Standing(over)
    clock = Clock(source=lambda: server.now_ns, sleep=server.sleep)
    await ping_until(over, cast(VoiceClient, server), rtts_ms, Every100Ms(), clock)
    assert [round(rtt) for rtt in rtts_ms] == [1000 - 99 * n for n in range(11)]
