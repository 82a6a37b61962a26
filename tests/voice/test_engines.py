"""The detector and the recogniser themselves, on the embedded models."""

from pathlib import Path

import numpy as np
import pytest

from labkit.audio.pcm import SAMPLE_RATE, Float32, read_audio, to_int16
from labkit.errors import ModelBrokenError
from labkit.measure.recordings import load_manifest
from labkit.measure.wer import word_errors
from labkit.voice.engines import SileroVad, Vad
from labkit.voice.hearing import Endpointing, Utterance, speech_stretches
from labkit.voice.history import History
from labkit.voice.pipeline import Turn, VoicePipeline
from labkit.voice.scheduling import Stop
from labkit.voice.scripted import CollectingSink
from labkit.voice.whisper import FasterWhisperAsr
from tests.engines import embedded_engines, embedded_paths
from tests.paths import SPEECH


def recording(name: str) -> Float32:
    return read_audio(SPEECH / f"{name}.flac")


def said_in(name: str) -> str:
    return next(r.text for r in load_manifest(SPEECH) if r.name == name)


def whole_frames(vad: Vad, audio: Float32) -> Float32:
    return audio[: len(audio) // vad.frame_samples * vad.frame_samples]


@pytest.mark.engines
class TestVad:
    def test_speech_is_found_where_it_is(self) -> None:
        vad = embedded_engines().vad
        audio = whole_frames(vad, recording("slt-01"))
        rules = Endpointing(pad_s=0.2)
        probabilities, _ = vad.probabilities(vad.start(), audio)
        (span,) = speech_stretches(probabilities, vad.frame_samples, rules)
        end = next(r.end_of_speech_sample for r in load_manifest(SPEECH) if r.name == "slt-01")
        assert end is not None
        assert abs(span.end - end) < 0.4 * SAMPLE_RATE

    @pytest.mark.parametrize("name", ["silence", "noise"])
    def test_silence_and_noise_are_no_speech(self, name: str) -> None:
        vad = embedded_engines().vad
        probabilities, _ = vad.probabilities(vad.start(), whole_frames(vad, recording(name)))
        assert speech_stretches(probabilities, vad.frame_samples) == []

    def test_frame_by_frame_is_the_same_as_all_at_once(self) -> None:
        vad = SileroVad()
        audio = whole_frames(vad, recording("kal-02"))
        state = vad.start()
        one_by_one: list[float] = []
        for start in range(0, len(audio), vad.frame_samples):
            frame = audio[start : start + vad.frame_samples]
            found, state = vad.probabilities(state, frame)
            one_by_one += found
        at_once, _ = vad.probabilities(vad.start(), audio)
        np.testing.assert_allclose(one_by_one, at_once, atol=1e-4)

    def test_nothing_gives_nothing(self) -> None:
        vad = embedded_engines().vad
        assert vad.probabilities(vad.start(), np.zeros(0, np.float32))[0] == []


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
