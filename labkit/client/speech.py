"""Speaking at the pace of speech: when each chunk is due, and waiting until then.

A microphone gives a chunk once its last sample has been spoken, never before. `speak` does the
same with a recording. What is due follows from the first instant and the samples alone, so a
chunk that went out late makes no later one late, and the pace does not drift.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from labkit.audio.pcm import SAMPLE_RATE, Float32, chunks

_LONGEST_CHUNK: Final = 60 * SAMPLE_RATE
"""Samples; the last chunk is filled with silence, which has to fit into the memory."""


@dataclass(frozen=True, slots=True)
class Clock:
    """The clock that a client or a proxy goes by, and how to wait for it."""

    speed: int = 1
    """Seconds of this clock per real second; above 1, a rehearsal takes less time."""
    source: Callable[[], int] = time.perf_counter_ns
    """Real monotonic nanoseconds."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    """Waits for so many real seconds."""

    def now_ns(self) -> int:
        """Nanoseconds of this clock."""
        return self.source() * self.speed

    async def sleep_until(self, due_ns: int) -> int:
        """Sleep until the clock says `due_ns`; where that is past, only let others run.

        Returns:
            By how much the event loop woke the caller too late, in nanoseconds. What was past
            already as the caller went to sleep does not count.
        """
        asked_ns = self.now_ns()
        await self.sleep(max(0, due_ns - asked_ns) / 1e9 / self.speed)
        return self.now_ns() - max(asked_ns, due_ns)

    def timeout(self, seconds: float) -> asyncio.Timeout:
        """A block that may take `seconds` of this clock, then raises `TimeoutError`."""
        return asyncio.timeout(seconds / self.speed)


def chunk_samples(chunk_ms: float) -> int:
    """Samples of a chunk that lasts `chunk_ms` milliseconds at 16 kHz.

    Raises:
        ValueError: That is not a single one, or more than a minute.
    """
    samples = chunk_ms * SAMPLE_RATE / 1000
    if not 0.5 < samples <= _LONGEST_CHUNK:
        raise ValueError(
            f"a chunk needs at least one sample, and a minute at most, got chunk_ms={chunk_ms:g}"
        )
    return round(samples)


def spoken_ns(samples: int, pace: float = 1.0) -> int:
    """Nanoseconds that `samples` samples take at `pace` times the pace of speech."""
    return round(samples * 1e9 / SAMPLE_RATE / pace)


async def speak(
    samples: Float32,
    send: Callable[[Float32], Awaitable[object]],
    *,
    chunk_ms: float = 40.0,
    pace: float = 1.0,
    clock: Clock | None = None,
    start_ns: int | None = None,
) -> None:
    """Give `send` each chunk of `samples` once its last sample has been spoken.

    Args:
        samples: Mono, 16 kHz.
        send: Is given each chunk, the last of which may be shorter.
        chunk_ms: Length of a chunk, in milliseconds.
        pace: Times the pace of speech; 0 sends at once.
        clock: What to go by.
        start_ns: When the first sample is spoken; now, where it is not given.

    Raises:
        ValueError: `chunk_ms` is no length of a chunk, or `pace` is below 0.
    """
    if not pace >= 0:
        raise ValueError(f"the pace must be at least 0, got {pace:g}")
    clock = clock or Clock()
    start_ns = clock.now_ns() if start_ns is None else start_ns
    spoken = 0
    for chunk in chunks(samples, chunk_samples(chunk_ms)):
        spoken += len(chunk)
        if pace:
            await clock.sleep_until(start_ns + spoken_ns(spoken, pace))
        await send(chunk)
