"""The fair queue: one at a time, in fair order, and nothing lost when callers give up."""

import asyncio
import threading

import pytest

from labkit.voice.scheduling import FairQueue, Priority, Stop


class Gate:
    """Work that waits on the engine's thread until it is let go."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.go = threading.Event()
        self.stopped = False

    def __call__(self, stop: Stop) -> None:
        self.started.set()
        while not self.go.wait(0.005):
            if stop.is_set():
                self.stopped = True
                return


async def held(queue: FairQueue) -> tuple[Gate, asyncio.Task[None]]:
    """A queue whose engine is at work until the gate is opened."""
    gate = Gate()
    task = asyncio.create_task(queue.run("holder", Priority.FINAL, gate))
    await asyncio.to_thread(gate.started.wait)
    return gate, task


async def order_of(jobs: list[tuple[str, Priority]]) -> list[str]:
    """The order in which jobs that queued up behind a running one are served."""
    queue = FairQueue("test")
    gate, holder = await held(queue)
    served: list[str] = []
    tasks = []
    for number, (owner, priority) in enumerate(jobs):
        name = f"{owner}{number}"
        tasks.append(
            asyncio.create_task(queue.run(owner, priority, lambda _, n=name: served.append(n)))
        )
        await asyncio.sleep(0)
    gate.go.set()
    await asyncio.gather(holder, *tasks)
    queue.close()
    return served


async def test_sessions_take_turns() -> None:
    final = Priority.FINAL
    jobs = [("a", final), ("a", final), ("a", final), ("b", final), ("c", final)]
    assert await order_of(jobs) == ["a0", "b3", "c4", "a1", "a2"]


async def test_final_work_overtakes_speculative_work() -> None:
    jobs = [("a", Priority.SPECULATIVE), ("b", Priority.SPECULATIVE), ("c", Priority.FINAL)]
    assert await order_of(jobs) == ["c2", "a0", "b1"]


async def test_result_and_error_reach_the_caller() -> None:
    queue = FairQueue("test")
    assert await queue.run("a", Priority.FINAL, lambda _: 42) == 42

    def fail(_: Stop) -> None:
        raise ValueError("the engine said no")

    with pytest.raises(ValueError, match="the engine said no"):
        await queue.run("a", Priority.FINAL, fail)
    assert await queue.run("a", Priority.FINAL, lambda _: "still serving") == "still serving"
    queue.close()


async def test_cancelled_work_is_told_to_stop_and_the_next_is_served() -> None:
    queue = FairQueue("test")
    gate, holder = await held(queue)
    holder.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holder
    assert await queue.run("b", Priority.FINAL, lambda _: "served") == "served"
    assert gate.stopped
    queue.close()


async def test_a_caller_that_gives_up_while_waiting_is_skipped() -> None:
    queue = FairQueue("test")
    gate, holder = await held(queue)
    gone = asyncio.create_task(queue.run("a", Priority.FINAL, lambda _: "never"))
    next_one = asyncio.create_task(queue.run("b", Priority.FINAL, lambda _: "served"))
    await asyncio.sleep(0)
    assert len(queue) == 2
    gone.cancel()
    await asyncio.sleep(0)
    assert len(queue) == 1
    gate.go.set()
    await holder
    assert await next_one == "served"
    assert gone.cancelled()
    queue.close()


async def test_a_caller_cancelled_in_the_step_it_was_served_passes_its_turn_on() -> None:
    queue = FairQueue("test")
    gate, holder = await held(queue)
    unlucky = asyncio.create_task(queue.run("a", Priority.FINAL, lambda _: "never"))
    next_one = asyncio.create_task(queue.run("b", Priority.FINAL, lambda _: "served"))
    await asyncio.sleep(0)
    holder.add_done_callback(lambda _: unlucky.cancel())
    gate.go.set()
    await holder
    assert await next_one == "served"
    assert unlucky.cancelled()
    queue.close()
