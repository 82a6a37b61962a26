"""The recipe of the test recordings, and the recordings that it made."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from data.recipes.domain import is_held_out
from data.recipes.speech import make, shaping
from data.recipes.speech.festival import Spoken, Voice, script
from labkit.audio.pcm import SAMPLE_RATE, Float32, read_audio
from labkit.measure.recordings import MANIFEST, Kind, Recording, load_manifest

SPEECH = Path(__file__).parents[2] / "data" / "speech"
RECORDINGS = load_manifest(SPEECH)
SPOKEN = [recording for recording in RECORDINGS if recording.kind.is_speech]
UTTERANCES = [recording for recording in RECORDINGS if recording.kind is Kind.UTTERANCE]

spoken = pytest.mark.parametrize("recording", SPOKEN, ids=lambda recording: recording.name)


def level_db(samples: Float32) -> float:
    """RMS in dBFS."""
    return float(20 * np.log10(np.sqrt(np.mean(samples.astype(np.float64) ** 2)) + 1e-9))


def burst(start: int, end: int, length: int) -> Float32:
    """Silence with a loud tone from `start` to `end`."""
    samples = np.zeros(length, np.float32)
    samples[start:end] = 0.3 * np.sin(np.arange(end - start))
    return samples


def end_s(recording: Recording) -> float:
    """The annotated end of speech in seconds."""
    assert recording.end_of_speech_sample is not None
    return recording.end_of_speech_sample / SAMPLE_RATE


def test_there_is_enough_of_everything() -> None:
    assert len(UTTERANCES) >= 36
    assert len({recording.text for recording in UTTERANCES}) == len(UTTERANCES)
    assert len({recording.synthesiser for recording in UTTERANCES}) >= 3
    assert {recording.kind for recording in RECORDINGS} == set(Kind)


def test_every_file_is_listed_and_all_are_small() -> None:
    files = {path.name: path.stat().st_size for path in SPEECH.iterdir()}
    listed = {recording.path.name for recording in RECORDINGS}
    assert set(files) == listed | {MANIFEST, "README.md"}
    assert sum(files.values()) <= 4 * 2**20


def test_the_recordings_say_the_sentences_of_the_recipe() -> None:
    assert sorted(recording.text for recording in UTTERANCES) == sorted(make.read_sentences())


@pytest.mark.parametrize("text", [recording.text for recording in UTTERANCES])
def test_no_sentence_was_trained_on(text: str) -> None:
    assert is_held_out(text)


def test_two_utterances_are_two_of_the_sentences() -> None:
    (both,) = (recording for recording in RECORDINGS if recording.kind is Kind.TWO_UTTERANCES)
    said = [recording.text for recording in UTTERANCES if recording.voice == both.voice]
    assert both.text in {f"{one} {two}" for one in said for two in said if one != two}


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.name)
def test_the_format_is_that_of_the_wire(recording: Recording) -> None:
    info = soundfile.info(recording.path)
    assert (info.format, info.subtype) == ("FLAC", "PCM_16")
    assert (info.samplerate, info.channels) == (SAMPLE_RATE, 1)


@spoken
def test_speech_ends_where_the_annotation_says(recording: Recording) -> None:
    samples = read_audio(recording.path)
    end = recording.end_of_speech_sample
    assert end is not None
    before, after = samples[end - 320 : end], samples[end + 320 :]
    assert level_db(before) > level_db(after) + 6
    assert level_db(after) < -55
    assert 0.51 <= (len(samples) - 1 - end) / SAMPLE_RATE <= 0.61


@spoken
def test_speech_is_loud_and_does_not_clip(recording: Recording) -> None:
    samples = read_audio(recording.path)
    assert -30 < level_db(samples[: recording.end_of_speech_sample]) < -16
    assert np.abs(samples).max() < 0.99


@pytest.mark.parametrize("recording", UTTERANCES, ids=lambda recording: recording.name)
def test_an_utterance_lasts_as_long_as_its_words_need(recording: Recording) -> None:
    letters = len(recording.text.replace(" ", ""))
    assert 5 < letters / end_s(recording) < 22
    assert end_s(recording) < 4.5


def test_where_nothing_is_said_the_level_is_that_of_the_kind() -> None:
    levels = {r.kind: level_db(read_audio(r.path)) for r in RECORDINGS if not r.kind.is_speech}
    assert levels[Kind.SILENCE] < -60
    assert levels[Kind.NOISE] > -30


@given(st.integers(20, 200), st.integers(80, 200))
def test_the_end_of_speech_is_found_within_a_frame(start: int, length: int) -> None:
    start, end = start * 80, (start + length) * 80
    samples = burst(start, end - 30, end + 8_000)
    found = shaping.end_of_speech(samples, end / SAMPLE_RATE)
    assert end - 80 <= found <= end


@pytest.mark.parametrize("phones_end_s", [0.5, 1.3])
def test_timing_that_the_energy_contradicts_is_refused(phones_end_s: float) -> None:
    with pytest.raises(ValueError, match=r"the sound ends at 1\.000 s, the last phone at"):
        shaping.end_of_speech(burst(1_600, 16_000, 32_000), phones_end_s)


@given(st.floats(-40, -20))
def test_levels_are_met(dbfs: float) -> None:
    assert level_db(shaping.at_level(burst(100, 900, 1_000), dbfs)) == pytest.approx(dbfs, abs=0.01)


def test_no_level_makes_it_clip() -> None:
    assert np.abs(shaping.at_level(burst(0, 100, 10_000), 0.0)).max() == pytest.approx(0.95)


def test_faded_edges_start_and_end_at_zero() -> None:
    faded = shaping.fade_edges(np.ones(1_000, np.float32))
    assert (faded[0], faded[-1], faded[500]) == (0.0, 0.0, 1.0)
    assert np.all(np.diff(faded[:160]) > 0)


def test_the_noise_floor_is_the_same_each_time() -> None:
    floors = [shaping.with_floor(shaping.silence(0.5), np.random.default_rng(7)) for _ in range(2)]
    assert np.array_equal(*floors)
    assert level_db(floors[0]) == pytest.approx(shaping.FLOOR_DBFS, abs=0.5)


def test_a_pause_at_the_end_is_no_speech() -> None:
    phones = [("pau", 0.2), ("h", 0.3), ("ay", 0.5), ("pau", 0.9)]
    assert Spoken(np.zeros(1, np.float32), SAMPLE_RATE, phones).speech_end_s == 0.5


def test_a_larger_speaker_keeps_pitch_and_speed_of_a_diphone_voice() -> None:
    voice = Voice("v", "ked_diphone", "package", "licence", stretch=1.1, pitch_hz=100, size=1.1)
    program = script(voice, ["hi"], Path("out"))
    assert "(voice_ked_diphone)" in program
    assert "'Duration_Stretch 1.0000" in program
    assert "(target_f0_mean 110.0)" in program


def test_the_speed_of_a_statistical_voice_is_a_setting_of_its_engine() -> None:
    voice = Voice("v", "slt_hts", "package", "licence", stretch=1.25)
    assert '("-r" 0.8000)' in script(voice, ["hi"], Path("out"))


def test_a_quote_does_not_end_a_sentence() -> None:
    voice = Voice("v", "ked_diphone", "package", "licence")
    assert r'(say "a \"b\" \\c" "out/0")' in script(voice, ['a "b" \\c'], Path("out"))


def test_a_sentence_of_the_training_texts_stops_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make, "is_held_out", lambda text: text != "trained on")
    path = tmp_path / "sentences.txt"
    path.write_text("# topic\nheld out\ntrained on\n")
    with pytest.raises(SystemExit, match=r"not held out.*\['trained on'\]"):
        make.read_sentences(path)
    path.write_text("# topic\nheld out\n\nheld out\n")
    with pytest.raises(SystemExit, match="stands there twice"):
        make.read_sentences(path)
