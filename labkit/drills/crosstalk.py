"""The drill `crosstalk`: many callers at once must each get what they would get alone.

Each caller tells the server a fact (its name, a number, a timer), says other things, and asks for
its fact in the end. It first has its conversation alone, twice, each time in a fresh session; then
all have theirs at the same time. Two runs alone tell whether the engines are deterministic at all:
where they are not, a difference in the crowd would say nothing.

Any server will do that speaks the plain dialect. What it does not offer besides is told as that.
"""

import asyncio
import itertools
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import numpy as np
from websockets.exceptions import WebSocketException

from labkit.audio.pcm import SAMPLE_RATE, Float32, read_audio, resample
from labkit.client.answers import Deadlines
from labkit.client.dial import shown, with_query
from labkit.client.plain import VoiceClient
from labkit.drills import Dialect, Finding, Verdict
from labkit.drills.target import Heard, asking, running_target
from labkit.errors import ClientError, InstrumentError, ProtocolError
from labkit.measure.recordings import Kind, Recording, load_manifest
from labkit.measure.results import Tell
from labkit.measure.wer import normalise
from labkit.voice.engines import Tts
from labkit.voice.models import resolve
from labkit.voice.piper import PiperTts
from labkit.voice.scheduling import Stop

_BEGIN_S: Final = 3.0
"""Time over which the callers of a crowd begin."""
_PATIENCE_S: Final = 120.0
"""Longest that a caller waits for each step of an answer, and how late its audio may be."""
_OFFER_S: Final = 10.0
"""The same while it is found out what a server offers."""
_SILENCE: Final = SAMPLE_RATE // 4


# -- what callers say --------------------------------------------------------------------------


_DIGITS: Final = "(?:(?:zero|one|two|three|four|five|six|seven|eight|nine) ?){3,}"
_FACTS: Final = (
    ("What is my name?", r"(?:\bi am|\bi'm|my name is|call me) (\w+)$"),
    ("What is my number?", rf"(?:number is|number|code is|remember) ({_DIGITS})$"),
    ("What is the timer set to?", r"(?:timer (?:for|to)|me in|give me) (.+?)s?$"),
    ("What is the timer set to?", r"start a (.+) timer$"),
)
"""How a caller asks for a fact, and how it tells it, in the embedded models' domain."""


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that an answerer can keep."""

    question: str
    """What asks for it."""
    words: str
    """The name, the digits, or the time; without the plural's s."""

    def in_answer(self, reply: str) -> bool:
        """Whether an answer has it."""
        return f" {self.words}" in " " + " ".join(normalise(reply))


def fact_of(text: str) -> Fact | None:
    """The fact that a sentence tells, if it tells one."""
    for question, pattern in _FACTS:
        if found := re.search(pattern, text):
            return Fact(question, found[1].strip())
    return None


@dataclass(frozen=True, slots=True)
class CallerPlan:
    """What one caller says."""

    dialect: Dialect
    fact: Fact
    recordings: tuple[Recording, ...]
    """What it says before the question; the fact is in the first."""
    phase: float
    """When it begins, from 0 to 1 of the time over which callers begin."""

    @property
    def turns(self) -> int:
        """Utterances, the question included."""
        return len(self.recordings) + 1


def plan_callers(
    recordings: Iterable[Recording],
    sessions: int,
    turns: int,
    seed: int,
    dialects: Sequence[Dialect] = tuple(Dialect),
) -> list[CallerPlan]:
    """Give each caller a fact of its own and other things to say; the dialects take turns.

    There are `turns` utterances of each, at least two: the fact and the question.

    Raises:
        InstrumentError: There are not so many different facts.
    """
    rng = random.Random(seed)
    told: dict[Fact, Recording] = {}
    other = []
    for recording in (one for one in recordings if one.kind is Kind.UTTERANCE):
        if (fact := fact_of(recording.text)) is None:
            other.append(recording)
        else:
            told.setdefault(fact, recording)
    if not 1 <= sessions <= len(told):
        raise InstrumentError(
            f"sessions: {sessions} callers need as many different facts, and the recordings "
            f"tell {len(told)}; choose 1 to {len(told)}"
        )
    facts = rng.sample(sorted(told.items(), key=lambda item: item[1].name), sessions)
    if turns > 2 and not other:
        raise InstrumentError("the recordings hold nothing to say besides facts")
    in_turn = itertools.cycle(rng.sample(other, len(other)))
    fillers = list(itertools.islice(in_turn, sessions * (turns - 2)))
    return [
        CallerPlan(
            dialects[number % len(dialects)],
            fact,
            (first, *fillers[number::sessions]),
            rng.random(),
        )
        for number, (fact, first) in enumerate(facts)
    ]


def spoken_questions(plans: Iterable[CallerPlan]) -> dict[str, Float32]:
    """The questions as the embedded voice asks them, at 16 kHz: no recording does."""
    tts = PiperTts(resolve().tts, threads=1)
    return {text: _spoken(tts, text) for text in {plan.fact.question for plan in plans}}


def _spoken(tts: Tts, text: str) -> Float32:
    whole = np.concatenate(list(tts.synthesise(text, Stop())))
    return np.pad(resample(whole, tts.sample_rate, SAMPLE_RATE), _SILENCE)


# -- what they hear ----------------------------------------------------------------------------


Calls = Sequence[Sequence[Heard]]
"""What every caller got, by caller and turn."""
What = Callable[[Heard], object]
"""A part of what a caller got."""


@dataclass(frozen=True, slots=True)
class Crosstalk:
    """What every caller got alone, alone once more, and with all others at the same time."""

    alone: Calls
    again: Calls
    crowd: Calls


async def _call(
    url: str,
    dialect: Dialect,
    utterances: Sequence[Float32],
    *,
    pace: float = 0,
    patience_s: float = _PATIENCE_S,
    advance: Callable[[], None] = lambda: None,
) -> list[Heard]:
    """Say the utterances in one session, each after the answer to the one before.

    The turns end where the server does not answer, or hangs up.
    """
    heard: list[Heard] = []
    deadlines = Deadlines(answer_s=patience_s, start_s=min(patience_s, _OFFER_S))
    with suppress(ClientError, ProtocolError, WebSocketException, OSError):
        async with asking(url, dialect, deadlines) as ask:
            for samples in utterances:
                heard.append(await ask(samples, pace))
                advance()
    return heard


def streamed(url: str) -> str:
    """The address at which replies come as they are made, and their words behind them."""
    return with_query(url, reply="stream")


async def offered(url: str, said: Float32) -> tuple[str, tuple[Dialect, ...]]:
    """The address at which a server streams its replies, if it does, and what it speaks.

    Raises:
        ClientError: Nobody answers there, or not in the plain dialect.
    """
    async with VoiceClient.connect(url):
        pass  # where nobody answers, this says so best
    for address in (streamed(url), url):
        if heard := await _call(address, Dialect.PLAIN, [said], patience_s=_OFFER_S):
            break
    else:
        raise ClientError(
            f"{shown(url)} answered nothing in the plain dialect within {_OFFER_S:g} s; "
            "labkit talk says more"
        )
    speaks_v1 = await _call(url, Dialect.V1, [said], patience_s=_OFFER_S)
    dialects = tuple(Dialect) if speaks_v1 else (Dialect.PLAIN,)
    return streamed(url) if heard[0].reply else url, dialects


async def call_all(
    url: str,
    plans: Sequence[CallerPlan],
    questions: Mapping[str, Float32],
    *,
    pace: float,
    tell: Tell = lambda *_: None,
) -> Crosstalk:
    """Let the callers call: each alone, again alone, and all at once.

    Alone, everything is sent at once; in the crowd, at `pace` times the pace of speech.
    """
    said = [
        [*(read_audio(one.path) for one in plan.recordings), questions[plan.fact.question]]
        for plan in plans
    ]
    total, taken = 3 * sum(plan.turns for plan in plans), itertools.count(1)

    def advance() -> None:
        tell("turns", next(taken), total)

    async def call(number: int, pace: float) -> list[Heard]:
        plan = plans[number]
        await asyncio.sleep(plan.phase * _BEGIN_S / pace if pace else 0)
        return await _call(url, plan.dialect, said[number], pace=pace, advance=advance)

    alone, again = [[await call(number, 0) for number in range(len(plans))] for _ in range(2)]
    crowd = await asyncio.gather(*(call(number, pace) for number in range(len(plans))))
    return Crosstalk(alone, again, crowd)


async def run_crosstalk(
    url: str | None,
    *,
    sessions: int,
    turns: int,
    seed: int,
    pace: float,
    model_set: str,
    tell: Tell,
) -> Verdict:
    """Run the drill against any server, at `url`, or against one of its own with a model set."""
    recordings = load_manifest()
    plans = plan_callers(recordings, sessions, turns, seed)
    questions = spoken_questions(plans)
    if url is None:
        resolve(model_set)
        async with running_target("voice", model_set=model_set) as server:
            result = await call_all(streamed(server.url), plans, questions, pace=pace, tell=tell)
        return judged(plans, result, seed)
    url, dialects = await offered(url, questions[plans[0].fact.question])
    plans = plan_callers(recordings, sessions, turns, seed, dialects)
    result = await call_all(url, plans, questions, pace=pace, tell=tell)
    return judged(plans, result, seed, any_server=True)


# -- what is found, beside what is promised ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One thing that a caller got and would not have got alone."""

    told: str
    """Whose, when, and what it should have been."""
    of_another: bool
    """Whether some other caller gets that alone."""


def mismatches(alone: Calls, other: Calls, what: What) -> list[Mismatch]:
    """Where callers got another `what` than alone; turns that were not answered are none. Pure."""
    found = []
    for caller, (wanted, got) in enumerate(zip(alone, other, strict=True)):
        foreign = {what(heard) for n, calls in enumerate(alone) if n != caller for heard in calls}
        for turn, (mine, theirs) in enumerate(zip(map(what, wanted), map(what, got), strict=False)):
            if mine != theirs:
                whose = ", as another caller does alone" if theirs in foreign else ""
                told = f"caller {caller}, turn {turn}: {mine!r} became {theirs!r}{whose}"
                found.append(Mismatch(told, theirs in foreign))
    return found


def judged(
    plans: Sequence[CallerPlan], result: Crosstalk, seed: int, *, any_server: bool = False
) -> Verdict:
    """Hold what every caller got against what it gets alone. Pure.

    Of `any_server`, what it does not offer breaks no promise.
    """
    turns = sum(plan.turns for plan in plans)
    told = not any_server or any(heard.reply for calls in result.alone for heard in calls)
    return Verdict(
        f"{len(plans)} callers at once, {turns} turns, seed {seed}",
        (
            *_not_offered(plans, told=told),
            _answered("turns answered alone", result.alone, turns),
            _answered("turns answered in the crowd", result.crowd, turns),
            *_differences("transcripts", result, lambda heard: heard.transcript),
            *(_differences("replies", result, lambda heard: heard.reply) if told else ()),
            *_differences("reply audio", result, lambda heard: heard.audio),
            *(_memory(plans, result, required=not any_server) if told else ()),
        ),
    )


def _not_offered(plans: Sequence[CallerPlan], *, told: bool) -> Iterator[Finding]:
    if all(plan.dialect is Dialect.PLAIN for plan in plans):
        yield Finding.told("labkit.v1", "not offered: all callers speak plain")
    if not told:
        yield Finding.told("the words of replies", "not told by this server")


def _answered(name: str, calls: Calls, turns: int) -> Finding:
    answered = sum(map(len, calls))
    return Finding(name, answered, f"{turns}", answered == turns)


def _differences(name: str, result: Crosstalk, what: What) -> Iterator[Finding]:
    """What differs in the crowd, where two runs alone do not differ."""
    twice = mismatches(result.alone, result.again, what)
    found = mismatches(result.alone, result.crowd, what)
    if twice:
        differ = f"{len(twice)} between two runs alone, {len(found)} in the crowd"
        yield Finding.told(f"{name} that differ: not deterministic", differ)
    else:
        yield Finding.none_of(f"{name} that differ from those alone", len(found))
    foreign = sum(one.of_another for one in found)
    yield Finding.none_of(f"{name} that are another caller's", foreign)
    if name != "reply audio":
        yield from Finding.examples(one.told for one in found[:3])


def _memory(plans: Sequence[CallerPlan], result: Crosstalk, *, required: bool) -> Iterator[Finding]:
    """Whether the last answer has the caller's own fact, as often as alone."""
    alone, crowd = (
        sum(
            len(calls) == plan.turns and plan.fact.in_answer(calls[-1].reply)
            for plan, calls in zip(plans, all_calls, strict=True)
        )
        for all_calls in (result.alone, result.crowd)
    )
    bar = "at least half" if required else ""
    keeps = 2 * alone >= len(plans) or not required
    yield Finding("own facts remembered alone", alone, bar, keeps)
    yield Finding("own facts remembered in the crowd", crowd, f"{alone}, as alone", crowd >= alone)
