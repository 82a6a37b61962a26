"""Make the test recordings of `data/speech/` from the sentences in `sentences.txt`.

One command, the same files each time::

    python data/recipes/speech/make.py --out data/speech

It needs Festival with three voices, none of which the recogniser trains on::

    apt-get install festival festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from data.recipes.domain import is_held_out
from data.recipes.speech import shaping
from data.recipes.speech.festival import Spoken, Voice, speak
from labkit.audio.pcm import SAMPLE_RATE, encode_s16le, resample
from labkit.measure.recordings import MANIFEST, Kind

SPEECH = Path(__file__).resolve().parents[2] / "speech"
SENTENCES = Path(__file__).with_name("sentences.txt")
SEED = 20
LONGEST_S = 4.0
EDINBURGH = "X11-style, (c) 1997 CSTR, University of Edinburgh (Debian: festvox-kdlpc16k)"
LENZO = "X11-style, (c) 1998 Alan W Black and Kevin Lenzo (Debian: festvox-kallpc16k)"
CMU = "X11-style, (c) 2003 Carnegie Mellon University (Debian: festvox-us-slt-hts)"
OWN = "CC0-1.0"

KAL = ("kal_diphone", "festvox-kallpc16k", LENZO)
KED = ("ked_diphone", "festvox-kdlpc16k", EDINBURGH)
SLT = ("cmu_us_slt_arctic_hts", "festvox-us-slt-hts", CMU)

VOICES = (
    Voice("ked", *KED),
    Voice("slt", *SLT),
    Voice("kal", *KAL),
    Voice("ked-lively", *KED, stretch=0.92, pitch_hz=125),
    Voice("slt-deep", *SLT, stretch=1.05, size=1.08),
    Voice("kal-calm", *KAL, stretch=1.15, pitch_hz=95),
)


@dataclass(frozen=True)
class Entry:
    """One line of the manifest; the fields are those of `labkit.measure.recordings`."""

    file: str
    text: str
    voice: str
    kind: Kind
    synthesiser: str
    licence: str
    end_of_speech_sample: int | None


Made = tuple[Entry, shaping.Float32]


def main() -> None:
    """Parse the command line and write the recordings and their manifest."""
    parser = argparse.ArgumentParser(description="Make the test recordings of data/speech/.")
    parser.add_argument("--out", type=Path, default=SPEECH)
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    made = [*utterances(read_sentences()), *without_speech()]
    for entry, samples in made:
        pcm = np.frombuffer(encode_s16le(samples), dtype="<i2")
        soundfile.write(out / entry.file, pcm, SAMPLE_RATE, subtype="PCM_16", format="FLAC")
    lines = [json.dumps(asdict(entry)) + "\n" for entry, _ in made]
    (out / MANIFEST).write_text("".join(lines), encoding="utf-8")
    print(f"{len(made)} recordings, {sum(len(s) for _, s in made) / SAMPLE_RATE:.0f} s, in {out}")


def read_sentences(path: Path = SENTENCES) -> list[str]:
    """The sentences to speak, one a line; lines that begin with # name the topics.

    Raises:
        SystemExit: The recogniser may have trained on one of them, or one stands there twice.
    """
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    sentences = [line for line in lines if line and not line.startswith("#")]
    seen = [sentence for sentence in sentences if not is_held_out(sentence)]
    if seen:
        raise SystemExit(f"{path}: not held out from training, choose others: {seen}")
    if len(set(sentences)) != len(sentences):
        raise SystemExit(f"{path}: a sentence stands there twice")
    return sentences


def utterances(sentences: list[str]) -> Iterator[Made]:
    """Every sentence, the voices taking turns; then two sentences of one voice in a row."""
    for turn, voice in enumerate(VOICES):
        said = sentences[turn :: len(VOICES)]
        speeches = [prepare(spoken) for spoken in speak(voice, said)]
        for number, (text, speech) in enumerate(zip(said, speeches, strict=True), start=1):
            name = f"{voice.name}-{number:02}"
            yield _entry(name, text, voice, Kind.UTTERANCE, [speech])
        if turn == 0:
            text = " ".join(said[:2])
            yield _entry("two-utterances", text, voice, Kind.TWO_UTTERANCES, speeches[:2])


def prepare(spoken: Spoken) -> shaping.Speech:
    """Bring what Festival made to 16 kHz, cut it after its last sound, fade its edges.

    Raises:
        ValueError: It is longer than a test recording should be.
    """
    samples = resample(spoken.samples, spoken.rate, SAMPLE_RATE)
    end = shaping.end_of_speech(samples, spoken.speech_end_s)
    if end > LONGEST_S * SAMPLE_RATE:
        raise ValueError(f"{end / SAMPLE_RATE:.1f} s of speech: choose a shorter sentence")
    tail = round(0.05 * SAMPLE_RATE)
    return shaping.Speech(shaping.fade_edges(samples[: end + tail]), end)


def _entry(name: str, text: str, voice: Voice, kind: Kind, speeches: list[shaping.Speech]) -> Made:
    random = np.random.default_rng([SEED, *name.encode()])
    dry, end = _in_silence(speeches, random)
    samples = shaping.at_level(dry, random.uniform(-26.0, -20.0))
    entry = Entry(
        file=f"{name}.flac",
        text=text,
        voice=voice.name,
        kind=kind,
        synthesiser=f"Festival 2.5 {voice.festival}",
        licence=voice.licence,
        end_of_speech_sample=end,
    )
    return entry, shaping.with_floor(samples, random)


def _in_silence(
    speeches: list[shaping.Speech], random: np.random.Generator
) -> tuple[shaping.Float32, int]:
    """The speech with silence around it, and the index of its last audible sample.

    More than half a second follows the speech, so that a client with the longest chunks of the
    exercise still has audio to fill the last one.
    """
    parts = [shaping.silence(random.uniform(0.1, 0.3))]
    for speech in speeches[:-1]:
        parts += [speech.samples, shaping.silence(random.uniform(0.7, 0.8))]
    last = speeches[-1]
    end = sum(len(part) for part in parts) + last.end
    whole = np.concatenate([*parts, last.samples])
    length = end + 1 + round(random.uniform(0.52, 0.6) * SAMPLE_RATE)
    return np.pad(whole, (0, length - len(whole))), end


def without_speech() -> Iterator[Made]:
    """Recordings in which nobody speaks: a quiet room, and loud white noise."""
    length = 3 * SAMPLE_RATE
    for kind, level in ((Kind.SILENCE, shaping.FLOOR_DBFS), (Kind.NOISE, -26.0)):
        random = np.random.default_rng([SEED, *kind.value.encode()])
        entry = Entry(f"{kind}.flac", "", "none", kind, "NumPy Gaussian noise", OWN, None)
        yield entry, shaping.noise(length, level, random)


if __name__ == "__main__":
    main()
