"""How audio is laid out on the wire: formats, and streams of them.

A caller declares its `AudioFormat`; inside labkit audio is mono at 16 kHz. `StreamDecoder` and
`StreamEncoder` go between the two; what a caller says comes in as int16, since a server keeps much
of it, for many callers, and for long.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from labkit.audio.pcm import (
    CODECS,
    SAMPLE_RATE,
    Bytes,
    Encoding,
    Float32,
    Int16,
    StreamResampler,
    require_finite,
    require_mono_floats,
    to_int16,
)
from labkit.errors import AudioError

MIN_RATE: Final = 8_000
"""Lowest sample rate that a caller may declare, that of the telephone."""
MAX_RATE: Final = 48_000
"""Highest sample rate that a caller may declare."""
MAX_CHANNELS: Final = 2
"""Most channels that a caller may declare."""


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """How a stream of audio is laid out.

    Raises:
        AudioError: Rate or channels are out of range.
    """

    encoding: Encoding = Encoding.PCM_S16LE
    """How one sample is written."""
    sample_rate: int = SAMPLE_RATE
    """Frames per second, 8000 to 48000."""
    channels: int = 1
    """Interleaved channels, 1 or 2. A frame is one sample of each."""

    def __post_init__(self) -> None:
        """Refuse what no caller may declare."""
        if not MIN_RATE <= self.sample_rate <= MAX_RATE:
            raise AudioError(
                f"sample_rate must be from {MIN_RATE} to {MAX_RATE} Hz, got {self.sample_rate}"
            )
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise AudioError(f"channels must be 1 to {MAX_CHANNELS}, got {self.channels}")

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample over all channels."""
        return CODECS[self.encoding].sample_bytes * self.channels

    @property
    def bytes_per_second(self) -> int:
        """Bytes of one second."""
        return self.frame_bytes * self.sample_rate

    def samples(self, seconds: float) -> int:
        """Whole samples per channel in `seconds`."""
        return round(seconds * self.sample_rate)

    def seconds(self, samples: int) -> float:
        """Length of `samples` samples per channel, in seconds."""
        return samples / self.sample_rate

    def decode(self, data: Bytes) -> Float32:
        """Turn bytes into float32 in [-1, 1], shape `(frames, channels)`.

        Raises:
            AudioError: `data` is no whole number of frames, or a float in it is not finite.
        """
        self._require_whole_frames(data)
        return CODECS[self.encoding].decode(data).reshape(-1, self.channels)

    def decode_int16(self, data: Bytes) -> Int16:
        """Turn bytes into 16-bit integers mixed to mono, shape `(frames,)`; raises as `decode`.

        What is s16le mono already is no copy: it is valid as long as `data` does not change.
        """
        if self.channels > 1 or self.encoding is not Encoding.PCM_S16LE:
            return to_int16(mix(self.decode(data)))
        self._require_whole_frames(data)
        return np.frombuffer(data, dtype="<i2").astype(np.int16, copy=False)

    def check(self, data: Bytes) -> None:
        """Refuse what `decode` would, at little cost: for a message that is decoded in pieces."""
        self._require_whole_frames(data)
        if self.encoding is Encoding.PCM_F32LE:
            require_finite(np.frombuffer(data, dtype="<f4"))

    def _require_whole_frames(self, data: Bytes) -> None:
        size = self.frame_bytes
        if len(data) % size:
            raise AudioError(f"{self} needs a multiple of {size} bytes, got {len(data)}")

    def encode(self, mono: Float32) -> bytes:
        """Turn mono float samples, shape `(n,)`, into bytes, the same in every channel.

        Raises:
            AudioError: A sample is not a number, or the samples are no floats, or not mono.
        """
        require_mono_floats(mono)
        return CODECS[self.encoding].encode(np.repeat(mono, self.channels))

    def __str__(self) -> str:
        layout = "mono" if self.channels == 1 else "stereo"
        return f"{self.encoding} {self.sample_rate} Hz {layout}"


WIRE: Final = AudioFormat()
"""The format of the plain dialect, in both directions: s16le, mono, 16 kHz."""


_AT_ONCE: Final = 8_192
"""Frames that are resampled at a time, whatever comes: soxr keeps buffers as large as the longest
piece that it was ever given, and floats take four times the bytes of µ-law."""


def mix(frames: Float32) -> Float32:
    """Average the channels: shape `(frames, channels)` to `(frames,)`."""
    channels = frames.shape[1]
    mono: Float32 = frames[:, 0]
    for channel in range(1, channels):  # as columns: a mean takes three times as long
        mono = mono + frames[:, channel]
    return mono / np.float32(channels) if channels > 1 else mono


class StreamDecoder:
    """Bytes of a format to mono int16 at 16 kHz, as one stream without seams."""

    def __init__(self, form: AudioFormat) -> None:
        self._format = form
        self._resampler = StreamResampler(form.sample_rate, SAMPLE_RATE)

    def feed(self, data: Bytes) -> Int16:
        """Take the next whole frames, give the audio that is ready.

        Of s16le mono at 16 kHz that is a view of `data`, which must not change then. The result
        does not depend on how a stream is cut, so who must not be held up feeds it in pieces.

        Raises:
            AudioError: `data` is no whole number of frames, or a float in it is not finite; then
                nothing of it was taken.
        """
        if self._format.sample_rate == SAMPLE_RATE:
            return self._format.decode_int16(data)
        size = _AT_ONCE * self._format.frame_bytes
        if len(data) <= size:
            return self._resampled(data)
        self._format.check(data)
        # One growing buffer, so that no message is ever there twice.
        ready, view = bytearray(), memoryview(data)
        for start in range(0, len(data), size):
            ready += self._resampled(view[start : start + size]).tobytes()
        return np.frombuffer(ready, np.int16)

    def _resampled(self, data: Bytes) -> Int16:
        return to_int16(self._resampler.feed(mix(self._format.decode(data))))

    def flush(self) -> Int16:
        """End the utterance: give the filter's tail, and begin anew."""
        return to_int16(self._resampler.flush())


class StreamEncoder:
    """Mono float32 at 16 kHz to bytes of a format, as one stream without seams."""

    def __init__(self, form: AudioFormat) -> None:
        self._format = form
        self._resampler = StreamResampler(SAMPLE_RATE, form.sample_rate)

    def feed(self, samples: Float32) -> bytes:
        """Take the next samples, give the whole frames that are ready.

        Raises:
            AudioError: As with `AudioFormat.encode`.
        """
        require_mono_floats(samples)
        return self._format.encode(self._resampler.feed(samples))

    def flush(self) -> bytes:
        """End the utterance: give the filter's tail, and begin anew."""
        return self._format.encode(self._resampler.flush())
