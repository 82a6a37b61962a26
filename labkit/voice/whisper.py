"""Speech recognition by a Whisper model, through a window no longer than the utterance needs.

Whisper's encoder looks at 30 s, whatever was said, and for a short utterance nearly all of its
work goes into silence. So the window is cut, to what the model's family bears: models trained for
it (`lab-asr-en`) take any length, the public ones say a sentence again and again through a window
below ten seconds. The decoder knows when it went wrong (`Heard.doubtful`), and what was heard
through a cut window and is doubtful is heard once more through the whole one.

A public model is also told what was said before, as it was in its training, where one line of
subtitles stands before the next. It may write that again for a sound that is no word.

Whisper was trained on subtitles, and on next to nothing it writes what subtitles have there. What
is left to doubt at the end, and what is too long to have been said, is taken for invented
(`Heard.invented`), and nothing was heard; nor was what a public model itself hardly believes.
"""

import json
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from labkit.audio.pcm import SAMPLE_RATE, Float32
from labkit.errors import ModelBrokenError
from labkit.voice.scheduling import Stop

_BEAM: Final = 5
"""Whisper's own width. Integer arithmetic differs from one processor to the next, and a greedy
search follows each difference: of 312 words it misheard 31 on one and 43 on another, where the
beam misheard 30 and 25, for half a millisecond."""
_FRAMES_PER_S: Final = 100
_WHOLE_S: Final = 30.0
"""Whisper's whole window, which faster-whisper always fills."""
_LANGUAGE: Final = "en"

_DOUBTFUL: Final = -0.7
"""Mean log-probability of a token. Of 163 recordings, one in eight is doubtful at 15 s, and nearly
all that a window of 15 s gets wrong where the whole one does not."""
_HOPELESS: Final = -1.0
"""Whisper's own bound on that. Of 59 digits that people said alone, tiny.en heard 36 rightly
through its whole window, the least sure of them at -0.83; 6 of the others were below -1, and so was
what it wrote for 13 of 24 scraps of words, of less than 0.3 s, such as a microphone cuts off."""
_NO_SPEECH: Final = 0.6
"""Whisper's own bound on the probability of its no-speech token. Speech through the whole window
stays below 0.55, what sounds without words make it write lies above 0.7."""
_LOOP: Final = 2.4
"""Whisper's own bound on the compression ratio of a text that goes round in circles."""
_REPEATS: Final = re.compile(r"\b(\w+(?: \w+)+) \1\b|\b(\w+)(?: \2){3,}\b")
"""Two words or more that are said twice in a row, or one that is said four times."""
_LETTERS_PER_S: Final = 25
"""More than anybody says: fast speakers come to 20."""
_TOLD_WORDS: Final = 40
"""So many of the last words are told with the next ones; a longer prompt takes time to read."""
_TOKENS_PER_S: Final = 15
_TOKENS_MORE: Final = 20
"""The decoder stops at so many tokens; speech takes 3 or 4 a second. A loop would go on to 224,
which costs seconds."""


@dataclass(frozen=True, slots=True)
class Window:
    """How much audio a Whisper model is to be given at once."""

    trained: bool = False
    """Whether it was trained for windows cut to the utterance."""
    floor_s: float = 12.0
    """Shortest window that it hears well through, in seconds.

    Of 582 words in 96 recordings tiny.en misheard 87 through 15 s, 90 through 12 and 88 through 10,
    for 643, 584 and 609 ms of a core each: what is doubtful through 10 s is often heard again.
    """
    margin_s: float = 3.0
    """Least silence behind the utterance inside the window, in seconds."""
    longest_s: float = _WHOLE_S
    """Longest stretch of speech that it was trained on, in seconds."""

    @classmethod
    def of(cls, model: Path) -> "Window":
        """What a model says of itself in `preprocessor_config.json`.

        `"fit_window": true` says that it was trained for cut windows, and `"longest_s"` how long
        its longest sentence was; faster-whisper ignores both. Models without them, such as the
        public ones, learned from windows full of speech, `"chunk_length"` long.
        """
        longest_s, trained = _WHOLE_S, False
        with suppress(OSError, ValueError, TypeError):
            text = (model / "preprocessor_config.json").read_text(encoding="utf-8")
            config: dict[str, Any] = dict(json.loads(text))
            longest_s = float(config.get("longest_s", config.get("chunk_length", _WHOLE_S)))
            trained = bool(config.get("fit_window", False))
        if trained:
            return cls(trained=True, floor_s=0.0, margin_s=0.5, longest_s=longest_s)
        return cls(longest_s=longest_s)

    def frames(self, seconds: float) -> int:
        """Frames of 10 ms for `seconds` of speech, in whole seconds, so that few shapes occur."""
        wanted_s = max(self.floor_s, seconds + self.margin_s)
        return min(round(_WHOLE_S), int(np.ceil(wanted_s))) * _FRAMES_PER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What the decoder made of one window, and how sure it was."""

    text: str
    """The words."""
    seconds: float
    """Length of the audio that they were heard in."""
    log_probability: float
    """Mean over the tokens."""
    no_speech: float
    """Probability that nobody speaks, 0 to 1."""
    cut_off: bool = False
    """Whether the decoder was still writing when it was stopped."""

    @property
    def doubtful(self) -> bool:
        """Whether it is worth hearing once more through the whole window.

        Through a cut one, what it writes for a hummed note may look likely; through the whole one
        nothing did that nobody said, at less than -0.95 each time.
        """
        return (
            self.log_probability < _DOUBTFUL
            or self.no_speech > _NO_SPEECH
            or self._impossible
            or _REPEATS.search(" ".join(_words(self.text))) is not None
        )

    @property
    def invented(self) -> bool:
        """Whether nobody said it, although the decoder wrote it.

        Not even its usual words for silence are looked up in a list: they may be said, too.
        """
        unsure = self.log_probability < _DOUBTFUL and self.no_speech > _NO_SPEECH
        return not _words(self.text) or unsure or self._impossible

    def repeats(self, before: str) -> bool:
        """Whether it is nothing but a part of what was said before.

        Somebody may say it again; but told of it, the decoder writes it for noise, too.
        """
        words, earlier = (f" {' '.join(_words(text))} " for text in (self.text, before))
        return bool(words.strip()) and words in earlier

    @property
    def _impossible(self) -> bool:
        """Whether nobody could say this in the time, or it goes round in circles."""
        most, text = _LETTERS_PER_S * max(self.seconds, 1.0), self.text.encode()
        loops = len(text) / len(zlib.compress(text)) > _LOOP
        return self.cut_off or loops or sum(map(len, _words(self.text))) > most


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


class FasterWhisperAsr:
    """A Whisper model on faster-whisper.

    `WhisperModel.transcribe` pads every utterance to 30 s. Here the features are cut to what the
    utterance needs, and go through the same model's `encode` and `generate`.
    """

    def __init__(self, model: Path, *, threads: int, fit_window: bool = True) -> None:
        """Load the model, with integers of 8 bits: the fastest arithmetic on a CPU.

        Args:
            model: Folder with `model.bin`, `tokenizer.json` and the rest.
            threads: CPU threads of one call.
            fit_window: Cut the window to the utterance, as far as the model bears it.

        Raises:
            ModelBrokenError: The model does not load.
        """
        from faster_whisper import WhisperModel
        from faster_whisper.tokenizer import Tokenizer

        try:
            self._model = WhisperModel(
                str(model), device="cpu", cpu_threads=threads, compute_type="int8"
            )
        except Exception as error:  # CTranslate2 and tokenizers raise bare RuntimeError and more
            raise ModelBrokenError(model, str(error)) from error
        window = Window.of(model)
        self.window = window if fit_window else replace(window, floor_s=_WHOLE_S)
        self._tokenizer = Tokenizer(
            self._model.hf_tokenizer,
            self._model.model.is_multilingual,
            task="transcribe",
            language=_LANGUAGE,
        )
        self._longest = int(self._model.feature_extractor.n_samples)

    def warm_up(self) -> None:
        """Hear a second of silence: the first call sets up buffers."""
        self.transcribe(np.zeros(SAMPLE_RATE, np.float32), Stop())

    def transcribe(self, audio: Float32, stop: Stop, before: str = "") -> str:
        """The words in `audio`; audio longer than the model's window is heard piece by piece.

        What was said `before` is told to public models, which learned from subtitles in a row.
        """
        if len(audio) > self._longest:
            return self._transcribe_windows(audio, stop)
        for frames, told in self._attempts(len(audio) / SAMPLE_RATE, before):
            if stop.is_set():
                return ""
            heard = self._hear(audio, frames, told)
            if self.window.trained or not (heard.doubtful or heard.repeats(told)):
                break
        hopeless = not self.window.trained and heard.log_probability < _HOPELESS
        return "" if heard.invented or hopeless else heard.text

    def _attempts(self, seconds: float, before: str) -> Iterator[tuple[int, str]]:
        """Frames of the window and what is told with it; the next where one was in vain."""
        whole, fitted = round(_WHOLE_S) * _FRAMES_PER_S, self.window.frames(seconds)
        before = "" if self.window.trained else " ".join(before.split()[-_TOLD_WORDS:])
        if before or fitted < whole:
            yield fitted, before
        yield whole, ""

    def _hear(self, audio: Float32, frames: int, before: str) -> Heard:
        tokenizer = self._tokenizer
        told = tokenizer.encode(f" {before}") if before else []
        prompt = self._model.get_prompt(tokenizer, told, without_timestamps=True)
        seconds = len(audio) / SAMPLE_RATE
        most = _TOKENS_MORE + round(_TOKENS_PER_S * seconds)
        result = self._model.model.generate(
            self._model.encode(self._features(audio, frames)),
            [prompt],
            beam_size=_BEAM,
            max_length=min(self._model.max_length, len(prompt) + most),
            suppress_blank=True,
            suppress_tokens=[-1],
            return_scores=True,
            return_no_speech_prob=True,
        )[0]
        tokens = result.sequences_ids[0]
        return Heard(
            text=str(tokenizer.decode(tokens)).strip(),
            seconds=seconds,
            # The score is a mean that leaves out the token at the end.
            log_probability=result.scores[0] * len(tokens) / (len(tokens) + 1),
            no_speech=result.no_speech_prob,
            cut_off=len(tokens) >= most,
        )

    def _features(self, audio: Float32, frames: int) -> Float32:
        features: Float32 = self._model.feature_extractor(audio)[:, :frames]
        return np.pad(features, ((0, 0), (0, frames - features.shape[1])))

    def _transcribe_windows(self, audio: Float32, stop: Stop) -> str:
        """The library's own way: whole windows, segment by segment."""
        segments, _ = self._model.transcribe(
            audio,
            language=_LANGUAGE,
            beam_size=_BEAM,
            temperature=0.0,
            without_timestamps=False,
            condition_on_previous_text=False,
        )
        words = []
        for segment in segments:
            heard = Heard(
                text=segment.text.strip(),
                seconds=segment.end - segment.start,
                log_probability=segment.avg_logprob,
                no_speech=segment.no_speech_prob,
            )
            if not heard.invented:
                words.append(heard.text)
            if stop.is_set():
                break
        return " ".join(words)
