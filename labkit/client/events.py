"""What a client of labkit.v1 is told: messages, audio, losses; and the answer they make up."""

import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeGuard

from labkit.client.answers import Unknown
from labkit.errors import ErrorCode, ProtocolError
from labkit.protocol import v1
from labkit.protocol.replay import Missing


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
    """A piece of a spoken reply."""

    start: int
    """Position of its first sample among all reply audio of the session."""
    payload: bytes
    """The audio, in the format that was agreed on."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The connection was lost, and is back."""

    seconds: float
    """How long it was gone."""
    reason: str
    """Why it was lost."""


@dataclass(frozen=True, slots=True)
class Unended:
    """The end of an answer is among what is missing, so nothing more of it comes."""


Event = TextMessage | ReplyAudio | Interrupted | Missing | Unended
"""What a client is told; of what is missing, the server could not send it again."""


def refuses_end(event: Event) -> TypeGuard[v1.Error]:
    """Whether the server refuses to end an utterance, to which no `response.done` comes then."""
    match event:
        case v1.Error(cause=v1.Cause(type="audio.end")):
            return True
    return False


def settles(event: Event) -> bool:
    """Whether an utterance that the client ended has its answer with this."""
    return isinstance(event, v1.ResponseDone | Unended) or refuses_end(event)


@dataclass(slots=True)
class Answer:
    """One turn as the client saw it."""

    turn: int = 0
    """Its number."""
    transcript: str = ""
    """What the server heard."""
    sentences: list[str] = field(default_factory=list)
    """What the reply says."""
    audio: bytearray = field(default_factory=bytearray)
    """The reply's audio, in the format that was agreed on."""
    done: v1.ResponseDone | None = None
    """How it ended; None while it has not, where the server refused to end the utterance, and where
    the end is in one of the gaps."""
    errors: list[v1.Error] = field(default_factory=list)
    """What the server refused meanwhile; each says how many messages it is about."""
    interruptions: list[Interrupted] = field(default_factory=list)
    """Lost connections meanwhile."""
    gaps: list[Missing] = field(default_factory=list)
    """What the server could not send again."""

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
            case Missing():
                self.gaps.append(event)
            case v1.ResponseDone(turn=turn):
                self.turn, self.done = turn, event
        return self.done is not None or isinstance(event, Unended)
