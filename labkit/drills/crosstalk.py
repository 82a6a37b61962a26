"""The drill `crosstalk`: many callers at once must each get what they would get alone.

Each caller first has its conversation alone, twice, each time in a fresh session; then all have
theirs at the same time. Two runs alone tell whether the engines are deterministic at all:
where they are not, a difference in the crowd would say nothing.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, WebSocketException

from labkit.audio.pcm import Float32, encode_s16le, read_audio
from labkit.client.speech import speak
from labkit.client.v1 import Answer, ReplyAudio, SessionClient
from labkit.drills.attackers import open_socket
from labkit.drills.facts import CallerPlan, Topic
from labkit.drills.inputs import Dialect
from labkit.drills.verdict import Finding, Verdict
from labkit.errors import ClientError, ProtocolError
from labkit.protocol import plain

__all__ = [
    "Crosstalk",
    "Heard",
    "Mismatch",
    "Schedule",
    "call",
    "crosstalk",
    "judge_crosstalk",
    "mismatches",
]

_BEGIN_S: Final = 3.0
"""Time over which the callers of a crowd begin."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What a caller got in one turn.

    Attributes:
        transcript: What the server heard.
        reply: What its answer says.
        samples: Length of the spoken answer.
        audio: SHA-256 of the spoken answer, s16le at 16 kHz.
        wait_ms: From the end of the utterance to the first of the answer's audio, or to its
            end where it has none.
    """

    transcript: str
    reply: str
    samples: int
    audio: str
    wait_ms: float


Calls = Sequence[Sequence[Heard]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How fast callers speak.

    Attributes:
        pace: Times real time, in the crowd; alone, everything is sent at once.
        patience_s: Longest that one turn may take.
    """

    pace: float = 1.0
    patience_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Crosstalk:
    """What every caller got, by caller and turn.

    Attributes:
        alone: In a session alone.
        again: The same once more.
        crowd: With all others at the same time.
    """

    alone: Calls
    again: Calls
    crowd: Calls


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One thing that a caller got and would not have got alone.

    Attributes:
        caller: Its number.
        turn: Number of the turn, from 0.
        wanted: What it gets alone.
        got: What it got.
        of_another: Whether some other caller gets that alone.
    """

    caller: int
    turn: int
    wanted: str
    got: str
    of_another: bool

    def __str__(self) -> str:
        whose = ", as another caller does alone" if self.of_another else ""
        return f"caller {self.caller}, turn {self.turn}: {self.wanted!r} became {self.got!r}{whose}"


async def crosstalk(
    url: str,
    plans: Sequence[CallerPlan],
    questions: Mapping[Topic, Float32],
    schedule: Schedule,
    tell: Callable[[int], None] = lambda _: None,
) -> Crosstalk:
    """Let the callers call: each alone, again alone, and all at once.

    Args:
        url: The server.
        plans: What each says.
        questions: The spoken questions, 16 kHz.
        schedule: How fast.
        tell: Given the turns that were taken since it was last told.
    """
    spoken = [
        [*(read_audio(one.path) for one in plan.recordings), questions[plan.fact.topic]]
        for plan in plans
    ]

    async def one(number: int, pace: float) -> list[Heard]:
        return await call(
            url,
            plans[number].dialect,
            spoken[number],
            pace=pace,
            patience_s=schedule.patience_s,
            tell=lambda: tell(1),
        )

    async def begin(number: int) -> list[Heard]:
        if schedule.pace:
            await asyncio.sleep(plans[number].phase * _BEGIN_S / schedule.pace)
        return await one(number, schedule.pace)

    alone, again = [[await one(number, 0) for number in range(len(plans))] for _ in range(2)]
    crowd = await asyncio.gather(*(begin(number) for number in range(len(plans))))
    return Crosstalk(alone, again, crowd)


def mismatches(alone: Calls, other: Calls, what: Callable[[Heard], str]) -> list[Mismatch]:
    """Where callers got another `what` than alone; turns that were not answered are none. Pure."""
    found = []
    for caller, (wanted, got) in enumerate(zip(alone, other, strict=True)):
        foreign = {what(heard) for n, calls in enumerate(alone) if n != caller for heard in calls}
        for turn, (mine, theirs) in enumerate(zip(wanted, got, strict=False)):
            if what(mine) != what(theirs):
                found.append(
                    Mismatch(caller, turn, what(mine), what(theirs), what(theirs) in foreign)
                )
    return found


_COMPARED: Final[Mapping[str, Callable[[Heard], str]]] = {
    "transcripts": lambda heard: heard.transcript,
    "replies": lambda heard: heard.reply,
    "reply audio": lambda heard: heard.audio,
}


def judge_crosstalk(plans: Sequence[CallerPlan], result: Crosstalk, seed: int) -> Verdict:
    """Hold what every caller got against what it gets alone. Pure."""
    turns = sum(plan.turns for plan in plans)
    return Verdict(
        f"{len(plans)} callers at once, {turns} turns, seed {seed}",
        (
            _answered("turns answered alone", result.alone, turns),
            _answered("turns answered in the crowd", result.crowd, turns),
            *_differences(result),
            *_memory(plans, result),
            *_waits("alone, sent at once", result.alone),
            *_waits("in the crowd", result.crowd),
        ),
    )


def _answered(name: str, calls: Calls, turns: int) -> Finding:
    answered = sum(map(len, calls))
    return Finding(name, answered, f"{turns}", answered == turns)


def _differences(result: Crosstalk) -> Iterator[Finding]:
    """What differs in the crowd, where two runs alone do not differ."""
    for name, what in _COMPARED.items():
        twice = mismatches(result.alone, result.again, what)
        found = mismatches(result.alone, result.crowd, what)
        if twice:
            differ = f"{len(twice)} between two runs alone, {len(found)} in the crowd"
            yield Finding.told(f"{name} that differ: not deterministic", differ)
        else:
            yield Finding.none_of(f"{name} that differ from those alone", len(found))
        yield Finding.none_of(f"{name} that are another caller's", _foreign(found))
        yield from (Finding.told("such as", str(one)) for one in found[:3] if name != "reply audio")


def _foreign(found: Sequence[Mismatch]) -> int:
    return sum(one.of_another for one in found)


def _memory(plans: Sequence[CallerPlan], result: Crosstalk) -> Iterator[Finding]:
    """Whether the last answer has the caller's own fact, as often as alone."""
    alone, crowd = (
        sum(
            len(calls) == plan.turns and plan.fact.in_answer(calls[-1].reply)
            for plan, calls in zip(plans, all_calls, strict=True)
        )
        for all_calls in (result.alone, result.crowd)
    )
    yield Finding("own facts remembered alone", alone, "at least half", 2 * alone >= len(plans))
    yield Finding("own facts remembered in the crowd", crowd, f"{alone}, as alone", crowd >= alone)


def _waits(where: str, calls: Calls) -> Iterator[Finding]:
    waits = [heard.wait_ms for one in calls for heard in one]
    if waits:
        median, high = (float(np.percentile(waits, q)) for q in (50, 95))
        yield Finding.told(f"wait {where}, ms p50 p95", f"{median:.0f} {high:.0f}")


# -- one conversation, in either dialect -------------------------------------------------------


class _Voice(Protocol):
    async def send(self, chunk: Float32) -> None: ...

    async def ask(self) -> Heard: ...


async def call(
    url: str,
    dialect: Dialect,
    utterances: Sequence[Float32],
    *,
    pace: float,
    patience_s: float,
    tell: Callable[[], None] = lambda: None,
) -> list[Heard]:
    """Say the utterances in one session, each after the answer to the one before.

    Args:
        url: The server.
        dialect: What to speak.
        utterances: Mono, 16 kHz.
        pace: Times real time; 0 sends at once.
        patience_s: Longest that one turn may take.
        tell: Called after each turn.

    Returns:
        A turn each; fewer, where the server did not answer or hung up.
    """
    heard: list[Heard] = []
    with suppress(ClientError, ProtocolError, ConnectionClosed, WebSocketException, OSError,
                  TimeoutError):  # fmt: skip
        async with _VOICES[dialect](url) as voice:
            for samples in utterances:
                async with asyncio.timeout(patience_s):
                    await speak(samples, voice.send, pace=pace)
                    heard.append(await voice.ask())
                tell()
    return heard


class _Plain:
    """Speaks the plain dialect with streamed replies."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def send(self, chunk: Float32) -> None:
        await self._socket.send(encode_s16le(chunk))

    async def ask(self) -> Heard:
        taken = _Taken()
        await self._socket.send("end_stream")
        transcript = ""
        while True:
            message = await self._socket.recv()
            if isinstance(message, bytes):
                taken.audio(message)
                continue
            match plain.decode_server(message):
                case plain.Transcript(text=text):
                    transcript = text
                case plain.Done(reply_text=reply):
                    return taken.heard(transcript, reply)
                case plain.Error() as error:
                    raise ClientError(f"{error.code.value}: {error.message}")


class _V1:
    """Speaks labkit.v1, in which the server's defaults are 16 kHz s16le as well."""

    def __init__(self, client: SessionClient) -> None:
        self._client = client

    async def send(self, chunk: Float32) -> None:
        await self._client.send_audio(encode_s16le(chunk))

    async def ask(self) -> Heard:
        taken, answer = _Taken(), Answer()
        await self._client.end_utterance()
        complete = False
        while not complete:
            event = await self._client.next_event()
            if isinstance(event, ReplyAudio):
                taken.audio(event.payload)
            complete = answer.take(event)
        if answer.errors or answer.done is None:
            raise ClientError(f"the turn failed: {answer.errors}")
        return taken.heard(answer.transcript, answer.done.text)


class _Taken:
    """The audio of one answer, and when it began."""

    def __init__(self) -> None:
        self._asked_ns = time.perf_counter_ns()
        self._first_ns: int | None = None
        self._hash = hashlib.sha256()
        self._bytes = 0

    def audio(self, pcm: bytes) -> None:
        if self._first_ns is None:
            self._first_ns = time.perf_counter_ns()
        self._hash.update(pcm)
        self._bytes += len(pcm)

    def heard(self, transcript: str, reply: str) -> Heard:
        first_ns = self._first_ns or time.perf_counter_ns()
        wait_ms = (first_ns - self._asked_ns) / 1e6
        return Heard(transcript, reply, self._bytes // 2, self._hash.hexdigest(), wait_ms)


@asynccontextmanager
async def _plain_voice(url: str) -> AsyncIterator[_Voice]:
    async with await open_socket(url, Dialect.PLAIN, stream=True) as socket:
        yield _Plain(socket)


@asynccontextmanager
async def _v1_voice(url: str) -> AsyncIterator[_Voice]:
    async with SessionClient.connect(url) as client:
        yield _V1(client)
        await client.end()


_VOICES: Final = {Dialect.PLAIN: _plain_voice, Dialect.V1: _v1_voice}
