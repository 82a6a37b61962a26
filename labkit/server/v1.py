"""One WebSocket that speaks labkit.v1, and carries a session for as long as it lasts."""

import asyncio
import time
from collections.abc import Callable
from typing import Final, assert_never

from labkit.errors import CloseCode, ErrorCode, ProtocolError
from labkit.outgoing import Feed
from labkit.protocol import v1
from labkit.protocol.replay import Position
from labkit.server.connection import Closing, Ending, Socket, first_of
from labkit.server.conversation import Conversation
from labkit.server.limits import MessagePace, Pace, start_overdue
from labkit.server.metrics import Metrics
from labkit.server.sessions import Opened, Sessions
from labkit.session.settings import ServerSettings

__all__ = ["V1Connection", "limits_of"]

_LEAST_AUDIO_S: Final = 0.0025
"""What a binary message counts for at least: a flood of tiny ones is a flood, too."""


class V1Connection:
    """Reads messages into a session, and writes what the session has to send."""

    def __init__(
        self,
        socket: Socket,
        sessions: Sessions,
        settings: ServerSettings,
        metrics: Metrics,
        *,
        identity: str | None = None,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        """Serve one of `sessions` over `socket`; `identity` says who calls, where it is known."""
        self._socket = socket
        self._sessions = sessions
        self._settings = settings
        self._metrics = metrics
        self._identity = identity
        self._clock = clock
        self._ending = Ending()
        self._gone = asyncio.Event()
        self._opened_ns = clock()
        self._audio_pace = Pace(
            per_second=settings.max_audio_speed,
            burst=settings.audio_burst_s,
            now_ns=self._opened_ns,
        )
        self._message_pace = MessagePace(settings, self._opened_ns)
        self._too_fast = False
        self._started = asyncio.Event()
        self._conversation: Conversation | None = None
        self._feed: Feed | None = None
        self._acknowledged = Position()

    async def run(self) -> None:
        """Serve until the client is gone.

        Raises:
            Closing: The connection is to be ended.
        """
        try:
            async with asyncio.TaskGroup() as group:
                workers = [
                    group.create_task(work())
                    for work in (self._ending.wait, self._write, self._watch_reader)
                ]
                await self._read()
                for worker in workers:
                    worker.cancel()
        finally:
            self._gone.set()
            if self._conversation is not None:
                self._sessions.leave(self._conversation, self)

    async def drain(self) -> None:
        """See `Connection.drain`."""
        await first_of(self._answered, self._gone.wait)

    def overdue(self, now_ns: int) -> Closing | None:
        """See `Connection.overdue`."""
        if self._conversation is None:
            return start_overdue(self._opened_ns, now_ns, self._settings)
        return self._conversation.overdue(now_ns)

    def behind_s(self, now_ns: int) -> float:
        """See `Connection.behind_s`."""
        return 0.0 if self._conversation is None else self._conversation.behind_s(now_ns)

    def end(self, why: Closing) -> None:
        """See `Connection.end`; a session that cannot be resumed after it ends, too."""
        mine = self._conversation is not None and self._conversation.carrier is self
        if mine and self._conversation is not None and not why.close.resumable:
            self._sessions.end(self._conversation)
        self._ending.ask(why)

    def farewell(self, why: Closing) -> str:
        """See `Connection.farewell`."""
        if why.code is None:
            return v1.SessionEnded(reason=str(why)).encode()
        return v1.Error(code=why.code, message=str(why), hint=why.hint, fatal=True).encode()

    async def _answered(self) -> None:
        if self._conversation is not None:
            await self._conversation.all_answered()
            await self._conversation.outgoing.flushed()

    async def _read(self) -> None:
        async for message in self._socket:
            if self._lost_to_another():
                return
            self._touch(audio=isinstance(message, bytes))
            position = Position() if self._conversation is None else self._conversation.received
            cause = v1.Cause(
                type="audio" if isinstance(message, bytes) else "text", position=position
            )
            try:
                if isinstance(message, bytes):
                    await self._hear(message)
                else:
                    self._message_pace.take(self._clock())
                    self._require_size(len(message.encode()))
                    decoded = v1.decode_client(message)
                    cause = cause.model_copy(update={"type": decoded.type, "id": decoded.id})
                    await self._obey(decoded)
            except ProtocolError as error:
                await self._refuse(error, cause)

    def _touch(self, *, audio: bool) -> None:
        """Whatever comes, a ping or nonsense too, shows that the client is there."""
        if self._conversation is not None:
            self._conversation.session.touch(audio=audio)

    def _lost_to_another(self) -> bool:
        """Whether another connection carries the session: what still comes here is old."""
        return self._conversation is not None and self._conversation.carrier is not self

    async def _hear(self, payload: bytes) -> None:
        conversation = self._require_session()
        self._require_size(len(payload))
        seconds = len(payload) / conversation.start.input.format.bytes_per_second
        wait_s = self._audio_pace.take(max(seconds, _LEAST_AUDIO_S), self._clock())
        try:
            conversation.hear(payload)
        finally:
            await self._acknowledge(conversation)
            await self._slow_down(conversation, wait_s)

    async def _obey(self, message: v1.ClientMessage) -> None:
        match message:
            case v1.Ping(id=name):
                await self._tell(v1.Pong(id=name))
            case v1.SessionStart():
                await self._start(message)
            case _:
                conversation = self._require_session()
                try:
                    self._obey_in(conversation, message)
                finally:
                    await self._acknowledge(conversation)

    def _obey_in(self, conversation: Conversation, message: v1.ClientMessage) -> None:
        match message:
            case v1.AudioEnd():
                conversation.end_utterance()
            case v1.ResponseCancel(turn=turn, heard_samples=heard):
                conversation.cancel(turn, heard)
            case v1.ResponseAck(received=received):
                conversation.outgoing.acknowledge(received)
            case v1.SessionEnd():
                self.end(Closing(CloseCode.NORMAL, None, "the client ended the session", ""))
            case v1.Ping() | v1.SessionStart():
                raise AssertionError(f"{message.type} needs no session")
            case _:
                assert_never(message)

    async def _start(self, start: v1.SessionStart) -> None:
        if self._conversation is not None:
            raise ProtocolError(
                ErrorCode.ALREADY_STARTED,
                f"this connection carries session {self._conversation.id} already",
                "open another connection for another session",
            )
        if start.turn_detection is v1.TurnDetection.SERVER and not self._sessions.detects_speech:
            raise ProtocolError(
                ErrorCode.INVALID_FIELD,
                "field 'turn_detection' of 'session.start' is 'server': "
                "this server's pipeline does not detect speech",
                "end utterances with 'audio.end', and leave 'turn_detection' out",
            )
        opened = (
            self._sessions.begin(start, self._identity)
            if start.resume is None
            else self._sessions.resume(start.resume, self._identity)
        )
        self._conversation = opened.conversation
        self._feed = opened.conversation.attach(self)
        self._acknowledged = opened.conversation.received
        await self._feed.put_urgent(self._welcome(opened).encode())
        self._started.set()

    def _welcome(self, opened: Opened) -> v1.SessionStarted:
        agreed = opened.conversation.start
        return v1.SessionStarted(
            session=opened.ticket.session,
            token=opened.ticket.token,
            resumed=opened.resumed,
            input=agreed.input,
            output=agreed.output,
            turn_detection=agreed.turn_detection,
            received=opened.conversation.received,
            missing=opened.missing,
            limits=limits_of(self._settings),
        )

    async def _write(self) -> None:
        await self._started.wait()
        if self._feed is None:
            raise AssertionError("started without a feed")
        while (payload := await self._feed.next()) is not None:
            await self._send(payload)

    async def _watch_reader(self) -> None:
        """Notice a client whose window stays full: it neither reads nor acknowledges."""
        await self._started.wait()
        outgoing = self._require_session().outgoing
        while True:
            base = await outgoing.crowded()
            try:
                async with asyncio.timeout(self._settings.send_timeout_s):
                    await outgoing.moved_on(base)
            except TimeoutError:
                raise self._slow_reader() from None

    async def _send(self, payload: str | bytes) -> None:
        try:
            async with asyncio.timeout(self._settings.send_timeout_s):
                await self._socket.send(payload)
        except TimeoutError:
            raise self._slow_reader() from None

    def _slow_reader(self) -> Closing:
        return Closing(
            CloseCode.SLOW_READER,
            ErrorCode.SLOW_READER,
            f"replies were not read for {self._settings.send_timeout_s:g} s",
            "read, and acknowledge what came; resume to get the rest",
        )

    async def _tell(self, message: v1.Pong | v1.AudioAck) -> None:
        """Send what concerns this connection alone."""
        if self._feed is None:
            await self._send(message.encode())
        else:
            await self._feed.put_urgent(message.encode())

    async def _refuse(self, error: ProtocolError, cause: v1.Cause) -> None:
        if self._conversation is not None:
            self._tell_refusal(self._conversation, error, cause)
            return
        self._metrics.refusals.labels(code=error.code.value).inc()
        told = v1.Error(code=error.code, message=str(error), hint=error.hint, cause=cause)
        await self._send(told.encode())

    def _tell_refusal(
        self, conversation: Conversation, error: ProtocolError, cause: v1.Cause | None
    ) -> None:
        """Refusals wait for no room, so a client that takes none of them has to be stopped."""
        if conversation.outgoing.window.is_overfull:
            raise Closing(
                CloseCode.SLOW_READER,
                ErrorCode.SLOW_READER,
                "many messages were refused, and the refusals were not taken",
                "read, and acknowledge what came; resume to get the rest",
            )
        conversation.tell(error, cause)

    async def _acknowledge(self, conversation: Conversation) -> None:
        """Say what has come, so that the client need not keep it."""
        received, told = conversation.received, self._acknowledged
        enough = self._settings.acknowledge_s * conversation.start.input.sample_rate
        if received.messages > told.messages or received.samples - told.samples >= enough:
            self._acknowledged = received
            await self._tell(v1.AudioAck(received=received))

    async def _slow_down(self, conversation: Conversation, wait_s: float) -> None:
        """Read on when the pace allows it; nothing is lost, the client has to wait."""
        if wait_s and not self._too_fast:
            self._tell_refusal(conversation, _too_fast(self._settings), None)
        self._too_fast = wait_s > 0
        if wait_s:
            await asyncio.sleep(wait_s)

    def _require_session(self) -> Conversation:
        if self._conversation is None:
            raise ProtocolError(
                ErrorCode.NOT_STARTED,
                "the session was not started",
                "send 'session.start' as the first message",
            )
        return self._conversation

    def _require_size(self, size: int) -> None:
        limit = self._settings.max_message_bytes
        if size > limit:
            raise ProtocolError(
                ErrorCode.MESSAGE_TOO_LARGE,
                f"a message of {size} bytes is above the limit of {limit}; it was dropped",
                "send audio in messages of 20 to 100 ms",
            )


def limits_of(settings: ServerSettings) -> v1.Limits:
    """The limits that a client is told."""
    return v1.Limits(
        max_message_bytes=settings.max_message_bytes,
        max_read_bytes=settings.max_read_bytes,
        max_utterance_s=settings.max_utterance_s,
        max_waiting_turns=settings.max_waiting_turns,
        max_messages_per_s=settings.max_messages_per_s,
        message_burst=settings.message_burst,
        max_audio_speed=settings.max_audio_speed,
        burst_s=settings.audio_burst_s,
        history=settings.history,
        idle_s=settings.idle_s,
        idle_audio_s=settings.idle_audio_s,
        max_session_s=settings.max_session_s,
        resume_s=settings.resume_s,
        replay_bytes=settings.replay_bytes,
        replay_s=settings.replay_s,
        send_timeout_s=settings.send_timeout_s,
        detached_turn_s=settings.detached_turn_s,
    )


def _too_fast(settings: ServerSettings) -> ProtocolError:
    return ProtocolError(
        ErrorCode.AUDIO_TOO_FAST,
        f"audio comes faster than {settings.max_audio_speed:g} times real time, and "
        f"{settings.audio_burst_s:g} s of burst are used up",
        "nothing is lost, but reading pauses; send at the pace of speech",
    )
