"""The detector itself."""

import numpy as np
import pytest

from labkit.audio.pcm import SAMPLE_RATE, Float32, read_audio
from labkit.measure.recordings import load_manifest
from labkit.voice.engines import Vad
from labkit.voice.hearing import Endpointing, speech_stretches
from labkit.voice.silero import SileroVad
from tests.engines import embedded_engines
from tests.paths import SPEECH

pytestmark = pytest.mark.engines


def recording(name: str) -> Float32:
    return read_audio(SPEECH / f"{name}.flac")


def whole_frames(vad: Vad, audio: Float32) -> Float32:
    return audio[: len(audio) // vad.frame_samples * vad.frame_samples]


def test_speech_is_found_where_it_is() -> None:
    vad = embedded_engines().vad
    audio = whole_frames(vad, recording("slt-01"))
    rules = Endpointing(pad_s=0.2)
    probabilities, _ = vad.probabilities(None, audio)
    (span,) = speech_stretches(probabilities, vad.frame_samples, rules)
    end = next(r.end_of_speech_sample for r in load_manifest(SPEECH) if r.name == "slt-01")
    assert end is not None
    assert abs(span.end - end) < 0.4 * SAMPLE_RATE


@pytest.mark.parametrize("name", ["silence", "noise"])
def test_silence_and_noise_are_no_speech(name: str) -> None:
    vad = embedded_engines().vad
    probabilities, _ = vad.probabilities(None, whole_frames(vad, recording(name)))
    assert speech_stretches(probabilities, vad.frame_samples) == []


def test_frame_by_frame_is_the_same_as_all_at_once() -> None:
    vad = SileroVad()
    audio = whole_frames(vad, recording("kal-02"))
    state = None
    one_by_one: list[float] = []
    for start in range(0, len(audio), vad.frame_samples):
        frame = audio[start : start + vad.frame_samples]
        found, state = vad.probabilities(state, frame)
        one_by_one += found
    at_once, _ = vad.probabilities(None, audio)
    np.testing.assert_allclose(one_by_one, at_once, atol=1e-4)


def test_nothing_gives_nothing() -> None:
    vad = embedded_engines().vad
    assert vad.probabilities(None, np.zeros(0, np.float32))[0] == []
