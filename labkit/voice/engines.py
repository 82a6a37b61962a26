"""The four engines: what each has to do, and the one way to call them.

====  ===========================  ===========================================================
role  implementation               library
====  ===========================  ===========================================================
VAD   `silero.SileroVad`           Silero VAD on onnxruntime, weights from faster-whisper
ASR   `whisper.FasterWhisperAsr`   faster-whisper (Whisper on CTranslate2)
LLM   `llama.LlamaLlm`             llama-cpp-python (llama.cpp)
TTS   `piper.PiperTts`             piper-tts (VITS and kin on onnxruntime)
====  ===========================  ===========================================================

Every call here blocks and belongs on an engine's own thread (`labkit.voice.scheduling`). Each
engine loads once per process, and uses the number of threads that it is told to.

An engine is a native library behind a model that anybody may have made. It may raise whatever it
likes, and give a text that is no text or a sample that is no number. Left alone, such a value
fails far away, in an encoder or in a caller's player, and takes more with it than one turn. So
`Engines` judges what it gives on the engine's own thread: whatever is wrong becomes an
`EngineError` that names the engine and what it gave, and the next turn works.
"""

import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from labkit.audio.pcm import SAMPLE_RATE, Float32, StreamResampler
from labkit.errors import EngineError, LabkitError
from labkit.voice.history import Message
from labkit.voice.scheduling import Stop


class Vad(Protocol):
    """Voice activity detection: is somebody speaking in this frame?"""

    @property
    def frame_samples(self) -> int:
        """Samples of one frame at 16 kHz."""
        ...

    def probabilities(self, state: Any, audio: Float32) -> tuple[list[float], Any]:
        """Speech probability of each frame of `audio`, and the state behind them.

        Args:
            state: The one behind the frames before, which is the detector's own affair; None at
                the beginning of an utterance, and never behind a frame.
            audio: 16 kHz, a whole number of frames.
        """
        ...


class Warmed(Protocol):
    """An engine whose first call may be slow."""

    def warm_up(self) -> None:
        """Do once what makes the first call slow; by default, nothing does."""
        return


class Asr(Warmed, Protocol):
    """Automatic speech recognition: audio to words."""

    def transcribe(self, audio: Float32, stop: Stop, before: str = "") -> str:
        """The words in `audio` (16 kHz), empty where none were understood.

        `before` is what the same caller said last, and empty at the beginning: what may be one of
        two words is more often the one that was said already.
        """
        ...


MOST_TOKENS: Final = 160
"""Most tokens of one reply."""


class Llm(Warmed, Protocol):
    """Language model: a conversation to its next reply."""

    def set_alone(self, alone: bool) -> None:
        """Say whether no other engine works, so that it may use all cores; on its own thread.

        By default it uses as many as ever.
        """
        return

    def reply(self, messages: Sequence[Message], stop: Stop) -> Iterator[str]:
        """The reply to `messages`, piece by piece; ends early once `stop` is set.

        Where a bound of its own ends it before the model did, it sets `stop` itself: so the caller
        knows that the last sentence is not whole.

        Several replies may be under way, of which others go on between two pieces of this one. A
        piece may be empty, so that a long prompt lets others in between, too.
        """
        ...


class Tts(Warmed, Protocol):
    """Speech synthesis: a sentence to audio."""

    @property
    def sample_rate(self) -> int:
        """Samples per second of what `synthesise` gives."""
        ...

    def synthesise(self, text: str, stop: Stop) -> Iterator[Float32]:
        """Speech for `text`, piece by piece; ends early once `stop` is set.

        Several may be under way, of which others go on between two pieces of this one. The first
        piece is what a caller waits for, so it should be short.
        """
        ...


_VAD: Final = "voice activity detection"
_ASR: Final = "speech recognition"
_LLM: Final = "language model"
_TTS: Final = "speech synthesis"

_NUMBER: Final = (int, float, np.integer, np.floating)
_UNREADABLE: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""What no text for people holds: control characters, but for tabs and lines, and surrogates."""
_MOST_TOLD: Final = 300
"""Characters of an engine's own words that an error repeats."""


@dataclass(frozen=True, slots=True)
class Engines:
    """One engine of each kind, loaded; its calls raise `EngineError` and nothing else."""

    vad: Vad
    asr: Asr
    llm: Llm
    tts: Tts
    longest_stretch_s: float = 30.0
    """Longest stretch of speech that the recogniser was trained on, in seconds; it is given no
    longer ones."""

    def warm_up(self) -> None:
        """Warm each of them up.

        Raises:
            LabkitError: One of them failed.
        """
        self.vad.probabilities(None, np.zeros(self.vad.frame_samples, np.float32))
        for name, engine in ((_ASR, self.asr), (_LLM, self.llm), (_TTS, self.tts)):
            try:
                engine.warm_up()
            except LabkitError:
                raise
            except Exception as error:
                raise _failed(name, error) from error

    def detect(self, state: Any, audio: Float32, _: Stop) -> tuple[list[float], Any]:
        """Speech probability of each frame of `audio`, and the state behind them, as `Vad`.

        Raises:
            EngineError: It failed, or gave something else than a probability for each frame.
        """
        with _named(_VAD):
            found, after = self.vad.probabilities(state, audio)
            probabilities: list[Any] = list(found)
        frames = len(audio) // self.vad.frame_samples
        if len(probabilities) != frames:
            raise EngineError(f"{_VAD} gave {len(probabilities)} probabilities for {frames} frames")
        # NaN is in no order with any number, so it is not between the two.
        wrong = [one for one in probabilities if not (isinstance(one, _NUMBER) and 0 <= one <= 1)]
        if wrong:
            raise EngineError(f"{_VAD} gave {_told(wrong[0])} where a probability belongs")
        if after is None:
            raise EngineError(f"{_VAD} gave no state")
        return [float(one) for one in probabilities], after

    def transcribe(self, audio: Float32, stop: Stop, before: str = "") -> str:
        """The words in `audio` (16 kHz), said after `before`, as `Asr`.

        Raises:
            EngineError: It failed, or gave no text.
        """
        with _named(_ASR):
            heard = self.asr.transcribe(audio, stop, before)
        return _text(_ASR, heard).strip()

    def reply(self, messages: Sequence[Message], stop: Stop) -> Generator[str, None, None]:
        """The reply to `messages`, piece by piece.

        Raises:
            EngineError: It failed, or gave a piece that is no text.
        """
        with _named(_LLM):
            for piece in self.llm.reply(messages, stop):
                yield _text(_LLM, piece)

    def synthesise(self, sentence: str, stop: Stop) -> Generator[Float32, None, None]:
        """Speech for one sentence, 16 kHz, piece by piece.

        Raises:
            EngineError: It failed, or gave something else than float32 samples in one row.
        """
        with _named(_TTS):
            sample_rate: Any = self.tts.sample_rate
            if type(sample_rate) is not int or sample_rate < 1:
                raise EngineError(f"{_TTS} gave a sample rate of {_told(sample_rate)}")
            resampler = StreamResampler(sample_rate, SAMPLE_RATE)
            # No loop: its variable would hold a second copy while a slow client takes in the first.
            yield from map(resampler.feed, map(_audio, self.tts.synthesise(sentence, stop)))
            yield resampler.flush()


@contextmanager
def _named(engine: str) -> Iterator[None]:
    """Whatever `engine` raises becomes an error that names it.

    That goes for SystemExit and CancelledError, too: on an engine's thread they come from the
    engine, and further up they would end the server, or pass for a turn that was cancelled. A
    StopIteration would leave the caller waiting for ever, since no future takes one.
    """
    try:
        yield
    except (EngineError, GeneratorExit):
        raise
    except BaseException as error:
        raise _failed(engine, error) from error


def _failed(engine: str, error: BaseException) -> EngineError:
    return EngineError(f"{engine} failed: {type(error).__name__}: {_words_of(error)}")


def _words_of(error: BaseException) -> str:
    """What an error says, cut short, and without what no message can carry."""
    try:
        said = str(error)
    except Exception as another:  # an error whose text is broken, too
        said = f"(its text fails: {type(another).__name__})"
    return said[:_MOST_TOLD].encode("utf-8", "backslashreplace").decode()


def _told(value: object) -> str:
    return repr(value) if isinstance(value, int | float) else _kind(value)


def _kind(value: object) -> str:
    return f"a value of type {type(value).__name__}"


def _text(engine: str, value: Any) -> str:
    if not isinstance(value, str):
        raise EngineError(f"{engine} gave {_kind(value)} where text belongs")
    if found := _UNREADABLE.search(value):
        raise EngineError(f"{engine} gave text with the character {ascii(found[0])}")
    return value


def _audio(value: Any) -> Float32:
    if not isinstance(value, np.ndarray):
        raise EngineError(f"{_TTS} gave {_kind(value)} where audio belongs")
    if value.dtype != np.float32 or value.ndim != 1:
        raise EngineError(
            f"{_TTS} gave an array of {value.dtype} and shape {value.shape}; "
            "audio is a row of float32 samples"
        )
    if not np.isfinite(value).all():
        raise EngineError(f"{_TTS} gave samples that are no finite numbers")
    return value
