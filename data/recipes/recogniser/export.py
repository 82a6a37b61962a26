"""A trained recogniser to a folder that `faster_whisper.WhisperModel` loads.

Here the weights take over the padding mask (see `data.recipes.recogniser.model`):

1. Padding is made of frames that are exactly zero, and no frame of audio is. The free channels
   of the first convolution take random projections of the frame, each with both signs, so
   after the GELU at least one of each pair is positive unless the frame is zero.
2. The second convolution sums them, negated, below a positive bias: after its GELU the flag is
   `FLAG` on padding and zero elsewhere. The other free dimension stays zero everywhere.
3. In each head the free key dimension reads the difference of the two, which on audio is zero
   after any layer norm, and the free query dimension is a constant: keys on padding get a score
   too low to matter.

So the output for an utterance is the same in a window of any length.
"""

import json
import math
from pathlib import Path

import numpy as np
import torch
from ctranslate2.specs import TransformerDecoderSpec, WhisperSpec
from ctranslate2.specs.common_spec import LayerNormSpec, LinearSpec
from ctranslate2.specs.transformer_spec import FeedForwardSpec
from ctranslate2.specs.whisper_spec import WhisperEncoderSpec
from torch import Tensor, nn

from data.recipes.recogniser.model import DETECTORS, FLAGS, MELS, FeedForward, Recogniser
from data.recipes.recogniser.tokens import SUPPRESSED, Vocabulary

FLAG = 200.0
"""Size of the padding flag in the residual stream; a multiple of all else that is there."""
PROJECTION = 0.05
"""Gain of the projections that notice audio, which keeps them as small as other channels."""
DETECTION = 1e7
"""Gain of their sum: the smallest frame of audio outweighs `FLAG`."""
QUERY = 8.0
"""The constant in the free query dimensions."""
SCORE = 60.0
"""What a key on padding loses in attention score; e to the minus that is nothing."""
QUANTISATION = "int8_float16"
LONGEST_SENTENCE_S = 5
"""No sentence of the domain is longer, with the silence around it. What is longer holds several,
and is cut before it is recognised."""


def export(model: Recogniser, vocabulary: Vocabulary, folder: Path, chunk_s: int) -> None:
    """Write the model in CTranslate2's format, with its tokeniser.

    Args:
        model: Trained weights, with the reserved parts at zero.
        vocabulary: The tokeniser that it was trained with.
        folder: Where to; made if it is missing.
        chunk_s: Longest window that the model has learned, in seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    spec = build_spec(model.float().cpu().eval(), vocabulary)
    spec.validate()
    spec.optimize(quantization=QUANTISATION)
    spec.save(str(folder))
    vocabulary.save(folder / "tokenizer.json")
    preprocessor = {
        "chunk_length": chunk_s,
        "feature_size": MELS,
        "fit_window": True,
        "hop_length": 160,
        "longest_s": LONGEST_SENTENCE_S,
        "n_fft": 400,
        "sampling_rate": 16000,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2) + "\n")


@torch.no_grad()
def build_spec(model: Recogniser, vocabulary: Vocabulary) -> WhisperSpec:
    """The model as a CTranslate2 specification in float32."""
    shape = model.shape
    spec = WhisperSpec(shape.encoder_layers, shape.heads, shape.decoder_layers, shape.heads)
    _encoder(spec.encoder, model)
    _decoder(spec.decoder, model)
    spec.register_vocabulary(vocabulary.all_tokens())
    spec.config.suppress_ids = [vocabulary.id(token) for token in SUPPRESSED]
    spec.config.suppress_ids_begin = []
    spec.config.lang_ids = []
    spec.config.alignment_heads = [(shape.decoder_layers - 1, head) for head in range(shape.heads)]
    return spec


def _encoder(spec: WhisperEncoderSpec, model: Recogniser) -> None:
    spec.conv1.weight, spec.conv1.bias = map(_array, detecting_conv1(model))
    spec.conv2.weight, spec.conv2.bias = map(_array, flagging_conv2(model))
    spec.position_encodings.encodings = _array(model.audio_positions)
    for layer, trained in zip(spec.layer, model.encoder, strict=True):
        attention = layer.self_attention
        _norm(attention.layer_norm, trained.attention_norm, flags=True)
        _linear(attention.linear[0], *masking_projection(trained.attention.qkv, 3, model))
        _linear(attention.linear[1], trained.attention.out.weight, trained.attention.out.bias)
        _norm(layer.ffn.layer_norm, trained.ffn_norm)
        _feed_forward(layer.ffn, trained.ffn)
    _norm(spec.layer_norm, model.encoder_norm, flags=True)


def _decoder(spec: TransformerDecoderSpec, model: Recogniser) -> None:
    spec.embeddings.weight = _array(model.tokens.weight)
    spec.projection.weight = _array(model.tokens.weight)
    spec.position_encodings.encodings = _array(model.text_positions)
    for layer, trained in zip(spec.layer, model.decoder, strict=True):
        attention = layer.self_attention
        _norm(attention.layer_norm, trained.attention_norm)
        _linear(attention.linear[0], trained.attention.qkv.weight, trained.attention.qkv.bias)
        _linear(attention.linear[1], trained.attention.out.weight, trained.attention.out.bias)
        cross = layer.attention
        _norm(cross.layer_norm, trained.cross_norm)
        _linear(cross.linear[0], *constant_query(trained.cross.query, model))
        _linear(cross.linear[1], *masking_projection(trained.cross.kv, 2, model))
        _linear(cross.linear[2], trained.cross.out.weight, trained.cross.out.bias)
        _norm(layer.ffn.layer_norm, trained.ffn_norm)
        _feed_forward(layer.ffn, trained.ffn)
    _norm(spec.layer_norm, model.decoder_norm)


def detecting_conv1(model: Recogniser) -> tuple[Tensor, Tensor]:
    """The first convolution, its free channels noticing frames that are not padding."""
    weight, bias = model.conv1.weight.clone(), model.conv1.bias.clone()
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (DETECTORS // 2, MELS), generator=generator) * 2.0 - 1
    weight[-DETECTORS:] = 0
    weight[-DETECTORS:, :, 1] = torch.cat([signs, -signs]) * PROJECTION
    return weight, bias


def flagging_conv2(model: Recogniser) -> tuple[Tensor, Tensor]:
    """The second convolution, its last channel raising the flag on padding."""
    weight, bias = model.conv2.weight.clone(), model.conv2.bias.clone()
    weight[-1, -DETECTORS:, 1] = -DETECTION
    bias[-1] = FLAG
    return weight, bias


def masking_projection(linear: nn.Linear, parts: int, model: Recogniser) -> tuple[Tensor, Tensor]:
    """A projection to (queries,) keys and values whose free key dimensions read the flag."""
    width, heads = model.shape.width, model.shape.heads
    weight = linear.weight.clone().view(parts, heads, width // heads, width)
    bias = linear.bias.clone().view(parts, heads, width // heads)
    keys = parts - 2
    gain = SCORE * math.sqrt(width // heads) / (QUERY * math.sqrt(width))
    weight[keys, :, -1, -1] = -gain
    weight[keys, :, -1, -FLAGS] = gain
    bias[:keys, :, -1] = QUERY
    return weight.view(parts * width, width), bias.flatten()


def constant_query(linear: nn.Linear, model: Recogniser) -> tuple[Tensor, Tensor]:
    """A projection to queries whose free dimensions are a constant."""
    bias = linear.bias.clone().view(model.shape.heads, -1)
    bias[:, -1] = QUERY
    return linear.weight, bias.flatten()


def _linear(spec: LinearSpec, weight: Tensor, bias: Tensor) -> None:
    spec.weight, spec.bias = _array(weight), _array(bias)


def _norm(spec: LayerNormSpec, norm: nn.LayerNorm, *, flags: bool = False) -> None:
    gamma = norm.weight.clone()
    if flags:
        gamma[-FLAGS:] = 1
    spec.gamma, spec.beta = _array(gamma), _array(norm.bias)


def _feed_forward(spec: FeedForwardSpec, trained: FeedForward) -> None:
    _linear(spec.linear_0, trained.rise.weight, trained.rise.bias)
    _linear(spec.linear_1, trained.fall.weight, trained.fall.bias)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().contiguous().numpy().copy()
