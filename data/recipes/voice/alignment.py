"""Piper's phonemes laid along the teacher's phones, by dynamic programming.

espeak-ng writes IPA code points, flite prints phones of its own with their end times. Both
come from the same text, but from two pronunciation models, so they agree mostly, not always.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

__all__ = ["Phone", "Unit", "align", "units"]

PAUSE: Final = "pau"
_MARKS: Final = frozenset("ˈˌːˑ̩̃ʲ")
_PUNCTUATION: Final = frozenset(",.;:!?")
_SKIP_UNIT: Final = 1.2
_SKIP_PHONE: Final = 1.2
_IMPOSSIBLE: Final = 1e9
_SKIP_UNIT_STEP: Final = 1
_SKIP_PHONE_STEP: Final = 2

_DIPHTHONGS: Final = ("aɪ", "aʊ", "ɔɪ", "eɪ", "oʊ", "tʃ", "dʒ")
_SAME: Final = {
    "aɪ": "ay", "aʊ": "aw", "ɔɪ": "oy", "eɪ": "ey", "oʊ": "ow", "tʃ": "ch", "dʒ": "jh",
    "p": "p", "b": "b", "t": "t", "d": "d", "k": "k", "ɡ": "g", "f": "f", "v": "v",
    "θ": "th", "ð": "dh", "s": "s", "z": "z", "ʃ": "sh", "ʒ": "zh", "h": "hh", "m": "m",
    "n": "n", "ŋ": "ng", "l": "l", "ɹ": "r", "r": "r", "j": "y", "w": "w", "ɾ": "t d dx",
    "ʔ": "t", "x": "k hh",
    "i": "iy ih", "ɪ": "ih ax iy", "ᵻ": "ih ax", "ɛ": "eh", "æ": "ae", "ɐ": "ax ah ae ey",
    "ə": "ax ah ih", "ʌ": "ah ax", "ɑ": "aa ao", "ɔ": "ao aa", "ɒ": "aa ao", "o": "ow ao",
    "ʊ": "uh uw", "u": "uw", "ɜ": "er", "ɚ": "er", "a": "aa ae ah", "e": "eh ey",
}  # fmt: skip
"""The phones that a unit usually is; the first is the best."""
_VOWELS: Final = frozenset("aa ae ah ao aw ax ay eh er ey ih iy ow oy uh uw".split())


@dataclass(frozen=True, slots=True)
class Phone:
    """A phone of the teacher, and where it ends (seconds)."""

    name: str
    end: float


@dataclass(frozen=True, slots=True)
class Unit:
    """Symbols that are one sound: a vowel with its length mark, a diphthong, a pause.

    Attributes:
        name: The sound.
        places: Indices of the symbols that last; other marks around them take no time.
    """

    name: str
    places: tuple[int, ...]


def units(symbols: Sequence[str]) -> list[Unit]:
    """The sounds in a sequence of Piper's symbols."""
    sounding = [(i, s) for i, s in enumerate(symbols) if s not in _MARKS]
    return list(_joined(sounding))


def _joined(sounding: Sequence[tuple[int, str]]) -> Iterator[Unit]:
    """Single symbols, or two that are written for one sound."""
    skip = False
    for (place, symbol), (after, follower) in pairwise([*sounding, (-1, "")]):
        if skip:
            skip = False
        elif symbol + follower in _DIPHTHONGS:
            skip = True
            yield Unit(symbol + follower, (place, after))
        else:
            yield Unit(symbol, (place,))


def align(symbols: Sequence[str], phones: Sequence[Phone]) -> tuple[list[float], float]:
    """Where each symbol ends, and how badly the two pronunciations agree.

    Args:
        symbols: Piper's symbols, from `^` to `$`.
        phones: The teacher's phones in order.

    Returns:
        End time of each symbol in seconds, not falling, the last one the end of the last phone;
        and the alignment's cost per phone (0: all the same).
    """
    sounds = units(symbols)
    owners, cost = _owners(sounds, phones)
    ends = _unit_ends(owners, phones, len(sounds))
    return _symbol_ends(sounds, ends, len(symbols)), cost / len(phones)


def _mismatch(unit: str, phone: str) -> float:
    """What it costs to call a unit and a phone the same sound."""
    if _is_pause(unit) or phone == PAUSE:
        return {"$": 0.2, " ": 0.1}.get(unit, 0.0) if _is_pause(unit) and phone == PAUSE else 9.0
    alike = _SAME.get(unit, "").split()
    if phone in alike:
        return 0.1 * alike.index(phone)
    vowel = bool(alike) and alike[0] in _VOWELS
    return 0.8 if vowel == (phone in _VOWELS) else 3.0


def _is_pause(unit: str) -> bool:
    return unit in _PUNCTUATION or unit in ("^", "$", " ")


def _owners(sounds: Sequence[Unit], phones: Sequence[Phone]) -> tuple[list[int], float]:
    """The unit that each phone belongs to, on the cheapest way through both sequences."""
    cost, steps = [_first_row(len(phones))], [[_SKIP_PHONE_STEP] * (len(phones) + 1)]
    for unit in sounds:
        row, taken = _next_row(cost[-1], unit, phones)
        cost.append(row)
        steps.append(taken)
    return _walked(steps), cost[-1][-1]


def _first_row(phones: int) -> list[float]:
    """Before the first unit there is nothing that a phone could belong to."""
    return [0.0] + [_IMPOSSIBLE] * phones


def _next_row(
    above: Sequence[float], unit: Unit, phones: Sequence[Phone]
) -> tuple[list[float], list[int]]:
    skip_unit = 0.0 if _is_pause(unit.name) else _SKIP_UNIT
    row, taken = [above[0] + skip_unit], [_SKIP_UNIT_STEP]
    for j, phone in enumerate(phones):
        ways = (
            above[j] + _mismatch(unit.name, phone.name),
            above[j + 1] + skip_unit,
            row[j] + _SKIP_PHONE,
        )
        best = min(ways)
        row.append(best)
        taken.append(ways.index(best))
    return row, taken


def _walked(steps: Sequence[Sequence[int]]) -> list[int]:
    """Follow the steps back from the end; a phone without a unit goes to the one before it."""
    i, j = len(steps) - 1, len(steps[0]) - 1
    owners = [0] * j
    while i > 0:
        taken = steps[i][j]
        if taken != _SKIP_UNIT_STEP:
            owners[j - 1] = i - 1
            j -= 1
        if taken != _SKIP_PHONE_STEP:
            i -= 1
    return owners


def _unit_ends(owners: Sequence[int], phones: Sequence[Phone], count: int) -> list[float]:
    ends = [0.0] * count
    for owner, phone in zip(owners, phones, strict=True):
        ends[owner] = phone.end
    return np.maximum.accumulate(ends).tolist()


def _symbol_ends(sounds: Sequence[Unit], ends: Sequence[float], count: int) -> list[float]:
    """A sound's time, shared evenly by its symbols."""
    symbol_ends = [0.0] * count
    start = 0.0
    for unit, end in zip(sounds, ends, strict=True):
        for number, place in enumerate(unit.places, start=1):
            symbol_ends[place] = start + (end - start) * number / len(unit.places)
        start = end
    return np.maximum.accumulate(symbol_ends).tolist()
