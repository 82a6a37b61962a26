"""The reference page: as the code is, whole, and with a client that works; and its parts."""

import asyncio
import json
import re
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ConfigDict, Field

from labkit.audio.pcm import Encoding, read_audio, write_wav
from labkit.cli.tools import reference_page
from labkit.errors import CloseCode, ErrorCode
from labkit.protocol import v1
from labkit.protocol.page import Described, anchor, fields_of, member_docs, table
from labkit.protocol.schema import schema
from tests.callers import serving

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = (ROOT / "labkit/protocol/PROTOCOL.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```$", PAGE, re.M | re.S)


def headings() -> list[str]:
    return re.findall(r"^#+ (.+)$", PAGE, re.M)


def test_the_page_is_as_the_code_is() -> None:
    assert reference_page() == PAGE, "run: make protocol"


def test_every_link_leads_somewhere() -> None:
    anchors = {re.sub(r"[^a-z0-9 _-]", "", h.lower()).replace(" ", "-") for h in headings()}
    links = set(re.findall(r"\]\(#([^)]*)\)", PAGE))
    assert links - anchors == set()


def test_every_message_has_its_section() -> None:
    messages = [*get_args(v1.ClientMessage), *get_args(v1.ServerMessage)]
    wanted = [f"`{message.model_fields['type'].default}`" for message in messages]
    assert [heading for heading in headings() if heading in wanted][: len(wanted)] == wanted


@pytest.mark.parametrize("code", [*ErrorCode, *CloseCode], ids=str)
def test_every_code_has_its_row(code: ErrorCode | CloseCode) -> None:
    written = f"`{code}`" if isinstance(code, ErrorCode) else f"{code:d}"
    assert f"\n| {written} | " in PAGE


@pytest.mark.parametrize("block", blocks("json"))
def test_every_example_fits_the_schema(block: str) -> None:
    Draft202012Validator(schema()).validate(json.loads(block))


async def test_the_client_of_the_page_works(tmp_path: Path) -> None:
    (source,) = blocks("python")
    (tmp_path / "say.py").write_text(source, encoding="utf-8")
    write_wav(tmp_path / "question.wav", np.full(6400, 0.25, np.float32))
    async with serving() as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "say.py", server.url, "question.wav", "reply.wav"),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        said, complaint = await process.communicate()
    assert complaint.decode() == ""
    assert said.decode().splitlines() == [
        "transcript.final: 0.40 seconds of audio",
        "response.text: 0.40 seconds of audio",
    ]
    assert len(read_audio(tmp_path / "reply.wav")) == 6400
    assert len(source.splitlines()) < 45


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
    each: dict[str, v1.Count] = {}
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


def test_a_table() -> None:
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_an_anchor_is_written_as_the_heading_is_found() -> None:
    assert anchor("audio.end") == "[`audio.end`](#audioend)"
