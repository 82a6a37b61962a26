"""What a Whisper model is given, and what of its words is believed."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.audio.pcm import SAMPLE_RATE, Float32, read_audio, to_int16
from labkit.errors import ModelBrokenError
from labkit.measure.recordings import load_manifest
from labkit.measure.wer import word_errors
from labkit.voice.hearing import Utterance
from labkit.voice.history import History
from labkit.voice.models import resolve
from labkit.voice.pipeline import VoicePipeline
from labkit.voice.scheduling import Stop
from labkit.voice.scripted import CollectingSink
from labkit.voice.turn import Turn
from labkit.voice.whisper import FasterWhisperAsr, Heard, Window
from tests.engines import embedded_engines, embedded_paths
from tests.paths import SPEECH

SECOND = np.zeros(SAMPLE_RATE, np.float32)


def heard(
    text: str,
    seconds: float = 3.0,
    log_probability: float = -0.3,
    no_speech: float = 0.1,
    *,
    cut_off: bool = False,
) -> Heard:
    return Heard(
        text=text,
        seconds=seconds,
        log_probability=log_probability,
        no_speech=no_speech,
        cut_off=cut_off,
    )


class TestWindow:
    @pytest.mark.parametrize(
        ("config", "window"),
        [
            (None, Window()),
            ("[]", Window()),
            ('{"chunk_length": "long"}', Window()),
            ('{"longest_s": null}', Window()),
            ('{"chunk_length": 20}', Window(longest_s=20)),
            (
                '{"chunk_length": 12, "longest_s": 5, "fit_window": true}',
                Window(trained=True, floor_s=0, margin_s=0.5, longest_s=5),
            ),
        ],
    )
    def test_a_model_says_itself_what_it_bears(
        self, tmp_path: Path, config: str | None, window: Window
    ) -> None:
        if config is not None:
            (tmp_path / "preprocessor_config.json").write_text(config)
        assert Window.of(tmp_path) == window

    @given(seconds=st.floats(0, 30))
    def test_a_public_model_has_its_floor_and_its_margin(self, seconds: float) -> None:
        frames = Window().frames(seconds)
        assert frames % 100 == 0
        assert 1200 <= frames <= 3000
        assert frames >= min(3000, 100 * (seconds + 3))

    @pytest.mark.parametrize(("seconds", "frames"), [(0, 100), (2.4, 300), (2.6, 400)])
    def test_a_trained_one_takes_what_it_needs(self, seconds: float, frames: int) -> None:
        window = Window(trained=True, floor_s=0, margin_s=0.5)
        assert window.frames(seconds) == frames


class TestHeard:
    @pytest.mark.parametrize(
        "text",
        [
            "Set a timer for ten minutes.",
            "Nine, nine, nine, five, two.",
            "No, no, no.",
            "Thank you.",
            "Thanks for watching!",
            "Side, right.",
            "That that is, is.",
        ],
    )
    def test_what_the_decoder_is_sure_of_is_believed(self, text: str) -> None:
        assert not heard(text).doubtful
        assert not heard(text).invented

    @pytest.mark.parametrize(
        "one",
        [
            heard("What is the time? What is the time?"),
            heard("9, 8, 8, 4, 8, 8, 4"),
            heard("you you you you"),
            heard("Turn it on.", log_probability=-0.9),
            heard("Thank you.", no_speech=0.9),
            heard("8, 8, 8, 8", cut_off=True),
            heard("Please subscribe to this channel if you like it", seconds=0.4),
        ],
    )
    def test_what_is_doubtful(self, one: Heard) -> None:
        assert one.doubtful

    @pytest.mark.parametrize(
        "one",
        [
            heard(""),
            heard(". . ."),
            heard("Thank you.", 0.5, log_probability=-1.0, no_speech=0.8),
            heard("8, " * 40, 20.0),
            heard("and so on", cut_off=True),
            heard("Please subscribe to this channel if you like it", seconds=0.4),
        ],
    )
    def test_what_is_invented(self, one: Heard) -> None:
        assert one.invented

    @pytest.mark.parametrize(
        "one",
        [
            heard("Turn it on.", log_probability=-0.9),
            heard("Thank you.", no_speech=0.9),
            heard("Good morning. Good morning."),
        ],
    )
    def test_one_sign_alone_proves_nothing(self, one: Heard) -> None:
        assert not one.invented

    @pytest.mark.parametrize(
        ("text", "before", "repeats"),
        [
            ("Thank you.", "Turn it on, thank you. Goodbye.", True),
            ("Turn it on", "turn it on", True),
            ("Turn it", "Overturn it.", False),
            ("Turn it off", "turn it on", False),
            ("", "turn it on", False),
            ("...", "turn it on", False),
            ("Turn it on", "", False),
            ("", "", False),
        ],
    )
    def test_what_repeats_the_words_before_it(self, text: str, before: str, repeats: bool) -> None:
        assert heard(text).repeats(before) is repeats

    @given(st.text(), st.floats(0, 30), st.floats(-9, 0), st.floats(0, 1))
    def test_any_text_can_be_judged(
        self, text: str, seconds: float, log_probability: float, no_speech: float
    ) -> None:
        one = heard(text, seconds, log_probability, no_speech)
        assert isinstance(one.doubtful, bool)
        assert isinstance(one.invented, bool)


class Scripted(FasterWhisperAsr):
    """Hears what it is told to, window by window, and notes the windows."""

    def __init__(self, *windows: Heard, fit_window: bool = True, trained: bool = False) -> None:
        super().__init__(embedded_paths().asr, threads=1)
        self.window = Window(trained=trained, floor_s=12.0 if fit_window else 30.0)
        self.tried: list[int] = []
        self.told: list[str] = []
        self._script: Iterator[Heard] = iter(windows)
        self.stop = Stop()

    def _hear(self, audio: Float32, frames: int, before: str) -> Heard:
        self.tried.append(frames)
        self.told.append(before)
        return next(self._script)


@pytest.mark.engines
class TestGuard:
    SURE, DOUBTFUL = heard("turn it on"), heard("turn it on turn it on")
    INVENTED = heard("Thank you.", log_probability=-1.1, no_speech=0.9)

    def test_what_is_sure_is_heard_once(self) -> None:
        asr = Scripted(self.SURE)
        assert (asr.transcribe(SECOND, Stop()), asr.tried) == ("turn it on", [1200])

    def test_what_is_doubtful_is_heard_again_through_the_whole_window(self) -> None:
        asr = Scripted(self.DOUBTFUL, self.SURE)
        assert (asr.transcribe(SECOND, Stop()), asr.tried) == ("turn it on", [1200, 3000])

    def test_what_stays_doubtful_may_have_been_said(self) -> None:
        asr = Scripted(self.DOUBTFUL, self.DOUBTFUL)
        assert asr.transcribe(SECOND, Stop()) == "turn it on turn it on"

    def test_what_is_invented_is_nothing(self) -> None:
        assert Scripted(self.INVENTED, self.INVENTED).transcribe(SECOND, Stop()) == ""
        assert Scripted(self.INVENTED, trained=True).transcribe(SECOND, Stop()) == ""
        dot = heard(".", no_speech=0.98)
        assert Scripted(dot, dot).transcribe(SECOND, Stop()) == ""
        asr = Scripted(self.INVENTED, fit_window=False)
        assert (asr.transcribe(SECOND, Stop()), asr.tried) == ("", [3000])

    def test_what_a_public_model_hardly_believes_is_nothing(self) -> None:
        scrap = heard("Excuse me.", 0.3, log_probability=-1.05, no_speech=0.5)
        assert Scripted(scrap, scrap).transcribe(SECOND, Stop()) == ""
        assert Scripted(scrap, self.SURE).transcribe(SECOND, Stop()) == "turn it on"
        assert Scripted(scrap, trained=True).transcribe(SECOND, Stop()) == "Excuse me."

    def test_a_model_that_was_trained_for_cut_windows_is_heard_once(self) -> None:
        asr = Scripted(self.DOUBTFUL, trained=True)
        assert (asr.transcribe(SECOND, Stop()), len(asr.tried)) == ("turn it on turn it on", 1)

    def test_a_public_model_is_told_what_was_said_before(self) -> None:
        asr = Scripted(self.SURE)
        assert asr.transcribe(SECOND, Stop(), "good morning") == "turn it on"
        assert asr.told == ["good morning"]
        asr = Scripted(self.SURE)
        asr.transcribe(SECOND, Stop(), " ".join(map(str, range(99))))
        assert asr.told == [" ".join(map(str, range(59, 99)))]
        asr = Scripted(self.SURE, trained=True)
        asr.transcribe(SECOND, Stop(), "good morning")
        assert asr.told == [""]

    @pytest.mark.parametrize("fit_window", [True, False])
    @pytest.mark.parametrize("first", [DOUBTFUL, heard("on", log_probability=-0.1)])
    def test_what_may_come_from_there_is_heard_again_without_it(
        self, first: Heard, fit_window: bool
    ) -> None:
        asr = Scripted(first, self.INVENTED, fit_window=fit_window)
        assert asr.transcribe(SECOND, Stop(), "turn it on") == ""
        assert asr.told == ["turn it on", ""]
        assert asr.tried == [1200 if fit_window else 3000, 3000]

    def test_what_is_invented_in_long_audio_is_nothing(self) -> None:
        def segment(text: str, no_speech: float, log_probability: float) -> SimpleNamespace:
            return SimpleNamespace(
                text=text, start=0.0, end=3.0, no_speech_prob=no_speech, avg_logprob=log_probability
            )

        class Library:
            def transcribe(self, *_: object, **__: object) -> tuple[object, None]:
                found = (
                    segment(" Turn it on.", 0.1, -0.2),
                    segment(" Thank you.", 0.9, -1.1),
                    segment(" 8," * 60, 0.1, -0.2),
                    segment(" Good night.", 0.1, -0.2),
                )
                return found, None

        asr = Scripted()
        asr._longest, asr._model = len(SECOND) - 1, Library()
        assert asr.transcribe(SECOND, Stop()) == "Turn it on. Good night."

    def test_nobody_who_left_is_heard_again(self) -> None:
        stop = Stop()

        class Leaving(Scripted):
            def _hear(self, audio: Float32, frames: int, before: str) -> Heard:
                stop.set()
                return super()._hear(audio, frames, before)

        asr = Leaving(self.DOUBTFUL, self.SURE)
        assert (asr.transcribe(SECOND, stop), asr.tried) == ("", [1200])
        assert asr.transcribe(SECOND, stop) == ""
        assert asr.tried == [1200]


def recording(name: str) -> Float32:
    return read_audio(SPEECH / f"{name}.flac")


def said_in(name: str) -> str:
    return next(r.text for r in load_manifest(SPEECH) if r.name == name)


@pytest.mark.engines
class TestAsr:
    # Over several recordings: integer arithmetic differs from one processor to the next, and
    # with it the odd word.
    NAMES = ("kal-01", "kal-03", "kal-05", "kal-08", "slt-01", "slt-03", "slt-05", "slt-07")

    def test_it_hears_what_was_said(self) -> None:
        asr = embedded_engines().asr
        counts = [
            word_errors(said_in(name), asr.transcribe(recording(name), Stop()))
            for name in self.NAMES
        ]
        assert sum(e for e, _ in counts) <= sum(w for _, w in counts) // 5

    def test_the_fitted_window_hears_what_the_whole_one_hears(self) -> None:
        whole = FasterWhisperAsr(embedded_paths().asr, threads=1, fit_window=False)
        fitted = embedded_engines().asr
        counts = [
            word_errors(*(asr.transcribe(recording(name), Stop()) for asr in (whole, fitted)))
            for name in self.NAMES
        ]
        assert sum(e for e, _ in counts) <= sum(w for _, w in counts) // 5

    def test_audio_longer_than_the_window_is_heard_window_by_window(self) -> None:
        pause = np.zeros(SAMPLE_RATE, np.float32)
        audio = np.concatenate([recording("kal-03"), pause] * 5)
        assert len(audio) > 24 * SAMPLE_RATE
        heard = embedded_engines().asr.transcribe(audio, Stop())
        assert len(heard.split()) >= 3 * len(said_in("kal-03").split())

    def test_no_audio_is_no_words(self) -> None:
        assert embedded_engines().asr.transcribe(np.zeros(0, np.float32), Stop()) == ""

    def test_a_broken_model_names_its_folder(self, tmp_path: Path) -> None:
        (tmp_path / "model.bin").write_bytes(b"not a model")
        with pytest.raises(ModelBrokenError, match=tmp_path.name):
            FasterWhisperAsr(tmp_path, threads=1)


@pytest.mark.engines
class TestLongUtterances:
    """Several sentences in one utterance, with the embedded models and no server."""

    PAUSE = 0.7
    NAMES = ("kal-01", "kal-03", "kal-05", "kal-08", "slt-01", "slt-03", "slt-05", "slt-07")

    @staticmethod
    async def heard(audio: Float32) -> tuple[str, Turn]:
        pipeline = VoicePipeline(embedded_engines())
        utterance = Utterance(60 * SAMPLE_RATE, pipeline.frame_samples)
        utterance.append(to_int16(audio))
        turn, sink = Turn("session", utterance, History(8)), CollectingSink()
        await pipeline.answer(turn, sink)
        pipeline.close()
        return sink.transcripts[0], turn

    async def test_no_sentence_of_several_vanishes(self) -> None:
        pause = np.zeros(round(self.PAUSE * SAMPLE_RATE), np.float32)
        parts = [part for name in self.NAMES for part in (recording(name), pause)]
        heard, turn = await self.heard(np.concatenate(parts))
        errors, words = word_errors(" ".join(map(said_in, self.NAMES)), heard)
        assert errors <= words // 5
        assert turn.missed == []

    async def test_two_utterances_in_one_recording_are_both_heard(self) -> None:
        heard, _ = await self.heard(recording("two-utterances"))
        errors, words = word_errors(said_in("two-utterances"), heard)
        assert errors <= words // 5


@pytest.mark.public
def test_a_public_model_hears_through_a_cut_window_what_it_hears_through_the_whole() -> None:
    asr = resolve("tiny").asr
    cut, whole = (FasterWhisperAsr(asr, threads=1, fit_window=fit) for fit in (True, False))
    recordings = [r for r in load_manifest(SPEECH) if r.name.startswith("slt-0")][:6]
    counts = [
        [word_errors(r.text, engine.transcribe(read_audio(r.path), Stop())) for r in recordings]
        for engine in (cut, whole)
    ]
    cut_errors, whole_errors = (sum(errors for errors, _ in one) for one in counts)
    assert cut_errors <= whole_errors + 2
    assert whole_errors <= sum(words for _, words in counts[1]) // 5
