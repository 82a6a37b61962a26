"""Features to audio, without learned parts, in operations that ONNX has.

A train of pulses (each a windowed sinc at its exact, fractional place) and stored noise are
mixed by voicing and aperiodicity, and filtered frame by frame with the minimum-phase response
of the mel amplitudes: short-time Fourier transform as a convolution, product, overlap-add as a
transposed convolution. The phase of a minimum-phase filter is a linear map of its log
amplitudes, so two constant matrices lead from the bands to the response.
"""

import math
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.recipes.voice import features
from data.recipes.voice.features import BANDS, FFT, HOP, SAMPLE_RATE

__all__ = ["Vocoder"]

WINDOW: Final = 2 * HOP
_NOISE: Final = 2**15
_BINS: Final = FFT // 2 + 1
_SINC_REACH: Final = 8.0
_QUIETEST_APERIODICITY_DB: Final = -60.0
_CODED_AT_HZ: Final = 3000.0


class Vocoder(nn.Module):
    """One sentence of features to samples.

    Shapes: `(1, frames, features.WIDTH)` to `(1, frames * HOP)`.
    """

    to_log_amplitude: Tensor
    to_phase: Tensor
    circle: Tensor
    window: Tensor
    bin_weights: Tensor
    bins: Tensor
    places: Tensor
    noise: Tensor
    rising: Tensor

    def __init__(self, seed: int = 5) -> None:
        """Compute the constant tensors; the noise follows from `seed`."""
        super().__init__()
        amplitude, phase = _minimum_phase()
        noise = np.random.default_rng(seed).standard_normal(_NOISE)
        constants = {
            "to_log_amplitude": amplitude.T,
            "to_phase": phase.T,
            "circle": np.cos(2 * np.pi * np.arange(FFT) / FFT),
            "window": _window(),
            "bin_weights": _bin_weights(),
            "noise": noise,
            "rising": _aperiodicity_slopes(),
        }
        for name, value in constants.items():
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32))
        self.register_buffer("bins", torch.arange(_BINS))
        self.register_buffer("places", torch.arange(FFT))

    def forward(self, frames: Tensor, offset: Tensor) -> Tensor:
        """See the class; `offset` (an integer) says where in the stored noise to begin."""
        voicing = frames[..., features.VOICING].clamp(0, 1)
        f0 = torch.exp(frames[..., features.LOG_F0])
        hiss = self._noise(frames.shape[1] * HOP, offset)
        pulses, noise = self._spectra(torch.cat([_pulses(_to_samples(f0)), hiss])).split(1)
        aperiodic = self._aperiodic_share(frames[..., features.APERIODICITY], voicing)
        periodic = torch.sqrt((1 - aperiodic * aperiodic).clamp_min(0)) * voicing.unsqueeze(1)
        excitation = pulses * _twice(periodic) + noise * _twice(aperiodic)
        return self._filtered(excitation, frames[..., :BANDS])

    def _spectra(self, signals: Tensor) -> Tensor:
        """Real parts, then imaginary parts, of each window: `(signals, 2 * bins, frames)`."""
        padded = F.pad(signals, (HOP // 2, HOP // 2)).unsqueeze(1)
        return F.conv1d(padded, self._fourier()[..., :WINDOW] * self.window, stride=HOP)

    def _fourier(self) -> Tensor:
        """Cosines, then negative sines, of each bin, `(2 * bins, 1, FFT)`.

        Looked up on one circle: the file stays small, and the runtime folds it when it loads.
        """
        turns = self.bins.unsqueeze(1) * self.places.unsqueeze(0)
        cosines_and_sines = torch.cat([turns, turns + FFT // 4])
        return self.circle[torch.remainder(cosines_and_sines, FFT)].unsqueeze(1)

    def _noise(self, count: int, offset: Tensor) -> Tensor:
        places = torch.remainder(torch.arange(count) + offset, _NOISE)
        return self.noise[places].unsqueeze(0)

    def _aperiodic_share(self, coded: Tensor, voicing: Tensor) -> Tensor:
        """Amplitude of the noise in each bin, `(1, bins, frames)`.

        WORLD codes one number at this sample rate: decibels at 3 kHz. Below it they rise from
        -60 dB at 0 Hz, above it to 0 dB at half the sample rate.
        """
        decibels = (coded * 20.0).clamp(_QUIETEST_APERIODICITY_DB, 0).unsqueeze(1)
        low, share = self.rising[0, :, None], self.rising[1, :, None]
        curve = low * _QUIETEST_APERIODICITY_DB + share * decibels
        voiced = torch.exp(curve * (math.log(10) / 20))
        return voiced + (1 - voiced) * (1 - voicing.unsqueeze(1))

    def _filtered(self, excitation: Tensor, bands: Tensor) -> Tensor:
        amplitude = torch.exp(bands @ self.to_log_amplitude).transpose(1, 2)
        phase = (bands @ self.to_phase).transpose(1, 2)
        real, imaginary = amplitude * torch.cos(phase), amplitude * torch.sin(phase)
        a, b = excitation[:, :_BINS], excitation[:, _BINS:]
        product = torch.cat([a * real - b * imaginary, a * imaginary + b * real], 1)
        kernels = self._fourier() * self.bin_weights
        audio = F.conv_transpose1d(product, kernels, stride=HOP)
        return audio[:, 0, HOP // 2 : HOP // 2 + bands.shape[1] * HOP]


def _twice(share: Tensor) -> Tensor:
    return torch.cat([share, share], 1)


def _to_samples(f0: Tensor) -> Tensor:
    """Straight lines between the middles of frames, `(1, frames)` to `(1, samples)`."""
    count = f0.shape[1] * HOP
    place = (torch.arange(count) + 0.5) / HOP - 0.5
    place = torch.minimum(place.clamp_min(0.0), torch.full_like(place, f0.shape[1] - 1.0))
    before = torch.floor(place)
    after = torch.minimum(before + 1, torch.full_like(place, f0.shape[1] - 1.0))
    weight = place - before
    return f0[:, before.long()] * (1 - weight) + f0[:, after.long()] * weight


def _pulses(f0: Tensor) -> Tensor:
    """Pulses of unit power at `f0` (Hz), each a windowed sinc around its exact place.

    The phase is summed in double precision: it reaches thousands of periods.
    """
    step = f0 / SAMPLE_RATE
    phase = torch.cumsum(step.double(), 1)
    distance = (phase - torch.round(phase)).float() / step
    turns = math.pi * distance
    sinc = torch.sin(turns) / torch.where(turns.abs() < 1e-4, torch.ones_like(turns), turns)
    sinc = torch.where(turns.abs() < 1e-4, torch.ones_like(turns), sinc)
    near = (distance.abs() / _SINC_REACH).clamp(max=1.0)
    return sinc * (0.5 + 0.5 * torch.cos(math.pi * near)) / torch.sqrt(step)


def _minimum_phase() -> tuple[np.ndarray, np.ndarray]:
    """Matrices from band log amplitudes to each bin's log amplitude and phase.

    The phase is the Hilbert transform of the log amplitude, by folding the real cepstrum
    (Oppenheim and Schafer).
    """
    amplitude = features.band_weights(_BINS)
    cepstrum = np.fft.irfft(amplitude, axis=0)
    fold = np.zeros((FFT, 1))
    fold[0] = fold[FFT // 2] = 1
    fold[1 : FFT // 2] = 2
    return amplitude, np.fft.rfft(cepstrum * fold, axis=0).imag


def _window() -> np.ndarray:
    """A Hann window whose copies, a hop apart, add up to one."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(WINDOW) + 0.5) / WINDOW)


def _bin_weights() -> np.ndarray:
    """Of the inverse transform of half a spectrum: the inner bins count twice."""
    weights = np.full(_BINS, 2.0 / FFT)
    weights[0] = weights[-1] = 1.0 / FFT
    return np.tile(weights, 2)[:, None, None]


def _aperiodicity_slopes() -> np.ndarray:
    """How much of the floor, and of the coded value, each bin's decibels hold; `(2, bins)`."""
    hertz = np.linspace(0, SAMPLE_RATE / 2, _BINS)
    places = [0.0, _CODED_AT_HZ, SAMPLE_RATE / 2]
    floor = np.interp(hertz, places, [1.0, 0.0, 0.0])
    coded = np.interp(hertz, places, [0.0, 1.0, 0.0])
    return np.stack([floor, coded])
