"""Callers that speak at the pace of speech, and callers that only ping; each notes what it gets.

What a caller sends is due at an instant that follows from its script alone. Where a message
goes out late, because the server does not read or the event loop was busy, it was due no later
for that, and latencies count from when it was due. Counting from when it was sent would leave
out the very waits that matter ("coordinated omission", Tene 2013).

A caller waits for its answer before it speaks again, as people do: an utterance begins when the
timetable says, or once the answer to the one before is there, whichever is later. What that
delays shows as the seconds that a caller is behind its timetable. A caller that gives an answer
up, or whose connection is lost, calls again.
"""

import asyncio
import math
import random
import select
import selectors
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Final, Unpack

import numpy as np
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import WebSocketException

from labkit.audio.pcm import Float32
from labkit.client.answers import Deadlines
from labkit.client.dial import Reach, connected
from labkit.client.plain import VoiceClient
from labkit.client.speech import Clock, spoken_ns
from labkit.client.turn import ClientTurn
from labkit.errors import ClientError, ConnectError, ErrorCode, ProtocolError
from labkit.measure.plan import Script, Timetable, due_times
from labkit.trace import Mark

_NS: Final = 1_000_000_000
_TRY_AGAIN_LATER: Final = 1013
"""What servers send that take a caller only to turn it away (RFC 6455 registry)."""
_NOT_ANSWERED: Final = frozenset({ErrorCode.ENGINE_FAILED, ErrorCode.TOO_MANY_TURNS})
_PINGS_APART_S: Final = (0.015, 0.045)
"""A steady beat would always meet the same part of a caller's chunks."""
_PONG_S: Final = 30.0


def fine_loop() -> asyncio.AbstractEventLoop:
    """An event loop that sleeps to some 0.1 ms.

    The ordinary loop of Linux rounds every sleep up to a whole millisecond, the unit of
    `epoll_wait`. That is longer than a ping over the loopback takes, so latencies measured from
    when something was due would mostly be the instrument's own. `kqueue` does not round.
    """
    if sys.platform != "linux":
        return asyncio.new_event_loop()
    return asyncio.SelectorEventLoop(_FineSelector())


if sys.platform == "linux":

    class _FineSelector(selectors.EpollSelector):
        """Waits with `select`, which counts microseconds, for epoll's own descriptor."""

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if timeout is not None and timeout > 0:
                select.select([self.fileno()], [], [], timeout)
                timeout = 0
            return super().select(timeout)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """How callers behave.

    Attributes:
        pause_s: Time between two utterances, in which the answer has to come.
        ping_every_s: Time between two pings.
        patience_s: After this time an answer is given up as lost.
        stream: Whether they ask for replies as these are made.
    """

    chunk_ms: int = 40
    pause_s: float = 1.0
    ping_every_s: float = 1.0
    patience_s: float = 10.0
    stream: bool = True


@dataclass(slots=True)
class CallLog:
    """Everything that one caller noted in one level.

    Attributes:
        turns_ns: From when each `end_stream` was due to its answer: the first audio of the reply,
            or the end of one without audio.
        turns_silent: Of those, the ones without audio.
        turns_lost: Turns that were due within the level, and given up, failed, or cut off.
        pings_ns: From when each `ping` was due to its `pong`.
        pings_lost: Pings that were due within the level, and had none.
        lateness_ns: By how much the event loop of the callers woke them too late, each time.
        errors: What went wrong, by code.
        refused: Whether the server did not take the caller.
        behind_ns: By how much the next utterance was later than the timetable, at the end.
    """

    turns_ns: list[int] = field(default_factory=list)
    turns_silent: int = 0
    turns_lost: int = 0
    pings_ns: list[int] = field(default_factory=list)
    pings_lost: int = 0
    lateness_ns: list[int] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    refused: bool = False
    behind_ns: int = 0


class Caller:
    """One caller for the length of one level; `connect` first, and `hang_up` in the end."""

    def __init__(
        self,
        url: str,
        script: Script,
        recorded: Sequence[Float32],
        manners: Manners,
        clock: Clock,
    ) -> None:
        """Say to `url` what `script` tells out of `recorded`, mono at 16 kHz."""
        self.log = CallLog()
        self._url = url
        self._script = script
        self._recorded = recorded
        self._manners = manners
        self._source = clock
        self._clock = replace(clock, sleep=self._sleep)
        self._line = AsyncExitStack()
        self._client: VoiceClient | None = None
        self._timetable = Timetable(0, round(manners.pause_s * _NS))

    async def _sleep(self, seconds: float) -> None:
        """Sleep, and note by how much the event loop woke the caller too late."""
        due_ns = self._source.source() + round(seconds * _NS)
        await self._source.sleep(seconds)
        self.log.lateness_ns.append((self._source.source() - due_ns) * self._source.speed)

    async def connect(self) -> None:
        """Call; where the server does not take the caller, that is noted."""
        deadlines = Deadlines(answer_s=self._manners.patience_s / self._clock.speed)
        connecting = VoiceClient.connect(
            self._url, stream=self._manners.stream, deadlines=deadlines, clock=self._clock
        )
        try:
            self._client = await self._line.enter_async_context(connecting)
        except ConnectError:
            self._client, self.log.refused = None, True

    async def hang_up(self) -> None:
        """End the connection, if there is one."""
        await self._line.aclose()

    async def call(self, begin_ns: int, end_ns: int) -> "CallLog":
        """Speak and ping from `begin_ns` on, and note what comes.

        A turn counts where its `end_stream` is due before `end_ns`; an utterance that would
        last longer is broken off there. Answers that are open by then are waited for, as long as
        the patience lasts.
        """
        pings = due_times(begin_ns + self._script.ping_phase_ns, self._manners.ping_every_s, end_ns)
        self._timetable.due_ns = begin_ns + self._script.phase_ns
        try:
            async with self._until(end_ns + round(self._manners.patience_s * _NS)):
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._ping(pings))
                    await self._speak(end_ns)
        except TimeoutError:  # what is open is lost
            self._timetable.free(self._clock.now_ns())
        self.log.behind_ns = self._timetable.behind_ns
        if not self.log.refused:
            self.log.pings_lost = len(pings) - len(self.log.pings_ns)
        return self.log

    def _until(self, at_ns: int) -> asyncio.Timeout:
        return self._clock.timeout((at_ns - self._clock.now_ns()) / _NS)

    async def _speak(self, end_ns: int) -> None:
        start_ns = self._timetable.due_ns
        chunk_ms = self._manners.chunk_ms
        for samples in self._script.speeches(self._recorded, chunk_ms):
            said_ns = start_ns + spoken_ns(len(samples))
            if said_ns >= end_ns:
                with suppress(TimeoutError, ClientError, ProtocolError):
                    async with self._until(end_ns):
                        await self._say(samples, start_ns)
                return
            self._timetable.said(said_ns - start_ns)
            self.log.turns_lost += 1  # until it is answered, whatever ends the wait for that
            try:
                self._note(await self._say(samples, start_ns), said_ns)
            except (ClientError, ProtocolError) as error:
                await self._call_again(error)
            if self._client is None:
                return
            start_ns = self._timetable.free(self._clock.now_ns())

    async def _say(self, samples: Float32, start_ns: int) -> ClientTurn:
        assert self._client is not None, "whoever is not connected does not speak"
        chunk_ms = self._manners.chunk_ms
        return await self._client.say(samples, chunk_ms=chunk_ms, start_ns=start_ns)

    def _note(self, turn: ClientTurn, due_ns: int) -> None:
        """Note an answer, and count the turn as lost no longer."""
        for error in turn.errors:
            self.log.errors[str(error.code)] += error.count
        if _NOT_ANSWERED.isdisjoint(error.code for error in turn.errors):
            marks = turn.trace.marks
            self.log.turns_silent += Mark.FIRST_AUDIO_RECEIVED not in marks
            answered_ns = marks.get(Mark.FIRST_AUDIO_RECEIVED, marks[Mark.REPLY_RECEIVED])
            self.log.turns_ns.append(answered_ns - due_ns)
            self.log.turns_lost -= 1

    async def _call_again(self, error: ClientError | ProtocolError) -> None:
        """A turn was lost: note why, and begin anew, so that no late answer is taken for another.

        A caller whom the server did not take has no turns to lose, and does not call again.
        """
        code = None if self._client is None else self._client.closed_with
        self._client = None
        if code == _TRY_AGAIN_LATER:
            self.log.refused, self.log.turns_lost = True, 0
            return
        if isinstance(error, ProtocolError):
            self.log.errors["not_understood"] += 1
        elif code is not None:
            self.log.errors[f"closed_{code}"] += 1
        await self.hang_up()
        await self.connect()

    async def _ping(self, due: range) -> None:
        for due_ns in due:
            await self._clock.sleep_until(due_ns)
            with suppress(ClientError):
                if self._client is not None:
                    await self._client.ping()
                    self.log.pings_ns.append(self._clock.now_ns() - due_ns)


# -- one that only pings -----------------------------------------------------------------------


@dataclass(slots=True)
class Pings:
    """Round trips of an honest caller beside something else: how long others are kept waiting.

    Each counts from when it was due, so that a server which stands still for a second is seen to
    do so by every ping of that second.
    """

    ms: list[float] = field(default_factory=list)
    """Each in milliseconds."""
    longest_trip_ms: float = 0.0
    """The longest from when it was sent: on a server with more work than it can do, waits add up,
    and each trip by itself tells how long its loop was held."""
    lost: int = 0
    """Times that the caller lost its connection, or got no answer."""
    until_ns: float = math.inf
    """Those that are due before are all waited for."""

    @property
    def worst_ms(self) -> float:
        """The longest; infinite where one was lost, or none was sent."""
        return math.inf if self.lost or not self.ms else max(self.ms)

    @property
    def p99_ms(self) -> float:
        """99th percentile; infinite likewise."""
        return math.inf if self.lost or not self.ms else float(np.percentile(self.ms, 99))

    def require_answers(self) -> None:
        """Make sure that none was lost.

        Raises:
            ClientError: One was.
        """
        if self.lost:
            raise ClientError("a caller that only pinged was lost, or had no answer")


@asynccontextmanager
async def pinging(url: str, pings: Pings, **reach: Unpack[Reach]) -> AsyncIterator[None]:
    """Let an honest caller ping the server at `url`, from the begin of the block to its end.

    It runs in a thread with an event loop of its own: what other clients do in this one must not
    count.
    """
    loop, there = asyncio.get_running_loop(), asyncio.Event()
    pings.until_ns = math.inf
    call = _call(url, pings, reach, lambda: loop.call_soon_threadsafe(there.set))
    caller = asyncio.create_task(asyncio.to_thread(asyncio.run, call))
    try:
        await there.wait()
        yield
    finally:
        pings.until_ns = time.perf_counter_ns()
        await caller


async def _call(url: str, pings: Pings, reach: Reach, there: Callable[[], object]) -> None:
    """Connect, say that the caller is `there`, and ping; also where nobody answers."""
    try:
        async with connected(url, **reach) as socket:
            there()
            await _ping(socket, pings)
    except (ClientError, TimeoutError, WebSocketException):
        pings.lost += 1
    finally:
        there()


async def _ping(socket: ClientConnection, pings: Pings) -> None:
    rng, due_ns = random.Random(), time.perf_counter_ns()
    while True:
        held_up = time.perf_counter_ns() >= due_ns  # the answer before came so late
        await asyncio.sleep(max(0.0, (due_ns - time.perf_counter_ns()) / 1e9))
        if due_ns >= pings.until_ns:
            return
        sent_ns = time.perf_counter_ns()
        await socket.send("ping")
        async with asyncio.timeout(_PONG_S):
            while await socket.recv() != "pong":
                pass
        trip_ms = (time.perf_counter_ns() - sent_ns) / 1e6
        # That a sleep lasted too long is this machine's doing, and not the server's.
        pings.ms.append(trip_ms + (held_up and (sent_ns - due_ns) / 1e6))
        pings.longest_trip_ms = max(pings.longest_trip_ms, trip_ms)
        due_ns += round(rng.uniform(*_PINGS_APART_S) * 1e9)
