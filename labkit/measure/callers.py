"""Callers that speak at the pace of speech over one WebSocket each, and note what they get.

What a caller sends is due at an instant that follows from its script alone. Where a message
goes out late, because the server does not read or the event loop was busy, it was due no later
for that, and latencies count from when it was due. Counting from when it was sent would leave
out the very waits that matter ("coordinated omission", Tene 2013).

A caller waits for its answer before it speaks again, as people do: an utterance begins when the
timetable says, or once the answer to the one before is there, whichever is later. What that
delays shows as the seconds that a caller is behind its timetable.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from labkit.client.plain import proxy_for
from labkit.measure.call_log import CallLog, Request
from labkit.measure.pace import Pace
from labkit.measure.script import Script, Speech, Timetable, due_times

__all__ = ["Caller", "Manners", "connect_caller"]

_NS: Final = 1_000_000_000
_MAX_READ: Final = 64 * 1024 * 1024
_HANG_UP_S: Final = 1.0
_SENDING_NS: Final = 1_000_000
"""A shorter `send` is the work of sending, a longer one waits for the server to read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """How callers behave.

    Attributes:
        pause_s: Time between two utterances, in which the answer has to come.
        ping_every_s: Time between two pings.
        patience_s: After this time an answer is given up as lost.
    """

    pause_s: float = 1.0
    ping_every_s: float = 1.0
    patience_s: float = 10.0


async def connect_caller(url: str) -> ClientConnection | None:
    """Connect to `url`; None where the connection is refused."""
    try:
        return await connect(
            f"{url.rstrip('/')}/?reply=stream",
            compression=None,
            max_size=_MAX_READ,
            ping_interval=None,
            close_timeout=_HANG_UP_S,
            proxy=proxy_for(url),
        )
    except (OSError, WebSocketException):
        return None


class Caller:
    """One caller for the length of one level."""

    def __init__(
        self,
        socket: ClientConnection,
        script: Script,
        recorded: Sequence[Speech],
        manners: Manners,
        pace: Pace,
    ) -> None:
        """Say what `script` tells out of `recorded`, over `socket`."""
        self.log = CallLog()
        self._socket = socket
        self._script = script
        self._recorded = recorded
        self._manners = manners
        self._pace = pace
        self._news = asyncio.Event()
        self._gone = asyncio.Event()
        self._said_ns: int | None = None  # when what is being said will have been said

    async def call(self, begin_ns: int, end_ns: int) -> CallLog:
        """Speak and ping from `begin_ns` on, and note what comes.

        A turn counts where its `end_stream` is due before `end_ns`; an utterance that would
        last longer is broken off there. Answers that are open by then are waited for.
        """
        pings = due_times(begin_ns + self._script.ping_phase_ns, self._manners.ping_every_s, end_ns)
        async with asyncio.TaskGroup() as group:
            beside = [group.create_task(work) for work in (self._receive(), self._ping(pings))]
            await self._speak(begin_ns, end_ns)
            await self._last_pongs(pings)
            self._note_unanswered(pings, end_ns)
            for task in beside:
                task.cancel()
        return self.log

    async def _speak(self, begin_ns: int, end_ns: int) -> None:
        timetable = Timetable(begin_ns + self._script.phase_ns, round(self._manners.pause_s * _NS))
        try:
            async with self._patience(end_ns):
                await self._take_turns(timetable, end_ns)
        except TimeoutError:  # the server does not read, so nothing more could be sent
            timetable.free(self._pace.now_ns())
        self.log.behind_ns = timetable.behind_ns

    async def _take_turns(self, timetable: Timetable, end_ns: int) -> None:
        start_ns = timetable.due_ns
        for speech in self._script.speeches(self._recorded):
            self._said_ns = said_ns = start_ns + speech.length_ns
            timetable.said(speech.length_ns)
            if not await self._say(speech, start_ns, end_ns) or self._gone.is_set():
                return
            await self._ask(said_ns)
            if self._gone.is_set():
                return
            start_ns = timetable.free(self._pace.now_ns())

    async def _say(self, speech: Speech, start_ns: int, end_ns: int) -> bool:
        """Send each chunk when its last sample is spoken; False where that was broken off."""
        try:
            for payload, end in zip(speech.payloads, speech.ends_ns, strict=True):
                if start_ns + end >= end_ns:
                    return False
                self.log.lateness_ns.append(await self._pace.sleep_until(start_ns + end))
                await self._send(payload)
        except ConnectionClosed:
            self._hung_up()
            return False
        return True

    async def _ask(self, due_ns: int) -> None:
        """Ask for the answer and wait for all of it, as long as the patience lasts."""
        turn = self.log.ask(due_ns)
        self._said_ns = None
        with suppress(ConnectionClosed):  # then the receiver notes the loss
            await self._send("end_stream")
        await self._until(lambda: not self.log.is_open(turn), due_ns)
        turn.lost |= self.log.is_open(turn)

    async def _ping(self, due: range) -> None:
        with suppress(ConnectionClosed):
            for due_ns in due:
                self.log.lateness_ns.append(await self._pace.sleep_until(due_ns))
                self.log.ping(due_ns)
                await self._send("ping")

    async def _last_pongs(self, due: range) -> None:
        log = self.log
        if due:
            await self._until(
                lambda: len(log.pings) == len(due) and not log.waits_for_pongs, due[-1]
            )

    def _note_unanswered(self, pings: range, end_ns: int) -> None:
        """What is open is lost, and so is what was due and could not even be sent."""
        log = self.log
        log.give_up()
        if log.refused:
            return
        if self._said_ns is not None and self._said_ns < end_ns:
            log.turns.append(Request(self._said_ns, lost=True))
        if not self._gone.is_set():
            log.pings += [Request(due_ns, lost=True) for due_ns in pings[len(log.pings) :]]

    async def _until(self, settled: Callable[[], bool], due_ns: int) -> None:
        """Wait until `settled`, at the longest until the patience for `due_ns` is over."""
        with suppress(TimeoutError):
            async with self._patience(due_ns):
                while not settled() and not self._gone.is_set():
                    self._news.clear()
                    await self._news.wait()

    def _patience(self, due_ns: int) -> asyncio.Timeout:
        """A block that may last until the patience for what is due at `due_ns` is over."""
        return self._pace.timeout((due_ns - self._pace.now_ns()) / _NS + self._manners.patience_s)

    async def _send(self, message: str | bytes) -> None:
        before_ns = self._pace.now_ns()
        try:
            await self._socket.send(message)
            self.log.bytes_sent += len(message)
        finally:
            took_ns = self._pace.now_ns() - before_ns
            self.log.blocked_ns += took_ns if took_ns > _SENDING_NS else 0

    async def _receive(self) -> None:
        with suppress(ConnectionClosed):
            async for message in self._socket:
                self.log.take(message, self._pace.now_ns())
                self._news.set()
        self._hung_up()

    def _hung_up(self) -> None:
        """Note, once, that the connection is gone before the caller hung up."""
        if not self._gone.is_set():
            self._gone.set()
            self.log.hang_up(self._socket.close_code)
            self._news.set()
