"""Make the held-out set that the project ships: sentences that no training clip says.

python data/recipes/recogniser/heldout.py --out data/heldout/recogniser
"""

import argparse
import json
import random
import sys
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from data.recipes import domain
from data.recipes.recogniser.sound import SAMPLE_RATE, Float32
from data.recipes.recogniser.synthesis import Espeak, speak_flite
from data.recipes.recogniser.voices import (
    HELD_OUT_VARIANTS,
    VARIANTS,
    espeak_voice,
    flite_voice,
)

SETS = {".": {"espeak": 40, "flite": 24}, "new-voices": {"variant": 24}}
"""How many clips of each kind lie in which folder: known voices, and held-out variants."""
LICENCES = {
    "espeak": "CC0-1.0 (made with espeak-ng 1.51, whose GPL does not cover its output)",
    "flite": "CC0-1.0 (made with flite 2.2, whose BSD-like licence does not restrict its output)",
}
LONGEST_S = 4.5
BEFORE_S, AFTER_S = 0.2, 0.4


def held_out_sentence(rng: random.Random, said: set[str]) -> str:
    """A sentence of the domain that training never uses, and that is not in `said` yet."""
    while not domain.is_held_out(text := domain.utterance(rng)) or text in said:
        continue
    return text


def speak(rng: random.Random, kind: str, text: str) -> tuple[str, Float32]:
    """The name of a voice of the given kind, and how it says `text`."""
    if kind == "flite":
        voice = flite_voice(rng)
        return voice.name, speak_flite(text, voice).audio
    spoken = espeak_voice(rng, HELD_OUT_VARIANTS if kind == "variant" else VARIANTS)
    return spoken.name, Espeak().speak(text, spoken).audio


def write_set(folder: Path, amounts: dict[str, int], rng: random.Random) -> None:
    """Write clips of each kind and their manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[dict[str, object]] = []
    said: set[str] = set()
    for kind in (kind for kind, count in amounts.items() for _ in range(count)):
        text = held_out_sentence(rng, said)
        voice, audio = speak(rng, kind, text)
        if len(audio) > LONGEST_S * SAMPLE_RATE:
            text = held_out_sentence(rng, said)
            voice, audio = speak(rng, kind, text)
        said.add(text)
        lines.append(write_clip(folder / f"{kind}-{len(lines):02d}.flac", text, voice, audio))
    manifest = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "manifest.jsonl").write_text(manifest)


def write_clip(path: Path, text: str, voice: str, audio: Float32) -> dict[str, object]:
    """Write one clip at a peak of a half, with silence around it; gives its manifest line."""
    before, after = (np.zeros(int(s * SAMPLE_RATE), np.float32) for s in (BEFORE_S, AFTER_S))
    level = audio * (0.5 / np.abs(audio).max())
    samples = np.concatenate([before, level, after])
    soundfile.write(path, samples, SAMPLE_RATE, subtype="PCM_16")
    synthesiser = "flite" if path.name.startswith("flite") else "espeak"
    return {
        "file": path.name,
        "text": text,
        "voice": voice,
        "kind": "utterance",
        "synthesiser": "flite 2.2" if synthesiser == "flite" else "espeak-ng 1.51",
        "licence": LICENCES[synthesiser],
        "end_of_speech_sample": len(before) + len(audio),
    }


def main() -> None:
    """Write the sets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    for folder, amounts in SETS.items():
        write_set(options.out / folder, amounts, rng)


if __name__ == "__main__":
    main()
