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
from typing import TypeVar

import numpy as np

from labkit.audio.pcm import SAMPLE_RATE, Float32, decode_s16le, encode_s16le, leading_silence
from labkit.client.speech import chunk_samples
from labkit.measure.decided import followed_by_silence
from labkit.measure.endpointing import Heard, decide
from labkit.measure.pauses import FRAME_S, Turn
from labkit.voice.engines import Engines, Vad
from labkit.voice.hearing import speech_stretches
from labkit.voice.history import Message
from labkit.voice.scheduling import Stop, engine_thread
from labkit.voice.speakable import SpeakableText
from labkit.voice.turn_taking import FixedWait

T = TypeVar("T")


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


class Beneath:
    """The engines without a server, all on one thread.

    OpenMP keeps its threads for each one that asks for work; where they are more than the cores,
    they sleep at each operation, and a token takes twice as long.
    """

    def __init__(self, engines: Engines, system: str = "") -> None:
        """Use `engines`, which are loaded and warm; `system` is told to the language model."""
        self.vad = engines.vad
        self._engines = engines
        self._system = [Message("system", system)] if system else []
        self._thread = engine_thread("floor")

    def __enter__(self) -> "Beneath":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    async def floor(self, samples: Float32) -> Floor:
        """Hear an utterance, write the first piece of a reply, and speak it.

        Speech is found before the clock runs: a server does that while somebody speaks.
        """
        return await self._on_thread(lambda: self._floor(samples))

    async def words(self, samples: Float32, ended_s: float) -> str:
        """The words of a recording and the silence behind it, recognised at once.

        It is over after `ended_s` seconds: the server that it is held against has heard so much.
        """
        heard = round(ended_s * SAMPLE_RATE)
        whole = np.pad(samples, (0, heard))[:heard]
        return await self._on_thread(lambda: self._words(self._stretches(whole)))

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _floor(self, samples: Float32) -> Floor:
        stretches, stop = self._stretches(samples), Stop()
        begun_s = time.perf_counter()
        transcript = self._words(stretches)
        if not transcript or not (first := self._first_piece(transcript, stop)):
            return Floor(transcript, None)
        for piece in self._engines.synthesise(first, stop):
            if leading_silence(piece, SAMPLE_RATE) < len(piece) / SAMPLE_RATE:
                break
        return Floor(transcript, time.perf_counter() - begun_s)

    def _stretches(self, samples: Float32) -> list[Float32]:
        frame = self.vad.frame_samples
        whole = np.pad(samples, (0, -len(samples) % frame))
        voiced, _ = self.vad.probabilities(None, whole)
        found = speech_stretches(voiced, frame, longest_s=self._engines.longest_stretch_s)
        return [whole[one.start : one.end] for one in found]

    def _words(self, stretches: Sequence[Float32]) -> str:
        words = [self._engines.transcribe(one, Stop()) for one in stretches]
        return " ".join(word for word in words if word)

    def _first_piece(self, said: str, stop: Stop) -> str:
        text = SpeakableText()
        self._engines.llm.set_alone(True)
        with closing(self._engines.reply([*self._system, Message("user", said)], stop)) as deltas:
            for delta in deltas:
                for piece in text.feed(delta):
                    if piece.spoken:
                        return piece.spoken
        return " ".join(piece.spoken for piece in text.flush())
