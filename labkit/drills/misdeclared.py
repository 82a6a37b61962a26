"""Streams for the drill `formats`: what is sent, wrongly and rightly, and when it comes."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from typing import Final

import numpy as np
import soundfile

from labkit.audio.formats import AudioFormat
from labkit.audio.pcm import (
    ALAW,
    MULAW,
    SAMPLE_RATE,
    Encoding,
    Float32,
    encode_f32le,
    encode_s16le,
    read_audio,
    resample,
)
from labkit.audio.readings import Float64
from labkit.errors import ErrorCode
from labkit.measure.recordings import Recording

SECONDS: Final = 10.0
"""How long a stream lasts, in truth: a recording is repeated, since a pace takes three to judge."""
_S16, _F32, _MULAW, _ALAW = Encoding
_K = ErrorCode

Send = Callable[[Float32], bytes]
"""Mono audio at 16 kHz to the bytes of a stream that lasts as long."""
Spread = Callable[[Float32, int], Float32]
"""Mono audio and its sample rate to frames of two channels."""
Delivery = Callable[[Float64], Float64]
"""When each message is full, in seconds, to when it comes."""


@dataclass(frozen=True, slots=True)
class Lie:
    """A way to send something else than what was declared."""

    sent: str
    declared: AudioFormat
    kinds: tuple[ErrorCode, ...]
    """The findings that are right; none where nothing can be told, and nothing should be."""
    send: Send


# -- ways to write audio ---------------------------------------------------------------------


def _swapped(data: bytes, width: int) -> bytes:
    return np.frombuffer(data, np.uint8).reshape(-1, width)[:, ::-1].tobytes()


def _big_endian_16(samples: Float32) -> bytes:
    return _swapped(encode_s16le(samples), 2)


_WRITERS: Final[tuple[tuple[str, ErrorCode, Send], ...]] = (
    ("16-bit integers", _K.LOOKS_LIKE_INT16, encode_s16le),
    ("32-bit floats", _K.LOOKS_LIKE_FLOAT32, encode_f32le),
    ("µ-law", _K.LOOKS_LIKE_MULAW, MULAW.encode),
    ("A-law", _K.LOOKS_LIKE_ALAW, ALAW.encode),
    (
        "unsigned 8-bit",
        _K.LOOKS_LIKE_UINT8,
        lambda s: np.clip(np.round(s * 128) + 128, 0, 255).astype(np.uint8).tobytes(),
    ),
    ("big-endian 16-bit", _K.LOOKS_LIKE_BIG_ENDIAN, _big_endian_16),
    ("big-endian floats", _K.LOOKS_LIKE_BIG_ENDIAN, lambda s: _swapped(encode_f32le(s), 4)),
    (
        "floats up to ±32768",
        _K.FLOAT_OUT_OF_SCALE,
        lambda s: np.round(s * 32_767).astype("<f4").tobytes(),
    ),
)
_OWN: Final = {encoding: kind for encoding, (_, kind, _) in zip(Encoding, _WRITERS, strict=False)}
"""What each encoding looks like: the first writers are theirs."""


def two_microphones(samples: Float32, rate: int) -> Float32:
    """Stereo of one speaker: the right is 0.3 ms later, 3 dB softer, and each has its own hiss."""
    rng = np.random.default_rng(3)
    right = 0.7 * np.concatenate([np.zeros(round(0.0003 * rate)), samples])[: len(samples)]
    frames = np.stack([samples, right], axis=1)
    return (frames + 1e-3 * rng.standard_normal(frames.shape)).astype(np.float32)


def _beside(factor: int) -> Spread:
    """The left channel, and so much of it in the right one."""
    return lambda samples, rate: np.stack([samples, factor * samples], axis=1)


_DOUBLED: Final = _beside(1)
_ONE_SILENT: Final = _beside(0)
_OPPOSITE: Final = _beside(-1)


def _file(form: str, subtype: str) -> Send:
    """A writer of files that remembers what it wrote; encoding is what takes longest here."""

    @cache
    def write(data: bytes) -> bytes:
        buffer, samples = io.BytesIO(), np.frombuffer(data, np.float32)
        soundfile.write(buffer, samples, SAMPLE_RATE, format=form, subtype=subtype)
        return buffer.getvalue()

    return lambda samples: write(samples.tobytes())


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


def _lie(
    sent: str,
    declared: AudioFormat,
    *kinds: ErrorCode,
    write: Send | None = None,
    rate: int | None = None,
    spread: Spread | None = None,
) -> Lie:
    """Audio as declared, but for the encoding, the rate or the channels that are named."""
    true = rate or declared.sample_rate
    write = write or AudioFormat(declared.encoding).encode

    def send(samples: Float32) -> bytes:
        heard = resample(samples, SAMPLE_RATE, true)
        return write(heard if spread is None else spread(heard, true).reshape(-1))

    return Lie(sent, declared, kinds, send)


def lies() -> Iterator[Lie]:
    """Every way in which audio is sent wrongly."""
    yield from _wrong_encodings()
    yield from _wrong_channels()
    yield from _wrong_rates()
    yield from _encoded()
    yield from _double()
    yield from _untellable()


def _wrong_encodings() -> Iterator[Lie]:
    layouts = [(8_000, 1, None), (16_000, 1, None), (48_000, 2, _DOUBLED)]
    for declared, (sent, kind, write) in product(Encoding, _WRITERS):
        for rate, channels, spread in layouts if kind is not _OWN[declared] else ():
            form = AudioFormat(declared, rate, channels)
            yield _lie(sent, form, kind, write=write, spread=spread)
    for declared, skip in ((_S16, 1), (_F32, 1), (_F32, 2), (_F32, 3)):
        form = AudioFormat(declared)
        shifted = _from_byte(skip, form.encode)
        yield _lie(f"shifted by {skip} bytes", form, _K.LOOKS_SHIFTED, write=shifted)


def _wrong_channels() -> Iterator[Lie]:
    for encoding, rate in product(Encoding, (8_000, 16_000, 48_000)):
        mono, stereo = AudioFormat(encoding, rate), AudioFormat(encoding, rate, 2)
        two = _K.LOOKS_LIKE_STEREO
        yield _lie("one signal in 2 channels", mono, two, spread=_DOUBLED)
        yield _lie("2 microphones", mono, two, spread=two_microphones)
        yield _lie("2 channels, one silent", mono, two, spread=_ONE_SILENT)
        yield _lie("mono", stereo, _K.LOOKS_LIKE_MONO)
        yield _lie("opposite channels", stereo, _K.CHANNELS_CANCEL, spread=_OPPOSITE)


def _wrong_rates() -> Iterator[Lie]:
    pairs = [(8_000, 16_000), (16_000, 8_000), (24_000, 16_000), (44_100, 16_000),
             (48_000, 16_000), (16_000, 48_000), (8_000, 48_000), (16_000, 24_000)]  # fmt: skip
    for encoding, (true, said) in product(Encoding, pairs):
        form = AudioFormat(encoding, said)
        yield _lie(f"{true} Hz as {said}", form, _K.RATE_MISMATCH, rate=true)


def _encoded() -> Iterator[Lie]:
    wav, flac = _file("WAV", "PCM_16"), _file("FLAC", "PCM_16")
    opus, mp3 = _file("OGG", "OPUS"), _file("MP3", "MPEG_LAYER_III")
    streams: dict[str, Send] = {
        "FLAC": flac,
        "Ogg Vorbis": _file("OGG", "VORBIS"),
        "Ogg Opus": opus,
        "MP3": mp3,
        "Ogg Opus, from the middle": _from_byte(2_001, opus),
        "MP3, from the middle": _from_byte(3_001, mp3),
        "FLAC, from the middle": _from_byte(10_001, flac),
        "Opus without container": lambda samples: packets(opus(samples)),
    }
    for form in map(AudioFormat, Encoding):
        inside = () if form.encoding is _S16 else (_K.LOOKS_LIKE_INT16,)
        yield _lie("WAV with header", form, _K.LOOKS_LIKE_FILE, *inside, write=wav)
        for sent, write in streams.items():
            # FLAC takes about as many bytes a second as µ-law or A-law: there is nothing to see.
            telephone = form.encoding in (_MULAW, _ALAW)
            untellable = sent == "FLAC, from the middle" and telephone
            kinds = () if untellable else (_K.LOOKS_LIKE_COMPRESSED,)
            yield _lie(sent, form, *kinds, write=write)


def _double() -> Iterator[Lie]:
    """Two faults at once, or three."""
    s16, rate = AudioFormat(_S16), _K.RATE_MISMATCH
    pairs = ((_F32, _S16), (_S16, _F32), (_MULAW, _S16), (_ALAW, _MULAW), (_S16, _ALAW))
    for (sent, said), true in product(pairs, (48_000, 8_000)):
        words, write = f"{sent} {true} Hz as 16000", AudioFormat(sent).encode
        yield _lie(words, AudioFormat(said), _OWN[sent], rate, rate=true, write=write)
    for encoding in Encoding:
        mono, stereo = AudioFormat(encoding), AudioFormat(encoding, channels=2)
        for words, form, kind, spread in (
            ("stereo 48000 Hz as mono 16000", mono, _K.LOOKS_LIKE_STEREO, two_microphones),
            ("mono 48000 Hz as stereo 16000", stereo, _K.LOOKS_LIKE_MONO, None),
            ("opposite channels, 48000 Hz as 16000", stereo, _K.CHANNELS_CANCEL, _OPPOSITE),
        ):
            yield _lie(words, form, kind, rate, rate=48_000, spread=spread)
    floats, swapped, file = _K.LOOKS_LIKE_FLOAT32, _K.LOOKS_LIKE_BIG_ENDIAN, _K.LOOKS_LIKE_FILE
    yield _lie(
        "floats in stereo as mono", s16, floats, _K.LOOKS_LIKE_STEREO,
        write=encode_f32le, spread=two_microphones,
    )  # fmt: skip
    yield _lie(
        "big-endian 48000 Hz as 16000", s16, swapped, rate, write=_big_endian_16, rate=48_000
    )
    yield _lie("AIFF with header", s16, file, swapped, write=_file("AIFF", "PCM_16"))
    header = b"RIFF\0\0\0\0WAVEfmt " + bytes(30)
    yield _lie(
        "WAV of floats, a header of 46 bytes", s16, file, floats, _K.LOOKS_SHIFTED,
        write=lambda samples: header + encode_f32le(samples),
    )  # fmt: skip


def _untellable() -> Iterator[Lie]:
    stereo = AudioFormat(_S16, 16_000, 2)
    yield _lie("44100 Hz as 48000", AudioFormat(_S16, 48_000), rate=44_100)
    yield _lie("left and right swapped", stereo, spread=lambda s, r: two_microphones(s, r)[:, ::-1])
    yield _lie("one of two channels silent", stereo, spread=_ONE_SILENT)


# -- deliveries ------------------------------------------------------------------------------


def _late(full: Float64) -> Float64:
    late = np.random.default_rng(len(full)).uniform(0, 0.06, len(full))
    return np.asarray(np.maximum.accumulate(full + late))


DELIVERIES: Final[Mapping[str, Delivery]] = {
    "live": lambda full: full,
    "up to 60 ms late, in order": _late,
    "still for the first of every three seconds": lambda full: np.where(
        full % 3 > 1, full, full - full % 3 + 1
    ),
    "all at once": np.zeros_like,
    "two seconds at once, then live": lambda full: np.maximum(0, full - 2),
    "silent for two seconds behind each one": lambda full: full + 2 * (full // 1),
}
"""Ways in which messages come: live, over a bad network, from a file, from a caller who mutes."""


# -- audio as it is declared -------------------------------------------------------------------


def lasting(samples: Float32) -> Float32:
    """The recording again and again, up to ten seconds."""
    return np.resize(samples, round(SECONDS * SAMPLE_RATE))


def rightly(samples: Float32, form: AudioFormat, turn: int) -> bytes:
    """Samples laid out as `form`; in every other turn as two microphones hear them."""
    if form.channels == 1 or turn % 2:
        return form.encode(samples)
    frames = two_microphones(samples, form.sample_rate)
    return AudioFormat(form.encoding).encode(frames.reshape(-1))


def negatives(
    recordings: Sequence[Recording],
) -> Iterator[tuple[str, Callable[[int], Float32]]]:
    """Names and sounds, each a function of the sample rate, ten seconds long."""
    sounds = {one.name: lasting(read_audio(one.path)) for one in recordings}
    speech = next(sounds[one.name] for one in recordings if one.kind.is_speech)
    sounds |= {
        "quiet speech": speech / np.float32(50),
        "clipped speech": np.asarray(np.clip(30 * speech, -1, 1), np.float32),
        "speech with an offset": speech + np.float32(0.4),
        "telephone speech": resample(resample(speech, SAMPLE_RATE, 8_000), 8_000, SAMPLE_RATE),
    }
    for name, samples in sounds.items():
        yield name, partial(resample, samples, SAMPLE_RATE)
    for name, of_time in _synthetic():
        yield name, partial(_sampled, of_time)


def _sampled(of_time: Callable[[Float64, int], Float64], rate: int) -> Float32:
    times = np.arange(round(SECONDS * rate)) / rate
    return np.clip(of_time(times, rate), -1, 1).astype(np.float32)


def _synthetic() -> Iterator[tuple[str, Callable[[Float64, int], Float64]]]:
    """Names and sounds, each a function of times and of the sample rate."""
    for share in (0.004, 0.03, 0.125, 0.25, 0.375, 0.49):
        yield f"tone at {share:g} of the rate", partial(_tone, share)
    for sigma in (0.01, 0.1, 0.3, 1.0):
        yield f"normal noise, sigma {sigma:g}", partial(_noise, sigma, False)
        yield f"uniform noise up to {sigma:g}", partial(_noise, sigma, True)
    yield "dither", partial(_noise, 2 / 32_768, True)
    yield "chord", lambda t, _: sum((_sine(f, t) for f in (262, 330, 392, 523)), 0 * t) / 5
    yield "square wave", lambda t, _: 0.9 * np.sign(_sine(220, t))
    yield "dying tone", lambda t, _: _sine(440, t) * 10.0 ** (-4 * t)
    yield "digital silence", lambda t, _: np.zeros_like(t)
    yield "offset", lambda t, _: np.full_like(t, 0.6)
    yield "minute offset", lambda t, _: np.full_like(t, 1e-20)
    yield "clicks", lambda t, _: (np.arange(len(t)) % (len(t) // 70) == 0).astype(float)


def _sine(hertz: float, times: Float64) -> Float64:
    return np.asarray(np.sin(2 * np.pi * hertz * times))


def _tone(share: float, times: Float64, rate: int) -> Float64:
    return np.asarray(0.7 * np.sin(2 * np.pi * share * rate * times + 0.8))


def _noise(peak: float, uniform: bool, times: Float64, rate: int) -> Float64:
    rng, count = np.random.default_rng(rate), len(times)
    return peak * (rng.uniform(-1, 1, count) if uniform else rng.standard_normal(count))
