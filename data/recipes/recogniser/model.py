"""A small Whisper in PyTorch, whose padding masks itself once it is exported.

Whisper has no padding mask: every utterance is padded to the same window with frames of zeros.
The engine that runs this model may use any window, so what an utterance gives must not depend
on how many frames of padding follow it. While training, an ordinary mask sees to that. In the
exported model the weights do it, and leave room for it here:

* the last two dimensions of the residual stream carry nothing (at export: a flag on padding);
* the last dimension of each head's query and key carries nothing (at export: the flag's effect);
* the last `DETECTORS` channels of the first convolution carry nothing (at export: they notice
  frames that are not padding).

`Recogniser.constrain` keeps these at zero after each optimiser step.
"""

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FLAGS = 2
"""Dimensions of the residual stream kept free, at its end."""
OFFSETS = ((-2, 0, 2), (-4, 1, 4), (-8, -1, 8), (-3, 3), (-6, 6))
"""Where the heads of each encoder layer look at first, in positions of 20 ms from their own."""
SHARPNESS = 1.3
"""How sharply they do: the gain of both queries and keys."""
DETECTORS = 16
"""Channels of the first convolution kept free, at its end."""
MELS = 80


@dataclass(frozen=True)
class Shape:
    """Sizes of the model.

    Attributes:
        width: Dimensions of the residual stream.
        heads: Attention heads of each layer.
        encoder_layers: Layers over the audio.
        decoder_layers: Layers over the text.
        encoder_positions: Longest audio in positions of 20 ms; the engine's window is 1,500.
        decoder_positions: Longest text in tokens; the engine asks for 448.
        vocabulary: Tokens of text, control and time.
        phones: Symbols of the auxiliary loss, the blank included.
        dropout: Probability of dropping a residual update's element while training.
    """

    width: int = 256
    heads: int = 4
    encoder_layers: int = 4
    decoder_layers: int = 2
    encoder_positions: int = 1500
    decoder_positions: int = 448
    vocabulary: int = 1169
    phones: int = 64
    dropout: float = 0.1

    def as_dict(self) -> dict[str, float]:
        """The sizes by name, for a checkpoint."""
        return asdict(self)


def sinusoids(positions: int, width: int) -> Tensor:
    """Whisper's table of positions: sines, then cosines, of geometrically spaced periods."""
    periods = torch.exp(-math.log(10000) / (width // 2 - 1) * torch.arange(width // 2))
    angles = torch.arange(positions)[:, None] * periods[None]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention; `mask` says which keys count, None means causal.

    On a CPU in half precision, plain products take a quarter of the fused kernel's time.
    """
    if mask is None or q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    return scores.masked_fill(~mask, -1e4).softmax(-1).to(v.dtype) @ v


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence to itself."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Attend. `mask` says which keys count (batch, 1, 1, keys); None means causal."""
        batch, length, width = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = attend(q, k, v, mask)
        return self.out(y.transpose(1, 2).reshape(batch, length, width))


class CrossAttention(nn.Module):
    """Multi-head attention of the text to the audio."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, audio: Tensor, mask: Tensor) -> Tensor:
        """Attend from `x` (batch, tokens, width) to `audio` (batch, positions, width)."""
        batch, length, width = x.shape
        split = (self.heads, width // self.heads)
        q = self.query(x).view(batch, length, *split).transpose(1, 2)
        k, v = self.kv(audio).view(batch, audio.shape[1], 2, *split).permute(2, 0, 3, 1, 4)
        y = attend(q, k, v, mask)
        return self.out(y.transpose(1, 2).reshape(batch, length, width))


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rise = nn.Linear(width, 4 * width)
        self.fall = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each position by itself."""
        return self.fall(F.gelu(self.rise(x)))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each after a layer norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(shape.width)
        self.attention = SelfAttention(shape.width, shape.heads)
        self.ffn_norm = nn.LayerNorm(shape.width)
        self.ffn = FeedForward(shape.width)
        self.drop = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Transform `x` (batch, positions, width)."""
        x = x + self.drop(self.attention(self.attention_norm(x), mask))
        return x + self.drop(self.ffn(self.ffn_norm(x)))


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the audio, and feed-forward."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(shape.width)
        self.attention = SelfAttention(shape.width, shape.heads)
        self.cross_norm = nn.LayerNorm(shape.width)
        self.cross = CrossAttention(shape.width, shape.heads)
        self.ffn_norm = nn.LayerNorm(shape.width)
        self.ffn = FeedForward(shape.width)
        self.drop = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor, audio: Tensor, mask: Tensor) -> Tensor:
        """Transform `x` (batch, tokens, width) with an eye on the audio."""
        x = x + self.drop(self.attention(self.attention_norm(x), None))
        x = x + self.drop(self.cross(self.cross_norm(x), audio, mask))
        return x + self.drop(self.ffn(self.ffn_norm(x)))


class Recogniser(nn.Module):
    """Log-mel features to token logits, with a phone classifier beside the encoder."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.conv1 = nn.Conv1d(MELS, shape.width, 3, padding=1)
        self.conv2 = nn.Conv1d(shape.width, shape.width, 3, stride=2, padding=1)
        self.register_buffer(
            "audio_positions", sinusoids(shape.encoder_positions, shape.width), persistent=False
        )
        self.encoder = nn.ModuleList(EncoderLayer(shape) for _ in range(shape.encoder_layers))
        self.encoder_norm = nn.LayerNorm(shape.width)
        self.phones = nn.Linear(shape.width, shape.phones)
        self.tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.text_positions = nn.Parameter(torch.zeros(shape.decoder_positions, shape.width))
        self.decoder = nn.ModuleList(DecoderLayer(shape) for _ in range(shape.decoder_layers))
        self.decoder_norm = nn.LayerNorm(shape.width)
        self.audio_positions[:, -FLAGS:] = 0
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.text_positions, std=0.01)
        self._scale_residual_outputs()
        for layer, offsets in zip(self.encoder, OFFSETS, strict=False):
            for head, offset in enumerate(offsets[: shape.heads]):
                self._look_at(layer.attention.qkv, head, offset)

    @torch.no_grad()
    def _look_at(self, qkv: nn.Linear, head: int, offset: int) -> None:
        """Make a head attend to the position `offset` away from its own.

        Queries take the fastest of the table's sines and cosines, keys the same turned by
        `offset`: their product is a sum of cosines that peaks there. Learning to find a
        neighbour takes a small model longer than all else.
        """
        half = self.shape.width // 2
        per_head = self.shape.width // self.shape.heads
        count = min((per_head - 1) // 2, half - FLAGS)
        angle = offset * torch.exp(-math.log(10000) / (half - 1) * torch.arange(count))
        fast = torch.arange(count)
        sines, cosines = head * per_head + fast, head * per_head + count + fast
        q, k, _ = qkv.weight.view(3, self.shape.width, self.shape.width)
        q[sines, fast] += SHARPNESS
        q[cosines, half + fast] += SHARPNESS
        k[sines, fast] += SHARPNESS * angle.cos()
        k[sines, half + fast] -= SHARPNESS * angle.sin()
        k[cosines, half + fast] += SHARPNESS * angle.cos()
        k[cosines, fast] += SHARPNESS * angle.sin()

    def _scale_residual_outputs(self) -> None:
        """Start each residual update small, so that depth does not add up."""
        for stack in (self.encoder, self.decoder):
            for layer in stack:
                for name, linear in layer.named_modules():
                    if name.endswith(("out", "fall")):
                        nn.init.normal_(linear.weight, std=0.02 / math.sqrt(2 * len(stack)))

    def encode(self, features: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Audio to states.

        Args:
            features: Log-mel features (batch, 80, frames), exactly zero after each one's end.
            frames: Frames of each that are audio (batch,).

        Returns:
            States (batch, positions, width), and which positions count
            (batch, 1, 1, positions).
        """
        x = F.gelu(self.conv2(F.gelu(self.conv1(features)))).transpose(1, 2)
        positions = torch.arange(x.shape[1], device=x.device)
        mask = (positions[None] < (frames[:, None] + 1) // 2)[:, None, None]
        x = x + self.audio_positions[: x.shape[1]]
        for layer in self.encoder:
            x = layer(x, mask)
        return self.encoder_norm(x), mask

    def decode(self, tokens: Tensor, audio: Tensor, mask: Tensor) -> Tensor:
        """Logits of the token after each of `tokens` (batch, length, vocabulary)."""
        x = self.tokens(tokens) + self.text_positions[: tokens.shape[1]]
        for layer in self.decoder:
            x = layer(x, audio, mask)
        return F.linear(self.decoder_norm(x), self.tokens.weight)

    def reserved(self) -> list[tuple[Tensor, Tensor]]:
        """The parameters with reserved parts, each with a mask that is zero there."""
        pairs = [(self.conv1.weight, _rows(self.conv1.weight, DETECTORS))]
        pairs.append((self.conv1.bias, _rows(self.conv1.bias, DETECTORS)))
        keep = _rows(self.conv2.weight, FLAGS).clone()
        keep[:, -DETECTORS:] = 0
        pairs += [(self.conv2.weight, keep), (self.conv2.bias, _rows(self.conv2.bias, FLAGS))]
        for layer in self.encoder:
            pairs += self._layer_reserved(layer)
        for layer in self.decoder:
            pairs.append((layer.cross.kv.weight, _columns(layer.cross.kv.weight)))
            for linear, parts in ((layer.cross.query, 1), (layer.cross.kv, 2)):
                pairs += self._head_rows(linear, parts, 1)
        return _merged(pairs + _norm_reserved(self.encoder_norm))

    def _layer_reserved(self, layer: nn.Module) -> list[tuple[Tensor, Tensor]]:
        pairs = self._head_rows(layer.attention.qkv, 3, 2)
        for linear in (layer.attention.qkv, layer.ffn.rise):
            pairs.append((linear.weight, _columns(linear.weight)))
        for linear in (layer.attention.out, layer.ffn.fall):
            pairs.append((linear.weight, _rows(linear.weight, FLAGS)))
            pairs.append((linear.bias, _rows(linear.bias, FLAGS)))
        return pairs + _norm_reserved(layer.attention_norm) + _norm_reserved(layer.ffn_norm)

    def _head_rows(self, linear: nn.Linear, parts: int, masked: int) -> list[tuple[Tensor, Tensor]]:
        """Masks that free the last dimension of each head in the first `masked` parts."""
        keep = torch.ones(parts, self.shape.heads, self.shape.width // self.shape.heads)
        keep[:masked, :, -1] = 0
        rows = keep.flatten().to(linear.weight.device)
        return [(linear.weight, rows[:, None].expand_as(linear.weight)), (linear.bias, rows)]

    @torch.no_grad()
    def constrain(self, pairs: list[tuple[Tensor, Tensor]]) -> None:
        """Set the reserved parts to zero; `pairs` as from `reserved`."""
        parameters, masks = zip(*pairs, strict=True)
        torch._foreach_mul_(list(parameters), list(masks))


def _merged(pairs: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """One mask for each parameter."""
    masks: dict[Tensor, Tensor] = {}
    for parameter, mask in pairs:
        masks[parameter] = mask.clone() * masks.get(parameter, 1.0)
    return list(masks.items())


def _rows(parameter: Tensor, count: int) -> Tensor:
    keep = torch.ones_like(parameter)
    keep[-count:] = 0
    return keep


def _columns(parameter: Tensor) -> Tensor:
    keep = torch.ones_like(parameter)
    keep[:, -FLAGS:] = 0
    return keep


def _norm_reserved(norm: nn.LayerNorm) -> list[tuple[Tensor, Tensor]]:
    return [(norm.weight, _rows(norm.weight, FLAGS)), (norm.bias, _rows(norm.bias, FLAGS))]
