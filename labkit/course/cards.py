"""What a learner reads beside the chapters: cards, hints, solutions, quizzes, and how far they are.

Each gives a text that shows itself as the last line of a cell, and prints as plain Markdown.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final

from labkit.course.chapters import Question, all_chapters, chapter, exercise_of
from labkit.course.checking import check_one
from labkit.course.checks import CHECKS, find_checks
from labkit.course.checks.check import Check
from labkit.course.folder import Progress, mine, noting
from labkit.course.hosting import hosted
from labkit.course.keep import (
    kept_chapters,
    kept_sections,
    put_aside,
    register,
    run_section,
    server_file,
    server_hash,
    write_sections,
)
from labkit.course.masters import section_chapters, sections, solution_cells, still_to_write
from labkit.course.predictions import Comparison
from labkit.course.shell import current_shell
from labkit.course.verdict import Verdict
from labkit.errors import LabkitError

if TYPE_CHECKING:
    from ipywidgets import Widget

_MOST: Final = 3


@dataclass(frozen=True, slots=True, repr=False)
class Text:
    """A text that shows itself in a notebook.

    Attributes:
        markdown: The text.
    """

    markdown: str

    def __repr__(self) -> str:
        """The text as it is written."""
        return self.markdown

    def _repr_markdown_(self) -> str:
        return self.markdown


def card(name: str) -> Text:
    """The card of an exercise: what is to be built, and what the checks will send.

    Raises:
        LabkitError: There is no such exercise.
    """
    key, exercise = exercise_of(name)
    lines = [
        f"### Exercise `{key}`: {exercise.title}",
        f"*Difficulty {_of_three(exercise.difficulty)}, importance "
        f"{_of_three(exercise.importance)}, {exercise.minutes} minutes.*",
        "**What the checks send, exactly:**\n",
        *(f"- `{one.name}`: {' '.join(one.sends.split())}" for one in _checks(exercise.checks)),
        f'\n`hint("{key}")` helps, {len(exercise.hints)} times; `solution("{key}")` is there when '
        "you want it.",
    ]
    if exercise.errors:
        lines.append("\n**I get this error**\n")
        lines += [f"- `{error}`: {meaning}" for error, meaning in exercise.errors.items()]
    return Text("\n".join([lines[0], "", lines[1], "", *lines[2:]]))


def _of_three(level: int) -> str:
    return f"{level} of {_MOST}"


def _checks(names: list[str]) -> list[Check]:
    return [one for name in names for one in find_checks(name)]


def hint(name: str) -> Text:
    """The next hint of an exercise; each call goes one level further.

    Args:
        name: The exercise, or one of its checks.

    Raises:
        LabkitError: There is no such exercise.
    """
    key, exercise = exercise_of(name)
    with noting() as noted:
        level = min(noted.hints.get(key, 0) + 1, len(exercise.hints))
        noted.hints[key] = level
    last = level == len(exercise.hints)
    more = f'That was the last one; `solution("{key}")` is next.' if last else ""
    return Text(f"**Hint {level} of {len(exercise.hints)}.** {exercise.hints[level - 1]} {more}")


def solution(name: str) -> Text:
    """The solution of an exercise, to read or to copy into its cell.

    Args:
        name: The exercise, or one of its checks.

    Raises:
        LabkitError: There is no such exercise.
    """
    key, exercise = exercise_of(name)
    found = "\n\n".join(solution_cells(key))
    return Text(f"**{exercise.title}** (`{key}`):\n\n```python\n{found}\n```")


def quiz(name: str, number: int | None = None, choice: str | None = None) -> "Quiz | Text":
    """The questions of a chapter, to click; or the answer to one of them.

    Args:
        name: The chapter, such as ``"ch1"``.
        number: A question, from 1; without it, all are shown.
        choice: The letter of an answer.

    Raises:
        LabkitError: There is no such chapter, question or answer.
    """
    questions = chapter(name).quiz
    if number is None or choice is None:
        return Quiz(name, questions)
    if not 1 <= number <= len(questions):
        raise LabkitError(f"{name} has questions 1 to {len(questions)}, none of number {number}")
    return Text(_answer(name, number, choice))


def _answer(name: str, number: int, choice: str) -> str:
    question = chapter(name).quiz[number - 1]
    why = {str(letter): text for letter, text in question.why.items()}
    if choice not in why:
        raise LabkitError(f"there is no answer {choice!r}; there are {', '.join(why)}")
    with noting() as noted:
        noted.quiz[f"{name}.{number}"] = choice
    verdict = "Right" if choice == question.right else "Not quite"
    return f"{verdict}. {why[choice]}"


class Quiz:
    """The questions of a chapter. In a notebook they can be clicked, or chosen by keyboard."""

    def __init__(self, name: str, questions: list[Question]) -> None:
        self._name = name
        self._questions = questions

    def __repr__(self) -> str:
        """The questions as text, and the call that answers one."""
        parts = []
        for number, one in enumerate(self._questions, start=1):
            choices = [f"   {letter}) {text}" for letter, text in one.choices.items()]
            parts.append("\n".join([f"{number}. {one.question}", *choices]))
        return "\n".join([*parts, f'Answer with quiz("{self._name}", 1, "a").'])

    def _ipython_display_(self) -> None:
        from IPython.display import display
        from ipywidgets import VBox

        display(VBox([self._asked(number) for number in range(1, len(self._questions) + 1)]))  # type: ignore[no-untyped-call]

    def _asked(self, number: int) -> "Widget":
        from ipywidgets import HTML, Button, RadioButtons, VBox

        from labkit.course.aloud import Aloud

        question = self._questions[number - 1]
        options = [(f"{letter}) {text}", letter) for letter, text in question.choices.items()]
        choices = RadioButtons(options=options, value=None, layout={"width": "auto"})
        button = Button(description="Answer", tooltip=f"Answer question {number}")
        said = Aloud()

        def answer(_: object) -> None:
            chosen = choices.value
            said.text = _answer(self._name, number, chosen) if chosen else "Choose first."

        button.on_click(answer)
        asked = HTML(f"<b>{number}. {escape(question.question)}</b>")
        return VBox([asked, choices, button, said])


def progress() -> Text:
    """How far the learner has come: checks, quizzes, predictions.

    The checks of a chapter that was not begun would only frighten, so they are not listed.
    """
    noted = Progress.load()
    rows = ["| chapter | checks passed | still to do | quiz |", "|---|---|---|---|"]
    for name in all_chapters():
        checks = [one.name for one in CHECKS if one.chapter == name]
        if not checks:
            continue
        passed = [one for one in checks if _passed(noted, one)]
        todo = ", ".join(f"`{one}`" for one in checks if one not in passed) or "nothing"
        if not any(one in noted.checks for one in checks):
            todo = "all"
        about = chapter(name)
        right = sum(
            noted.quiz.get(f"{name}.{number}") == one.right
            for number, one in enumerate(about.quiz, start=1)
        )
        rows.append(
            f"| {name[2:]}. {about.title} | {len(passed)} of {len(checks)} | {todo} "
            f"| {right} of {len(about.quiz)} |"
        )
    told = [
        f"- {Comparison(name, one.predicted, one.measured, one.late)!r}"
        for name, one in noted.predictions.items()
    ]
    return Text("\n".join([*rows, *(["", *told] if told else [])]))


def _passed(noted: Progress, name: str) -> bool:
    return name in noted.checks and noted.checks[name].verdict is Verdict.PASSED


async def begin(number: int, *, with_server: bool = True, in_kernel: bool = True) -> Text:
    """Begin a chapter: the first cell of each, which works without the chapters before it.

    It lets cells begin with ``%%keep``, and makes sure that what earlier chapters built is there:
    from the learner's own server where that passes its checks, else from the solution. A chapter
    that was begun goes on with what is there. What was there is never lost.

    Args:
        number: The chapter.
        with_server: Make sure of the server of the earlier chapters; some build nothing on it.
        in_kernel: Run that server's sections in the notebook, so that their names are there. A
            chapter that builds nothing on them keeps its own names free.

    Raises:
        LabkitError: There is no such chapter.
    """
    about = chapter(f"ch{number}")
    register(number)
    said = await _build_on(number, in_kernel) if number and with_server else ""
    return Text("\n\n".join(part for part in (f"**{about.title}**", said, str(progress())) if part))


async def _build_on(number: int, in_kernel: bool) -> str:
    """Make sure that the server of the earlier chapters is there; says which one it is."""
    solved, kept = sections(number - 1), kept_sections()
    if (reached := max(kept_chapters().values(), default=0)) > number:
        said = (
            f"`{server_file()}` is a server of chapter {reached} already. Where you keep a cell "
            "here that a later chapter has replaced, a copy of that server is put aside first."
        )
    elif not solved:
        said = f"What you keep goes into `{server_file()}`."
    elif _has_begun(kept, number):
        said = f"You have begun this chapter: it goes on with your own server, `{server_file()}`."
    elif kept == solved:
        said = (
            "This chapter builds on the solution of the earlier ones, which is in "
            f"`{server_file()}`."
        )
    elif lacks := await _lacks(kept, number):
        aside = ""
        if kept:
            aside = f" Your own is kept in `{put_aside(f'server_before_{number:02}').name}`."
        write_sections(solved, section_chapters(number - 1))
        said = (
            f"This chapter builds on the solution of the earlier ones: {lacks}. The solution has "
            f"been written to `{server_file()}`.{aside}"
        )
    else:
        said = f"This chapter builds on your own server, `{server_file()}`; it passes its checks."
    if solved and in_kernel and (shell := current_shell()) is not None:
        for name, source in kept_sections().items():
            run_section(name, source, shell.user_ns)
    return said


def _has_begun(kept: dict[str, str], number: int) -> bool:
    """Whether the learner's server has grown by this chapter already, or by a later one.

    It may be half done then, and fail what it passed before; it is theirs all the same.
    """
    earlier = sections(number - 1).keys()
    return earlier <= kept.keys() and not kept.keys().isdisjoint(
        section_chapters().keys() - earlier
    )


def _say(text: str) -> None:
    """Show a line in the notebook, before something that takes long."""
    if current_shell() is not None:
        from IPython.display import Markdown, display

        display(Markdown(text))  # type: ignore[no-untyped-call]


async def _lacks(kept: dict[str, str], number: int) -> str:
    """Why the learner's own server will not do for a chapter; empty where it will."""
    if not kept:
        return f"there was no `{server_file().name}` in {mine()}"
    if waiting := still_to_write(kept):
        return f"in yours, {', '.join(waiting)} still waits to be written"
    noted, now = Progress.load(), server_hash()
    due = [
        one
        for one in _earlier(number)
        if not (_passed(noted, one.name) and noted.checks[one.name].server == now)
    ]
    if not due:
        return ""
    _say("Your server is checked first; that takes about half a minute.")
    try:
        async with hosted(server_file()) as server:
            for one in due:
                report = await check_one(one, server, seed=number)
                if not report.passed:
                    return f"yours does not pass `{one.name}`"
    except LabkitError as error:
        return f"yours does not start ({error})"
    return ""


def _earlier(number: int) -> Iterator[Check]:
    return (one for one in CHECKS if int(one.chapter[2:]) < number and one.probe is not None)
