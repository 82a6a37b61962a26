"""Engines that follow a script: labkit's test doubles, public, for tests of your own.

They load nothing, answer at once, and are exact: what they hear and say is written down
beforehand. So a test can say which words, which sentences and how many samples must come out at
the other end, and a lesson can be about what surrounds the engines. Nothing measured with them
says anything about recognition, language or speech. ::

    engines = scripted_engines(asr=ScriptedAsr(lambda audio: "hello"))
    pipeline, sink = VoicePipeline(engines), CollectingSink()
    utterance = Utterance(SAMPLE_RATE, pipeline.frame_samples)
    utterance.append(np.full(8000, 3000, np.int16))      # half a second that is not silent
    await pipeline.answer(Turn("me", utterance, History(8)), sink)
    assert sink.transcripts == ["hello"]
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from labkit.audio.pcm import SAMPLE_RATE, Float32
from labkit.voice.engines import Asr, Engines, Llm, Tts
from labkit.voice.history import Message
from labkit.voice.scheduling import Stop


class EnergyVad:
    """Takes every frame that is not silent for speech."""

    frame_samples: Final = 512

    def probabilities(self, state: object, audio: Float32) -> tuple[list[float], object]:
        """1.0 for frames with any sample above 0.001, else 0.0; it carries nothing."""
        frames = audio.reshape(-1, self.frame_samples)
        return [float(np.abs(frame).max(initial=0.0) > 0.001) for frame in frames], ()


@dataclass
class ScriptedAsr(Asr):
    """Hears what `hear` makes of the audio."""

    hear: Callable[[Float32], str] = lambda audio: f"{len(audio)} samples"
    """From audio to words."""
    gate: threading.Event = field(default_factory=threading.Event)
    """Recognition waits until this is set; open by default."""

    def __post_init__(self) -> None:
        """Open the gate."""
        self.gate.set()

    def transcribe(self, audio: Float32, stop: Stop, before: str = "") -> str:
        """What `hear` makes of `audio`, once the gate is open."""
        while not self.gate.wait(0.01):
            if stop.is_set():
                return ""
        return self.hear(audio)


@dataclass
class ScriptedLlm(Llm):
    """Answers with `answer`, word by word."""

    answer: Callable[[Sequence[Message]], str] = lambda messages: f"You: {messages[-1].content}."
    """From the conversation to the reply."""

    def reply(self, messages: Sequence[Message], stop: Stop) -> Iterator[str]:
        """The words of the answer, each with a space behind it."""
        for word in self.answer(messages).split(" "):
            if stop.is_set():
                return
            yield word + " "


@dataclass
class ScriptedTts(Tts):
    """Speaks a steady tone, `seconds_per_word` for each word."""

    sample_rate: int = SAMPLE_RATE
    """Samples per second."""
    seconds_per_word: float = 0.1
    """Length of a word."""

    def synthesise(self, text: str, stop: Stop) -> Iterator[Float32]:
        """A piece of the tone for each word."""
        for _ in text.split():
            if stop.is_set():
                return
            samples = np.arange(round(self.seconds_per_word * self.sample_rate))
            tone = 0.5 * np.sin(2 * np.pi * 440 * samples / self.sample_rate)
            yield tone.astype(np.float32)


class CollectingSink:
    """A sink that keeps everything.

    Attributes:
        transcripts: What was heard, turn by turn.
        sentences: The sentences of the replies.
        pieces: The pieces of audio, 16 kHz.
    """

    def __init__(self) -> None:
        self.transcripts: list[str] = []
        self.sentences: list[str] = []
        self.pieces: list[Float32] = []

    async def transcript(self, text: str) -> None:
        """Keep it."""
        self.transcripts.append(text)

    async def text(self, sentence: str) -> None:
        """Keep it."""
        self.sentences.append(sentence)

    async def audio(self, samples: Float32) -> None:
        """Keep it."""
        self.pieces.append(samples)


def scripted_engines(
    asr: ScriptedAsr | None = None, llm: ScriptedLlm | None = None, tts: ScriptedTts | None = None
) -> Engines:
    """Engines that follow a script, with the defaults above where none is given."""
    return Engines(EnergyVad(), asr or ScriptedAsr(), llm or ScriptedLlm(), tts or ScriptedTts())
