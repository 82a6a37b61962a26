"""Predictions: free until the measurement, locked by it."""

from pathlib import Path

import pytest

from labkit.course.folder import Progress, mine
from labkit.course.predictions import measured, predict
from labkit.errors import LabkitError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_MINE", str(tmp_path))


def test_a_prediction_may_change_until_it_is_measured() -> None:
    predict("ch1.pong_ms", 5)
    assert "you predict 8 ms" in repr(predict("ch1.pong_ms", 8))
    assert "you predicted 8 ms, measured are 400 ms, 50.0 times as much" in repr(
        measured("ch1.pong_ms", 400)
    )
    assert predict("ch1.pong_ms", 400).predicted == 8
    measured("ch1.pong_ms", 10)
    assert Progress.load().predictions["ch1.pong_ms"].measured == 400


def test_without_a_prediction_the_measurement_stands_alone() -> None:
    assert "you have predicted nothing" in repr(measured("ch1.other_ms", 3))


@pytest.mark.parametrize("no_number", ["400", True, None])
def test_a_prediction_is_a_number(no_number: object) -> None:
    with pytest.raises(LabkitError, match="a prediction is a number"):
        predict("ch1.pong_ms", no_number)  # type: ignore[arg-type]


def test_a_broken_file_is_put_aside() -> None:
    (mine() / "progress.json").write_text("{", encoding="utf-8")
    assert Progress.load() == Progress()
    assert (mine() / "progress.broken").read_text(encoding="utf-8") == "{"
