from pathlib import Path

import numpy as np
import pytest

from data.recipes.evaluation import voice
from data.recipes.evaluation.figure import Figure
from labkit.audio.pcm import Float32
from labkit.errors import LabkitError
from tests.paths import DATA

HELD_OUT = DATA / "heldout" / "voice"


def silence(_: str) -> Float32:
    return np.zeros(16000, np.float32)


def test_sentences_are_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "commands.txt"
    path.write_text("turn on the light\nset a timer\n")
    assert voice.load_sentences(path) == ["turn on the light", "set a timer"]


def test_missing_and_empty_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(LabkitError, match=r"commands\.txt"):
        voice.load_sentences(tmp_path / "commands.txt")
    (tmp_path / "empty.txt").touch()
    with pytest.raises(LabkitError, match=r"empty\.txt holds no sentences"):
        voice.load_sentences(tmp_path / "empty.txt")


def test_silence_is_not_understood() -> None:
    pytest.importorskip("pocketsphinx")
    sentences = voice.load_sentences(HELD_OUT / "commands.txt")[:3]
    figure: Figure = voice.understood(silence, sentences, HELD_OUT / "commands.gram")
    assert figure.value == 0
    assert not figure.holds
    assert sentences[0] in figure.note


def test_the_teacher_is_understood() -> None:
    """Else the figure would say something about the listener."""
    pytest.importorskip("pocketsphinx")
    from labkit.audio.pcm import read_audio
    from labkit.measure.recordings import load_manifest

    recorded = {r.text: r.path for r in load_manifest(HELD_OUT)[:12]}
    figure = voice.understood(
        lambda text: read_audio(recorded[text]), list(recorded), HELD_OUT / "commands.gram"
    )
    assert figure.value > 80
