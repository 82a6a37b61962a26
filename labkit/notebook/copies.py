"""The learner's own copies of the chapters, and JupyterLab on them.

The notebooks in `notebooks/` are made from their masters and compared with them, so nobody
should save into them. A learner works on copies in a folder that git ignores. Nothing in there is
ever overwritten: a chapter that is new is added, one that has changed since it was copied is put
beside the copy, and a file of hashes says which versions were handed out.
"""

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final
from urllib.parse import quote

from labkit.errors import LabkitError

_GIVEN: Final = ".chapters.json"
"""Which versions of each chapter the folder was given: name → SHA-256 of each."""
_SETTINGS: Final = Path(__file__).with_name("jupyter")
_SETTINGS_PATH: Final = "JUPYTER_CONFIG_PATH"
_RUN: Final = """
import runpy, signal
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, lambda *_: signal.raise_signal(signal.SIGTERM))
runpy.run_module("jupyterlab", run_name="__main__", alter_sys=True)
"""
"""As `python -m jupyterlab`, where Ctrl-C means the same as SIGTERM until its server asks in a
terminal whether one is sure: it just ends the imports, and stops the server in order. Python's own
handler gives a traceback wherever the program is."""


def copy_chapters(chapters: Path, mine: Path) -> list[str]:
    """Copy into `mine` the chapters that it has not been given yet.

    Args:
        chapters: The folder with the notebooks as they were made.
        mine: The learner's folder; made where it does not exist.

    Returns:
        A sentence for each copy.

    Raises:
        LabkitError: There are no chapters, or the folder cannot be written to.
    """
    made = sorted(chapters.glob("[0-9][0-9]_*.ipynb"))
    if not made:
        raise LabkitError(
            f"there are no chapters in {chapters}; labkit's notebooks come with its checkout"
        )
    try:
        mine.mkdir(parents=True, exist_ok=True)
        return _copy(made, mine)
    except OSError as error:
        raise LabkitError(
            f"cannot keep your copies in {mine}: {error.strerror or error}"
        ) from error


def _copy(made: Sequence[Path], mine: Path) -> list[str]:
    given = _read_given(mine / _GIVEN)
    sentences = []
    for chapter in made:
        content = chapter.read_bytes()
        version = hashlib.sha256(content).hexdigest()
        versions = given.get(chapter.stem, [])
        first = mine / chapter.name
        if first.exists() and (version in versions or first.read_bytes() == content):
            continue
        copy = write_beside(first, content)
        given[chapter.stem] = sorted({*versions, version})
        sentences.append(
            f"{chapter.stem} is yours to change in {copy}."
            if copy == first
            else f"{chapter.stem} has changed: the new version is {copy.name}, "
            f"and your {first.name} is as you left it."
        )
    (mine / _GIVEN).write_text(json.dumps(given, indent=1) + "\n", encoding="utf-8")
    return sentences


def _read_given(path: Path) -> dict[str, list[str]]:
    """The hashes so far. Without them, a changed chapter is at worst given once too often."""
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return {str(name): list(versions) for name, versions in found.items()}
    return {}


def write_beside(first: Path, content: bytes) -> Path:
    """Write under the first name that is free; a file that is there is never opened to write."""
    for number in count(1):
        path = first if number == 1 else first.with_stem(f"{first.stem}_version_{number}")
        with suppress(FileExistsError), path.open("xb") as file:
            file.write(content)
            return path
    raise AssertionError("there is a number for every file")


def jupyter_command(mine: Path, options: Sequence[str] = ()) -> list[str]:
    """The command that opens JupyterLab on the first copy, and asks nobody on the network anything.

    The addresses that it prints open that copy, too, for whoever copies one by hand. Without
    these settings its server looks for news, for a newer version of itself, and for extensions in
    the package index, whenever a page asks it to.
    """
    first = min(mine.glob("*.ipynb"), default=mine)
    page = "/lab" if first == mine else f"/lab/tree/{quote(first.name)}"
    return [
        *(sys.executable, "-c", _RUN, str(first)),
        f"--LabApp.default_url={page}",
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate",
        "--LabApp.extension_manager=readonly",
        *options,
    ]


def jupyter_environment() -> Mapping[str, str]:
    """The environment in which JupyterLab neither asks for news nor whether anybody wants some.

    Its plugin that does is switched off in a file, since no option switches its question off. The
    user's own settings are still read.
    """
    others = os.environ.get(_SETTINGS_PATH)
    folders = os.pathsep.join(filter(None, [str(_SETTINGS), others]))
    return {**os.environ, _SETTINGS_PATH: folders}
