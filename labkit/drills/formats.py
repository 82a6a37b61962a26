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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from statistics import median
from typing import Final

import numpy as np
import soundfile
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from labkit.audio.formats import WIRE, AudioFormat
from labkit.audio.misread import MISMATCHES, FormatWatch
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
from labkit.client.conversation import Lost
from labkit.client.dial import connected, shown
from labkit.drills import Finding, Verdict
from labkit.drills.target import session
from labkit.errors import ClientError, ErrorCode, ProtocolError
from labkit.measure.recordings import Recording, load_manifest
from labkit.measure.results import Tell
from labkit.protocol import v1

SECONDS: Final = 10.0
"""How long a stream lasts, in truth."""
_LEAST: Final = 0.95
"""Share of the streams of each lie of which the right must be found, and nothing else."""
_CHUNKS_MS: Final = (20, 40, 100)
_OFFER_S: Final = 5.0
_HUNG_UP: Final = "hung up"
_LATE_S: Final = 1.0
"""How long the last finding may be on its way."""
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


# -- the watch alone -----------------------------------------------------------------------


def _messages(form: AudioFormat, data: bytes, chunk_ms: int) -> list[bytes]:
    """A stream in whole frames, so that each message takes about `chunk_ms` in truth."""
    frames = len(data) / (1000 * SECONDS / chunk_ms) / form.frame_bytes
    size = max(1, round(frames)) * form.frame_bytes
    return [data[at : at + size] for at in range(0, len(data), size)]


def listen(
    form: AudioFormat, data: bytes, chunk_ms: int, delivery: Delivery
) -> Sequence[tuple[float, ProtocolError]]:
    """Feed a stream to a watch that is told of `form`; each finding with the seconds until then.

    `delivery` says when its messages, `chunk_ms` each, come.
    """
    messages = _messages(form, data, chunk_ms)
    watch, length_s = FormatWatch(form), SECONDS * len(messages[0]) / len(data)
    full = length_s * np.arange(1, len(messages) + 1, dtype=np.float64)
    return [
        (full_s, mismatch)
        for message, full_s, at_s in zip(messages, full.tolist(), delivery(full), strict=True)
        for mismatch in watch.feed(message, round(at_s * 1e9))
    ]


def measure(speech: Sequence[Float32], tell: Tell) -> Iterator[Finding]:
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
        missed = len(found) - right
        # Of fewer than twenty, which a quick run has, a single one is more than 5 %, and says
        # nothing of a share.
        holds = missed <= max(1.0, (1 - _LEAST) * len(found) + 1e-9) if kinds else not missed
        yield Finding(f"{sent}, declared {encoding}", value, bar, holds)


def _told(
    members: Sequence[Lie], speech: Sequence[Float32]
) -> Iterator[Sequence[tuple[float, ProtocolError]]]:
    live_or_late = list(DELIVERIES.values())[:2]
    for turn, (samples, lie) in enumerate(product(speech, members)):
        chunk_ms, delivery = _CHUNKS_MS[turn % 3], live_or_late[turn % 2]
        yield listen(lie.declared, lie.send(samples), chunk_ms, delivery)


def false_alarms(recordings: Sequence[Recording], tell: Tell) -> Iterator[Finding]:
    """Send recordings and synthetic sounds as they are declared, in every format."""
    alarms: list[str] = []
    forms = [AudioFormat(*f) for f in product(Encoding, (8_000, 16_000, 44_100, 48_000), (1, 2))]
    streams, deliveries = list(product(negatives(recordings), forms)), list(DELIVERIES.items())
    for turn, ((name, sound), form) in enumerate(streams):
        tell("sending as declared", turn, len(streams))
        way, delivery = deliveries[turn % len(deliveries)]
        data = rightly(sound(form.sample_rate), form, turn)
        for _, fault in listen(form, data, _CHUNKS_MS[turn % 3], delivery):
            alarms.append(f"{name}, {form}, {way}: {fault}")
    yield Finding.none_of(f"false alarms over {len(streams)} streams as declared", len(alarms))
    yield from Finding.examples(alarms)


# -- over the wire ---------------------------------------------------------------------------


async def run_formats(url: str | None, *, quick: bool, tell: Tell) -> Verdict:
    """Run the drill with the watch alone, or against the server at `url`."""
    recordings = load_manifest()
    spoken = [r for r in recordings if r.kind.is_speech][:: 9 if quick else 1]
    speech = [lasting(read_audio(one.path)) for one in spoken]
    title = "Audio that is not what was declared"
    if url is not None:
        found_there = await send_all(url, speech[0], tell)
        return Verdict(f"{title}, sent to {shown(url)}", tuple(found_there))
    silent = [r for r in recordings if not r.kind.is_speech]
    found = [*measure(speech, tell), *false_alarms([*spoken, *silent], tell)]
    return Verdict(f"{title}, found and named", tuple(found))


async def send_all(url: str, speech: Float32, tell: Tell) -> list[Finding]:
    """Send one stream of each kind at the pace of speech, all at once, and what is as declared.

    To a server of the plain dialect, what may be sent in place of its one format. One that says
    nothing of any does not look, and is judged by what is as declared alone: it has to hear that
    out. A server of labkit.v1 has to look.

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
    looks = speaks_v1 or any(codes - {_HUNG_UP} for codes in told)
    for lie, codes in zip(chosen, told, strict=True):
        if lie.kinds and not looks:
            continue
        bar = ", ".join(lie.kinds) or "nothing"
        name, value = f"{lie.sent}, declared {lie.declared}", ", ".join(sorted(codes)) or "nothing"
        holds = codes - ({_HUNG_UP} if lie.kinds else set()) == set(lie.kinds)
        findings.append(Finding(name, value, bar, holds))
    if not looks:
        findings.append(Finding.told("audio in a wrong format", "not told by this server"))
    return findings


async def _speaks_v1(url: str) -> bool:
    async with connected(url):
        pass  # where nobody answers, this says so best
    with suppress(ClientError, Lost):
        async with session(url, within_s=_OFFER_S):
            return True
    return False


async def _codes(url: str, lie: Lie, speech: Float32, *, speaks_v1: bool) -> set[str]:
    form, data, sent = lie.declared, lie.send(speech), 0
    asked = v1.SessionStart(input=v1.AudioSpec.of(form))
    opened = session(url, asked, within_s=_OFFER_S) if speaks_v1 else connected(url)
    async with opened as socket:
        hearing = asyncio.create_task(_hear_codes(socket))
        start = time.perf_counter()
        with suppress(ConnectionClosed):
            for message in _messages(form, data, 40)[:-1]:
                sent += len(message)
                due = start + SECONDS * sent / len(data)
                await asyncio.sleep(due - time.perf_counter())
                await socket.send(message)
            await asyncio.sleep(_LATE_S)
        hung_up = {_HUNG_UP} if socket.close_code is not None else set[str]()
    return await hearing | hung_up


async def _hear_codes(socket: ClientConnection) -> set[str]:
    """The codes about formats in what a server says until the connection ends, in order or not."""
    codes = set()
    with suppress(ConnectionClosed):
        async for message in socket:
            with suppress(ValueError):
                said = json.loads(message) if isinstance(message, str) else None
                if isinstance(said, dict):
                    codes.add(str(said.get("code")))
    return codes & MISMATCHES
