"""The learner's folder, and the file in it that remembers: checks, predictions, hints, quizzes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from labkit.course.verdict import Verdict

_GIVEN: Final = ".chapters.json"
"""What `labkit lab` leaves in the folder that it gives the chapters to."""
_FILE: Final = "progress.json"


def mine() -> Path:
    """The learner's folder: `LABKIT_MINE`, else the one that the notebook lies in, else `mine/`."""
    if (told := os.environ.get("LABKIT_MINE")) is not None:
        return Path(told)
    here = Path.cwd()
    return here if (here / _GIVEN).exists() else Path(__file__).resolve().parents[2] / "mine"


class Noted(BaseModel):
    """How a check ended last."""

    verdict: Verdict
    """Its verdict."""
    seed: int
    """What its inputs were drawn from."""
    server: str = ""
    """Hash of the learner's file, where that was checked."""


class Prediction(BaseModel):
    """What was predicted, and what came out."""

    predicted: float | None = None
    """The prediction, in the unit that the name ends with."""
    measured: float | None = None
    """The measurement; once both are there, they are locked."""
    late: bool = False
    """Whether the prediction was made when the measurement was there already."""


class Progress(BaseModel):
    """What a learner has done so far."""

    checks: dict[str, Noted] = {}
    """The last verdict of each check."""
    predictions: dict[str, Prediction] = {}
    """Every prediction, by name."""
    hints: dict[str, int] = {}
    """How many hints of each exercise were read."""
    quiz: dict[str, str] = {}
    """The choice made last, for each question."""

    @classmethod
    def load(cls) -> "Progress":
        """Read the file; where there is none, nothing was done yet.

        A file that cannot be understood is put aside, so that nothing in it is lost.
        """
        path = mine() / _FILE
        if not path.exists():
            return cls()
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValueError:
            path.replace(path.with_suffix(".broken"))
            return cls()


@contextmanager
def noting() -> Iterator[Progress]:
    """Change what is remembered; it is written when the block ends."""
    progress = Progress.load()
    yield progress
    path = mine() / _FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    # Whole or not at all: a kernel may be killed at any moment.
    new = path.with_suffix(".new")
    new.write_text(progress.model_dump_json(indent=1) + "\n", encoding="utf-8")
    new.replace(path)
