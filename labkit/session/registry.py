"""Every session of a server, and where it is in its life: attached, detached, expired.

========  =======  ========  =====================================================
state     event    becomes   when
========  =======  ========  =====================================================
attached  lost     detached  its connection is gone
attached  resumed  attached  a second connection takes it over
attached  ended    expired   the client ended it, or it reached its maximum length
detached  resumed  attached  its client came back
detached  ended    expired   it waited for too long, or too many waited
========  =======  ========  =====================================================

An expired session is forgotten: nobody can tell it from one that never was. A session that cannot
be resumed ends with its connection, and nobody is told its token.

`Lives` decides, and is pure: time comes in with each call. `Registry` owns the sessions and the
tasks in which they work.

The way of a resume: `Registry.resume` asks `Lives` for the token and the stream's `ReplayWindow`
for the position, takes the session from the connection that has it, and winds the stream back. The
dialect puts its answer before all that waits, and attaches the session to its own `Feed`.
"""

import asyncio
import logging
import math
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Generic, TypeVar
from weakref import WeakValueDictionary

from labkit.errors import Close, ErrorCode, ProtocolError
from labkit.protocol.replay import Missing, Position
from labkit.session.events import Caller, Encoder, Observer
from labkit.session.limits import Budget
from labkit.session.outgoing import Feed
from labkit.session.refusals import server_failed
from labkit.session.session import Session
from labkit.session.settings import ServerSettings, SessionOptions
from labkit.voice.turn import Pipeline

_log = logging.getLogger(__name__)

T = TypeVar("T")

_TOKEN_BYTES: Final = 24
"""192 bits: more than the 128 that make guessing hopeless (RFC 6749, section 10.10)."""


class State(StrEnum):
    """Where a session is in its life."""

    ATTACHED = "attached"
    DETACHED = "detached"


@dataclass(slots=True)
class _Life(Generic[T]):
    """A session, its keys, and since when it waits for its client: None while it is attached.

    `previous` stays good until `current` is used: the answer that carried `current` may be the
    very thing that was lost.
    """

    value: T
    caller: Caller
    current: str
    previous: str | None = None
    detached_ns: int | None = None

    def admits(self, token: str, identity: str | None) -> bool:
        """Whether the token is one of the two, compared in constant time."""
        keys = [self.current] if self.previous is None else [self.current, self.previous]
        good = [secrets.compare_digest(token.encode(), key.encode()) for key in keys]
        return any(good) and identity == self.caller.identity


class Lives(Generic[T]):
    """Who may resume which session, and until when. Times are monotonic nanoseconds."""

    def __init__(
        self,
        *,
        resume_s: float,
        max_detached: int,
        new_token: Callable[[], str] = lambda: secrets.token_urlsafe(_TOKEN_BYTES),
    ) -> None:
        """Let a detached session wait for `resume_s`, and no more than `max_detached` of them."""
        self._resume_s = resume_s
        self._max_detached = max_detached
        self._new_token = new_token
        self._lives: dict[str, _Life[T]] = {}

    def add(self, session: str, value: T, caller: Caller) -> str:
        """Keep a new session, attached; gives the secret token for its first resume.

        Only callers with the same identity may resume it.
        """
        self._lives[session] = _Life(value, caller, self._new_token())
        return self._lives[session].current

    def find(self, session: str, token: str, identity: str | None) -> T:
        """A session that this caller may resume; changes nothing.

        Raises:
            ProtocolError: There is no such session, or the token or identity is not its own.
        """
        return self._admitted(session, token, identity).value

    def resume(self, session: str, token: str, identity: str | None) -> str:
        """Attach a session to a new connection; gives the token for the next resume.

        Raises:
            ProtocolError: There is no such session, or the token or identity is not its own.
        """
        life = self._admitted(session, token, identity)
        life.detached_ns = None
        life.previous, life.current = token, self._new_token()
        return life.current

    def detach(self, session: str, now_ns: int) -> list[T]:
        """Its connection is gone; gives the sessions that had to make room."""
        self._lives[session].detached_ns = now_ns
        too_many = range(len(self._detached()) - self._max_detached)
        return [one for _ in too_many if (one := self.evict()) is not None]

    def waiting(self, now_ns: int, seconds: float) -> list[T]:
        """Those that have been detached for so long."""
        return [self._lives[key].value for key in self._detached(now_ns, seconds)]

    def evict(self) -> T | None:
        """Forget a detached session, and give it; None where none is.

        Of the caller who has most of them, the one that waits longest: whoever leaves many
        sessions behind drives out nobody else's.
        """
        waiting = self._detached()
        most = Counter(self._lives[key].caller for key in waiting)
        crowd = max(most.values(), default=0)
        left = (key for key in waiting if most[self._lives[key].caller] == crowd)
        return self._forget(next(left)) if waiting else None

    def end(self, session: str) -> None:
        """Forget a session."""
        self._forget(session)

    def expire(self, now_ns: int) -> list[T]:
        """Forget the sessions that have waited for too long, and give them."""
        return [self._forget(key) for key in self._detached(now_ns, self._resume_s)]

    def counts(self) -> dict[State, int]:
        """Sessions by state; expired ones are forgotten."""
        detached = len(self._detached())
        return {State.ATTACHED: len(self._lives) - detached, State.DETACHED: detached}

    def _admitted(self, session: str, token: str, identity: str | None) -> _Life[T]:
        life = self._lives.get(session)
        if life is None or not life.admits(token, identity):
            # One answer for all: whoever guesses learns nothing.
            raise ProtocolError(
                ErrorCode.SESSION_UNKNOWN,
                "there is no such session to resume: it never was, has expired, or the token is "
                "wrong",
                "send 'session.start' without 'resume' to begin a new session",
            )
        return life

    def _detached(self, now_ns: float = math.inf, seconds: float = 0.0) -> list[str]:
        """Those that have been detached for so long, the one that waits longest first."""
        latest_ns = now_ns - round(seconds * 1e9)
        since = {key: life.detached_ns for key, life in self._lives.items()}
        waiting = [(at, key) for key, at in since.items() if at is not None and at <= latest_ns]
        return [key for _, key in sorted(waiting, key=lambda one: one[0])]

    def _forget(self, session: str) -> T:
        return self._lives.pop(session).value


@dataclass(frozen=True, slots=True)
class Opened:
    """A session that a connection may carry from now on.

    Attributes:
        session: The session.
        token: What its client needs to come back, good for the next resume.
        resumed: Whether it was there before.
        missing: What can no longer be sent again.
    """

    session: Session
    token: str
    resumed: bool = False
    missing: Missing | None = None


class Registry:
    """Owns every session and the tasks in which it works."""

    def __init__(
        self,
        pipeline: Pipeline,
        settings: ServerSettings,
        observer: Observer,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._pipeline = pipeline
        self._settings = settings
        self._observer = observer
        self._clock = clock
        self._lives: Lives[Session] = Lives(
            resume_s=settings.resume_s, max_detached=settings.max_detached
        )
        self._tasks: dict[Session, list[asyncio.Task[None]]] = {}
        self._budget = Budget(settings.max_held_bytes_in_all)
        self._below = Budget(settings.max_held_bytes_in_all, self._budget)
        self._by_address: WeakValueDictionary[str, Budget] = WeakValueDictionary()

    @property
    def detects_speech(self) -> bool:
        """Whether the server can decide where an utterance ends."""
        return self._pipeline.frame_samples is not None

    def counts(self) -> dict[State, int]:
        """Sessions by state."""
        return self._lives.counts()

    def behind_s(self, now_ns: int) -> float:
        """Longest that a turn has waited for its answer, over all sessions."""
        return max((one.behind_s(now_ns) for one in self._tasks), default=0.0)

    def held_bytes(self) -> int:
        """Bytes held for all of them."""
        return sum(one.held_bytes() for one in self._tasks)

    def begin(self, options: SessionOptions, encoder: Encoder, caller: Caller) -> Opened:
        """Begin a session; one that is resumable outlives its connections."""
        session = Session(
            secrets.token_hex(8),
            self._pipeline,
            encoder,
            options,
            self._settings,
            self._observer,
            budget=Budget(
                self._settings.max_held_bytes,
                *self._levels(caller.address),
                kept=self._settings.replay_bytes,
            ),
            clock=self._clock,
        )
        self._tasks[session] = [
            asyncio.create_task(self._work(session, work), name=f"session {session.id}")
            for work in session.work()
        ]
        token = self._lives.add(session.id, session, caller)
        _log.info("session %s: begun", session.id)
        return Opened(session, token)

    def resume(self, session_id: str, token: str, received: Position, caller: Caller) -> Opened:
        """Go on with a session, and take it from the connection that has it, if one has.

        Raises:
            ProtocolError: There is nothing to resume, or the client claims to have what was
                never sent; nothing has changed.
        """
        session = self._lives.find(session_id, token, caller.identity)
        feed = session.outgoing.feed
        if feed is not None and feed.ended.done() and not _outlasts(feed.ended.result()):
            # Its client was told that it is over, or is about to be: its connection ends yet.
            self.end(session)
            self._lives.find(session_id, token, caller.identity)
        session.outgoing.window.require(received)
        fresh = self._lives.resume(session_id, token, caller.identity)
        # Detached before the other connection ends: its end would otherwise take the session
        # with it.
        session.detach()
        if feed is not None:
            taken_over = "another connection has resumed this session"
            hint = "nothing to do, unless it was not you who resumed it"
            feed.end(Close(ErrorCode.TAKEN_OVER, taken_over, hint))
        missing = session.outgoing.rewind(received)
        # Said so it need not be again: its acknowledgement may lie behind audio that has no room.
        session.acknowledge(received)
        _log.info("session %s: resumed", session.id)
        return Opened(session, fresh, resumed=True, missing=missing)

    def leave(self, session: Session, feed: Feed, why: Close | None) -> None:
        """The connection of `feed` is gone; the session waits, unless another one has it by now.

        One that cannot be resumed, or not after `why`, ends.
        """
        if session.outgoing.feed is not feed or session not in self._tasks:
            return
        if not session.options.resumable or (why is not None and not _outlasts(why)):
            self.end(session)
            return
        session.detach()
        now_ns = self._clock()
        _log.info("session %s: detached", session.id)
        for evicted in self._lives.detach(session.id, now_ns):
            self._evict(evicted, "too many wait")
        self._make_room()

    def end(self, session: Session) -> None:
        """End a session for good."""
        if session in self._tasks:
            self._lives.end(session.id)
            _log.info("session %s: ended", session.id)
            self._release(session)

    def reap(self, now_ns: int, below_bytes: int = 0) -> None:
        """Let go of what has waited for too long, or takes too much room.

        Connections hold `below_bytes` of what was not read from them, and not taken by clients.
        """
        self._below.hold(below_bytes)
        for session in self._lives.expire(now_ns):
            _log.info("session %s: expired", session.id)
            self._release(session)
        for session in self._lives.waiting(now_ns, self._settings.detached_turn_s):
            if session.busy:
                session.cancel_running()
        for session in self._tasks:
            session.recount()
        self._make_room()

    async def close(self) -> None:
        """End every session, and wait until none works any more."""
        tasks = [task for tasks in self._tasks.values() for task in tasks]
        for session in list(self._tasks):
            self.end(session)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _levels(self, address: str) -> tuple[Budget, ...]:
        if not address:
            return (self._budget,)
        limit = self._settings.max_held_bytes_per_address
        level = self._by_address.get(address)
        if level is None:
            level = self._by_address[address] = Budget(limit, self._budget)
        return (level,)

    def _make_room(self) -> None:
        """Where all together hold too much, those without a caller go first."""
        while self._budget.full and (evicted := self._lives.evict()) is not None:
            self._evict(evicted, "too much is held")

    def _evict(self, session: Session, why: str) -> None:
        _log.info("session %s: %s, it goes", session.id, why)
        self._release(session)

    def _release(self, session: Session) -> None:
        session.close()
        for task in self._tasks.pop(session):
            task.cancel()

    async def _work(self, session: Session, work: Callable[[], Awaitable[None]]) -> None:
        """Let it work; a fault of the server ends this session and no other."""
        try:
            await work()
        except Exception:
            _log.exception("session %s: failed", session.id)
            if session.outgoing.feed is not None:
                session.outgoing.feed.end(server_failed())
            self.end(session)


def _outlasts(why: Close) -> bool:
    """Whether a session may be resumed after a connection that ended so."""
    return why.close.resumable and why.code is not ErrorCode.INTERNAL
