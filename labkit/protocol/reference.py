"""The reference page of the protocol: the template `reference.md`, filled from the models."""

import inspect
import json
from collections.abc import Mapping, Sequence
from enum import Enum
from importlib.resources import files
from string import Template
from typing import Final, get_args

from pydantic import BaseModel

from labkit.audio.formats import Encoding
from labkit.errors import CloseCode, ErrorCode
from labkit.protocol import plain, v1
from labkit.protocol.describe import Described, fields_of, member_docs
from labkit.protocol.examples import CLIENT_EXAMPLES, server_examples
from labkit.protocol.markdown import simple_table, table
from labkit.protocol.replay import Missing, Position
from labkit.trace import Mark

__all__ = ["page"]

_CLIENT_PARTS: Final = (v1.AudioSpec, Position, v1.Resume)
_SERVER_PARTS: Final = (Missing, v1.Cause)
_ENUMERATIONS: Final = (Encoding, v1.TurnDetection, v1.ResponseStatus)
_SERVER_MARKS: Final = tuple(Mark)[4:-4]
_LINE: Final = 100
"""Examples are broken into lines of so many characters, more or less."""


def page(limits: v1.Limits, settings: Mapping[str, object]) -> str:
    """The page, in Markdown.

    Args:
        limits: What the server tells its clients by default.
        settings: The server's settings by name, which the text of the template refers to.

    Raises:
        KeyError: The template names a setting that is none.
    """
    template = Template(files(__package__).joinpath("reference.md").read_text(encoding="utf-8"))
    parts = {
        "client_messages": _messages(CLIENT_EXAMPLES),
        "server_messages": _messages(server_examples(limits)),
        "parts": "\n\n".join(
            [_part(part, _client_fields(part)) for part in _CLIENT_PARTS]
            + [_part(part, _server_fields(part)) for part in _SERVER_PARTS]
        ),
        "limits": f"{inspect.getdoc(v1.Limits)}\n\n{_limits(limits)}",
        "enumerations": "\n\n".join(_enumeration(members) for members in _ENUMERATIONS),
        "marks": _members(Mark, _SERVER_MARKS),
        "error_codes": _error_codes(),
        "close_codes": _close_codes(),
        "plain": _plain(),
    }
    figures = {name: _figure(name, value) for name, value in settings.items()}
    return template.substitute({**figures, **parts})


def _figure(name: str, value: object) -> str:
    """A setting as it is written in a sentence."""
    if "bytes" in name and isinstance(value, int):
        return f"{value // 1024**2} MiB" if value % 1024**2 == 0 else f"{value // 1024} KiB"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _messages(examples: Sequence[v1.ClientMessage | v1.ServerMessage]) -> str:
    return "\n\n".join(_message(example) for example in examples)


def _message(example: v1.ClientMessage | v1.ServerMessage) -> str:
    model = type(example)
    client = model in get_args(v1.ClientMessage)
    fields = _client_fields(model) if client else _server_fields(model)
    way = "client → server" if client else "server → client"
    return "\n\n".join(
        [
            f"#### `{example.type}`",
            f"*{way}, {_numbering(model)}.* {inspect.getdoc(model)}",
            fields,
            f"```json\n{_json(example)}\n```",
        ]
    )


def _numbering(model: type[BaseModel]) -> str:
    seq = model.model_fields.get("seq")
    if seq is not None and seq.default is None:
        return "numbered, unless it is about the connection"
    numbered = seq is not None or getattr(model, "numbered", False)
    return "numbered" if numbered else "not numbered"


def _json(example: v1.ClientMessage | v1.ServerMessage) -> str:
    written = json.loads(example.encode())
    return _lines({"type": written.pop("type"), **written}, indent=0)


def _lines(value: object, indent: int) -> str:
    """JSON in one line where it fits, else each entry in its own."""
    line = json.dumps(value, ensure_ascii=False)
    if indent + len(line) <= _LINE or not isinstance(value, dict):
        return line
    margin = " " * (indent + 2)
    entries = [f'{margin}"{key}": {_lines(inner, indent + 2)}' for key, inner in value.items()]
    return "{\n" + ",\n".join(entries) + "\n" + " " * indent + "}"


def _part(model: type[BaseModel], fields: str) -> str:
    return f"#### `{model.__name__}`\n\n{inspect.getdoc(model)}\n\n{fields}"


def _client_fields(model: type[BaseModel]) -> str:
    header = ["field", "type", "range", "if left out", "meaning"]
    return table(
        header, [[*_common(field), field.default, field.meaning] for field in fields_of(model)]
    )


def _server_fields(model: type[BaseModel]) -> str:
    header = ["field", "type", "range", "there", "meaning"]
    there = {False: "always", True: "sometimes"}
    return table(
        header,
        [[*_common(field), there[field.optional], field.meaning] for field in fields_of(model)],
    )


def _limits(limits: v1.Limits) -> str:
    told = limits.model_dump()
    header = ["field", "type", "range", "default of the server", "meaning"]
    return table(
        header,
        [
            [*_common(field), f"{told[field.name]:.10g}", field.meaning]
            for field in fields_of(v1.Limits)
        ],
    )


def _common(field: Described) -> list[str]:
    return [f"`{field.name}`", field.kind, field.range]


def _enumeration(members: type[Enum]) -> str:
    every = _members(members, tuple(members))
    return f"#### `{members.__name__}`\n\n{inspect.getdoc(members)}\n\n{every}"


def _members(members: type[Enum], chosen: Sequence[Enum]) -> str:
    docs = member_docs(members)
    return table(["value", "meaning"], [[f"`{one.value}`", docs[one.name]] for one in chosen])


def _error_codes() -> str:
    docs = member_docs(ErrorCode)
    return table(
        ["code", "meaning", "closes the connection"],
        [
            [f"`{code.value}`", docs[code.name], "no" if code.close is None else f"{code.close:d}"]
            for code in ErrorCode
        ],
    )


def _close_codes() -> str:
    docs = member_docs(CloseCode)
    resumable = {True: "yes", False: "no"}
    return table(
        ["code", "name", "meaning", "can a session be resumed"],
        [
            [f"{code:d}", f"`{code.name.lower()}`", docs[code.name], resumable[code.resumable]]
            for code in CloseCode
        ],
    )


def _plain() -> str:
    """The plain dialect: what its module says, and its messages."""
    said = simple_table(inspect.getdoc(plain) or "").partition("\n\n")[2]
    messages = [
        f"#### `{model.model_fields['type'].default}`\n\n{inspect.getdoc(model)}\n\n"
        f"{_server_fields(model)}"
        for model in get_args(plain.ServerMessage)
    ]
    return "\n\n".join([said.strip(), *messages])
