"""The plain dialect: what a client speaks that asks for no subprotocol.

- A binary message is the next piece of an utterance: s16le, mono, 16 kHz. Nothing answers it; 20 to
  100 ms a message is usual.
- The text `end_stream` asks for the answer to what was said so far. First comes JSON text
  `{"type": "transcript", "text": …}`, then the spoken reply as one binary message, empty where
  nothing was said. A reply longer than 30 s comes as messages of 30 s (960,000 bytes) and a shorter
  one.
- The text `ping` is answered with the text `pong`, at once.
- Anything else is answered with JSON text
  `{"type": "error", "code": …, "message": …, "hint": …}`; the session goes on.

A client that connects to `/?reply=stream` gets the reply in binary messages as it is
synthesised, and JSON text `{"type": "done", …}` after the last of them.
"""

from dataclasses import dataclass
from typing import Annotated, Final, Literal
from urllib.parse import parse_qs

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from labkit.audio.formats import WIRE
from labkit.errors import ErrorCode, ProtocolError, first_fault
from labkit.protocol.limits import (
    BEGINS_TEXT,
    require_no_control,
    require_short,
    text_in,
    too_large,
)

PONG: Final = "pong"
"""The answer to `ping`."""


@dataclass(frozen=True, slots=True)
class Audio:
    """Binary message: the next piece of the utterance, s16le mono 16 kHz."""

    pcm: bytes


@dataclass(frozen=True, slots=True)
class EndStream:
    """Text ``end_stream``: answer what was said so far."""


@dataclass(frozen=True, slots=True)
class Ping:
    """Text ``ping``: say that you are alive."""


Command = Audio | EndStream | Ping
"""Everything that a client may send."""

_COMMANDS: Final[dict[str, Command]] = {"end_stream": EndStream(), "ping": Ping()}
_LONGEST_COMMAND: Final = 32
"""Bytes, in UTF-16 and with the white space that command-line clients add."""

LONGEST_REPLY: Final = WIRE.samples(30)
"""Samples of the longest binary message of a reply: the libraries of most clients refuse messages
of more than 1 MiB. A message of this length is followed by the rest, which may be empty."""


class _Message(BaseModel):
    """What every JSON message of the server has in common."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    def encode(self) -> str:
        """The message as JSON text."""
        return self.model_dump_json()


class Transcript(_Message):
    """What was heard, empty where nothing was said."""

    type: Literal["transcript"] = "transcript"
    text: str
    """The words of the utterance."""


class Done(_Message):
    """The reply is complete; only with `/?reply=stream`.

    labkit's server always tells all of it. Of another server, labkit's clients and checks ask for
    `type` alone, and show the rest as not told.
    """

    type: Literal["done"] = "done"
    reply_text: str
    """What the spoken reply says."""
    reply_samples: int = Field(ge=0)
    """Samples of reply audio that were sent."""
    marks: dict[str, int] = {}
    """When each stage of the turn ended, in nanoseconds of the server's monotonic clock."""
    listening_cpu_ms: float = Field(default=0.0, ge=0)
    """CPU time of the server process while this utterance came in, in milliseconds."""


class Error(_Message):
    """The server refused something; the session goes on."""

    type: Literal["error"] = "error"
    code: ErrorCode
    """What was wrong, for programs."""
    message: str
    """What was wrong, for people."""
    hint: str = ""
    """What to send instead."""
    count: int = Field(default=1, ge=1)
    """Messages that this is about: of a row of binary messages that are refused for one reason,
    the first is told at once, and how many more there were when the row is over. Left out
    where it is 1."""

    @classmethod
    def of(cls, error: ProtocolError, count: int = 1) -> "Error":
        """The message that tells the client of `error`."""
        return cls(code=error.code, message=str(error), hint=error.hint, count=count)

    def encode(self) -> str:
        """The message as JSON text."""
        return self.model_dump_json(exclude={"count"} if self.count == 1 else None)


ServerMessage = Transcript | Done | Error
"""Every JSON message of the server, told apart by `type`."""

_SERVER_MESSAGES: Final[TypeAdapter[ServerMessage]] = TypeAdapter(
    Annotated[ServerMessage, Field(discriminator="type")]
)


def decode_client(message: str | bytes, *, max_bytes: int) -> Command:
    """Understand one message of a client.

    Args:
        message: Text or binary, as it came off the socket.
        max_bytes: Longest message that is accepted.

    Raises:
        ProtocolError: The message is too long, is no whole number of samples, is no command, or
            is a command in a binary message.
    """
    if isinstance(message, bytes):
        require_audio(message, max_bytes=max_bytes)
        return Audio(message)
    require_short(message, max_bytes)
    command = _COMMANDS.get(message.strip())
    if command is None:
        raise ProtocolError(
            ErrorCode.UNKNOWN_COMMAND,
            f"the text message {message[:40]!r} is no command",
            "send 'end_stream' or 'ping' as text, and audio as binary messages",
        )
    return command


def require_audio(message: bytes, *, max_bytes: int) -> None:
    """Make sure that a binary message is audio.

    Raises:
        ProtocolError: It is too long, is no whole number of samples, or is a command.
    """
    if len(message) > max_bytes:
        seconds = max_bytes / WIRE.bytes_per_second
        hint = f"send audio in messages of 20 to 100 ms, {seconds:g} s at most"
        raise too_large(len(message), max_bytes, hint)
    if len(message) <= _LONGEST_COMMAND and (command := text_in(message)) in _COMMANDS:
        raise ProtocolError(
            ErrorCode.WRONG_FRAME,
            f"the command {command!r} came in a binary message",
            "send commands as WebSocket text messages; binary messages are audio",
        )
    if message[:2] in BEGINS_TEXT:  # as clients of labkit.v1 send it, that did not ask for it
        require_no_control(message)
    if len(message) % WIRE.frame_bytes:
        raise ProtocolError(
            ErrorCode.ODD_LENGTH,
            f"a binary message of {len(message)} bytes is no whole number of 16-bit samples",
            "send signed 16-bit little-endian mono audio at 16 kHz, two bytes a sample",
        )


def decode_server(message: str) -> ServerMessage:
    """Understand one JSON message of the server.

    Raises:
        ProtocolError: The message is no JSON message of this dialect.
    """
    try:
        return _SERVER_MESSAGES.validate_json(message)
    except ValidationError as error:
        raise ProtocolError(
            ErrorCode.UNKNOWN_COMMAND,
            f"the server's message {message[:40]!r} is none of the plain dialect: "
            f"{first_fault(error)}",
            "check that the address is a labkit server",
        ) from None


def wants_stream(path: str) -> bool:
    """Whether the request path asks for the reply as it is synthesised."""
    # Not urlsplit: it raises ValueError on paths like "//[", which any client may send.
    query = path.partition("#")[0].partition("?")[2]
    return parse_qs(query).get("reply") == ["stream"]
