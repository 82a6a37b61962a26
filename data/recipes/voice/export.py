"""The trained voice as the two files that Piper loads."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from data.recipes.voice import features
from data.recipes.voice.corpus import ESPEAK_VOICE
from data.recipes.voice.model import SYMBOLS, Acoustic, Voice

__all__ = ["configuration", "export", "in_half_precision"]

OPSET: Final = 17
_SMALLEST: Final = 512
"""Tensors with fewer numbers stay as they are: they would save nothing."""


def export(acoustic: Acoustic, path: Path) -> None:
    """Write `path` (ONNX) and its `.json` beside it."""
    import onnx

    voice = Voice(acoustic.eval())
    example = (
        torch.tensor([[1, 0, 20, 0, 59, 0, 24, 0, 100, 0, 10, 0, 2]]),
        torch.tensor([13]),
        torch.tensor([0.0, 1.0, 0.0]),
    )
    partial = path.with_suffix(".partial")
    torch.onnx.export(
        voice,
        example,
        str(partial),
        dynamo=False,
        do_constant_folding=False,
        opset_version=OPSET,
        input_names=["input", "input_lengths", "scales"],
        output_names=["output", "durations"],
        dynamic_axes={"input": {1: "ids"}, "output": {2: "samples"}, "durations": {1: "ids"}},
    )
    model = onnx.load(str(partial))
    in_half_precision(model, [b.numpy() for b in voice.vocoder.buffers()])
    onnx.checker.check_model(model)
    onnx.save(model, str(partial))
    partial.replace(path)
    text = json.dumps(configuration(), ensure_ascii=False, indent=1) + "\n"
    path.with_name(path.name + ".json").write_text(text, encoding="utf-8")
    print(f"wrote {path}, {path.stat().st_size / 1e6:.2f} MB")


def in_half_precision(model: Any, exact: Sequence[np.ndarray]) -> None:
    """Store weights as float16; onnxruntime widens them once, when it loads the model.

    Args:
        model: The ONNX model, changed in place.
        exact: Tensors that keep every bit, whatever their name: the vocoder's, where a filter
            that is off by little is audible at once.
    """
    from onnx import helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < _SMALLEST or _among(values, exact):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=1))
    for node in reversed(casts):
        model.graph.node.insert(0, node)


def _among(values: np.ndarray, tensors: Sequence[np.ndarray]) -> bool:
    """Whether `values` is one of `tensors`, possibly turned, as exporters do."""
    candidates = [t for t in tensors if t.size == values.size]
    flat = np.sort(values, axis=None)
    return any(np.array_equal(flat, np.sort(t, axis=None)) for t in candidates)


def configuration() -> dict[str, Any]:
    """The contents of the `.onnx.json`.

    Both noises are 0, so that the same text gives the same samples unless a caller asks.
    """
    from piper.phoneme_ids import DEFAULT_PHONEME_ID_MAP

    return {
        "audio": {"sample_rate": features.SAMPLE_RATE, "quality": "x_low"},
        "espeak": {"voice": ESPEAK_VOICE},
        "language": {"code": "en_US", "family": "en", "region": "US"},
        "dataset": "flite slt",
        "inference": {"noise_scale": 0.0, "length_scale": 1.0, "noise_w": 0.0},
        "phoneme_type": "espeak",
        "phoneme_id_map": {symbol: list(ids) for symbol, ids in DEFAULT_PHONEME_ID_MAP.items()},
        "num_symbols": SYMBOLS,
        "num_speakers": 1,
        "speaker_id_map": {},
        "hop_length": features.HOP,
    }
