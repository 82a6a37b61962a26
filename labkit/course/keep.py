"""The server that a learner builds: cells that are kept become sections of `mine/server.py`.

A cell that begins with ``%%keep NAME`` runs, and becomes the section of that name; running it
again replaces the section. The file is a plain program, ``python mine/server.py``.
"""

import ast
import builtins
import hashlib
import re
import symtable
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from labkit.course.folder import mine
from labkit.errors import LabkitError

__all__ = [
    "assembled",
    "keep",
    "kept_sections",
    "register",
    "run_section",
    "server_file",
    "server_hash",
    "undefined_names",
    "write_sections",
]

_HEAD: Final = '"""A voice server, built chapter by chapter. PORT says on which port it listens."""'
_FIRST, _LAST = "imports", "main"
_SECTION: Final = re.compile(r"^# %% (\w+)\n", re.M)


def server_file() -> Path:
    """The file that kept cells go into."""
    return mine() / "server.py"


def server_hash() -> str:
    """A hash of that file, to know later whether it has changed; empty where there is none."""
    path = server_file()
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else ""


def kept_sections() -> dict[str, str]:
    """The sections of the learner's server so far."""
    path = server_file()
    if not path.is_file():
        return {}
    _, *parts = _SECTION.split(path.read_text(encoding="utf-8"))
    return {name: source.strip("\n") for name, source in zip(parts[::2], parts[1::2], strict=True)}


def assembled(sections: Mapping[str, str]) -> str:
    """The sections as one program: imports first, `main` last, the rest in their order."""
    middle = [name for name in sections if name not in (_FIRST, _LAST)]
    names = [name for name in (_FIRST, *middle, _LAST) if name in sections]
    parts = [f"# %% {name}\n{sections[name]}" for name in names]
    return "\n\n\n".join([_HEAD, *parts]) + "\n"


def write_sections(sections: Mapping[str, str]) -> Path:
    """Write the sections as the learner's server; gives the file."""
    path = server_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(assembled(sections), encoding="utf-8")
    return path


def keep(name: str, source: str, namespace: dict[str, object]) -> Path:
    """Run a cell, and keep it as a section of the learner's server.

    It runs as a part of that file, so a traceback names the file's own lines.

    Args:
        name: The section.
        source: The cell.
        namespace: Where it runs.

    Raises:
        LabkitError: The name is none.
        Exception: Whatever the cell raises; then nothing is kept.
    """
    if not name.isidentifier():
        raise LabkitError(f"{name!r} is no name for a section; write, for instance, '%%keep audio'")
    try:
        ast.parse(source)  # a cell that is no Python fails here, before anything has changed
    except SyntaxError as error:
        where = f"line {(error.lineno or 0) + 1} of this cell"  # below the line with %%keep
        raise SyntaxError(f"{where}: {error.msg}: {(error.text or '').strip()}") from None
    kept = {**kept_sections(), name: source.strip("\n")}
    text = assembled(kept)
    line = text[: text.index(f"# %% {name}\n")].count("\n") + 1
    run_section("\n" * line + kept[name], namespace)
    return write_sections(kept)


def run_section(source: str, namespace: dict[str, object]) -> None:
    """Run a part of the server's file as if the file were imported: it starts no server."""
    before = namespace.get("__name__")
    namespace["__name__"] = "server"
    try:
        exec(compile(source, str(server_file()), "exec"), namespace)
    finally:
        namespace["__name__"] = before


def register() -> None:
    """Let cells of this notebook begin with ``%%keep NAME``; elsewhere, do nothing."""
    if "IPython" not in sys.modules:
        return
    from IPython import get_ipython
    from IPython.display import Markdown, display

    if (shell := get_ipython()) is None:
        return

    def magic(line: str, cell: str) -> None:
        """Run this cell, and keep it as a section of mine/server.py."""
        name, before = line.strip(), kept_sections()
        keep(name, cell, shell.user_ns)
        if before and name not in before:  # on purpose, or the name was mistyped
            display(Markdown(f"new section `{name}`; there are: {', '.join(before)}"))  # type: ignore[no-untyped-call]

    shell.register_magic_function(magic, "cell", "keep")


def undefined_names(source: str) -> list[str]:
    """The global names that a program uses and never defines: they exist in the kernel only."""
    table = symtable.symtable(source, "server.py", "exec")
    defined = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned()}
    defined |= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_imported()}
    used: set[str] = set()
    todo = [table]
    while todo:
        one = todo.pop()
        todo += one.get_children()
        used |= {
            symbol.get_name()
            for symbol in one.get_symbols()
            if symbol.is_global() or (one is table and symbol.is_referenced())
        }
        defined |= {s.get_name() for s in one.get_symbols() if s.is_declared_global()}
    known = defined | set(dir(builtins)) | {"__file__"}
    return sorted(name for name in used - known)
