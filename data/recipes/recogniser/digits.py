"""Human digits: recordings of single digits, strung together into utterances.

Takes the Free Spoken Digit Dataset's layout: `{digit}_{speaker}_{index}.wav`, 8 kHz mono, in a
folder or in a tar archive. The recordings are CC BY-SA 4.0, and no part of this project.
"""

import io
import random
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.io import wavfile
from scipy.signal import resample_poly

from data.recipes.recogniser.sound import SAMPLE_RATE, Float32
from data.recipes.recogniser.synthesis import Spoken, to_rate

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

Takes = Mapping[str, Sequence[Sequence[Float32]]]
"""Recordings by speaker, then by digit."""


def load_digits(source: Path) -> Takes:
    """Read all recordings at 16 kHz, each scaled to peak 1.

    Args:
        source: A folder with the WAV files at any depth, or a tar archive of one.

    Raises:
        ValueError: There are no recordings in it.
    """
    takes: dict[str, list[list[Float32]]] = defaultdict(lambda: [[] for _ in WORDS])
    for name, content in _wav_files(source):
        digit, speaker, _ = name.removesuffix(".wav").split("_")
        rate, samples = wavfile.read(io.BytesIO(content))
        audio = to_rate(samples.astype(np.float32), int(rate))
        takes[speaker][int(digit)].append(audio / max(float(np.abs(audio).max()), 1.0))
    if not takes:
        raise ValueError(f"{source} holds no recordings named like 7_speaker_0.wav")
    return takes


def _wav_files(source: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each recording, in the order of the names."""
    if source.is_dir():
        for path in sorted(source.rglob("*.wav")):
            yield path.name, path.read_bytes()
        return
    yield from sorted(_archived(source))


def _archived(source: Path) -> Iterator[tuple[str, bytes]]:
    """The recordings in an archive, in its own order: a compressed one is slow in any other."""
    with tarfile.open(source) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(".wav") else None
            if file is not None:
                yield Path(member.name).name, file.read()


def digit_string(
    rng: random.Random, takes: Sequence[Sequence[Float32]], count: int, *, vary: bool = False
) -> tuple[str, Spoken]:
    """String `count` digits of one speaker together, with pauses of 20 to 250 ms between.

    Args:
        rng: What is drawn from.
        takes: The speaker's recordings by digit.
        count: How many digits.
        vary: Speak each digit a little higher or lower, faster or slower, louder or softer.

    Returns:
        The words, and the audio with the ends of the words.
    """
    said = [rng.randrange(10) for _ in range(count)]
    pieces: list[Float32] = []
    ends: list[int] = []
    position = 0
    for digit in said:
        audio = rng.choice(takes[digit])
        if vary:
            audio = _varied(audio, rng)
        gap = np.zeros(int(rng.uniform(0.02, 0.25) * SAMPLE_RATE), np.float32)
        ends.append(position + len(audio))
        position += len(audio) + len(gap)
        pieces += [audio, gap]
    joined = np.concatenate(pieces[:-1])
    return " ".join(WORDS[digit] for digit in said), Spoken(joined, tuple(ends))


def _varied(audio: Float32, rng: random.Random) -> Float32:
    changed = resample_poly(audio, rng.randint(93, 108), 100).astype(np.float32)
    return changed * np.float32(10 ** (rng.uniform(-4, 2) / 20))
