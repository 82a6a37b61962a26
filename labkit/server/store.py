"""Where sessions wait for their clients: attached, detached, expired.

========  =======  ========  =====================================================
state     event    becomes   when
========  =======  ========  =====================================================
attached  lost     detached  its connection is gone
attached  resumed  attached  a second connection takes it over
attached  ended    expired   the client ended it, or it reached its maximum length
detached  resumed  attached  its client came back
detached  ended    expired   it waited for too long, or too many waited
========  =======  ========  =====================================================

An expired session is forgotten: nobody can tell it from one that never was.

The store is pure: time comes in with each call. It is in memory; `SessionStore` is what one
shared between processes would have to offer.
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Generic, Protocol, TypeVar

from labkit.errors import ErrorCode, LabkitError, ProtocolError

__all__ = [
    "TRANSITIONS",
    "Event",
    "IllegalTransitionError",
    "MemoryStore",
    "Resumed",
    "SessionStore",
    "State",
    "Ticket",
    "transition",
]

T = TypeVar("T")

_TOKEN_BYTES: Final = 24
"""192 bits: more than the 128 that make guessing hopeless (RFC 6749, section 10.10)."""


class State(StrEnum):
    """Where a session is in its life."""

    ATTACHED = "attached"
    DETACHED = "detached"
    EXPIRED = "expired"


class Event(StrEnum):
    """What happens to a session."""

    LOST = "lost"
    RESUMED = "resumed"
    ENDED = "ended"


TRANSITIONS: Final[Mapping[tuple[State, Event], State]] = MappingProxyType(
    {
        (State.ATTACHED, Event.LOST): State.DETACHED,
        (State.ATTACHED, Event.RESUMED): State.ATTACHED,
        (State.ATTACHED, Event.ENDED): State.EXPIRED,
        (State.DETACHED, Event.RESUMED): State.ATTACHED,
        (State.DETACHED, Event.ENDED): State.EXPIRED,
    }
)
"""Every legal step; a pair that is not here is a fault of the caller."""


class IllegalTransitionError(LabkitError):
    """A session was told something that cannot happen in its state."""


def transition(state: State, event: Event) -> State:
    """The state after `event`.

    Raises:
        IllegalTransitionError: That cannot happen in `state`.
    """
    after = TRANSITIONS.get((state, event))
    if after is None:
        raise IllegalTransitionError(f"a session that is {state.value} cannot be {event.value}")
    return after


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a client needs to come back.

    Attributes:
        session: Identifier of the session.
        token: Secret, good for the next resume.
    """

    session: str
    token: str


@dataclass(frozen=True, slots=True)
class Resumed(Generic[T]):
    """A session that was resumed.

    Attributes:
        value: The session itself.
        ticket: For the next resume.
        taken_over: Whether another connection still had it.
    """

    value: T
    ticket: Ticket
    taken_over: bool


class SessionStore(Protocol[T]):
    """Keeps sessions and decides who may resume them. Times are monotonic nanoseconds."""

    def add(self, session: str, value: T, identity: str | None) -> Ticket:
        """Keep a new session, attached; only callers with the same identity may resume it."""
        ...

    def find(self, session: str, token: str, identity: str | None) -> T:
        """A session that this caller may resume; changes nothing.

        Raises:
            ProtocolError: There is no such session, or the token or identity is not its own.
        """
        ...

    def resume(self, session: str, token: str, identity: str | None) -> Resumed[T]:
        """Attach a session to a new connection.

        Raises:
            ProtocolError: There is no such session, or the token or identity is not its own.
        """
        ...

    def detach(self, session: str, now_ns: int) -> list[T]:
        """Its connection is gone; gives the sessions that had to make room."""
        ...

    def end(self, session: str) -> None:
        """Forget a session."""
        ...

    def expire(self, now_ns: int) -> list[T]:
        """Forget the sessions that have waited for too long, and give them."""
        ...

    def counts(self) -> dict[State, int]:
        """Sessions by state."""
        ...


@dataclass(slots=True)
class _Record(Generic[T]):
    """A session and its keys.

    `previous` stays good until `current` is used: the answer that carried `current` may be the
    very thing that was lost.
    """

    value: T
    identity: str | None
    current: str
    previous: str | None = None
    state: State = State.ATTACHED
    detached_ns: int = 0

    def admits(self, token: str, identity: str | None) -> bool:
        """Whether the token is one of the two, compared in constant time."""
        good = [secrets.compare_digest(token.encode(), key.encode()) for key in self._keys()]
        return any(good) and identity == self.identity

    def rotate(self, used: str, fresh: str) -> None:
        """Make `fresh` the current token, and keep `used` as the previous one."""
        self.previous, self.current = used, fresh

    def _keys(self) -> list[str]:
        return [self.current] if self.previous is None else [self.current, self.previous]


class MemoryStore(Generic[T]):
    """Sessions in this process."""

    def __init__(
        self,
        *,
        resume_s: float,
        max_detached: int,
        new_token: Callable[[], str] = lambda: secrets.token_urlsafe(_TOKEN_BYTES),
    ) -> None:
        """Begin empty.

        Args:
            resume_s: How long a detached session waits.
            max_detached: Most detached sessions; the one that waits longest goes first.
            new_token: Makes resume tokens.
        """
        self._resume_ns = round(resume_s * 1e9)
        self._max_detached = max_detached
        self._new_token = new_token
        self._records: dict[str, _Record[T]] = {}

    def add(self, session: str, value: T, identity: str | None) -> Ticket:
        """See `SessionStore.add`."""
        record = _Record(value, identity, self._new_token())
        self._records[session] = record
        return Ticket(session, record.current)

    def find(self, session: str, token: str, identity: str | None) -> T:
        """See `SessionStore.find`."""
        return self._admitted(session, token, identity).value

    def resume(self, session: str, token: str, identity: str | None) -> Resumed[T]:
        """See `SessionStore.resume`."""
        record = self._admitted(session, token, identity)
        taken_over = record.state is State.ATTACHED
        record.state = transition(record.state, Event.RESUMED)
        record.rotate(token, self._new_token())
        return Resumed(record.value, Ticket(session, record.current), taken_over)

    def detach(self, session: str, now_ns: int) -> list[T]:
        """See `SessionStore.detach`."""
        record = self._records[session]
        record.state = transition(record.state, Event.LOST)
        record.detached_ns = now_ns
        waiting = self._detached()
        return [self._forget(key) for key in waiting[: max(0, len(waiting) - self._max_detached)]]

    def end(self, session: str) -> None:
        """See `SessionStore.end`."""
        self._forget(session)

    def expire(self, now_ns: int) -> list[T]:
        """See `SessionStore.expire`."""
        return [
            self._forget(key)
            for key in self._detached()
            if now_ns - self._records[key].detached_ns >= self._resume_ns
        ]

    def counts(self) -> dict[State, int]:
        """See `SessionStore.counts`; expired ones are forgotten, so there are none."""
        states = [record.state for record in self._records.values()]
        return {state: states.count(state) for state in (State.ATTACHED, State.DETACHED)}

    def _admitted(self, session: str, token: str, identity: str | None) -> _Record[T]:
        record = self._records.get(session)
        if record is None or not record.admits(token, identity):
            raise _unknown()
        return record

    def _detached(self) -> list[str]:
        """Detached sessions, the one that waits longest first."""
        waiting = [k for k, record in self._records.items() if record.state is State.DETACHED]
        return sorted(waiting, key=lambda key: self._records[key].detached_ns)

    def _forget(self, session: str) -> T:
        record = self._records.pop(session)
        record.state = transition(record.state, Event.ENDED)
        return record.value


def _unknown() -> ProtocolError:
    """One answer for all: whoever guesses learns nothing."""
    return ProtocolError(
        ErrorCode.SESSION_UNKNOWN,
        "there is no such session to resume: it never was, has expired, or the token is wrong",
        "send 'session.start' without 'resume' to begin a new session",
    )
