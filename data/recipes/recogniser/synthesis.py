"""Text to speech with espeak-ng (through its library) and flite (through its program)."""

import ctypes
import ctypes.util
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import wavfile
from scipy.signal import resample_poly

from data.recipes.recogniser.sound import SAMPLE_RATE, Float32
from data.recipes.recogniser.voices import EspeakVoice, FliteVoice

_SYNCHRONOUS_OUTPUT = 2
_UTF8 = 1
_WORD_EVENT = 1
_RATE, _PITCH, _RANGE, _WORD_GAP = 1, 3, 4, 7
_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


class _Event(ctypes.Structure):
    """`espeak_EVENT` of espeak-ng's `speak_lib.h`."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


class SynthesisError(Exception):
    """A synthesiser is missing, or did not speak."""


@dataclass(frozen=True)
class Spoken:
    """A spoken sentence.

    Attributes:
        audio: 16 kHz, in [-1, 1], trimmed to the speech.
        word_ends: The sample after the end of each word; empty where it is not known.
    """

    audio: Float32
    word_ends: tuple[int, ...] = ()


@dataclass
class _Recording:
    """What the callback collects."""

    blocks: list[Float32] = field(default_factory=list)
    words: list[tuple[int, int]] = field(default_factory=list)


class Espeak:
    """espeak-ng's library, one voice at a time."""

    def __init__(self) -> None:
        """Load the library (which honours `ESPEAK_DATA_PATH`).

        Raises:
            SynthesisError: There is no library, or it finds no data.
        """
        name = ctypes.util.find_library("espeak-ng") or "libespeak-ng.so.1"
        try:
            self._library = ctypes.CDLL(name)
        except OSError as error:
            raise SynthesisError(f"{name} does not load; install espeak-ng: {error}") from error
        rate = self._library.espeak_Initialize(_SYNCHRONOUS_OUTPUT, 0, None, 0)
        if rate <= 0:
            raise SynthesisError("espeak-ng finds no data; set ESPEAK_DATA_PATH")
        self.rate = int(rate)
        self._recording = _Recording()
        self._callback = _CALLBACK(self._collect)
        self._library.espeak_SetSynthCallback(self._callback)

    def _collect(self, samples: Any, count: int, events: int) -> int:
        if count > 0 and samples:
            block = np.ctypeslib.as_array(samples, (count,)).astype(np.float32) / 32768
            self._recording.blocks.append(block)
        position = events
        while True:
            event = _Event.from_address(position)
            if event.type == 0:
                return 0
            if event.type == _WORD_EVENT:
                self._recording.words.append((event.text_position - 1, event.audio_position))
            position += ctypes.sizeof(_Event)

    def speak(self, text: str, voice: EspeakVoice) -> Spoken:
        """Speak `text`, which is words with single spaces between them.

        Raises:
            SynthesisError: The voice does not exist, or nothing was spoken.
        """
        if self._library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise SynthesisError(f"espeak-ng has no voice {voice.name!r}")
        for parameter, value in (
            (_RATE, voice.rate),
            (_PITCH, voice.pitch),
            (_RANGE, voice.range),
            (_WORD_GAP, voice.gap),
        ):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._recording = _Recording()
        raw = text.encode() + b"\0"
        self._library.espeak_Synth(raw, len(raw), 0, 0, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        if not self._recording.blocks:
            raise SynthesisError(f"espeak-ng said nothing for {text!r} with {voice.name}")
        audio = to_rate(np.concatenate(self._recording.blocks), self.rate)
        starts = word_starts(text, self._recording.words)
        return trim(audio, [start * SAMPLE_RATE // 1000 for start in starts])


def word_starts(text: str, events: list[tuple[int, int]]) -> list[int]:
    """When each word of `text` starts, from espeak-ng's `(character, millisecond)` events.

    Returns:
        Milliseconds of each word, or nothing where the events do not name every word (espeak-ng
        speaks some pairs, such as "of the", as one).
    """
    at = dict(events)
    position, starts = 0, []
    for word in text.split(" "):
        if position not in at:
            return []
        starts.append(at[position])
        position += len(word) + 1
    return starts


def speak_flite(text: str, voice: FliteVoice) -> Spoken:
    """Speak `text` with the flite program.

    Raises:
        SynthesisError: The program is missing or fails.
    """
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        command = ["flite", "-voice", voice.name, "--setf", f"duration_stretch={voice.stretch}"]
        command += ["--setf", f"int_f0_target_mean={voice.pitch_hz}"]
        command += ["--setf", f"int_f0_target_stddev={voice.spread_hz}"]
        try:
            subprocess.run([*command, "-t", text, "-o", file.name], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SynthesisError(f"flite does not speak: {error}") from error
        rate, samples = wavfile.read(file.name)
    return trim(to_rate(samples.astype(np.float32) / 32768, int(rate)), [])


def to_rate(audio: Float32, rate: int) -> Float32:
    """Resample from `rate` to 16 kHz."""
    if rate == SAMPLE_RATE:
        return audio
    return resample_poly(audio, SAMPLE_RATE, rate).astype(np.float32)


def trim(audio: Float32, starts: list[int]) -> Spoken:
    """Cut silence off both ends, keeping 20 ms, and turn word starts into word ends."""
    loud = np.flatnonzero(np.abs(audio) > 0.01 * np.abs(audio).max())
    if not len(loud):
        raise SynthesisError("the synthesiser gave silence")
    margin = SAMPLE_RATE // 50
    first = max(int(loud[0]) - margin, 0)
    last = min(int(loud[-1]) + margin, len(audio))
    ends = [start - first for start in starts[1:]] + [last - first] if starts else []
    return Spoken(audio[first:last], tuple(ends))


def lexicon(words: list[str], voice: str = "en-us") -> dict[str, str]:
    """espeak-ng's phones of each word, as a string of symbols without stress and length marks."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "words.txt"
        source.write_text("\n".join(f"{word}." for word in words) + "\n")
        command = ["espeak-ng", "-q", "-x", "-v", voice, "-f", str(source)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    if len(lines) != len(words):
        raise SynthesisError(f"espeak-ng gave {len(lines)} pronunciations of {len(words)} words")
    return {word: plain_phones(line) for word, line in zip(words, lines, strict=True)}


def plain_phones(phones: str) -> str:
    """Phones in espeak-ng's ASCII form, less stress, length, pauses and word breaks."""
    return "".join(symbol for symbol in phones if symbol not in "',%=_:;|-!* ~\"")
