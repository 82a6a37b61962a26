"""The drill `fuzz`: hostile clients against a server that has to bear them.

It promises that no message makes it fail: every answer is one of the dialect, nothing is left
behind, its event loop is never held up, and a client that behaves is served meanwhile and
afterwards as before.
"""

import asyncio
import itertools
import json
import random
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConcurrencyError, ConnectionClosed, WebSocketException

from labkit.client.dial import address_of, dial
from labkit.drills import Dialect, Finding, Verdict
from labkit.drills.answers import Answers, PlainAnswers, Tally, V1Answers
from labkit.drills.inputs import (
    LIMITS,
    Broken,
    Context,
    Hostile,
    Kind,
    break_bytes,
    draw,
    handshake,
    start_message,
)
from labkit.drills.target import (
    Vital,
    Vitals,
    fetch,
    log_faults,
    running_target,
    vitals_of,
    vitals_once,
    well_served,
)
from labkit.errors import ClientError, ConnectError
from labkit.measure.callers import Pings, pinging
from labkit.measure.results import Tell
from labkit.measure.server_process import RunningServer
from labkit.protocol import v1
from labkit.protocol.replay import Position
from labkit.tasks import Changes

_GROWTH_MB: Final = 5.0
"""Most that the server's memory may grow from the half of the messages to their end."""
_SETTLED: Final = 40_000
"""Messages from which on memory is judged; with fewer, the server still grows to its size."""
_HELD_MS: Final = 100.0
"""Longest that the server's loop may be held up, as the round trips of an honest caller show."""
_QUIET_S: Final = 20.0
"""Longest that sessions may take to go once their clients are gone."""
_PATIENCE_S: Final = 20.0
"""Longest that the server may take to answer the last message, or to hang up."""
_LATE_S: Final = 3.0
"""Longest that refusals may come behind the answer to the last message."""
_MEAN_MESSAGES: Final = 120
"""Messages of a connection that nobody ends before."""
_RAW_SHARE: Final = 0.2
_ABORTED_SHARE: Final = 0.4
_TICKETS: Final = 32

TARGET: Final[dict[str, Any]] = {
    "max_messages_per_s": 1e6,
    "message_burst": 1_000_000,
    "max_frames_per_s": 1e6,
    "frame_burst": 1_000_000,
    "max_audio_speed": 1e6,
    "max_read_bytes": LIMITS.max_read_bytes,
    "max_detached": 16,
    "resume_s": 2.0,
    "reap_interval_s": 0.25,
}
"""Settings of a server that is drilled: floods are let in, and what is left goes soon."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """Who attacks: `parallel` connections at a time, whose messages follow from `seed`."""

    seed: int
    dialects: tuple[Dialect, ...]
    parallel: int


@dataclass(frozen=True, slots=True)
class Fuzzed:
    """What a run found."""

    tally: Tally
    seconds: float
    before: Vitals
    """The server before the first message."""
    half: Vitals
    """The server after half of the messages, once no session was left."""
    after: Vitals
    """The server after all of them, likewise."""
    log_faults: list[str] | None
    """Lines of its log that tell of faults; None where it cannot be read."""
    served: dict[Dialect, str]
    """For each dialect, what was wrong with a good turn at the end; empty is good."""
    health: str
    """What was wrong with its health page."""
    pings: Pings
    """Round trips of an honest caller meanwhile."""


async def run_fuzz(url: str | None, messages: int, crowd: Crowd, tell: Tell) -> Verdict:
    """Run the drill against the server at `url`, or one of its own."""
    if url is not None:
        return judged(await fuzz(RunningServer(url), messages, crowd, tell), crowd)
    async with running_target(**TARGET) as server:
        with server.speaking_for_itself():  # where it has died of a message
            return judged(await fuzz(server, messages, crowd, tell), crowd)


async def fuzz(server: RunningServer, messages: int, crowd: Crowd, tell: Tell) -> Fuzzed:
    """Attack a server that runs with so many messages.

    Memory is compared between the half and the end: before, the server grows to its working
    size. Both times no session is left, so what remains is what was lost.

    Raises:
        ClientError: Nobody answers there.
    """
    address_of(server.url)  # fails now, and not in one connection of five
    attackers = _Attackers(server.url, crowd, lambda sent: tell("hostile messages", sent, messages))
    before = await vitals_of(server.url)
    to_go = _sessions_to_go(own=server.output is not None)
    pings, seconds, seen = Pings(), 0.0, []
    for part in (messages // 2, messages - messages // 2):
        start = time.perf_counter()
        async with pinging(server.url, pings):
            await attackers.send(part)
        seconds += time.perf_counter() - start
        seen.append(await vitals_once(server.url, lambda now: not now.get(to_go), _QUIET_S))
    return Fuzzed(
        attackers.tally,
        seconds,
        before,
        seen[0],
        seen[1],
        None if server.output is None else log_faults(server.log()),
        {dialect: await well_served(server.url, dialect) for dialect in crowd.dialects},
        await _health(server.url),
        pings,
    )


def _sessions_to_go(*, own: bool) -> str:
    """The figure of sessions that are gone once their clients are.

    A server with settings of its own may let some wait for longer whose clients may come back.
    """
    return Vital.SESSIONS if own else f"{Vital.SESSIONS} attached"


async def _health(url: str) -> str:
    try:
        status, text = await fetch(url, "/healthz")
    except ClientError as error:
        return str(error)
    return "" if (status, text) == (200, "alive\n") else f"HTTP {status}: {text[:80]}"


# -- what is found, beside what is promised ----------------------------------------------------


def judged(fuzzed: Fuzzed, crowd: Crowd) -> Verdict:
    """Hold what was found against what was promised. Pure."""
    tally, pings = fuzzed.tally, fuzzed.pings
    messages = tally.sent.total()
    return Verdict(
        f"{messages:,} hostile messages, seed {crowd.seed}",
        (
            Finding.told("messages", messages),
            Finding.told("messages a second", round(messages / fuzzed.seconds)),
            Finding.told("connections", tally.connections),
            Finding.told("sent", _counts(tally.sent)),
            Finding.told("answers", _counts(tally.answers)),
            Finding.told("errors", _counts(tally.codes)),
            Finding.told("closed by the server with", _counts(tally.closes)),
            Finding.none_of("answers outside of the dialect", tally.illegal),
            *Finding.examples(tally.examples),
            Finding.none_of("connections without an end", tally.stuck.total()),
            *Finding.examples(tally.stuck),
            Finding.none_of("pings of an honest caller that were lost", pings.lost),
            Finding.at_most("its longest round trip, ms", pings.longest_trip_ms, _HELD_MS),
            Finding.told("its pings", len(pings.ms)),
            *_log_findings(fuzzed.log_faults),
            *_left_behind(fuzzed),
            *(
                Finding(f"a good turn of {name.value}", wrong or "answered", "answered", not wrong)
                for name, wrong in fuzzed.served.items()
            ),
            Finding("/healthz", fuzzed.health or "alive", "alive", not fuzzed.health),
        ),
    )


def _counts(counter: Counter[str] | Counter[int]) -> str:
    return "\n".join(f"{name} {count:,}" for name, count in counter.most_common()) or "-"


def _log_findings(faults: list[str] | None) -> list[Finding]:
    if faults is None:
        return [Finding.told("faults in the log", "not seen: it is another process's")]
    return [Finding.none_of("faults in the log", len(faults)), *Finding.examples(faults[:3])]


def _left_behind(fuzzed: Fuzzed) -> Iterator[Finding]:
    """Sessions, open files and memory, where the server tells of them."""
    before, half, after = fuzzed.before, fuzzed.half, fuzzed.after
    for name, figure in (
        ("sessions left over", _sessions_to_go(own=fuzzed.log_faults is not None)),
        ("files left open", Vital.OPEN_FILES),
    ):
        if figure in after and figure in before:
            yield Finding.none_of(name, max(0, after[figure] - before[figure]))
    if Vital.RSS_BYTES in after and Vital.RSS_BYTES in half:
        name = "growth from the half to the end, MB"
        grown = (after[Vital.RSS_BYTES] - half[Vital.RSS_BYTES]) / 1e6
        settled = fuzzed.tally.sent.total() >= _SETTLED
        yield Finding.told("memory at the half, MB", half[Vital.RSS_BYTES] / 1e6)
        yield Finding.at_most(name, grown, _GROWTH_MB) if settled else Finding.told(name, grown)


# -- who attacks -------------------------------------------------------------------------------


class _Attackers:
    """Connections, several at a time, each with a script of its own; `tally` has what came."""

    def __init__(self, url: str, crowd: Crowd, tell: Callable[[int], None]) -> None:
        self.tally = Tally()
        self._url = url
        self._crowd = crowd
        self._tell = tell
        self._tickets: deque[v1.Resume] = deque(maxlen=_TICKETS)
        self._numbers = itertools.count()
        self._left = 0

    async def send(self, messages: int) -> None:
        """Send so many messages, over as many connections as it takes."""
        self._left = messages
        async with asyncio.TaskGroup() as group:
            for _ in range(self._crowd.parallel):
                group.create_task(self._work())

    async def _work(self) -> None:
        while self._left > 0:
            rng = random.Random(f"{self._crowd.seed}/{next(self._numbers)}")
            self.tally.connections += 1
            try:
                if rng.random() < _RAW_SHARE:
                    await self._break_bytes(rng)
                elif rng.choice(self._crowd.dialects) is Dialect.PLAIN:
                    await self._misuse_plain(rng)
                else:
                    await self._misuse_v1(rng)
            except (OSError, WebSocketException, ConnectError) as error:
                self._count("connection")
                self.tally.blame(f"no connection: {type(error).__name__}: {error}")

    def _count(self, what: str) -> None:
        self.tally.sent[what] += 1
        self._left -= 1
        self._tell(self.tally.sent.total())

    async def _misuse_plain(self, rng: random.Random) -> None:
        stream = rng.random() < 0.5
        query = {"reply": "stream"} if stream else None
        socket = await dial(self._url, query=query, max_size=None)
        answers = PlainAnswers(self.tally, stream=stream)
        await _Misuse(socket, answers).run(self._script(rng, Dialect.PLAIN, answers), rng)

    async def _misuse_v1(self, rng: random.Random) -> None:
        socket = await dial(self._url, subprotocol=v1.SUBPROTOCOL, max_size=None)
        opening, resumes_at = self._opening(rng)
        answers = V1Answers(self.tally, resumes_at)
        script = itertools.chain(opening, self._script(rng, Dialect.V1, answers))
        await _Misuse(socket, answers).run(script, rng)
        if answers.ticket is not None:
            self._tickets.append(answers.ticket)

    def _opening(self, rng: random.Random) -> tuple[list[Hostile], Position | None]:
        """How a connection of labkit.v1 begins: a session, an honest resume, or out of order."""
        start, chance, resumes_at = start_message(rng), rng.random(), None
        if chance < 0.1:
            return [], None
        if chance >= 0.7 and self._tickets:
            ticket = rng.choice(self._tickets)
            resumes_at = ticket.received
            start["resume"] = ticket.model_dump()
        return [Hostile(Kind.VALID, json.dumps(start))], resumes_at

    def _script(self, rng: random.Random, dialect: Dialect, answers: Answers) -> Iterator[Hostile]:
        """What a connection sends, as long as there are messages left; each is counted."""
        for _ in range(1 + round(rng.expovariate(1 / _MEAN_MESSAGES))):
            if self._left <= 0:
                return
            known = Context(dialect, tuple(self._tickets), answers.received or Position())
            message = draw(rng, known)
            self._count(message.kind.value)
            yield message

    async def _break_bytes(self, rng: random.Random) -> None:
        """One connection that is no WebSocket, or stops being one."""
        self._count("broken bytes")
        opened = rng.random() < 0.5
        broken = break_bytes(rng, opened=opened)
        first = handshake(rng.choice((None, v1.SUBPROTOCOL))) if opened else b""
        reader, writer = await asyncio.open_connection(*address_of(self._url))
        try:
            async with asyncio.timeout(_PATIENCE_S):
                with suppress(ConnectionError, asyncio.IncompleteReadError):
                    await _write_broken(reader, writer, first, broken)
        except TimeoutError:
            self.tally.stuck[broken.name] += 1
        finally:
            writer.transport.abort()


async def _write_broken(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bytes, broken: Broken
) -> None:
    """Write the bytes, behind a handshake if there is one, and wait for what has to follow."""
    if first:
        writer.write(first)
        await reader.readuntil(b"\r\n\r\n")
    writer.write(broken.data)
    await writer.drain()
    while broken.ends and await reader.read(65_536):
        pass


@dataclass(slots=True)
class _Misuse:
    """One connection whose frames are right: what is sent, and what comes meanwhile."""

    socket: ClientConnection
    answers: Answers
    news: Changes = field(default_factory=Changes)
    pong: Awaitable[float] | None = None
    """To the last ping."""
    may_break: bool = False
    """A server that stops reading a message may cut it off."""

    async def run(self, script: Iterator[Hostile], rng: random.Random) -> None:
        """Send the script, then hang up in order or not, and wait until all is over."""
        reading = asyncio.create_task(self._read())
        aborting = rng.random() < _ABORTED_SHARE
        try:
            with suppress(ConnectionClosed):
                for message in script:
                    await self._send(message)
                    await asyncio.sleep(0)  # `send` waits for a full buffer only
                if not aborting:
                    await self._part(reading)
        finally:
            self._note_close(hung_up=aborting)
            self.socket.transport.abort()
            await reading

    async def _send(self, message: Hostile) -> None:
        payload = message.payload
        self.may_break |= message.kind in (Kind.UNREADABLE, Kind.NOT_UTF8)
        match message.kind:
            case Kind.PING:
                await self._ping(payload)
            case Kind.PONG:
                await self.socket.pong(payload)
            case Kind.NOT_UTF8:
                await self.socket.send(payload, text=True)
            case Kind.FRAGMENTS:
                self.answers.asked(payload)
                await self.socket.send(self._pieces(message))
            case _:
                self.answers.asked(payload)
                await self.socket.send(payload)

    async def _ping(self, data: str | bytes) -> None:
        with suppress(ConcurrencyError):  # such a ping is on its way already
            self.pong = await self.socket.ping(data)

    async def _pieces(self, message: Hostile) -> AsyncIterator[str | bytes]:
        """The message in fragments, with a ping between each two (RFC 6455, section 5.4)."""
        for start, end in itertools.pairwise((0, *message.cuts, len(message.payload))):
            yield message.payload[start:end]
            await self._ping(b"between")

    async def _part(self, reading: asyncio.Task[None]) -> None:
        """Wait until everything that was sent is answered, then close in order."""
        self.answers.asked(self.answers.last)
        await self.socket.send(self.answers.last)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self.news.until(lambda: self.answers.settled or reading.done())
                if self.pong is not None and not reading.done():
                    await self.pong  # fails like everything else where the server hung up
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LATE_S):
                        await self.news.until(lambda: not self.answers.untold or reading.done())
                for missing in () if reading.done() else self.answers.untold:
                    self.answers.tally.blame(missing)
                await self.socket.close()
        except TimeoutError:
            self.answers.tally.stuck["the last message"] += 1

    async def _read(self) -> None:
        with suppress(ConnectionClosed):
            async for message in self.socket:
                self.answers.take(message)
                self.news.tell()
        self.news.tell()

    def _note_close(self, *, hung_up: bool) -> None:
        protocol = self.socket.protocol
        frame = protocol.close_rcvd
        if frame is not None and protocol.close_rcvd_then_sent:
            self.answers.tally.take_close(frame.code, frame.reason)
        elif frame is None and not hung_up and not self.may_break:
            self.answers.tally.take_close(None, "the connection broke off")
