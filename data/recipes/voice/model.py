"""The acoustic model: Piper's ids to durations and features, and the whole voice with a vocoder."""

from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.recipes.voice import features
from data.recipes.voice.vocoder import Vocoder

__all__ = ["SYMBOLS", "Acoustic", "Prediction", "Shape", "Voice", "frame_places", "gathered"]

SYMBOLS: Final = 256
PADDING: Final = 0
_LONGEST: Final = 120.0
"""Frames that one symbol lasts at most, before its length is scaled."""
_POSITIONS: Final = 3


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the network.

    Attributes:
        width: Channels of the encoder and the decoder.
        recurrent: Units of each direction of the recurrent layer.
        encoder_layers: Gated convolutions over symbols.
        dilations: One gated convolution over frames for each.
    """

    width: int = 160
    recurrent: int = 96
    encoder_layers: int = 3
    dilations: tuple[int, ...] = (1, 2, 4, 8, 1, 2)


class Gated(nn.Module):
    """A convolution with a gate, normalised, around which the input passes unchanged."""

    def __init__(self, width: int, kernel: int, dilation: int = 1, dropout: float = 0.0) -> None:
        """Keep the length: half the kernel is padded at each end."""
        super().__init__()
        self.norm = nn.LayerNorm(width)
        reach = (kernel - 1) // 2 * dilation
        self.conv = nn.Conv1d(width, 2 * width, kernel, padding=reach, dilation=dilation)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`x` is `(batch, time, width)`, `mask` `(batch, time, 1)`."""
        normal = (self.norm(x) * mask).transpose(1, 2)
        value, gate = self.conv(normal).chunk(2, 1)
        gated = (torch.tanh(value) * torch.sigmoid(gate)).transpose(1, 2)
        return x + self.dropout(self.out(gated))


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the network says about a batch.

    Attributes:
        log_durations: Log of 1 + frames of each symbol, `(batch, symbols)`.
        frames: Features, scaled to unit deviation, `(batch, frames, features.WIDTH)`.
    """

    log_durations: Tensor
    frames: Tensor


class Acoustic(nn.Module):
    """Symbols to durations and scaled features."""

    def __init__(self, shape: Shape) -> None:
        """Make the layers; `mean` and `deviation` are set from the corpus before training."""
        super().__init__()
        width = shape.width
        self.embedding = nn.Embedding(SYMBOLS, width)
        self.encoder = nn.ModuleList(
            Gated(width, 5, dropout=0.1) for _ in range(shape.encoder_layers)
        )
        self.recurrent = nn.GRU(width, shape.recurrent, batch_first=True, bidirectional=True)
        self.duration = nn.Sequential(
            nn.Linear(2 * shape.recurrent, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, 1)
        )
        self.enter = nn.Linear(2 * shape.recurrent + _POSITIONS, width)
        self.decoder = nn.ModuleList(Gated(width, 3, dilation) for dilation in shape.dilations)
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, features.WIDTH))
        self.register_buffer("mean", torch.zeros(features.WIDTH))
        self.register_buffer("deviation", torch.ones(features.WIDTH))

    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Symbols in their context, `(batch, symbols, 2 * recurrent)`."""
        x = self.embedding(ids)
        for layer in self.encoder:
            x = layer(x, mask)
        packed: Tensor = self.recurrent(x * mask)[0]
        return packed

    def decode(self, encoded: Tensor, places: Tensor, position: Tensor, mask: Tensor) -> Tensor:
        """Scaled features of frames that stand at `places` in `encoded`."""
        x = self.enter(torch.cat([gathered(encoded, places), position], 2))
        for layer in self.decoder:
            x = layer(x, mask)
        out: Tensor = self.leave(x)
        return out

    def forward(
        self, ids: Tensor, symbol_mask: Tensor, durations: Tensor, frame_mask: Tensor
    ) -> Prediction:
        """Predict with known durations, `(batch, symbols)`."""
        encoded = self.encode(ids, symbol_mask)
        log_durations = self.duration(encoded).squeeze(2)
        places, position = frame_places(durations, frame_mask.shape[1])
        return Prediction(log_durations, self.decode(encoded, places, position, frame_mask))


def frame_places(durations: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The symbol that each of `count` frames belongs to, and where in it the frame is.

    Args:
        durations: Frames of each symbol, `(batch, symbols)`, whole numbers.
        count: Frames; those after the last symbol belong to it.

    Returns:
        Indices `(batch, count)`, and `(batch, count, 3)`: the frame's place in its symbol from 0
        to 1, and its distance from both ends, in tenths of a second at most.
    """
    ends = torch.cumsum(durations, 1)
    frame = torch.arange(count, device=durations.device)
    places = (frame[None, :, None] >= ends[:, None, :]).long().sum(2)
    places = places.clamp(max=durations.shape[1] - 1)
    lasting = torch.gather(durations, 1, places).float()
    since = frame[None].float() + 0.5 - (torch.gather(ends, 1, places).float() - lasting)
    scale = 0.1 / features.FRAME_S
    position = [
        (since / lasting.clamp(min=1)).clamp(0, 1),
        (since / scale).clamp(0, 1),
        ((lasting - since) / scale).clamp(0, 1),
    ]
    return places, torch.stack(position, 2)


def gathered(values: Tensor, places: Tensor) -> Tensor:
    """`values[b, places[b, t]]`."""
    return torch.gather(values, 1, places.unsqueeze(2).expand(-1, -1, values.shape[2]))


class Voice(nn.Module):
    """What Piper runs: ids, their number and three scales to audio and durations."""

    def __init__(self, acoustic: Acoustic) -> None:
        """Join the acoustic model and the vocoder."""
        super().__init__()
        self.acoustic = acoustic
        self.vocoder = Vocoder()

    def forward(self, ids: Tensor, lengths: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
        """Speak one sentence.

        Args:
            ids: With Piper's padding between them, int64, `(1, n)`.
            lengths: How many of them count, int64, `(1,)`.
            scales: Of the noise, of the length, of the durations' noise, float32, `(3,)`. With
                both noises 0 the same ids give the same samples.

        Returns:
            Audio `(1, 1, samples)`, and frames of each id `(1, n)`, float32.
        """
        counts = (ids != PADDING) & (torch.arange(ids.shape[1])[None] < lengths[:, None])
        kept = torch.nonzero(counts[0]).squeeze(1)
        symbols = ids[:, kept]
        mask = torch.ones_like(symbols, dtype=torch.float32).unsqueeze(2)
        encoded = self.acoustic.encode(symbols, mask)
        durations = self._durations(encoded, scales)
        audio = self._audio(encoded, durations, scales[0])
        spread = torch.zeros_like(ids, dtype=torch.float32)
        return audio, spread.index_copy(1, kept, durations.float())

    def _durations(self, encoded: Tensor, scales: Tensor) -> Tensor:
        """Whole frames of each symbol; the sum is rounded, so that lengths scale exactly."""
        logs = self.acoustic.duration(encoded).squeeze(2)
        logs = logs + 0.2 * scales[2] * torch.randn_like(logs)
        frames = (torch.exp(logs) - 1).clamp(0, _LONGEST) * scales[1]
        ends = torch.round(torch.cumsum(frames, 1)).long()
        return ends - F.pad(ends[:, :-1], (1, 0))

    def _audio(self, encoded: Tensor, durations: Tensor, noise_scale: Tensor) -> Tensor:
        count = durations.sum().clamp(min=1)
        places, position = frame_places(durations, count)
        mask = torch.ones_like(position[..., :1])
        scaled = self.acoustic.decode(encoded, places, position, mask)
        frames = scaled * self.acoustic.deviation + self.acoustic.mean
        offset = (torch.rand_like(scaled[0, 0, :1]) * noise_scale * 30_000).long()
        return self.vocoder(frames, offset).unsqueeze(1)
