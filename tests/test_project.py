"""The project's own files agree with each other."""

import os
import re
import shutil
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).resolve().parents[1]

CONDA_NAMES: Final = {
    "matplotlib-base": "matplotlib",
    "pysoundfile": "soundfile",
    "soxr-python": "soxr",
}
"""What conda-forge calls by another name."""

TOP_LEVEL: Final = {
    ".ci",
    ".gitignore",
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "data",
    "environment.yml",
    "labkit",
    "notebooks",
    "pyproject.toml",
    "requirements-tiny.lock",
    "requirements.lock",
    "tests",
}

MODELS_MB: Final = 40


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@cache
def pyproject() -> dict[str, Any]:
    return tomllib.loads(text("pyproject.toml"))


def requirements(*lists: list[str]) -> dict[str, Requirement]:
    parsed = [Requirement(line) for lines in lists for line in lines]
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


def conda_requirements() -> dict[str, Requirement]:
    """The packages of environment.yml under the names that PyPI knows them by."""
    *conda, by_pip = yaml.safe_load(text("environment.yml"))["dependencies"]
    found = requirements(conda, by_pip["pip"])
    return {canonicalize_name(CONDA_NAMES.get(name, name)): found[name] for name in found}


@cache
def tracked() -> tuple[Path, ...]:
    """The files that belong to the project."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so nobody says which files belong to the project")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return tuple(path for path in paths if path.is_file())


def lines_that_match(pattern: str) -> list[str]:
    """`file:line` of each line of the project's text files that matches."""
    found = []
    for path in tracked():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue  # a recording, a model or a figure
        found += [
            f"{path.relative_to(ROOT)}:{number}"
            for number, line in enumerate(lines, start=1)
            if re.search(pattern, line)
        ]
    return found


def test_conda_and_pip_get_the_same_packages() -> None:
    conda = conda_requirements()
    python = conda.pop("python")
    del conda["pip"]
    wanted = requirements(pyproject()["project"]["dependencies"])
    assert {name: str(r.specifier) for name, r in conda.items()} == {
        name: str(r.specifier) for name, r in wanted.items()
    }
    assert pyproject()["project"]["requires-python"] in str(python.specifier).split(",")


def test_every_conda_package_names_its_chapter() -> None:
    lines = re.findall(
        r"^ +- (\S+ [>=]=?\S+)( # (?:all|\d\d): \S.*)?$", text("environment.yml"), re.M
    )
    unexplained = [package for package, comment in lines if not comment]
    assert len(lines) == len(pyproject()["project"]["dependencies"]) + 1
    assert [package.split()[0] for package in unexplained] == ["python"]


def test_every_dependency_is_justified() -> None:
    block = text("pyproject.toml").partition("\ndependencies = [\n")[2].partition("\n]")[0]
    entries = [line for line in block.splitlines() if line.lstrip().startswith('"')]
    assert entries
    assert [line for line in entries if "# " not in line] == []


def lock_entries() -> dict[str, tuple[str, str]]:
    """Version and hashes of each package of the lock file; the last one where Pythons differ."""
    found = re.findall(r"^([a-z0-9._-]+)==(\S+)(.*(?:\n    .*)*)", text("requirements.lock"), re.M)
    return {name: (version, rest) for name, version, rest in found}


def test_the_lock_file_has_every_dependency() -> None:
    project, groups = pyproject()["project"], pyproject()["dependency-groups"]
    wanted = requirements(
        project["dependencies"], project["optional-dependencies"]["test"], groups["setup"]
    )
    locked = lock_entries()
    assert sorted(set(wanted) - set(locked)) == []
    outside = [
        f"{name}=={locked[name][0]} against {requirement}"
        for name, requirement in wanted.items()
        if not requirement.specifier.contains(locked[name][0])
    ]
    assert outside == []


def test_the_lock_file_has_hashes_and_no_address() -> None:
    entries = lock_entries()
    assert [name for name, (_, rest) in entries.items() if "--hash=sha256:" not in rest] == []
    assert re.findall(r"^.*(?:://| @ |--(?!hash)).*$", text("requirements.lock"), re.M) == []


def test_the_tiny_extra_and_its_lock_name_the_same_wheels() -> None:
    extra = pyproject()["project"]["optional-dependencies"]["tiny"]
    lock = text("requirements-tiny.lock")
    assert re.findall(r"^\S+==\S+", lock, re.M) == extra
    assert len(re.findall(r"^    --hash=sha256:[0-9a-f]{64}$", lock, re.M)) == len(extra)


def test_the_licence_is_the_one_that_the_voice_asks_for() -> None:
    assert pyproject()["project"]["license"] == "GPL-3.0-or-later"
    assert re.match(r"\s+GNU GENERAL PUBLIC LICENSE\s+Version 3,", text("LICENSE"))


def test_the_changelog_knows_this_version() -> None:
    version = re.escape(pyproject()["project"]["version"])
    assert re.search(rf"^## \[{version}\]", text("CHANGELOG.md"), re.M)


def test_help_lists_every_target() -> None:
    shown = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    targets = set(re.findall(r"^\.PHONY: (\S+)$", text("Makefile"), re.M))
    assert {"exercise", "test", "lab", "help"} <= targets
    assert set(re.findall(r"^  make (\S+)", shown, re.M)) == targets


def test_ci_runs_the_one_test_command() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text(encoding="utf-8").rstrip().endswith("exec make test")
    subprocess.run(["bash", "-n", script], check=True)


def test_nothing_unexpected_stands_at_the_top() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in tracked()} - TOP_LEVEL == set()


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    assert lines_that_match(r"(?<![\w.}~])/(?:work|root|tmp|home)/") == []


def test_no_file_names_a_package_index() -> None:
    assert (
        lines_that_match(r"py" r"pi\.org|python" r"hosted|(?<!no-emit-)index" r"-url[ =]\S") == []
    )


def test_nothing_is_left_to_be_done() -> None:
    assert lines_that_match(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X)\b") == []


def test_the_models_stay_small() -> None:
    sizes = [path.stat().st_size for path in tracked() if (ROOT / "data/models") in path.parents]
    assert sum(sizes) < MODELS_MB * 1e6


def test_every_model_has_its_card() -> None:
    models = {path.parent for path in tracked() if path.parent.parent == ROOT / "data/models"}
    assert [model.name for model in models if ROOT / model / "MODEL_CARD.md" not in tracked()] == []
