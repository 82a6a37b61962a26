"""Evaluation of a recogniser on held-out material, with faster-whisper itself."""

import io
import random
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import soundfile

from data.recipes.evaluation.figure import Figure
from labkit.audio.pcm import SAMPLE_RATE, Float32, read_audio, resample
from labkit.measure.recordings import Kind, Recording, load_manifest
from labkit.measure.wer import normalise, word_errors
from labkit.voice.scheduling import Stop
from labkit.voice.whisper import FasterWhisperAsr

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

__all__ = ["HELD_OUT_SPEAKER", "Clip", "clips_of", "correct_prefix", "digit_strings", "evaluate"]

HELD_OUT_SPEAKER: Final = "theo"
"""The speaker of human digits that the embedded recogniser never heard."""

_DIGITS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_STRINGS: Final = 100
_JOIN_PAUSE_S: Final = 0.4
_TIMED_FRAMES: Final = 400
_SEED: Final = 7

Hear = Callable[[Float32], str]
"""Audio (16 kHz) to a transcript."""


@dataclass(frozen=True, slots=True)
class Clip:
    """Audio (16 kHz) with the words that are said in it."""

    audio: Float32
    text: str


def evaluate(
    model: Path, *, held_out: Path, speech: Path, digits: Path | None = None
) -> list[Figure]:
    """Measure a recogniser against its bars, each through the window that the bar names.

    Args:
        model: Folder that `faster_whisper.WhisperModel` loads.
        held_out: Folder of held-out sentences in known voices, with a manifest, and in it a
            folder `new-voices` of the same kind in voices that did not train.
        speech: Folder of test recordings with a manifest (`data/speech`).
        digits: Human digits as a tar archive; where it is missing, their rows are not measured.

    Raises:
        ModelBrokenError: The model does not load.
        AudioError: A recording or a manifest is missing or broken.
    """
    engine = _Recogniser(model)
    known = clips_of(load_manifest(held_out))
    figures = [_size(model)]
    figures += _both_windows(engine, "held-out sentences, known voices: WER", known, 5.0)
    new = clips_of(load_manifest(held_out / "new-voices"))
    figures += _both_windows(engine, "held-out sentences, new variants: WER", new, 10.0)
    recordings = load_manifest(speech)
    unheard = clips_of(recordings)
    figures += _both_windows(engine, "test recordings, voices never heard: WER", unheard, 10.0)
    figures += _human_digits(engine, digits)
    figures += [*_nothing_invented(engine, recordings), _cut(engine, known), _joined(engine, known)]
    return [*figures, _latency(engine)]


class _Recogniser:
    """One model, heard through faster-whisper's own way and through the fitted window."""

    def __init__(self, model: Path) -> None:
        self._path = model
        self._fitted = FasterWhisperAsr(model, threads=1)

    @cached_property
    def whisper(self) -> "WhisperModel":
        """faster-whisper's model on one thread."""
        from faster_whisper import WhisperModel

        return WhisperModel(str(self._path), device="cpu", cpu_threads=1, compute_type="int8")

    def fitted(self, audio: Float32) -> str:
        """Through a window as long as the utterance needs."""
        return self._fitted.transcribe(audio, Stop())

    def full(self, audio: Float32) -> str:
        """Through `WhisperModel.transcribe` as it comes: timestamps, beam, 30 s windows."""
        segments, _ = self.whisper.transcribe(audio, language="en")
        return " ".join(segment.text.strip() for segment in segments)

    def gated(self, audio: Float32) -> str:
        """The same behind faster-whisper's voice activity detection."""
        segments, _ = self.whisper.transcribe(audio, language="en", vad_filter=True)
        return " ".join(segment.text.strip() for segment in segments)


def clips_of(recordings: Iterable[Recording]) -> list[Clip]:
    """Those in which something is said."""
    return [Clip(read_audio(r.path), r.text) for r in recordings if r.kind.is_speech]


def _size(model: Path) -> Figure:
    files = [path for path in model.iterdir() if path.is_file()]
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    return Figure(
        name="size of all files",
        value=megabytes,
        bar=8.0,
        unit="MB",
        at_most=True,
        sample=len(files),
    )


def _both_windows(
    engine: _Recogniser, name: str, clips: Sequence[Clip], bar: float
) -> list[Figure]:
    return [
        _error_rate(engine.full, f"{name}, full window", clips, bar),
        _error_rate(engine.fitted, f"{name}, fitted window", clips, bar),
    ]


def _error_rate(hear: Hear, name: str, clips: Sequence[Clip], bar: float) -> Figure:
    counts = [word_errors(clip.text, hear(clip.audio)) for clip in clips]
    errors, words = sum(e for e, _ in counts), sum(w for _, w in counts)
    return Figure(
        name=name,
        value=100 * errors / words,
        bar=bar,
        unit="%",
        at_most=True,
        sample=len(clips),
        note=f"{errors} of {words} words",
    )


def _human_digits(engine: _Recogniser, digits: Path | None) -> list[Figure]:
    name = f"strings of human digits, speaker {HELD_OUT_SPEAKER!r} never heard: WER"
    if digits is None or not digits.is_file():
        note = f"not measured: no archive of recordings at {digits}"
        return [
            Figure(name=name, value=100.0, bar=10.0, unit="%", at_most=True, sample=0, note=note)
        ]
    return _both_windows(engine, name, digit_strings(digits, _STRINGS, _SEED), 10.0)


def digit_strings(archive: Path, count: int, seed: int) -> list[Clip]:
    """Strings of three to seven digits of the held-out speaker.

    Args:
        archive: Tar archive with WAV files named `{digit}_{speaker}_{index}.wav`.
        count: How many strings.
        seed: Of the digits, the recordings and the pauses (50 to 200 ms) drawn.
    """
    rng = random.Random(seed)
    takes: dict[str, list[Float32]] = {}
    for digit, audio in sorted(_takes(archive), key=lambda take: take[0]):
        takes.setdefault(digit, []).append(audio)
    return [_digit_string(rng, takes) for _ in range(count)]


def _digit_string(rng: random.Random, takes: dict[str, list[Float32]]) -> Clip:
    said = rng.choices(sorted(takes), k=rng.randint(3, 7))
    pieces = [np.zeros(SAMPLE_RATE // 5, np.float32)]
    for digit in said:
        pause = np.zeros(round(rng.uniform(0.05, 0.2) * SAMPLE_RATE), np.float32)
        pieces += [rng.choice(takes[digit]), pause]
    return Clip(np.concatenate(pieces), " ".join(_DIGITS[int(digit)] for digit in said))


def _takes(archive: Path) -> Iterator[tuple[str, Float32]]:
    """The digit and the audio of each of the speaker's recordings, in the archive's order."""
    with tarfile.open(archive) as files:
        for member in files:
            digit, _, rest = Path(member.name).name.partition("_")
            content = files.extractfile(member)
            if content is not None and rest.startswith(f"{HELD_OUT_SPEAKER}_"):
                samples, rate = soundfile.read(io.BytesIO(content.read()), dtype="float32")
                yield digit, resample(samples, rate, SAMPLE_RATE)


def _nothing_invented(engine: _Recogniser, recordings: Iterable[Recording]) -> list[Figure]:
    """Words that the model hears where nobody speaks, behind voice activity detection."""
    sounds = dict(_sounds())
    for recording in recordings:
        if recording.kind in (Kind.SILENCE, Kind.NOISE):
            sounds[recording.name] = read_audio(recording.path)
    heard = {name: normalise(engine.gated(audio)) for name, audio in sounds.items()}
    loud = ", ".join(name for name, words in heard.items() if words)
    return [
        Figure(
            name="words invented in silence, noise, tones and chords",
            value=float(sum(map(len, heard.values()))),
            bar=0.0,
            unit="",
            at_most=True,
            sample=len(sounds),
            note=f"invented in {loud}" if loud else "",
        )
    ]


def _sounds() -> Iterator[tuple[str, Float32]]:
    """Sounds that are not speech, 3 s each."""
    generator = np.random.default_rng(_SEED)
    time_s = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    yield "silence", np.zeros(len(time_s), np.float32)
    for level in (0.01, 0.1, 0.3):
        noise = generator.normal(0, level, len(time_s))
        yield f"white noise at {level}", noise.clip(-1, 1).astype(np.float32)
    for hz in (200, 440, 1000, 3000):
        yield f"{hz} Hz tone", (0.3 * np.sin(2 * np.pi * hz * time_s)).astype(np.float32)
    for name, notes in (("C major", (262, 330, 392)), ("A minor", (220, 262, 330))):
        partials = [np.sin(2 * np.pi * n * k * time_s) / k for n in notes for k in range(1, 6)]
        beats = np.exp(-3 * (time_s % 0.75))
        yield f"{name} chords", (0.08 * np.sum(partials, axis=0) * beats).astype(np.float32)


def correct_prefix(reference: str, hypothesis: str) -> tuple[int, int]:
    """How much of `hypothesis` is the beginning of `reference`.

    Returns:
        The words that stand at the same place in both, and the words of the hypothesis.
    """
    said, heard = normalise(reference), normalise(hypothesis)
    return sum(a == b for a, b in zip(said, heard, strict=False)), len(heard)


def _cut(engine: _Recogniser, clips: Sequence[Clip]) -> Figure:
    """Clips that end in the middle: is what is heard the beginning of what was to be said?"""
    counts = [
        correct_prefix(clip.text, engine.fitted(clip.audio[: len(clip.audio) // 2]))
        for clip in clips
    ]
    right, words = sum(r for r, _ in counts), sum(w for _, w in counts)
    return Figure(
        name="cut at half: words that are a correct prefix",
        value=100 * right / max(words, 1),
        bar=85.0,
        unit="%",
        at_most=False,
        sample=len(clips),
        note=f"{right} of {words} words",
    )


def _joined(engine: _Recogniser, clips: Sequence[Clip]) -> Figure:
    """Two utterances in one recording: a missing one would be half of the words."""
    pause = np.zeros(round(_JOIN_PAUSE_S * SAMPLE_RATE), np.float32)
    pairs = [
        Clip(np.concatenate([a.audio, pause, b.audio]), f"{a.text} {b.text}")
        for a, b in pairwise(clips)
    ]
    return _error_rate(engine.fitted, "two utterances joined: WER", pairs, 10.0)


def _latency(engine: _Recogniser) -> Figure:
    """Median time of the encoder for an utterance of some 4 s, on one thread."""
    whisper = engine.whisper
    features = np.full((whisper.feature_extractor.mel_filters.shape[0], _TIMED_FRAMES), 0.1)
    spent = []
    for _ in range(30):
        start = time.perf_counter_ns()
        np.array(whisper.encode(features.astype(np.float32)))
        spent.append((time.perf_counter_ns() - start) / 1e6)
    return Figure(
        name=f"encoder, {_TIMED_FRAMES} frames on one thread: median",
        value=float(np.median(spent)),
        bar=15.0,
        unit="ms",
        at_most=True,
        sample=len(spent),
    )
