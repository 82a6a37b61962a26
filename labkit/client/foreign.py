"""Messages of servers that are newer than this client: read as far as they are understood.

The dialects are closed, so that a server is held to what it promised. A client in use has another
aim: a type or a code that it has never heard of is no reason to end its session.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from labkit.errors import ProtocolError
from labkit.protocol import plain, v1

__all__ = ["Unknown", "count_refused", "read"]

_log = logging.getLogger(__name__)

M = TypeVar("M")
E = TypeVar("E", bound=BaseModel)


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


def read(
    text: str, decode: Callable[[str], M], known: frozenset[str], error: type[E]
) -> M | E | Unknown:
    """Understand a text message of a server as far as that is possible.

    Args:
        text: The message.
        decode: Understands the messages of the dialect.
        known: Their types.
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
            field = ".".join(str(part) for part in first["loc"])
            raise ProtocolError(
                wrong.code, f"field {field!r} of 'error': {first['msg']}", wrong.hint
            ) from None
    if isinstance(kind, str) and kind not in known:
        _log.info("the server sent a message of the unknown type %.80r", kind)
        return Unknown(kind, fields)
    raise wrong


def count_refused(errors: Iterable[plain.Error | v1.Error]) -> Counter[str]:
    """Messages that a server refused, by code."""
    refused: Counter[str] = Counter()
    for error in errors:
        refused[str(error.code)] += error.count
    return refused


def _object(text: str) -> dict[str, object]:
    """The JSON object that `text` writes; an empty one where it writes none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
