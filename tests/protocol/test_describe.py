"""Models and enumerations in plain words."""

from enum import Enum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from labkit.audio.formats import Encoding
from labkit.protocol.describe import Described, fields_of, member_docs
from labkit.protocol.v1 import Count


class Part(BaseModel):
    x: int = 0


class Whole(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    name: Annotated[str, Field(max_length=3)] | None = None
    """Its name."""
    type: Literal["whole"] = "whole"
    rate: int = Field(ge=1, le=5)
    """Its rate."""
    part: Part = Part(x=3)
    """Its part."""
    how: Encoding = Encoding.MULAW
    """Its encoding."""
    each: dict[str, Count] = {}
    """Some numbers."""
    loud: bool = False
    """Whether it is loud."""


def test_fields_in_plain_words() -> None:
    assert fields_of(Whole) == [
        Described("type", '`"whole"`', "", "required", False, "Which message this is."),
        Described("name", "text", "at most 3 characters", "absent", True, "Its name."),
        Described("rate", "whole number", "1 to 5", "required", False, "Its rate."),
        Described("part", "[`Part`](#part)", "", "its defaults", False, "Its part."),
        Described("how", "one of [`Encoding`](#encoding)", "", '`"mulaw"`', False, "Its encoding."),
        Described(
            "each",
            "object: names, and a whole number for each",
            "0 or more",
            "`{}`",
            False,
            "Some numbers.",
        ),
        Described("loud", "`true` or `false`", "", "`false`", False, "Whether it is loud."),
    ]


class Colour(Enum):
    RED = "red"
    """As blood."""
    GREEN = "green"


def test_members_are_told_by_their_docstrings() -> None:
    assert member_docs(Colour) == {"RED": "As blood."}
