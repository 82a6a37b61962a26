"""Manifests of recordings: what loads, and that every fault names its line and field."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import AudioError, LabkitError
from labkit.measure.recordings import MANIFEST, Kind, load_manifest, recording

GOOD: dict[str, Any] = {
    "file": "a.flac",
    "text": "good morning",
    "voice": "ked",
    "kind": "utterance",
    "synthesiser": "Festival",
    "licence": "MIT",
    "end_of_speech_sample": 32_000,
}
QUIET = GOOD | {"file": "q.flac", "text": "", "kind": "silence", "end_of_speech_sample": None}


def folder_of(path: Path, *lines: dict[str, Any] | str) -> Path:
    """A folder with these manifest lines, and an empty file for each recording."""
    raw = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (path / MANIFEST).write_text("\n".join(raw) + "\n", encoding="utf-8")
    for name in ("a.flac", "b.flac", "q.flac"):
        (path / name).touch()
    return path


def fault(path: Path, *lines: dict[str, Any] | str) -> str:
    """The message that such a folder is refused with."""
    with pytest.raises(AudioError) as caught:
        load_manifest(folder_of(path, *lines))
    return str(caught.value)


def test_a_line_becomes_a_recording(tmp_path: Path) -> None:
    (recording,) = load_manifest(folder_of(tmp_path, GOOD))
    assert recording.path == tmp_path / "a.flac"
    assert recording.name == "a"
    assert (recording.text, recording.voice) == ("good morning", "ked")
    assert (recording.synthesiser, recording.licence) == ("Festival", "MIT")
    assert recording.kind is Kind.UTTERANCE
    assert recording.end_of_speech_sample == 32_000


def test_where_nothing_is_said_nothing_ends(tmp_path: Path) -> None:
    (recording,) = load_manifest(folder_of(tmp_path, QUIET))
    assert recording.text == ""
    assert recording.end_of_speech_sample is None


def test_order_is_kept_and_empty_lines_are_skipped(tmp_path: Path) -> None:
    lines = [GOOD | {"file": "b.flac"}, "", GOOD, "  ", QUIET]
    names = [recording.name for recording in load_manifest(folder_of(tmp_path, *lines))]
    assert names == ["b", "a", "q"]


def test_which_kinds_are_speech() -> None:
    assert {kind for kind in Kind if kind.is_speech} == {Kind.UTTERANCE, Kind.TWO_UTTERANCES}


def test_a_line_separator_inside_a_text_ends_no_line(tmp_path: Path) -> None:
    raw = json.dumps(GOOD | {"text": "one\u2028two"}, ensure_ascii=False)
    assert load_manifest(folder_of(tmp_path, raw))[0].text == "one\u2028two"


@pytest.mark.parametrize("field", sorted(GOOD))
def test_a_missing_field_is_named_with_its_line(tmp_path: Path, field: str) -> None:
    line = {key: value for key, value in GOOD.items() if key != field}
    message = fault(tmp_path, QUIET, line)
    assert f"{MANIFEST}, line 2: field {field!r}: " in message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("file", ""),
        ("file", "../a.flac"),
        ("file", "sub/a.flac"),
        ("file", ".."),
        ("file", "missing.flac"),
        ("file", 3),
        ("text", None),
        ("voice", ""),
        ("licence", ""),
        ("synthesiser", ""),
        ("kind", "song"),
        ("end_of_speech_sample", -1),
        ("end_of_speech_sample", 1.5),
        ("end_of_speech_sample", "32000"),
        ("end_of_speech_sample", True),
        ("speaker", "ked"),
    ],
)
def test_a_wrong_field_is_named_with_its_line(tmp_path: Path, field: str, value: object) -> None:
    assert f"{MANIFEST}, line 1: field {field!r}: " in fault(tmp_path, GOOD | {field: value})


@pytest.mark.parametrize("name", ["../a.flac", "sub/a.flac"])
def test_recordings_lie_beside_their_manifest(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "speech"
    (folder / "sub").mkdir(parents=True)
    (folder / name).touch()
    assert "line 1: field 'file': " in fault(folder, GOOD | {"file": name})


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"text": " "}, "kind utterance does not go with the text ' '"),
        ({"end_of_speech_sample": None}, "does not go with end_of_speech_sample None"),
        ({"kind": "noise"}, "kind noise does not go with the text 'good morning'"),
        ({"kind": "noise", "text": ""}, "does not go with end_of_speech_sample 32000"),
    ],
)
def test_speech_needs_words_and_an_end(tmp_path: Path, change: dict[str, Any], wanted: str) -> None:
    message = fault(tmp_path, GOOD | change)
    assert "line 1: " in message
    assert wanted in message


@pytest.mark.parametrize("line", ["{", "[]", "null", "7", '"a.flac"'])
def test_a_line_that_is_no_object_is_named(tmp_path: Path, line: str) -> None:
    assert f"{MANIFEST}, line 2: " in fault(tmp_path, GOOD, line)


def test_the_same_file_twice_is_refused(tmp_path: Path) -> None:
    assert "line 2: field 'file': a.flac is listed twice" in fault(tmp_path, GOOD, GOOD)


@pytest.mark.parametrize("lines", [[], [""], ["", " "]])
def test_an_empty_manifest_is_refused(tmp_path: Path, lines: list[str]) -> None:
    assert f"{MANIFEST} lists no recording" in fault(tmp_path, *lines)


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=rf"{MANIFEST} is no readable manifest"):
        load_manifest(tmp_path)


def test_a_folder_is_no_recording(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="is a folder; name a recording in it"):
        recording(tmp_path)


@given(data=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
def test_no_manifest_raises_outside_the_tree(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    folder = tmp_path_factory.mktemp("junk")
    (folder / MANIFEST).write_bytes(data)
    with pytest.raises(LabkitError):
        load_manifest(folder)
