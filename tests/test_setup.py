"""The set-up fails early, with a sentence that says what is missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[1]
ENOUGH: Final = 100 * 1024 * 1024
"""Free blocks of a kibibyte."""


def stub(folder: Path, name: str, script: str) -> Path:
    """A command that does what `script` says."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def python(folder: Path, version: str, *, refuses: str) -> Path:
    """A Python that says no to any program with `refuses` in it, and yes to all others."""
    return stub(
        folder,
        "python",
        f'case "$*" in --version) echo "Python {version}" ;; *"{refuses}"*) exit 1 ;; esac',
    )


def set_up(folder: Path, python: str | Path, *, free: int = ENOUGH, **environment: str) -> str:
    """Run the set-up until it stops, and give what it said; it must not have made anything."""
    stub(folder, "df", f'printf "header\\ndisk 0 0 {free} 0%% /\\n"')
    place = folder / "environment"
    done = subprocess.run(
        [ROOT / ".ci" / "setup", place],
        cwd=ROOT,
        env={
            "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
            "PYTHON": str(python),
            **environment,
        },
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert not place.exists()
    assert done.stderr.startswith("set-up stopped: ")
    return done.stderr.removeprefix("set-up stopped: ")


def test_no_python(tmp_path: Path) -> None:
    said = set_up(tmp_path, "no-such-python")
    assert said.startswith("no no-such-python here; install Python 3.11 or newer")


@pytest.mark.parametrize(
    ("version", "refuses", "message"),
    [
        ("3.10.4", "< (3, 11)", "Python 3.10.4 is too old; name a newer one: make PYTHON="),
        ("3.15.0", ">= (3, 15)", "Python 3.15.0 is too new for onnxruntime; name one from"),
        ("3.12.1", "ensurepip", "this Python cannot make environments; install its venv module"),
    ],
)
def test_an_unfit_python(tmp_path: Path, version: str, refuses: str, message: str) -> None:
    assert set_up(tmp_path, python(tmp_path, version, refuses=refuses)).startswith(message)


def test_no_compiler(tmp_path: Path) -> None:
    said = set_up(tmp_path, sys.executable, CXX="no-such-compiler")
    assert said.startswith("no C++ compiler; install one (Debian: apt install g++")


def test_no_compiler_is_needed_with_built_wheels(tmp_path: Path) -> None:
    said = set_up(tmp_path, sys.executable, CXX="no-such-compiler", LLAMA_WHEELS="x", free=0)
    assert said.startswith("0 GB free")


def test_no_room(tmp_path: Path) -> None:
    said = set_up(tmp_path, sys.executable, CXX="sh", free=3 * 1024 * 1024)
    assert said == "3 GB free on this disk, 4 GB are needed; make room and run it again\n"


def bring_up(
    folder: Path,
    *,
    there: str,
    root: bool,
    make: str = 'echo "make $*"',
    apt: str = 'echo "apt-get $*"',
) -> subprocess.CompletedProcess[str]:
    """Run `.ci/run` on a machine that has only the commands `there`; it writes down what it ran."""
    for tool in ("bash", "dirname", "env"):
        (folder / tool).symlink_to(shutil.which(tool) or "")
    for tool in there.split():
        stub(folder, tool, {"make": make, "apt-get": apt}.get(tool, f'echo "{tool} $*"'))
    stub(folder, "id", f"echo {0 if root else 1000}")
    return subprocess.run(
        [folder / "bash", ROOT / ".ci" / "run"],
        env={"PATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


ALL: Final = "make c++ git python3 strace speaker-test chromium apt-get"


@pytest.mark.parametrize(
    ("there", "package"),
    [
        (ALL.replace("c++", ""), "g++"),
        (ALL.replace("git", ""), "git"),
        (ALL.replace("strace", ""), "strace"),
        (ALL.replace("speaker-test", ""), "alsa-utils"),
        (ALL.replace("chromium", ""), "chromium"),
    ],
)
def test_a_bare_machine_gets_what_it_lacks(tmp_path: Path, there: str, package: str) -> None:
    done = bring_up(tmp_path, there=there, root=True)
    assert done.stdout.splitlines()[-4:] == [
        "apt-get update --quiet",
        f"apt-get install --quiet --yes --no-install-recommends {package}",
        "make tiny",
        "make test",
    ]


@pytest.mark.parametrize(("lacks", "code"), [("chromium", 0), ("c++", 1)])
def test_what_is_only_useful_may_fail_to_install(tmp_path: Path, lacks: str, code: int) -> None:
    apt = '[ "$1" = update ]'
    done = bring_up(tmp_path, there=ALL.replace(lacks, ""), root=True, apt=apt)
    assert done.returncode == code
    assert ("make test" in done.stdout) is (code == 0)


def test_the_suite_runs_without_the_public_models_where_they_cannot_be_had(tmp_path: Path) -> None:
    done = bring_up(tmp_path, there=ALL, root=False, make='[ "$1" = test ] && echo "make $1"')
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "make test")
    assert done.stderr == "the tests with public models will be skipped\n"


def test_a_machine_that_has_it_all_is_left_alone(tmp_path: Path) -> None:
    assert "apt-get" not in bring_up(tmp_path, there=ALL, root=True).stdout


def test_what_is_missing_is_named_where_it_cannot_be_installed(tmp_path: Path) -> None:
    done = bring_up(tmp_path, there=ALL.replace("c++", ""), root=False)
    assert (done.returncode, done.stderr) == (
        1,
        "missing here: g++; install these packages and run this again\n",
    )


def test_strace_is_done_without_where_it_cannot_be_installed(tmp_path: Path) -> None:
    done = bring_up(tmp_path, there=ALL.replace("strace", ""), root=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "make test")
