"""The answers of a server, whatever its dialect: how they are read, and how long they may take.

The dialects are closed, so that a server is held to what it promised. A client in use has another
aim: a type or a code that it has never heard of is no reason to end its session. And no wait is
without an end: where an answer does not come, the error says what went out and what came.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from labkit.client.dial import CONNECT_S
from labkit.errors import ClientError, ProtocolError

__all__ = ["Deadlines", "TurnSoFar", "Unknown", "count_refused", "read"]

_log = logging.getLogger(__name__)

M = TypeVar("M")
E = TypeVar("E", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """How long a client waits, in seconds.

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


@dataclass(frozen=True, slots=True)
class Unknown:
    """A message of a type that this client does not know.

    Attributes:
        type: Its type.
        fields: All that it says, its type included.
    """

    type: str
    fields: Mapping[str, object]

    @property
    def seq(self) -> int | None:
        """Its number among the numbered messages of labkit.v1; None where it has none."""
        number = self.fields.get("seq")
        return number if isinstance(number, int) else None


class Message(Protocol):
    """A text message of a server, as far as all dialects agree."""

    @property
    def type(self) -> str:
        """What it is, such as ``transcript``."""


class Refusal(Protocol):
    """An error of a server, as far as all dialects agree."""

    @property
    def code(self) -> str:
        """What was wrong, such as ``odd_length``."""

    @property
    def count(self) -> int:
        """How many messages it is about."""


def read(text: str, decode: Callable[[str], M], union: object, error: type[E]) -> M | E | Unknown:
    """Understand a text message of a server as far as that is possible.

    Args:
        text: The message.
        decode: Understands the messages of the dialect.
        union: Their models.
        error: An error of the dialect that takes any code.

    Raises:
        ProtocolError: It is no message, or one of a known type that is wrong.
    """
    try:
        return decode(text)
    except ProtocolError as refused:
        wrong = refused
    fields = _object(text)
    kind = fields.get("type")
    if kind == "error":
        try:
            return error.model_validate_json(text)
        except ValidationError as invalid:
            first = invalid.errors(include_url=False)[0]
            name = ".".join(str(part) for part in first["loc"])
            raise ProtocolError(
                wrong.code, f"field {name!r} of 'error': {first['msg']}", wrong.hint
            ) from None
    known = {model.model_fields["type"].default for model in get_args(union)}
    if isinstance(kind, str) and kind not in known:
        _log.info("the server sent a message of the unknown type %.80r", kind)
        return Unknown(kind, fields)
    raise wrong


def _object(text: str) -> dict[str, object]:
    """The JSON object that `text` writes; an empty one where it writes none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def count_refused(errors: Iterable[Refusal]) -> Counter[str]:
    """Messages that a server refused, by code."""
    refused: Counter[str] = Counter()
    for error in errors:
        refused[str(error.code)] += error.count
    return refused


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

    def missing_answer(self, transcript: str, within_s: float) -> ClientError:
        """The error that says which part of an answer did not come after its `transcript`."""
        if transcript not in self.came:
            return self.missing("no transcript came", within_s)
        what = "no more of the reply came" if self.reply_s else "no reply came"
        return self.missing(what, within_s)

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
