"""Who is served next by an engine: whoever's work is due first.

An engine serves one call at a time: llama.cpp crashes or freezes under concurrent calls on one
context (llama-cpp-python issues 471, 1529, 1995), and two calls at once on few cores cost far
more than one after the other. So each engine has one worker thread, and an `EngineQueue` before
it. Who is next is decided by `DeadlineQueue`, which knows no clock but the one that it is told.
And the engines share the cores: where there are fewer than engines, `Cores` lets those calls wait
that are due last.

Callers can wait for unlike times. Who has just stopped speaking hears nothing; who hears a reply
has seconds of it in hand (`Playback`); for work ahead nobody waits at all. Were calls served in the
order in which they come, the fourth caller's first sound would wait for three whole replies that
nobody can hear yet.

=====================================  ============================================
work                                   is due
=====================================  ============================================
for a client that is about to run out  before all first sounds
towards a reply's first sound          when the utterance ended
towards a later sentence               shortly before the client's audio runs out
ahead of the end of an utterance       after everything else, until it has waited long
=====================================  ============================================

Who hears a reply hears each gap in it; who waits for one to begin hears nothing yet. So where there
is more to do than can be done, replies begin later, and those that have begun go on.
"""

import asyncio
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Final, Generic, TypeVar

T = TypeVar("T")

Stop = threading.Event
"""Set when the caller no longer wants the result: the engine stops at its next step."""

Ticket = asyncio.Future[None]

Due = Callable[[int], int | None]
"""Says, at the time that it is told, when the result of work is needed, both on a monotonic clock
in nanoseconds; None of work ahead, for which nobody waits. It is asked again and again: while work
waits, somebody may begin to wait for it, and a client may get more to hear."""

PATIENCE_S: Final = 2.0
"""Work ahead that has waited for so long is due."""
_FURTHEST_S: Final = 15.0
"""Work counts as due within so many seconds, before or after it came, whatever its caller says."""
_HEAD_START_S: Final = 2.5
"""So long before a client's audio runs out, more is due: writing and speaking take their time."""
_NICER: Final = 5
"""Steps of priority that engines are below the event loop: a third of its share of a core."""
_RUNS_OUT_S: Final = 2.0
"""A client with less audio in hand is about to run out. Of eight callers of real models, more than
two cores can serve, a third fewer run dry than with 1 s, and four are heard as soon."""


@dataclass(slots=True, eq=False)
class Work(Generic[T]):
    """Something that waits to be served."""

    item: T
    owner: str
    """The session that it belongs to."""
    due: Due
    came_ns: int
    """When it began to wait."""

    def rank(self, now_ns: int) -> tuple[bool, int]:
        """What goes first has the lower rank; of work ahead, none goes before the other."""
        due_ns = self.due(now_ns)
        if due_ns is None:
            due_ns = self.came_ns + round(PATIENCE_S * 1e9)
            if now_ns < due_ns:
                return True, 0
        furthest_ns = round(_FURTHEST_S * 1e9)
        return False, max(self.came_ns - furthest_ns, min(due_ns, self.came_ns + furthest_ns))


class DeadlineQueue(Generic[T]):
    """Work in the order in which it is due.

    Of work that is due in the same instant, and of work ahead, each owner has one piece served in
    a round, and an owner's own goes in the order in which it came.

    No wait is without an end. Work is due at the latest 15 s after it came (work ahead after its
    patience), and nothing counts as due more than 15 s before it came. So what comes more than
    30 s later goes behind it, and it waits at most for what was there before.
    """

    def __init__(self) -> None:
        self._waiting: list[Work[T]] = []
        self._places: dict[str, int] = {}
        """Owners that wait, by their place in the round."""
        self._next_place = count()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, item: T, owner: str, due: Due, now_ns: int) -> None:
        """Let `item` wait."""
        self._waiting.append(Work(item, owner, due, now_ns))
        self._places.setdefault(owner, next(self._next_place))

    def first(self, now_ns: int) -> Work[T] | None:
        """What is served next."""

        def place(work: Work[T]) -> tuple[tuple[bool, int], int]:
            return work.rank(now_ns), self._places[work.owner]

        return min(self._waiting, key=place, default=None)

    def take(self, now_ns: int) -> Work[T] | None:
        """What is served next; it waits no longer."""
        if (first := self.first(now_ns)) is not None:
            self._waiting.remove(first)
            del self._places[first.owner]
            if any(work.owner == first.owner for work in self._waiting):
                self._places[first.owner] = next(self._next_place)
        return first

    def discard(self, item: T) -> None:
        """Let `item` wait no longer, if it does."""
        self._waiting = [work for work in self._waiting if work.item is not item]
        for owner in self._places.keys() - {work.owner for work in self._waiting}:
            del self._places[owner]


class Playback:
    """What a client that plays at once has in hand of a reply: what was sent less what was played.

    Attributes:
        runs_out_ns: When it has played everything, and before the first sound, when it began to
            wait; None while it does not wait.
    """

    def __init__(self, waits_since_ns: int | None = None) -> None:
        self.runs_out_ns = self._since_ns = waits_since_ns
        self._begun = False
        self._paused_ns: int | None = None

    def wait_from(self, now_ns: int) -> None:
        """From now on the client waits for the first sound."""
        self.runs_out_ns = self._since_ns = now_ns

    def pause(self, now_ns: int) -> None:
        """The client plays no further, and keeps what it has."""
        self._paused_ns = self._at(now_ns)

    def go_on(self, now_ns: int) -> None:
        """It plays on where it was."""
        if self._begun and self.runs_out_ns is not None:
            self.runs_out_ns += now_ns - self._at(now_ns)
        self._paused_ns = None

    def _at(self, now_ns: int) -> int:
        return now_ns if self._paused_ns is None else self._paused_ns

    def due(self, now_ns: int, made_ns: int = 0) -> int | None:
        """When the next audio should be in the making.

        Behind a short first clause, the second is as urgent as that was, and where the client is
        about to run out, more urgent than any.

        Args:
            now_ns: The time now.
            made_ns: Length of what is in the making already and comes before it.
        """
        if self.runs_out_ns is None or self._since_ns is None:
            return None
        if not self._begun and not made_ns:
            return self._since_ns
        runs_out_ns = self.runs_out_ns + now_ns - self._at(now_ns) + made_ns
        if self.is_short(now_ns, made_ns):
            return runs_out_ns - round(_FURTHEST_S * 1e9)
        return max(self._since_ns, runs_out_ns - round(_HEAD_START_S * 1e9))

    def is_short(self, now_ns: int, made_ns: int = 0) -> bool:
        """Whether the client, which plays, is about to run out; arguments as those of `due`."""
        if self.runs_out_ns is None or not self._begun:
            return False
        return self.runs_out_ns + made_ns - self._at(now_ns) < _RUNS_OUT_S * 1e9

    def produced(self, seconds: float, now_ns: int) -> bool:
        """So much more audio was made; gives whether it came too late."""
        now_ns = self._at(now_ns)
        if self.runs_out_ns is None:
            self.wait_from(now_ns)
        before_ns = self.runs_out_ns or now_ns
        late = self._begun and now_ns > before_ns
        self.runs_out_ns = max(now_ns, before_ns) + round(seconds * 1e9)
        self._begun = True
        return late


class Cores:
    """So many calls at a time over several engines: those that are due first.

    Three engines at work on two cores have two thirds of a core each, also the one whose caller
    hears nothing yet. So a sentence that has time waits until a core is free.

    Attributes:
        queues: Those of the engines.
    """

    def __init__(self, calls: int) -> None:
        self._calls = calls
        self.queues: list[EngineQueue] = []

    def hand_out(self) -> None:
        """Let the most urgent work begin that can, and tell who should give way to the rest."""
        now_ns = time.perf_counter_ns()
        while sum(queue.at_hand is not None for queue in self.queues) < self._calls:
            ready = [(first.rank(now_ns), queue) for queue, first in self._idle(now_ns)]
            if not ready:
                break
            min(ready, key=lambda one: one[0])[1].serve(now_ns)
        held_up = [first.rank(now_ns) for _, first in self._idle(now_ns)]
        at_work = [queue for queue in self.queues if queue.at_hand is not None]
        for queue in self.queues:
            queue.note_urgent(held_up, now_ns)
            queue.alone = at_work == [queue]

    def _idle(self, now_ns: int) -> list[tuple["EngineQueue", Work[Ticket]]]:
        """Engines that could begin, each with what it would do."""
        idle = [queue for queue in self.queues if queue.at_hand is None]
        return [(q, first) for q in idle if (first := q.waiting.first(now_ns)) is not None]


def engine_thread(name: str) -> ThreadPoolExecutor:
    """One thread for an engine's work; what that starts of its own makes way like it."""
    return ThreadPoolExecutor(1, f"labkit-{name}", initializer=_make_way)


def _make_way() -> None:
    """Let the event loop's thread have a core when it wants one.

    It needs one for a millisecond, and an engine for a second: without this each `pong` waits until
    the system takes a core away from an engine. Only Linux gives each thread a priority of its own.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        nice = os.getpriority(os.PRIO_PROCESS, thread) + _NICER
        # A sandbox may forbid it, and a thread whose beginning fails takes no work at all.
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, nice)


class EngineQueue:
    """Runs an engine's blocking calls one at a time, outside the event loop, as they are due.

    One queue belongs to one event loop.

    Attributes:
        name: What its worker thread is called.
        waiting: The calls that wait.
        at_hand: The call that is served.
        alone: No other engine is at work on the same cores, so the call at hand may use them all.
        give_way: Work waits that should go before what is at hand. A call that can be taken up
            again looks at it between its steps, on the engine's thread.
        took_s: How long the last call took, in seconds; for its caller, right behind it.
    """

    def __init__(self, name: str, cores: Cores | None = None) -> None:
        """Make a queue; `cores` are those that its calls share with other engines'."""
        self.name = name
        self.waiting: DeadlineQueue[Ticket] = DeadlineQueue()
        self.at_hand: Work[Ticket] | None = None
        self.alone = False
        self.give_way = False
        self.took_s = 0.0
        self._cores = cores or Cores(1)
        self._cores.queues.append(self)
        self._worker = engine_thread(name)

    def __len__(self) -> int:
        """How many calls wait, the running one not counted."""
        return len(self.waiting)

    async def run(self, owner: str, due: Due, work: Callable[[Stop], T]) -> T:
        """Run `work` on the engine's thread when it is this caller's turn.

        Args:
            owner: The session that the work belongs to.
            due: Says when its result is needed.
            work: The blocking call. It is given a `Stop`, which is set when the caller was
                cancelled, and looks at it between its steps.

        Returns:
            What `work` returned. Whatever it raises is raised here.
        """
        async with self.turn(owner, due):
            return await self.call(work)

    @asynccontextmanager
    async def turn(self, owner: str, due: Due) -> AsyncIterator[None]:
        """Wait for this caller's turn, and hold it: inside, `call` may be used.

        For work that depends on what has come in while the caller waited; else there is `run`.
        """
        await self._wait(owner, due)
        try:
            yield
        finally:
            self._pass_on()

    async def call(self, work: Callable[[Stop], T]) -> T:
        """Run `work` on the engine's thread, while this caller holds the turn."""
        stop, begun_ns = Stop(), time.perf_counter_ns()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, work, stop)
        finally:
            stop.set()
            self.took_s = (time.perf_counter_ns() - begun_ns) / 1e9

    def tidy(self, work: Callable[[], None]) -> None:
        """Run `work` on the engine's thread behind the call at hand, and before the next one.

        A caller that was cancelled has left its call running, so it cannot tidy up itself.
        """
        with suppress(RuntimeError):  # the queue is closed: nothing is called any more
            self._worker.submit(work)

    async def _wait(self, owner: str, due: Due) -> None:
        ticket = asyncio.get_running_loop().create_future()
        self.waiting.add(ticket, owner, due, time.perf_counter_ns())
        self._cores.hand_out()
        try:
            await ticket
        except asyncio.CancelledError:
            # The turn may have been handed over in the very step in which the caller gave up.
            if ticket.done() and not ticket.cancelled():
                self._pass_on()
            self.waiting.discard(ticket)
            raise

    def _pass_on(self) -> None:
        self.at_hand = None
        self._cores.hand_out()

    def serve(self, now_ns: int) -> None:
        """Let the next call begin, if its caller did not give up in this very step of the loop."""
        work = self.waiting.take(now_ns)
        if work is not None and not work.item.done():
            self.at_hand = work
            work.item.set_result(None)

    def note_urgent(self, held_up: Sequence[tuple[bool, int]], now_ns: int) -> None:
        """Look whether something waits, here or for a core, that should go before the call at hand.

        What waits for a core is told by its ranks, `held_up`.
        """
        if self.at_hand is not None:
            own = self.waiting.first(now_ns)
            waiting = [*held_up, *([own.rank(now_ns)] if own else [])]
            self.give_way = any(rank < self.at_hand.rank(now_ns) for rank in waiting)

    def close(self) -> None:
        """Take no more work and drop what has not started. Does not wait for a running call."""
        self._worker.shutdown(wait=False, cancel_futures=True)
