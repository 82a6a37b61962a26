"""The masters and what the chapters say besides: cards, hints, solutions, quizzes, progress."""

import ast
import re
from pathlib import Path

import jupytext
import pytest

from labkit.course import cards
from labkit.course.cards import card, hint, progress, quiz, solution
from labkit.course.chapters import all_chapters, chapter, exercise_of
from labkit.course.checks import CHECKS
from labkit.course.folder import Noted, Progress, noting
from labkit.course.keep import (
    assembled,
    keep,
    kept_sections,
    server_file,
    undefined_names,
)
from labkit.course.masters import cells, masters, sections
from labkit.course.verdict import Verdict
from labkit.errors import LabkitError
from tests.paths import ROOT

ENDS = ["Recap", "Quiz", "Clean up"]
EXERCISES = [key for name in all_chapters() for key in chapter(name).exercises]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_MINE", str(tmp_path / "mine"))


@pytest.mark.parametrize("master", masters(), ids=lambda path: path.stem)
def test_masters_are_read_as_jupytext_reads_them(master: Path) -> None:
    notebook = jupytext.read(master, fmt="py:percent")
    read = list(cells(master))
    assert [cell.code for cell in read] == [cell.cell_type == "code" for cell in notebook.cells]
    marks = [{**cell.metadata, "lines_to_next_cell": None} for cell in notebook.cells]
    assert [{**cell.marks, "lines_to_next_cell": None} for cell in read] == marks
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.source for cell in read if cell.code] == code


@pytest.mark.parametrize("name", all_chapters())
def test_a_chapter_has_its_exercises_in_its_master(name: str) -> None:
    about = chapter(name)
    master = ROOT / "notebooks" / "masters" / f"{about.notebook}.py"
    for mark in ("card", "exercise", "solution"):
        assert {c.marks[mark] for c in cells(master) if mark in c.marks} == set(about.exercises)
    assert len(about.exercises) >= 3
    assert len(about.quiz) == 4
    assert len({one.right for one in about.quiz}) > 1
    stubs = [cell.source for cell in cells(master) if "exercise" in cell.marks]
    assert all("raise NotImplementedError(" in one or "predict(" in one for one in stubs)
    headings = re.findall(r"^# ## (.+)$", master.read_text(encoding="utf-8"), re.M)
    assert [one for one in headings if one in ENDS] == ENDS


@pytest.mark.parametrize("number", range(1, 5))
def test_nothing_in_the_solved_server_is_dead_or_only_in_the_kernel(number: int) -> None:
    program = assembled(sections(number))
    nodes = list(ast.walk(ast.parse(program)))
    named = {
        node.id if isinstance(node, ast.Name) else node.attr
        for node in nodes
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    made = {node.name for node in nodes if isinstance(node, kinds) and node.name != "__init__"}
    assert made - named == set()
    assert undefined_names(program) == []


def test_every_check_belongs_to_one_exercise() -> None:
    decided = [one for key in EXERCISES for one in exercise_of(key)[1].checks]
    assert sorted(decided) == sorted(one.name for one in CHECKS)


@pytest.mark.parametrize("key", EXERCISES)
def test_an_exercise_has_its_card_hints_and_solution(key: str) -> None:
    _, exercise = exercise_of(key)
    assert exercise_of(exercise.checks[0])[0] == key
    told = str(card(key))
    assert exercise.title in told
    assert all(f"- `{one}`: " in told for one in exercise.checks)
    levels = [str(hint(exercise.checks[0])) for _ in range(len(exercise.hints) + 1)]
    assert levels[0].startswith(f"**Hint 1 of {len(exercise.hints)}.** ")
    assert levels[-1] == levels[-2]
    assert f'solution("{key}")' in levels[-1]
    assert "```python\n" in str(solution(key))
    assert "NotImplementedError" not in str(solution(key))


def test_a_quiz_is_answered_by_a_plain_call() -> None:
    questions = chapter("ch1").quiz
    assert "Answer with quiz(" in repr(quiz("ch1"))
    for number, one in enumerate(questions, start=1):
        for letter in one.choices:
            verdict = "Right. " if letter == one.right else "Not quite. "
            assert str(quiz("ch1", number, letter)).startswith(verdict)
        quiz("ch1", number, one.right)
    assert "| 4 of 4 |" in str(progress())
    for wrong in ((9, "a"), (1, "z")):
        with pytest.raises(LabkitError, match="none of number 9|no answer 'z'"):
            quiz("ch1", *wrong)


def test_progress_lists_the_checks_of_chapters_that_were_begun() -> None:
    assert "`ch" not in str(progress())
    with noting() as noted:
        noted.checks["ch1.pong"] = Noted(verdict=Verdict.PASSED, seed=1)
    told = str(progress())
    assert "| 1 of 10 |" in told
    assert "`ch1.transcript`" in told
    assert "`ch1.pong`" not in told
    assert "`ch2." not in told


def test_a_quiz_can_be_clicked() -> None:
    pytest.importorskip("ipywidgets")
    asked = quiz("ch1")
    assert isinstance(asked, cards.Quiz)
    _, choices, button, said = asked._asked(1).children
    button.click()
    assert said.text == "Choose first."
    choices.value = chapter("ch1").quiz[0].right
    button.click()
    assert said.text.startswith("Right. ")
    assert Progress.load().quiz == {"ch1.1": choices.value}


@pytest.mark.parametrize("what", [card, hint, solution])
def test_an_exercise_that_is_none_is_named(what: object) -> None:
    assert callable(what)
    with pytest.raises(LabkitError, match=r"no exercise 'ch1\.nothing'"):
        what("ch1.nothing")


async def test_a_chapter_builds_on_the_solution_where_there_is_nothing() -> None:
    assert "there was no `server.py`" in await cards._build_on(2, in_kernel=False)
    assert kept_sections() == sections(1)


async def test_a_chapter_puts_aside_what_is_not_finished() -> None:
    keep("audio", 'def to_wire(samples):\n    raise NotImplementedError("…")', {})
    mine = server_file().read_text(encoding="utf-8")
    said = await cards._build_on(2, in_kernel=False)
    assert "in yours, audio still waits to be written" in said
    assert server_file().with_name("server_before_02.py").read_text(encoding="utf-8") == mine
    assert kept_sections() == sections(1)
