"""A recogniser read back from the engine's folder, to continue its training.

The inverse of `data.recipes.recogniser.export`, up to the rounding of int8: the parts of the
weights that mask padding are set to zero again, and the phone classifier, which the engine does
not need, begins anew.
"""

import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from data.recipes.recogniser.model import Recogniser, Shape

_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
"""CTranslate2's numbers for the types of its variables (`ctranslate2/specs/model_spec.py`)."""
_NORMS = {"attention_norm": "self_attention", "cross_norm": "attention", "ffn_norm": "ffn"}
_INNER = {
    "attention.qkv": "self_attention/linear_0",
    "attention.out": "self_attention/linear_1",
    "cross.query": "attention/linear_0",
    "cross.kv": "attention/linear_1",
    "cross.out": "attention/linear_2",
    "ffn.rise": "ffn/linear_0",
    "ffn.fall": "ffn/linear_1",
}


class _Reader:
    """Reads numbers and names off a CTranslate2 file."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._position = 0

    def number(self, form: str) -> int:
        (value,) = struct.unpack_from(f"<{form}", self._content, self._position)
        self._position += struct.calcsize(form)
        return int(value)

    def take(self, size: int) -> bytes:
        self._position += size
        return self._content[self._position - size : self._position]

    def name(self) -> str:
        return self.take(self.number("H")).rstrip(b"\0").decode()


def variables(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    """The variables of a CTranslate2 model file by name, quantised as they are."""
    reader = _Reader(path.read_bytes())
    reader.number("I")  # version of the format
    reader.name()
    reader.number("I")  # revision of the specification
    found = {}
    for _ in range(reader.number("I")):
        name = reader.name()
        shape = [reader.number("I") for _ in range(reader.number("B"))]
        kind = _TYPES[reader.number("B")]
        found[name] = np.frombuffer(reader.take(reader.number("I")), kind).reshape(shape)
    return found


def restore(folder: Path, shape: Shape) -> Recogniser:
    """Read the model in `folder` back.

    Args:
        folder: As `export` wrote it.
        shape: Its sizes; those of the vocabulary and the phones may be any.

    Raises:
        KeyError: The file holds another kind of model.
    """
    stored = variables(folder / "model.bin")
    embedding = _plain(stored, "decoder/embeddings/weight")
    model = Recogniser(replace(shape, vocabulary=len(embedding)))
    with torch.no_grad():
        model.tokens.weight.copy_(embedding)
        model.text_positions.copy_(_plain(stored, "decoder/position_encodings/encodings"))
        for module, name in _places(model):
            module.weight.copy_(_plain(stored, _weight(module, name)).view_as(module.weight))
            module.bias.copy_(_plain(stored, _bias(module, name)))
        model.constrain(model.reserved())
    return model


def _places(model: Recogniser) -> Iterator[tuple[nn.Module, str]]:
    """Every module that the engine's file holds, with its name there."""
    yield model.conv1, "encoder/conv1"
    yield model.conv2, "encoder/conv2"
    yield model.encoder_norm, "encoder/layer_norm"
    yield model.decoder_norm, "decoder/layer_norm"
    for stack in ("encoder", "decoder"):
        for number, layer in enumerate(getattr(model, stack)):
            for name, module in layer.named_modules():
                if name in _INNER:
                    yield module, f"{stack}/layer_{number}/{_INNER[name]}"
                if name in _NORMS:
                    yield module, f"{stack}/layer_{number}/{_NORMS[name]}/layer_norm"


def _weight(module: nn.Module, name: str) -> str:
    return f"{name}/gamma" if isinstance(module, nn.LayerNorm) else f"{name}/weight"


def _bias(module: nn.Module, name: str) -> str:
    return f"{name}/beta" if isinstance(module, nn.LayerNorm) else f"{name}/bias"


def _plain(stored: dict[str, npt.NDArray[np.generic]], name: str) -> Tensor:
    """A variable in float32: rows of int8 are divided by their scales."""
    value = torch.from_numpy(stored[name].astype(np.float32))
    scale = stored.get(f"{name}_scale")
    if scale is None:
        return value
    rows = torch.from_numpy(scale.astype(np.float32)).flatten()
    return value / rows.view(-1, *[1] * (value.ndim - 1))
