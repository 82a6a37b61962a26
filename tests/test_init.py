"""What `from labkit import …` gives."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import labkit
from tests.paths import ROOT

NAMES = [name for name in labkit.__all__ if name != "__version__"]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there_and_documented(name: str) -> None:
    assert getattr(labkit, name) is not None
    assert re.search(rf"`{name}\b|\b{name}\(", labkit.__doc__ or "")


def test_types_and_places_say_the_same() -> None:
    """What a type checker reads is what is loaded."""
    tree = ast.parse(Path(labkit.__file__).read_text(encoding="utf-8"))
    told = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("labkit.")
        for alias in node.names
    }
    assert told == dict(labkit._PLACES)
    assert sorted(told) == sorted(NAMES)


def test_a_name_that_is_none_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = labkit.nothing


def test_names_can_be_listed() -> None:
    assert set(dir(labkit)) == set(labkit.__all__)


def test_importing_labkit_loads_nothing_heavy() -> None:
    program = "import sys; own = {*sys.modules}; import labkit; print(*{*sys.modules} - own)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {"numpy", "websockets", "matplotlib", "onnxruntime", "pydantic", "asyncio"}
    # Until `labkit` is imported, Ctrl-C gives a traceback.
    heavy |= {"importlib.metadata", "email", "pathlib", "typing"}
    assert heavy.isdisjoint(loaded)


def test_the_version_is_known_once_it_is_asked_for() -> None:
    assert re.match(r"\d+\.\d+\.\d+", labkit.__version__)
