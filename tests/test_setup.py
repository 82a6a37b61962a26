"""The set-up fails early, with a sentence that says what is missing."""

import os
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
