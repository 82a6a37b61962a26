"""How much silence ends a turn: the same for everybody, or learnt from how this speaker pauses.

A fixed wait is either short, and cuts people off who think for a moment, or long, and leaves
everybody in dead air. Two things tell more than the silence itself. Speakers pause in a rhythm of
their own, so a silence much longer than those in which they spoke on is the end; LiveKit's agents
follow a moving average of it. And what was said so far may call for more: nobody ends with "set a
timer for", and groups of digits are said with pauses between them.

Nothing here waits or reads a clock.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from labkit.voice.hearing import SpeechChange

_OPEN: Final = frozenset(
    # Articles and other words that come before a noun.
    "a an the this these those my your his her its our their some any every no "
    # Prepositions, but for those that also stand alone, such as "on" in "turn it on".
    "to of for from into at by with about between than in "
    # Conjunctions, and what opens a question.
    "and or but because if when while which who whose what where why how "
    # Auxiliaries.
    "is are was were am be been will would can could should shall may might must do does did have "
    "has had "
    # Subjects, requests, and sounds of thinking.
    "i we they he she please let uh um er hm".split()
)
"""Words that English sentences hardly end with."""
_DIGITS: Final = frozenset("zero oh one two three four five six seven eight nine".split())
_WORD: Final = re.compile(r"[a-z']+|[0-9]+")


SOON_S: Final = 0.5
"""Who speaks on so soon after a turn was taken for finished was cut off: nobody reacts to a reply
within that time."""


class Ending(StrEnum):
    """What the end of a transcript is like."""

    OPEN = "open"
    """Nothing was understood yet, or more has to come."""
    DIGITS = "digits"
    """A number is dictated, digit by digit."""
    CLOSED = "closed"
    """It may be the end."""


def ending(said: str) -> Ending:
    """What the end of a transcript is like, whatever its punctuation: recognisers guess that."""
    words = _WORD.findall(said.lower())
    if not words or words[-1] in _OPEN:
        return Ending.OPEN
    if all(word in _DIGITS or word.isdigit() for word in words[-2:]) and len(words) > 1:
        return Ending.DIGITS
    return Ending.CLOSED


class EndpointingPolicy(Protocol):
    """Decides how much silence ends a turn; one object follows one speaker."""

    def wait_s(self, said: str | None) -> float:
        """Seconds of silence that end the turn now.

        Args:
            said: What was understood so far; None where nobody knows yet.
        """
        ...

    def paused(self, seconds: float) -> None:
        """Learn that the speaker was silent for so long, and then spoke on."""
        ...


@dataclass(frozen=True, slots=True)
class FixedWait:
    """Waits for the same time, whoever speaks and whatever they say."""

    seconds: float

    def wait_s(self, said: str | None) -> float:
        """The same as ever."""
        return self.seconds

    def paused(self, seconds: float) -> None:
        """Learn nothing."""


class AdaptiveWait:
    """Waits for somewhat longer than this speaker's usual pause, and thrice that for open endings.

    The factors were chosen on drawn conversations of callers who pause, on the line of cut-offs
    against dead air that `labkit endpointing` draws.
    """

    LEAST_S: Final = 0.25
    MOST_S: Final = 2.0
    TIMES_USUAL: Final = 1.3
    _LEARNS: Final = 0.3
    _FACTORS: Final = {Ending.OPEN: 3.0, Ending.DIGITS: 1.5, Ending.CLOSED: 1.0}

    def __init__(self, first_s: float, *, times_usual: float = TIMES_USUAL) -> None:
        """Know nothing of the speaker yet.

        Args:
            first_s: How long it waits while that is so, in seconds.
            times_usual: How many times the usual pause it waits for afterwards.
        """
        self._first_s = first_s
        self._times_usual = times_usual
        self._usual_s: float | None = None

    def wait_s(self, said: str | None) -> float:
        """Seconds of silence that end the turn now, 0.25 to 2 s."""
        usual = self._first_s if self._usual_s is None else self._times_usual * self._usual_s
        factor = 1.0 if said is None else self._FACTORS[ending(said)]
        return min(max(factor * usual, self.LEAST_S), self.MOST_S)

    def paused(self, seconds: float) -> None:
        """Take a pause into the moving average of this speaker's pauses."""
        before = seconds if self._usual_s is None else self._usual_s
        self._usual_s = before + self._LEARNS * (min(seconds, self.MOST_S) - before)


class Pauses:
    """Follows one speaker's pauses from utterance to utterance, and lets a policy learn from them.

    Attributes:
        policy: What learns.
    """

    def __init__(self, policy: EndpointingPolicy, *, frame_s: float, shortest: int) -> None:
        """Begin with an utterance of which nothing was heard.

        Args:
            policy: What learns.
            frame_s: Length of a frame, in seconds.
            shortest: Shorter silences lie within words, in frames.
        """
        self.policy = policy
        self._frame_s = frame_s
        self._shortest = shortest
        self._pause = 0
        self._before = 0
        """Frames of silence before the utterance, where the one before ended in them."""

    def follow(self, pause: int, change: SpeechChange | None) -> None:
        """Take the next frame.

        Args:
            pause: Frames of silence in the pause that goes on, as its tracker has it.
            change: Speech began, or ended, in this frame.
        """
        before, self._pause = self._pause, pause
        if change is None:
            if before >= self._shortest and not pause:
                self.policy.paused(before * self._frame_s)
        elif not change.speaking:
            self._before = change.known - change.frame
        else:
            silence, self._before = self._before, 0
            if silence and change.frame * self._frame_s <= SOON_S:
                # Speech that goes on right behind an end was cut off: that was a pause.
                self.policy.paused((silence + change.frame) * self._frame_s)

    def begin_anew(self) -> None:
        """An utterance begins that does not go on where the one before ended."""
        self._pause = self._before = 0
