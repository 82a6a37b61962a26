"""Both streams of a session of labkit.v1, whatever carries them, and what the server owes.

What goes up is kept in a ring until the server has acknowledged it; what comes down is counted
once it was handed on. So where a connection is lost, both sides know what the other one lacks,
and whoever speaks or listens at this end sees two streams without a gap.
"""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Final

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from labkit.audio.formats import AudioFormat
from labkit.client.answers import Patience, TurnSoFar, Unknown, send_within
from labkit.client.dial import in_words, why_closed
from labkit.client.events import (
    Event,
    ReplyAudio,
    TextMessage,
    Unended,
    read_message,
    settles,
)
from labkit.client.speech import Clock
from labkit.errors import ClientError, CloseCode, ErrorCode, ProtocolError
from labkit.protocol import v1
from labkit.protocol.replay import Missing, Position, ReplayWindow
from labkit.tasks import Changes

_EVENTS: Final = 64
"""Events that may wait for whoever uses the client; then the server has to wait."""
_EVENT_BYTES: Final = 1024 * 1024
"""Bytes of the messages that they came in; the one that crosses the bound is still taken."""
_ACK_BYTES: Final = 16 * 1024
_TEXT_WEIGHT: Final = 512
"""What a text message counts for: short ones must be acknowledged, too."""
_LOOKS: Final = 10
"""Looks for progress within one deadline, so a deadline is a tenth late at most."""
_NOT_TAKEN: Final = frozenset({1002, 1007, 1009})
"""Codes that this side closes with: what it cannot take would come again over the next one."""
_AS_AGREED: Final = "keep to the protocol: /schema.json, labkit/protocol/PROTOCOL.md"


class Lost(Exception):  # noqa: N818 - it is mended, or told as another error
    """A connection is gone, and another one may go on.

    Attributes:
        retry_s: The least wait that the server asked for.
    """

    def __init__(self, reason: str, retry_s: float = 0.0) -> None:
        """Say why."""
        super().__init__(reason)
        self.retry_s = retry_s


class Conversation:
    """Both streams of a session, and what the server owes.

    Whoever speaks adds to the stream up and waits while its window is full; whoever listens takes
    events. `carry` works at the other ends of both, over the connection of the moment.

    The server owes acknowledgements of what it was sent, and an answer for each utterance that
    ended. While it owes nothing, it may be silent for as long as the session lives.

    Attributes:
        window: What goes up, kept until it was acknowledged.
        received: What was handed on of what came down; after a lost connection the rest comes
            again.
        failure: Why the session is over; None while it lives.
        patience: When what the server owes is overdue.
        turns: Utterances that the client ended, and that have no answer yet.
        last_turn: Number of the latest turn of which anything came, 0 before the first.
        awaited: Somebody waits for an answer, whoever ends the utterance.
        so_far: What went out and what came of the turn, for words.
    """

    def __init__(
        self, window: ReplayWindow, received: Position, clock: Clock, within_s: float = 60.0
    ) -> None:
        """Send what `window` holds, and go on behind `received`.

        What the server owes may take `within_s` seconds of `clock`, as `Patience` counts them.
        """
        self.window = window
        self.received = received
        self.failure: ClientError | None = None
        self.turns = self.last_turn = self._last_done = 0
        self._may_lack_ends = False
        self.awaited = False
        self.so_far = TurnSoFar()
        self._clock = clock
        self._within_s = within_s
        self._input = AudioFormat()
        self.patience = Patience(within_s, self._now_s)
        self._acknowledgement: str | None = None
        self._events: deque[tuple[Event, int]] = deque()
        self._event_bytes = 0
        self._changes = Changes()

    # -- up: from whoever speaks to the server ------------------------------------------------

    async def put(self, payload: str | bytes, samples: int = 0) -> None:
        """Add a numbered message, or `samples` samples of audio (per channel), once there is room.

        Raises:
            ClientError: The session is over, or nobody takes what came, which holds up the
                acknowledgements that make room.
        """
        self.expect_more()
        while self.failure is None and not self.window.has_room:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._within_s):
                    await self._changes.until(lambda: self.failure or self.window.has_room)
            if self.is_full and not self.window.has_room:
                waiting = f"{len(self._events)} events wait that nobody takes"
                raise ClientError(
                    f"no room for {self._within_s:.3g} s: {waiting}, and the acknowledgements "
                    "behind them; take events while you speak"
                )
        self.require_alive()
        if isinstance(payload, str):
            self.window.add_text(payload)
        else:
            self.window.add_audio(payload, samples)
        self._changes.tell()

    def acknowledge_reply(self, payload: str) -> None:
        """Tell the server what has come; only the latest that waits is of use."""
        # Without a wait for room: a reader that waits for its writer, while the server waits to
        # be read before it reads, would wait for ever.
        self._acknowledgement = payload
        self._changes.tell()

    async def next_payload(self) -> str | bytes:
        """The next message to send, as soon as there is one."""
        await self._changes.until(lambda: self._acknowledgement or self.window.waiting_bytes)
        if (payload := self._acknowledgement) is not None:
            self._acknowledgement = None
            return payload
        taken = self.window.take()
        assert taken is not None, "it waits until something waits"
        return taken

    def acknowledged(self, position: Position) -> bool:
        """The server has everything up to `position`; there may be room again.

        Returns:
            Whether that is more than it had before.

        Raises:
            ProtocolError: That was never sent.
        """
        held = self.window.held_bytes
        self.window.acknowledge(position)
        self._changes.tell()
        return self.window.held_bytes < held

    def resume(self, position: Position) -> None:
        """A new connection begins, to a server that has everything up to `position`.

        No acknowledgement of the old connection can come after this: its reader has ended before
        the new one was asked for. So the window never forgets what it is about to send again.

        Raises:
            ProtocolError: That was never sent.
        """
        self._acknowledgement = None
        self.window.acknowledge(position)
        self.window.rewind(position)
        self._changes.tell()

    def fail(self, failure: ClientError) -> None:
        """The session is over: whoever waits, or comes later, is told why."""
        self.failure = failure
        self._changes.tell()

    def require_alive(self) -> None:
        """Refuse to go on once the session is over.

        Raises:
            ClientError: It is, and this is why.
        """
        if self.failure is not None:
            raise self.failure

    # -- down: from the server to whoever listens ---------------------------------------------

    @property
    def is_full(self) -> bool:
        """Whether whoever uses the client does not take what came."""
        return len(self._events) >= _EVENTS or self._event_bytes >= _EVENT_BYTES

    @property
    def unanswered(self) -> int:
        """Utterances that the client ended, and whose answers were not taken to their ends."""
        return self.turns + sum(settles(event) for event, _ in self._events)

    async def hand_on(
        self, event: Event, size: int = 0, *, messages: int = 0, samples: int = 0
    ) -> None:
        """Hand on an event of `size` bytes, and only then count what it is of the stream.

        A connection may be lost while this waits for room. Counted before, the event would be
        lost; counted behind, in the same step as the waiting ends, it comes again or not at all.
        """
        await self._changes.until(lambda: not self.is_full)
        self.received = self.received.plus(messages, samples)
        self._events.append((event, size))
        self._event_bytes += size
        self._changes.tell()

    async def skip(self, missing: Missing) -> None:
        """Go on behind what the server can no longer send again; ends of turns may be in it."""
        await self.hand_on(missing)
        self.received = missing.up_to
        if lost := missing.up_to.messages - missing.after.messages:
            self._may_lack_ends = True
            self.so_far.count(f"a gap of {lost} messages")

    async def next_event(self) -> Event:
        """The next event; what came before the session was over is still told.

        Raises:
            ClientError: The session is over.
        """
        await self._changes.until(lambda: self._events or self.failure is not None)
        if not self._events:
            self.require_alive()
        event, size = self._events.popleft()
        self._event_bytes -= size
        self._changes.tell()
        return event

    # -- over one connection ------------------------------------------------------------------

    async def carry(self, socket: ClientConnection, started: v1.SessionStarted) -> None:
        """Send and receive over `socket` until it is lost.

        Raises:
            Lost: Another connection may go on.
            ClientError: The session is over.
            ProtocolError: The server does not keep to the protocol.
        """
        output, limits = started.output.format, started.limits
        self._input = started.input.format
        # The server stops when its window is full, so it has to hear well before that.
        window = min(limits.replay_bytes, output.bytes_per_second * limits.replay_s)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write(socket))
                group.create_task(self._read(socket, output, min(_ACK_BYTES, round(window / 4))))
                group.create_task(self._watch())
        except ExceptionGroup as failures:
            first = failures.exceptions[0]  # it ended the others
            raise lost_or_over(first) if isinstance(first, ConnectionClosed) else first from None

    async def _write(self, socket: ClientConnection) -> None:
        while True:
            await send_within(socket, await self.next_payload(), self.so_far, self._within_s)

    async def _read(self, socket: ClientConnection, output: AudioFormat, ack_bytes: int) -> None:
        unacknowledged = 0
        while True:
            message = await socket.recv()
            if isinstance(message, bytes):
                unacknowledged += await self._take_audio(message, output)
                now = False
            else:
                told = read_message(message)
                unacknowledged += await self._take_text(told, len(message))
                now = isinstance(told, v1.ResponseDone)
            if now or unacknowledged >= ack_bytes:
                unacknowledged = 0
                self.acknowledge_reply(v1.ResponseAck(received=self.received).encode())

    async def _take_audio(self, payload: bytes, output: AudioFormat) -> int:
        """Hand on a piece of a reply; gives what it weighs in acknowledgements."""
        samples, rest = divmod(len(payload), output.frame_bytes)
        if rest:
            raise broken(f"a binary message of {len(payload)} bytes is no {output}")
        event = ReplyAudio(self.received.samples, payload)
        await self.hand_on(event, len(payload), samples=samples)
        if samples:
            self.patience.hear(output.seconds(samples), self._now_s)
        self.so_far.reply_s += output.seconds(samples)
        self.so_far.require_end()
        return len(payload)

    async def _take_text(self, message: TextMessage, size: int) -> int:
        """Hand on a message, or heed it; gives what it weighs in acknowledgements."""
        match message:
            case v1.Pong():
                return 0
            case v1.AudioAck(received=received):
                before = self.window.base
                if self.acknowledged(received):
                    self._note_acknowledged(self.window.base.samples - before.samples)
                return 0
            case v1.SessionStarted():
                raise broken("'session.started' came in the middle of a session")
            case v1.ResponseDone(turn=turn) if turn <= self._last_done:
                raise broken(f"turn {turn} ended, and turn {self._last_done} had ended before")
        number: int | None = getattr(message, "seq", None)
        expected = self.received.messages + 1
        if number is not None and number != expected:
            raise broken(f"message {number} came where message {expected} was due")
        await self._end_earlier_turns(message)
        await self.hand_on(message, size, messages=int(number is not None))
        if number is not None and not isinstance(message, Unknown | v1.Error):
            self.patience.step(message.type, self._now_s)
        self.note(message)
        self.so_far.numbered += number is not None
        self.so_far.require_end()
        if isinstance(message, v1.SessionEnded):
            raise ClientError(f"the server ended the session: {in_words(message.reason)}")
        return _TEXT_WEIGHT if number is not None else 0

    async def _end_earlier_turns(self, message: TextMessage) -> None:
        """End turns of which a gap has swallowed the ends, as a message of a later one shows."""
        turn = 0 if isinstance(message, v1.TranscriptPartial) else getattr(message, "turn", 0)
        if not (self._may_lack_ends and turn):
            return
        while self._last_done + 1 < turn and (self.turns or self._last_done < self.last_turn):
            await self._leave_unended()
            self._last_done += 1
        self._may_lack_ends = False
        self._last_done = max(self._last_done, turn - 1)

    async def _leave_unended(self) -> None:
        """No more comes of a turn."""
        await self.hand_on(Unended())
        self.turns = max(0, self.turns - 1)
        self.so_far = TurnSoFar()

    async def _watch(self) -> None:
        """End the session when what the server owes does not come, or far too slowly."""
        while True:
            await asyncio.sleep(self._within_s / _LOOKS)
            if self.is_full:  # it is this side that does not read
                self.wait_anew()
            if self.is_overdue():
                if self._may_lack_ends and not self.window.held_bytes:
                    self._may_lack_ends = False
                    for _ in range(max(1, self.turns)):
                        await self._leave_unended()
                    self.wait_anew()
                    continue
                if self.awaited or self.turns:
                    raise self.so_far.missing_answer(self.patience)
                raise self.so_far.missing("nothing of it was acknowledged", self._within_s)

    # -- what the server owes -----------------------------------------------------------------

    @property
    def _owes(self) -> bool:
        return self.awaited or self.turns + self.window.held_bytes > 0

    def expect_more(self) -> None:
        """More will be owed; where nothing was, the time for it begins now."""
        if not self._owes:
            self.wait_anew()

    def wait_anew(self) -> None:
        """What is owed from now on has its whole time."""
        self.patience.begin(self._now_s)

    @property
    def _now_s(self) -> float:
        return self._clock.now_ns() / 1e9

    def _note_acknowledged(self, samples: int) -> None:
        """Speech has to be taken as fast as it is said; an end of it, or a cancel, comes once."""
        if samples:
            self.patience.gain(self._input.seconds(samples), self._now_s)
        else:
            self.wait_anew()

    def is_overdue(self) -> bool:
        """Whether something is owed and did not come in time; chatter changes nothing."""
        return self._owes and self._now_s > self.patience.due_s

    def note(self, message: TextMessage) -> None:
        """Note a message of the conversation, which may settle what was owed."""
        if settles(message):
            self.turns = max(0, self.turns - 1)
        match message:
            case v1.TranscriptFinal(turn=turn, text=text):
                self.last_turn = turn
                self.so_far.hear(message.type, text)
            case v1.Error(code=code):
                self.so_far.refuse(str(code), message.message, message.count)
            case v1.ResponseDone(turn=turn):
                self.last_turn = self._last_done = turn
                self._may_lack_ends = False
                self.so_far = TurnSoFar()
                self.wait_anew()
            case _:
                self.so_far.meet(message.type)


def lost_or_over(closed: ConnectionClosed) -> Lost | ClientError:
    """What a close means: try again, or the session is over."""
    why = why_closed(closed)
    if closed.rcvd is not None and closed.rcvd_then_sent:
        code = closed.rcvd.code
        return (
            Lost(why)
            if code not in set(CloseCode) or CloseCode(code).resumable
            else ClientError(why)
        )
    refused = closed.sent is not None and closed.sent.code in _NOT_TAKEN
    return ClientError(why) if refused else Lost(why)


def broken(what: str) -> ProtocolError:
    """What a server does that does not keep to the protocol."""
    return ProtocolError(ErrorCode.POSITION_INVALID, what, _AS_AGREED)
