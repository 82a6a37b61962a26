"""Predictions: free until the measurement, locked by it."""

from pathlib import Path

import IPython
import pytest

from labkit.course.folder import Progress, mine
from labkit.course.predictions import measured, predict, predicted, predictions_of
from labkit.errors import LabkitError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_MINE", str(tmp_path))


def test_a_prediction_may_change_until_it_is_measured() -> None:
    predict("ch1.pong_ms", 5)
    assert "you predict 8 ms" in repr(predict("ch1.pong_ms", 8))
    assert "you predicted 8 ms, measured: 400 ms, 50.0 times as much" in repr(
        measured("ch1.pong_ms", 400)
    )
    assert predict("ch1.pong_ms", 400).predicted == 8
    measured("ch1.pong_ms", 10)
    assert Progress.load().predictions["ch1.pong_ms"].measured == 400


@pytest.mark.parametrize("name", ["ch0.dead_air", "ch1.slowest_pong", "pong", ""])
def test_a_name_without_its_unit_is_none(name: str) -> None:
    with pytest.raises(LabkitError, match="there is no prediction"):
        predict(name, 300)
    assert not Progress.load().predictions


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (92, "8 % less"),
        (130, "30 % more"),
        (99.6, "nearly the same"),
        (100.2, "as predicted"),
    ],
)
def test_a_measurement_near_its_prediction_is_told_in_percent(value: float, told: str) -> None:
    predict("ch1.pong_ms", 100)
    assert repr(measured("ch1.pong_ms", value)).endswith(f", {told}.")


def test_a_measurement_below_zero_is_compared_with_nothing() -> None:
    predict("ch1.pong_ms", 40)
    assert repr(measured("ch1.pong_ms", -74.4)).endswith("measured: -74.4 ms.")


def test_decibels_are_compared_without_a_ratio() -> None:
    predict("ch3.below_db", 60)
    assert repr(measured("ch3.below_db", 30.5)).endswith("60 dB, measured: 30.5 dB.")


def test_without_a_prediction_the_measurement_stands_alone() -> None:
    assert "you have predicted nothing" in repr(measured("ch1.other_ms", 3))


@pytest.mark.parametrize("no_number", ["400", True, None, float("nan")])
def test_a_prediction_is_a_number(no_number: object) -> None:
    with pytest.raises(LabkitError, match="a prediction is a number"):
        predict("ch1.pong_ms", no_number)  # type: ignore[arg-type]


def test_an_empty_prediction_asks_for_a_number() -> None:
    with pytest.raises(NotImplementedError, match=r"predict\('ch1.pong_ms', 400\)"):
        predict("ch1.pong_ms", ...)
    assert predictions_of("ch1") == {}


@pytest.mark.parametrize(
    ("typed", "known"), [(["12,5"], 12.5), (["soon", "20"], 20.0), ([""], None), ([], None)]
)
def test_a_notebook_asks_for_an_empty_prediction_once(
    typed: list[str], known: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer(prompt: str) -> str:
        asked.append(prompt)
        if len(asked) > len(typed):
            raise NotImplementedError("this frontend does not support input requests")
        return typed[len(asked) - 1]

    monkeypatch.setattr(IPython, "get_ipython", object)
    monkeypatch.setattr("builtins.input", answer)
    for _ in range(2):
        if known is None:
            with pytest.raises(NotImplementedError, match="write the number that you expect"):
                predict("ch1.pong_ms", ...)
            break
        assert predict("ch1.pong_ms", ...).predicted == known
    assert len(asked) == max(1, len(typed))
    assert asked[0] == "What do you expect for ch1.pong_ms? A number, in ms: "


def test_a_measurement_waits_for_its_prediction() -> None:
    with pytest.raises(NotImplementedError, match="predict first"):
        predicted("ch1.pong_ms")
    predict("ch1.pong_ms", 5)
    predict("ch2.other_ms", 5)
    predicted("ch1.pong_ms")
    measured("ch1.pong_ms", 400)
    (one,) = predictions_of("ch1").values()
    assert not one.late


def test_who_measured_first_predicts_once_and_late() -> None:
    measured("ch1.pong_ms", 400)
    assert "You still may, once" in repr(measured("ch1.pong_ms", 380))
    late = repr(predict("ch1.pong_ms", 100))
    assert "you predicted 100 ms after the measurement, measured: 400 ms, 4.0 times" in late
    assert repr(predict("ch1.pong_ms", 400)) == late, "locked, as any other"
    assert "100 ms after the measurement" in repr(measured("ch1.pong_ms", 380))
    (one,) = predictions_of("ch1").values()
    assert (one.predicted, one.measured, one.late) == (100, 400, True)


def test_a_broken_file_is_put_aside() -> None:
    (mine() / "progress.json").write_text("{", encoding="utf-8")
    assert Progress.load() == Progress()
    assert (mine() / "progress.broken").read_text(encoding="utf-8") == "{"
