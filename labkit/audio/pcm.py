"""Audio as numbers and as bytes: encodings of a sample, resampling, chunking, and files.

Inside labkit audio is mono at 16 kHz, shape `(samples,)`: float32 in [-1, 1] where it is computed
with, int16 where much of it is kept, in half of the memory. How a stream of it is laid out on the
wire is in `labkit.audio.formats`.

The two laws of the telephone, ITU-T G.711, write a sample in one byte: a sign, three bits of
segment and four of step. The steps are equal within a segment and twice as wide in the next one,
so that the error stays some 37 dB below speech whether it is loud or quiet. µ-law (North America,
Japan) begins with the finer steps, A-law (elsewhere) with the wider ones. The same bytes under the
other law are the same sound with its quiet parts torn up, so a caller says which one it sends.
"""

import io
import logging
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from labkit.errors import AudioError

_log = logging.getLogger(__name__)

Float32: TypeAlias = NDArray[np.float32]
Int16: TypeAlias = NDArray[np.int16]

SAMPLE_RATE: Final = 16_000
"""Samples per second of all audio inside labkit."""
Bytes = bytes | bytearray | memoryview

_FULL_SCALE: Final = 32_768.0
_RATES: Final = (1_000, 768_000)
"""Sample rates that recordings have; another one says that the file's header is broken."""
_LOUDEST: Final = 1.1
"""Peaks of floats that conversions of rates leave above full scale; cut off, they are not heard."""
_CANCELLED: Final = 0.01
"""Channels whose mean has less power than this part of the loudest one's cancel each other out."""
_FRAME: Final = SAMPLE_RATE // 200
"""Samples of the frames whose energy says where speech ends: 5 ms."""
_AUDIBLE_DB: Final = 36.0
"""So far below the loudest frames speech still counts; the recordings' annotations use the same."""
_OVER_NOISE_DB: Final = 10.0
_SOFT_DB: Final = 20.0
"""Speech has to be so far above the quietest frames, but not where that takes away what is less
than 20 dB below the loudest: in a recording without a pause the quietest frames are speech."""


def to_float32(samples: Int16) -> Float32:
    """Turn 16-bit integers into float32 in [-1, 1)."""
    return samples.astype(np.float32) / np.float32(_FULL_SCALE)


def to_int16(samples: Float32) -> Int16:
    """Turn float samples into 16-bit integers.

    Samples outside [-1, 1] clip: +1.0 becomes 32767, where a bare cast of 32768 to int16 would
    wrap to −32768 and click. What `to_float32` gave comes back bit for bit.

    Raises:
        AudioError: A sample is not a number, or the samples are no floats, or not mono.
    """
    require_mono_floats(samples)
    # rint and the method clip are twice as fast on a chunk of 20 ms as round and np.clip.
    scaled: Float32 = np.asarray(samples, dtype=np.float32) * np.float32(_FULL_SCALE)
    np.rint(scaled, out=scaled)
    scaled.clip(-32_768, 32_767, out=scaled)
    # One that is not a number makes the sum so; infinities were clipped.
    if math.isnan(np.add.reduce(scaled, axis=None)):
        raise AudioError("audio holds samples that are not a number (NaN)")
    return scaled.astype(np.int16)


def require_mono_floats(samples: Float32) -> None:
    """Refuse integers, which would be taken for far too loud, and channels that would be mixed up.

    Raises:
        AudioError: The samples are no floats, or not of shape `(n,)`, or `(n, 1)`.
    """
    found = np.asarray(samples)
    if found.dtype.kind != "f":
        raise AudioError(
            f"samples of type {found.dtype}, where floats in [-1, 1] are expected; "
            "labkit.audio.pcm.to_float32 makes them of int16"
        )
    if found.ndim not in (1, 2) or found.size != len(found):
        raise AudioError(
            f"samples of shape {found.shape}, where mono audio of shape (n,) is expected; "
            "samples.mean(axis=1) makes it of (n, channels)"
        )


def decode_s16le(data: Bytes) -> Float32:
    """Turn s16le bytes into float32 in [-1, 1).

    Raises:
        AudioError: `data` is no whole number of 16-bit samples.
    """
    if len(data) % 2:
        raise AudioError(f"s16le audio needs an even number of bytes, got {len(data)}")
    return to_float32(np.frombuffer(data, dtype="<i2"))


def encode_s16le(samples: Float32) -> bytes:
    """Turn float samples into s16le bytes, clipped as `to_int16` does.

    Raises:
        AudioError: As with `to_int16`.
    """
    return to_int16(samples).astype("<i2", copy=False).tobytes()


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
        AudioError: A sample is NaN or infinite, or the samples are no floats, or not mono.
    """
    require_mono_floats(samples)
    return _clipped(samples).astype("<f4").tobytes()


def _clipped(samples: Float32) -> Float32:
    require_finite(samples)
    return samples.clip(-1, 1).astype(np.float32, copy=False)


def require_finite(samples: Float32) -> None:
    """Refuse floats that no encoding but one can write.

    Raises:
        AudioError: A sample is NaN or infinite.
    """
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
        raw = {"samplerate": SAMPLE_RATE, "format": "RAW", "subtype": subtype}
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

    def decode(self, data: Bytes) -> Float32:
        """Turn codes into float32 in (-1, 1)."""
        return self._floats[np.frombuffer(data, dtype=np.uint8)]

    def encode(self, samples: Float32) -> bytes:
        """Turn float samples, clipped to [-1, 1], each into the code of the step that it lies in.

        Raises:
            AudioError: As with `to_int16`.
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
class Codec:
    """How samples of one encoding become bytes, and bytes samples."""

    sample_bytes: int
    decode: Callable[[Bytes], Float32]
    encode: Callable[[Float32], bytes]


CODECS: Final = {
    Encoding.PCM_S16LE: Codec(2, decode_s16le, encode_s16le),
    Encoding.PCM_F32LE: Codec(4, decode_f32le, encode_f32le),
    Encoding.MULAW: Codec(1, MULAW.decode, MULAW.encode),
    Encoding.ALAW: Codec(1, ALAW.decode, ALAW.encode),
}


def resample(samples: Float32, from_rate: int, to_rate: int) -> Float32:
    """Resample a whole mono recording, shape `(n,)` (libsoxr, high quality).

    Raises:
        AudioError: The samples are no floats, or not mono.
    """
    require_mono_floats(samples)
    if from_rate == to_rate:
        return np.asarray(samples, dtype=np.float32)
    return np.asarray(soxr.resample(samples, from_rate, to_rate), dtype=np.float32)


class StreamResampler:
    """Resample audio that arrives in pieces, as one stream without seams at their edges."""

    def __init__(self, from_rate: int, to_rate: int) -> None:
        self._stream = None
        if from_rate != to_rate:
            self._stream = soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32")

    def feed(self, samples: Float32) -> Float32:
        """Take the next piece, give what is ready."""
        if self._stream is None:
            return samples
        return np.asarray(self._stream.resample_chunk(samples), dtype=np.float32)

    def flush(self) -> Float32:
        """End the stream: give the filter's tail, and begin anew."""
        tail: Float32 = np.zeros(0, np.float32)
        if self._stream is not None:
            tail = self._stream.resample_chunk(tail, last=True)
            self._stream.clear()
        return tail


def chunks(samples: Float32, size: int) -> Iterator[Float32]:
    """Cut `samples` into pieces of `size` samples; the last may be shorter.

    Raises:
        ValueError: `size` is below one.
    """
    if size < 1:
        raise ValueError(f"a chunk needs at least one sample, got {size}")
    for start in range(0, len(samples), size):
        yield samples[start : start + size]


def leading_silence(samples: Float32, sample_rate: int, threshold: float = 0.01) -> float:
    """Seconds before the first sample above `threshold` (linear, 0.01 is −40 dBFS).

    All of the audio, where no sample is above it.
    """
    loud = np.flatnonzero(np.abs(samples) > threshold)
    return (int(loud[0]) if len(loud) else len(samples)) / sample_rate


def end_of_speech(samples: Float32) -> int | None:
    """Index of the last audible sample of speech, by energy; None where nothing stands out.

    It is the end of the last 5 ms frame within 36 dB of the loudest frames, and above the noise,
    in `samples` at 16 kHz with the silence around the speech. Who knows better, from an
    annotation, should not ask.
    """
    whole = samples[: len(samples) // _FRAME * _FRAME].reshape(-1, _FRAME)
    if not len(whole):
        return None
    level = np.sqrt(np.mean(whole.astype(np.float64) ** 2, axis=1))
    quiet, loud = np.percentile(level, (10, 95))
    noise = min(quiet * _ratio(_OVER_NOISE_DB), loud * _ratio(-_SOFT_DB))
    audible = np.flatnonzero(level > max(loud * _ratio(-_AUDIBLE_DB), noise))
    if len(audible) == 0 or loud < quiet * _ratio(_OVER_NOISE_DB):
        return None
    return (int(audible[-1]) + 1) * _FRAME - 1


def _ratio(decibels: float) -> float:
    return float(10 ** (decibels / 20))


def read_audio(path: Path) -> Float32:
    """Read a recording of any rate, channel count and format that libsndfile knows.

    Channels are averaged to mono, samples clipped to [-1, 1] (which is logged where it can be
    heard), and the rate converted to 16 kHz.

    Raises:
        AudioError: The file is missing, is no audio, is empty, or holds what is no sound.
    """
    try:
        # As bytes: soundfile encodes a text itself, and fails at a name that is not UTF-8.
        data, rate = soundfile.read(os.fsencode(path), dtype="float32", always_2d=True)
    except (OSError, TypeError, soundfile.LibsndfileError) as error:
        # TypeError: soundfile takes a name that ends in .raw for audio without a header.
        why = error.error_string if isinstance(error, soundfile.LibsndfileError) else error
        raise AudioError(f"{path} is no readable WAV or FLAC recording: {why}") from error
    if not _RATES[0] <= rate <= _RATES[1]:
        raise AudioError(
            f"{path} says that it has {rate} samples a second, and recordings have {_RATES[0]} to "
            f"{_RATES[1]}; export it anew"
        )
    if len(data) * SAMPLE_RATE < rate:
        raise AudioError(f"{path} holds no samples, or next to none")
    if not np.isfinite(data).all():
        raise AudioError(
            f"{path} holds samples that are not finite (NaN or infinity); export it anew as WAV "
            "of 16 bits"
        )
    if (peak := np.abs(data).max()) > _LOUDEST:
        _log.warning(
            "%s reaches %.5g, and full scale is 1: what is above it is cut off. Export it anew as "
            "WAV of 16 bits, or make it quieter",
            path,
            peak,
        )
    return resample(_mixed(data.clip(-1, 1)), int(rate), SAMPLE_RATE)


def _mixed(frames: Float32) -> Float32:
    """The mean of the channels, or the loudest of them, where they cancel each other out."""
    mono: Float32 = frames.mean(axis=1, dtype=np.float32)
    powers = np.square(frames).mean(axis=0)
    cancelled = np.square(mono).mean() < _CANCELLED * powers.max()
    return frames[:, powers.argmax()] if cancelled else mono


def wav_file(samples: Float32, sample_rate: int = SAMPLE_RATE) -> bytes:
    """Mono audio as a WAV file of 16 bits a sample.

    Raises:
        AudioError: As with `to_int16`.
    """
    file = io.BytesIO()
    soundfile.write(file, to_int16(samples), sample_rate, subtype="PCM_16", format="WAV")
    return file.getvalue()


def write_wav(path: Path, samples: Float32) -> None:
    """Write mono audio at 16 kHz as a 16-bit WAV file.

    Raises:
        AudioError: The file cannot be written, or the samples are none, as with `to_int16`.
    """
    try:  # not soundfile's own way to write, which does not say why a path cannot be written
        path.write_bytes(wav_file(samples))
    except OSError as error:
        raise AudioError(f"{path} cannot be written: {error.strerror or error}") from error
