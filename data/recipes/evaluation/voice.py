"""Evaluation of a voice by who understands it: a grammar-bound recogniser, and the project's own.

The bar of the second is the teacher, the synthesiser that the voice learned from, recorded
saying the same sentences.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from data.recipes.evaluation.figure import Figure
from labkit.audio.pcm import SAMPLE_RATE, Float32, encode_s16le, read_audio, resample
from labkit.errors import LabkitError
from labkit.measure.recordings import Recording, load_manifest
from labkit.measure.wer import normalise, word_errors
from labkit.voice.piper import PiperTts
from labkit.voice.scheduling import Stop
from labkit.voice.whisper import FasterWhisperAsr

__all__ = ["Speak", "evaluate", "load_sentences", "understood"]

_COMMANDS: Final = "commands.txt"
_GRAMMAR: Final = "commands.gram"
_TIMED: Final = 20
_PAUSE_S: Final = 0.3

Speak = Callable[[str], Float32]
"""A sentence to audio at 16 kHz, with a little silence around it."""


def load_sentences(path: Path) -> list[str]:
    """Read one sentence a line.

    Raises:
        LabkitError: The file is missing or empty.
    """
    try:
        sentences = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise LabkitError(f"{path} cannot be read: {error.strerror}") from error
    if not sentences:
        raise LabkitError(f"{path} holds no sentences")
    return sentences


def evaluate(voice: Path, *, held_out: Path, recogniser: Path) -> list[Figure]:
    """Measure a voice against its bars, on one thread.

    Args:
        voice: The `.onnx` file; its `.onnx.json` lies beside it.
        held_out: Folder with `commands.txt`, the grammar of its sentences, and recordings of
            the teacher with a manifest.
        recogniser: Folder of the recogniser that listens.

    Raises:
        ModelBrokenError: A model does not load.
        AudioError: A recording or the manifest is missing or broken.
        LabkitError: The sentences are missing.
    """
    tts = PiperTts(voice, threads=1)
    tts.warm_up()
    sentences = load_sentences(held_out / _COMMANDS)
    size = sum(p.stat().st_size for p in (voice, voice.with_name(voice.name + ".json"))) / 1e6
    return [
        Figure(name="size", value=size, bar=6.0, unit="MB", at_most=True, sample=1),
        understood(_speaker(tts), sentences, held_out / _GRAMMAR),
        _beside_teacher(_speaker(tts), load_manifest(held_out), recogniser),
        _real_time_factor(tts, sentences[:_TIMED]),
        _aligned(voice, sentences[:_TIMED]),
    ]


def _speaker(tts: PiperTts) -> Speak:
    pause = np.zeros(round(_PAUSE_S * SAMPLE_RATE), np.float32)

    def speak(text: str) -> Float32:
        spoken = np.concatenate([*tts.synthesise(text, Stop())])
        return np.concatenate([pause, resample(spoken, tts.sample_rate, SAMPLE_RATE), pause])

    return speak


def understood(speak: Speak, sentences: Sequence[str], grammar: Path) -> Figure:
    """Sentences of which pocketsphinx, bound to the grammar, gets every word."""
    name = "held-out commands understood by pocketsphinx"
    try:
        from pocketsphinx import Decoder
    except ImportError:
        note = "not measured: pip install pocketsphinx"
        return Figure(name=name, value=0, bar=95, unit="%", at_most=False, sample=0, note=note)
    decoder = Decoder(jsgf=str(grammar), samprate=SAMPLE_RATE, loglevel="FATAL")
    missed = [text for text in sentences if _hear(decoder, speak(text)) != normalise(text)]
    return Figure(
        name=name,
        value=100 * (1 - len(missed) / len(sentences)),
        bar=95.0,
        unit="%",
        at_most=False,
        sample=len(sentences),
        note=f"missed: {missed[0]!r}" if missed else "",
    )


def _hear(decoder: Any, audio: Float32) -> list[str]:
    decoder.start_utt()
    decoder.process_raw(encode_s16le(audio), full_utt=True)
    decoder.end_utt()
    heard = decoder.hyp()
    return normalise(heard.hypstr) if heard else []


def _beside_teacher(speak: Speak, recordings: Iterable[Recording], recogniser: Path) -> Figure:
    """How many points more of the words the recogniser gets wrong than from the teacher."""
    asr = FasterWhisperAsr(recogniser, threads=1)
    teacher = voice = words = 0
    for recording in recordings:
        errors, said = word_errors(
            recording.text, asr.transcribe(read_audio(recording.path), Stop())
        )
        teacher, words = teacher + errors, words + said
        voice += word_errors(recording.text, asr.transcribe(speak(recording.text), Stop()))[0]
    return Figure(
        name="WER through lab-asr-en above the teacher's, points",
        value=100 * (voice - teacher) / words,
        bar=5.0,
        unit="",
        at_most=True,
        sample=words,
        note=f"voice {voice}, teacher {teacher} of {words} words",
    )


def _real_time_factor(tts: PiperTts, sentences: Sequence[str]) -> Figure:
    """Time to speak over the time that it takes to listen, over all sentences."""
    spent = heard = 0.0
    for text in sentences:
        started = time.perf_counter()
        samples = sum(len(audio) for audio in tts.synthesise(text, Stop()))
        spent += time.perf_counter() - started
        heard += samples / tts.sample_rate
    return Figure(
        name="real-time factor on one thread",
        value=spent / heard,
        bar=0.05,
        unit="",
        at_most=True,
        sample=len(sentences),
    )


def _aligned(voice: Path, sentences: Sequence[str]) -> Figure:
    """Sentences whose phonemes' lengths, as Piper gives them, add up to the audio."""
    from piper import PiperVoice

    piper = PiperVoice.load(voice)
    chunks = [
        chunk for text in sentences for chunk in piper.synthesize(text, include_alignments=True)
    ]
    right = sum(
        sum(phoneme.num_samples for phoneme in chunk.phoneme_alignments or ())
        == len(chunk.audio_float_array)
        for chunk in chunks
    )
    return Figure(
        name="sentences whose phoneme alignments add up to their audio",
        value=100 * int(right) / max(len(chunks), 1),
        bar=100.0,
        unit="%",
        at_most=False,
        sample=len(chunks),
    )
