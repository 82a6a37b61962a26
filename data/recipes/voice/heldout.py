"""Write the held-out command sentences of `data/heldout/voice/`, and the teacher's recordings.

    python data/recipes/voice/heldout.py --out data/heldout/voice

`commands.txt` has a sentence a line, `commands.gram` the grammar that pocketsphinx listens
with, and `manifest.jsonl` describes the recordings of the first of the sentences.
"""

import argparse
import json
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from data.recipes.domain import commands, is_held_out
from data.recipes.voice.alignment import PAUSE
from data.recipes.voice.teacher import LICENCE, SAMPLE_RATE, SYNTHESISER, Spoken, speak, trimmed

GRAMMAR = Path(__file__).with_name("commands.gram")
SEED = 29
SENTENCES = 200
RECORDED = 50


def held_out_commands(seed: int, count: int) -> list[str]:
    """Different command sentences of the tenth that is never trained on."""
    drawn = commands(random.Random(seed), 40 * count)
    return [text for text in drawn if is_held_out(text)][:count]


def main() -> None:
    """Write all files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    sentences = held_out_commands(SEED, SENTENCES)
    (out / "commands.txt").write_text("\n".join(sentences) + "\n", encoding="utf-8")
    shutil.copyfile(GRAMMAR, out / GRAMMAR.name)
    lines = [_recorded(out, number, text) for number, text in enumerate(sentences[:RECORDED], 1)]
    manifest = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (out / "manifest.jsonl").write_text(manifest, encoding="utf-8")


def _recorded(out: Path, number: int, text: str) -> dict[str, Any]:
    """Record one sentence; its line of the manifest."""
    spoken = trimmed(speak(text))
    file = f"teacher-{number:02}.flac"
    soundfile.write(out / file, spoken.audio, SAMPLE_RATE, subtype="PCM_16")
    return {
        "file": file,
        "text": text,
        "voice": "slt",
        "kind": "utterance",
        "synthesiser": SYNTHESISER,
        "licence": LICENCE,
        "end_of_speech_sample": _end_of_speech(spoken),
    }


def _end_of_speech(spoken: Spoken) -> int:
    last = max(phone.end for phone in spoken.phones if phone.name != PAUSE)
    return round(last * SAMPLE_RATE) - 1


if __name__ == "__main__":
    main()
