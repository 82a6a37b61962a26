"""What one caller may do and hold: pure decisions about rates, silence, bytes and repetition.

Time comes in as an argument, in nanoseconds of a monotonic clock.
"""

from typing import Final

from labkit.errors import Close, ErrorCode
from labkit.protocol.limits import Limits


class TokenBucket:
    """So much at once, and so much a second over a longer time."""

    __slots__ = ("_at_ns", "_burst", "_left", "_per_second")

    def __init__(self, per_second: float, burst: float, now_ns: int) -> None:
        """Begin with a full bucket of `burst`, into which `per_second` flows."""
        self._per_second = per_second
        self._burst = burst
        self._left = burst
        self._at_ns = now_ns

    @property
    def half_full(self) -> bool:
        """Whether half of the burst is there, as of the last look."""
        return self._left >= self._burst / 2

    def give_back(self, amount: float) -> None:
        """Put `amount` back: it was taken for what is not counted."""
        self._left = min(self._burst, self._left + amount)

    def take(self, amount: float, now_ns: int) -> float:
        """Take `amount` out; gives the seconds to wait until the bucket is not in debt."""
        gained = (now_ns - self._at_ns) * 1e-9 * self._per_second
        self._left = left = min(self._burst, self._left + gained) - amount
        self._at_ns = now_ns
        return -left / self._per_second if left < 0 else 0.0


class Budget:
    """Bytes that are held, bounded at several levels: a session, its address, the whole server."""

    FLOOR: Final = 256 * 1024
    """What a session may hold in any case: where others have filled the levels above, a caller
    who is answered as it speaks goes on."""

    __slots__ = ("__weakref__", "_above", "_floor", "limit", "used")

    def __init__(self, limit: int, *above: "Budget", kept: int = 0) -> None:
        """Hold at most `limit` bytes, and beyond `FLOOR` and `kept` what `above` allows.

        A session keeps `kept` bytes for its client, who says what has come behind what it sends:
        so that much is read from it even where others hold all there is.
        """
        self.limit = limit
        self.used = 0
        self._floor = self.FLOOR + kept
        self._above = above

    @property
    def full(self) -> bool:
        """Whether this level or one above it holds as much as it may."""
        if self.used >= self.limit:
            return True
        return self.used >= self._floor and any(level.full for level in self._above)

    def hold(self, used: int) -> None:
        """This level holds `used` bytes now; the levels above learn of the difference."""
        more = used - self.used
        if not more:
            return
        self.used = used
        for level in self._above:
            level.hold(level.used + more)


class Activity:
    """When a session began, and when something last came; audio and control apart.

    Attributes:
        began_ns: The session began.
        audio_ns: The last audio came.
        control_ns: The last text message that was accepted came.
    """

    __slots__ = ("audio_ns", "began_ns", "control_ns")

    def __init__(self, now_ns: int) -> None:
        self.began_ns = self.audio_ns = self.control_ns = now_ns

    def wake(self, now_ns: int) -> None:
        """Its client is here, or is being served: it is not idle."""
        self.audio_ns = self.control_ns = now_ns

    def overdue(self, now_ns: int, limits: Limits) -> Close | None:
        """Why the session's connection should be ended, if it should."""
        silent_s = (now_ns - max(self.audio_ns, self.control_ns)) / 1e9
        no_audio_s = (now_ns - self.audio_ns) / 1e9
        if (now_ns - self.began_ns) / 1e9 >= limits.max_session_s:
            return Close(
                ErrorCode.SESSION_TOO_LONG,
                f"the session lasted for {limits.max_session_s:g} s, the longest that one may",
                "connect again for a new session",
            )
        if silent_s >= limits.idle_s:
            return _idle(f"nothing came for {limits.idle_s:g} s")
        if no_audio_s >= limits.idle_audio_s:
            return _idle(f"no audio came for {limits.idle_audio_s:g} s")
        return None


def _idle(what: str) -> Close:
    return Close(ErrorCode.IDLE, what, "connect again when there is something to say")
