import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data.recipes.evaluation.recogniser import (
    HELD_OUT_SPEAKER,
    correct_prefix,
    digit_strings,
)


@pytest.mark.parametrize(
    ("heard", "right", "words"),
    [
        ("set a timer", 3, 3),
        ("set a time", 2, 3),
        ("", 0, 0),
        ("a timer", 0, 2),
        ("set a timer for ten minutes now", 6, 7),
    ],
)
def test_correct_prefix_compares_word_by_word(heard: str, right: int, words: int):
    assert correct_prefix("set a timer for ten minutes", heard) == (right, words)


def _archive(folder: Path) -> Path:
    path = folder / "digits.tar.xz"
    with tarfile.open(path, "w:xz") as archive:
        for digit in range(10):
            for speaker in (HELD_OUT_SPEAKER, "another"):
                level = (digit + 1) / 20 if speaker == HELD_OUT_SPEAKER else 0.9
                content = io.BytesIO()
                soundfile.write(content, np.full(4000, level), 8000, format="WAV")
                entry = tarfile.TarInfo(f"digits/{digit}_{speaker}_0.wav")
                entry.size = content.tell()
                content.seek(0)
                archive.addfile(entry, content)
    return path


def test_digit_strings_are_of_the_held_out_speaker_alone(tmp_path: Path):
    clips = digit_strings(_archive(tmp_path), count=12, seed=1)
    assert len(clips) == 12
    assert all(3 <= len(clip.text.split()) <= 7 for clip in clips)
    assert max(float(clip.audio.max()) for clip in clips) < 0.75
    assert len({clip.text for clip in clips}) > 6
