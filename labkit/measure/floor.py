"""What lies beneath a turn: the same engines without a server, and a policy without engines.

A server's waits are told over these two floors (as in SimulStreaming, 2025): when the policy that
decides about the end of a turn knows of it, where it computes nothing; and what the three engines
take one after the other.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import numpy as np

from labkit.audio.pcm import SAMPLE_RATE, Float32, decode_s16le, encode_s16le, leading_silence
from labkit.client.speech import chunk_samples
from labkit.measure.endpointing import Heard, decide
from labkit.measure.pauses import FRAME_S, Turn
from labkit.voice.engines import Engines, Vad
from labkit.voice.hearing import speech_stretches
from labkit.voice.history import Message
from labkit.voice.scheduling import Stop, engine_thread
from labkit.voice.speakable import SpeakableText
from labkit.voice.turn_taking import FixedWait

T = TypeVar("T")

_SILENCE_S: Final = 10.0
"""So much follows the last word, more than any policy waits for."""


def followed_by_silence(samples: Float32, end_of_speech: int) -> Float32:
    """A recording as it is said to a server that decides: with silence behind its last word."""
    silence = end_of_speech + 1 + round(_SILENCE_S * SAMPLE_RATE) - len(samples)
    return np.pad(samples, (0, max(0, silence)))


def policy_decides_s(
    vad: Vad, samples: Float32, *, end_of_speech: int, silence_s: float, chunk_ms: float
) -> float | None:
    """When a policy that computes nothing knows of the end, in seconds of the recording.

    The detector's frame is judged as soon as the chunk with its last sample has been spoken.

    Returns:
        None where it takes the turn for finished before it is.
    """
    audio = decode_s16le(encode_s16le(followed_by_silence(samples, end_of_speech)))
    audio = audio[: len(audio) // vad.frame_samples * vad.frame_samples]
    voiced, _ = vad.probabilities(None, audio)
    end_s = (end_of_speech + 1) / SAMPLE_RATE
    times = decide(Heard(Turn("", "", audio, voiced, [], end_s), {}), FixedWait(silence_s))
    if not times or times[0] < end_s:
        return None
    size = chunk_samples(chunk_ms)
    frame_end = round(times[0] / FRAME_S) * vad.frame_samples
    return -(-frame_end // size) * size / SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class Floor:
    """What the engines take one after the other, without a server.

    Attributes:
        first_audio_s: From the first call to the first audible samples; None where nothing was
            heard.
    """

    transcript: str
    first_audio_s: float | None


def back_to_back(engines: Engines, samples: Float32, *, system: str = "") -> Floor:
    """Hear an utterance, write the first piece of a reply, and speak it, with warm engines.

    Speech is found before the clock runs: a server does that while somebody speaks.
    """
    stretches, stop = _stretches(engines, samples), Stop()
    begun_s = time.perf_counter()
    transcript = _words(engines, stretches)
    if not transcript or not (first := _first_piece(engines, transcript, system, stop)):
        return Floor(transcript, None)
    for piece in engines.synthesise(first, stop):
        if leading_silence(piece, SAMPLE_RATE) < len(piece) / SAMPLE_RATE:
            break
    return Floor(transcript, time.perf_counter() - begun_s)


def recognise(engines: Engines, samples: Float32, *, ended_s: float) -> str:
    """The words of a recording, recognised at once when all of it is there.

    Args:
        engines: Those of the server that it is held against.
        samples: Mono, 16 kHz; silence follows.
        ended_s: When that server took the turn for over, in seconds of the recording: it has heard
            so much.
    """
    heard = round(ended_s * SAMPLE_RATE)
    return _words(engines, _stretches(engines, np.pad(samples, (0, heard))[:heard]))


def _stretches(engines: Engines, samples: Float32) -> list[Float32]:
    vad = engines.vad
    whole = np.pad(samples, (0, -len(samples) % vad.frame_samples))
    voiced, _ = vad.probabilities(None, whole)
    found = speech_stretches(voiced, vad.frame_samples, longest_s=engines.longest_stretch_s)
    return [whole[one.start : one.end] for one in found]


def _words(engines: Engines, stretches: Sequence[Float32]) -> str:
    words = [engines.transcribe(one, Stop()) for one in stretches]
    return " ".join(word for word in words if word)


def _first_piece(engines: Engines, said: str, system: str, stop: Stop) -> str:
    text, told = SpeakableText(), [Message("user", said)]
    if system:
        told.insert(0, Message("system", system))
    engines.llm.set_alone(True)
    with closing(engines.reply(told, stop)) as deltas:
        for delta in deltas:
            for piece in text.feed(delta):
                if piece.spoken:
                    return piece.spoken
    return " ".join(piece.spoken for piece in text.flush())


class Beneath:
    """The engines without a server, all on one thread.

    OpenMP keeps its threads for each one that asks for work; where they are more than the cores,
    they sleep at each operation, and a token takes twice as long.
    """

    def __init__(self, engines: Engines, system: str = "") -> None:
        """Use `engines`, which are loaded and warm; `system` is told to the language model."""
        self.vad = engines.vad
        self._engines = engines
        self._system = system
        self._thread = engine_thread("floor")

    def __enter__(self) -> "Beneath":
        """Be used by one caller."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let the thread go."""
        self._thread.shutdown()

    async def floor(self, samples: Float32) -> Floor:
        """What they take for an utterance, as `back_to_back`."""
        return await self._run(back_to_back, self._engines, samples, system=self._system)

    async def words(self, samples: Float32, ended_s: float) -> str:
        """What was said in a recording, as `recognise`."""
        return await self._run(recognise, self._engines, samples, ended_s=ended_s)

    async def _run(self, work: Callable[..., T], *given: object, **named: object) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, partial(work, *given, **named))
