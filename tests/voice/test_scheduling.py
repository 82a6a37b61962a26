"""Queues by deadline: who is served next, that nobody starves, and that nothing is lost."""

import asyncio
import os
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from labkit.voice.scheduling import (
    PATIENCE_S,
    Cores,
    DeadlineQueue,
    Due,
    EngineQueue,
    Playback,
    Stop,
)

SECOND: Final = 10**9
MOST_OVERTAKEN_S: Final = 30
"""What comes so much later than other work never goes before it: nobody starves."""


def at(due_s: float | None) -> Due:
    """Due at that second, or never."""
    return lambda _: None if due_s is None else round(due_s * SECOND)


def served(queue: DeadlineQueue[str], now_s: float = 0) -> list[str]:
    """Everything that waits, in the order in which it is served at `now_s`."""
    order = []
    while (work := queue.take(round(now_s * SECOND))) is not None:
        order.append(work.item)
    return order


def waiting(*works: tuple[str, float | None]) -> DeadlineQueue[str]:
    """A queue of work that came at 0 s: names, which begin with the owner, and seconds."""
    queue: DeadlineQueue[str] = DeadlineQueue()
    for name, due_s in works:
        queue.add(name, name[0], at(due_s), 0)
    return queue


def test_what_is_due_first_is_served_first() -> None:
    queue = waiting(("a later sentence", 4), ("b first sound", -0.5), ("c first sound", -1))
    assert served(queue) == ["c first sound", "b first sound", "a later sentence"]


def test_work_ahead_goes_behind_all_that_is_due_until_its_patience_is_over() -> None:
    works: list[tuple[str, float | None]] = [("a ahead", None), ("b in hand", 9), ("c due", 0)]
    assert served(waiting(*works)) == ["c due", "b in hand", "a ahead"]
    assert served(waiting(*works), PATIENCE_S) == ["c due", "a ahead", "b in hand"]


@pytest.mark.parametrize("due_s", [0, 3, None])
def test_of_equals_each_owner_is_served_once_in_a_round(due_s: float | None) -> None:
    names = ["a1", "a2", "a3", "b1", "c1", "b2"]
    queue = waiting(*((name, due_s) for name in names))
    assert served(queue) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_work_ahead_that_somebody_begins_to_wait_for_is_served_as_if_it_were_due_before() -> None:
    queue, playback = waiting(("a later sentence", 4)), Playback()
    queue.add("b ahead", "b", playback.due, 0)
    first = queue.take(0)
    assert first is not None
    queue.add(first.item, "a", first.due, 0)
    playback.wait_from(SECOND)
    assert served(queue, 1) == ["b ahead", "a later sentence"]


def test_who_gave_up_is_not_served() -> None:
    queue = waiting(("a", 0), ("b", 0), ("c", 0))
    queue.discard("b")
    assert len(queue) == 2
    assert served(queue) == ["a", "c"]


@pytest.mark.parametrize("due_s", [None, 60.0, 15.0, 0.0])
def test_nobody_starves_whatever_the_others_claim(due_s: float | None) -> None:
    """One piece of work comes each second that is long overdue, and one is served."""
    queue, backlog = waiting(("victim", due_s)), 5
    for number in range(backlog):
        queue.add(f"flood {number}", "flood", at(-(10**6)), 0)
    for second in range(1, 100):
        queue.add("flood", str(second), at(-(10**6)), second * SECOND)
        work = queue.take(second * SECOND)
        assert work is not None
        if work.item == "victim":
            break
    assert second <= backlog + MOST_OVERTAKEN_S + 1


@dataclass(eq=False)
class Asked:
    """What a caller asked for, in the words of the test."""

    owner: str
    due_s: float | None
    came_s: float
    served_beside: list[str] = field(default_factory=list)
    """Owners of equals that went before it while it was its owner's next."""


class QueueRules(RuleBasedStateMachine):
    """Any callers at any time: the rules hold for whatever is served."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: DeadlineQueue[Asked] = DeadlineQueue()
        self.waiting: list[Asked] = []
        self.now_s = 0.0

    @property
    def now_ns(self) -> int:
        return round(self.now_s * SECOND)

    @rule(owner=st.sampled_from("abcd"), due_s=st.none() | st.sampled_from([-9.0, -1, 0, 1, 9, 99]))
    def ask(self, owner: str, due_s: float | None) -> None:
        asked = Asked(owner, None if due_s is None else self.now_s + due_s, self.now_s)
        self.queue.add(asked, owner, at(asked.due_s), self.now_ns)
        self.waiting.append(asked)

    @rule(seconds=st.sampled_from([0.0, 0.5, 1, 5, 40]))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(gone)
        self.queue.discard(gone)
        assert len(self.queue) == len(self.waiting)

    @rule()
    def serve(self) -> None:
        work = self.queue.take(self.now_ns)
        assert (work is None) == (not self.waiting)
        if work is None:
            return
        took = work.item
        self.waiting.remove(took)
        for other in self.waiting:
            self._right_order(took, other)
        self._fair(took)

    def _right_order(self, took: Asked, other: Asked) -> None:
        assert took.came_s <= other.came_s + MOST_OVERTAKEN_S
        if self._patient(took):
            assert self._patient(other)
        elif not self._patient(other):
            assert self._due(took) <= self._due(other)

    def _fair(self, took: Asked) -> None:
        equals = [o for o in self.waiting if self._same(o, took) and o.owner != took.owner]
        for owner in {one.owner for one in equals}:
            next_one = next(one for one in equals if one.owner == owner)
            assert took.owner not in next_one.served_beside
            next_one.served_beside.append(took.owner)

    def _patient(self, asked: Asked) -> bool:
        return asked.due_s is None and self.now_s < asked.came_s + PATIENCE_S

    def _due(self, asked: Asked) -> float:
        due_s = asked.came_s + PATIENCE_S if asked.due_s is None else asked.due_s
        return min(due_s, asked.came_s + MOST_OVERTAKEN_S / 2)

    def _same(self, one: Asked, other: Asked) -> bool:
        if self._patient(one) or self._patient(other):
            return self._patient(one) and self._patient(other)
        return self._due(one) == self._due(other)


TestQueueRules = QueueRules.TestCase
TestQueueRules.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.01, 5)), max_size=20))
def test_what_is_in_hand_is_what_was_sent_less_what_was_played(
    made: list[tuple[float, float]],
) -> None:
    """Against a client that plays in steps of time between what comes."""
    playback, now_s, in_hand_s, begun = Playback(0), 0.0, 0.0, False
    for later_s, seconds in made:
        now_s += later_s
        missed_s = later_s - in_hand_s
        in_hand_s = max(0.0, -missed_s)
        late = playback.produced(seconds, round(now_s * SECOND))
        if abs(missed_s) > 1e-6:
            assert late == (begun and missed_s > 0)
        begun = True
        in_hand_s += seconds
        assert playback.runs_out_ns == pytest.approx((now_s + in_hand_s) * SECOND, abs=100)


def test_the_first_sound_is_due_at_once_and_more_before_the_rest_is_played() -> None:
    playback = Playback(5 * SECOND)
    assert playback.due(5 * SECOND) == 5 * SECOND
    playback.produced(4.0, 6 * SECOND)
    due_ns = playback.due(6 * SECOND)
    assert due_ns is not None
    assert 6 * SECOND < due_ns < 10 * SECOND


def test_behind_a_short_first_clause_more_is_as_urgent_as_that_was() -> None:
    playback = Playback(5 * SECOND)
    assert playback.due(6 * SECOND, SECOND) == 5 * SECOND
    playback.produced(2.25, 5 * SECOND)
    assert playback.due(5 * SECOND) == 5 * SECOND
    assert playback.due(5 * SECOND, 6 * SECOND) == pytest.approx(10.75 * SECOND)


def test_who_is_about_to_run_out_goes_before_first_sounds_but_not_for_ever() -> None:
    plays, waits, forgotten = Playback(0), Playback(SECOND), Playback(-20 * SECOND)
    plays.produced(4.0, 2 * SECOND)  # until 6 s
    queue: DeadlineQueue[str] = DeadlineQueue()

    def order(now_s: float) -> list[str]:
        for name, playback in (("waits", waits), ("plays", plays), ("forgotten", forgotten)):
            queue.add(name, name, playback.due, 0)
        return served(queue, now_s)

    assert order(3.9) == ["forgotten", "waits", "plays"]
    assert order(4.1) == ["forgotten", "plays", "waits"]


def test_who_was_made_to_pause_does_not_run_out() -> None:
    """Speech over a reply pauses it, and somebody else is served first meanwhile."""
    playback = Playback(0)
    playback.produced(5.0, 0)
    playback.pause(2 * SECOND)
    assert not playback.is_short(60 * SECOND)
    assert playback.due(60 * SECOND) == 60 * SECOND + SECOND // 2
    assert not playback.produced(1.0, 61 * SECOND)
    playback.go_on(62 * SECOND)
    assert playback.runs_out_ns == 66 * SECOND
    assert playback.is_short(65 * SECOND)


def test_work_ahead_is_not_due_whatever_was_made_of_it() -> None:
    playback = Playback()
    assert playback.due(0) is None
    assert playback.due(0, SECOND) is None


def due(seconds: float | None) -> Due:
    """So many seconds from now, on the queue's clock; None for work ahead."""
    return at(None if seconds is None else time.perf_counter() + seconds)


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


async def held(queue: EngineQueue) -> tuple[Gate, asyncio.Task[None]]:
    """A queue whose engine is at work until the gate is opened."""
    gate = Gate()
    task = asyncio.create_task(queue.run("holder", due(0), gate))
    await asyncio.to_thread(gate.started.wait)
    return gate, task


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives a thread its own priority")
async def test_engines_make_way_for_the_event_loop() -> None:
    def nice(_: object = None) -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    queue = EngineQueue("one")
    assert await queue.run("a", due(0), nice) == min(19, nice() + 5)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives a thread its own priority")
async def test_where_that_is_forbidden_they_work_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forbidden(*_: int) -> None:
        raise PermissionError("not in this sandbox")

    monkeypatch.setattr(os, "setpriority", forbidden)
    assert await EngineQueue("one").run("a", due(0), lambda _: 42) == 42


async def test_calls_are_served_as_they_are_due() -> None:
    queue = EngineQueue("test")
    gate, holder = await held(queue)
    order: list[str] = []
    jobs = {"ahead": due(None), "later": due(1), "first": due(-1)}
    tasks = [
        asyncio.create_task(queue.run(name, needed, lambda _, n=name: order.append(n)))
        for name, needed in jobs.items()
    ]
    await asyncio.sleep(0)
    gate.go.set()
    await asyncio.gather(holder, *tasks)
    assert order == ["first", "later", "ahead"]
    queue.close()


async def test_who_is_served_is_told_to_give_way_to_what_is_due_sooner_only() -> None:
    queue = EngineQueue("test")
    async with queue.turn("a", due(1)):
        later = asyncio.create_task(queue.run("b", due(9), lambda _: None))
        ahead = asyncio.create_task(queue.run("c", due(None), lambda _: None))
        await asyncio.sleep(0)
        assert not queue.give_way
        sooner = asyncio.create_task(queue.run("d", due(0), lambda _: queue.give_way))
        await asyncio.sleep(0)
        assert queue.give_way
    await asyncio.gather(later, ahead)
    assert await sooner is False
    queue.close()


async def test_what_has_time_waits_for_a_core_and_what_can_gives_way_to_what_has_not() -> None:
    cores = Cores(2)
    model, voice, ear = (EngineQueue(name, cores) for name in ("model", "voice", "ear"))
    order: list[str] = []
    async with model.turn("a", due(9)), voice.turn("a", due(0)):
        later = asyncio.create_task(voice.run("b", due(8), lambda _: order.append("later")))
        await asyncio.sleep(0)
        assert not model.give_way  # what waits for a busy engine is not helped by another's core
        first = asyncio.create_task(ear.run("c", due(0), lambda _: order.append("first")))
        await asyncio.sleep(0)
        assert model.give_way
        assert not order
    await asyncio.gather(later, first)
    assert sorted(order) == ["first", "later"]
    async with model.turn("a", due(0)):
        pass
    assert not model.give_way
    for queue in (model, voice, ear):
        queue.close()


async def test_an_engine_knows_whether_it_works_alone() -> None:
    cores = Cores(2)
    model, voice, ear = (EngineQueue(name, cores) for name in ("model", "voice", "ear"))
    assert not model.alone
    async with model.turn("a", due(0)):
        assert model.alone
        async with voice.turn("b", due(0)):
            assert not model.alone
            assert not voice.alone
            third = asyncio.create_task(ear.run("c", due(9), lambda _: ear.alone))
            await asyncio.sleep(0)
            assert not model.alone
        assert not await third
        assert model.alone
    assert not model.alone
    for queue in (model, voice, ear):
        queue.close()


async def test_a_core_goes_to_what_is_due_first_whatever_its_engine() -> None:
    cores = Cores(1)
    model, voice = EngineQueue("model", cores), EngineQueue("voice", cores)
    order: list[str] = []
    async with model.turn("a", due(0)):
        tasks = [
            asyncio.create_task(queue.run(name, due(seconds), lambda _, n=name: order.append(n)))
            for name, queue, seconds in (
                ("third", model, 5), ("second", voice, 3), ("first", model, 1)
            )
        ]  # fmt: skip
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert order == ["first", "second", "third"]
    model.close()
    voice.close()


async def test_what_a_cancelled_call_leaves_is_tidied_up_before_the_next_call() -> None:
    queue = EngineQueue("test")
    order: list[str] = []
    gate, holder = await held(queue)
    following = asyncio.create_task(queue.run("b", due(0), lambda _: order.append("next")))
    await asyncio.sleep(0)
    queue.tidy(lambda: order.append("tidied"))
    holder.cancel()
    await following
    assert order == ["tidied", "next"]
    queue.close()
    queue.tidy(lambda: order.append("too late"))
    assert order == ["tidied", "next"]


async def test_result_and_error_reach_the_caller() -> None:
    queue = EngineQueue("test")
    assert await queue.run("a", due(0), lambda _: 42) == 42

    def fail(_: Stop) -> None:
        raise ValueError("the engine said no")

    with pytest.raises(ValueError, match="the engine said no"):
        await queue.run("a", due(0), fail)
    assert await queue.run("a", due(0), lambda _: "still serving") == "still serving"
    queue.close()


async def test_cancelled_work_is_told_to_stop_and_the_next_is_served() -> None:
    queue = EngineQueue("test")
    gate, holder = await held(queue)
    holder.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holder
    assert await queue.run("b", due(0), lambda _: "served") == "served"
    assert gate.stopped
    queue.close()


async def test_a_caller_that_gives_up_while_waiting_is_skipped() -> None:
    queue = EngineQueue("test")
    gate, holder = await held(queue)
    gone = asyncio.create_task(queue.run("a", due(0), lambda _: "never"))
    next_one = asyncio.create_task(queue.run("b", due(0), lambda _: "served"))
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
    queue = EngineQueue("test")
    gate, holder = await held(queue)
    unlucky = asyncio.create_task(queue.run("a", due(0), lambda _: "never"))
    next_one = asyncio.create_task(queue.run("b", due(0), lambda _: "served"))
    await asyncio.sleep(0)
    holder.add_done_callback(lambda _: unlucky.cancel())
    gate.go.set()
    await holder
    assert await next_one == "served"
    assert unlucky.cancelled()
    queue.close()
