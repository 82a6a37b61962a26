"""A conversation without any socket."""

import numpy as np
import pytest

from labkit.audio.pcm import Int16
from labkit.errors import EngineError, ErrorCode, ProtocolError
from labkit.server.session import Session
from labkit.session.settings import ServerSettings
from labkit.trace import Mark
from labkit.voice.history import Exchange
from labkit.voice.pipeline import EchoPipeline, Sink, Turn
from labkit.voice.scripted import CollectingSink


class Clock:
    """Time that moves when told to."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


def session(clock: Clock | None = None, **settings: float) -> Session:
    return Session(
        "one",
        EchoPipeline(),
        ServerSettings(**settings),  # type: ignore[arg-type]
        clock=clock or Clock(),
        cpu_clock=clock or Clock(),
    )


def sound(samples: int) -> Int16:
    return np.full(samples, 8192, np.int16)


async def test_an_utterance_ends_and_the_next_begins_empty() -> None:
    this = session()
    this.hear(sound(800))
    ended = this.end_utterance()
    this.hear(sound(160))
    assert len(ended.utterance) == 800
    assert len(this.utterance) == 160


async def test_a_full_utterance_says_what_was_dropped_and_keeps_the_rest() -> None:
    this = session(max_utterance_s=1.0)
    this.hear(sound(15_000))
    with pytest.raises(ProtocolError, match=r"holds 1 s of audio; 0\.25 s dropped") as caught:
        this.hear(sound(5_000))
    assert caught.value.code is ErrorCode.BUFFER_FULL
    assert len(this.utterance) == 16_000


async def test_marks_and_cpu_time_come_from_the_clocks() -> None:
    clock = Clock()
    this = session(clock)
    clock.now_ns = 5_000_000
    this.hear(sound(100))
    clock.now_ns = 9_000_000
    ended = this.end_utterance()
    assert ended.trace.marks[Mark.END_STREAM_RECEIVED] == 9_000_000
    assert ended.listening_cpu_ms == pytest.approx(4.0)


async def test_activity_is_noted_for_audio_and_control_apart() -> None:
    clock = Clock()
    this = session(clock)
    clock.now_ns = 2_500_000_000
    this.touch(audio=True)
    assert (this.activity.audio_ns, this.activity.control_ns) == (2_500_000_000, 0)
    clock.now_ns = 3_000_000_000
    this.touch(audio=False)
    assert (this.activity.audio_ns, this.activity.control_ns) == (2_500_000_000, 3_000_000_000)


async def test_history_grows_with_what_was_said_only() -> None:
    this = session(history=3)
    for samples in (800, 0, 1600):
        if samples:
            this.hear(sound(samples))
        await this.answer(this.end_utterance(), CollectingSink())
    assert [exchange.user for exchange in this.history] == [
        "0.05 seconds of audio",
        "0.10 seconds of audio",
    ]


class _FailingPipeline(EchoPipeline):
    async def answer(self, turn: Turn, sink: Sink) -> Exchange:
        raise EngineError("speech recognition failed")


async def test_a_failed_turn_leaves_the_history_alone() -> None:
    this = Session("one", _FailingPipeline(), ServerSettings())
    with pytest.raises(EngineError):
        await this.answer(this.end_utterance(), CollectingSink())
    assert len(this.history) == 0
