"""Four callers who stop within a second: how long each waits, and whose audio runs out.

A call of an engine takes as long as it did with the public models on two cores.
"""

import asyncio
import random
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import pytest

from labkit.audio.pcm import SAMPLE_RATE, Float32
from labkit.voice import reply
from labkit.voice.engines import Asr, Engines, Llm, Tts
from labkit.voice.hearing import Utterance
from labkit.voice.history import History, Message
from labkit.voice.pipeline import VoicePipeline
from labkit.voice.scheduling import Playback, Stop
from labkit.voice.scripted import CollectingSink, EnergyVad
from labkit.voice.turn import Turn
from tests.voice.virtual_time import VirtualTime, use

LENGTHS: Final = (
    (66, 50, 126), (62,), (77, 110), (35, 77, 44), (77, 23, 121, 155), (24,), (71,), (43, 22),
    (61, 77, 108), (91, 129, 37), (121, 44), (35, 45), (38, 52, 31), (102, 86), (18, 17), (29,),
    (120, 97, 142), (18, 65, 64), (6, 26, 29), (5, 110, 60),
)  # fmt: skip
"""Letters of the sentences of replies, most of them from SmolLM2."""
REPLIES: Final = [
    " ".join("So" + f"{' many' * 40}"[: letters - 3] + "." for letters in lengths)
    for lengths in LENGTHS
]


class _Engine:
    """Works for about as long as it is told, not always the same, and alike at each run."""

    def __init__(self, loop: VirtualTime, seed: int) -> None:
        self._loop, self._rng = loop, random.Random(seed)

    def work(self, seconds: float) -> None:
        self._loop.work(seconds * self._rng.lognormvariate(0, 0.15))


class _Asr(_Engine, Asr):
    def transcribe(self, audio: Float32, stop: Stop, before: str = "") -> str:
        self.work(0.3)
        return REPLIES[round(float(audio.max()) * 32) - 1]


class _Llm(_Engine, Llm):
    def reply(self, messages: Sequence[Message], stop: Stop) -> Iterator[str]:
        """It says what it is asked for, five letters a token, when it has read it."""
        for _ in range(2):
            self.work(0.18)
            yield ""
        for at in range(0, len(messages[-1].content), 5):
            self.work(0.027)
            yield messages[-1].content[at : at + 5]
        self.work(0.027)


class _Tts(_Engine, Tts):
    sample_rate = SAMPLE_RATE

    def synthesise(self, text: str, stop: Stop) -> Iterator[Float32]:
        self.work(0.03 + 0.0027 * len(text))
        left_s, window_s = len(text) / 14.5 + 0.25, 0.3
        while left_s > 0:
            made_s = left_s if left_s - window_s < 0.15 else window_s
            self.work(0.04 + 0.14 * made_s)
            yield np.full(round(made_s * SAMPLE_RATE), 0.1, np.float32)
            left_s, window_s = left_s - made_s, min(2 * window_s, 1.2)


class _Client(CollectingSink):
    """Plays at once; notes when its first sound came, and how often it ran out behind that."""

    def __init__(self, turn: Turn) -> None:
        super().__init__()
        self.first_ns = 0
        self.ran_out = 0
        self._turn = turn

    async def audio(self, samples: Float32) -> None:
        self.first_ns = self.first_ns or self._turn.clock()
        seconds = len(samples) / SAMPLE_RATE
        self.ran_out += self._turn.playback.produced(seconds, self._turn.clock())


async def _call(pipeline: VoicePipeline, reply: int, after_s: float) -> tuple[float, int]:
    """One caller's wait for the first sound, and how often it ran out."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTime)
    utterance = Utterance(10 * SAMPLE_RATE, 512)
    utterance.append(np.full(SAMPLE_RATE, 1024 * (reply + 1), np.int16))
    while utterance.unexamined(ended=True):
        await pipeline.listen("", utterance, ended=True)
    await asyncio.sleep(after_s)
    ended_ns = loop.time_ns()
    turn = Turn(
        f"{after_s}", utterance, History(1), clock=loop.time_ns, playback=Playback(ended_ns)
    )
    client = _Client(turn)
    await pipeline.answer(turn, client)
    return (client.first_ns - ended_ns) / 1e9, client.ran_out


def crowd(monkeypatch: pytest.MonkeyPatch, seed: int, callers: int) -> list[tuple[float, int]]:
    """What each of so many callers had, who stop within a second."""
    rng = random.Random(seed)
    asked = [(number, rng.random()) for number in rng.sample(range(len(REPLIES)), callers)]

    async def calls() -> list[tuple[float, int]]:
        engines = Engines(EnergyVad(), _Asr(loop, seed), _Llm(loop, seed), _Tts(loop, seed))
        pipeline = VoicePipeline(engines, calls=2)
        try:
            await _call(pipeline, 0, 0.0)  # from then on it knows how fast the voice speaks
            return await asyncio.gather(*(_call(pipeline, *one) for one in asked))
        finally:
            pipeline.close()

    loop = VirtualTime()
    with monkeypatch.context() as patch, asyncio.Runner(loop_factory=lambda: loop) as runner:
        use(loop, patch)
        return runner.run(calls())


def test_nobody_runs_out_where_four_stop_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    four = [one for seed in range(8) for one in crowd(monkeypatch, seed, 4)]
    alone = [one for seed in range(8) for one in crowd(monkeypatch, seed, 1)]
    assert sum(ran_out for _, ran_out in [*four, *alone]) == 0
    tails = [np.quantile([wait_s for wait_s, _ in waits], 0.95) for waits in (four, alone)]
    assert tails[0] / tails[1] < 3.5


def test_they_would_if_each_reply_began_with_its_first_sound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reply, "_WRITTEN", (0.0, 0.0))
    monkeypatch.setattr(reply, "_MADE", 0.0)
    assert sum(ran_out for seed in range(8) for _, ran_out in crowd(monkeypatch, seed, 4)) > 0
