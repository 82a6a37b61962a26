"""Speech over a reply: does it take the turn, or does the reply go on?

People say "yeah" and cough while they listen, and speak to others in the room. None of that asks
for the floor. What does is known from the words, so the reply is held back until there are some.
The words that listeners give are those of the literature on backchannels (V. Yngve, On getting a
word in edgewise, 1970; D. Jurafsky et al., SWBD-DAMSL, 1997).

Nothing here waits or reads a clock.
"""

import re
from enum import StrEnum
from typing import Final

_BACKCHANNELS: Final = frozenset(
    "yeah yes yep yup uh huh hm hmm mm mhm mmhm mmm ah oh aha okay ok right sure wow really nice "
    "great good cool fine true exactly indeed see i got it gotcha um er".split()
)
"""Words of which listeners make their signs: "uh-huh", "oh really", "i see", "got it"."""
_MOST_OF_A_BACKCHANNEL: Final = 3
_WORD: Final = re.compile(r"[a-z']+|[0-9]+")

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
    if quieter_db > ASIDE_DB or not words:
        return Verdict.GOES_ON if over else Verdict.OPEN
    listens = len(words) <= _MOST_OF_A_BACKCHANNEL and all(one in _BACKCHANNELS for one in words)
    if listens and not outlasts:
        return Verdict.GOES_ON if over else Verdict.OPEN
    # A single word that goes on may be the beginning of a longer one.
    return Verdict.ENDS if over or len(words) > 1 else Verdict.OPEN
