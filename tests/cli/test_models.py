"""`labkit models`: what there is, and whether it is as it should be."""

import importlib
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from data.recipes.evaluation import verify as examination
from data.recipes.evaluation.figure import Figure
from labkit.voice.models import SETS, Model, Role
from tests.cli.commands import Labkit


@pytest.fixture(autouse=True)
def same_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Python looks for modules, to which a command adds the checkout."""
    monkeypatch.setattr(sys, "path", list(sys.path))


def test_without_a_checkout_one_line_says_so(
    labkit: Labkit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "data"))
    done = labkit("models", "verify")
    assert done.code == 1
    assert done.err.startswith("error: models are examined by data/recipes/evaluation")
    assert done.err.count("\n") == 1


def test_the_examination_of_the_checkout_decides(
    labkit: Labkit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    digits = tmp_path / "digits.tar"
    with tarfile.open(digits, "w"):
        pass
    asked: list[list[str]] = []

    def main(arguments: list[str]) -> int:
        asked.append(arguments)
        return len(asked) - 1

    found = importlib.import_module("data.recipes.evaluation.verify")
    monkeypatch.setattr(found, "main", main)
    assert labkit("models", "verify").code == 0
    assert labkit("models", "verify", "--digits", str(digits)).code == 1
    assert asked == [[], ["--digits", str(digits)]]


@pytest.mark.parametrize(
    ("content", "said"), [(None, "there is no file"), ("", "is no tar archive")]
)
def test_digits_that_are_none_are_refused_before_anything_is_measured(
    labkit: Labkit, tmp_path: Path, content: str | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "digits").write_text(content)
    done = labkit("models", "verify", "--digits", str(tmp_path / "digits"))
    assert done.code == 1
    assert said in done.err


def test_a_bar_that_is_missed_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    def figure(name: str, value: float, sample: int = 1) -> Figure:
        return Figure(name=name, value=value, bar=5, unit="%", at_most=True, sample=sample)

    assert examination.report(iter([("a", [figure("low", 1)]), ("b", [figure("none", 9, 0)])]))
    assert not examination.report(iter([("a", [figure("high", 9)]), ("b", [])]))
    assert "not measured" in capsys.readouterr().out


@pytest.mark.parametrize(("same", "code"), [(True, 0), (False, 1)])
def test_the_files_of_other_sets_are_read_and_a_changed_one_is_told(
    labkit: Labkit, monkeypatch: pytest.MonkeyPatch, same: bool, code: int
) -> None:
    def check_files(model: Model) -> Iterator[tuple[Path, bool]]:
        yield Path(f"{model.role}.bin"), same or model.role is not Role.LLM

    monkeypatch.setattr("labkit.voice.models.check_files", check_files)
    done = labkit("models", "verify", "--models", "tiny")
    assert done.code == code
    assert [line.split()[-1] for line in done.out.splitlines()] == ["asr.bin", "llm.bin", "tts.bin"]
    assert done.out.count("CHANGED smollm2-135m") == code


def test_the_list_says_for_each_set_what_it_is_for_and_how_to_get_it(
    labkit: Labkit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    told = labkit("models", "list").out
    for set_name, about in SETS.items():
        assert f"{set_name}  {about}" in told
    assert "licence Apache-2.0" in told
    assert "not here. Run 'labkit models pull --asr base.en'" in told
