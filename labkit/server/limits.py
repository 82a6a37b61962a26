"""Pure decisions about time: what comes too fast, and who has been silent for too long."""

from dataclasses import dataclass

from labkit.errors import CloseCode, ErrorCode
from labkit.server.connection import Closing
from labkit.session.settings import ServerSettings

__all__ = ["Activity", "MessagePace", "Pace", "start_overdue"]


class Pace:
    """A token bucket: so much at once, and so much a second over a longer time."""

    def __init__(self, *, per_second: float, burst: float, now_ns: int) -> None:
        """Begin with a full bucket.

        Args:
            per_second: What flows in each second.
            burst: What the bucket holds.
            now_ns: The time on a monotonic clock.
        """
        self._per_second = per_second
        self._burst = burst
        self._left = burst
        self._at_ns = now_ns

    def take(self, amount: float, now_ns: int) -> float:
        """Take `amount` out; gives the seconds to wait until the bucket is not in debt."""
        gained = (now_ns - self._at_ns) / 1e9 * self._per_second
        self._left = min(self._burst, self._left + gained) - amount
        self._at_ns = now_ns
        return max(0.0, -self._left / self._per_second)


class MessagePace:
    """How many text messages a connection may send."""

    def __init__(self, settings: ServerSettings, now_ns: int) -> None:
        """Begin with a full burst."""
        self._limit = settings.max_messages_per_s
        self._pace = Pace(per_second=self._limit, burst=settings.message_burst, now_ns=now_ns)

    def take(self, now_ns: int) -> None:
        """Count one message.

        Raises:
            Closing: It is one too many.
        """
        if self._pace.take(1, now_ns):
            raise Closing(
                CloseCode.POLICY,
                ErrorCode.TOO_MANY_MESSAGES,
                f"more than {self._limit:g} text messages a second",
                "send less control; audio goes in binary messages",
            )


@dataclass(slots=True)
class Activity:
    """When a session began, and when something last came; audio and control apart.

    Attributes:
        began_ns: The session began.
        audio_ns: The last audio came.
        control_ns: The last text message came.
    """

    began_ns: int
    audio_ns: int
    control_ns: int

    @classmethod
    def starting(cls, now_ns: int) -> "Activity":
        """A session that begins now."""
        return cls(now_ns, now_ns, now_ns)

    def touch(self, now_ns: int, *, audio: bool) -> None:
        """Something came."""
        if audio:
            self.audio_ns = now_ns
        else:
            self.control_ns = now_ns

    def wake(self, now_ns: int) -> None:
        """Its client is here, or is being served: it is not idle."""
        self.audio_ns = self.control_ns = now_ns

    def overdue(self, now_ns: int, settings: ServerSettings) -> Closing | None:
        """Why the session should be ended, if it should."""
        silent_s = (now_ns - max(self.audio_ns, self.control_ns)) / 1e9
        no_audio_s = (now_ns - self.audio_ns) / 1e9
        if (now_ns - self.began_ns) / 1e9 >= settings.max_session_s:
            return _too_long(settings.max_session_s)
        if silent_s >= settings.idle_s:
            return _idle(f"nothing came for {settings.idle_s:g} s")
        if no_audio_s >= settings.idle_audio_s:
            return _idle(f"no audio came for {settings.idle_audio_s:g} s")
        return None


def start_overdue(opened_ns: int, now_ns: int, settings: ServerSettings) -> Closing | None:
    """Why a connection without a session should be ended, if it should."""
    if (now_ns - opened_ns) / 1e9 < settings.start_s:
        return None
    return Closing(
        CloseCode.START_TIMEOUT,
        ErrorCode.START_TIMEOUT,
        f"no 'session.start' came within {settings.start_s:g} s",
        "send 'session.start' as the first message",
    )


def _too_long(limit_s: float) -> Closing:
    return Closing(
        CloseCode.SESSION_TOO_LONG,
        ErrorCode.SESSION_TOO_LONG,
        f"the session lasted for {limit_s:g} s, the longest that one may",
        "connect again for a new session",
    )


def _idle(what: str) -> Closing:
    return Closing(
        CloseCode.IDLE, ErrorCode.IDLE, what, "connect again when there is something to say"
    )
