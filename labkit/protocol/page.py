"""The maker of PROTOCOL.md: the template `page.md`, filled from the models and their docstrings.

What the page says of a message, a field, a code or a limit is written once, beside its
definition; the template holds the explanations between them. In order: one example of each
message, the sections, models in plain words, pieces of Markdown.
"""

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib.resources import files
from string import Template
from typing import Any, Final, get_args

from pydantic import BaseModel

from labkit.audio.pcm import Encoding
from labkit.errors import CloseCode, ErrorCode
from labkit.protocol import plain, v1
from labkit.protocol.limits import Limits
from labkit.protocol.replay import LARGEST, Missing, Position
from labkit.trace import SERVER_MARKS, Mark

_CLIENT_PARTS: Final = (v1.AudioSpec, Position, v1.Resume)
_SERVER_PARTS: Final = (Missing, v1.Cause)
_ENUMERATIONS: Final = (Encoding, v1.TurnDetection, v1.Endpointing, v1.ResponseStatus)
_LINE: Final = 100
"""Examples are broken into lines of so many characters, more or less."""

_SESSION: Final = "3f9c1a7be0d24586"
_TOKEN: Final = "u1Zr0mJx0yqkQv3nJ5bTgWcHf8LsD2Aa"
_NEXT_TOKEN: Final = "Bq7dYw2PeR9uXoKi4tMzVhA1jGfNs6Lc"
_SPOKEN: Final = Position(messages=2, samples=52_480)
_HEARD: Final = Position(messages=5, samples=31_360)

CLIENT_EXAMPLES: Final[tuple[v1.ClientMessage, ...]] = (
    v1.SessionStart(
        input=v1.AudioSpec(encoding=Encoding.PCM_F32LE, sample_rate=48_000),
        resume=v1.Resume(session=_SESSION, token=_TOKEN, received=_HEARD),
    ),
    v1.AudioEnd(id="question-2"),
    v1.ResponseCancel(turn=2, heard_samples=9600),
    v1.ResponseAck(received=_HEARD),
    v1.Ping(id="a"),
    v1.SessionEnd(),
)
"""What a client may send."""


def server_examples(limits: Limits) -> tuple[v1.ServerMessage, ...]:
    """What a server with such limits may send."""
    return (
        v1.SessionStarted(
            session=_SESSION,
            token=_NEXT_TOKEN,
            resumed=True,
            input=v1.AudioSpec(encoding=Encoding.PCM_F32LE, sample_rate=48_000),
            output=v1.AudioSpec(),
            turn_detection=v1.TurnDetection.CLIENT,
            received=_SPOKEN,
            missing=Missing(after=_HEARD, up_to=_HEARD.plus(1, 16_000)),
            limits=limits,
        ),
        v1.AudioAck(received=_SPOKEN),
        v1.SpeechStarted(seq=1, at_s=0.32),
        v1.SpeechStopped(seq=2, at_s=1.86),
        v1.TranscriptPartial(
            seq=2, turn=1, text="set a timer for", confirmed="set a", behind_s=0.25
        ),
        v1.TranscriptFinal(seq=1, turn=1, text="set a timer for five minutes"),
        v1.ResponseStarted(seq=2, turn=1),
        v1.ResponseText(seq=3, turn=1, text="Five minutes, starting now."),
        v1.ResponsePaused(seq=4, turn=1),
        v1.ResponseResumed(seq=5, turn=1, text="yeah"),
        v1.ResponseInterrupted(seq=5, turn=1, heard_samples=9600),
        v1.ResponseDone(
            seq=4,
            turn=1,
            status=v1.ResponseStatus.COMPLETED,
            text="Five minutes, starting now.",
            samples=31_360,
            marks={"end_stream_received": 81_200_000_000, "asr_done": 81_431_000_000},
        ),
        v1.Pong(id="a"),
        v1.Error(
            seq=5,
            code=ErrorCode.ODD_LENGTH,
            message="a binary message of 3 bytes is no whole number of samples",
            hint="send pcm_s16le in 1 channel(s): a multiple of 2 bytes",
            cause=v1.Cause(type="audio", position=_SPOKEN),
        ),
        v1.SessionEnded(reason="the client ended the session"),
    )


@dataclass(frozen=True, slots=True)
class Described:
    """A field of a model.

    Attributes:
        name: As it is written on the wire.
        kind: Its type.
        range: What is allowed, empty where everything of the type is.
        default: What counts where it is left out; ``required`` where it must not be.
        optional: Whether it may be left out, or null, for there being nothing to say.
        meaning: What it is.
    """

    name: str
    kind: str
    range: str
    default: str
    optional: bool
    meaning: str


def page_text(limits: Limits, settings: Mapping[str, object]) -> str:
    """The page, in Markdown.

    Args:
        limits: What the server tells its clients by default.
        settings: The server's settings by name, which the text of the template refers to.

    Raises:
        KeyError: The template names a setting that is none.
    """
    template = Template(files(__package__).joinpath("page.md").read_text(encoding="utf-8"))
    parts = {
        "client_messages": _messages(CLIENT_EXAMPLES),
        "server_messages": _messages(server_examples(limits)),
        "parts": "\n\n".join(
            [_part(part, _client_fields(part)) for part in _CLIENT_PARTS]
            + [_part(part, _server_fields(part)) for part in _SERVER_PARTS]
        ),
        "limits": f"{inspect.getdoc(Limits)}\n\n{_limits(limits)}",
        "enumerations": "\n\n".join(_enumeration(members) for members in _ENUMERATIONS),
        "marks": _members(Mark, SERVER_MARKS),
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
    return _fields(model, "if left out", lambda field: field.default)


def _server_fields(model: type[BaseModel]) -> str:
    return _fields(model, "there", lambda field: "sometimes" if field.optional else "always")


def _limits(limits: Limits) -> str:
    told = limits.model_dump()
    return _fields(Limits, "default of the server", lambda field: f"{told[field.name]:.10g}")


def _fields(model: type[BaseModel], column: str, tell: Callable[[Described], str]) -> str:
    """The fields of a model, and in `column` what `tell` tells of each."""
    header = ["field", "type", "range", column, "meaning"]
    rows = [[f"`{x.name}`", x.kind, x.range, tell(x), x.meaning] for x in fields_of(model)]
    return table(header, rows)


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
    said = (inspect.getdoc(plain) or "").partition("\n\n")[2]
    messages = [
        f"#### `{model.model_fields['type'].default}`\n\n{inspect.getdoc(model)}\n\n"
        f"{_server_fields(model)}"
        for model in get_args(plain.ServerMessage)
    ]
    return "\n\n".join([said, *messages])


_WORDS: Final = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "`true` or `false`",
}


def fields_of(model: type[BaseModel]) -> list[Described]:
    """The fields of a model in their order, but `type` first."""
    document = model.model_json_schema()
    fields = document["properties"]
    return [
        _described(name, fields[name], document, model.model_fields[name].description)
        for name in sorted(fields, key=lambda name: name != "type")
    ]


def member_docs(members: type[Enum]) -> dict[str, str]:
    """The docstring that follows each member of an enumeration in its source, by its name."""
    body = ast.parse(textwrap.dedent(inspect.getsource(members))).body[0]
    if not isinstance(body, ast.ClassDef):
        raise TypeError(f"{members} is no class")
    found = {}
    for member, doc in zip(body.body, body.body[1:], strict=False):
        match member, doc:
            case (
                ast.Assign(targets=[ast.Name(id=name)]),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found[name] = text
    return found


def _described(
    name: str, field: dict[str, Any], document: dict[str, Any], meaning: str | None
) -> Described:
    choices = [choice for choice in field.get("anyOf", [field]) if choice.get("type") != "null"]
    kind = choices[0]
    fixed = "const" in kind
    required = name in document.get("required", []) or (fixed and name == "type")
    return Described(
        name=name,
        kind=_kind(kind, document),
        range=_range(kind.get("additionalProperties") or kind),
        default="required" if required else _default(field["default"]),
        optional=not required and field["default"] is None,
        meaning=" ".join((meaning or "Which message this is.").split()),
    )


def _kind(field: dict[str, Any], document: dict[str, Any]) -> str:
    if "const" in field:
        return f'`"{field["const"]}"`'
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return ("one of " if "enum" in document["$defs"][name] else "") + anchor(name)
    if field["type"] == "object":
        return f"object: names, and a {_WORDS[field['additionalProperties']['type']]} for each"
    return _WORDS[field["type"]]


def _range(field: dict[str, Any]) -> str:
    if "maxLength" in field:
        return f"at most {field['maxLength']} characters"
    least, most = field.get("minimum"), field.get("maximum")
    if least is None:
        return ""
    return f"{least} or more" if most in (None, LARGEST) else f"{least} to {most}"


def _default(value: Any) -> str:
    if value is None:
        return "absent"
    if isinstance(value, dict) and value:
        return "its defaults"
    return f"`{json.dumps(value)}`"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def anchor(name: str) -> str:
    """A link to the heading that `name` has on the same page."""
    return f"[`{name}`](#{re.sub(r'[^a-z0-9_-]', '', name.lower())})"
