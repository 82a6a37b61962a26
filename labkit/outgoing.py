"""One direction of a session, between whoever produces it and the connection that carries it.

`Outgoing` wraps a replay window for asyncio: producers wait for room, and the connection of the
moment takes messages through a `Feed`. Opening a feed closes the one before, so that two
connections never send from one stream.
"""

from collections import deque
from collections.abc import Callable

from labkit.changes import Changes
from labkit.protocol.replay import Missing, Position, ReplayWindow

__all__ = ["Feed", "Outgoing"]


class Outgoing:
    """An ordered stream of numbered text and audio that outlives connections.

    Attributes:
        window: What is held; only `Outgoing` changes it.
    """

    def __init__(self, window: ReplayWindow) -> None:
        """Send what `window` holds."""
        self.window = window
        self._changes = Changes()
        self._feed: Feed | None = None

    async def put_text(self, encode: Callable[[int], str]) -> None:
        """Add a text message once there is room; `encode` is given its number."""
        await self.room()
        self.put_text_now(encode)

    def put_text_now(self, encode: Callable[[int], str]) -> None:
        """Add a short text message, room or not: whoever reads the socket must not wait here."""
        self.window.add_text(encode(self.window.end.messages + 1))
        self._changes.tell()

    async def put_audio(self, payload: bytes, samples: int) -> None:
        """Add audio once there is room."""
        await self.room()
        self.window.add_audio(payload, samples)
        self._changes.tell()

    async def room(self) -> None:
        """Wait until there is room."""
        await self._changes.until(lambda: self.window.has_room)

    async def crowded(self) -> Position:
        """Wait until there is no room; gives where the window begins then."""
        await self._changes.until(lambda: not self.window.has_room)
        return self.window.base

    async def moved_on(self, base: Position) -> None:
        """Wait until there is room, or the window no longer begins at `base`."""
        await self._changes.until(lambda: self.window.has_room or self.window.base != base)

    async def flushed(self) -> None:
        """Wait until everything was taken for sending."""
        await self._changes.until(lambda: not self.window.waiting_bytes)

    def acknowledge(self, received: Position) -> None:
        """See `ReplayWindow.acknowledge`."""
        self.window.acknowledge(received)
        self._changes.tell()

    def rewind(self, received: Position) -> Missing | None:
        """See `ReplayWindow.rewind`."""
        missing = self.window.rewind(received)
        self._changes.tell()
        return missing

    def open(self) -> "Feed":
        """What a new connection sends from; the feed before it is closed."""
        self.close()
        self._feed = Feed(self.window, self._changes)
        return self._feed

    def close(self) -> None:
        """Close the feed that is open, if one is."""
        if self._feed is not None:
            self._feed.closed = True
            self._feed = None
            self._changes.tell()


class Feed:
    """What one connection has to send: the stream, and what concerns this connection alone.

    Attributes:
        closed: Another connection has taken over, or this one is gone.
    """

    URGENT_LIMIT = 64
    """Urgent messages that may wait before whoever adds one has to wait, too."""

    def __init__(self, window: ReplayWindow, changes: Changes) -> None:
        """Use `Outgoing.open` instead of calling this."""
        self.closed = False
        self._window = window
        self._changes = changes
        self._urgent: deque[str] = deque()

    async def put_urgent(self, text: str) -> None:
        """Send an unnumbered message before everything that waits; lost with the connection."""
        await self._changes.until(lambda: self.closed or len(self._urgent) < self.URGENT_LIMIT)
        self._urgent.append(text)
        self._changes.tell()

    async def next(self) -> str | bytes | None:
        """The next message to send, as soon as there is one; None once the feed is closed."""
        await self._changes.until(lambda: self.closed or self._urgent or self._window.waiting_bytes)
        if self.closed:
            return None
        payload = self._urgent.popleft() if self._urgent else self._window.take()
        self._changes.tell()
        return payload
