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
import select
import selectors
import sys
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from labkit.client.answers import LONGEST_MESSAGE, read
from labkit.client.dial import dial
from labkit.client.speech import Clock
from labkit.errors import ConnectError, ErrorCode, ProtocolError
from labkit.measure.plan import Script, Speech, Timetable, due_times
from labkit.protocol import plain

_NS: Final = 1_000_000_000
_SENDING_NS: Final = 1_000_000
"""A shorter `send` is the work of sending, a longer one waits for the server to read."""
_CUT: Final = 1006
"""What stands for a connection that was never closed in order (RFC 6455, section 7.4.1)."""
_TRY_AGAIN_LATER: Final = 1013
"""What servers send that take a caller only to turn it away (RFC 6455 registry)."""


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
            """Wait for events, as any selector does."""
            if timeout is not None and timeout > 0:
                select.select([self.fileno()], [], [], timeout)
                timeout = 0
            return super().select(timeout)


@dataclass(slots=True, eq=False)
class Request:
    """Something that is due an answer.

    Attributes:
        due_ns: When it was due to be sent, whether it was or not.
        answered_ns: When the answer came: the first audio of a reply, the `done` of a reply
            without audio, or a `pong`.
        lost: Whether the caller gave it up, the server failed it, or the connection was lost.
    """

    due_ns: int
    answered_ns: int | None = None
    lost: bool = False

    def answer(self, at_ns: int) -> None:
        """Note the answer, the first one only."""
        if self.answered_ns is None:
            self.answered_ns = at_ns

    def latency_ns(self, patience_ns: int) -> int:
        """From when it was due to its answer; a lost one counts with the whole patience.

        Leaving lost ones out would make a server look the better, the more it loses.
        """
        if self.lost or self.answered_ns is None:
            return patience_ns
        return self.answered_ns - self.due_ns


@dataclass(slots=True)
class CallLog:
    """Everything that one caller noted in one level.

    Answers come in the order of the requests, so the oldest turn that is open is the one that a
    message belongs to, also where the caller gave it up in the meantime.

    Attributes:
        turns: Turns whose `end_stream` was due within the level.
        pings: Pings that were due within the level.
        lateness_ns: By how much the event loop of the callers woke them too late, each time.
        blocked_ns: Time in which a message could not be sent, because the server did not read.
        bytes_sent: Payload of all messages to the server.
        bytes_received: Payload of all messages from the server.
        errors: What went wrong, by code.
        refused: Whether the server did not take the caller.
        behind_ns: By how much the next utterance was later than the timetable, at the end.
        stream: Whether `done` ends a reply; else its message does, being whole.
    """

    turns: list[Request] = field(default_factory=list)
    pings: list[Request] = field(default_factory=list)
    lateness_ns: list[int] = field(default_factory=list)
    blocked_ns: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    refused: bool = False
    behind_ns: int = 0
    stream: bool = True
    _open_turns: deque[Request] = field(default_factory=deque)
    _open_pings: deque[Request] = field(default_factory=deque)

    def ask(self, due_ns: int) -> Request:
        """Note that an answer is asked for."""
        turn = Request(due_ns)
        self.turns.append(turn)
        self._open_turns.append(turn)
        return turn

    def ping(self, due_ns: int) -> Request:
        """Note that a ping goes out."""
        ping = Request(due_ns)
        self.pings.append(ping)
        self._open_pings.append(ping)
        return ping

    def is_open(self, request: Request) -> bool:
        """Whether `request` still waits for the end of its answer."""
        return request in self._open_turns or request in self._open_pings

    @property
    def waits_for_pongs(self) -> bool:
        """Whether a ping is still open."""
        return bool(self._open_pings)

    def take(self, message: str | bytes, at_ns: int) -> None:
        """Take one message of the server."""
        self.bytes_received += len(message)
        if isinstance(message, bytes):
            self._take_audio(len(message), at_ns)
        elif message == plain.PONG:
            if self._open_pings:
                self._open_pings.popleft().answer(at_ns)
        else:
            self._take_json(message, at_ns)

    def _take_audio(self, size: int, at_ns: int) -> None:
        if self._open_turns and (size or not self.stream):
            self._open_turns[0].answer(at_ns)
            if not self.stream and size != LONGEST_MESSAGE:
                self._open_turns.popleft()

    def _take_json(self, text: str, at_ns: int) -> None:
        try:
            message = read(text)
        except ProtocolError:
            self.errors["not_understood"] += 1
            return
        if isinstance(message, plain.Error):
            self._take_error(message)
        elif isinstance(message, plain.Done) and self._open_turns:
            self._open_turns.popleft().answer(at_ns)

    def _take_error(self, error: plain.Error) -> None:
        self.errors[str(error.code)] += error.count
        if not self._open_turns:
            return
        if error.code == ErrorCode.ENGINE_FAILED:
            self._open_turns[0].lost = True
        elif error.code == ErrorCode.TOO_MANY_TURNS:
            self._open_turns.pop().lost = True  # the newest is the one that was not taken

    def hang_up(self, code: int | None) -> None:
        """The connection is gone, closed by the server or cut: what is open is lost.

        A caller whom the server did not take has no turns and no pings to lose.
        """
        self.give_up()
        self._open_turns.clear()
        self._open_pings.clear()
        self.refused = code == _TRY_AGAIN_LATER
        if self.refused:
            self.turns.clear()
            self.pings.clear()
        else:
            self.errors[f"closed_{code or _CUT}"] += 1

    def give_up(self) -> None:
        """Whatever is open by now is lost; a late answer does not change that."""
        for request in (*self._open_turns, *self._open_pings):
            request.lost = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """How callers behave.

    Attributes:
        pause_s: Time between two utterances, in which the answer has to come.
        ping_every_s: Time between two pings.
        patience_s: After this time an answer is given up as lost.
        stream: Whether they ask for replies as these are made.
    """

    pause_s: float = 1.0
    ping_every_s: float = 1.0
    patience_s: float = 10.0
    stream: bool = True


async def connect_caller(url: str, *, stream: bool = True) -> ClientConnection | None:
    """Connect to `url`; None where the connection is refused."""
    try:
        return await dial(url, query={"reply": "stream"} if stream else None)
    except ConnectError:
        return None


class Caller:
    """One caller for the length of one level."""

    def __init__(
        self,
        socket: ClientConnection,
        script: Script,
        recorded: Sequence[Speech],
        manners: Manners,
        clock: Clock,
    ) -> None:
        """Say what `script` tells out of `recorded`, over `socket`."""
        self.log = CallLog(stream=manners.stream)
        self._socket = socket
        self._script = script
        self._recorded = recorded
        self._manners = manners
        self._clock = clock
        self._news = asyncio.Event()
        self._gone = asyncio.Event()
        # When what is being said will have been said. An utterance that could not be sent to its
        # end is no turn yet, and has to count as a lost one.
        self._said_ns: int | None = None

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
            # Before the receiver is cancelled, with no await in between: what it took until now
            # is answered, and nothing that comes later can be.
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
            timetable.free(self._clock.now_ns())
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
            start_ns = timetable.free(self._clock.now_ns())

    async def _say(self, speech: Speech, start_ns: int, end_ns: int) -> bool:
        """Send each chunk when its last sample is spoken; False where that was broken off."""
        try:
            for payload, end in zip(speech.payloads, speech.ends_ns, strict=True):
                if start_ns + end >= end_ns:
                    return False
                self.log.lateness_ns.append(await self._clock.sleep_until(start_ns + end))
                await self._send(payload)
        except ConnectionClosed:
            self._hung_up()
            return False
        return True

    async def _ask(self, due_ns: int) -> None:
        """Ask for the answer and wait for all of it, as long as the patience lasts."""
        turn = self.log.ask(due_ns)  # before it is sent: the answer may come while `send` returns
        self._said_ns = None
        with suppress(ConnectionClosed):  # then the receiver notes the loss
            await self._send("end_stream")
        await self._until(lambda: not self.log.is_open(turn), due_ns)
        turn.lost |= self.log.is_open(turn)

    async def _ping(self, due: range) -> None:
        with suppress(ConnectionClosed):
            for due_ns in due:
                self.log.lateness_ns.append(await self._clock.sleep_until(due_ns))
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
                    # Nothing runs between the look above and this, so no news can be missed.
                    self._news.clear()
                    await self._news.wait()

    def _patience(self, due_ns: int) -> asyncio.Timeout:
        """A block that may last until the patience for what is due at `due_ns` is over."""
        return self._clock.timeout((due_ns - self._clock.now_ns()) / _NS + self._manners.patience_s)

    async def _send(self, message: str | bytes) -> None:
        before_ns = self._clock.now_ns()
        try:
            await self._socket.send(message)
            self.log.bytes_sent += len(message)
        finally:
            took_ns = self._clock.now_ns() - before_ns
            self.log.blocked_ns += took_ns if took_ns > _SENDING_NS else 0

    async def _receive(self) -> None:
        with suppress(ConnectionClosed):
            async for message in self._socket:
                self.log.take(message, self._clock.now_ns())
                self._news.set()
        self._hung_up()

    def _hung_up(self) -> None:
        """Note, once, that the connection is gone before the caller hung up."""
        if not self._gone.is_set():
            self._gone.set()
            self.log.hang_up(self._socket.close_code)
            self._news.set()
