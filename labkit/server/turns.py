"""The work of one session: listening ahead, and answering utterances one after the other.

It is the same for every dialect. A dialect says how a reply goes out, through a `Reply`.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from labkit.errors import EngineError, ErrorCode, ProtocolError
from labkit.measure.trace import Mark
from labkit.server.connection import forget_frames
from labkit.server.session import EndedUtterance, Session
from labkit.server.settings import ServerSettings
from labkit.voice.pipeline import Sink
from labkit.voice.utterance import Exchange

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
    ) -> None:
        """Answer what `session` hears.

        Args:
            session: The conversation.
            settings: How many utterances may wait.
            open_reply: Gives the reply of a turn; turns count from 1.
        """
        self._session = session
        self._open_reply = open_reply
        self._waiting: asyncio.Queue[EndedUtterance] = asyncio.Queue(settings.max_waiting_turns)
        self._heard = asyncio.Event()
        self._running: asyncio.Task[Exchange] | None = None
        self._answering: EndedUtterance | None = None
        self._number = 0

    @property
    def busy(self) -> bool:
        """Whether a turn runs or waits."""
        return self._running is not None or not self._waiting.empty()

    @property
    def running(self) -> int | None:
        """Number of the turn that runs."""
        return self._number if self._running is not None else None

    def behind_s(self, now_ns: int) -> float:
        """Seconds that the oldest utterance without an audible answer has waited for it."""
        if self._answering is None or Mark.TTS_FIRST_AUDIO in self._answering.trace.marks:
            return 0.0
        return (now_ns - self._answering.trace.marks[Mark.END_STREAM_RECEIVED]) / 1e9

    def heard(self) -> None:
        """More audio has come: work ahead on it."""
        self._heard.set()

    def require_room(self) -> None:
        """Make sure that one more utterance may wait.

        Raises:
            ProtocolError: Too many wait already.
        """
        if self._waiting.full():
            raise ProtocolError(
                ErrorCode.TOO_MANY_TURNS,
                f"{self._waiting.qsize()} turns wait for their answer already",
                "wait for the answers before you end another utterance",
            )

    def end_utterance(self) -> None:
        """The utterance is over: it waits for its answer from now on.

        Raises:
            ProtocolError: Too many wait already; this one goes on.
        """
        self.require_room()
        self._waiting.put_nowait(self._session.end_utterance())

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
        await self._waiting.join()

    async def _listen(self) -> None:
        """Work ahead while audio comes in; what piled up meanwhile is taken in one go."""
        while True:
            await self._heard.wait()
            self._heard.clear()
            try:
                await self._session.listen()
            except EngineError as error:
                _log.error("session %s: %s", self._session.id, error)

    async def _answer_all(self) -> None:
        while True:
            ended = await self._waiting.get()
            try:
                await self._answer(ended)
            finally:
                self._waiting.task_done()

    async def _answer(self, ended: EndedUtterance) -> None:
        self._number += 1
        self._answering = ended
        reply = self._open_reply(self._number)
        self._running = asyncio.create_task(self._session.answer(ended, reply))
        try:
            await asyncio.wait([self._running])
            await self._close(reply, ended, self._running)
        finally:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._running = self._answering = None

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
