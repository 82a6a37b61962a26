"""One connection of a session of labkit.v1: what is sent, read and acknowledged over it."""

import asyncio
import itertools
from contextlib import suppress
from typing import Final, TypeVar

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from labkit.client.answers import Deadlines, TurnSoFar
from labkit.client.conversation import Conversation, ReplyAudio, TextMessage, read_message
from labkit.client.dial import why_closed
from labkit.client.speech import Clock
from labkit.errors import ClientError, CloseCode, ErrorCode, ProtocolError
from labkit.protocol import v1

__all__ = ["Connection", "Lost"]

E = TypeVar("E", bound=BaseException)

_ACK_BYTES: Final = 16 * 1024
_TEXT_WEIGHT: Final = 512
"""What a text message counts for: short ones must be acknowledged, too."""
_LOOKS: Final = 10
"""Looks for progress within one deadline, so a deadline is a tenth late at most."""
_AS_AGREED: Final = "keep to the protocol: /schema.json, labkit/protocol/PROTOCOL.md"


class Lost(Exception):  # noqa: N818 - it is mended, or told as another error
    """A connection is gone, and another one may go on.

    Attributes:
        retry_s: The least wait that the server asked for.
    """

    def __init__(self, reason: str, retry_s: float = 0.0) -> None:
        """Say why."""
        super().__init__(reason)
        self.retry_s = retry_s


class Connection:
    """One connection of a session, from `session.start` until it is lost.

    Attributes:
        closed: Nothing more goes over it.
        worked: Something of the conversation came over it.
    """

    def __init__(
        self,
        socket: ClientConnection,
        conversation: Conversation,
        deadlines: Deadlines,
        clock: Clock,
    ) -> None:
        """Carry `conversation` over `socket`."""
        self.closed = False
        self.worked = False
        self._socket = socket
        self._conversation = conversation
        self._within_s = deadlines.answer_s
        self._clock = clock
        self._output = v1.AudioSpec().format
        self._pongs: dict[str, asyncio.Future[int]] = {}
        self._ping_numbers = itertools.count(1)
        self._unacknowledged = 0
        self._ack_bytes = _ACK_BYTES

    async def begin(self, start: v1.SessionStart, within_s: float) -> v1.SessionStarted:
        """Begin or resume a session, and wait for the server's word.

        Raises:
            Lost: It did not come in time, or the connection was lost.
            ClientError: The server refuses, or answers something else.
        """
        try:
            async with asyncio.timeout(within_s):
                await self._socket.send(start.encode())
                answer = await self._socket.recv()
        except TimeoutError:
            raise Lost(
                "the server took the connection and did not answer 'session.start' within "
                f"{within_s:.3g} s"
            ) from None
        except ConnectionClosed as closed:
            raise _lost(closed) from closed
        message = None
        if isinstance(answer, str):
            with suppress(ProtocolError):  # told below, with what came
                message = read_message(answer)
        match message:
            case v1.SessionStarted() as started:
                return started
            case v1.Error() as error:
                raise ClientError(f"{error.code!s}: {error.message}. {error.hint}".rstrip(". "))
        unsure = "" if self._socket.subprotocol else "; it agreed to no subprotocol"
        raise ClientError(f"the server answered 'session.start' with {answer[:80]!r}{unsure}")

    async def carry(self, started: v1.SessionStarted) -> None:
        """Send and receive until the connection is lost.

        Raises:
            Lost: Another connection may go on.
            ClientError: The session is over.
            ProtocolError: The server does not keep to the protocol.
        """
        self._output = started.output.format
        # The server stops when its window is full, so it has to hear well before that.
        window = self._output.bytes_per_second * started.limits.replay_s
        self._ack_bytes = min(_ACK_BYTES, round(min(started.limits.replay_bytes, window) / 4))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write())
                group.create_task(self._read())
                group.create_task(self._watch())
        except* ConnectionClosed as closed:
            raise _lost(_first(closed)) from None
        except* (ClientError, ProtocolError) as wrong:
            raise _first(wrong) from None
        finally:
            self._close()

    async def ping(self) -> float:
        """Send `ping`, wait for `pong`; gives the round trip in seconds.

        Raises:
            ClientError: The connection was lost, or no pong came in time.
        """
        name, sent_ns = f"ping-{next(self._ping_numbers)}", self._clock.now_ns()
        pong: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._pongs[name] = pong
        self._conversation.put_urgent(v1.Ping(id=name).encode())
        try:
            async with asyncio.timeout(self._within_s):
                return (await pong - sent_ns) / 1e9
        except TimeoutError:
            raise TurnSoFar(asked="ping").missing("no pong came", self._within_s) from None
        finally:
            self._pongs.pop(name, None)

    async def end(self) -> None:
        """Send `session.end`; returns once it has gone out.

        Raises:
            ClientError: The server reads nothing.
        """
        self._conversation.put_urgent(v1.SessionEnd().encode())
        try:
            async with asyncio.timeout(self._within_s):
                await self._conversation.urgent_sent()
        except TimeoutError:
            raise self._unread() from None

    def _close(self) -> None:
        self.closed = True
        self._conversation.drop_urgent()
        for pong in self._pongs.values():
            if not pong.done():
                pong.set_exception(ClientError("the connection was lost"))

    async def _write(self) -> None:
        while True:
            payload = await self._conversation.next_payload()
            try:
                async with asyncio.timeout(self._within_s):
                    await self._socket.send(payload)
            except TimeoutError:
                raise self._unread() from None

    def _unread(self) -> ClientError:
        return self._conversation.so_far.missing("the server read no more", self._within_s)

    async def _watch(self) -> None:
        """End the session when the server owes something and gives no sign for too long."""
        while True:
            await asyncio.sleep(self._within_s / _LOOKS)
            if self._conversation.is_full:  # it is this side that does not read
                self._conversation.note_progress()
            if self._conversation.is_overdue(self._within_s):
                raise self._conversation.missing(self._within_s)

    async def _read(self) -> None:
        while True:
            message = await self._socket.recv()
            if isinstance(message, bytes):
                await self._take_audio(message)
            else:
                await self._take_text(read_message(message))

    async def _take_audio(self, payload: bytes) -> None:
        samples, rest = divmod(len(payload), self._output.frame_bytes)
        if rest:
            raise _broken(f"a binary message of {len(payload)} bytes is no {self._output}")
        audio = ReplyAudio(self._conversation.received.samples, payload)
        await self._conversation.hand_on(audio, samples=samples)
        if samples:
            self._note_progress()
        self._conversation.so_far.reply_s += self._output.seconds(samples)
        self._acknowledge(len(payload))

    async def _take_text(self, message: TextMessage) -> None:
        match message:
            case v1.Pong(id=name):
                self._take_pong(name)
                return
            case v1.AudioAck(received=received):
                if self._conversation.acknowledged(received):
                    self._note_progress()
                return
        number: int | None = getattr(message, "seq", None)
        expected = self._conversation.received.messages + 1
        if number is not None and number != expected:
            raise _broken(f"message {number} came where message {expected} was due")
        await self._conversation.hand_on(message, messages=int(number is not None))
        if number is not None:
            self._note_progress()
        self._conversation.note(message)
        self._acknowledge(
            _TEXT_WEIGHT if number is not None else 0, now=isinstance(message, v1.ResponseDone)
        )

    def _note_progress(self) -> None:
        """The conversation went on; chatter about the connection alone is no progress."""
        self.worked = True
        self._conversation.note_progress()

    def _take_pong(self, name: str | None) -> None:
        pong = self._pongs.pop(name or "", None)
        if pong is not None and not pong.done():
            pong.set_result(self._clock.now_ns())

    def _acknowledge(self, weight: int, *, now: bool = False) -> None:
        """Acknowledge what came, once enough has come or where it must be heard `now`."""
        self._unacknowledged += weight
        if now or self._unacknowledged >= self._ack_bytes:
            self._unacknowledged = 0
            ack = v1.ResponseAck(received=self._conversation.received)
            self._conversation.acknowledge_reply(ack.encode())


def _broken(what: str) -> ProtocolError:
    return ProtocolError(ErrorCode.POSITION_INVALID, what, _AS_AGREED)


def _first(group: BaseExceptionGroup[E]) -> E:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _lost(closed: ConnectionClosed) -> Lost | ClientError:
    """What a close means: try again, or the session is over."""
    frame = closed.rcvd
    if frame is not None and frame.code in set(CloseCode) and not CloseCode(frame.code).resumable:
        return ClientError(f"the server closed the session: code {frame.code}, {frame.reason}")
    return Lost(why_closed(closed))
