"""Evaluation of the watch over declared formats: what it finds, how soon, and what it makes up.

Every utterance is sent in every wrong way, and everything in every right way, on a simulated
clock, in messages of 20, 40 or 100 ms. A recording is repeated up to ten seconds, since it takes
three to judge a pace. Message sizes and deliveries take turns over the streams.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import median
from typing import Final

import numpy as np
import soundfile

from labkit.audio.formats import ALAW, MULAW, AudioFormat, Encoding, encode_f32le
from labkit.audio.misread import FormatWatch
from labkit.audio.pcm import SAMPLE_RATE, Float32, encode_s16le, read_audio, resample
from labkit.audio.readings import Float64
from labkit.errors import ErrorCode, ProtocolError
from labkit.measure.recordings import Recording

__all__ = [
    "DELIVERIES",
    "DETECTION_BAR",
    "FalseAlarms",
    "Lie",
    "Outcome",
    "false_alarms",
    "lies",
    "listen",
    "measure",
    "negatives",
    "packets",
]

DETECTION_BAR: Final = 95.0
"""Per cent of the streams of each lie that must be found, and be named right."""

_SECONDS: Final = 10.0
_CHUNKS_MS: Final = (20, 40, 100)
_S16, _F32, _MULAW, _ALAW = Encoding
_K = ErrorCode

Send = Callable[[Float32], bytes]
"""Mono audio at 16 kHz to the bytes of a stream that lasts as long."""
Delivery = Callable[[int, float], Sequence[float]]
"""Number of messages and length of each in seconds to the time at which each comes."""


@dataclass(frozen=True, slots=True)
class Lie:
    """A way to send something else than what was declared.

    Attributes:
        sent: What is sent, in words.
        declared: What is declared instead.
        kinds: The findings that are right; none where nothing can be told, and nothing should be.
        send: Makes the bytes.
    """

    sent: str
    declared: AudioFormat
    kinds: tuple[ErrorCode, ...]
    send: Send


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was found of one kind of lie.

    Attributes:
        sent: What was sent.
        declared: What was declared, without the rate where several were tried.
        kinds: The findings that are right; none where nothing can be told, and nothing should be.
        streams: Streams that were sent.
        after_s: Seconds of audio until all was told, of each stream about which anything was.
        named: Streams of which the right findings were told, and no others.
    """

    sent: str
    declared: str
    kinds: tuple[ErrorCode, ...]
    streams: int
    after_s: Sequence[float]
    named: int

    @property
    def detected_percent(self) -> float:
        """Share of the streams about which anything was found."""
        return 100 * len(self.after_s) / self.streams

    @property
    def named_percent(self) -> float:
        """Share of the streams about which the right was found, all of it and nothing else."""
        return 100 * self.named / self.streams

    @property
    def median_s(self) -> float | None:
        """Seconds of audio until half of the findings."""
        return median(self.after_s) if self.after_s else None

    @property
    def holds(self) -> bool:
        """Whether enough was found and named, or nothing where nothing can be told."""
        if not self.kinds:
            return not self.after_s
        return min(self.detected_percent, self.named_percent) >= DETECTION_BAR


@dataclass(frozen=True, slots=True)
class FalseAlarms:
    """What was made up about audio that is as declared.

    Attributes:
        streams: Streams that were sent.
        alarms: Material, format and delivery of each finding, and its message.
    """

    streams: int
    alarms: Sequence[str]


# -- ways to write audio ---------------------------------------------------------------------


def _swapped(data: bytes, width: int) -> bytes:
    return np.frombuffer(data, np.uint8).reshape(-1, width)[:, ::-1].tobytes()


def _big_endian_16(samples: Float32) -> bytes:
    return _swapped(encode_s16le(samples), 2)


def _big_endian_32(samples: Float32) -> bytes:
    return _swapped(encode_f32le(samples), 4)


def _unsigned_8(samples: Float32) -> bytes:
    return np.clip(np.round(samples * 128) + 128, 0, 255).astype(np.uint8).tobytes()


def _unscaled(samples: Float32) -> bytes:
    return np.round(samples * 32_767).astype("<f4").tobytes()


_WRITERS: Final[tuple[tuple[str, ErrorCode, Send], ...]] = (
    ("16-bit integers", _K.LOOKS_LIKE_INT16, encode_s16le),
    ("32-bit floats", _K.LOOKS_LIKE_FLOAT32, encode_f32le),
    ("µ-law", _K.LOOKS_LIKE_MULAW, MULAW.encode),
    ("A-law", _K.LOOKS_LIKE_ALAW, ALAW.encode),
    ("unsigned 8-bit", _K.LOOKS_LIKE_UINT8, _unsigned_8),
    ("big-endian 16-bit", _K.LOOKS_LIKE_BIG_ENDIAN, _big_endian_16),
    ("big-endian floats", _K.LOOKS_LIKE_BIG_ENDIAN, _big_endian_32),
    ("floats up to ±32768", _K.FLOAT_OUT_OF_SCALE, _unscaled),
)
_OWN: Final = {
    _S16: _K.LOOKS_LIKE_INT16,
    _F32: _K.LOOKS_LIKE_FLOAT32,
    _MULAW: _K.LOOKS_LIKE_MULAW,
    _ALAW: _K.LOOKS_LIKE_ALAW,
}


def two_microphones(samples: Float32, rate: int) -> Float32:
    """Stereo of one speaker: the right is 0.3 ms later, 3 dB softer, and each has its own hiss."""
    rng = np.random.default_rng(3)
    right = 0.7 * np.concatenate([np.zeros(round(0.0003 * rate)), samples])[: len(samples)]
    frames = np.stack([samples, right], axis=1)
    return (frames + 1e-3 * rng.standard_normal(frames.shape)).astype(np.float32)


def _one_silent(samples: Float32, rate: int) -> Float32:
    return np.stack([samples, np.zeros_like(samples)], axis=1)


def _doubled(samples: Float32, rate: int) -> Float32:
    return np.repeat(samples[:, None], 2, axis=1)


def _file(form: str, subtype: str) -> Send:
    """A writer of files that remembers what it wrote; encoding is what takes longest here."""
    written: dict[bytes, bytes] = {}

    def send(samples: Float32) -> bytes:
        key = samples.tobytes()
        if key not in written:
            buffer = io.BytesIO()
            soundfile.write(buffer, samples, SAMPLE_RATE, format=form, subtype=subtype)
            written[key] = buffer.getvalue()
        return written[key]

    return send


def _from_byte(skip: int, send: Send) -> Send:
    return lambda samples: send(samples)[skip:]


def packets(ogg: bytes) -> bytes:
    """The packets of an Ogg stream without its pages (RFC 3533, section 6) and two headers."""
    at, found = 0, []
    while at < len(ogg):
        count = ogg[at + 26]
        size = sum(ogg[at + 27 : at + 27 + count])
        found.append(ogg[at + 27 + count : at + 27 + count + size])
        at += 27 + count + size
    return b"".join(found[2:])


# -- lies ------------------------------------------------------------------------------------


def _at(rate: int, write: Send) -> Send:
    return lambda samples: write(resample(samples, SAMPLE_RATE, rate))


def lies() -> Iterator[Lie]:
    """Every way in which audio is sent wrongly."""
    yield from _wrong_encodings()
    yield from _wrong_channels()
    yield from _wrong_rates()
    yield from _encoded()
    yield from _double()
    yield from _untellable()


def _wrong_encodings() -> Iterator[Lie]:
    layouts = [(8_000, 1), (16_000, 1), (48_000, 2)]
    for declared, (sent, kind, write) in product(Encoding, _WRITERS):
        if kind is _OWN[declared]:
            continue
        for rate, channels in layouts:
            form = AudioFormat(declared, rate, channels)
            yield Lie(sent, form, (kind,), _at(rate, _interleaved(write, channels)))
    for declared, skip in ((_S16, 1), (_F32, 1), (_F32, 2), (_F32, 3)):
        form = AudioFormat(declared)
        yield Lie(f"shifted by {skip} bytes", form, (_K.LOOKS_SHIFTED,), _shifted(form, skip))


def _interleaved(write: Send, channels: int) -> Send:
    return lambda samples: write(np.repeat(samples, channels))


def _shifted(form: AudioFormat, skip: int) -> Send:
    return lambda samples: form.encode(samples)[skip:] + bytes(skip)


def _wrong_channels() -> Iterator[Lie]:
    stereos = {
        "one signal in 2 channels": _doubled,
        "2 microphones": two_microphones,
        "2 channels, one silent": _one_silent,
    }
    for encoding, rate in product(Encoding, (8_000, 16_000, 48_000)):
        for sent, spread in stereos.items():
            stereo = AudioFormat(encoding, rate, 2)
            mono = AudioFormat(encoding, rate)
            send = _at(rate, _spread(encoding, spread, rate))
            yield Lie(sent, mono, (_K.LOOKS_LIKE_STEREO,), send)
        yield Lie("mono", stereo, (_K.LOOKS_LIKE_MONO,), _at(rate, mono.encode))
        yield Lie(
            "opposite channels",
            stereo,
            (_K.CHANNELS_CANCEL,),
            _at(rate, _spread(encoding, _opposite, rate)),
        )


def _opposite(samples: Float32, rate: int) -> Float32:
    return np.stack([samples, -samples], axis=1)


def _spread(encoding: Encoding, spread: Callable[[Float32, int], Float32], rate: int) -> Send:
    return lambda samples: AudioFormat(encoding).encode(spread(samples, rate).reshape(-1))


def _wrong_rates() -> Iterator[Lie]:
    pairs = [(8_000, 16_000), (16_000, 8_000), (24_000, 16_000), (44_100, 16_000),
             (48_000, 16_000), (16_000, 48_000), (8_000, 48_000), (16_000, 24_000)]  # fmt: skip
    for encoding, (true, declared) in product(Encoding, pairs):
        right = AudioFormat(encoding, true)
        yield Lie(
            f"{true} Hz as {declared}",
            AudioFormat(encoding, declared),
            (_K.RATE_MISMATCH,),
            _at(true, right.encode),
        )


def _encoded() -> Iterator[Lie]:
    flac, vorbis = _file("FLAC", "PCM_16"), _file("OGG", "VORBIS")
    opus, mp3 = _file("OGG", "OPUS"), _file("MP3", "MPEG_LAYER_III")
    streams: dict[str, Send] = {
        "FLAC": flac,
        "Ogg Vorbis": vorbis,
        "Ogg Opus": opus,
        "MP3": mp3,
        "Ogg Opus, from the middle": _from_byte(2_001, opus),
        "MP3, from the middle": _from_byte(3_001, mp3),
        "FLAC, from the middle": _from_byte(10_001, flac),
        "Opus without container": lambda samples: packets(opus(samples)),
    }
    for declared in map(AudioFormat, Encoding):
        inside = () if declared.encoding is _S16 else (_K.LOOKS_LIKE_INT16,)
        kinds = (_K.LOOKS_LIKE_FILE, *inside)
        yield Lie("WAV with header", declared, kinds, _file("WAV", "PCM_16"))
        for sent, send in streams.items():
            # FLAC takes about as many bytes a second as µ-law or A-law: there is nothing to see.
            telephone = declared.encoding in (_MULAW, _ALAW)
            untellable = sent == "FLAC, from the middle" and telephone
            yield Lie(sent, declared, () if untellable else (_K.LOOKS_LIKE_COMPRESSED,), send)


def _double() -> Iterator[Lie]:
    """Two faults at once, or three."""
    encodings = ((_F32, _S16), (_S16, _F32), (_MULAW, _S16), (_ALAW, _MULAW), (_S16, _ALAW))
    for (sent, declared), (true, said) in product(encodings, ((48_000, 16_000), (8_000, 16_000))):
        yield Lie(
            f"{sent} {true} Hz as {said}",
            AudioFormat(declared, said),
            (_OWN[sent], _K.RATE_MISMATCH),
            _at(true, AudioFormat(sent).encode),
        )
    for encoding in Encoding:
        yield Lie(
            "stereo 48000 Hz as mono 16000",
            AudioFormat(encoding, 16_000),
            (_K.LOOKS_LIKE_STEREO, _K.RATE_MISMATCH),
            _at(48_000, _spread(encoding, two_microphones, 48_000)),
        )
        yield Lie(
            "mono 48000 Hz as stereo 16000",
            AudioFormat(encoding, 16_000, 2),
            (_K.LOOKS_LIKE_MONO, _K.RATE_MISMATCH),
            _at(48_000, AudioFormat(encoding).encode),
        )
        yield Lie(
            "opposite channels, 48000 Hz as 16000",
            AudioFormat(encoding, 16_000, 2),
            (_K.CHANNELS_CANCEL, _K.RATE_MISMATCH),
            _at(48_000, _spread(encoding, _opposite, 48_000)),
        )
    yield Lie(
        "floats in stereo as mono",
        AudioFormat(_S16),
        (_K.LOOKS_LIKE_FLOAT32, _K.LOOKS_LIKE_STEREO),
        _spread(_F32, two_microphones, SAMPLE_RATE),
    )
    yield Lie(
        "big-endian 48000 Hz as 16000",
        AudioFormat(_S16),
        (_K.LOOKS_LIKE_BIG_ENDIAN, _K.RATE_MISMATCH),
        _at(48_000, _big_endian_16),
    )
    yield Lie(
        "AIFF with header",
        AudioFormat(_S16),
        (_K.LOOKS_LIKE_FILE, _K.LOOKS_LIKE_BIG_ENDIAN),
        _file("AIFF", "PCM_16"),
    )
    yield Lie(
        "WAV of floats, a header of 46 bytes",
        AudioFormat(_S16),
        (_K.LOOKS_LIKE_FILE, _K.LOOKS_LIKE_FLOAT32, _K.LOOKS_SHIFTED),
        lambda samples: b"RIFF\0\0\0\0WAVEfmt " + bytes(30) + encode_f32le(samples),
    )


def _untellable() -> Iterator[Lie]:
    yield Lie("44100 Hz as 48000", AudioFormat(_S16, 48_000), (), _at(44_100, encode_s16le))
    yield Lie(
        "left and right swapped",
        AudioFormat(_S16, 16_000, 2),
        (),
        _spread(_S16, lambda samples, rate: two_microphones(samples, rate)[:, ::-1], 16_000),
    )
    yield Lie(
        "one of two channels silent",
        AudioFormat(_S16, 16_000, 2),
        (),
        _spread(_S16, _one_silent, 16_000),
    )


# -- deliveries ------------------------------------------------------------------------------


def live(count: int, length_s: float) -> list[float]:
    """Each message when it is full."""
    return [length_s * (i + 1) for i in range(count)]


def jittered(count: int, length_s: float) -> list[float]:
    """Live, each up to 60 ms late, in order."""
    late = np.random.default_rng(count).uniform(0, 0.06, count)
    return [float(t) for t in np.maximum.accumulate(np.array(live(count, length_s)) + late)]


def stalling(count: int, length_s: float) -> list[float]:
    """Live over a network that stands still for the first of every three seconds."""
    return [t if t % 3 > 1 else t - t % 3 + 1 for t in live(count, length_s)]


def at_once(count: int, length_s: float) -> list[float]:
    """A file: everything in one burst."""
    return [0.0] * count


def head_start(count: int, length_s: float) -> list[float]:
    """Two seconds of audio at once, then live."""
    return [max(0.0, t - 2) for t in live(count, length_s)]


def gated(count: int, length_s: float) -> list[float]:
    """A second of audio, then nothing for two: a caller who mutes itself."""
    return [t + 2 * (t // 1) for t in live(count, length_s)]


DELIVERIES: Final[tuple[Delivery, ...]] = (
    live, jittered, stalling, at_once, head_start, gated,
)  # fmt: skip


# -- measuring -------------------------------------------------------------------------------


def listen(
    form: AudioFormat, data: bytes, seconds: float, chunk_ms: int, delivery: Delivery = live
) -> Sequence[tuple[float, ProtocolError]]:
    """Feed a stream to a watch; each finding with the seconds of audio until then.

    Args:
        form: What is declared.
        data: The stream.
        seconds: How long the stream lasts in truth.
        chunk_ms: How much of it a message holds.
        delivery: When the messages come.
    """
    count = max(1, round(1000 * seconds / chunk_ms))
    size = max(1, round(len(data) / count / form.frame_bytes)) * form.frame_bytes
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    watch, length_s = FormatWatch(form), seconds * size / len(data)
    return [
        ((i + 1) * length_s, mismatch)
        for i, at_s in enumerate(delivery(len(pieces), length_s))
        for mismatch in watch.feed(pieces[i], round(at_s * 1e9))
    ]


def measure(recordings: Sequence[Recording]) -> Iterator[Outcome]:
    """Send the recordings in every wrong way, and sum up what was found of each."""
    speech = [_lasting(read_audio(r.path)) for r in recordings if r.kind.is_speech]
    groups: dict[tuple[str, Encoding, tuple[ErrorCode, ...]], list[Lie]] = {}
    for lie in lies():
        groups.setdefault((lie.sent, lie.declared.encoding, lie.kinds), []).append(lie)
    for (sent, encoding, kinds), members in groups.items():
        found = list(_told(members, speech))
        told = [findings for findings in found if findings]
        yield Outcome(
            sent=sent,
            declared=str(encoding),
            kinds=kinds,
            streams=len(found),
            after_s=[findings[-1][0] for findings in told],
            named=sum({m.code for _, m in findings} == set(kinds) for findings in told),
        )


def _lasting(samples: Float32) -> Float32:
    """The recording again and again, up to ten seconds."""
    return np.resize(samples, round(_SECONDS * SAMPLE_RATE))


def _told(
    members: Sequence[Lie], speech: Sequence[Float32]
) -> Iterator[Sequence[tuple[float, ProtocolError]]]:
    for turn, (samples, lie) in enumerate(product(speech, members)):
        chunk_ms, delivery = _CHUNKS_MS[turn % 3], (live, jittered)[turn % 2]
        yield listen(lie.declared, lie.send(samples), _SECONDS, chunk_ms, delivery)


def false_alarms(recordings: Sequence[Recording]) -> FalseAlarms:
    """Send recordings and synthetic sounds as they are declared, in every format."""
    alarms, streams = [], 0
    forms = [AudioFormat(*f) for f in product(Encoding, (8_000, 16_000, 44_100, 48_000), (1, 2))]
    for (name, sound), form in product(negatives(recordings), forms):
        delivery = DELIVERIES[streams % len(DELIVERIES)]
        samples = sound(form.sample_rate)
        data = _right(samples, form, streams)
        for _, found in listen(form, data, _SECONDS, _CHUNKS_MS[streams % 3], delivery):
            alarms.append(f"{name}, {form}, {delivery.__name__}: {found}")
        streams += 1
    return FalseAlarms(streams, alarms)


def _right(samples: Float32, form: AudioFormat, turn: int) -> bytes:
    if form.channels == 1 or turn % 2:
        return form.encode(samples)
    frames = two_microphones(samples, form.sample_rate)
    return AudioFormat(form.encoding).encode(frames.reshape(-1))


def negatives(
    recordings: Sequence[Recording],
) -> Iterator[tuple[str, Callable[[int], Float32]]]:
    """Names and sounds, each a function of the sample rate, ten seconds long."""
    for recording in recordings:
        yield recording.name, _recorded(_lasting(read_audio(recording.path)))
    speech = _lasting(read_audio(next(r for r in recordings if r.kind.is_speech).path))
    yield "quiet speech", _recorded(speech / np.float32(50))
    yield "clipped speech", _recorded(np.asarray(np.clip(30 * speech, -1, 1), np.float32))
    yield "speech with an offset", _recorded(speech + np.float32(0.4))
    yield "telephone speech", _recorded(_telephone(speech))
    yield from _synthetic()


def _recorded(samples: Float32) -> Callable[[int], Float32]:
    return lambda rate: resample(samples, SAMPLE_RATE, rate)


def _telephone(samples: Float32) -> Float32:
    return resample(resample(samples, SAMPLE_RATE, 8_000), 8_000, SAMPLE_RATE)


def _synthetic() -> Iterator[tuple[str, Callable[[int], Float32]]]:
    for share in (0.004, 0.03, 0.125, 0.25, 0.375, 0.49):
        yield f"tone at {share:g} of the rate", _tone(share)
    for sigma in (0.01, 0.1, 0.3, 1.0):
        yield f"normal noise, sigma {sigma:g}", _noise(sigma, uniform=False)
        yield f"uniform noise up to {sigma:g}", _noise(sigma, uniform=True)
    yield "dither", _noise(2 / 32_768, uniform=True)
    yield "chord", _function(_chord)
    yield "square wave", _function(lambda t: np.sign(np.sin(2 * np.pi * 220 * t)) * 0.9)
    yield "dying tone", _function(lambda t: np.sin(2 * np.pi * 440 * t) * 10.0 ** (-4 * t))
    yield "digital silence", _function(np.zeros_like)
    yield "offset", _function(lambda t: np.full_like(t, 0.6))
    yield "minute offset", _function(lambda t: np.full_like(t, 1e-20))
    yield "clicks", _function(lambda t: (np.arange(len(t)) % (len(t) // 70) == 0).astype(float))


def _function(of_time: Callable[[Float64], Float64]) -> Callable[[int], Float32]:
    return lambda rate: of_time(np.arange(round(_SECONDS * rate)) / rate).astype(np.float32)


def _chord(times: Float64) -> Float64:
    phases = 2 * np.pi * np.outer((262, 330, 392, 523), times)
    return np.asarray(0.2 * np.sin(phases).sum(axis=0))


def _tone(share: float) -> Callable[[int], Float32]:
    def sound(rate: int) -> Float32:
        phase = 2 * np.pi * share * np.arange(round(_SECONDS * rate)) + 0.8
        samples: Float32 = (0.7 * np.sin(phase)).astype(np.float32)
        return samples

    return sound


def _noise(peak: float, *, uniform: bool) -> Callable[[int], Float32]:
    def sound(rate: int) -> Float32:
        rng, count = np.random.default_rng(rate), round(_SECONDS * rate)
        drawn = rng.uniform(-1, 1, count) if uniform else rng.standard_normal(count)
        samples: Float32 = np.clip(peak * drawn, -1, 1).astype(np.float32)
        return samples

    return sound
