"""How fast a stream comes in: bytes per second of the clock."""

from collections import deque
from dataclasses import dataclass
from typing import Final

__all__ = ["ArrivalMeter", "ArrivalRate"]

_SECOND: Final = 1_000_000_000
_KEPT_NS: Final = 4 * _SECOND
_MARK_NS: Final = _SECOND // 10
"""Ten marks a second are enough to see a stall of 0.15 s, however many messages come."""
_PAUSE_GAPS: Final = 3.0
_PAUSE_MORE_NS: Final = _SECOND // 10
_SMOOTHING: Final = 0.1
_STEADY_S: Final = 0.15


@dataclass(frozen=True, slots=True)
class ArrivalRate:
    """How fast a stretch of a stream came in.

    Attributes:
        bytes_per_second: Bytes per second of the clock.
        span_s: Length of the stretch on the clock, in seconds.
    """

    bytes_per_second: float
    span_s: float


class ArrivalMeter:
    """Measures the arrival rate over the last four seconds of the clock, or since the last pause.

    A gap between messages that is longer than three usual ones and 0.1 s is a pause: a caller
    that is muted, or sends only speech, is not slow, so measuring begins anew behind it. What
    comes in one burst has no span, and a burst followed by live audio is not steady.
    """

    def __init__(self) -> None:
        self._marks: deque[tuple[int, int]] = deque()
        self._marked_ns = 0
        self._last_ns = 0
        self._bytes = 0
        self._usual_gap_ns: float | None = None

    def feed(self, at_ns: int, size: int) -> None:
        """Count a message of `size` bytes that came at `at_ns` of a monotonic clock.

        This runs for every message of every caller: all that costs more waits for `rate`.
        """
        gap_ns, self._last_ns = at_ns - self._last_ns, at_ns
        self._bytes += size
        if self._marks:
            usual = gap_ns if self._usual_gap_ns is None else self._usual_gap_ns
            longest = _PAUSE_GAPS * usual + _PAUSE_MORE_NS
            if gap_ns > longest:
                self._marks.clear()
                gap_ns = int(longest)
            self._usual_gap_ns = usual + _SMOOTHING * (gap_ns - usual)
            if self._marks and at_ns - self._marked_ns < _MARK_NS:
                return
        self._marks.append((at_ns, self._bytes))
        self._marked_ns = at_ns
        self._forget()

    def _forget(self) -> None:
        while self._last_ns - self._marks[0][0] > _KEPT_NS:
            self._marks.popleft()

    def rate(self) -> ArrivalRate | None:
        """The arrival rate now, or None before there is any span to measure it on."""
        if not self._marks:
            return None
        self._forget()
        begin_ns, begin_bytes = self._marks[0]
        span_ns, heard = self._last_ns - begin_ns, self._bytes - begin_bytes
        if span_ns <= 0 or heard <= 0:
            return None
        return ArrivalRate(heard * _SECOND / span_ns, span_ns / _SECOND)

    def is_steady(self) -> bool:
        """Whether nothing came more than 0.15 s off its time on a straight line."""
        rate = self.rate()
        if rate is None:
            return False
        begin_ns, begin_bytes = self._marks[0]
        return all(
            abs((size - begin_bytes) / rate.bytes_per_second - (at_ns - begin_ns) / _SECOND)
            <= _STEADY_S
            for at_ns, size in self._marks
        )
