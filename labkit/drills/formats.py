"""The drill `formats`: audio that is not as declared is found and named, and no other is.

Without a server, every utterance is given to the watch in every wrong way, and everything in every
right way, on a simulated clock, in messages of 20, 40 or 100 ms. A recording is repeated up to ten
seconds, since it takes three to judge a pace. Message sizes and deliveries take turns over the
streams. A server at an address gets one stream of each kind, at the pace of speech.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from itertools import product
from statistics import median
from typing import Final

import numpy as np
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from labkit.audio.formats import WIRE, AudioFormat
from labkit.audio.misread import MISMATCHES, FormatWatch
from labkit.audio.pcm import (
    Encoding,
    Float32,
    read_audio,
)
from labkit.client.conversation import Lost
from labkit.client.dial import connected, shown
from labkit.drills import Finding, Verdict
from labkit.drills.misdeclared import (
    DELIVERIES,
    SECONDS,
    Delivery,
    Lie,
    lasting,
    lies,
    negatives,
    rightly,
)
from labkit.drills.target import session
from labkit.errors import ClientError, ErrorCode, ProtocolError
from labkit.measure.recordings import Recording, load_manifest
from labkit.measure.results import Tell
from labkit.protocol import v1

_LEAST: Final = 0.95
"""Share of the streams of each lie of which the right must be found, and nothing else."""
_CHUNKS_MS: Final = (20, 40, 100)
_OFFER_S: Final = 5.0
_HUNG_UP: Final = "hung up"
_LATE_S: Final = 1.0
"""How long the last finding may be on its way."""


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


async def measure(speech: Sequence[Float32], tell: Tell) -> AsyncIterator[Finding]:
    """Send recordings in every wrong way; a finding for each that is about the same."""
    groups: dict[tuple[str, Encoding, tuple[ErrorCode, ...]], list[Lie]] = {}
    for lie in lies():
        groups.setdefault((lie.sent, lie.declared.encoding, lie.kinds), []).append(lie)
    for done, ((sent, encoding, kinds), members) in enumerate(groups.items()):
        tell("sending in wrong formats", done, len(groups))
        found = list[Sequence[tuple[float, ProtocolError]]]()
        for one in _told(members, speech):
            found.append(one)
            await asyncio.sleep(0)  # a stream takes a moment to judge, all of them take minutes
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


async def false_alarms(recordings: Sequence[Recording], tell: Tell) -> AsyncIterator[Finding]:
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
        await asyncio.sleep(0)
    yield Finding.none_of(f"false alarms over {len(streams)} streams as declared", len(alarms))
    for example in Finding.examples(alarms):
        yield example


# -- over the wire ---------------------------------------------------------------------------


async def run_formats(
    url: str | None, *, quick: bool, tell: Tell, findings: list[Finding]
) -> Verdict:
    """Run the drill with the watch alone, or against the server at `url`.

    `findings` has what was found so far, also where something ends the drill.
    """
    recordings = load_manifest()
    spoken = [r for r in recordings if r.kind.is_speech][:: 9 if quick else 1]
    speech = [lasting(read_audio(one.path)) for one in spoken]
    title = "Audio that is not what was declared"
    if url is not None:
        findings += await send_all(url, speech[0], tell)
        return Verdict(f"{title}, sent to {shown(url)}", tuple(findings))
    silent = [r for r in recordings if not r.kind.is_speech]
    for part in (measure(speech, tell), false_alarms([*spoken, *silent], tell)):
        async for finding in part:
            findings.append(finding)
    return Verdict(f"{title}, found and named", tuple(findings))


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
