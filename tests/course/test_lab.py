"""The laboratory of chapter 4: what it tells of a call, and what it draws."""

from pathlib import Path

import pytest

from labkit.course import lab
from labkit.course.keep import write_sections
from labkit.course.lab import Call, Crowd, Taken
from labkit.course.masters import sections


def call(direction: str, after: int | None, how: str, heard: str, reply_s: float) -> Call:
    return Call(direction, after, how, "turn the light on", heard, reply_s, 2.0, 50.0)


def test_a_call_is_told_in_two_lines() -> None:
    told = str(call("up", 45_000, "resumed", "turn the light", 1.5))
    assert told == (
        "cut after 45,000 bytes up; resumed, 50 ms later\n"
        '  said "turn the light on", heard "turn the light"; 1.5 s of the reply came'
    )
    assert str(call("up", None, "", "turn", 1.0)).startswith("not cut\n")


def test_what_gets_through_is_words_on_the_way_up_and_sound_on_the_way_down() -> None:
    assert call("up", 1, "", "turn the light", 0.0).through(2.0) == 0.75
    assert call("up", 1, "", "what a lovely day it is to be here", 0.0).through(2.0) == 0.0
    assert call("down", 1, "", "", 0.5).through(2.0) == 0.25


def test_each_figure_names_its_servers() -> None:
    calls = [call("up", 1, "", "turn", 1.0), call("down", 9, "", "turn", 1.0)]
    drawn = [
        lab.plot_calls({"before": calls, "after": calls}),
        lab.plot_taken({"before": Taken([0, 1], [0, 9]), "after": Taken([0, 1], [0, 5])}),
        lab.plot_crowd({"before": Crowd(0, [0, 1], [9, 9], [1, 1])}),
    ]
    for axes in drawn:
        assert axes.get_title(loc="left") or axes.get_title()
        legend = axes.get_legend()
        assert legend is not None
        assert legend.get_texts()[0].get_text().startswith("before")


def test_the_server_before_has_what_is_ones_own_and_nothing_of_this_chapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABKIT_MINE", str(tmp_path))
    write_sections({**sections(4), "off_loop": "OWN = 1"})
    text = lab.server_before().read_text(encoding="utf-8")
    assert "OWN = 1" in text
    assert "Lasting" not in text
    assert "class V1" in text
