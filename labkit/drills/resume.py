"""The drill `resume`: connections cut at any byte, and nothing lost or repeated.

Callers speak through a proxy that cuts every one of their connections at a byte drawn from the
seed, on the way up or down, in order or with a reset, inside of the handshake as well. What an
echo gives back is compared sample by sample with what was said; what the engines answer, with
the same turn through an unharmed connection. Where the server decides when an utterance ends, a
whole stream of several is compared with the same stream unharmed: what was heard, and where
speech began and ended.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final
from urllib.parse import urlsplit

import numpy as np

from labkit.audio.pcm import SAMPLE_RATE, Float32, chunks, encode_s16le, read_audio
from labkit.client.dial import Backoff
from labkit.client.v1 import (
    Answer,
    ClientOptions,
    Event,
    Gap,
    Interrupted,
    ReplyAudio,
    SessionClient,
)
from labkit.drills.target import target_command
from labkit.drills.verdict import Finding, Progress, Verdict
from labkit.errors import ClientError
from labkit.measure.netem import UNCHANGED, Conditions, Fault, Link, Proxy
from labkit.measure.recordings import load_manifest
from labkit.measure.server_process import labkit_server, running_server
from labkit.protocol import v1

__all__ = [
    "Cuts",
    "Harm",
    "compare",
    "cut_echo",
    "cut_stream",
    "cut_voice",
    "judged",
    "run_resume",
]

_AT_ONCE: Final = 4
_UTTERANCE_S: Final = (0.2, 1.5)
_REACH: Final = 40_000
"""Bytes of a connection among which the cut is drawn: about what a turn takes each way."""
_OPENING: Final = 1_000
"""Bytes of the handshake and the first messages; every fifth cut falls among them."""
_SAFE: Final = 3_000
"""A first connection is cut behind its opening: before, there is no session to lose."""
_PATIENCE_S: Final = 60.0
_UTTERANCES: Final = 3
"""Of a stream; with one being answered, fewer than may wait."""
_SILENCE: Final = round(1.2 * SAMPLE_RATE)
_LONG_SILENCE_S: Final = (8.0, 14.0)
_CHUNKS: Final = (SAMPLE_RATE // 50, SAMPLE_RATE // 25, SAMPLE_RATE // 5)
_STREAM_PATIENCE_S: Final = 30.0
_SERVER_ENDS: Final = v1.SessionStart(acknowledges=True, turn_detection=v1.TurnDetection.SERVER)


@dataclass(slots=True)
class Harm:
    """What cuts did to the turns of some sessions.

    Attributes:
        turns: Turns that were compared.
        samples: Samples of reply that were due in them.
        lost: Samples that are missing in the answers.
        surplus: Samples that came and were never said.
        changed: Samples that came in the place of others.
        messages_wrong: Numbered messages that were missing, repeated or out of order.
        gaps: Times that the server could not send again all that was missing.
        away_s: Seconds without a connection, for each cut that was noticed.
        broken: Sessions that ended, and why.
    """

    turns: int = 0
    samples: int = 0
    lost: int = 0
    surplus: int = 0
    changed: int = 0
    messages_wrong: int = 0
    gaps: int = 0
    away_s: list[float] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def compare(self, expected: bytes, audio: bytearray) -> None:
        """Count how the `audio` of an answer (s16le) differs from what was `expected`."""
        lost, surplus, changed = compare(expected, bytes(audio))
        self.turns += 1
        self.samples += len(expected) // 2
        self.lost += lost
        self.surplus += surplus
        self.changed += changed


def compare(expected: bytes, got: bytes) -> tuple[int, int, int]:
    """Samples (s16le) that are lost, that are too many, and that differ."""
    wanted, came = (np.frombuffer(audio, "<i2") for audio in (expected, got))
    common = min(len(wanted), len(came))
    changed = int(np.count_nonzero(wanted[:common] != came[:common]))
    return len(wanted) - common, len(came) - common, changed


class Cuts:
    """Plans where the connections of one caller are cut, and counts what was really cut.

    Attributes:
        made: Cuts that were made so far, over all callers that share this plan.
    """

    def __init__(self, wanted: int, seed: int, *, for_each: int | None = None) -> None:
        """Plan `wanted` cuts from `seed`, `for_each` caller so many at most."""
        self.wanted = wanted
        self._for_each = for_each
        self._random = random.Random(seed)
        self._proxies: list[Proxy] = []

    @property
    def enough(self) -> bool:
        """Whether as many cuts as wanted were made."""
        return self.made >= self.wanted

    @property
    def made(self) -> int:
        """Cuts that were made so far."""
        return sum(self.by_kind().values())

    def by_kind(self) -> Counter[str]:
        """Cuts that were made, by direction and way."""
        return Counter(
            f"{_direction(connection.conditions)}, {fault.value}"
            for proxy in self._proxies
            for connection in proxy.connections
            for fault in connection.faults
        )

    @asynccontextmanager
    async def before(self, url: str) -> AsyncIterator[str]:
        """The address of a proxy before the server at `url` that cuts as planned."""
        target = urlsplit(url)
        async with Proxy(target.hostname or "", target.port or 0, conditions=self.plan) as proxy:
            self._proxies.append(proxy)
            yield proxy.url()

    def plan(self, number: int) -> Conditions:
        """Where connection `number` of a caller is cut."""
        if self.enough or (self._for_each is not None and number >= self._for_each):
            return UNCHANGED
        draw = self._random
        reach = _OPENING if draw.random() < 0.2 else _REACH
        at = draw.randrange(reach) + (_SAFE if number == 0 else 0)
        link = Link(cut_after=at, fault=draw.choice([Fault.CLOSE, Fault.RESET]))
        return Conditions(up=link) if draw.random() < 0.5 else Conditions(down=link)


def _direction(conditions: Conditions) -> str:
    return "up" if conditions.up.cut_after is not None else "down"


async def run_resume(
    *, cuts: int, voice_cuts: int, seed: int, recordings: Path, tell: Progress
) -> Verdict:
    """Run the drill with an echo, and then with the engines.

    Args:
        cuts: Connections to cut while an echo answers utterances that the client ends, and once
            more while the server finds utterances in a stream.
        voice_cuts: The same while the engines answer.
        seed: Draws where they are cut, and what is said to the echo.
        recordings: Folder of what is said to the engines.
        tell: Is told how it goes on.

    Raises:
        ServerError: The server does not start.
        AudioError: There is no recording to say.
    """
    findings = []
    if cuts:
        async with running_server(labkit_server("--pipeline", "echo")) as server:
            made = Cuts(cuts, seed)
            harm = await cut_echo(server.url, made, seed, tell)
            findings += judged("echo", made, harm)
        async with running_server(target_command("scripted")) as server:
            made = Cuts(cuts, seed + 2, for_each=4)
            harm = await cut_stream(server.url, made, seed, tell)
            findings += judged("server's turns", made, harm)
    if voice_cuts:
        async with running_server(labkit_server()) as server:
            made = Cuts(voice_cuts, seed + 1, for_each=1)
            harm = await cut_voice(server.url, made, _speech(recordings), tell)
            findings += judged("engines", made, harm)
    return Verdict("resume: connections cut at any byte", tuple(findings))


def _speech(folder: Path) -> list[Float32]:
    return [read_audio(r.path) for r in load_manifest(folder) if r.kind.is_speech]


async def cut_echo(url: str, cuts: Cuts, seed: int, tell: Progress) -> Harm:
    """Say noise to an echo at `url` until enough connections were cut."""
    harm = Harm()

    async def call(number: int) -> None:
        source = np.random.default_rng([seed, number])
        async with cuts.before(url) as address, _calling(address, seed + number) as client:
            while not cuts.enough:
                said = _noise(source)
                answer = await _turn(client, said, harm)
                harm.compare(encode_s16le(said), answer.audio)
                tell("cutting an echo", cuts.made, cuts.wanted)

    await asyncio.gather(*(_noting_the_end(call(number), harm) for number in range(_AT_ONCE)))
    return harm


async def cut_voice(
    url: str, cuts: Cuts, speech: Sequence[Float32], tell: Progress, *, seed: int = 0
) -> Harm:
    """Say recordings to the engines at `url`, each uncut and cut, until enough were cut.

    Each turn has a session of its own, since what was said before bears on the answer.
    """
    harm = Harm()

    async def compare_turns(said: Float32) -> None:
        async with _calling(url, seed) as client:
            whole = await _turn(client, said, harm)
        async with cuts.before(url) as address, _calling(address, seed) as client:
            cut = await _turn(client, said, harm)
        harm.compare(bytes(whole.audio), cut.audio)
        same = (cut.transcript, cut.sentences) == (whole.transcript, whole.sentences)
        harm.messages_wrong += not same

    number = 0
    while not cuts.enough and not harm.broken:
        await _noting_the_end(compare_turns(speech[number % len(speech)]), harm)
        number += 1
        tell("cutting the engines", cuts.made, cuts.wanted)
    return harm


async def cut_stream(url: str, cuts: Cuts, seed: int, tell: Progress) -> Harm:
    """Let the server at `url` find the utterances of a stream, uncut and cut, until enough were.

    Its pipeline has to hear the same in the same samples, such as `served.scripted_pipeline`.
    """
    harm = Harm()

    async def call(number: int) -> None:
        source = np.random.default_rng([seed, number])
        while not cuts.enough and not harm.broken:
            stream = np.concatenate([_between_silences(source) for _ in range(_UTTERANCES)])
            size = int(source.choice(_CHUNKS))
            whole = Heard()
            async with _calling(url, seed + number, _SERVER_ENDS) as client:
                await _listen_to(client, stream, size, whole, Harm())
            cut = Heard()
            async with cuts.before(url) as address:
                async with _calling(address, seed + number, _SERVER_ENDS) as client:
                    await _listen_to(client, stream, size, cut, harm)
            harm.compare(bytes(whole.audio), cut.audio)
            harm.messages_wrong += whole.told != cut.told
            tell("cutting streams", cuts.made, cuts.wanted)

    await asyncio.gather(*(_noting_the_end(call(number), harm) for number in range(_AT_ONCE)))
    return harm


@dataclass(slots=True)
class Heard:
    """What a server told of a stream.

    Attributes:
        told: By kind of message, in order: where speech began and ended, what was heard, how
            the turns went. Partial transcripts are left out; they depend on the time.
        audio: The replies, one after the other.
        turns: Turns that are over.
    """

    told: dict[str, list[object]] = field(default_factory=dict)
    audio: bytearray = field(default_factory=bytearray)
    turns: int = 0

    def take(self, event: Event, harm: Harm) -> None:
        """Take the next event; losses are counted in `harm`."""
        match event:
            case v1.SpeechStarted(at_s=at_s) | v1.SpeechStopped(at_s=at_s):
                self._note(event.type, at_s)
            case v1.TranscriptFinal(text=text) | v1.ResponseText(text=text):
                self._note(event.type, text)
            case v1.ResponseDone():
                self._note(event.type, (event.turn, event.status, event.samples))
                self.turns += 1
            case ReplyAudio(payload=payload):
                self.audio += payload
            case v1.Error():
                harm.messages_wrong += 1
            case Interrupted(seconds=seconds):
                harm.away_s.append(seconds)
            case Gap():
                harm.gaps += 1

    def _note(self, kind: str, what: object) -> None:
        self.told.setdefault(kind, []).append(what)


async def _listen_to(
    client: SessionClient, stream: Float32, chunk_samples: int, heard: Heard, harm: Harm
) -> None:
    """Send a stream, and listen until all of its utterances are answered."""

    async def speak() -> None:
        for chunk in chunks(stream, chunk_samples):
            await client.send_audio(encode_s16le(chunk))

    async with asyncio.timeout(_STREAM_PATIENCE_S), asyncio.TaskGroup() as group:
        group.create_task(speak())
        while heard.turns < _UTTERANCES:
            heard.take(await client.next_event(), harm)


def _between_silences(source: np.random.Generator) -> Float32:
    """An utterance of noise, and silence long enough that it ends there.

    Before every other one lies a silence of up to 14 s, all of which a client that resumes sends
    at once.
    """
    before = round(source.uniform(*_LONG_SILENCE_S) * SAMPLE_RATE) if source.random() < 0.5 else 0
    return np.concatenate(
        [np.zeros(before, np.float32), _noise(source), np.zeros(_SILENCE, np.float32)]
    )


async def _noting_the_end(call: Awaitable[None], harm: Harm) -> None:
    try:
        await call
    except* (ClientError, TimeoutError) as group:
        error = _first(group)
        harm.broken.append(str(error) or f"no answer within {_PATIENCE_S:g} s")


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


@asynccontextmanager
async def _calling(
    url: str, seed: int, start: v1.SessionStart | None = None
) -> AsyncIterator[SessionClient]:
    options = ClientOptions(backoff=Backoff(first_s=0.01, limit_s=0.2), seed=seed)
    async with SessionClient.connect(url, start, options) as one:
        yield one


def _noise(source: np.random.Generator) -> Float32:
    """Noise, in which no stretch of samples is like another; soft enough to pass for audio."""
    samples = round(source.uniform(*_UTTERANCE_S) * SAMPLE_RATE)
    values = source.integers(-4_000, 4_000, samples)
    return (values / 32_768).astype(np.float32)


async def _turn(client: SessionClient, said: Float32, harm: Harm) -> Answer:
    """One turn; counts the messages that it should have and has not, and the other way round."""
    async with asyncio.timeout(_PATIENCE_S):
        answer = await client.say(said, pace=0)
    harm.gaps += len(answer.gaps)
    harm.away_s += [lost.seconds for lost in answer.interruptions]
    harm.messages_wrong += len(answer.errors)
    return answer


def judged(answering: str, cuts: Cuts, harm: Harm) -> list[Finding]:
    """What `cuts` did while `answering` (an echo, the engines) answered, beside the promise."""
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(cuts.by_kind().items()))
    away = f"{1000 * median(harm.away_s):.0f} ms" if harm.away_s else "-"
    audio = f"{harm.samples / SAMPLE_RATE:.0f} s of reply"
    return [
        Finding(f"{answering}: cuts", f"{cuts.made} ({kinds})", f"≥ {cuts.wanted}", cuts.enough),
        Finding(f"{answering}: turns compared", f"{harm.turns}, {audio}", "> 0", harm.turns > 0),
        *(
            Finding.none_of(f"{answering}: {name}", number)
            for name, number in (
                ("samples lost", harm.lost),
                ("samples repeated or invented", harm.surplus),
                ("samples changed", harm.changed),
                ("messages lost, repeated or different", harm.messages_wrong),
                ("gaps that the server told of", harm.gaps),
                ("sessions that broke", len(harm.broken)),
            )
        ),
        Finding.told(f"{answering}: median time without a connection", away),
        *(Finding.told(f"{answering}: broke", why) for why in harm.broken[:5]),
    ]
