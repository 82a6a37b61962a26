"""The learner's copies: added, never overwritten."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jupyterlab.labapp import LabApp

from labkit.errors import LabkitError
from labkit.notebook.copies import (
    copy_chapters,
    jupyter_command,
    jupyter_environment,
    write_beside,
)
from tests.paths import ROOT

FIRST = "00_start_here.ipynb"


@pytest.fixture
def chapters(tmp_path: Path) -> Path:
    """A folder with one chapter, and things that are none."""
    folder = tmp_path / "notebooks"
    (folder / "masters").mkdir(parents=True)
    (folder / FIRST).write_text("version 1")
    (folder / "notes.ipynb").write_text("no chapter")
    return folder


def notebooks(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.glob("*.ipynb")}


def test_chapters_are_copied_once(chapters: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    assert copy_chapters(chapters, mine) == [f"00_start_here is yours to change in {mine / FIRST}."]
    assert notebooks(mine) == {FIRST: "version 1"}
    (mine / FIRST).write_text("my work")
    assert copy_chapters(chapters, mine) == []
    assert notebooks(mine) == {FIRST: "my work"}


def test_new_chapters_are_added(chapters: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    copy_chapters(chapters, mine)
    (chapters / "01_server.ipynb").write_text("a server")
    assert len(copy_chapters(chapters, mine)) == 1
    assert notebooks(mine) == {FIRST: "version 1", "01_server.ipynb": "a server"}


def test_a_chapter_that_changed_is_put_beside_and_said(chapters: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    copy_chapters(chapters, mine)
    (mine / FIRST).write_text("my work")
    (chapters / FIRST).write_text("version 2")
    assert copy_chapters(chapters, mine) == [
        "00_start_here has changed: the new version is 00_start_here_version_2.ipynb, "
        "and your 00_start_here.ipynb is as you left it."
    ]
    (chapters / FIRST).write_text("version 3")
    copy_chapters(chapters, mine)
    assert copy_chapters(chapters, mine) == []
    assert notebooks(mine) == {
        FIRST: "my work",
        "00_start_here_version_2.ipynb": "version 2",
        "00_start_here_version_3.ipynb": "version 3",
    }


def test_who_deletes_a_copy_gets_a_fresh_one(chapters: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    copy_chapters(chapters, mine)
    (mine / FIRST).unlink()
    assert len(copy_chapters(chapters, mine)) == 1
    assert notebooks(mine) == {FIRST: "version 1"}
    assert copy_chapters(chapters, mine) == []


@pytest.mark.parametrize("record", ["", "[1]", "{", '{"00_start_here": []}'])
def test_without_its_record_nothing_is_overwritten(
    record: str, chapters: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    copy_chapters(chapters, mine)
    (mine / ".chapters.json").write_text(record)
    assert copy_chapters(chapters, mine) == [], "the copy is as the chapter is"
    (mine / FIRST).write_text("my work")
    copy_chapters(chapters, mine)
    assert copy_chapters(chapters, mine) == []
    assert notebooks(mine) == {FIRST: "my work", "00_start_here_version_2.ipynb": "version 1"}


def test_a_file_that_came_in_between_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / FIRST).write_text("somebody's")
    assert write_beside(tmp_path / FIRST, b"mine").name == "00_start_here_version_2.ipynb"
    assert (tmp_path / FIRST).read_text() == "somebody's"


def test_a_package_without_chapters_says_so(tmp_path: Path) -> None:
    with pytest.raises(LabkitError, match="there are no chapters in .*come with its checkout"):
        copy_chapters(tmp_path, tmp_path / "mine")


def test_a_folder_that_cannot_be_made_is_named(chapters: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LabkitError, match="cannot keep your copies in .*file/mine"):
        copy_chapters(chapters, tmp_path / "file" / "mine")


def test_jupyterlab_looks_for_no_extensions(tmp_path: Path) -> None:
    python, _, _, folder, *options = jupyter_command(tmp_path, ["--no-browser"])
    assert (python, folder) == (sys.executable, str(tmp_path))
    lab = LabApp()
    lab.parse_command_line(options)
    assert (lab.extension_manager, lab.default_url) == ("readonly", "/lab")


@pytest.mark.parametrize(
    ("before", "code"), [(signal.default_int_handler, -signal.SIGTERM), (signal.SIG_IGN, 7)]
)
def test_ctrl_c_while_jupyterlab_is_imported_gives_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: Any, code: int
) -> None:
    lab = tmp_path / "jupyterlab"
    lab.mkdir()
    (lab / "__init__.py").write_text("import signal; signal.raise_signal(signal.SIGINT)")
    (lab / "__main__.py").write_text("raise SystemExit(7)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = subprocess.run(
        jupyter_command(tmp_path),
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, before),
    )
    assert (done.returncode, done.stderr) == (code, b"")


def test_the_addresses_that_are_printed_open_the_first_chapter(tmp_path: Path) -> None:
    for name in ("01_server.ipynb", FIRST):
        (tmp_path / name).write_text("{}")
    lab = LabApp()
    lab.parse_command_line(jupyter_command(tmp_path)[4:])
    assert lab.default_url == f"/lab/tree/{FIRST}"


ASKED = """
import json
from jupyterlab_server.config import get_page_config
print(json.dumps(get_page_config([])["disabledExtensions"]))
"""


def test_jupyterlab_does_not_ask_about_news(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own" / "labconfig"
    own.mkdir(parents=True)
    (own / "page_config.json").write_text('{"disabledExtensions": {"another": true}}')
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", str(own.parent))
    told = subprocess.run(
        [sys.executable, "-c", ASKED],
        env=jupyter_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert {"another", "@jupyterlab/apputils-extension:announcements"} <= {*json.loads(told.stdout)}


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not here")
def test_git_ignores_the_copies() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    asked = ["git", "check-ignore", f"mine/{FIRST}", "mine/server.py"]
    told = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    assert told.split() == asked[2:]


def test_what_was_given_can_be_read(chapters: Path, tmp_path: Path) -> None:
    copy_chapters(chapters, tmp_path / "mine")
    given = json.loads((tmp_path / "mine" / ".chapters.json").read_text())
    assert [len(versions) for versions in given.values()] == [1]


def test_jupyter_opens_the_first_chapter(tmp_path: Path) -> None:
    for name in ("01_server.ipynb", "00_start_here.ipynb", "00_start_here_version_2.ipynb"):
        (tmp_path / name).write_text("{}")
    assert str(tmp_path / "00_start_here.ipynb") in jupyter_command(tmp_path)
