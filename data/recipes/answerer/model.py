"""A small Llama, written so that its weights go into a GGUF file as they are."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """Sizes of the model. Rows are multiples of 32, as Q8_0 needs them."""

    vocabulary: int = 1024
    width: int = 192
    layers: int = 5
    heads: int = 3
    inner: int = 512
    context: int = 1024
    rope_base: float = 10_000.0
    epsilon: float = 1e-5


def rotary(length: int, size: int, base: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary position embedding (Su et al., 2021), `(length, size / 2)`."""
    steps = torch.arange(0, size, 2, device=device, dtype=torch.float32) / size
    angles = torch.outer(torch.arange(length, device=device, dtype=torch.float32), base**-steps)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate neighbouring pairs (2i, 2i + 1): llama.cpp's order for this architecture."""
    even, odd = x[..., 0::2].float(), x[..., 1::2].float()
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2).to(x.dtype)


class Block(nn.Module):
    """One layer: attention, then a gated feed-forward net."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.heads = shape.heads
        self.attn_norm = nn.RMSNorm(width, shape.epsilon)
        self.ffn_norm = nn.RMSNorm(width, shape.epsilon)
        self.attn_q, self.attn_k, self.attn_v, self.attn_output = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )
        self.ffn_gate = nn.Linear(width, shape.inner, bias=False)
        self.ffn_up = nn.Linear(width, shape.inner, bias=False)
        self.ffn_down = nn.Linear(shape.inner, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """One layer over `(batch, length, width)`."""
        x = x + self._attend(self.attn_norm(x), cos, sin)
        h = self.ffn_norm(x)
        gated: Tensor = self.ffn_down(F.silu(self.ffn_gate(h)) * self.ffn_up(h))
        return x + gated

    def _attend(self, h: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, width = h.shape
        q, k, v = (
            project(h).view(batch, length, self.heads, -1).transpose(1, 2)
            for project in (self.attn_q, self.attn_k, self.attn_v)
        )
        mixed = F.scaled_dot_product_attention(
            rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True
        )
        out: Tensor = self.attn_output(mixed.transpose(1, 2).reshape(batch, length, width))
        return out


class Answerer(nn.Module):
    """The whole model; input and output share one embedding."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocabulary, shape.width)
        self.blk = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.output_norm = nn.RMSNorm(shape.width, shape.epsilon)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                last = name.endswith(("attn_output.weight", "ffn_down.weight"))
                nn.init.normal_(weight, std=0.02 / (2 * shape.layers) ** 0.5 if last else 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits `(batch, length, vocabulary)` for tokens `(batch, length)`."""
        size = self.shape.width // self.shape.heads
        cos, sin = rotary(tokens.shape[1], size, self.shape.rope_base, tokens.device)
        x = self.token_embd(tokens)
        for block in self.blk:
            x = block(x, cos, sin)
        return F.linear(self.output_norm(x), self.token_embd.weight)
