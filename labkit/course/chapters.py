"""What the chapters say besides their text: exercises with their hints, and quizzes.

One TOML file a chapter, `texts/ch1.toml`, read when it is needed.
"""

import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from labkit.course.checks import CHECKS
from labkit.errors import LabkitError

_FOLDER: Final = Path(__file__).with_name("texts")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Exercise(_Part):
    """One exercise."""

    title: str
    """What is to be built."""
    difficulty: Annotated[int, Field(ge=1, le=3)]
    """1 to 3."""
    importance: Annotated[int, Field(ge=1, le=3)]
    """1 to 3."""
    minutes: Annotated[int, Field(ge=1, le=30)]
    """How long it takes."""
    checks: list[str]
    """The checks that decide about it."""
    hints: Annotated[list[str], Field(min_length=1, max_length=3)]
    """Each says more than the one before."""
    errors: dict[str, str] = {}
    """Errors that often come up, and what they mean."""


class Question(_Part):
    """A question with a few answers, one of them right."""

    question: str
    """What is asked."""
    right: str
    """The letter of the right answer."""
    choices: dict[Literal["a", "b", "c", "d"], str]
    """The answers."""
    why: dict[Literal["a", "b", "c", "d"], str]
    """Why each is right or wrong."""

    @model_validator(mode="after")
    def _every_choice_is_explained(self) -> "Question":
        if set(self.choices) != set(self.why) or self.right not in self.choices:
            raise ValueError("each choice needs its 'why', and one of them is right")
        return self


class Chapter(_Part):
    """One chapter."""

    title: str
    """Its title."""
    notebook: str
    """Its notebook, without the ending."""
    exercises: dict[str, Exercise]
    """Its exercises, by name."""
    quiz: list[Question]
    """Its questions."""


@cache
def chapter(name: str) -> Chapter:
    """The chapter of that name, such as `ch1`.

    Raises:
        LabkitError: There is none, or its file is wrong.
    """
    path = _FOLDER / f"{name}.toml"
    try:
        return Chapter.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        known = ", ".join(all_chapters())
        raise LabkitError(f"there is no chapter {name!r}; there are {known}") from None
    except (ValueError, ValidationError) as error:
        raise LabkitError(f"{path} is wrong: {error}") from error


def all_chapters() -> list[str]:
    """The names of the chapters, in their order."""
    return sorted(path.stem for path in _FOLDER.glob("ch*.toml"))


def exercises() -> dict[str, Exercise]:
    """Every exercise of the course, by name."""
    return {key: one for ch in all_chapters() for key, one in chapter(ch).exercises.items()}


def exercise_of(name: str) -> tuple[str, Exercise]:
    """An exercise, by its own name or that of one of its checks.

    Raises:
        LabkitError: There is none.
    """
    known = exercises()
    for key, one in known.items():
        if name == key or name in one.checks:
            return key, one
    checks = [one.name for one in CHECKS]
    raise LabkitError(f"there is no exercise {name!r}; there are {', '.join([*known, *checks])}")
