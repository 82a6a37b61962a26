"""The sessions of labkit.v1 on one server: begun, resumed, detached, expired, and reaped."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from labkit.errors import CloseCode, ErrorCode
from labkit.protocol import v1
from labkit.protocol.replay import Missing
from labkit.server.connection import Closing, Connection
from labkit.server.conversation import Conversation
from labkit.server.metrics import Metrics
from labkit.server.session import Session
from labkit.server.store import MemoryStore, SessionStore, State, Ticket
from labkit.session.settings import ServerSettings
from labkit.voice.pipeline import Pipeline

__all__ = ["Opened", "Sessions"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Opened:
    """A session that a connection may carry from now on.

    Attributes:
        conversation: The session.
        ticket: For the next resume.
        resumed: Whether it was there before.
        missing: What can no longer be sent again.
    """

    conversation: Conversation
    ticket: Ticket
    resumed: bool
    missing: Missing | None = None


class Sessions:
    """Owns every session and the task in which it works."""

    def __init__(
        self,
        pipeline: Pipeline,
        settings: ServerSettings,
        metrics: Metrics,
        clock: Callable[[], int] = time.perf_counter_ns,
        store: SessionStore[Conversation] | None = None,
    ) -> None:
        """Begin with none."""
        self._pipeline = pipeline
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._store = store or MemoryStore(
            resume_s=settings.resume_s, max_detached=settings.max_detached
        )
        self._tasks: dict[Conversation, asyncio.Task[None]] = {}
        self._alone_since: dict[Conversation, int] = {}

    @property
    def detects_speech(self) -> bool:
        """Whether the server can decide where an utterance ends."""
        return self._pipeline.frame_samples is not None

    def counts(self) -> dict[State, int]:
        """Sessions by state."""
        return self._store.counts()

    def behind_s(self, now_ns: int) -> float:
        """Longest that a turn has waited for its answer, over all sessions."""
        return max((one.behind_s(now_ns) for one in self._tasks), default=0.0)

    def held_bytes(self) -> int:
        """Bytes held for all of them."""
        return sum(one.held_bytes() for one in self._tasks)

    def begin(self, start: v1.SessionStart, identity: str | None) -> Opened:
        """Begin a session.

        Args:
            start: What the client asks for.
            identity: Who it is, where that is known; nobody else may resume the session.
        """
        session = Session(secrets.token_hex(8), self._pipeline, self._settings, clock=self._clock)
        conversation = Conversation(session, start, self._settings, self._metrics, self._clock)
        ticket = self._store.add(session.id, conversation, identity)
        self._tasks[conversation] = asyncio.create_task(
            self._work(conversation), name=f"session {session.id}"
        )
        _log.info("session %s: begun", session.id)
        return Opened(conversation, ticket, resumed=False)

    def resume(self, resume: v1.Resume, identity: str | None) -> Opened:
        """Go on with a session, and take it from the connection that has it, if one has.

        Raises:
            ProtocolError: There is nothing to resume, or the client claims to have what was
                never sent; nothing has changed.
        """
        conversation = self._store.find(resume.session, resume.token, identity)
        conversation.outgoing.window.require(resume.received)
        resumed = self._store.resume(resume.session, resume.token, identity)
        self._alone_since.pop(conversation, None)
        carrier = conversation.carrier
        conversation.detach()  # before the other one ends, which would end its session with it
        if carrier is not None:
            carrier.end(_taken_over())
        missing = conversation.outgoing.rewind(resume.received)
        _log.info("session %s: resumed", conversation.id)
        return Opened(conversation, resumed.ticket, resumed=True, missing=missing)

    def leave(self, conversation: Conversation, carrier: Connection) -> None:
        """`carrier` is gone; the session waits, unless another connection has it by now."""
        if conversation.carrier is not carrier:
            return
        conversation.detach()
        if conversation not in self._tasks:
            return
        now_ns = self._clock()
        self._alone_since[conversation] = now_ns
        _log.info("session %s: detached", conversation.id)
        for evicted in self._store.detach(conversation.id, now_ns):
            _log.info("session %s: too many wait, it goes", evicted.id)
            self._release(evicted)

    def end(self, conversation: Conversation) -> None:
        """End a session for good."""
        if conversation in self._tasks:
            self._store.end(conversation.id)
            _log.info("session %s: ended", conversation.id)
            self._release(conversation)

    def reap(self, now_ns: int) -> None:
        """Let go of what has waited for too long."""
        for conversation in self._store.expire(now_ns):
            _log.info("session %s: expired", conversation.id)
            self._release(conversation)
        budget_ns = round(self._settings.detached_turn_s * 1e9)
        for conversation, since_ns in self._alone_since.items():
            if conversation.busy and now_ns - since_ns >= budget_ns:
                conversation.cancel_turns()

    async def close(self) -> None:
        """End every session, and wait until none works any more."""
        tasks = list(self._tasks.values())
        for conversation in list(self._tasks):
            self.end(conversation)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _release(self, conversation: Conversation) -> None:
        self._alone_since.pop(conversation, None)
        conversation.outgoing.close()
        self._tasks.pop(conversation).cancel()

    async def _work(self, conversation: Conversation) -> None:
        """Let it work; a fault of the server ends this session and no other."""
        try:
            await conversation.run()
        except Exception:
            _log.exception("session %s: failed", conversation.id)
            if conversation.carrier is not None:
                conversation.carrier.end(_broken())
            self.end(conversation)


def _taken_over() -> Closing:
    return Closing(
        CloseCode.TAKEN_OVER,
        ErrorCode.TAKEN_OVER,
        "another connection has resumed this session",
        "nothing to do, unless it was not you who resumed it",
    )


def _broken() -> Closing:
    return Closing(
        CloseCode.INTERNAL_ERROR,
        ErrorCode.INTERNAL,
        "the server has failed in this session",
        "begin a new one; the server's log has the details",
    )
