"""What a client of labkit.v1 is told, and one turn of it put together."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final, get_args

from labkit.client.foreign import Unknown, count_refused, read
from labkit.protocol import v1
from labkit.protocol.replay import Missing

__all__ = [
    "Answer",
    "Event",
    "Gap",
    "Interrupted",
    "ReplyAudio",
    "TextMessage",
    "UnknownError",
    "read_message",
]

_TYPES: Final = frozenset(
    str(model.model_fields["type"].default) for model in get_args(v1.ServerMessage)
)


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
    return read(text, v1.decode_server, _TYPES, UnknownError)


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


@dataclass(slots=True)
class Answer:
    """One turn as the client saw it.

    Attributes:
        turn: Its number.
        transcript: What the server heard.
        sentences: What the reply says.
        audio: The reply's audio, in the format that was agreed on.
        done: How it ended; None while it has not.
        errors: What the server refused meanwhile; each says how many messages it is about.
        interruptions: Lost connections meanwhile.
        gaps: What the server could not send again.
    """

    turn: int = 0
    transcript: str = ""
    sentences: list[str] = field(default_factory=list)
    audio: bytearray = field(default_factory=bytearray)
    done: v1.ResponseDone | None = None
    errors: list[v1.Error] = field(default_factory=list)
    interruptions: list[Interrupted] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)

    @property
    def refused(self) -> Counter[str]:
        """Messages that the server refused, by code; one error may speak of many."""
        return count_refused(self.errors)

    def take(self, event: Event) -> bool:
        """Take the next event; True once the turn is complete."""
        match event:
            case v1.TranscriptFinal(turn=turn, text=text):
                self.turn, self.transcript = turn, text
            case v1.ResponseText(text=text):
                self.sentences.append(text)
            case ReplyAudio(payload=payload):
                self.audio += payload
            case v1.Error():
                self.errors.append(event)
            case Interrupted():
                self.interruptions.append(event)
            case Gap():
                self.gaps.append(event)
            case v1.ResponseDone():
                self.done = event
        return self.done is not None
