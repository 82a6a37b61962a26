"""The JSON Schema of labkit.v1, made from the models of its messages."""

import json
from typing import Annotated, Any, Final

from pydantic import Field, TypeAdapter

from labkit.protocol.v1 import SUBPROTOCOL, ClientMessage, ServerMessage

PATH: Final = "/schema.json"
"""Where a server offers it."""

_UNIONS: Final = (
    ("client", TypeAdapter(Annotated[ClientMessage, Field(discriminator="type")])),
    ("server", TypeAdapter(Annotated[ServerMessage, Field(discriminator="type")])),
)


def schema() -> dict[str, Any]:
    """One document (draft 2020-12) for every text message of the dialect.

    A message of the client fits ``#/$defs/client``, one of the server ``#/$defs/server``; the
    document itself takes both.
    """
    unions, models = TypeAdapter.json_schemas(
        [(name, "validation", union) for name, union in _UNIONS]
    )
    for model in models["$defs"].values():
        _require_type(model)
    by_side = {name: unions[(name, "validation")] for name, _ in _UNIONS}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": SUBPROTOCOL,
        "description": f"The text messages of the WebSocket subprotocol {SUBPROTOCOL}.",
        "anyOf": [{"$ref": f"#/$defs/{name}"} for name in by_side],
        "$defs": {**by_side, **models["$defs"]},
    }


def schema_text() -> str:
    """The document as JSON text."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _require_type(model: dict[str, Any]) -> None:
    """A message says its `type`; to the models it is a default, because a class has one type."""
    if "type" in model.get("properties", {}) and "const" in model["properties"]["type"]:
        model["required"] = ["type", *model.get("required", [])]
