"""How long clients wait for a server, and what they say when it does not come."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

from labkit.client.dial import CONNECT_S
from labkit.client.foreign import Unknown
from labkit.errors import ClientError
from labkit.protocol import v1

__all__ = ["Deadlines", "Outstanding", "TurnSoFar"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """How long a client waits, in seconds; no wait is without an end.

    Attributes:
        connect_s: For a connection: name, TCP, TLS, and the answer to the handshake.
        start_s: For the answer to `session.start`.
        answer_s: For each next sign of an answer (its transcript, a piece of it, a pong), and
            for room in a connection whose server does not read.
    """

    connect_s: float = CONNECT_S
    start_s: float = 10.0
    answer_s: float = 60.0

    def __post_init__(self) -> None:
        """Refuse deadlines that leave no time.

        Raises:
            ValueError: One is not above 0.
        """
        for name in ("connect_s", "start_s", "answer_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name):g}")


class Message(Protocol):
    """A text message, as far as it matters here."""

    @property
    def type(self) -> str:
        """What it is, such as ``transcript``."""


@dataclass(slots=True)
class TurnSoFar:
    """What went out and what came in of one turn, to be told where the rest does not come.

    Attributes:
        said_s: Audio that was sent, in seconds.
        asked: The message that asked for the answer; empty while none has.
        came: What came, by name, and how often.
        reply_s: Audio of the reply that came, in seconds.
    """

    said_s: float = 0.0
    asked: str = ""
    came: Counter[str] = field(default_factory=Counter)
    reply_s: float = 0.0

    def note(self, message: Message) -> None:
        """Note a text message of the server."""
        code = getattr(message, "code", None)
        name = message.type if code is None else f"{message.type} {str(code)!r}"
        self.came[name] += getattr(message, "count", 1)

    def missing(self, what: str, within_s: float) -> ClientError:
        """The error that says `what` (such as "no transcript came") within `within_s` seconds."""
        return ClientError(f"{self.sent()}; {what} within {within_s:.3g} s; {self.received()}")

    def sent(self) -> str:
        """What went out, in words."""
        audio = f"{self.said_s:.1f} s of audio" if self.said_s else ""
        asked = f"{self.asked!r}" if self.asked else ""
        return f"sent {' and '.join(filter(None, (audio, asked))) or 'nothing'}"

    def received(self) -> str:
        """What came in, in words."""
        names = [f"{count} × {name}" if count > 1 else name for name, count in self.came.items()]
        if self.reply_s:
            names.append(f"{self.reply_s:.1f} s of reply")
        return f"what came: {', '.join(names)}" if names else "nothing else came"


@dataclass(slots=True)
class Outstanding:
    """What the server of a session owes, and since when it gives no sign of it.

    It owes acknowledgements of what it was sent, and an answer for each utterance that ended.
    While it owes nothing, it may be silent for as long as the session lives.

    Attributes:
        since_ns: When the last sign of progress came.
        turns: Utterances that ended, and have no `response.done` yet.
        waiting: Calls that wait for an answer, whoever ends the utterance.
        so_far: What went out and what came, for words.
    """

    since_ns: int
    turns: int = 0
    waiting: int = 0
    so_far: TurnSoFar = field(default_factory=TurnSoFar)

    def expect(self, now_ns: int, unacknowledged: int) -> None:
        """Note that more will be owed; where nothing was, the time for it begins now."""
        if not self._is_open(unacknowledged):
            self.since_ns = now_ns

    def note(self, message: v1.ServerMessage | Unknown) -> None:
        """Note a message of the conversation."""
        self.so_far.note(message)
        match message:
            case v1.ResponseDone():
                self.turns = max(0, self.turns - 1)
                self.so_far = TurnSoFar()
            case v1.Error(cause=v1.Cause(type="audio.end")):
                self.turns = max(0, self.turns - 1)  # it was refused, and has no answer

    def is_overdue(self, now_ns: int, within_s: float, unacknowledged: int) -> bool:
        """Whether something is owed and no sign of it came for more than `within_s` seconds."""
        return self._is_open(unacknowledged) and now_ns - self.since_ns > within_s * 1e9

    def missing(self, within_s: float) -> ClientError:
        """The error that says what did not come."""
        if not self.turns + self.waiting:
            missing = "nothing of it was acknowledged"
        elif "transcript.final" not in self.so_far.came:
            missing = "no transcript came"
        else:
            missing = "no more of the reply came" if self.so_far.reply_s else "no reply came"
        return self.so_far.missing(missing, within_s)

    def _is_open(self, unacknowledged: int) -> bool:
        return self.turns + self.waiting + unacknowledged > 0
