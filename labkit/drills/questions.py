"""The callers' questions, spoken by the embedded voice: no recording asks them."""

from typing import Final

import numpy as np

from labkit.audio.pcm import SAMPLE_RATE, Float32, StreamResampler
from labkit.drills.facts import QUESTIONS, Topic
from labkit.voice.engines import PiperTts, Tts
from labkit.voice.models import resolve
from labkit.voice.scheduling import Stop

__all__ = ["spoken_questions"]

_SILENCE: Final = SAMPLE_RATE // 4


def spoken_questions(voice: Tts | None = None) -> dict[Topic, Float32]:
    """Each question at 16 kHz, between two short silences.

    Args:
        voice: Who speaks; by default the embedded voice.

    Raises:
        ModelError: The voice is not here, or does not load.
    """
    tts = voice or PiperTts(resolve().tts, threads=1)
    return {topic: _spoken(tts, text) for topic, text in QUESTIONS.items()}


def _spoken(tts: Tts, text: str) -> Float32:
    whole = np.concatenate(list(tts.synthesise(text, Stop())))
    speech = StreamResampler(tts.sample_rate, SAMPLE_RATE).feed(whole, last=True)
    return np.pad(speech, _SILENCE)
