"""Who has the turn: how much silence ends one, and whether speech over a reply takes it.

**The end of a turn.** A fixed wait is either short, and cuts people off who think for a moment, or
long, and leaves everybody in dead air. Three things tell more than the silence itself. Speakers
pause in a rhythm of their own, so a silence much longer than those in which they spoke on is the
end; LiveKit's agents follow a moving average of it. Whoever has finished tends to end lower and
softer than they speak. And what was said so far may call for more: nobody ends with "set a timer
for", and groups of digits are said with pauses between them.

**Speech over a reply.** People say "yeah" and cough while they listen, and speak to others in the
room. None of that asks for the floor. What does is known from the words, so the reply is held back
until there are some. The words that listeners give are those of the literature on backchannels
(V. Yngve, On getting a word in edgewise, 1970; D. Jurafsky et al., SWBD-DAMSL, 1997).

**The sound of an end.** Whoever has finished tends to end low in their range and softly; whoever
only pauses keeps pitch and voice up (Gravano and Hirschberg, "Turn-taking cues in task-oriented
dialogue", 2011). A question may rise, and many ends are level, so this is a hint and no proof.
Synthetic voices fall with particular regularity: what it gains on them is more than what it gains
with people. The pitch is the strongest autocorrelation of each frame, looked for twice: once
anywhere, and once around the median of the first time, which leaves hardly an octave error.

Nothing here waits or reads a clock.
"""

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from labkit.audio.pcm import SAMPLE_RATE, Float32
from labkit.voice.hearing import SpeechChange

_WORD: Final = re.compile(r"[a-z']+|[0-9]+")

# -- the sound of an end -----------------------------------------------------------------------

WINDOW_SAMPLES: Final = 3 * SAMPLE_RATE
"""So much of what was said last is looked at: it bounds the work of a pause."""
_RATE: Final = SAMPLE_RATE // 2
_FRAME: Final = _RATE // 25
_HOP: Final = _RATE // 50
_FFT: Final = 512
_LAGS: Final = (_RATE // 400, _RATE // 65)
"""Periods of 400 and 65 Hz, in samples."""
_VOICED: Final = 0.6
_OCTAVE_COSTS: Final = 0.05
_AUDIBLE_DB: Final = 30.0
_LAST: Final = 5
_FEWEST: Final = 5


@dataclass(frozen=True, slots=True)
class Prosody:
    """How the last voiced sounds lie beside the others."""

    pitch: float
    """Median pitch of all of them, in octaves above 1 Hz."""
    last_pitch: float
    """Median pitch of the last 100 ms of them, in the same unit."""
    last_db: float
    """Level of these over the median level, in dB; below 0 where they are softer."""


def prosody(samples: Float32) -> Prosody | None:
    """Measure the last 3 s of what was said so far, 16 kHz; None where too little is voiced."""
    samples = samples[-WINDOW_SAMPLES:]
    # Half the rate: pitch lies far below what that folds, and it halves the work.
    halved = samples[: len(samples) - 1 : 2] + samples[1::2]
    if len(halved) < _FRAME:
        return None
    frames = np.lib.stride_tricks.sliding_window_view(halved, _FRAME)[::_HOP]
    frames = frames - frames.mean(axis=1, keepdims=True)
    level_db = 10 * np.log10(np.mean(np.square(frames), axis=1) + 1e-10)
    audible = level_db > level_db.max() - _AUDIBLE_DB
    alike, lags = _autocorrelation(frames), _LAGS
    for _ in range(2):
        periods, strength = _strongest(alike, *lags)
        places = np.flatnonzero(audible & (strength >= _VOICED))
        if len(places) < _FEWEST:
            return None
        usual = float(np.median(periods[places]))
        lags = max(_LAGS[0], round(usual / 1.6)), min(_LAGS[1], round(usual * 2))
    pitch, last = np.log2(_RATE / periods[places]), places[-_LAST:]
    return Prosody(
        float(np.median(pitch)),
        float(np.median(pitch[-_LAST:])),
        float(np.mean(level_db[last]) - np.median(level_db[places])),
    )


def _autocorrelation(frames: Float32) -> Float32:
    """How alike each frame is to itself so many samples later, by lag, 1 at lag 0.

    Divided by that of the window, which fades frames and so would favour short lags (Boersma 1993).
    """
    window = np.hanning(_FRAME).astype(np.float32)
    spectra = np.fft.rfft(np.vstack([frames * window, window]), _FFT)
    power = np.square(np.abs(spectra)).astype(np.complex64)
    # Circular, but what comes round lies beyond the longest lag.
    found = np.fft.irfft(power)[:, : _LAGS[1] + 1]
    found = found / (found[:, :1] + np.float32(1e-12))
    alike: Float32 = found[:-1] / found[-1]
    return alike


def _strongest(alike: Float32, shortest: int, longest: int) -> tuple[NDArray[np.intp], Float32]:
    """Of each frame, the lag between these at which it is most alike, and how much.

    What repeats after one period does so after two: of two as good, the shorter counts. At the
    shortest lag of all a rumble is as alike as it gets: that is no peak, and counts as 0.
    """
    lags = np.arange(shortest, longest + 1)
    best = (alike[:, lags] - _OCTAVE_COSTS * np.log2(lags)).argmax(axis=1) + shortest
    strength = np.take_along_axis(alike, best[:, None], axis=1)[:, 0]
    return best, np.where(best > shortest, strength, 0)


# -- the end of a turn -------------------------------------------------------------------------

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

    def wait_s(self, said: str | None, sound: Prosody | None = None) -> float:
        """Seconds of silence that end the turn now; asked once in each pause.

        Args:
            said: What was understood so far; None where nobody knows yet.
            sound: How its end sounds; None where nobody knows.
        """
        ...

    def paused(self, seconds: float) -> None:
        """Learn that the speaker was silent for so long, and then spoke on; by default, nothing."""
        return


@dataclass(frozen=True, slots=True)
class FixedWait(EndpointingPolicy):
    """Waits for the same time, whoever speaks and whatever they say."""

    seconds: float

    def wait_s(self, said: str | None, sound: Prosody | None = None) -> float:
        """The same as ever."""
        return self.seconds


class AdaptiveWait:
    """Waits for this speaker's usual pause, longer or shorter by what was said and how.

    Half of the fall of pitch with which this speaker usually ends counts neither way; all of it
    divides the wait by e, none takes it times e. The level counts for half of that.

    The figures were chosen with other voices and sentences, and with three of the voices of the
    line that `labkit endpointing` draws.
    """

    LEAST_S: Final = 0.25
    MOST_S: Final = 2.0
    _LEARNS: Final = 0.3
    _FACTORS: Final = {Ending.OPEN: 1.5, Ending.DIGITS: 1.25, Ending.CLOSED: 1.0}
    _UNHEARD: Final = 1.3
    """Where nothing voiced was heard, the pause has to be clearly longer than the usual one."""
    _LEARNS_SOUND: Final = 0.2
    _FALL_OCTAVES: Final = 0.3
    _FALLS_OCTAVES: Final = (0.1, 0.6)
    _DROP_DB: Final = 6.0
    _LEVEL_COUNTS: Final = 0.5

    def __init__(self, first_s: float, *, times_usual: float = 1.0) -> None:
        """Wait so many `times_usual` pauses, of `first_s` seconds each until there were some."""
        self._times_usual = times_usual
        self._usual_s = first_s
        self._pauses = 1
        self._usual_pitch: float | None = None
        self._usual_fall = self._FALL_OCTAVES
        self._fall: float | None = None
        """Of the latest silence; nobody spoke on in it so far."""

    def wait_s(self, said: str | None, sound: Prosody | None = None) -> float:
        """Seconds of silence that end the turn now, 0.25 to 2 s."""
        wait_s = max(self._times_usual * self._usual_s * self._heard(sound), self.LEAST_S)
        factor = 1.0 if said is None else self._FACTORS[ending(said)]
        return min(factor * wait_s, self.MOST_S)

    def _heard(self, sound: Prosody | None) -> float:
        """How many times as long to wait for the sound of the end."""
        if self._fall is not None:  # the silence before was an end
            low, high = self._FALLS_OCTAVES
            fall = min(max(self._fall, low), high)
            self._usual_fall += self._LEARNS_SOUND * (fall - self._usual_fall)
        self._fall = None
        if sound is None:
            return self._UNHEARD
        before = sound.pitch if self._usual_pitch is None else self._usual_pitch
        self._usual_pitch = before + self._LEARNS_SOUND * (sound.pitch - before)
        self._fall = self._usual_pitch - sound.last_pitch
        level = self._LEVEL_COUNTS * _within_one(1 + sound.last_db / self._DROP_DB)
        return math.exp(_within_one(1 - 2 * self._fall / self._usual_fall) + level)

    def paused(self, seconds: float) -> None:
        """Take a pause into the moving average of this speaker's pauses."""
        self._fall = None
        self._pauses += 1
        # The first ones count for more, so that a slow speaker is cut off but once.
        counts = max(self._LEARNS, 1 / self._pauses)
        self._usual_s += counts * (min(seconds, self.MOST_S) - self._usual_s)


def _within_one(value: float) -> float:
    return min(max(value, -1.0), 1.0)


class Pauses:
    """Follows one speaker's pauses from utterance to utterance, and lets a policy learn from them.

    Attributes:
        policy: What learns.
    """

    def __init__(self, policy: EndpointingPolicy, *, frame_s: float, shortest: int) -> None:
        """Learn nothing of silences of fewer than `shortest` frames, each of `frame_s` seconds."""
        self.policy = policy
        self._frame_s = frame_s
        self._shortest = shortest
        self._pause = 0
        self._before = 0
        """Frames of silence before the utterance, where the one before ended in them."""

    def follow(self, pause: int, change: SpeechChange | None) -> None:
        """Take the next frame: how long the pause is that goes on, and what changed in it."""
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


# -- speech over a reply -----------------------------------------------------------------------

_BACKCHANNELS: Final = frozenset(
    "yeah yes yep yup uh huh hm hmm mm mhm mmhm mmm ah oh aha okay ok right sure wow really nice "
    "great good cool fine true exactly indeed see i got it gotcha um er".split()
)
"""Words of which listeners make their signs: "uh-huh", "oh really", "i see", "got it"."""
_MOST_OF_A_BACKCHANNEL: Final = 3

ASIDE_DB: Final = 9.0
"""Speech that is so much quieter than this caller's usual is to somebody else: turned away from the
microphone, or further from it."""


class Verdict(StrEnum):
    """What is to become of the reply."""

    OPEN = "open"
    """That cannot be told yet."""
    GOES_ON = "goes_on"
    """It goes on where it was."""
    ENDS = "ends"
    """The caller takes the turn."""


def judge(said: str, *, over: bool, outlasts: bool, quieter_db: float = 0.0) -> Verdict:
    """What is to become of a reply that somebody speaks over.

    Args:
        said: What was understood so far.
        over: The speech has come to a pause.
        outlasts: It has gone on for longer than what was left of the reply: so it answers it.
        quieter_db: By how much it is quieter than this caller's usual speech.
    """
    words = _WORD.findall(said.lower())
    listens = len(words) <= _MOST_OF_A_BACKCHANNEL and all(one in _BACKCHANNELS for one in words)
    if quieter_db > ASIDE_DB or not words or (listens and not outlasts):
        return Verdict.GOES_ON if over else Verdict.OPEN
    # A single word that goes on may be the beginning of a longer one.
    return Verdict.ENDS if over or len(words) > 1 else Verdict.OPEN
