"""What callers tell of themselves, and ask for later: names, numbers, timers.

The sentences are those of the embedded models' domain. No recording asks the questions, so the
embedded voice does.
"""

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

import numpy as np

from labkit.audio.pcm import SAMPLE_RATE, Float32, StreamResampler
from labkit.drills.inputs import Dialect
from labkit.errors import InstrumentError
from labkit.measure.recordings import Kind, Recording
from labkit.measure.wer import normalise
from labkit.voice.engines import PiperTts, Tts
from labkit.voice.models import resolve
from labkit.voice.scheduling import Stop

__all__ = [
    "QUESTIONS",
    "CallerPlan",
    "Fact",
    "Topic",
    "fact_of",
    "plan_callers",
    "spoken_questions",
]

_SILENCE: Final = SAMPLE_RATE // 4


class Topic(StrEnum):
    """What a fact is about."""

    NAME = "name"
    NUMBER = "number"
    TIMER = "timer"


QUESTIONS: Final[Mapping[Topic, str]] = MappingProxyType(
    {
        Topic.NAME: "What is my name?",
        Topic.NUMBER: "What is my number?",
        Topic.TIMER: "What is the timer set to?",
    }
)
"""How a caller asks for its fact."""

_DIGITS: Final = "(?:(?:zero|one|two|three|four|five|six|seven|eight|nine) ?){3,}"
_TOLD: Final = (
    (Topic.NAME, re.compile(r"(?:\bi am|\bi'm|my name is|call me) (\w+)$")),
    (Topic.NUMBER, re.compile(rf"(?:number is|number|code is|remember) ({_DIGITS})$")),
    (Topic.TIMER, re.compile(r"(?:timer (?:for|to)|me in|give me) (.+?)s?$")),
    (Topic.TIMER, re.compile(r"start a (.+) timer$")),
)


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that an answerer can keep.

    Attributes:
        topic: What it is about.
        words: The name, the digits, or the time; without the plural's s.
    """

    topic: Topic
    words: str

    def in_answer(self, reply: str) -> bool:
        """Whether an answer has it."""
        return f" {self.words}" in " " + " ".join(normalise(reply))


def fact_of(text: str) -> Fact | None:
    """The fact that a sentence tells, if it tells one."""
    for topic, pattern in _TOLD:
        if found := pattern.search(text):
            return Fact(topic, found[1].strip())
    return None


@dataclass(frozen=True, slots=True)
class CallerPlan:
    """What one caller says.

    Attributes:
        dialect: What it speaks.
        fact: What it tells first and asks for last.
        recordings: What it says before the question; the fact is in the first.
        phase: When it begins, from 0 to 1 of the time over which callers begin.
    """

    dialect: Dialect
    fact: Fact
    recordings: tuple[Recording, ...]
    phase: float

    @property
    def turns(self) -> int:
        """Utterances, the question included."""
        return len(self.recordings) + 1


def plan_callers(
    recordings: Iterable[Recording], sessions: int, turns: int, seed: int
) -> list[CallerPlan]:
    """Give each caller a fact of its own and other things to say; half speak each dialect.

    Args:
        recordings: What there is to be said.
        sessions: Callers.
        turns: Utterances of each, at least two: the fact and the question.
        seed: Draws who says what, and when each begins.

    Raises:
        InstrumentError: There are not so many different facts.
    """
    rng = random.Random(seed)
    told, other = _told_and_other(recordings)
    if not 1 <= sessions <= len(told):
        raise InstrumentError(
            f"sessions: {sessions} callers need as many different facts, and the recordings "
            f"tell {len(told)}; choose 1 to {len(told)}"
        )
    facts = rng.sample(sorted(told.items(), key=lambda item: item[1].name), sessions)
    fillers = _in_rounds(other, sessions * (turns - 2), rng)
    return [
        CallerPlan(
            list(Dialect)[number % 2],
            fact,
            (first, *fillers[number::sessions]),
            rng.random(),
        )
        for number, (fact, first) in enumerate(facts)
    ]


def _told_and_other(
    recordings: Iterable[Recording],
) -> tuple[dict[Fact, Recording], list[Recording]]:
    """The first recording of each fact, and those that tell none."""
    told: dict[Fact, Recording] = {}
    other = []
    for recording in recordings:
        if recording.kind is not Kind.UTTERANCE:
            continue
        if (fact := fact_of(recording.text)) is None:
            other.append(recording)
        else:
            told.setdefault(fact, recording)
    return told, other


def _in_rounds(choices: Sequence[Recording], wanted: int, rng: random.Random) -> list[Recording]:
    """As many as wanted, each once before any comes again."""
    found: list[Recording] = []
    while len(found) < wanted:
        if not choices:
            raise InstrumentError("the recordings hold nothing to say besides facts")
        found += rng.sample(choices, len(choices))
    return found[:wanted]


def spoken_questions(voice: Tts | None = None) -> dict[Topic, Float32]:
    """Each question at 16 kHz, between two short silences.

    Args:
        voice: Who speaks; by default the embedded voice.

    Raises:
        ModelError: The voice is not here, or does not load.
    """
    tts = voice or PiperTts(resolve().tts, threads=1)
    return {topic: _spoken(tts, text) for topic, text in QUESTIONS.items()}


def _spoken(tts: Tts, text: str) -> Float32:
    whole = np.concatenate(list(tts.synthesise(text, Stop())))
    speech = StreamResampler(tts.sample_rate, SAMPLE_RATE).feed(whole, last=True)
    return np.pad(speech, _SILENCE)
