"""Models and enumerations in plain words."""

import ast
import inspect
import json
import textwrap
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from pydantic import BaseModel

from labkit.protocol.markdown import anchor
from labkit.protocol.replay import LARGEST

__all__ = ["Described", "fields_of", "member_docs"]

_WORDS: Final = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "`true` or `false`",
}


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
        meaning=meaning or "Which message this is.",
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
