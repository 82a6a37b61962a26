"""The two streams of a session of labkit.v1, which outlive its connections.

`Upstream` is what goes to the server and may have to be sent again; `Downstream` what came from
it and was handed on.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from labkit.client.events import Event, ReplyAudio, TextMessage
from labkit.errors import ClientError
from labkit.protocol.replay import Position, ReplayWindow

__all__ = ["Downstream", "Upstream"]

_EVENTS: Final = 64
"""Events that may wait for whoever uses the client; then the server has to wait."""


class Upstream:
    """Audio and messages for the server, kept until it has acknowledged them.

    Whoever speaks adds to it and waits while it is full; the connection of the moment takes from
    it. Messages about the connection itself go before the rest and are lost with it.

    Attributes:
        window: The stream; only `Upstream` changes it.
        failure: Why nothing more can be sent; None while the session lives.
    """

    def __init__(self, window: ReplayWindow) -> None:
        """Send what `window` holds."""
        self.window = window
        self.failure: ClientError | None = None
        self._urgent: deque[str] = deque()
        self._acknowledgement: str | None = None
        self._changed = asyncio.Event()

    async def put_text(self, payload: str) -> None:
        """Add a numbered message once there is room.

        Raises:
            ClientError: The session is over.
        """
        await self._room()
        self.window.add_text(payload)
        self._tell()

    async def put_audio(self, payload: bytes, samples: int) -> None:
        """Add `samples` samples of audio (per channel) once there is room.

        Raises:
            ClientError: The session is over.
        """
        await self._room()
        self.window.add_audio(payload, samples)
        self._tell()

    def put_urgent(self, payload: str) -> None:
        """Send an unnumbered message before everything that waits."""
        # Without a wait for room: the reader adds here too, and a reader that waits for its
        # writer, while the server waits to be read before it reads, would wait for ever.
        self._urgent.append(payload)
        self._tell()

    def acknowledge_reply(self, payload: str) -> None:
        """Tell the server what has come; only the latest that waits is of use."""
        self._acknowledgement = payload
        self._tell()

    async def urgent_sent(self) -> None:
        """Wait until the connection has taken the messages that are urgent, or was lost."""
        await self._until(lambda: not self._urgent)

    async def next(self) -> str | bytes:
        """The next message to send, as soon as there is one."""
        await self._until(
            lambda: self._urgent or self._acknowledgement or self.window.waiting_bytes
        )
        payload = self._take()
        self._tell()
        return payload

    def received(self, position: Position) -> None:
        """The server has everything up to `position`; there may be room again.

        Raises:
            ProtocolError: That was never sent.
        """
        self.window.acknowledge(position)
        self._tell()

    def resume(self, position: Position) -> None:
        """A new connection begins, to a server that has everything up to `position`.

        No acknowledgement of the old connection can come after this: its reader has ended before
        the new one was asked for. So the window never forgets what it is about to send again.

        Raises:
            ProtocolError: That was never sent.
        """
        self.drop_urgent()
        self.window.rewind(position)
        self._tell()

    def drop_urgent(self) -> None:
        """The connection is gone, and with it what concerned it alone."""
        self._urgent.clear()
        self._acknowledgement = None
        self._tell()

    def fail(self, failure: ClientError) -> None:
        """The session is over: whoever waits for room, or comes later, is told why."""
        self.failure = failure
        self.drop_urgent()

    def _take(self) -> str | bytes:
        if self._urgent:
            return self._urgent.popleft()
        if (payload := self._acknowledgement) is not None:
            self._acknowledgement = None
            return payload
        taken = self.window.take()
        assert taken is not None, "`next` waits until something waits"
        return taken

    async def _room(self) -> None:
        await self._until(lambda: self.failure is not None or self.window.has_room)
        if self.failure is not None:
            raise self.failure

    def _tell(self) -> None:
        """Wake whoever waits; each then looks for itself."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await self._changed.wait()


class Downstream:
    """What came from the server, handed on in order.

    Attributes:
        received: What was handed on; after a lost connection the rest comes again.
    """

    def __init__(self, received: Position) -> None:
        """Go on behind `received`."""
        self.received = received
        self._events: asyncio.Queue[Event | None] = asyncio.Queue(_EVENTS)

    @property
    def is_full(self) -> bool:
        """Whether whoever uses the client does not take what came."""
        return self._events.full()

    async def tell(self, event: Event) -> None:
        """Hand on what is no part of the stream."""
        await self._events.put(event)

    async def hand_on_audio(self, payload: bytes, samples: int) -> None:
        """Hand on audio, and only then count it.

        A connection may be lost while this waits for room. Counted before, the audio would be
        lost; counted behind, in the same step as the waiting ends, it comes again or not at all.
        """
        await self._events.put(ReplyAudio(self.received.samples, payload))
        self.received = self.received.plus(samples=samples)

    async def hand_on_text(self, message: TextMessage, *, numbered: bool) -> None:
        """Hand on a message, and only then count it, if it is one that counts."""
        await self._events.put(message)
        self.received = self.received.plus(messages=int(numbered))

    async def next(self) -> Event | None:
        """The next event; None, again and again, once the session is over."""
        event = await self._events.get()
        if event is None:
            self._events.put_nowait(None)
        return event

    async def close(self) -> None:
        """Nothing more comes."""
        await self._events.put(None)
