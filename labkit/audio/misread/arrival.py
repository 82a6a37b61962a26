"""How fast a stream comes in: seconds of audio per second of the clock."""

from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np

__all__ = ["Pace", "PaceMeter"]

_KEPT_S: Final = 4.0
_PAUSE_GAPS: Final = 3.0
_PAUSE_MORE_S: Final = 0.1
_SMOOTHING: Final = 0.1
_STEADY_S: Final = 0.15


@dataclass(frozen=True, slots=True)
class Pace:
    """The pace of a stretch of a stream.

    Attributes:
        ratio: Seconds of audio, as declared, per second of the clock; 1 is live.
        span_s: Length of the stretch on the clock, in seconds.
        steady: Whether no message came more than 0.15 s off its time on a straight line.
    """

    ratio: float
    span_s: float
    steady: bool


class PaceMeter:
    """Measures the pace over the last four seconds of the clock, or since the last pause.

    A gap between messages that is longer than three usual ones and 0.1 s is a pause: a caller
    that is muted, or sends only speech, is not slow, so measuring begins anew behind it. What
    comes in one burst has no span, and a burst followed by live audio is not steady.
    """

    def __init__(self) -> None:
        self._marks: deque[tuple[float, float]] = deque()
        self._heard_s = 0.0
        self._usual_gap_s: float | None = None

    def feed(self, at_ns: int, seconds: float) -> None:
        """Count a message of `seconds` of audio that came at `at_ns`."""
        at_s = at_ns / 1e9
        if self._marks and self._is_pause(at_s - self._marks[-1][0]):
            self._marks.clear()
        self._heard_s += seconds
        self._marks.append((at_s, self._heard_s))
        while at_s - self._marks[0][0] > _KEPT_S:
            self._marks.popleft()

    def _is_pause(self, gap_s: float) -> bool:
        usual = gap_s if self._usual_gap_s is None else self._usual_gap_s
        longest = _PAUSE_GAPS * usual + _PAUSE_MORE_S
        self._usual_gap_s = usual + _SMOOTHING * (min(gap_s, longest) - usual)
        return gap_s > longest

    def pace(self) -> Pace | None:
        """The pace now, or None before there is any span to measure it on."""
        if len(self._marks) < 2 or self._marks[-1][0] <= self._marks[0][0]:
            return None
        clock, heard = np.array(self._marks).T
        clock, heard = clock - clock[0], heard - heard[0]
        ratio = float(heard[-1] / clock[-1])
        off_s = np.abs(heard / ratio - clock).max()
        return Pace(ratio, float(clock[-1]), steady=bool(off_s <= _STEADY_S))
