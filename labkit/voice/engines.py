"""The four engines behind four small Protocols, and their one real implementation each.

=====  ============================  =====================================================
role   implementation                library
=====  ============================  =====================================================
VAD    `SileroVad`                   Silero VAD on onnxruntime, weights from faster-whisper
ASR    `FasterWhisperAsr`            faster-whisper (Whisper on CTranslate2)
LLM    `LlamaLlm`                    llama-cpp-python (llama.cpp)
TTS    `PiperTts`                    piper-tts (VITS and kin on onnxruntime)
=====  ============================  =====================================================

Every call here blocks and belongs on an engine's own thread (`labkit.voice.scheduling`). Each
engine loads once per process, and uses the number of threads that it is told to.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from labkit.audio.pcm import Float32
from labkit.errors import EngineError, ModelBrokenError
from labkit.voice.history import Message
from labkit.voice.scheduling import Stop

__all__ = [
    "Asr",
    "Engines",
    "LlamaLlm",
    "Llm",
    "PiperTts",
    "SileroVad",
    "Tts",
    "Vad",
    "VadState",
    "fit_to_context",
]


@dataclass(frozen=True, slots=True)
class VadState:
    """What a voice activity detector carries from one frame of an utterance to the next.

    Attributes:
        hidden: Hidden state of the recurrent layer, shape `(1, 1, 128)`.
        cell: Cell state of the recurrent layer, shape `(1, 1, 128)`.
        context: The last samples of the frame before, shape `(64,)`.
    """

    hidden: Float32
    cell: Float32
    context: Float32


class Vad(Protocol):
    """Voice activity detection: is somebody speaking in this frame?"""

    @property
    def frame_samples(self) -> int:
        """Samples of one frame at 16 kHz."""
        ...

    def start(self) -> VadState:
        """The state at the beginning of an utterance."""
        ...

    def probabilities(self, state: VadState, audio: Float32) -> tuple[list[float], VadState]:
        """Speech probability of each frame of `audio`, and the state behind them.

        Args:
            state: From `start`, or the one behind the frames before.
            audio: 16 kHz, a whole number of frames.
        """
        ...


class Asr(Protocol):
    """Automatic speech recognition: audio to words."""

    def warm_up(self) -> None:
        """Do once what makes the first call slow."""
        ...

    def transcribe(self, audio: Float32, stop: Stop) -> str:
        """The words in `audio` (16 kHz), empty where none were understood."""
        ...


class Llm(Protocol):
    """Language model: a conversation to its next reply."""

    def warm_up(self) -> None:
        """Do once what makes the first call slow."""
        ...

    def reply(self, messages: Sequence[Message], stop: Stop) -> Iterator[str]:
        """The reply to `messages`, piece by piece; ends early once `stop` is set."""
        ...


class Tts(Protocol):
    """Speech synthesis: a sentence to audio."""

    @property
    def sample_rate(self) -> int:
        """Samples per second of what `synthesise` gives."""
        ...

    def warm_up(self) -> None:
        """Do once what makes the first call slow."""
        ...

    def synthesise(self, text: str, stop: Stop) -> Iterator[Float32]:
        """Speech for `text`, piece by piece; ends early once `stop` is set."""
        ...


@dataclass(frozen=True, slots=True)
class Engines:
    """One engine of each kind, loaded.

    Attributes:
        longest_stretch_s: Longest stretch of speech that the recogniser was trained on, in
            seconds; it is given no longer ones.
    """

    vad: Vad
    asr: Asr
    llm: Llm
    tts: Tts
    longest_stretch_s: float = 30.0

    def warm_up(self) -> None:
        """Warm each of them up."""
        self.vad.probabilities(self.vad.start(), np.zeros(self.vad.frame_samples, np.float32))
        self.asr.warm_up()
        self.llm.warm_up()
        self.tts.warm_up()


class SileroVad:
    """Silero VAD, with the weights that come inside faster-whisper.

    The model looks at 512 samples at 16 kHz (32 ms) together with the 64 before them, and
    carries a recurrent state. faster-whisper's own wrapper starts anew at each call; here the
    state lives from frame to frame, so audio can be judged as it arrives.
    """

    frame_samples: Final = 512
    _CONTEXT: Final = 64
    _STATE: Final = (1, 1, 128)

    def __init__(self) -> None:
        """Load the model; it always runs on one thread.

        Raises:
            EngineError: faster-whisper's weights do not load.
        """
        from faster_whisper.vad import get_vad_model

        try:
            self._session = get_vad_model().session
        except Exception as error:  # onnxruntime raises classes of its own making
            raise EngineError(f"Silero VAD of faster-whisper does not load: {error}") from error

    def start(self) -> VadState:
        """All zeros: before the first frame there was nothing."""
        return VadState(
            hidden=np.zeros(self._STATE, np.float32),
            cell=np.zeros(self._STATE, np.float32),
            context=np.zeros(self._CONTEXT, np.float32),
        )

    def probabilities(self, state: VadState, audio: Float32) -> tuple[list[float], VadState]:
        """Speech probability of each frame of 512 samples."""
        if not len(audio):
            return [], state
        frames = audio.reshape(-1, self.frame_samples)
        tails = frames[:, -self._CONTEXT :]
        contexts = np.concatenate([state.context[None], tails[:-1]])
        speech, hidden, cell = self._session.run(
            None,
            {
                "input": np.concatenate([contexts, frames], axis=1),
                "h": state.hidden,
                "c": state.cell,
            },
        )
        after = VadState(hidden=hidden, cell=cell, context=tails[-1].copy())
        return [float(probability) for probability in np.ravel(speech)], after


def fit_to_context(
    messages: Sequence[Message], count: Callable[[Message], int], room: int
) -> list[Message]:
    """Drop the oldest exchanges until the conversation fits into the model's context.

    A system message stays, and so does the last message, whatever its length.

    Args:
        messages: The conversation, oldest first.
        count: Tokens that one message takes.
        room: Tokens that there is room for.
    """
    system = [m for m in messages if m.role == "system"]
    turns = [m for m in messages if m.role != "system"]
    while len(turns) > 1 and sum(map(count, [*system, *turns])) > room:
        turns = turns[1:]
        while len(turns) > 1 and turns[0].role != "user":
            turns = turns[1:]
    return [*system, *turns]


class LlamaLlm:
    """A GGUF model on llama.cpp, through its own chat template."""

    _ROLE_TOKENS: Final = 6
    """Tokens that a chat template spends on each message besides its words."""

    def __init__(
        self, model: Path, *, threads: int, context: int = 1024, max_tokens: int = 160
    ) -> None:
        """Load the model.

        Args:
            model: The `.gguf` file.
            threads: CPU threads of one call, for the prompt and for new tokens alike.
            context: Most tokens of conversation and reply; older exchanges are dropped.
            max_tokens: Most tokens of one reply.

        Raises:
            ModelBrokenError: The model does not load.
        """
        from llama_cpp import Llama

        self.max_tokens = max_tokens
        self._context = context
        try:
            self._llama = Llama(
                str(model),
                n_ctx=self._context,
                n_threads=threads,
                n_threads_batch=threads,
                verbose=False,
            )
        except (ValueError, OSError, AssertionError) as error:
            raise ModelBrokenError(model, str(error)) from error

    def warm_up(self) -> None:
        """Read a short prompt and write one token."""
        stop = Stop()
        for _ in self.reply([Message("user", "hello")], stop):
            stop.set()

    def reply(self, messages: Sequence[Message], stop: Stop) -> Iterator[str]:
        """Greedy, so the same conversation gets the same reply."""
        fitted = fit_to_context(messages, self._count, self._context - self.max_tokens)
        chat: Any = [{"role": m.role, "content": self._harmless(m.content)} for m in fitted]
        stream: Any = self._llama.create_chat_completion(
            chat, stream=True, temperature=0.0, max_tokens=self.max_tokens
        )
        try:
            for chunk in stream:
                if stop.is_set():
                    return
                if piece := chunk["choices"][0]["delta"].get("content"):
                    yield piece
        finally:
            stream.close()

    @staticmethod
    def _harmless(text: str) -> str:
        """`text` without what the chat path would read as a control token."""
        return text.replace("<|", " ").replace("|>", " ")

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens that a conversation takes, as an estimate from above."""
        return sum(map(self._count, messages))

    def _count(self, message: Message) -> int:
        words = message.content.encode()
        return self._ROLE_TOKENS + len(self._llama.tokenize(words, add_bos=False))


class PiperTts:
    """A voice on Piper, one piece of audio per sentence."""

    def __init__(self, model: Path, *, threads: int) -> None:
        """Load the voice.

        Args:
            model: The `.onnx` file; its `.onnx.json` lies beside it.
            threads: CPU threads of one call.

        Raises:
            ModelBrokenError: The voice does not load.
        """
        from piper import PiperVoice
        from piper.config import SynthesisConfig

        self._voice = PiperVoice(session=self._open(model, threads), config=self._config(model))
        self._settings = SynthesisConfig(normalize_audio=True, volume=0.7)

    @staticmethod
    def _config(model: Path) -> Any:
        from piper.config import PiperConfig

        path = model.with_name(model.name + ".json")
        try:
            return PiperConfig.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelBrokenError(path, repr(error)) from error

    @staticmethod
    def _open(model: Path, threads: int) -> Any:
        """An onnxruntime session on `threads` threads: Piper's own `load` takes every core."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        try:
            return onnxruntime.InferenceSession(
                str(model), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises classes of its own making
            raise ModelBrokenError(model, str(error)) from error

    @property
    def sample_rate(self) -> int:
        """What the voice was trained on."""
        return int(self._voice.config.sample_rate)

    def warm_up(self) -> None:
        """Speak one word."""
        for _ in self.synthesise("Ready.", Stop()):
            pass

    def synthesise(self, text: str, stop: Stop) -> Iterator[Float32]:
        """A piece for each sentence in `text`; text without words gives no audio."""
        for chunk in self._voice.synthesize(text, self._settings):
            yield np.asarray(chunk.audio_float_array, dtype=np.float32)
            if stop.is_set():
                return
