"""The server that a learner builds: cells that are kept become sections of `mine/server.py`.

A cell that begins with ``%%keep NAME`` runs, and becomes the section of that name; running it
again replaces the section. The file is a plain program, ``python mine/server.py``.

Each section says which chapter kept it. Where a chapter keeps its first one, a copy of the server
so far stays beside the file. Where an earlier chapter keeps a section again that a later one has
replaced, the later sections would no longer go with it: the file is put aside, and goes back to
that chapter's server, as the newest copy has it.
"""

import builtins
import hashlib
import linecache
import re
import shutil
import symtable
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from labkit.course.folder import mine
from labkit.course.masters import section_chapters, sections, still_to_write
from labkit.course.shell import current_shell
from labkit.errors import LabkitError

_HEAD: Final = '"""A voice server, built chapter by chapter. PORT says on which port it listens."""'
_FIRST, _LAST = "imports", "main"
_LABKIT: Final = str(Path(__file__).resolve().parents[1])
_SECTION: Final = re.compile(r"^# %% (\w+)(?: \(chapter (\d+)\))?\n", re.M)


def server_file() -> Path:
    """The file that kept cells go into."""
    return mine() / "server.py"


def server_hash() -> str:
    """A hash of that file, to know later whether it has changed; empty where there is none."""
    path = server_file()
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else ""


def kept_sections(path: Path | None = None) -> dict[str, str]:
    """The sections of the learner's server so far, or of a copy of it."""
    return {name: source.strip("\n") for name, _, source in _parts(path or server_file())}


def kept_chapters(path: Path | None = None) -> dict[str, int]:
    """Which chapter has kept each of them, where that is known."""
    return {name: int(chapter) for name, chapter, _ in _parts(path or server_file()) if chapter}


def _parts(path: Path) -> Iterable[tuple[str, str | None, str]]:
    if not path.is_file():
        return ()
    _, *parts = _SECTION.split(path.read_text(encoding="utf-8"))
    return zip(parts[::3], parts[1::3], parts[2::3], strict=True)


def assembled(sections: Mapping[str, str], chapters: Mapping[str, int] | None = None) -> str:
    """The sections as one program: imports first, `main` last, the rest in their order.

    Args:
        sections: The sections.
        chapters: Which chapter has kept each of them.
    """
    middle = [name for name in sections if name not in (_FIRST, _LAST)]
    names = [name for name in (_FIRST, *middle, _LAST) if name in sections]
    kept_by = {name: f" (chapter {number})" for name, number in (chapters or {}).items()}
    parts = [f"# %% {name}{kept_by.get(name, '')}\n{sections[name]}" for name in names]
    return "\n\n\n".join([_HEAD, *parts]) + "\n"


def write_sections(sections: Mapping[str, str], chapters: Mapping[str, int] | None = None) -> Path:
    """Write the sections as the learner's server; gives the file."""
    path = server_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(assembled(sections, chapters), encoding="utf-8")
    return path


def put_aside(name: str) -> Path:
    """Copy the learner's server to a file beside it, and overwrite nothing; gives the copy.

    Args:
        name: Of the copy, without its ending; a number is added where another file has it.
    """
    path, number = server_file(), 1
    aside = path.with_name(f"{name}.py")
    while aside.exists() and aside.read_bytes() != path.read_bytes():
        number += 1
        aside = path.with_name(f"{name}_{number}.py")
    shutil.copyfile(path, aside)
    return aside


def keep(
    name: str, source: str, namespace: dict[str, object], chapter: int | None = None
) -> Path | None:
    """Run a cell, and keep it as a section of the learner's server.

    Args:
        name: The section.
        source: The cell, without its first line.
        namespace: Where it runs.
        chapter: The chapter that keeps it.

    Returns:
        The copy of the file, where a later chapter had kept this section: then everything that
        later chapters have kept goes back to what this one had.

    Raises:
        LabkitError: The name is none.
        Exception: Whatever the cell raises; then nothing is kept.
    """
    if not name.isidentifier():
        raise LabkitError(f"{name!r} is no name for a section; write, for instance, '%%keep audio'")
    run_section(name, source, namespace)
    kept, chapters, aside = kept_sections(), kept_chapters(), None
    if chapter is not None:
        reached = max(chapters.values(), default=chapter)
        if chapters.get(name, chapter) > chapter:
            aside = put_aside(f"server_of_{reached:02}")
            before = dict(kept)
            _go_back_to(chapter, kept, chapters)
            for other, text in kept.items():
                if other != name and text != before[other]:
                    run_section(other, text, namespace)
        elif reached < chapter:
            put_aside(f"server_of_{reached:02}")  # for whoever goes back
        chapters[name] = chapter
    write_sections({**kept, name: source.strip("\n")}, chapters)
    return aside


def _go_back_to(chapter: int, kept: dict[str, str], chapters: dict[str, int]) -> None:
    """Leave the sections as they were in a chapter.

    What a later chapter has kept is as it was before that, or left out where it was not there.
    """
    old, old_by = _as_it_was(chapter)
    for name in [name for name, number in chapters.items() if number > chapter]:
        if name in old:
            kept[name], chapters[name] = old[name], old_by[name]
        else:
            del kept[name], chapters[name]


def _as_it_was(chapter: int) -> tuple[dict[str, str], dict[str, int]]:
    """The newest copy of the learner's server of a chapter; the solution for what that lacks."""
    copies = server_file().parent.glob("server_*.py")
    of_it = [one for one in copies if max(kept_chapters(one).values(), default=0) == chapter]
    old, old_by = sections(chapter), section_chapters(chapter)
    if of_it:
        newest = max(of_it, key=lambda one: one.stat().st_mtime_ns)
        own_by = kept_chapters(newest)
        old |= {name: text for name, text in kept_sections(newest).items() if name in own_by}
        old_by |= own_by
    return old, old_by


def run_section(name: str, source: str, namespace: dict[str, object]) -> None:
    """Run a section as if the server's file were imported: it starts no server.

    Tracebacks name it as its cell begins, with the lines of that cell. Lines of the file would be
    wrong as soon as another section is kept again and has become longer.
    """
    filename = f"%%keep {name}"
    lines = f"{filename}\n{source}\n".splitlines(keepends=True)
    linecache.cache[filename] = (sum(map(len, lines)), None, lines, filename)
    code = compile(f"\n{source}", filename, "exec")
    before = namespace.get("__name__")
    namespace["__name__"] = "server"
    try:
        exec(code, namespace)
    finally:
        namespace["__name__"] = before


def register(chapter: int) -> None:
    """Let cells of a chapter's notebook begin with ``%%keep NAME``; elsewhere, do nothing."""
    if (shell := current_shell()) is None:
        return
    from IPython.display import Markdown, display

    has_kept = False

    def magic(line: str, cell: str) -> None:
        """Run this cell, and keep it as a section of mine/server.py."""
        nonlocal has_kept
        name, before = line.strip(), kept_sections()
        told = _before_keeping(name, cell, chapter, has_kept=has_kept)
        has_kept = True
        if (aside := keep(name, cell, shell.user_ns, chapter)) is not None:
            told = (
                f"A later chapter had kept its own `{name}`, so `server.py` goes back to your "
                f"server of chapter {chapter}; what yours never had is taken from the solution. "
                f"Nothing is lost: what was there is in `{aside.name}`, and "
                f"`cp {aside.name} server.py`, in a terminal in `{aside.parent}`, brings it back."
            )
        elif name not in before and name not in section_chapters():  # on purpose, or mistyped
            told = f"`{name}` is a section of your own; there are: {', '.join(before)}"
        if told:
            display(Markdown(told))  # type: ignore[no-untyped-call]

    shell.register_magic_function(magic, "cell", "keep")
    shell.set_custom_exc((Exception,), show_error)


def _before_keeping(name: str, source: str, chapter: int, *, has_kept: bool) -> str:
    """What to tell whoever keeps a cell of a chapter; whether the kernel `has_kept` one before.

    Puts the server aside where a stub would replace a section of a later chapter's server.
    """
    kept, reached = kept_sections(), max(kept_chapters().values(), default=0)
    if has_kept and reached < chapter:
        return (
            f"Another notebook has put `server.py` back to chapter {reached} meanwhile, and "
            f"`{name}` is kept in that. `begin({chapter})` and all that follows it, run again, "
            f"make it a server of chapter {chapter}."
        )
    whole = name in kept and not still_to_write({name: kept[name]})
    if reached > chapter and whole and still_to_write({name: source}):
        aside = put_aside(f"server_of_{reached:02}")
        return (
            f"`{name}` of this cell is still to be written. Your server had one that was; it is "
            f"in `{aside.name}`, beside `server.py`."
        )
    return ""


def show_error(
    shell: Any,
    kind: type[Exception],
    error: Exception,
    traceback: TracebackType,
    tb_offset: int | None = None,
) -> None:
    """Show what a cell raised, without frames of labkit's that say nothing to a learner.

    Those are the ones that run a section, and those below a call that labkit refuses in words. What
    labkit asks a learner to do first, such as to predict, is shown as these words alone.
    """
    if isinstance(error, LabkitError | NotImplementedError):
        asked = _end_outside(traceback) and isinstance(error, NotImplementedError)
        if asked:
            shell._showtraceback(kind, error, [str(error)])
            return
    inside: TracebackType | None = traceback
    while inside is not None and inside.tb_frame.f_code is not run_section.__code__:
        inside = inside.tb_next
    if inside is None:
        shell.showtraceback((kind, error, traceback), tb_offset, running_compiled_code=True)
    elif inside.tb_next is None:  # it is no Python, so that nothing ran
        shell.showsyntaxerror()
    else:
        shell.showtraceback((kind, error, inside.tb_next), tb_offset=0)


def _end_outside(traceback: TracebackType) -> bool:
    """Let a traceback end with its last frame that is not labkit's, such as the call in a cell.

    Returns:
        Whether there were frames behind that one.
    """
    last, frame = traceback, traceback.tb_next
    while frame is not None:
        if not frame.tb_frame.f_code.co_filename.startswith(_LABKIT):
            last = frame
        frame = frame.tb_next
    inside = last.tb_next is not None
    last.tb_next = None
    return inside


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
