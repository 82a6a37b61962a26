"""The four engines behind four small Protocols, and their one real implementation each.

====  ===========================  ===========================================================
role  implementation               library
====  ===========================  ===========================================================
VAD   `SileroVad`                  Silero VAD on onnxruntime, weights from faster-whisper
ASR   `whisper.FasterWhisperAsr`   faster-whisper (Whisper on CTranslate2)
LLM   `llama.LlamaLlm`             llama-cpp-python (llama.cpp)
TTS   `piper.PiperTts`             piper-tts (VITS and kin on onnxruntime)
====  ===========================  ===========================================================

Every call here blocks and belongs on an engine's own thread (`labkit.voice.scheduling`). Each
engine loads once per process, and uses the number of threads that it is told to.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from labkit.audio.pcm import Float32
from labkit.errors import EngineError
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

        Where a bound of its own ends it before the model did, it sets `stop` itself: so the caller
        knows that the last sentence is not whole.

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
        """Speech for `text`, piece by piece; ends early once `stop` is set.

        Several may be under way, of which others go on between two pieces of this one. The first
        piece is what a caller waits for, so it should be short.
        """
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
