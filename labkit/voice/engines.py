"""The four engines behind four small Protocols, and their one real implementation each.

=====  role   implementation                library
=====  VAD    `SileroVad`                   Silero VAD on onnxruntime, weights from faster-whisper
ASR    `FasterWhisperAsr`            faster-whisper (Whisper on CTranslate2)
LLM    `llama.LlamaLlm`              llama-cpp-python (llama.cpp)
TTS    `PiperTts`                    piper-tts (VITS and kin on onnxruntime)
=====
Every call here blocks and belongs on an engine's own thread (`labkit.voice.scheduling`). Each
engine loads once per process, and uses the number of threads that it is told to.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from labkit.audio.pcm import Float32
from labkit.errors import EngineError, ModelBrokenError
from labkit.voice.history import Message
from labkit.voice.scheduling import Stop


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
        """The reply to `messages`, piece by piece; ends early once `stop` is set.

        Several replies may be under way, of which others go on between two pieces of this one. A
        piece may be empty, so that a long prompt lets others in between, too.
        """
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


def clauses(phonemes: Sequence[str], most: int) -> Iterator[Sequence[str]]:
    """Cut the phonemes of a sentence into pieces of `most` at most.

    Each piece ends at the last clause mark that it may hold, where that leaves a third of it;
    else between two words; else anywhere.
    """
    while len(phonemes) > most:
        marks = (i for i in range(most, most // 3, -1) if phonemes[i - 1] in _CLAUSE_MARKS)
        spaces = (i for i in range(most, 0, -1) if phonemes[i - 1] == " ")
        end = next(marks, None) or next(spaces, None) or most
        yield phonemes[:end]
        phonemes = phonemes[end:]
    yield phonemes


_CLAUSE_MARKS: Final = frozenset(",;:—–")


class PiperTts:
    """A voice on Piper, one piece of audio per sentence, or per clause of a long one.

    onnxruntime keeps what its largest call took. With a medium voice a sentence of 17 s takes the
    process from 196 MB to 549 for good; in pieces of 120 phonemes (5 s) to 303, and no slower.
    Without the arena (`enable_cpu_mem_arena`) it ends at 411, and its peak is 690.
    """

    _MOST_PHONEMES: Final = 120

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

        class Voice(PiperVoice):
            def phonemize(self, text: str) -> list[list[str]]:
                most = PiperTts._MOST_PHONEMES
                whole = super().phonemize(text)
                return [list(piece) for sentence in whole for piece in clauses(sentence, most)]

        self._voice = Voice(session=self._open(model, threads), config=self._config(model))
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
        """A piece for each sentence or clause of `text`; text without words gives no audio."""
        for chunk in self._voice.synthesize(text, self._settings):
            yield np.asarray(chunk.audio_float_array, dtype=np.float32)
            if stop.is_set():
                return
