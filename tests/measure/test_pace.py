"""The clock of paced callers, and a loop that sleeps to fractions of a millisecond."""

import asyncio

import pytest

from labkit.measure.pace import Pace, fine_loop


async def test_sleep_ends_at_or_after_the_instant() -> None:
    pace = Pace()
    due = pace.now_ns() + 2_000_000
    late = await pace.sleep_until(due)
    assert pace.now_ns() >= due + late
    assert late >= 0


async def test_what_was_past_already_is_not_the_loop_s_lateness() -> None:
    pace = Pace()
    start = pace.now_ns()
    late = await pace.sleep_until(start - 10**15)
    assert 0 <= late <= pace.now_ns() - start


async def test_a_faster_clock_takes_less_real_time() -> None:
    readings = iter((7, 9))
    pace = Pace(speed=10, source=lambda: next(readings))
    assert await pace.sleep_until(0) == 90 - 70


async def test_a_block_may_take_seconds_of_the_clock() -> None:
    with pytest.raises(TimeoutError):
        async with Pace(speed=1000).timeout(5):
            await asyncio.Event().wait()


def test_the_fine_loop_sleeps_waits_and_talks() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(4))
        writer.close()
        await writer.wait_closed()

    async def talk() -> bytes:
        pace = Pace()
        assert await pace.sleep_until(pace.now_ns() + 300_000) >= 0
        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"ping")
            said = await reader.readexactly(4)
            writer.close()
            await writer.wait_closed()
            return said

    with asyncio.Runner(loop_factory=fine_loop) as runner:
        assert runner.run(talk()) == b"ping"
