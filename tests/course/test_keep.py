"""Cells that are kept: sections of one file, in their order, that run as a program."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from traceback import extract_tb
from types import TracebackType
from typing import Any

import pytest

from labkit.course.keep import (
    _before_keeping,
    assembled,
    keep,
    kept_chapters,
    kept_sections,
    run_section,
    server_file,
    show_error,
    undefined_names,
    write_sections,
)
from labkit.course.masters import section_chapters, sections
from labkit.course.predictions import predict
from labkit.errors import LabkitError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_MINE", str(tmp_path / "mine"))


def test_cells_become_sections_in_their_order() -> None:
    cell: dict[str, object] = {"__name__": "__main__"}
    keep("main", 'if __name__ == "__main__":\n    print(double(size))', cell)
    keep("double", "def double(n):\n    return 2 * n", cell)
    keep("imports", "size = 3", cell)
    keep("double", "def double(n):\n    return n + n\n", cell)
    assert list(kept_sections()) == ["imports", "double", "main"]
    assert kept_sections()["double"] == "def double(n):\n    return n + n"
    assert cell["size"] == 3
    assert cell["__name__"] == "__main__"
    done = subprocess.run([sys.executable, server_file()], capture_output=True, text=True)
    assert done.stdout == "6\n"


@pytest.mark.parametrize("wrong", ["def f(:", "1 / 0"])
def test_a_cell_that_fails_is_not_kept(wrong: str) -> None:
    cell: dict[str, object] = {}
    keep("one", "x = 1", cell)
    with pytest.raises((SyntaxError, ZeroDivisionError)):
        keep("one", wrong, cell)
    assert kept_sections() == {"one": "x = 1"}


def test_a_cell_that_is_no_python_is_told_by_its_line() -> None:
    with pytest.raises(SyntaxError) as raised:
        keep("one", "x = 1\ndef f(:", {})
    told = raised.value
    assert (told.filename, told.lineno, told.text) == ("%%keep one", 3, "def f(:\n")


def test_a_traceback_names_the_line_of_the_cell_whatever_is_kept_later() -> None:
    cell: dict[str, object] = {}
    keep("imports", "import sys", cell)
    keep("broken", "def f():\n    return 1 / 0", cell)
    keep("imports", "import sys\n\n\nimport json", cell)
    with pytest.raises(ZeroDivisionError) as raised:
        eval("f()", cell)
    at = extract_tb(raised.value.__traceback__)[-1]
    assert (at.filename, at.lineno, at.line) == ("%%keep broken", 3, "return 1 / 0")


class Shell:
    """In place of IPython's: notes what it is asked to show."""

    def __init__(self) -> None:
        self.frames: list[str] = []

    def showsyntaxerror(self) -> None:
        self.frames = ["no Python"]

    def _showtraceback(self, kind: type[Exception], error: Exception, lines: list[str]) -> None:
        self.frames = lines

    def showtraceback(self, told: tuple[Any, Any, TracebackType], *_: Any, **__: Any) -> None:
        self.frames = [Path(at.filename).name for at in extract_tb(told[2])]


@pytest.mark.parametrize(
    ("call", "frames"),
    [
        (lambda: keep("one", "def f(:", {}), ["no Python"]),
        (lambda: keep("one", "x = y", {}), ["%%keep one"]),
        (lambda: [][1], ["test_keep.py", "test_keep.py"]),
        (lambda: keep("two words", "", {}), ["test_keep.py", "test_keep.py"]),
        (lambda: keep("one", "raise NotImplementedError", {}), ["%%keep one"]),
        (
            lambda: predict("ch1.x_ms", ...),
            ["write the number that you expect: predict('ch1.x_ms', 400)"],
        ),
    ],
)
def test_an_error_is_shown_without_frames_that_are_not_the_learners(
    call: Callable[[], object], frames: list[str]
) -> None:
    shell = Shell()
    try:
        call()
    except Exception as error:
        assert error.__traceback__ is not None
        show_error(shell, type(error), error, error.__traceback__)
    assert shell.frames == frames


def finished() -> str:
    """Write the solved server of chapter 4, as a later chapter does."""
    return write_sections(sections(4), section_chapters(4)).read_text(encoding="utf-8")


def test_an_earlier_chapter_puts_a_later_server_aside_and_goes_on_with_its_own() -> None:
    later, cell = finished(), {}
    own = sections(1, stubs=["ch1.say"])
    for name in own:
        aside = keep(name, own[name], cell, chapter=1)
        assert (aside is None) == (name != "say")
        if aside is not None:
            assert kept_sections() == own  # `turn` and `main` as well, which come in later cells
            assert kept_chapters() == section_chapters(1)
            assert aside.name == "server_of_04.py"
            assert aside.read_text(encoding="utf-8") == later
    assert kept_sections() == own
    assert callable(cell["handle"])


def test_one_cell_of_an_earlier_chapter_takes_the_rest_from_the_solution() -> None:
    later, cell = finished(), {}
    for name, source in sections(4).items():
        run_section(name, source, cell)
    aside = keep("handle", f"{sections(3)['handle']}\n\n\nOWN = 1", cell, chapter=3)
    assert aside is not None
    assert aside.read_text(encoding="utf-8") == later
    solved = sections(3)
    assert {**kept_sections(), "handle": ""} == {**solved, "handle": ""}
    assert kept_sections()["handle"].endswith("OWN = 1")
    assert kept_chapters() == {**section_chapters(3), "handle": 3}
    assert undefined_names(server_file().read_text(encoding="utf-8")) == []


def test_who_goes_back_finds_their_own_sections_again() -> None:
    cell: dict[str, object] = {}
    own = sections(1) | {"say": "SAY = 1", "chunks": "CHUNKS = 1"}
    for number, server in ((1, own), (2, sections(2))):
        for name, source in server.items():
            if name not in kept_sections() or number == section_chapters(2)[name]:
                keep(name, source, cell, chapter=number)
    keep("chunks", "CHUNKS = 2", cell, chapter=1)  # chapter 2 has not replaced it
    keep("turn", "TURN = 2", cell, chapter=1)
    assert kept_sections() == own | {"chunks": "CHUNKS = 2", "turn": "TURN = 2"}
    assert kept_chapters() == section_chapters(1)
    assert cell["SAY"] == 1


def test_the_newest_copy_of_a_chapter_comes_back() -> None:
    cell: dict[str, object] = {}
    for number in (1, 2):
        keep("one", f"ONE = {number}", cell, chapter=1)
        keep("two", f"TWO = {number}", cell, chapter=1)
        keep("one", "LATER = 1", cell, chapter=2)
        keep("two", f"TWO = 'later, {number}'", cell, chapter=2)
        keep("one", "ONE = 0", cell, chapter=1)
        assert kept_sections() == {"one": "ONE = 0", "two": f"TWO = {number}"}


def test_what_no_later_chapter_has_replaced_is_kept_in_the_later_server() -> None:
    finished()
    cell: dict[str, object] = {}
    assert keep("chunks", "CHANGED = 1", cell, chapter=1) is None
    assert kept_sections() == {**sections(4), "chunks": "CHANGED = 1"}


def test_a_stub_does_not_replace_what_was_written_without_a_word() -> None:
    later = finished()
    stub = sections(3, stubs=["ch3.decode"])["messages"]
    told = _before_keeping("messages", stub, 3, has_kept=False)
    assert "still to be written. Your server had one that was; it is in `server_of_04.py`" in told
    assert server_file().with_name("server_of_04.py").read_text(encoding="utf-8") == later
    assert _before_keeping("messages", sections(3)["messages"], 3, has_kept=True) == ""
    assert (
        _before_keeping("life", sections(4, stubs=["ch4.bounds"])["life"], 4, has_kept=True) == ""
    )


def test_a_server_that_another_notebook_has_put_back_is_told_of() -> None:
    write_sections(sections(3), section_chapters(3))
    life = sections(4)["life"]
    assert _before_keeping("life", life, 4, has_kept=False) == ""  # the first cell of chapter 4
    told = _before_keeping("life", life, 4, has_kept=True)
    assert "put `server.py` back to chapter 3 meanwhile" in told
    assert "`begin(4)`" in told


def test_sections_of_ones_own_stay_where_they_are_no_later_than_the_chapter() -> None:
    cell: dict[str, object] = {}
    keep("early", "A = 1", cell, chapter=1)
    keep("say", "B = 1", cell, chapter=2)
    keep("late", "C = 1", cell, chapter=2)
    keep("say", "B = 2", cell, chapter=1)
    assert kept_sections() == {"early": "A = 1", "say": "B = 2"}


def test_a_name_has_to_be_one() -> None:
    with pytest.raises(LabkitError, match="is no name for a section"):
        keep("two words", "x = 1", {})


def test_what_exists_only_in_the_kernel_is_named() -> None:
    program = assembled(
        {
            "imports": "import json\nfrom pathlib import Path as P",
            "one": "def f(a, *, b=1):\n    c = [x for x in a]\n    return g(c, b, helper, json)",
            "two": "class A:\n    y = 1\n    def m(self): return P, y_in_kernel\ndef g(*_): ...",
        }
    )
    assert undefined_names(program) == ["helper", "y_in_kernel"]
