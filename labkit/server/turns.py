"""The work of one session: listening ahead, and answering utterances one after the other.

It is the same for every dialect. A dialect says how a reply goes out, through a `Reply`.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol

from labkit.changes import Changes
from labkit.errors import EngineError, ErrorCode, ProtocolError
from labkit.server.connection import forget_frames
from labkit.server.session import EndedUtterance, Session
from labkit.session.settings import ServerSettings
from labkit.trace import Mark
from labkit.voice.history import Exchange
from labkit.voice.pipeline import Sink

__all__ = ["Reply", "Turns"]

_log = logging.getLogger(__name__)


class Reply(Sink, Protocol):
    """A turn's results on their way to the client. Ends in exactly one of three ways."""

    async def finish(self, ended: EndedUtterance, exchange: Exchange) -> None:
        """The turn was answered."""
        ...

    async def fail(self, error: ProtocolError) -> None:
        """The turn could not be answered."""
        ...

    async def cancelled(self) -> None:
        """The turn was cancelled."""
        ...


class Turns:
    """Takes the utterances of one session and answers them in order."""

    def __init__(
        self,
        session: Session,
        settings: ServerSettings,
        open_reply: Callable[[int], Reply],
        listened: Callable[[], None] = lambda: None,
    ) -> None:
        """Answer what `session` hears.

        Args:
            session: The conversation.
            settings: How many utterances may wait.
            open_reply: Gives the reply of a turn; turns count from 1.
            listened: Called whenever more of the utterance was worked on ahead.
        """
        self._session = session
        self._open_reply = open_reply
        self._listened = listened
        self._most_waiting = settings.max_waiting_turns
        self._waiting: deque[EndedUtterance] = deque()
        self._changes = Changes()
        self._heard = asyncio.Event()
        self._running: asyncio.Task[Exchange] | None = None
        self._answering: EndedUtterance | None = None
        self._number = 0

    @property
    def busy(self) -> bool:
        """Whether a turn runs or waits."""
        return self._answering is not None or bool(self._waiting)

    @property
    def running(self) -> int | None:
        """Number of the turn that runs."""
        return self._number if self._running is not None else None

    def behind_s(self, now_ns: int) -> float:
        """Seconds that the oldest utterance without an audible answer has waited for it."""
        if self._answering is None or Mark.TTS_FIRST_AUDIO in self._answering.trace.marks:
            return 0.0
        return (now_ns - self._answering.trace.marks[Mark.END_STREAM_RECEIVED]) / 1e9

    def held_bytes(self) -> int:
        """Bytes of the utterance that comes in, of those that wait, and of the one in hand."""
        ended = [*self._waiting, *([self._answering] if self._answering is not None else [])]
        utterances = [self._session.utterance, *(one.utterance for one in ended)]
        return sum(utterance.nbytes for utterance in utterances)

    def heard(self) -> None:
        """More audio has come: work ahead on it."""
        self._heard.set()

    def require_room(self) -> None:
        """Make sure that one more utterance may wait.

        Raises:
            ProtocolError: Too many wait already.
        """
        if len(self._waiting) >= self._most_waiting:
            raise ProtocolError(
                ErrorCode.TOO_MANY_TURNS,
                f"{len(self._waiting)} turns wait for their answer already",
                "wait for the answers before you end another utterance",
            )

    def end_utterance(self, frames: int | None = None) -> None:
        """The utterance is over: it waits for its answer from now on.

        Args:
            frames: Where it ended, in frames that were listened to; by default, right here.

        Raises:
            ProtocolError: Too many wait already; this one goes on.
        """
        self.require_room()
        session = self._session
        ended = session.end_utterance() if frames is None else session.end_utterance_at(frames)
        self._waiting.append(ended)
        self._changes.tell()

    def cancel(self) -> None:
        """Stop the turn that runs, if one does."""
        if self._running is not None:
            self._running.cancel()

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen())
                group.create_task(self._answer_all())
        except asyncio.CancelledError as error:
            forget_frames(error)
            raise

    async def all_answered(self) -> None:
        """Wait until no turn runs or waits."""
        await self._changes.until(lambda: not self.busy)

    async def _listen(self) -> None:
        """Work ahead while audio comes in; what piled up meanwhile is taken in one go."""
        while True:
            await self._heard.wait()
            self._heard.clear()
            try:
                await self._session.listen()
                self._listened()
            except EngineError as error:
                _log.error("session %s: %s", self._session.id, error)

    async def _answer_all(self) -> None:
        while True:
            await self._changes.until(lambda: self._waiting)
            self._answering = self._waiting.popleft()
            try:
                await self._answer(self._answering)
            finally:
                self._answering = None
                self._changes.tell()

    async def _answer(self, ended: EndedUtterance) -> None:
        self._number += 1
        reply = self._open_reply(self._number)
        self._running = asyncio.create_task(self._session.answer(ended, reply))
        try:
            await asyncio.wait([self._running])
            await self._close(reply, ended, self._running)
        finally:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._running = None

    async def _close(
        self, reply: Reply, ended: EndedUtterance, turn: "asyncio.Task[Exchange]"
    ) -> None:
        """Every turn is closed towards the client, which may be waiting for that."""
        if turn.cancelled():
            await reply.cancelled()
        elif (error := turn.exception()) is None:
            await reply.finish(ended, turn.result())
        elif isinstance(error, EngineError):
            _log.error("session %s: %s", self._session.id, error)
            await reply.fail(_not_answered(error))
        else:
            raise error


def _not_answered(error: EngineError) -> ProtocolError:
    return ProtocolError(
        ErrorCode.ENGINE_FAILED,
        f"this turn could not be answered: {error}",
        "say it again; the server's log has the details",
    )
