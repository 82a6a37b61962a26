"""A voice that is heard window by window: what is made so is what would be made whole."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.audio.pcm import SAMPLE_RATE, Float32
from labkit.errors import ModelBrokenError
from labkit.measure.wer import word_errors
from labkit.voice.piper import PiperTts, Reach, clauses, cut
from labkit.voice.scheduling import Stop
from tests.engines import embedded_engines, embedded_paths, tiny_engines

ONE_BIT: Final = 2.0**-15
"""The smallest step of 16-bit audio."""

SMALL_VOICE: Final = """
<ir_version: 8, opset_import: ["" : 15]>
small (int64[1, N] input, int64[1] input_lengths, float[3] scales) => (float[1, 1, T] output) {
    rows = Gather (table, input)
    noise = RandomNormalLike <scale = 0.3> (rows)
    noisy = Add (rows, noise)
    plan = Transpose <perm = [0, 2, 1]> (noisy)
    third = Constant <value_float = 0.3> ()
    a = Conv <kernel_shape = [7], pads = [3, 3]> (plan, pre)
    b = LeakyRelu <alpha = 0.1> (a)
    c = ConvTranspose <kernel_shape = [16], pads = [4, 4], strides = [8]> (b, up_1)
    d = Conv <kernel_shape = [3], pads = [1, 1]> (c, near)
    e = Conv <dilations = [12], kernel_shape = [7], pads = [36, 36]> (c, far)
    f = Add (d, c)
    g = Add (e, f)
    h = Mul (g, third)
    i = ConvTranspose <kernel_shape = [16], pads = [4, 4], strides = [8]> (h, up_2)
    j = Conv <kernel_shape = [7], pads = [3, 3]> (i, post)
    output = Tanh (j)
}
"""
"""VITS in small: a plan with noise in it, and a decoder that makes 64 samples of each frame."""
WEIGHTS: Final = {
    "table": (200, 4),
    "pre": (4, 4, 7),
    "up_1": (4, 4, 16),
    "near": (4, 4, 3),
    "far": (4, 4, 7),
    "up_2": (4, 4, 16),
    "post": (1, 4, 7),
}


def small_voice(text: str = SMALL_VOICE, *, decoder: str = "dec.conv_pre.weight") -> Any:
    """The voice of `text`, with the decoder's first weights named as VITS does."""
    model, random = onnx.parser.parse_model(text), np.random.default_rng(1)
    for name, shape in WEIGHTS.items():
        weights = random.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weights, name))
    for thing in (*model.graph.node, *model.graph.initializer):
        if isinstance(thing, onnx.TensorProto):
            thing.name = decoder if thing.name == "pre" else thing.name
        else:
            thing.input[:] = [decoder if name == "pre" else name for name in thing.input]
    return model


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The small voice in a file, with the letters of the embedded one."""
    onnx.save(small_voice(), str(tmp_path / "small.onnx"))
    (tmp_path / "small.onnx.json").write_bytes(config_of(embedded_paths().tts).read_bytes())
    return tmp_path / "small.onnx"


@pytest.mark.parametrize(
    ("good", "bad", "reason"),
    [
        ("scales) =>", "sizes) =>", "sizes|scales"),
        ("output = Tanh (j)", "output = Sub (j, j)", "no sound of English words"),
        ("output = Tanh (j)", "nothing = Sub (j, j) output = Div (nothing, nothing)", "no sound"),
    ],
    ids=["no voice", "silent", "no numbers"],
)
def test_a_graph_that_does_not_speak_is_a_broken_model(
    small: Path, good: str, bad: str, reason: str
) -> None:
    onnx.save(small_voice(SMALL_VOICE.replace(good, bad)), str(small))
    with pytest.raises(ModelBrokenError, match=f"small.onnx does not load: .*(?:{reason})"):
        PiperTts(small, threads=1)


def test_a_voice_that_goes_beyond_1_is_made_softer_and_not_clipped(small: Path) -> None:
    loud = "forty = Constant <value_float = 40.0> () sine = Tanh (j) output = Mul (sine, forty)"
    onnx.save(small_voice(SMALL_VOICE.replace("output = Tanh (j)", loud)), str(small))
    said = np.concatenate(list(PiperTts(small, threads=1).synthesise("Yes, of course.", Stop())))
    assert 0.3 < np.abs(said).max()
    assert np.mean(np.abs(said) == 1) < 0.01


def config_of(voice: Path) -> Path:
    return voice.with_name(voice.name + ".json")


def planned(tts: PiperTts, text: str) -> tuple[Any, Any]:
    """The plan for a sentence, and the decoder."""
    (phonemes,) = tts._voice.phonemize(text)
    return tts._voice.phoneme_ids_to_audio(tts._voice.phonemes_to_ids(phonemes)), tts._decoder


class TestCut:
    def test_the_reach_of_a_decoder_is_what_its_samples_depend_on(self) -> None:
        parts = cut(small_voice())
        assert parts is not None
        # In frames: 3, 16/8, 36/8, 16/8 of an eighth, 3 of a 64th; and one for the frame itself.
        assert parts[2] == Reach(samples=64, frames=11)

    @pytest.mark.parametrize(
        ("written", "instead"),
        [
            ("Tanh (j)", "Softmax <axis = -1> (j)"),
            ("Tanh (j)", "CumSum (j, third)"),
            ("LeakyRelu <alpha = 0.1> (a)", "InstanceNormalization (a, scales, scales)"),
            ("LeakyRelu <alpha = 0.1> (a)", "Add (a, noise)"),
            ("pads = [36, 36]> (c", "pads = [0, 72], strides = [2]> (c"),
            ("pads = [36, 36]> (c", 'auto_pad = "SAME_UPPER"> (c'),
            ("pads = [4, 4], strides = [8]> (h", "pads = [0, 0], strides = [8]> (h"),
            ("pads = [4, 4], strides", "output_padding = [1], pads = [4, 5], strides"),
            ("Conv <kernel_shape = [7], pads = [3, 3]> (plan, pre)", "Mul (plan, third)"),
        ],
    )
    def test_a_decoder_that_may_look_far_away_is_left_whole(
        self, written: str, instead: str
    ) -> None:
        assert written in SMALL_VOICE
        assert cut(small_voice(SMALL_VOICE.replace(written, instead))) is None

    def test_a_graph_without_such_a_decoder_is_left_whole(self) -> None:
        assert cut(small_voice(decoder="vocoder.weight")) is None
        assert cut(onnx.load(str(embedded_paths().tts))) is None


@pytest.mark.engines
class TestWindows:
    @pytest.mark.parametrize("letters", [1, 20, 60, 250])
    def test_all_windows_are_the_sentence(self, small: Path, letters: int) -> None:
        plan, decoder = planned(PiperTts(small, threads=1), "a" * letters)
        (whole,) = decoder.session.run(None, {"plan": plan[None]})
        windows = list(decoder.windows(plan, Stop()))
        np.testing.assert_allclose(np.concatenate(windows), whole.ravel(), atol=ONE_BIT / 4)

    def test_the_first_window_is_short_and_none_is_long(self, small: Path) -> None:
        plan = np.zeros((4, 2000), np.float32)
        decoder = PiperTts(small, threads=1)._decoder
        assert decoder is not None
        lengths = [len(window) / SAMPLE_RATE for window in decoder.windows(plan, Stop())]
        assert lengths[:4] == pytest.approx([0.3, 0.6, 1.2, 1.2], abs=0.01)
        assert sum(lengths) == pytest.approx(8.0)
        assert max(lengths) < 1.3

    def test_a_caller_who_hangs_up_stops_a_sentence_at_the_next_window(self, small: Path) -> None:
        tts, stop = PiperTts(small, threads=1), Stop()
        assert len(list(tts.synthesise("again " * 18, Stop()))) > 1
        stop.set()
        assert not list(tts.synthesise("again " * 18, stop))

    def test_no_window_is_made_behind_the_stop(
        self, small: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        decoder, stop, made = PiperTts(small, threads=1)._decoder, Stop(), []
        assert decoder is not None
        whole = type(decoder)._window

        def noted(self: Any, plan: Float32, start: int, end: int) -> Float32:
            made.append(start)
            return whole(self, plan, start, end)

        monkeypatch.setattr(type(decoder), "_window", noted)
        for _ in decoder.windows(np.zeros((4, 2000), np.float32), stop):
            stop.set()
        assert made == [0]

    @pytest.mark.public
    def test_all_windows_of_a_public_voice_are_the_sentence(self) -> None:
        tts = tiny_engines().tts
        assert isinstance(tts, PiperTts)
        text = "The sample rate is a measure of how quickly data can be transmitted, and no more."
        plan, decoder = planned(tts, text)
        name = decoder.session.get_inputs()[0].name
        (whole,) = decoder.session.run(None, {name: plan[None]})
        windows = list(decoder.windows(plan, Stop()))
        assert len(windows) > 3
        np.testing.assert_allclose(np.concatenate(windows), whole.ravel(), atol=ONE_BIT / 4)


SENTENCES: Final = (
    "Yes.",
    "Goodbye, and have a nice day!",
    "My name is Clara.",
    "The light in the bedroom is now at ten percent.",
    "You can resume a session with the token that the server gave you.",
    "Nine.",
)


@pytest.mark.engines
@pytest.mark.parametrize("voice", ["embedded", pytest.param("tiny", marks=pytest.mark.public)])
def test_a_voice_has_one_level_and_is_never_cut_off_at_the_top(voice: str) -> None:
    tts = (embedded_engines() if voice == "embedded" else tiny_engines()).tts
    said = [np.concatenate(list(tts.synthesise(text, Stop()))) for text in SENTENCES]
    peaks = [float(np.abs(audio).max()) for audio in said]
    assert 0.5 < np.median(peaks) < 0.9
    assert min(peaks) > 0.3
    assert np.mean(np.abs(np.concatenate(said)) >= 1.0) < 0.001


@pytest.mark.engines
def test_the_level_is_set_in_the_voices_own_array(monkeypatch: pytest.MonkeyPatch) -> None:
    tts, made = embedded_engines().tts, list[Float32]()
    assert isinstance(tts, PiperTts)
    right = tts._levelled
    monkeypatch.setattr(tts, "_levelled", lambda piece: (made.append(piece), right(piece))[1])
    pieces = list(tts.synthesise(SENTENCES[0], Stop()))
    assert all(given is raw for given, raw in zip(pieces, made, strict=True))


class TestClauses:
    @given(st.text(alphabet="ab ,;"), st.integers(1, 20))
    def test_nothing_is_lost_and_no_piece_is_too_long(self, text: str, most: int) -> None:
        pieces = list(clauses(list(text), most))
        assert "".join("".join(piece) for piece in pieces) == text
        assert all(len(piece) <= most for piece in pieces)
        assert all(pieces) or not text

    @pytest.mark.parametrize(
        ("text", "pieces"),
        [
            ("short", ["short"]),
            ("one two, three four", ["one two,", " three four"]),
            ("one two three four", ["one two ", "three four"]),
            ("a, onetwothreefour", ["a, ", "onetwothreef", "our"]),
            ("onetwothreefour", ["onetwothreef", "our"]),
        ],
    )
    def test_a_piece_ends_where_a_speaker_would_pause(self, text: str, pieces: list[str]) -> None:
        assert ["".join(piece) for piece in clauses(list(text), 12)] == pieces


@pytest.mark.engines
class TestSpeech:
    @staticmethod
    def speak(text: str) -> Float32:
        pieces = list(embedded_engines().tts.synthesise(text, Stop()))
        return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)

    def test_speech_has_a_length_and_a_level(self) -> None:
        tts = embedded_engines().tts
        audio = self.speak("The timer is set for ten minutes.")
        assert 1.0 < len(audio) / tts.sample_rate < 5.0
        assert 0.3 < np.abs(audio).max() <= 1.0

    def test_the_recogniser_understands_it(self) -> None:
        texts = ("turn on the kitchen light", "repeat after me one two three", "my name is clara")
        pause = np.zeros(SAMPLE_RATE // 3, np.float32)
        for text in texts:
            audio = np.concatenate([pause, self.speak(text), pause])
            errors, words = word_errors(text, embedded_engines().asr.transcribe(audio, Stop()))
            assert errors <= words // 3

    @pytest.mark.parametrize("text", ["", "...", " "])
    def test_text_without_words_gives_no_audio(self, text: str) -> None:
        assert not len(self.speak(text))

    def test_each_sentence_is_a_piece_and_a_stop_ends_after_one(self) -> None:
        tts, stop = embedded_engines().tts, Stop()
        text = "Hello. Good morning. Goodbye."
        assert len(list(tts.synthesise(text, Stop()))) == 3
        stop.set()
        assert len(list(tts.synthesise(text, stop))) == 1

    def test_no_piece_of_a_sentence_without_end_is_long(self) -> None:
        tts = embedded_engines().tts
        pieces = list(tts.synthesise("and then again another number " * 30, Stop()))
        assert len(pieces) > 5
        assert max(map(len, pieces)) < 12 * tts.sample_rate

    def test_a_caller_who_hangs_up_stops_a_long_sentence_at_the_next_clause(self) -> None:
        stop = Stop()
        spoken = []
        for piece in embedded_engines().tts.synthesise("and then again another " * 30, stop):
            spoken.append(piece)
            stop.set()
        assert len(spoken) == 1

    @pytest.mark.parametrize(
        "damage", ["", "{}", "not json"], ids=["no config", "empty config", "no json"]
    )
    def test_a_broken_voice_names_its_file(
        self, tmp_path: Path, damage: str, copied: Callable[[Path], Path]
    ) -> None:
        voice = copied(tmp_path)
        config = config_of(voice)
        config.unlink()
        if damage:
            config.write_text(damage)
        with pytest.raises(ModelBrokenError, match="lab-voice-en"):
            PiperTts(voice, threads=1)

    def test_a_broken_onnx_names_its_file(
        self, tmp_path: Path, copied: Callable[[Path], Path]
    ) -> None:
        voice = copied(tmp_path)
        voice.write_bytes(b"not a model")
        with pytest.raises(ModelBrokenError, match=r"lab-voice-en\.onnx"):
            PiperTts(voice, threads=1)


@pytest.fixture
def copied() -> Callable[[Path], Path]:
    """Copies the embedded voice into a folder, where a test may damage it."""

    def copy(folder: Path) -> Path:
        source = embedded_paths().tts
        for path in (source, config_of(source)):
            (folder / path.name).write_bytes(path.read_bytes())
        return folder / source.name

    return copy
