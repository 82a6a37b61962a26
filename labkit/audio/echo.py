"""A reply that comes back through the caller's microphone.

Where a loudspeaker is near a microphone and nothing cancels the echo, the detector takes the
server's own voice for the caller's. What comes back is the reply itself, later and quieter, so it
correlates with what was sent; the caller's voice does not. The measure is the normalised
cross-correlation, found for all delays at once by Fourier transform (J. P. Lewis, Fast normalized
cross-correlation, 1995), of pre-emphasised audio: the bass that all voices share counts for less.
"""

from typing import Final

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

from labkit.audio.pcm import SAMPLE_RATE, Float32

WINDOW: Final = SAMPLE_RATE // 4
"""Samples of the microphone that are looked for in the reply."""
_REACH: Final = 4 * SAMPLE_RATE
"""Samples of the reply that are remembered: what was sent ahead, and what may still be on its way
through a jitter buffer, a sound card and a room."""
_NEAR: Final = SAMPLE_RATE // 50
"""How far the delay may drift between two looks, in samples."""
_ALIKE: Final = 0.5
"""Correlation from which on it is the echo. An echo 12 dB below a caller who speaks over it has
0.25, one alone in a quiet room nearly 1."""
_ALIKE_NEAR: Final = 0.35
"""The same where the delay is known: chance has fewer places to find something."""


class EchoDetector:
    """Tells the echo of a reply from a caller who speaks over it."""

    def __init__(self) -> None:
        self._sent: Float32 = np.zeros(0, np.float32)
        self._position = 0
        """Where in all that was sent the remembered part begins."""
        self._delay: int | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return self._sent.nbytes

    def sent(self, samples: Float32) -> None:
        """More of a reply is on its way to the caller: 16 kHz."""
        whole = np.concatenate([self._sent, samples])
        self._position += max(0, len(whole) - _REACH)
        self._sent = whole[-_REACH:]

    def is_echo(self, heard: Float32, end: int) -> bool:
        """Whether the reply is what is heard.

        Args:
            heard: The last `WINDOW` samples of the microphone, or fewer, 16 kHz.
            end: Where they end in all that came of the microphone, in samples.
        """
        pattern = np.diff(heard)
        if not len(self._sent) or not np.any(pattern):
            return False
        start = end - len(heard)
        if self._delay is not None:
            near = start - self._delay - self._position
            begin, behind = max(0, near - _NEAR), near + len(heard) + _NEAR
            if self._find(pattern, begin, behind, _ALIKE_NEAR) is not None:
                return True
        found = self._find(pattern, 0, len(self._sent), _ALIKE)
        self._delay = None if found is None else start - self._position - found
        return found is not None

    def _find(self, pattern: Float32, start: int, end: int, alike: float) -> int | None:
        """Where in the remembered part `pattern` is found, between two places in it."""
        sent = np.diff(self._sent[start:end])
        places = len(sent) - len(pattern) + 1
        if places < 1:
            return None
        size = next_fast_len(len(sent), real=True)
        products = irfft(rfft(sent, size) * np.conj(rfft(pattern, size)), size)[:places]
        energy = np.concatenate([[0.0], np.cumsum(np.square(sent, dtype=np.float64))])
        energies = energy[len(pattern) :] - energy[: -len(pattern)]
        # A place of next to no energy correlates by chance with anything.
        floor = 1e-3 * float(energies.max()) + 1e-12
        found = products / np.sqrt(np.maximum(energies, floor) * float(np.sum(pattern**2)))
        best = int(np.argmax(found))
        return start + best if found[best] >= alike else None
