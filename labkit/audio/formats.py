"""How audio is laid out on the wire: encodings, formats, and streams of them.

A caller declares its `AudioFormat`; inside labkit audio is mono at 16 kHz. The codecs here go
between bytes and float32. `StreamDecoder` and `StreamEncoder` add the resampling; what a caller
says comes in as int16, since a server keeps much of it, for many callers, and for long.

The two laws of the telephone, ITU-T G.711, write a sample in one byte: a sign, three bits of
segment and four of step. The steps are equal within a segment and twice as wide in the next one,
so that the error stays some 37 dB below speech whether it is loud or quiet. µ-law (North America,
Japan) begins with the finer steps, A-law (elsewhere) with the wider ones. The same bytes under the
other law are the same sound with its quiet parts torn up, so a caller says which one it sends.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import soundfile
from numpy.typing import NDArray

from labkit.audio.pcm import (
    SAMPLE_RATE,
    Float32,
    Int16,
    StreamResampler,
    decode_s16le,
    encode_s16le,
    to_float32,
    to_int16,
)
from labkit.errors import AudioError

MIN_RATE: Final = 8_000
"""Lowest sample rate that a caller may declare, that of the telephone."""
MAX_RATE: Final = 48_000
"""Highest sample rate that a caller may declare."""
MAX_CHANNELS: Final = 2
"""Most channels that a caller may declare."""

Bytes = bytes | bytearray | memoryview


def decode_f32le(data: Bytes) -> Float32:
    """Turn 32-bit float little-endian bytes into float32, clipped to [-1, 1].

    Raises:
        AudioError: `data` is no whole number of samples, or holds NaN or an infinity.
    """
    if len(data) % 4:
        raise AudioError(f"f32le audio needs a multiple of four bytes, got {len(data)}")
    return _clipped(np.frombuffer(data, dtype="<f4"))


def encode_f32le(samples: Float32) -> bytes:
    """Turn float samples, clipped to [-1, 1], into 32-bit float little-endian bytes.

    Raises:
        AudioError: A sample is NaN or infinite.
    """
    return _clipped(samples).astype("<f4").tobytes()


def _clipped(samples: Float32) -> Float32:
    _require_finite(samples)
    return samples.clip(-1, 1).astype(np.float32, copy=False)


def _require_finite(samples: Float32) -> None:
    if not np.isfinite(samples).all():
        raise AudioError("audio holds samples that are not finite (NaN or infinity)")


class Law:
    """A law of G.711, as tables: there are 256 codes, and 65,536 samples of 16 bits.

    Attributes:
        levels: The 16-bit value of each code.
    """

    def __init__(self, subtype: str) -> None:
        """Let libsndfile, which calls the law `subtype`, write down both tables."""
        every_code, every_value = bytes(range(256)), np.arange(65_536, dtype=np.uint16)
        raw = {"samplerate": MIN_RATE, "format": "RAW", "subtype": subtype}
        self.levels: Int16 = soundfile.read(
            io.BytesIO(every_code), channels=1, dtype="int16", **raw
        )[0]
        written = io.BytesIO()
        soundfile.write(written, every_value.view(np.int16), **raw)
        # In the order of the value's bits read as unsigned.
        self._codes: NDArray[np.uint8] = np.frombuffer(written.getvalue(), np.uint8)
        self._floats = to_float32(self.levels)
        for table in (self.levels, self._floats):  # which all streams share
            table.flags.writeable = False

    def decode_int16(self, data: Bytes) -> Int16:
        """Turn codes into 16-bit integers."""
        return self.levels[np.frombuffer(data, dtype=np.uint8)]

    def decode(self, data: Bytes) -> Float32:
        """Turn codes into float32 in (-1, 1)."""
        return self._floats[np.frombuffer(data, dtype=np.uint8)]

    def encode(self, samples: Float32) -> bytes:
        """Turn float samples, clipped to [-1, 1], each into the code of the step that it lies in.

        Raises:
            AudioError: A sample is not a number.
        """
        return self._codes[to_int16(samples).view(np.uint16)].tobytes()


MULAW: Final = Law("ULAW")
"""µ-law: from −32124 to 32124 on the scale of 16 bits, and two zeros."""
ALAW: Final = Law("ALAW")
"""A-law: from −32256 to 32256 on the scale of 16 bits, and no zero: silence is ±8."""


class Encoding(StrEnum):
    """How one sample is written."""

    PCM_S16LE = "pcm_s16le"
    """Signed 16-bit integer, little-endian."""
    PCM_F32LE = "pcm_f32le"
    """IEEE 754 32-bit float, little-endian, full scale ±1."""
    MULAW = "mulaw"
    """G.711 µ-law, one byte."""
    ALAW = "alaw"
    """G.711 A-law, one byte."""


@dataclass(frozen=True, slots=True)
class _Codec:
    sample_bytes: int
    decode: Callable[[Bytes], Float32]
    decode_int16: Callable[[Bytes], Int16]
    encode: Callable[[Float32], bytes]


def _s16le_int16(data: Bytes) -> Int16:
    """A view of the bytes, where the machine has the low byte first, too."""
    return np.frombuffer(data, dtype="<i2").astype(np.int16, copy=False)


def _f32le_int16(data: Bytes) -> Int16:
    return to_int16(decode_f32le(data))


_CODECS: Final = {
    Encoding.PCM_S16LE: _Codec(2, decode_s16le, _s16le_int16, encode_s16le),
    Encoding.PCM_F32LE: _Codec(4, decode_f32le, _f32le_int16, encode_f32le),
    Encoding.MULAW: _Codec(1, MULAW.decode, MULAW.decode_int16, MULAW.encode),
    Encoding.ALAW: _Codec(1, ALAW.decode, ALAW.decode_int16, ALAW.encode),
}


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """How a stream of audio is laid out.

    Attributes:
        encoding: How one sample is written.
        sample_rate: Frames per second, 8000 to 48000.
        channels: Interleaved channels, 1 or 2. A frame is one sample of each.

    Raises:
        AudioError: Rate or channels are out of range.
    """

    encoding: Encoding = Encoding.PCM_S16LE
    sample_rate: int = SAMPLE_RATE
    channels: int = 1

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
        return _CODECS[self.encoding].sample_bytes * self.channels

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
        return _CODECS[self.encoding].decode(data).reshape(-1, self.channels)

    def decode_int16(self, data: Bytes) -> Int16:
        """Turn bytes into 16-bit integers mixed to mono, shape `(frames,)`.

        What is s16le mono already is no copy: it is valid as long as `data` does not change.

        Raises:
            AudioError: `data` is no whole number of frames, or a float in it is not finite.
        """
        if self.channels > 1:
            return to_int16(mix(self.decode(data)))
        self._require_whole_frames(data)
        return _CODECS[self.encoding].decode_int16(data)

    def check(self, data: Bytes) -> None:
        """Refuse what `decode` would, at little cost: for a message that is decoded in pieces.

        Raises:
            AudioError: `data` is no whole number of frames, or a float in it is not finite.
        """
        self._require_whole_frames(data)
        if self.encoding is Encoding.PCM_F32LE:
            _require_finite(np.frombuffer(data, dtype="<f4"))

    def _require_whole_frames(self, data: Bytes) -> None:
        size = self.frame_bytes
        if len(data) % size:
            raise AudioError(f"{self} needs a multiple of {size} bytes, got {len(data)}")

    def encode(self, mono: Float32) -> bytes:
        """Turn mono float samples, shape `(n,)`, into bytes, the same in every channel.

        Raises:
            AudioError: A sample is not a number.
        """
        return _CODECS[self.encoding].encode(np.repeat(mono, self.channels))

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
    mono: Float32 = (
        frames[:, 0] if frames.shape[1] == 1 else (frames[:, 0] + frames[:, 1]) / np.float32(2)
    )
    return mono


class StreamDecoder:
    """Bytes of a format to mono int16 at 16 kHz, as one stream without seams."""

    def __init__(self, form: AudioFormat) -> None:
        """Decode what is laid out as `form`."""
        self._format = form
        self._resampler = self._fresh()

    def _fresh(self) -> StreamResampler | None:
        rate = self._format.sample_rate
        return None if rate == SAMPLE_RATE else StreamResampler(rate, SAMPLE_RATE)

    def feed(self, data: Bytes) -> Int16:
        """Take the next whole frames, give the audio that is ready.

        Of s16le mono at 16 kHz that is a view of `data`, which must not change then. The result
        does not depend on how a stream is cut, so who must not be held up feeds it in pieces.

        Raises:
            AudioError: `data` is no whole number of frames, or a float in it is not finite; then
                nothing of it was taken.
        """
        if self._resampler is None:
            return self._format.decode_int16(data)
        size = _AT_ONCE * self._format.frame_bytes
        if len(data) <= size:
            return self._resampled(data, self._resampler)
        self._format.check(data)
        # One growing buffer, so that no message is ever there twice.
        ready, view = bytearray(), memoryview(data)
        for start in range(0, len(data), size):
            ready += self._resampled(view[start : start + size], self._resampler).tobytes()
        return np.frombuffer(ready, np.int16)

    def _resampled(self, data: Bytes, resampler: StreamResampler) -> Int16:
        return to_int16(resampler.feed(mix(self._format.decode(data))))

    def flush(self) -> Int16:
        """End the utterance: give the filter's tail, and begin anew."""
        if self._resampler is None:
            return np.zeros(0, np.int16)
        tail = self._resampler.feed(np.zeros(0, np.float32), last=True)
        self._resampler = self._fresh()
        return to_int16(tail)


class StreamEncoder:
    """Mono float32 at 16 kHz to bytes of a format, as one stream without seams."""

    def __init__(self, form: AudioFormat) -> None:
        """Encode into `form`."""
        self._format = form
        self._resampler = self._fresh()

    def _fresh(self) -> StreamResampler:
        return StreamResampler(SAMPLE_RATE, self._format.sample_rate)

    def feed(self, samples: Float32) -> bytes:
        """Take the next samples, give the whole frames that are ready.

        Raises:
            AudioError: A sample is not a number.
        """
        return self._format.encode(self._resampler.feed(samples))

    def flush(self) -> bytes:
        """End the utterance: give the filter's tail, and begin anew."""
        tail = self._resampler.feed(np.zeros(0, np.float32), last=True)
        self._resampler = self._fresh()
        return self._format.encode(tail)
