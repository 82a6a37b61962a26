"""What a session of labkit.v1 says and is told, which outlives its connections.

A connection carries a `Conversation`; when it is lost, the next one carries on where it stopped.
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from labkit.client.answers import TurnSoFar, Unknown
from labkit.client.speech import Clock
from labkit.errors import ClientError, ErrorCode, ProtocolError
from labkit.protocol import v1
from labkit.protocol.replay import Missing, Position, ReplayWindow

__all__ = [
    "Conversation",
    "Event",
    "Gap",
    "Interrupted",
    "ReplyAudio",
    "TextMessage",
    "UnknownError",
    "read_message",
]

_EVENTS: Final = 64
"""Events that may wait for whoever uses the client; then the server has to wait."""


class UnknownError(v1.Error):
    """An error of a code that this client does not know."""

    code: str  # type: ignore[assignment] # wider on purpose
    """The code, as it came."""


TextMessage = v1.ServerMessage | Unknown
"""A text message of the server."""


def read_message(text: str) -> TextMessage:
    """Understand a text message of the server.

    Raises:
        ProtocolError: It is no message, or one of a known type that is wrong.
    """
    try:
        return v1.decode_server(text)
    except ProtocolError as wrong:
        if wrong.code is ErrorCode.UNKNOWN_TYPE:
            fields = json.loads(text)
            if isinstance(kind := fields.get("type"), str):
                return Unknown(kind, fields)
        with suppress(ValueError):  # an error of a code that is new
            return UnknownError.model_validate_json(text)
        # Where the code is no text at all, the list of all known codes does not help.
        raise ProtocolError(wrong.code, f"{wrong!s:.200}", wrong.hint) from None


@dataclass(frozen=True, slots=True)
class ReplyAudio:
    """A piece of a spoken reply.

    Attributes:
        start: Position of its first sample among all reply audio of the session.
        payload: The audio, in the format that was agreed on.
    """

    start: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The connection was lost, and is back.

    Attributes:
        seconds: How long it was gone.
        reason: Why it was lost.
    """

    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Gap:
    """The server could not keep all that was to be sent again.

    Attributes:
        missing: What is lost.
    """

    missing: Missing


Event = TextMessage | ReplyAudio | Interrupted | Gap
"""What a client is told."""


class Conversation:
    """Both streams of a session, and what the server owes.

    Whoever speaks adds to the stream up and waits while its window is full; whoever listens takes
    events. The connection of the moment works at the other ends of both. Messages about the
    connection itself go before the rest and are lost with it.

    The server owes acknowledgements of what it was sent, and an answer for each utterance that
    ended. While it owes nothing, it may be silent for as long as the session lives.

    Attributes:
        window: What goes up, kept until it was acknowledged.
        received: What was handed on of what came down; after a lost connection the rest comes
            again.
        failure: Why the session is over; None while it lives.
        progress_ns: When the last sign of progress came.
        turns: Utterances that ended, and have no `response.done` yet.
        waiting: Calls that wait for an answer, whoever ends the utterance.
        so_far: What went out and what came of the turn, for words.
    """

    def __init__(self, window: ReplayWindow, received: Position, clock: Clock) -> None:
        """Send what `window` holds, and go on behind `received`."""
        self.window = window
        self.received = received
        self.failure: ClientError | None = None
        self.progress_ns = clock.now_ns()
        self.turns = 0
        self.waiting = 0
        self.so_far = TurnSoFar()
        self._clock = clock
        self._urgent: deque[str] = deque()
        self._acknowledgement: str | None = None
        self._events: deque[Event] = deque()
        self._changed = asyncio.Event()

    # -- up: from whoever speaks to the server ------------------------------------------------

    async def put_text(self, payload: str) -> None:
        """Add a numbered message once there is room.

        Raises:
            ClientError: The session is over.
        """
        await self._room()
        self.window.add_text(payload)
        self._tell()

    async def put_audio(self, payload: bytes, samples: int) -> None:
        """Add `samples` samples of audio (per channel) once there is room.

        Raises:
            ClientError: The session is over.
        """
        await self._room()
        self.window.add_audio(payload, samples)
        self._tell()

    def put_urgent(self, payload: str) -> None:
        """Send an unnumbered message before everything that waits."""
        # Without a wait for room: the reader adds here too, and a reader that waits for its
        # writer, while the server waits to be read before it reads, would wait for ever.
        self._urgent.append(payload)
        self._tell()

    def acknowledge_reply(self, payload: str) -> None:
        """Tell the server what has come; only the latest that waits is of use."""
        self._acknowledgement = payload
        self._tell()

    async def urgent_sent(self) -> None:
        """Wait until the connection has taken the messages that are urgent, or was lost."""
        await self._until(lambda: not self._urgent)

    async def next_payload(self) -> str | bytes:
        """The next message to send, as soon as there is one."""
        await self._until(
            lambda: self._urgent or self._acknowledgement or self.window.waiting_bytes
        )
        payload = self._take()
        self._tell()
        return payload

    def acknowledged(self, position: Position) -> bool:
        """The server has everything up to `position`; there may be room again.

        Returns:
            Whether that is more than it had before.

        Raises:
            ProtocolError: That was never sent.
        """
        held = self.window.held_bytes
        self.window.acknowledge(position)
        self._tell()
        return self.window.held_bytes < held

    def resume(self, position: Position) -> None:
        """A new connection begins, to a server that has everything up to `position`.

        No acknowledgement of the old connection can come after this: its reader has ended before
        the new one was asked for. So the window never forgets what it is about to send again.

        Raises:
            ProtocolError: That was never sent.
        """
        self.drop_urgent()
        self.window.rewind(position)
        self._tell()

    def drop_urgent(self) -> None:
        """The connection is gone, and with it what concerned it alone."""
        self._urgent.clear()
        self._acknowledgement = None
        self._tell()

    def fail(self, failure: ClientError) -> None:
        """The session is over: whoever waits, or comes later, is told why."""
        self.failure = failure
        self.drop_urgent()

    # -- down: from the server to whoever listens ---------------------------------------------

    @property
    def is_full(self) -> bool:
        """Whether whoever uses the client does not take what came."""
        return len(self._events) >= _EVENTS

    async def hand_on(self, event: Event, *, messages: int = 0, samples: int = 0) -> None:
        """Hand on an event, and only then count what it is of the stream.

        A connection may be lost while this waits for room. Counted before, the event would be
        lost; counted behind, in the same step as the waiting ends, it comes again or not at all.
        """
        await self._until(lambda: not self.is_full)
        self._events.append(event)
        self.received = self.received.plus(messages, samples)
        self._tell()

    async def next_event(self) -> Event:
        """The next event; what came before the session was over is still told.

        Raises:
            ClientError: The session is over.
        """
        await self._until(lambda: self._events or self.failure is not None)
        if not self._events and self.failure is not None:
            raise self.failure
        event = self._events.popleft()
        self._tell()
        return event

    # -- what the server owes -----------------------------------------------------------------

    @property
    def _owes(self) -> bool:
        return self.turns + self.waiting + self.window.held_bytes > 0

    def expect_more(self) -> None:
        """More will be owed; where nothing was, the time for it begins now."""
        if not self._owes:
            self.note_progress()

    def note_progress(self) -> None:
        """The conversation went on, or what holds it up is not the server's doing."""
        self.progress_ns = self._clock.now_ns()

    def is_overdue(self, within_s: float) -> bool:
        """Whether something is owed and no sign of it came for more than `within_s` seconds."""
        return self._owes and self._clock.now_ns() - self.progress_ns > within_s * 1e9

    def note(self, message: TextMessage) -> None:
        """Note a message of the conversation, which may settle what was owed."""
        self.so_far.note(message)
        match message:
            case v1.ResponseDone():
                self.turns = max(0, self.turns - 1)
                self.so_far = TurnSoFar()
            case v1.Error(cause=v1.Cause(type="audio.end")):
                self.turns = max(0, self.turns - 1)  # it was refused, and has no answer

    def missing(self, within_s: float) -> ClientError:
        """The error that says what did not come."""
        if not self.turns + self.waiting:
            return self.so_far.missing("nothing of it was acknowledged", within_s)
        return self.so_far.missing_answer(within_s)

    # -- waiting ------------------------------------------------------------------------------

    def _take(self) -> str | bytes:
        if self._urgent:
            return self._urgent.popleft()
        if (payload := self._acknowledgement) is not None:
            self._acknowledgement = None
            return payload
        taken = self.window.take()
        assert taken is not None, "`next_payload` waits until something waits"
        return taken

    async def _room(self) -> None:
        self.expect_more()
        await self._until(lambda: self.failure is not None or self.window.has_room)
        if self.failure is not None:
            raise self.failure

    def _tell(self) -> None:
        """Wake whoever waits; each then looks for itself."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await self._changed.wait()
