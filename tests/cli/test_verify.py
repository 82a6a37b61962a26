"""`labkit models verify`: finds the examination in a checkout, or says that there is none."""

import importlib
import sys
from pathlib import Path

import pytest

from data.recipes.evaluation import verify as examination
from data.recipes.evaluation.figure import Figure
from labkit.cli import app as command_line


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> object:
    monkeypatch.setattr(sys, "argv", ["labkit", "models", "verify", *words])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as caught:
        command_line.run_command_line()
    return caught.value.code


def test_without_a_checkout_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "data"))
    assert run(monkeypatch) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: models are examined by data/recipes/evaluation")
    assert err.count("\n") == 1


def test_the_examination_of_the_checkout_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def main(arguments: list[str]) -> int:
        asked.append(arguments)
        return len(asked) - 1

    found = importlib.import_module("data.recipes.evaluation.verify")
    monkeypatch.setattr(found, "main", main)
    assert run(monkeypatch) == 0
    assert run(monkeypatch, "--digits", "digits.tar") == 1
    assert asked == [[], ["--digits", "digits.tar"]]


def test_a_bar_that_is_missed_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    def figure(name: str, value: float, sample: int = 1) -> Figure:
        return Figure(name=name, value=value, bar=5, unit="%", at_most=True, sample=sample)

    assert examination.report(iter([("a", [figure("low", 1)]), ("b", [figure("none", 9, 0)])]))
    assert not examination.report(iter([("a", [figure("high", 9)]), ("b", [])]))
    assert "not measured" in capsys.readouterr().out
