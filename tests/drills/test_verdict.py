"""What a drill found, and when it is good enough."""

from dataclasses import replace

import pytest
import typer
from rich.console import Console

from labkit.cli.drill import judge, verdict_table
from labkit.drills import Finding, Verdict

KEPT = Finding("messages", 1_000, "all answered", holds=True)
BROKEN = Finding.none_of("faults in the log", 2)
TOLD = Finding.told("speed", 12.345)


def test_a_verdict_holds_where_every_promise_was_kept() -> None:
    assert Verdict("x", (KEPT, TOLD)).holds
    assert not Verdict("x", (KEPT, BROKEN)).holds


def test_a_drill_that_judged_nothing_has_shown_nothing() -> None:
    assert not Verdict("x", ()).holds
    assert not Verdict("x", (TOLD,)).holds


def test_a_figure_above_its_bar_breaks_the_promise() -> None:
    assert Finding.at_most("growth", 5.0, 5.0).holds
    over = Finding.at_most("growth", 5.1, 5.0)
    assert not over.holds
    assert over.bar == "≤ 5"


def test_what_must_not_happen_must_not_happen_once() -> None:
    assert Finding.none_of("x", 0).holds
    assert not BROKEN.holds


def test_the_table_has_a_row_for_each_finding() -> None:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(verdict_table(Verdict("a [title]", (KEPT, BROKEN, TOLD))))
    lines = capture.get().splitlines()
    assert "a [title]" in lines[0]
    assert [line.split() for line in lines[-4:-1]] == [
        ["messages", "1,000", "all", "answered", "yes"],
        ["faults", "in", "the", "log", "2", "none", "no"],
        ["speed", "12.35", "told"],
    ]


def test_a_broken_promise_ends_the_command_with_code_1() -> None:
    judge(Verdict("x", (KEPT,)))
    with pytest.raises(typer.Exit) as caught:
        judge(Verdict("x", (replace(KEPT, holds=False),)))
    assert caught.value.exit_code == 1
