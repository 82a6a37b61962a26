"""The models as a learner's server uses them: three calls that block, `hear`, `think`, `speak`.

All of labkit's scheduling is left out on purpose, since chapter 1 is about what happens without
it: each call holds up the thread that makes it, for as long as the model works. ::

    models = Models.load()
    words = models.hear(samples)                    # float32, 16 kHz, mono
    sentences = models.think([{"role": "user", "content": words}])
    speech = models.speak(sentences[0])             # float32, 16 kHz, its loudest sample at 1.0
"""

import atexit
import os
import re
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final

import numpy as np

from labkit.audio.pcm import Float32
from labkit.voice.engines import Engines
from labkit.voice.hearing import Endpointing, speech_stretches
from labkit.voice.history import Message
from labkit.voice.loading import load_engines
from labkit.voice.models import resolve
from labkit.voice.scheduling import Stop

_SHOWN: Final = 60
"""Characters of what is refused that its error shows."""
_SENTENCE_END: Final = re.compile(r"(?<=[.!?])\s+")


class Models:
    """Recogniser, language model and voice, one call of each at a time; others wait."""

    def __init__(self, engines: Engines) -> None:
        """Use `engines`, which are loaded and warm."""
        self._engines = engines
        # A recogniser, a llama.cpp context and a voice each serve one call at a time, and callers
        # of a learner's server come from several threads.
        self._hearing, self._thinking, self._speaking = (threading.Lock() for _ in range(3))

    @staticmethod
    def load(models: str | None = None) -> "Models":
        """Load a set of models, once per process; takes two seconds the first time.

        Args:
            models: Name of the set; by default what `LABKIT_MODELS` says, or the embedded ones.

        Raises:
            ModelError: There is no such set, or a model is not here.
        """
        return _load(models or os.environ.get("LABKIT_MODELS", "embedded"))

    def close(self) -> None:
        """Let go of the models; none can be called any more."""
        del self._engines

    def hear(self, samples: Float32) -> str:
        """The words in `samples` (16 kHz, mono); empty where nobody speaks in them.

        Raises:
            ValueError: It is given something else.
        """
        if np.ndim(samples) != 1:
            told = f"{samples!r}"[:_SHOWN]
            raise ValueError(f"`hear` takes samples, an array of one dimension; here: {told}")
        samples = np.asarray(samples, np.float32)
        with self._hearing:
            heard = [
                self._engines.transcribe(samples[span.start : span.end], Stop())
                for span in speech_stretches(
                    self.voiced(samples),
                    self._engines.vad.frame_samples,
                    Endpointing(),
                    longest_s=self._engines.longest_stretch_s,
                )
            ]
        return " ".join(words for words in heard if words)

    def voiced(self, samples: Float32) -> list[float]:
        """How probable speech is in each frame of 32 ms, 0 to 1."""
        framed = np.pad(samples, (0, -len(samples) % self._engines.vad.frame_samples))
        return self._engines.detect(None, framed, Stop())[0]

    def think(self, messages: Sequence[Mapping[str, str]]) -> list[str]:
        """The reply to a conversation, as a list of sentences.

        Args:
            messages: Oldest first, each with a `role` (`user` or `assistant`) and its `content`.

        Raises:
            ValueError: The roles do not take turns, which the chat templates of many models refuse.
        """
        chat = [_message(one) for one in messages]
        _require_turns([one.role for one in chat if one.role != "system"])
        with self._thinking:
            text = "".join(self._engines.reply(chat, Stop()))
        return [sentence for sentence in _SENTENCE_END.split(text.strip()) if sentence]

    def speak(self, sentence: str) -> Float32:
        """Speech for one sentence, 16 kHz, mono.

        Its loudest sample is 1.0 or −1.0, as Piper makes it by default.
        """
        with self._speaking:
            pieces = list(self._engines.synthesise(sentence, Stop()))
        speech: Float32 = np.concatenate([np.zeros(0, np.float32), *pieces])
        return speech / max(float(np.abs(speech).max(initial=0.0)), 1e-9)


def _message(given: object) -> Message:
    match given:
        case {"role": "system" | "user" | "assistant" as role, "content": str(content)}:
            return Message(role, content)
    told = f"{given!r}"[:_SHOWN]
    raise ValueError(f"a message has a `role`, user or assistant, and its `content`; here: {told}")


def _require_turns(roles: Sequence[str]) -> None:
    """A conversation that lacks one side is wrong, even where a model finds its way without it."""
    due = [("user", "assistant")[number % 2] for number in range(len(roles) | 1)]
    if list(roles) != due:
        told = ", ".join(roles) or "none"
        raise ValueError(f"roles of a conversation take turns, from `user` to `user`; here: {told}")


@cache
def _load(models: str) -> Models:
    loaded = Models(load_engines(resolve(models)))
    # llama.cpp's binding frees its context while its own module still has everything it needs.
    atexit.register(loaded.close)
    return loaded
