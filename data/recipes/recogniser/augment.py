"""Making few voices into many: what happens to a batch of clips before the model hears it.

Everything runs on the device, for a whole batch at once. `strength` from 0 to 1 ramps it up over
the first part of the training.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from data.recipes.recogniser import features
from data.recipes.recogniser.features import BINS, HOP, MELS
from data.recipes.recogniser.sound import SAMPLE_RATE

_FRAME_STEP = 32
"""Feature sequences grow in steps of this, so that few shapes occur."""


@dataclass(frozen=True)
class Ranges:
    """How far each change goes at full strength."""

    warp: float = 0.20
    """Vocal tract length: formants move by up to this share, either way."""
    wiggle: float = 0.04
    """Uneven movement of formants on top of that."""
    tempo: float = 0.28
    """Speaking rate, either way (logarithmic)."""
    unsteady: float = 0.18
    """Speaking rate within the utterance."""
    tilt_db: float = 9.0
    """Equaliser: height of its knots."""
    band_limit: float = 0.35
    """Share of clips that lose their treble, as over a telephone."""
    reverb: float = 0.4
    """Share of clips that are heard in a room."""
    noise: float = 0.6
    """Share of clips with noise."""
    quietest_db: float = 32.0
    """Least level of a clip below full scale."""
    blur: float = 0.3
    """Share of clips whose fine structure over frequency, the harmonics above all, is smoothed."""
    mask_bands: int = 14
    """Widest band of mels that is masked."""
    mask_frames: int = 14
    """Longest stretch of frames that is masked."""


def _uniform(like: Tensor, shape: tuple[int, ...], low: float = -1, high: float = 1) -> Tensor:
    return torch.rand(shape, device=like.device) * (high - low) + low


def _chance(like: Tensor, count: int, share: float) -> Tensor:
    return torch.rand(count, device=like.device) < share


def reverberate(audio: Tensor, ranges: Ranges, strength: float) -> Tensor:
    """Put a share of the clips into rooms: a decaying noise tail after the direct sound."""
    batch, length = audio.shape
    tail = SAMPLE_RATE * 2 // 5
    decay = torch.exp(_uniform(audio, (batch, 1), math.log(0.03), math.log(0.22)))
    seconds = torch.arange(tail, device=audio.device) / SAMPLE_RATE
    impulse = torch.randn(batch, tail, device=audio.device) * torch.exp(-seconds / decay)
    impulse = impulse / impulse.norm(dim=1, keepdim=True)
    wet = torch.exp(_uniform(audio, (batch, 1), math.log(0.08), math.log(0.8))) * strength
    wet = wet * _chance(audio, batch, ranges.reverb)[:, None]
    size = length + tail
    heard = torch.fft.irfft(torch.fft.rfft(audio, size) * torch.fft.rfft(impulse, size), size)
    return audio + wet * heard[:, :length]


def add_noise(audio: Tensor, samples: Tensor, ranges: Ranges, strength: float) -> Tensor:
    """Add noise of a random colour and level to a share of the clips, and a faint floor to most."""
    batch, length = audio.shape
    spectrum = torch.fft.rfft(torch.randn(batch, length, device=audio.device))
    hz = torch.linspace(1, SAMPLE_RATE / 2, spectrum.shape[1], device=audio.device) / 1000
    colour = _uniform(audio, (batch, 1), -1.2, 0.4)
    noise = torch.fft.irfft(spectrum * (hz + 0.05) ** colour, length)
    noise = noise / noise.norm(dim=1, keepdim=True) * math.sqrt(length)
    level = audio.norm(dim=1, keepdim=True) / samples[:, None].sqrt()
    loud = _chance(audio, batch, ranges.noise)[:, None]
    snr = torch.where(
        loud,
        _uniform(audio, (batch, 1), 36 - 30 * strength, 45),
        _uniform(audio, (batch, 1), 45, 90),
    )
    silent = _chance(audio, batch, 0.15)[:, None]
    gain = level * 10 ** (-snr / 20) * ~silent
    return audio + noise * gain


def equalise(like: Tensor, batch: int, ranges: Ranges, strength: float) -> Tensor:
    """Random gains over the spectrum's power (batch, 1, 201): a curve, and a loss of treble."""
    knots = _uniform(like, (batch, 1, 7)) * ranges.tilt_db * strength
    slope = _uniform(like, (batch, 1, 1)) * ranges.tilt_db * strength
    curve = F.interpolate(knots, BINS, mode="linear", align_corners=True)
    curve = curve + slope * torch.linspace(-1, 1, BINS, device=like.device)
    hz = torch.linspace(0, SAMPLE_RATE / 2, BINS, device=like.device)
    cut = _uniform(like, (batch, 1, 1), 2800, 7000)
    steep = _uniform(like, (batch, 1, 1), 0.02, 0.15)
    limited = _chance(like, batch, ranges.band_limit)[:, None, None]
    curve = curve - limited * (hz - cut).clamp(min=0) * steep
    low = _uniform(like, (batch, 1, 1), 0, 250) * limited
    curve = curve - (low - hz).clamp(min=0) * 0.15
    return 10 ** (curve.clamp(min=-90) / 10)


def warped_edges(like: Tensor, batch: int, ranges: Ranges, strength: float) -> Tensor:
    """Edges of the mel filters (batch, 82) for vocal tracts of other lengths.

    Up to 5 kHz all frequencies move by one factor, above they close up to the same top.
    """
    edges = features.mel_edges(like.device)
    factor = torch.exp(_uniform(like, (batch, 1)) * math.log1p(ranges.warp) * strength)
    knee, top = 5000.0, SAMPLE_RATE / 2
    bent = knee * factor + (edges - knee) * (top - knee * factor) / (top - knee)
    moved = torch.where(edges < knee, edges * factor, bent)
    phase = _uniform(like, (batch, 1), 0, 2 * math.pi)
    cycles = _uniform(like, (batch, 1), 0.5, 2.0)
    along = features.hz_to_mel(edges) / features.hz_to_mel(edges[-1])
    wave = torch.sin(2 * math.pi * cycles * along + phase) * _uniform(like, (batch, 1))
    moved = moved * (1 + ranges.wiggle * strength * wave * (4 * along * (1 - along)))
    return (
        moved.clamp(max=top + 1).cummax(dim=1).values
        + torch.arange(MELS + 2, device=like.device) * 1e-2
    )


def tempo_positions(
    samples: Tensor, ranges: Ranges, strength: float, most_frames: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Frame positions at another, unsteady tempo.

    Returns:
        The centres of the frames in samples (batch, frames), how many frames each clip has,
        and each clip's mean rate (1 leaves it as it was).
    """
    batch = len(samples)
    rate = torch.exp(_uniform(samples, (batch, 1)) * ranges.tempo * strength)
    least = samples[:, None] / HOP / most_frames
    rate = torch.maximum(rate, least)
    longest = int((samples[:, None] / HOP / rate).max()) + 1
    longest = min(most_frames, -(-longest // _FRAME_STEP) * _FRAME_STEP)
    steps = torch.arange(longest, device=samples.device)
    phase = _uniform(samples, (batch, 1), 0, 2 * math.pi)
    period = _uniform(samples, (batch, 1), 40, 160)
    depth = _uniform(samples, (batch, 1), 0, 1) * ranges.unsteady * strength
    # The integral of 1 + depth * sin(...): a smooth, rising path whose mean slope is the rate.
    angle = 2 * math.pi * steps / period
    sway = depth * period / (2 * math.pi) * (torch.cos(phase) - torch.cos(angle + phase))
    path = ((steps + sway) * rate * HOP).round().long().clamp(min=0)
    frames = (path < (samples[:, None] - HOP // 2)).sum(dim=1).clamp(min=1)
    return path, frames, rate[:, 0]


def blur(log: Tensor, ranges: Ranges, strength: float) -> Tensor:
    """Smooth a share of the clips over frequency, each with a Gaussian of its own width."""
    batch, mels, _ = log.shape
    width = _uniform(log, (batch, 1, 1), 0.3, 0.3 + 1.3 * strength)
    rows = torch.arange(mels, device=log.device)
    weights = torch.exp(-0.5 * ((rows[:, None] - rows) / width).square())
    smooth = (weights / weights.sum(dim=2, keepdim=True)) @ log
    return torch.where(_chance(log, batch, ranges.blur)[:, None, None], smooth, log)


def mask_bands(log: Tensor, frames: Tensor, ranges: Ranges, strength: float) -> Tensor:
    """SpecAugment: put each clip's mean over two bands and two stretches (Park et al., 2019)."""
    batch, mels, length = log.shape
    count = frames[:, None, None].clamp(min=1)
    mean = log.sum(dim=(1, 2), keepdim=True) / (count * mels)
    inside = torch.arange(length, device=log.device)[None, None] < count
    hidden = torch.zeros(batch, mels, length, dtype=torch.bool, device=log.device)
    rows = torch.arange(mels, device=log.device)[None, :, None]
    columns = torch.arange(length, device=log.device)[None, None]
    for _ in range(2):
        wide = _uniform(log, (batch, 1, 1), 0, ranges.mask_bands * strength)
        start = _uniform(log, (batch, 1, 1), 0, 1) * (mels - wide)
        hidden |= (rows >= start) & (rows < start + wide)
        long = _uniform(log, (batch, 1, 1), 0, ranges.mask_frames * strength)
        begin = _uniform(log, (batch, 1, 1), 0, 1) * (count - long)
        hidden |= (columns >= begin) & (columns < begin + long)
    # The tiny offset keeps a masked frame from being exactly zero, which means padding.
    return torch.where(hidden & inside, mean + 1e-3, log)


@torch.no_grad()
def augmented_features(
    audio: Tensor, samples: Tensor, strength: float, most_frames: int, ranges: Ranges
) -> tuple[Tensor, Tensor]:
    """Clips to log-mel features, each heard in its own way.

    Args:
        audio: Clips (batch, samples) in [-1, 1], zero after each one's end.
        samples: Length of each (batch,).
        strength: From 0 (as they are) to 1.
        most_frames: Longest feature sequence to give.
        ranges: How far each change goes.

    Returns:
        Features (batch, 80, frames), and how many frames each clip has.
    """
    batch = len(audio)
    audio = audio / audio.abs().amax(dim=1, keepdim=True).clamp(min=1e-4)
    audio = reverberate(audio, ranges, strength)
    audio = add_noise(audio, samples, ranges, strength)
    quiet = _uniform(audio, (batch, 1), 0, 1) ** 2 * ranges.quietest_db
    audio = audio * 10 ** (-(quiet + 0.5) / 20)
    inside = torch.arange(audio.shape[1], device=audio.device)[None] < samples[:, None]
    positions, frames, _ = tempo_positions(samples, ranges, strength, most_frames)
    spectra = features.power(audio * inside, positions)
    spectra = spectra * equalise(audio, batch, ranges, strength)
    edges = features.mel_edges(audio.device)
    bank = features.filter_bank(warped_edges(audio, batch, ranges, strength), edges)
    log = features.log_mel(spectra, bank, frames)
    return mask_bands(blur(log, ranges, strength), frames, ranges, strength), frames
