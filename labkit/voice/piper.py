"""A Piper voice that is heard before its sentence is whole.

Piper's voices are VITS in one ONNX graph. Its first part reads all phonemes of a sentence and plans
the whole of it, in frames of some 12 ms; the decoder behind it, a HiFi-GAN, makes the samples. The
decoder takes two thirds of the time, and it is local: a sample depends on the few frames around
it. So the graph is cut before the decoder, which then speaks the plan in windows: a short one, for
which somebody waits, and longer ones, with as many frames on both sides as its samples depend on.
All windows together are the sentence, to the last bit but one of 16, and with the same noise, since
that is in the plan.

Between two windows the voice can be stopped, or let somebody else go first. And onnxruntime keeps
what its largest call took: of a window that is always the same, of a sentence it grows with it.

Graphs of another kind, such as the embedded voice's or those of several speakers, are not cut: they
speak sentence by sentence.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

from labkit.audio.pcm import Float32
from labkit.errors import ModelBrokenError
from labkit.voice.engines import Tts
from labkit.voice.scheduling import Stop

_FIRST_WINDOW_S: Final = 0.3
_LONGEST_WINDOW_S: Final = 1.2
"""Each window is twice as long as the one before, up to this: while one is played the next is made,
and what is computed twice, at the edges, is less with long windows. With 2 s a sentence takes no
less time, and 44 MB more."""
_MOST_PHONEMES: Final = 120
"""5 s of speech: more is cut at a clause. What comes before the decoder takes as long as its
sentence, and so does a voice that is not cut."""
_DECODER: Final = "dec.conv_pre.weight"
"""How the name ends that VITS gives to the weights of the decoder's first convolution."""
_POINTWISE: Final = frozenset(
    "Add Sub Mul Div LeakyRelu Relu Tanh Sigmoid Clip Identity Unsqueeze Squeeze".split()
)
"""Operations that make each sample of one sample, whatever stands beside it."""
_USUAL_PEAK: Final = 0.7
_MOST_GAIN: Final = 10.0
_HEARD_FIRST: Final = ("Yes, of course.", "I do not know.", "The timer is set for ten minutes.")
"""Sentences by which the level of a voice is measured."""


class PiperTts(Tts):
    """A voice on Piper, window by window, or else by sentences and clauses.

    Piper itself brings each sentence to the same peak, which cannot be known before its end. Here
    a voice has one gain, with which the peaks of a few sentences are at 0.7; so what is said
    softly stays soft.
    """

    def __init__(self, model: Path, *, threads: int) -> None:
        """Load the voice, and say a few words to hear how loud it is.

        Args:
            model: The `.onnx` file; its `.onnx.json` lies beside it.
            threads: CPU threads of one call.

        Raises:
            ModelBrokenError: The voice does not load.
        """
        from piper import PiperVoice

        config = _config(model)
        try:
            planner, self._decoder = _open(model, threads, config.sample_rate)
            self._voice = PiperVoice(session=planner, config=config)
            peak = float(np.median([self._peak(text) for text in _HEARD_FIRST]))
        except Exception as error:  # onnx and onnxruntime raise classes of their own making
            raise ModelBrokenError(model, str(error)) from error
        if not 0 < peak < np.inf:
            raise ModelBrokenError(model, "it makes no sound of English words")
        self._gain = min(_MOST_GAIN, _USUAL_PEAK / peak)

    def _peak(self, text: str) -> float:
        """The largest sample of `text`, as the voice makes it: some go beyond 1."""
        pieces = self._pieces(text, Stop())
        return max((float(np.abs(piece).max()) for piece in pieces), default=0.0)

    @property
    def sample_rate(self) -> int:
        """What the voice was trained on."""
        return int(self._voice.config.sample_rate)

    def synthesise(self, text: str, stop: Stop) -> Iterator[Float32]:
        """Speech for `text`; text without words gives no audio."""
        return map(self._levelled, self._pieces(text, stop))

    def _pieces(self, text: str, stop: Stop) -> Iterator[Float32]:
        for sentence in self._voice.phonemize(text):
            for phonemes in filter(None, clauses(sentence, _MOST_PHONEMES)):
                made = self._made(phonemes)
                yield from self._decoder.windows(made, stop) if self._decoder else [made]
                if stop.is_set():
                    return

    def _made(self, phonemes: Sequence[str]) -> Float32:
        """What the first part makes of them: a plan, or where the voice is not cut, the audio."""
        # Piper takes what comes out of its session for audio, and drops all axes of one.
        made: Any = self._voice.phoneme_ids_to_audio(self._voice.phonemes_to_ids(list(phonemes)))
        return np.asarray(made, np.float32)

    def _levelled(self, piece: Float32) -> Float32:
        """The piece itself, as loud as it should be; a copy would double what waits to be sent."""
        piece *= np.float32(self._gain)
        return np.clip(piece, -1.0, 1.0, out=piece)


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


@dataclass(frozen=True, slots=True)
class Reach:
    """How local a decoder is."""

    samples: int
    """Samples that it makes of each frame."""
    frames: int
    """Frames before and behind a frame that its samples may depend on."""


@dataclass(frozen=True, slots=True)
class _Decoder:
    session: Any
    reach: Reach
    sample_rate: int

    def windows(self, plan: Float32, stop: Stop) -> Iterator[Float32]:
        """The audio of `plan`, of shape `(channels, frames)`, as far as `stop` lets it."""
        frames, size = plan.shape[-1], self._frames(_FIRST_WINDOW_S)
        start = 0
        while start < frames and not stop.is_set():
            # What is left is not worth a window when it is shorter than what surrounds one.
            end = frames if frames - start - size <= self.reach.frames else start + size
            yield self._window(plan, start, end)
            start, size = end, min(2 * size, self._frames(_LONGEST_WINDOW_S))

    def _frames(self, seconds: float) -> int:
        return max(1, round(seconds * self.sample_rate / self.reach.samples))

    def _window(self, plan: Float32, start: int, end: int) -> Float32:
        first = max(0, start - self.reach.frames)
        around = plan[None, :, first : end + self.reach.frames]
        audio: Float32 = self.session.run(None, {self.session.get_inputs()[0].name: around})[0]
        begin = (start - first) * self.reach.samples
        return audio.ravel()[begin : begin + (end - start) * self.reach.samples]


def _config(model: Path) -> Any:
    from piper.config import PiperConfig

    path = model.with_name(model.name + ".json")
    try:
        return PiperConfig.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelBrokenError(path, getattr(error, "strerror", None) or repr(error)) from error


def _open(model: Path, threads: int, sample_rate: int) -> tuple[Any, _Decoder | None]:
    """Sessions of both parts of a voice; of one that cannot be cut, the whole and no decoder."""
    with TemporaryDirectory() as folder:
        planner, decoder = Path(folder, "planner.onnx"), Path(folder, "decoder.onnx")
        if (reach := _cut_file(model, planner, decoder)) is None:
            return _session(model, threads), None
        speaks = _Decoder(_session(decoder, threads), reach, sample_rate)
        return _session(planner, threads), speaks


def _cut_file(model: Path, planner: Path, decoder: Path) -> Reach | None:
    """Cut a voice into files: of a model in memory onnxruntime keeps a copy for good."""
    import onnx

    if (parts := cut(onnx.load(str(model)))) is None:
        return None
    onnx.save(parts[0], str(planner))
    onnx.save(parts[1], str(decoder))
    return parts[2]


def _session(model: Path, threads: int) -> Any:
    """An onnxruntime session on `threads` threads: Piper's own `load` takes every core."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def cut(model: Any) -> tuple[Any, Any, Reach] | None:
    """Cut a voice (`onnx.ModelProto`) into the part that plans, and the decoder.

    None where that is not sure to work.
    """
    from onnx import TensorProto
    from onnx.helper import make_tensor_value_info
    from onnx.utils import Extractor

    graph = model.graph
    found = [n for n in graph.node if any(name.endswith(_DECODER) for name in n.input)]
    if len(found) != 1 or len(graph.output) != 1:
        return None
    plan, audio = found[0].input[0], graph.output[0].name
    parts = Extractor(model)
    parts.value_infos.setdefault(plan, make_tensor_value_info(plan, TensorProto.FLOAT, None))
    decoder = parts.extract_model([plan], [audio])
    if (reach := reach_of(decoder.graph)) is None:
        return None
    return parts.extract_model([one.name for one in graph.input], [plan]), decoder, reach


def reach_of(graph: Any) -> Reach | None:
    """How local a decoder is; None where it holds anything that may look far away.

    Its `onnx.GraphProto` has one input, of shape `(1, channels, frames)`, and one output.
    """
    given = {one.name for one in graph.initializer}
    rates = {graph.input[0].name: 1}
    reaches = {graph.input[0].name: 0.0}
    for node in graph.node:
        if node.op_type == "Constant":
            given.update(node.output)
            continue
        sources = [name for name in node.input if name and name not in given]
        if not sources or any(name not in rates for name in sources):
            return None
        step = _step(node)
        if step is None or len({rates[name] for name in sources}) > 1:
            return None
        ((stride, samples), rate) = step, rates[sources[0]]
        for name in node.output:
            rates[name] = rate * stride
            reaches[name] = max(reaches[one] for one in sources) + samples / rate
    audio = graph.output[0].name
    # One more, since the samples of a frame lie behind its beginning.
    return Reach(rates[audio], math.ceil(reaches[audio]) + 1) if audio in rates else None


def _step(node: Any) -> tuple[int, float] | None:
    """What one operation does: samples that it makes of one, and how far to the sides it looks."""
    from onnx.helper import get_attribute_value

    if node.op_type in _POINTWISE:
        return 1, 0.0
    said = {one.name: get_attribute_value(one) for one in node.attribute}
    shape, pads = said.get("kernel_shape", ()), said.get("pads", ())
    if node.op_type not in ("Conv", "ConvTranspose") or (len(shape), len(pads)) != (1, 2):
        return None
    if said.get("auto_pad", b"NOTSET") != b"NOTSET" or any(said.get("output_padding", ())):
        return None
    (kernel,), (before, behind) = shape, pads
    (stride,), (dilation,) = said.get("strides", [1]), said.get("dilations", [1])
    span = (kernel - 1) * dilation
    if node.op_type == "Conv":
        same_length = stride == 1 and before + behind == span
        return (1, float(max(before, behind))) if same_length else None
    same_length = before + behind == span + 1 - stride
    return (stride, (span + 1) / stride) if same_length else None
