"""The teacher: flite's `slt`, a deterministic statistical voice that says when each phone ends."""

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import soundfile

from data.recipes.voice.alignment import PAUSE, Phone

__all__ = ["LICENCE", "SYNTHESISER", "Spoken", "speak", "trimmed"]

SYNTHESISER: Final = "flite 2.2 slt"
LICENCE: Final = "flite's own, X11-style, (c) Carnegie Mellon University (Debian: flite)"
SAMPLE_RATE: Final = 16_000
_LEAD_S: Final = 0.05
_TAIL_S: Final = 0.12


@dataclass(frozen=True, slots=True)
class Spoken:
    """Audio (16 kHz, float64) and the phones in it."""

    audio: np.ndarray
    phones: tuple[Phone, ...]


def speak(text: str) -> Spoken:
    """Speak a sentence.

    Raises:
        RuntimeError: flite is missing, failed, or said nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        try:
            done = subprocess.run(
                ["flite", "-voice", "slt", "-psdur", "-t", text, "-o", str(path)],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise RuntimeError("flite is missing: apt-get install flite") from error
        audio, _ = soundfile.read(path, dtype="float64")
    phones = tuple(_phone(item) for item in done.stdout.split())
    if not phones:
        raise RuntimeError(f"flite said nothing for {text!r}")
    return Spoken(audio, phones)


def _phone(item: str) -> Phone:
    name, _, end = item.partition(":")
    return Phone(name, float(end))


def trimmed(spoken: Spoken) -> Spoken:
    """Only a little silence before and after the words."""
    phones = spoken.phones
    start = max(0.0, phones[0].end - _LEAD_S) if phones[0].name == PAUSE else 0.0
    end = len(spoken.audio) / SAMPLE_RATE
    if len(phones) > 1 and phones[-1].name == PAUSE:
        end = min(end, phones[-2].end + _TAIL_S)
    kept = spoken.audio[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
    return Spoken(kept, tuple(Phone(p.name, min(p.end, end) - start) for p in phones))
