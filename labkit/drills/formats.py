"""The drill `formats`: audio that is not as declared is found and named, and no other is.

Without a server, every utterance is given to the watch in every wrong way, and everything in every
right way, on a simulated clock, in messages of 20, 40 or 100 ms. A recording is repeated up to ten
seconds, since it takes three to judge a pace. Message sizes and deliveries take turns over the
streams. A server at an address gets one stream of each kind, at the pace of speech.
"""

import asyncio
import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import product
from statistics import median
from typing import Final

import numpy as np
import soundfile
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from labkit.audio.formats import ALAW, MULAW, WIRE, AudioFormat, Encoding, encode_f32le
from labkit.audio.misread import MISMATCHES, FormatWatch
from labkit.audio.pcm import SAMPLE_RATE, Float32, encode_s16le, read_audio, resample
from labkit.audio.readings import Float64
from labkit.client.conversation import Lost, begin
from labkit.client.dial import connected
from labkit.drills import Finding, Progress, Verdict
from labkit.errors import ClientError, ErrorCode, ProtocolError
from labkit.measure.recordings import Recording, load_manifest
from labkit.protocol import v1
from labkit.voice.models import data_folder

__all__ = [
    "DELIVERIES",
    "Lie",
    "lies",
    "listen",
    "measure",
    "negatives",
    "packets",
    "run_formats",
    "send_all",
]

_LEAST: Final = 0.95
"""Share of the streams of each lie of which the right must be found, and nothing else."""
_SECONDS: Final = 10.0
_CHUNKS_MS: Final = (20, 40, 100)
_OFFER_S: Final = 5.0
_LATE_S: Final = 1.0
"""How long the last finding may be on its way."""
_S16, _F32, _MULAW, _ALAW = Encoding
_K = ErrorCode

Send = Callable[[Float32], bytes]
"""Mono audio at 16 kHz to the bytes of a stream that lasts as long."""
Delivery = Callable[[int, float], Sequence[float]]
"""Number of messages and length of each in seconds to the time at which each comes."""


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


# -- the watch alone -----------------------------------------------------------------------


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


def measure(speech: Sequence[Float32], tell: Progress) -> Iterator[Finding]:
    """Send recordings in every wrong way; a finding for each that is about the same."""
    groups: dict[tuple[str, Encoding, tuple[ErrorCode, ...]], list[Lie]] = {}
    for lie in lies():
        groups.setdefault((lie.sent, lie.declared.encoding, lie.kinds), []).append(lie)
    for done, ((sent, encoding, kinds), members) in enumerate(groups.items()):
        tell("sending in wrong formats", done, len(groups))
        found = list(_told(members, speech))
        right = sum({fault.code for _, fault in one} == set(kinds) for one in found)
        after_s = [one[-1][0] for one in found if one]
        value = f"{100 * right / len(found):.0f} %"
        if after_s and kinds:
            value += f", after {median(after_s):.2f} s"
        bar = f"≥ {100 * _LEAST:g} % {', '.join(kinds)}" if kinds else "100 %: cannot be told"
        holds = right >= (_LEAST if kinds else 1) * len(found)
        yield Finding(f"{sent}, declared {encoding}", value, bar, holds)


def _told(
    members: Sequence[Lie], speech: Sequence[Float32]
) -> Iterator[Sequence[tuple[float, ProtocolError]]]:
    for turn, (samples, lie) in enumerate(product(speech, members)):
        chunk_ms, delivery = _CHUNKS_MS[turn % 3], (live, jittered)[turn % 2]
        yield listen(lie.declared, lie.send(samples), _SECONDS, chunk_ms, delivery)


def false_alarms(recordings: Sequence[Recording], tell: Progress) -> Iterator[Finding]:
    """Send recordings and synthetic sounds as they are declared, in every format."""
    alarms: list[str] = []
    forms = [AudioFormat(*f) for f in product(Encoding, (8_000, 16_000, 44_100, 48_000), (1, 2))]
    streams = list(product(negatives(recordings), forms))
    for turn, ((name, sound), form) in enumerate(streams):
        tell("sending as declared", turn, len(streams))
        delivery = DELIVERIES[turn % len(DELIVERIES)]
        data = _right(sound(form.sample_rate), form, turn)
        for _, fault in listen(form, data, _SECONDS, _CHUNKS_MS[turn % 3], delivery):
            alarms.append(f"{name}, {form}, {delivery.__name__}: {fault}")
    yield Finding.none_of(f"false alarms over {len(streams)} streams as declared", len(alarms))
    yield from Finding.examples(alarms)


def _right(samples: Float32, form: AudioFormat, turn: int) -> bytes:
    if form.channels == 1 or turn % 2:
        return form.encode(samples)
    frames = two_microphones(samples, form.sample_rate)
    return AudioFormat(form.encoding).encode(frames.reshape(-1))


def _lasting(samples: Float32) -> Float32:
    """The recording again and again, up to ten seconds."""
    return np.resize(samples, round(_SECONDS * SAMPLE_RATE))


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


# -- over the wire ---------------------------------------------------------------------------


async def run_formats(url: str | None, *, quick: bool, tell: Progress) -> Verdict:
    """Run the drill with the watch alone, or against the server at `url`.

    Raises:
        ClientError: Nobody answers at `url`.
    """
    recordings = load_manifest(data_folder() / "speech")
    spoken = [r for r in recordings if r.kind.is_speech][:: 9 if quick else 1]
    speech = [_lasting(read_audio(one.path)) for one in spoken]
    title = "Audio that is not what was declared"
    if url is not None:
        return Verdict(f"{title}, sent to {url}", tuple(await send_all(url, speech[0], tell)))
    silent = [r for r in recordings if not r.kind.is_speech]
    found = [*measure(speech, tell), *false_alarms([*spoken, *silent], tell)]
    return Verdict(f"{title}, found and named", tuple(found))


async def send_all(url: str, speech: Float32, tell: Progress) -> list[Finding]:
    """Send one stream of each kind at the pace of speech, all at once, and what is as declared.

    To a server of the plain dialect, what may be sent in place of its one format. A server that
    says nothing of any is none that looks, and is told so, not judged.

    Raises:
        ClientError: Nobody answers there.
    """
    honest = [Lie("as declared", form, (), form.encode) for form in map(AudioFormat, Encoding)]
    chosen = [
        *honest,
        *(next(lie for lie in lies() if lie.kinds == (k,)) for k in sorted(MISMATCHES)),
    ]
    findings = []
    if not (speaks_v1 := await _speaks_v1(url)):
        chosen = [lie for lie in (*honest, *lies()) if lie.declared == WIRE and len(lie.kinds) < 2]
        findings.append(Finding.told("labkit.v1", "not offered: all is declared as plain audio"))
    tell("sending at the pace of speech", 0, len(chosen))
    told = await asyncio.gather(*(_codes(url, lie, speech, speaks_v1=speaks_v1) for lie in chosen))
    tell("sending at the pace of speech", len(chosen), len(chosen))
    if not any(told):
        return [*findings, Finding.told("audio in a wrong format", "not told by this server")]
    for lie, codes in zip(chosen, told, strict=True):
        bar = ", ".join(lie.kinds) or "nothing"
        name, value = f"{lie.sent}, declared {lie.declared}", ", ".join(sorted(codes)) or "nothing"
        findings.append(Finding(name, value, bar, codes == set(lie.kinds)))
    return findings


async def _speaks_v1(url: str) -> bool:
    async with connected(url):
        pass  # where nobody answers, this says so best
    with suppress(ClientError, Lost):
        async with connected(url, subprotocol=v1.SUBPROTOCOL) as socket:
            await begin(socket, v1.SessionStart(), _OFFER_S)
            return True
    return False


async def _codes(url: str, lie: Lie, speech: Float32, *, speaks_v1: bool) -> set[str]:
    """What the server says about the format of one stream."""
    form, data = lie.declared, lie.send(speech)
    size = max(1, round(len(data) / (_SECONDS / 0.04) / form.frame_bytes)) * form.frame_bytes
    async with connected(url, subprotocol=v1.SUBPROTOCOL if speaks_v1 else None) as socket:
        if speaks_v1:
            spec = v1.AudioSpec(
                encoding=form.encoding, sample_rate=form.sample_rate, channels=form.channels
            )
            await begin(socket, v1.SessionStart(input=spec), _OFFER_S)
        hearing = asyncio.create_task(_hear_codes(socket))
        start = time.perf_counter()
        with suppress(ConnectionClosed):
            for at in range(0, len(data) - size, size):
                due = start + _SECONDS * (at + size) / len(data)
                await asyncio.sleep(due - time.perf_counter())
                await socket.send(data[at : at + size])
            await asyncio.sleep(_LATE_S)
    return await hearing


async def _hear_codes(socket: ClientConnection) -> set[str]:
    """The codes about formats in what a server says until the connection ends."""
    codes = set()
    async for message in socket:
        with suppress(ValueError):
            said = json.loads(message) if isinstance(message, str) else None
            if isinstance(said, dict):
                codes.add(str(said.get("code")))
    return codes & MISMATCHES
