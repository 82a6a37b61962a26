"""Speaking at the pace of speech, in time that moves when told to."""

import asyncio
import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.audio.pcm import Float32
from labkit.client.speech import Clock, chunk_samples, speak, spoken_ns

MS = 1_000_000


@dataclass
class Time:
    """Moves while somebody sleeps, by `late_ns` more than asked for."""

    now_ns: int = 5 * MS
    late_ns: int = 0
    slept: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_ns += round(seconds * 1e9) + self.late_ns

    def clock(self, speed: int = 1) -> Clock:
        return Clock(speed, lambda: self.now_ns, self.sleep)


@dataclass
class Sent:
    """What was sent, and when."""

    time: Time
    takes_ns: int = 0
    at_ms: list[float] = field(default_factory=list)
    samples: list[Float32] = field(default_factory=list)

    async def __call__(self, chunk: Float32) -> None:
        self.at_ms.append(self.time.now_ns / MS)
        self.samples.append(chunk)
        self.time.now_ns += self.takes_ns


def ramp(samples: int) -> Float32:
    return np.arange(samples, dtype=np.float32)


async def test_a_chunk_goes_out_once_its_last_sample_was_spoken() -> None:
    time = Time()
    sent = Sent(time)
    await speak(ramp(1600), sent, chunk_ms=40, clock=time.clock())
    assert sent.at_ms == [45, 85, 105]
    assert [len(chunk) for chunk in sent.samples] == [640, 640, 320]


@pytest.mark.parametrize(("late_ms", "takes_ms"), [(3, 0), (0, 30), (3, 30)])
async def test_what_is_late_makes_nothing_else_late(late_ms: int, takes_ms: int) -> None:
    time = Time(late_ns=late_ms * MS)
    sent = Sent(time, takes_ns=takes_ms * MS)
    await speak(ramp(16_000), sent, chunk_ms=40, clock=time.clock())
    due = [5 + 40 * (number + 1) for number in range(25)]
    late = [at - one for at, one in zip(sent.at_ms, due, strict=True)]
    assert late == [late_ms] * 25


async def test_what_was_held_up_catches_up() -> None:
    time = Time()
    sent = Sent(time, takes_ns=100 * MS)
    await speak(ramp(1920), sent, chunk_ms=40, clock=time.clock())
    assert sent.at_ms == [45, 145, 245]
    assert time.slept == [0.04, 0, 0]


@pytest.mark.parametrize(("pace", "at_ms"), [(2.0, [25, 45]), (0.5, [85, 165]), (0, [5, 5])])
async def test_another_pace(pace: float, at_ms: list[float]) -> None:
    time = Time()
    sent = Sent(time)
    await speak(ramp(1280), sent, chunk_ms=40, pace=pace, clock=time.clock())
    assert sent.at_ms == at_ms


async def test_a_start_that_is_given_and_a_faster_clock() -> None:
    time = Time(now_ns=10 * MS)
    sent = Sent(time)
    await speak(ramp(640), sent, chunk_ms=40, clock=time.clock(speed=10), start_ns=200 * MS)
    assert sent.at_ms == [24]  # 240 ms of a clock that runs ten times as fast


async def test_the_clock_tells_by_how_much_it_woke_too_late() -> None:
    time = Time(late_ns=2 * MS)
    clock = time.clock()
    assert await clock.sleep_until(time.now_ns + 10 * MS) == 2 * MS
    assert await clock.sleep_until(0) == 2 * MS, "what was past already does not count"


@given(st.integers(0, 5000), st.floats(1, 200))
def test_samples_and_milliseconds_agree(samples: int, chunk_ms: float) -> None:
    assert spoken_ns(samples) == samples * 62_500
    assert abs(chunk_samples(chunk_ms) - chunk_ms * 16) <= 0.5


async def test_sleep_ends_at_or_after_the_instant() -> None:
    clock = Clock()
    due = clock.now_ns() + 2_000_000
    late = await clock.sleep_until(due)
    assert clock.now_ns() >= due + late
    assert late >= 0


async def test_what_was_past_already_is_not_the_loop_s_lateness() -> None:
    clock = Clock()
    start = clock.now_ns()
    late = await clock.sleep_until(start - 10**15)
    assert 0 <= late <= clock.now_ns() - start


async def test_a_block_may_take_seconds_of_the_clock() -> None:
    with pytest.raises(TimeoutError):
        async with Clock(speed=1000).timeout(5):
            await asyncio.Event().wait()


@pytest.mark.parametrize("chunk_ms", [0, -5, 0.01, 60_001, 1e9, math.inf, math.nan])
async def test_a_chunk_that_cannot_be_is_refused(chunk_ms: float) -> None:
    with pytest.raises(ValueError, match="at least one sample, and a minute at most"):
        await speak(ramp(640), Sent(Time()), chunk_ms=chunk_ms)


@pytest.mark.parametrize("pace", [-1, math.nan])
async def test_nobody_speaks_backwards(pace: float) -> None:
    with pytest.raises(ValueError, match="the pace must be at least 0"):
        await speak(ramp(640), Sent(Time()), pace=pace)
