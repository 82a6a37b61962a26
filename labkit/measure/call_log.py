"""What one caller noted: which turns and pings were due when, and when they were answered."""

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final

from labkit.errors import ErrorCode, ProtocolError
from labkit.protocol import plain

__all__ = ["CallLog", "Request"]

_CUT: Final = 1006
_TRY_AGAIN_LATER: Final = 1013
"""What servers send that take a caller only to turn it away (RFC 6455 registry)."""
"""What stands for a connection that was never closed in order (RFC 6455, section 7.4.1)."""


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
            if message and self._open_turns:
                self._open_turns[0].answer(at_ns)
        elif message == plain.PONG:
            if self._open_pings:
                self._open_pings.popleft().answer(at_ns)
        else:
            self._take_json(message, at_ns)

    def _take_json(self, text: str, at_ns: int) -> None:
        try:
            message = plain.decode_server(text)
        except ProtocolError:
            self.errors["not_understood"] += 1
            return
        if isinstance(message, plain.Error):
            self._take_error(message.code)
        elif isinstance(message, plain.Done) and self._open_turns:
            self._open_turns.popleft().answer(at_ns)

    def _take_error(self, code: ErrorCode) -> None:
        self.errors[code.value] += 1
        if not self._open_turns:
            return
        if code is ErrorCode.ENGINE_FAILED:
            self._open_turns[0].lost = True
        elif code is ErrorCode.TOO_MANY_TURNS:
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
