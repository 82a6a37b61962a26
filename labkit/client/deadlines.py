"""How long clients wait for a server, and what they say when it does not come."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

from labkit.client.dial import CONNECT_S
from labkit.errors import ClientError

__all__ = ["Deadlines", "Ledger"]


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
class Ledger:
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
        self.came[message.type if code is None else f"{message.type} {str(code)!r}"] += 1

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
