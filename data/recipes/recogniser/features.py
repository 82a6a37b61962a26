"""Whisper's log-mel features in PyTorch, with the knobs that augmentation turns.

With no knob turned, `log_mel` gives what faster-whisper's `FeatureExtractor` gives. Frames may
also be taken at any positions (which changes the tempo), and through a filter bank of any edges
(which changes the length of the vocal tract).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from data.recipes.recogniser.sound import SAMPLE_RATE

HOP = 160
N_FFT = 400
BINS = N_FFT // 2 + 1
MELS = 80
FLOOR = 1e-10
RANGE = 8.0
"""Decades below the loudest point that the features keep."""
_LINEAR_HZ = 200 / 3
_KNEE_HZ = 1000.0
_LOG_STEP = math.log(6.4) / 27


def hz_to_mel(hz: Tensor) -> Tensor:
    """Slaney's mel scale: linear up to 1 kHz, logarithmic above."""
    knee = _KNEE_HZ / _LINEAR_HZ
    above = knee + torch.log(hz.clamp(min=_KNEE_HZ) / _KNEE_HZ) / _LOG_STEP
    return torch.where(hz < _KNEE_HZ, hz / _LINEAR_HZ, above)


def mel_to_hz(mel: Tensor) -> Tensor:
    """The inverse of `hz_to_mel`."""
    knee = _KNEE_HZ / _LINEAR_HZ
    above = _KNEE_HZ * torch.exp(_LOG_STEP * (mel - knee).clamp(min=0))
    return torch.where(mel < knee, mel * _LINEAR_HZ, above)


def mel_edges(device: torch.device | str = "cpu") -> Tensor:
    """The 82 edges of the 80 triangular filters, in Hz."""
    top = hz_to_mel(torch.tensor(SAMPLE_RATE / 2))
    steps = torch.linspace(0, 1, MELS + 2, dtype=torch.float64)
    return mel_to_hz(steps * top.double()).float().to(device)


def filter_bank(edges: Tensor, norm_edges: Tensor) -> Tensor:
    """Triangular filters.

    Args:
        edges: Rising edges in Hz (..., 82), of which three neighbours make one filter.
        norm_edges: Edges (82,) whose distances scale the filters to equal energy.

    Returns:
        Weights (..., 80, 201) over the bins of the spectrum.
    """
    bins = torch.linspace(0, SAMPLE_RATE / 2, BINS, device=edges.device)
    left, centre, right = edges[..., :-2, None], edges[..., 1:-1, None], edges[..., 2:, None]
    rise = (bins - left) / (centre - left)
    fall = (right - bins) / (right - centre)
    energy = 2 / (norm_edges[2:] - norm_edges[:-2])
    return torch.minimum(rise, fall).clamp(min=0) * energy[:, None]


def regular_positions(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Frame positions without any change of tempo.

    Args:
        samples: Length of each clip (batch,).

    Returns:
        The sample at each frame's centre (batch, frames), and how many frames each has.
    """
    frames = samples // HOP
    longest = int(frames.max())
    grid = torch.arange(longest, device=samples.device) * HOP
    return grid.expand(len(samples), longest), frames


def power(audio: Tensor, positions: Tensor) -> Tensor:
    """Power spectra of the frames around `positions`.

    Args:
        audio: Clips (batch, samples), zero after each one's end.
        positions: Centres of the frames in samples (batch, frames).

    Returns:
        Power (batch, frames, 201).
    """
    padded = F.pad(audio[:, None], (N_FFT // 2, 0), mode="reflect")[:, 0]
    padded = F.pad(padded, (0, N_FFT))
    windows = padded.unfold(1, N_FFT, 1)
    rows = torch.arange(len(audio), device=audio.device)[:, None]
    last = windows.shape[1] - 1
    frames = windows[rows, positions.clamp(max=last)]
    if not audio.is_cuda:
        window = torch.hann_window(N_FFT, periodic=True)
        return torch.view_as_real(torch.fft.rfft(frames * window)).square().sum(-1)
    # A matrix product, not an FFT: CUDA would plan one anew for every number of frames.
    spectra = frames @ fourier(audio.device)
    return spectra[..., :BINS].square() + spectra[..., BINS:].square()


def fourier(device: torch.device) -> Tensor:
    """The Hann window and the Fourier transform as one matrix: real parts, then imaginary."""
    time = torch.arange(N_FFT, device=device, dtype=torch.float64)
    angles = 2 * math.pi / N_FFT * time[:, None] * torch.arange(BINS, device=device)
    window = torch.hann_window(N_FFT, periodic=True, device=device, dtype=torch.float64)[:, None]
    return torch.cat([angles.cos() * window, angles.sin() * window], dim=1).float()


def log_mel(spectra: Tensor, bank: Tensor, frames: Tensor) -> Tensor:
    """Whisper's features.

    Args:
        spectra: Power (batch, frames, 201).
        bank: Filters (80, 201) or (batch, 80, 201).
        frames: How many frames of each clip count (batch,).

    Returns:
        Features (batch, 80, frames), exactly zero after each clip's end.
    """
    mel = spectra @ bank.transpose(-1, -2)
    log = mel.clamp(min=FLOOR).log10()
    steps = torch.arange(log.shape[1], device=log.device)
    inside = (steps[None] < frames[:, None])[..., None]
    loudest = log.masked_fill(~inside, -math.inf).amax(dim=(1, 2), keepdim=True)
    scaled = (torch.maximum(log, loudest - RANGE) + 4) / 4
    return scaled.masked_fill(~inside, 0.0).transpose(1, 2)
