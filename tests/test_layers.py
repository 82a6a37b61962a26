"""The layers: a module imports only from its own layer or a lower one, as drawn in LAYERS."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[1]
ENGINES: Final = ("faster_whisper", "ctranslate2", "llama_cpp", "piper", "onnx", "onnxruntime")

SERVER_INTERNALS: Final = tuple(
    f"labkit.server.{name}"
    for name in ("admission", "connection", "http", "metrics", "plain", "v1", "websocket")
)


DIALECTS: Final = ("labkit.protocol.plain", "labkit.protocol.v1")
PIPELINES: Final = ("labkit.voice.engines", "labkit.voice.pipeline", "labkit.voice.reply")
"""A session and a server know what a pipeline is, and none of those that answer."""


@dataclass(frozen=True)
class Layer:
    """A module or package, how high it stands, and what it must not import, not even lazily."""

    place: str
    height: int
    forbidden: tuple[str, ...] = ()


# The longest place that fits a module is the one that counts.
LAYERS: Final = (
    Layer("labkit", 6, ENGINES),
    Layer("labkit.errors", 0, ("labkit",)),
    Layer("labkit.trace", 0, ("labkit", "asyncio", "time")),
    Layer("labkit.telemetry", 0, ("labkit",)),
    Layer("labkit.tasks", 0, ("labkit",)),
    Layer("labkit.audio", 0, ("asyncio", "time", *ENGINES)),
    Layer("labkit.net", 0, ("asyncio", "time", "websockets")),
    Layer("labkit.protocol", 1, ("asyncio", "time", "websockets")),
    Layer("labkit.voice", 2, ("websockets", "labkit.session", "labkit.server")),
    Layer("labkit.session", 3, ("websockets", *DIALECTS, *PIPELINES)),
    Layer("labkit.server", 4, (*PIPELINES, *ENGINES)),
    Layer("labkit.spans", 4, ("labkit.voice", *ENGINES)),
    Layer("labkit.client", 4, ("labkit.server", "labkit.session", "labkit.voice")),
    Layer("labkit.measure", 5, SERVER_INTERNALS),
    Layer("labkit.drills", 5, SERVER_INTERNALS),
    Layer("labkit.course", 5),
    Layer("labkit.doctor", 5),
    Layer("labkit.notebook", 6, ENGINES),
    Layer("labkit.cli", 6),
    Layer("labkit.__main__", 6),
)


def modules() -> dict[str, Path]:
    """Every module of labkit by its dotted name."""
    found = {}
    for path in sorted((ROOT / "labkit").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES: Final = modules()


def within(name: str, place: str) -> bool:
    """Whether `name` is `place`, or inside of it."""
    return name == place or name.startswith(place + ".")


def layer_of(name: str) -> Layer:
    """The row that decides for `name`; the package itself stands for its `__init__` alone."""
    rows = [row for row in LAYERS if within(name, row.place)]
    row = max(rows, key=lambda row: len(row.place))
    if row.place == "labkit" and name != "labkit":
        pytest.fail(f"{name} is in no layer; give it a row in LAYERS")
    return row


def imports(source: str) -> Iterator[str]:
    """The dotted names that `source` imports anywhere, inside functions too."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                inner = [f"{module}.{alias.name}" for alias in names]
                yield from (name if name in MODULES else module for name in inner)
            case ast.ImportFrom():
                pytest.fail(f"relative import in line {node.lineno}; write it in full")


@cache
def imports_of(name: str) -> set[str]:
    """What a module of labkit imports."""
    return set(imports(MODULES[name].read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_from_its_own_layer_or_a_lower_one(name: str) -> None:
    own = layer_of(name)
    above = {
        imported
        for imported in imports_of(name)
        if within(imported, "labkit") and layer_of(imported).height > own.height
    }
    assert not above, f"{name} (layer {own.height}) imports from above: {sorted(above)}"


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_nothing_that_its_row_forbids(name: str) -> None:
    row = layer_of(name)
    wrong = {
        imported
        for imported in imports_of(name)
        for place in row.forbidden
        if within(imported, place) and not within(imported, row.place)
    }
    assert not wrong, f"{name} must not import {sorted(wrong)} (row {row.place!r})"


def test_imports_have_no_cycle() -> None:
    TopologicalSorter({name: imports_of(name) - {name} for name in MODULES}).prepare()


@pytest.mark.parametrize("row", LAYERS, ids=lambda row: row.place)
def test_every_row_names_something(row: Layer) -> None:
    assert row.place in MODULES


def test_imports_are_found_wherever_they_stand() -> None:
    source = """
import json, labkit.audio.pcm
from labkit.voice import engines, Nothing
def f():
    from piper import PiperVoice
"""
    assert set(imports(source)) == {
        "json",
        "labkit.audio.pcm",
        "labkit.voice.engines",
        "labkit.voice",
        "piper",
    }
