"""Recordings with their annotations: what each says, who speaks, and where the speech ends.

A folder of recordings carries one `manifest.jsonl`, a JSON object a line::

    {"file": "ked-03.flac", "text": "turn on the lights", "voice": "ked", "kind": "utterance",
     "synthesiser": "…", "licence": "…", "end_of_speech_sample": 31240}
"""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from labkit.audio.pcm import Float32, end_of_speech
from labkit.errors import AudioError, first_fault
from labkit.voice.models import data_folder

MANIFEST: Final = "manifest.jsonl"
"""Name of the file that describes the recordings beside it."""


class Kind(StrEnum):
    """What a recording holds."""

    UTTERANCE = "utterance"
    """One sentence, with silence before and after it."""
    TWO_UTTERANCES = "two_utterances"
    """Two sentences of one speaker, with a pause between them."""
    SILENCE = "silence"
    """Nothing but a faint noise floor."""
    NOISE = "noise"
    """Loud noise and no speech."""

    @property
    def is_speech(self) -> bool:
        """Whether somebody speaks in it."""
        return self in (Kind.UTTERANCE, Kind.TWO_UTTERANCES)


_Name = Annotated[str, Field(min_length=1)]


class Recording(BaseModel):
    """One recording and what is known about it: a line of the manifest.

    Attributes:
        text: What is said, in the form of a transcript; empty where nothing is said.
        licence: Under which terms it may be passed on.
        end_of_speech_sample: Index, at 16 kHz, of the last audible sample of speech; None where
            nothing is said.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Annotated[Path, Field(alias="file")]
    text: str
    voice: _Name
    kind: Kind
    synthesiser: _Name
    licence: _Name
    end_of_speech_sample: Annotated[int, Field(ge=0, strict=True)] | None

    @field_validator("path", mode="before")
    @classmethod
    def _lies_beside_the_manifest(cls, file: object, info: ValidationInfo) -> str:
        if not isinstance(file, str) or not file or not {"/", "\\"}.isdisjoint(file):
            raise ValueError(f"{file!r} is no name of a file")
        path = Path(str(info.context), file)
        if not path.is_file():
            raise ValueError(f"there is no {path}")
        return str(path)

    @model_validator(mode="after")
    def _speech_has_words_and_an_end(self) -> Self:
        end = self.end_of_speech_sample
        if self.kind.is_speech != bool(self.text.strip()):
            raise ValueError(f"kind {self.kind!s} does not go with the text {self.text!r}")
        if self.kind.is_speech != (end is not None):
            raise ValueError(f"kind {self.kind!s} does not go with end_of_speech_sample {end}")
        return self

    @property
    def name(self) -> str:
        """The file's name without its ending: how tables and plots call the recording."""
        return self.path.stem

    def end_of_speech(self, samples: Float32) -> int | None:
        """Index of the last audible sample of speech: by the annotation, else by energy.

        None where nothing stands out as speech in `samples`, as `read_audio` gives them.
        """
        annotated = self.end_of_speech_sample
        return end_of_speech(samples) if annotated is None else annotated


def load_manifest(folder: Path | None = None) -> list[Recording]:
    """Read the manifest of a folder of recordings, in its order; by default of labkit's own.

    Raises:
        AudioError: The manifest is missing or empty, or one of its lines is wrong: the message
            names the file, the line and the field.
    """
    folder = folder or data_folder() / "speech"
    manifest = folder / MANIFEST
    try:
        lines = manifest.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise AudioError(f"{manifest} is no readable manifest of recordings: {error}") from error
    recordings: dict[Path, Recording] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{manifest}, line {number}"
        try:
            recording = Recording.model_validate_json(line, context=folder)
        except ValidationError as error:
            raise AudioError(f"{place}: {first_fault(error)}") from error
        if recording.path in recordings:
            raise AudioError(f"{place}: field 'file': {recording.path.name} is listed twice")
        recordings[recording.path] = recording
    if not recordings:
        raise AudioError(f"{manifest} lists no recording")
    return list(recordings.values())


def utterances(folder: Path | None = None) -> list[Recording]:
    """The recordings of one utterance, in which the end of speech is known.

    Raises:
        AudioError: The manifest is not usable, or lists none.
    """
    listed = load_manifest(folder)
    found = [one for one in listed if one.kind is Kind.UTTERANCE]
    if not found:
        where = listed[0].path.parent
        raise AudioError(f"recordings: {where} holds no utterance; add one to its manifest")
    return found


def recording_at(path: Path) -> Recording:
    """The recording at `path`, with its annotation where the manifest beside it has one.

    Raises:
        AudioError: The manifest beside it is wrong.
    """
    if (path.parent / MANIFEST).is_file():
        for listed in load_manifest(path.parent):
            if listed.path.name == path.name:
                return listed
    return Recording.model_construct(
        path=path, text="", voice="", kind=Kind.UTTERANCE, synthesiser="", licence="",
        end_of_speech_sample=None,
    )  # fmt: skip


def recording(what: str | Path | Recording) -> Recording:
    """One recording.

    Args:
        what: The name of one that comes with the course, such as ``"ked-01"``, the path of any
            WAV or FLAC file, or what this gave before.

    Raises:
        AudioError: There is none of that name.
    """
    if isinstance(what, Recording):
        return what
    known = {one.name: one for one in load_manifest()}
    if (found := known.get(str(what))) is not None:
        return found
    path = Path(os.path.expanduser(what))
    if path.is_dir():
        raise AudioError(f"{path} is a folder; name a recording in it")
    if not path.is_file():
        raise AudioError(
            f"there is no recording {str(what)!r} and no such file; there are {', '.join(known)}"
        )
    return recording_at(path)
