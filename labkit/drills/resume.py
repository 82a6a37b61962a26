"""The drill `resume`: connections cut at any byte, and nothing lost or repeated.

Callers speak through a proxy that cuts every one of their connections at a byte drawn from the
seed, on the way up or down, in order or with a reset, inside of the handshake as well. What each
is told and what it hears is compared, sample by sample, with the same calls through an unharmed
connection; what an echo gives back, with what was said. Some callers end their utterances; for
others the server decides when an utterance in a whole stream ends, and where speech began and
ended is compared, too.
"""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Final

import numpy as np

from labkit.audio.pcm import SAMPLE_RATE, Float32, chunks, encode_s16le
from labkit.client.dial import Backoff, address_of
from labkit.client.events import Event, Interrupted, ReplyAudio
from labkit.client.v1 import SessionClient
from labkit.drills import Finding, Verdict
from labkit.drills.target import PipelineName, running_target, spoken
from labkit.errors import ClientError
from labkit.measure.links import Conditions, Fault, Link
from labkit.measure.netem import UNCHANGED, Proxy
from labkit.measure.results import Tell
from labkit.protocol import v1
from labkit.protocol.replay import Missing

_AT_ONCE: Final = 4
_UTTERANCE_S: Final = (0.2, 1.5)
_REACH: Final = 40_000
"""Bytes of a connection among which the cut is drawn: about what a turn takes each way."""
_OPENING: Final = 1_000
"""Bytes of the handshake and the first messages; every fifth cut falls among them."""
_SAFE: Final = 3_000
"""A first connection is cut behind its opening: before, there is no session to lose."""
_PATIENCE_S: Final = 60.0
_ECHOES: Final = 12
"""Utterances of a call to an echo, each of which meets about one cut."""
_UTTERANCES: Final = 3
"""Of a stream; with one being answered, fewer than may wait."""
_SILENCE: Final = round(1.2 * SAMPLE_RATE)
_LONG_SILENCE_S: Final = (8.0, 14.0)
_CHUNKS: Final = (SAMPLE_RATE // 50, SAMPLE_RATE // 25, SAMPLE_RATE // 5)


# -- what callers say --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Call:
    """What a caller says in one session."""

    parts: Sequence[Float32]
    """Audio, each part sent at once when the turns in the one before are over."""
    turns: int = 1
    """Turns in each part."""
    start: v1.SessionStart = field(default_factory=lambda: v1.SessionStart(acknowledges=True))
    chunk_samples: int = SAMPLE_RATE // 25
    echoes: bool = False
    """Whether the reply has to be what was said."""


Script = Callable[[np.random.Generator], Call]
"""Draws a call."""


def utterances(source: np.random.Generator) -> Call:
    """Utterances of noise, each ended by the caller, for an echo."""
    return Call([_noise(source) for _ in range(_ECHOES)], echoes=True)


def stream(source: np.random.Generator) -> Call:
    """A stream of utterances of noise and silence, in which the server has to find them."""
    parts = [_between_silences(source) for _ in range(_UTTERANCES)]
    start = v1.SessionStart(acknowledges=True, turn_detection=v1.TurnDetection.SERVER)
    return Call([np.concatenate(parts)], _UTTERANCES, start, int(source.choice(_CHUNKS)))


def _noise(source: np.random.Generator) -> Float32:
    """Noise, in which no stretch of samples is like another; soft enough to pass for audio."""
    samples = round(source.uniform(*_UTTERANCE_S) * SAMPLE_RATE)
    values = source.integers(-4_000, 4_000, samples)
    return (values / 32_768).astype(np.float32)


def _between_silences(source: np.random.Generator) -> Float32:
    """An utterance of noise, and silence long enough that it ends there.

    Before every other one lies a silence of up to 14 s, all of which a client that resumes sends
    at once.
    """
    before = round(source.uniform(*_LONG_SILENCE_S) * SAMPLE_RATE) if source.random() < 0.5 else 0
    return np.pad(_noise(source), (before, _SILENCE))


# -- where they are cut ------------------------------------------------------------------------


class Cuts:
    """Plans where connections are cut, and counts what was really cut."""

    def __init__(self, wanted: int, seed: int, *, for_each: int | None = None) -> None:
        """Plan `wanted` cuts from `seed`, `for_each` call so many at most."""
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
            f"{'down' if connection.conditions.up.cut_after is None else 'up'}, {fault.value}"
            for proxy in self._proxies
            for connection in proxy.connections
            for fault in connection.faults
        )

    @asynccontextmanager
    async def before(self, url: str) -> AsyncIterator[str]:
        """The address of a proxy before the server at `url` that cuts as planned."""
        async with Proxy(*address_of(url), conditions=self.plan) as proxy:
            self._proxies.append(proxy)
            yield proxy.url()

    def plan(self, number: int) -> Conditions:
        """Where connection `number` of a call is cut."""
        if self.enough or (self._for_each is not None and number >= self._for_each):
            return UNCHANGED
        draw = self._random
        reach = _OPENING if draw.random() < 0.2 else _REACH
        at = draw.randrange(reach) + (_SAFE if number == 0 else 0)
        link = Link(cut_after=at, fault=draw.choice([Fault.CLOSE, Fault.RESET]))
        return Conditions(up=link) if draw.random() < 0.5 else Conditions(down=link)


# -- what they hear ----------------------------------------------------------------------------


_COMPARED: Final = {"at_s", "turn", "text", "status", "samples"}
"""Fields of a message; numbers and marks depend on the time."""


@dataclass(slots=True)
class Harm:
    """What cuts did to the calls."""

    turns: int = 0
    """Turns that were compared."""
    samples: int = 0
    """Samples of reply that were due in them."""
    lost: int = 0
    """Samples that are missing in the answers."""
    surplus: int = 0
    """Samples that came and were never said."""
    changed: int = 0
    """Samples that came in the place of others."""
    messages_wrong: int = 0
    """Messages that were missing, repeated, different, or told of an error."""
    gaps: int = 0
    """Times that the server could not send again all that was missing."""
    away_s: list[float] = field(default_factory=list)
    """Seconds without a connection, for each cut that was noticed."""
    broken: list[str] = field(default_factory=list)
    """Sessions that ended, and why."""


def compare(expected: bytes, got: bytes) -> tuple[int, int, int]:
    """Samples (s16le) that are lost, that are too many, and that differ."""
    wanted, came = (np.frombuffer(audio, "<i2") for audio in (expected, got))
    common = min(len(wanted), len(came))
    changed = int(np.count_nonzero(wanted[:common] != came[:common]))
    return len(wanted) - common, len(came) - common, changed


@dataclass(slots=True)
class _Heard:
    """What a server told in one call."""

    told: dict[str, list[object]] = field(default_factory=dict)
    """By kind of message, in order: where speech began and ended, what was heard, how the turns
    went. Partial transcripts are left out; they depend on the time."""
    audio: bytearray = field(default_factory=bytearray)
    """The replies, one after the other."""
    turns: int = 0
    """Turns that are over."""

    def take(self, event: Event, harm: Harm) -> None:
        match event:
            case (
                v1.SpeechStarted()
                | v1.SpeechStopped()
                | v1.TranscriptFinal()
                | v1.ResponseStarted()
                | v1.ResponseText()
                | v1.ResponseDone()
            ):
                said = event.model_dump(include=_COMPARED)
                self.told.setdefault(event.type, []).append(said)
                self.turns += isinstance(event, v1.ResponseDone)
            case ReplyAudio(payload=payload):
                self.audio += payload
            case v1.Error():
                harm.messages_wrong += 1
            case Interrupted(seconds=seconds):
                harm.away_s.append(seconds)
            case Missing():
                harm.gaps += 1


async def _listen(url: str, call: Call, seed: int, harm: Harm) -> _Heard:
    """Make a call, and listen until all of its turns are over; losses are counted in `harm`."""
    heard, due = _Heard(), 0
    quick = Backoff(first_s=0.01, limit_s=0.2)
    async with SessionClient.connect(url, call.start, backoff=quick, seed=seed) as client:
        for part in call.parts:
            due += call.turns
            async with asyncio.timeout(_PATIENCE_S), asyncio.TaskGroup() as group:
                group.create_task(_say(client, part, call))
                while heard.turns < due:
                    heard.take(await client.next_event(), harm)
    return heard


async def _say(client: SessionClient, part: Float32, call: Call) -> None:
    for chunk in chunks(part, call.chunk_samples):
        await client.send_audio(encode_s16le(chunk))
    if call.start.turn_detection is v1.TurnDetection.CLIENT:
        await client.end_utterance()


async def cut_calls(
    url: str, script: Script, cuts: Cuts, seed: int, tell: Tell, *, at_once: int = _AT_ONCE
) -> Harm:
    """Make calls, each uncut and cut, until enough connections were cut; compare both.

    The server's pipeline has to hear the same in the same samples. `seed` draws what is said, and
    the waits before a client tries again.
    """
    harm = Harm()

    async def caller(number: int) -> None:
        source = np.random.default_rng([abs(seed), number])  # which takes no negative ones
        while not cuts.enough and not harm.broken:
            call = script(source)
            whole = await _listen(url, call, seed + number, harm)
            async with cuts.before(url) as address:
                cut = await _listen(address, call, seed + number, harm)
            said = b"".join(map(encode_s16le, call.parts))
            expected = said if call.echoes else bytes(whole.audio)
            lost, surplus, changed = compare(expected, bytes(cut.audio))
            harm.turns += cut.turns
            harm.samples += len(expected) // 2
            harm.lost += lost
            harm.surplus += surplus
            harm.changed += changed
            harm.messages_wrong += whole.told != cut.told
            tell("cutting", min(cuts.made, cuts.wanted), cuts.wanted)

    await asyncio.gather(*(_noting_the_end(caller(number), harm) for number in range(at_once)))
    return harm


async def _noting_the_end(call: Awaitable[None], harm: Harm) -> None:
    try:
        await call
    except* (ClientError, TimeoutError) as group:
        harm.broken.append(str(group.exceptions[0]) or f"no answer within {_PATIENCE_S:g} s")


async def run_resume(
    cuts: int, voice_cuts: int, seed: int, tell: Tell, findings: list[Finding]
) -> Verdict:
    """Run the drill with an echo, with a server that finds the utterances, and with the engines.

    The first two are cut `cuts` times each, the engines `voice_cuts` times. `findings` has what was
    found, also where something ends the drill before its end.
    """
    recordings = itertools.cycle(spoken())

    async def drill(name: str, pipeline: PipelineName, script: Script, made: Cuts) -> None:
        if not made.wanted:
            return
        at_once = 1 if pipeline == "voice" else _AT_ONCE
        async with running_target(pipeline) as server:
            harm = await cut_calls(server.url, script, made, seed, tell, at_once=at_once)
        findings.extend(judged(name, made, harm))

    await drill("echo", "echo", utterances, Cuts(cuts, seed))
    await drill("server's turns", "scripted", stream, Cuts(cuts, seed + 2, for_each=4))
    await drill(
        "engines",
        "voice",
        lambda _: Call([next(recordings)]),
        Cuts(voice_cuts, seed + 1, for_each=1),
    )
    return Verdict("resume: connections cut at any byte", tuple(findings))


def judged(answering: str, cuts: Cuts, harm: Harm) -> Iterator[Finding]:
    """What `cuts` did while `answering` (an echo, the engines) answered, beside the promise."""
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(cuts.by_kind().items()))
    away = f"{1000 * median(harm.away_s):.0f} ms" if harm.away_s else "-"
    audio = f"{harm.samples / SAMPLE_RATE:.0f} s of reply"
    yield Finding(f"{answering}: cuts", f"{cuts.made} ({kinds})", f"≥ {cuts.wanted}", cuts.enough)
    yield Finding(f"{answering}: turns compared", f"{harm.turns}, {audio}", "> 0", harm.turns > 0)
    for name, number in (
        ("samples lost", harm.lost),
        ("samples repeated or invented", harm.surplus),
        ("samples changed", harm.changed),
        ("messages lost, repeated or different", harm.messages_wrong),
        ("gaps that the server told of", harm.gaps),
        ("sessions that broke", len(harm.broken)),
    ):
        yield Finding.none_of(f"{answering}: {name}", number)
    yield Finding.told(f"{answering}: median time without a connection", away)
    yield from (Finding.told(f"{answering}: broke", why) for why in harm.broken[:5])
