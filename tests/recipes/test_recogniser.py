"""The pure parts of the recogniser's recipe; those that need PyTorch run where it is installed."""

import importlib.util
import random
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.paths import DATA

needs_scipy = pytest.mark.skipif(
    importlib.util.find_spec("scipy") is None, reason="the extra 'train' is not installed"
)
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="the extra 'train' is not installed"
)


def test_held_out_voices_do_not_train():
    from data.recipes.recogniser import voices

    assert not set(voices.VARIANTS) & set(voices.HELD_OUT_VARIANTS)
    assert not set(voices.FLITE_VOICES) & {"kal", "kal16", "slt"}
    assert voices.HELD_OUT_SPEAKER in voices.HUMAN_SPEAKERS


def test_the_evaluation_holds_out_the_same_speaker():
    from data.recipes.evaluation.recogniser import HELD_OUT_SPEAKER
    from data.recipes.recogniser import voices

    assert voices.HELD_OUT_SPEAKER == HELD_OUT_SPEAKER


def test_a_voice_is_drawn_from_the_seed_alone():
    from data.recipes.recogniser.voices import espeak_voice

    assert espeak_voice(random.Random(3)) == espeak_voice(random.Random(3))


@needs_scipy
def test_word_starts_need_an_event_for_each_word():
    from data.recipes.recogniser.synthesis import word_starts

    assert word_starts("what's my name", [(0, 10), (7, 240), (10, 400)]) == [10, 240, 400]
    assert word_starts("lights in the hall", [(0, 0), (7, 300), (14, 500)]) == []


@needs_scipy
def test_trim_moves_word_boundaries_with_the_audio():
    from data.recipes.recogniser.synthesis import trim

    audio = np.zeros(16000, np.float32)
    audio[4000:12000] = 0.5
    spoken = trim(audio, [4000, 8000])
    assert len(spoken.audio) == 8000 - 1 + 2 * 320
    assert spoken.word_ends == (8000 - 4000 + 320, len(spoken.audio))


@needs_scipy
def test_plain_phones_leave_out_stress_and_length():
    from data.recipes.recogniser.synthesis import plain_phones

    assert plain_phones("t'aIm3") == "taIm3"
    assert plain_phones(" f'o@: ") == "fo@"


@needs_scipy
def test_digits_are_strung_together_in_order():
    from data.recipes.recogniser.digits import WORDS, digit_string

    takes = [[np.full(800, (digit + 1) / 20, np.float32)] for digit in range(10)]
    text, spoken = digit_string(random.Random(1), takes, 5)
    heard = [WORDS[round(float(spoken.audio[end - 400]) * 20) - 1] for end in spoken.word_ends]
    assert heard == text.split()
    assert spoken.word_ends[-1] == len(spoken.audio)


@needs_scipy
def test_digits_are_read_from_a_folder(tmp_path: Path):
    from scipy.io import wavfile

    from data.recipes.recogniser.digits import load_digits

    wavfile.write(tmp_path / "7_ann_0.wav", 8000, np.full(800, 1000, np.int16))
    takes = load_digits(tmp_path)
    assert list(takes) == ["ann"]
    assert [len(recordings) for recordings in takes["ann"]] == [0] * 7 + [1] + [0] * 2
    assert len(takes["ann"][7][0]) == 1600


@needs_scipy
def test_a_folder_without_digits_is_named(tmp_path: Path):
    from data.recipes.recogniser.digits import load_digits

    with pytest.raises(ValueError, match=tmp_path.name):
        load_digits(tmp_path)


@pytest.mark.parametrize("seed", range(20))
def test_nonspeech_stays_in_range_and_follows_its_seed(seed: int):
    from data.recipes.recogniser.nonspeech import nonspeech

    audio = nonspeech(random.Random(seed))
    assert audio.dtype == np.float32
    assert 8000 <= len(audio) <= 96000
    assert np.abs(audio).max() <= 1
    np.testing.assert_array_equal(audio, nonspeech(random.Random(seed)))


def test_tokens_meet_what_the_engine_expects():
    from data.recipes.recogniser.tokens import SPECIALS, train_vocabulary

    vocabulary = train_vocabulary(["set a timer for ten minutes", "what's my name"], 12)
    bare_space = vocabulary.encode_word("")
    for letter in "abcdefghijklmnopqrstuvwxyz'-":
        assert len(vocabulary.encode_word(letter)) == 1
        assert vocabulary.encode_word(f"{letter}qxz")[:1] != bare_space
    ids = [vocabulary.id(token) for token in SPECIALS]
    assert ids == list(range(ids[0], ids[0] + len(SPECIALS)))
    assert len(vocabulary) == vocabulary.first_time + 12 * 50 + 1
    assert vocabulary.time(1.0) == vocabulary.first_time + 50
    words = "what's my timer".split()
    tokens = [token for word in words for token in vocabulary.encode_word(word)]
    assert vocabulary.decode(tokens) == "what's my timer"


@needs_torch
def test_words_that_were_cut_off_are_left_out():
    from data.recipes.recogniser.examples import cut_words

    words, ends = ["set", "a", "timer"], [8000, 9600, 24000]
    assert cut_words(words, ends, 24000) == words
    assert cut_words(words, ends, 22500) == words
    assert cut_words(words, ends, 16000) == ["set", "a"]
    assert cut_words(words, ends, 4000) == []


@needs_torch
def test_examples_put_the_right_samples_in_place():
    import torch

    from data.recipes.recogniser.examples import Piece, Plan, assemble, collate

    corpus = torch.arange(1, 101, dtype=torch.int16)
    pieces = [Piece(10, 21, ("a",), start=5), Piece(50, 41, ("b",), ratio=2.0, start=40)]
    batch = collate([Plan(pieces, 70, [1], [2], [3])], end=0)
    audio = assemble(batch, corpus) * 32768
    assert audio.shape == (1, 8000)
    torch.testing.assert_close(audio[0, 5:25], torch.arange(11.0, 31.0))
    torch.testing.assert_close(audio[0, 40:60], torch.arange(51.0, 91.0, 2))
    assert not audio[0, :5].any() and not audio[0, 25:40].any() and not audio[0, 60:].any()


@needs_torch
def test_features_are_those_of_the_engine():
    import torch
    from faster_whisper.feature_extractor import FeatureExtractor

    from data.recipes.recogniser import features

    audio = np.random.default_rng(0).normal(0, 0.1, 20000).astype(np.float32)
    expected = FeatureExtractor()(audio)[:, :-1]
    positions, frames = features.regular_positions(torch.tensor([len(audio)]))
    edges = features.mel_edges()
    spectra = features.power(torch.from_numpy(audio)[None], positions)
    found = features.log_mel(spectra, features.filter_bank(edges, edges), frames)
    assert found.shape[1:] == expected.shape
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-4)


@needs_torch
def test_augmented_features_are_zero_on_padding_alone():
    import torch

    from data.recipes.recogniser.augment import Ranges, augmented_features

    torch.manual_seed(0)
    audio = torch.randn(6, 24000) * 0.1
    samples = torch.tensor([24000, 20000, 16000, 12000, 9000, 8000])
    audio *= torch.arange(24000) < samples[:, None]
    mels, frames = augmented_features(audio, samples, 1.0, 1200, Ranges())
    assert torch.isfinite(mels).all()
    for clip, count in zip(mels, frames, strict=True):
        assert not clip[:, count:].any()
        assert clip[:, :count].abs().amax(dim=0).min() > 1e-4


@needs_torch
def test_the_exported_model_masks_padding_by_itself(tmp_path: Path):
    if sys.platform == "darwin":
        pytest.skip("two OpenMP runtimes in one process")
    import torch
    from ctranslate2 import StorageView
    from ctranslate2.models import Whisper

    from data.recipes.recogniser.export import export
    from data.recipes.recogniser.model import Recogniser, Shape
    from data.recipes.recogniser.tokens import train_vocabulary

    torch.manual_seed(0)
    vocabulary = train_vocabulary(["set a timer for ten minutes"], 2)
    shape = Shape(64, 1, 2, 1, encoder_positions=200, vocabulary=len(vocabulary))
    model = Recogniser(shape).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.constrain(model.reserved())
    export(model, vocabulary, tmp_path, chunk_s=2)
    whisper = Whisper(str(tmp_path), compute_type="float32", intra_threads=1)

    def encode(frames: int) -> np.ndarray:
        window = np.zeros((1, 80, frames), np.float32)
        window[:, :, :90] = np.random.default_rng(0).normal(0, 0.5, (80, 90))
        states: np.ndarray = np.array(whisper.encode(StorageView.from_array(window)))
        return states[0, :45]

    short, long = encode(92), encode(400)
    np.testing.assert_allclose(short, long, atol=1e-4)
    assert short[:, :-2].std() > 0.1


@needs_torch
def test_clips_with_rare_words_are_drawn_more_often():
    from data.recipes.recogniser.corpus import Clip
    from data.recipes.recogniser.examples import Drawer

    common = [Clip("espeak", "one two", 0, 10, ()) for _ in range(99)]
    drawer = Drawer([*common, Clip("espeak", "two jitter", 0, 10, ())])
    rng = random.Random(1)
    rare = sum(drawer.draw(rng).text == "two jitter" for _ in range(2000))
    assert 120 < rare < 260


@needs_torch
def test_heads_look_at_their_neighbours_from_the_start():
    import torch

    from data.recipes.recogniser.model import OFFSETS, Recogniser, Shape

    torch.manual_seed(0)
    model = Recogniser(Shape(144, 3, 2, 1))
    layer = model.encoder[0]
    positions = model.audio_positions[None, :100]
    qkv = layer.attention.qkv(layer.attention_norm(positions))
    q, k, _ = qkv.view(100, 3, 3, 48).permute(1, 2, 0, 3)
    looked_at = (q @ k.transpose(-1, -2)).argmax(dim=-1)[:, 50] - 50
    for found, offset in zip(looked_at.tolist(), OFFSETS[0], strict=True):
        assert abs(found - offset) <= 1


@needs_torch
def test_a_team_of_one_keeps_its_own_numbers():
    import torch

    from data.recipes.recogniser.team import Team

    team, weights = Team(), torch.arange(3.0)
    team.average([weights])
    assert weights.tolist() == [0.0, 1.0, 2.0]
    assert team.mean(2.5) == 2.5


@needs_torch
def test_a_shipped_model_is_read_back_and_exported_as_it_was(tmp_path: Path):
    from data.recipes.recogniser.export import export
    from data.recipes.recogniser.restore import restore, variables
    from data.recipes.recogniser.tokens import load_vocabulary
    from data.recipes.recogniser.train import CHUNK_S, SHAPE

    shipped = DATA / "models" / "lab-asr-en"
    export(restore(shipped, SHAPE), load_vocabulary(shipped / "tokenizer.json"), tmp_path, CHUNK_S)
    before, after = variables(shipped / "model.bin"), variables(tmp_path / "model.bin")
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_allclose(before[name], after[name], rtol=1e-3, atol=1e-3)
