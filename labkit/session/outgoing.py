"""The one bounded stream of what a session says, and the one place where a connection takes it.

`Outgoing` belongs to the session and outlives connections: what it holds is bounded in bytes and
in seconds, and producers wait for room. `Feed` belongs to one connection: it takes from the stream
of the session that the connection carries, puts what concerns the connection alone (`pong`,
acknowledgements) before it, and owns the deadline of every write.
"""

import asyncio
from collections import deque

from labkit.errors import Close, ErrorCode
from labkit.protocol.replay import Missing, Position, ReplayWindow
from labkit.session.events import Encoded
from labkit.tasks import Changes, forget_frames


class Outgoing:
    """An ordered stream of numbered text and audio that outlives connections.

    Attributes:
        window: What is held; only `Outgoing` changes it.
        feed: What takes from it, of the connection that carries the session; None where none does.
        is_read_late: Whether what the client sends is read late, its acknowledgements with it.
    """

    def __init__(
        self, window: ReplayWindow, frame_bytes: int, changes: Changes, *, keep: bool
    ) -> None:
        """Send what `window` holds.

        Args:
            window: Bounds what waits and what is kept.
            frame_bytes: Bytes of one sample of the audio, over all channels.
            changes: Told whenever something came, was written, or will not be.
            keep: Keep what was written, to send it again; a dialect that cannot resume lets it go
                as soon as it was written.
        """
        self.window = window
        self.feed: Feed | None = None
        self.is_read_late = False
        self._frame_bytes = frame_bytes
        self._changes = changes
        self._keep = keep

    async def room(self) -> None:
        """Wait until there is room for a message."""
        if not self.window.has_room:
            await self._changes.until(lambda: self.window.has_room)

    def put_now(self, message: Encoded) -> int:
        """Add a message, room or not, as whoever reads the socket must; gives its samples."""
        samples = 0
        if isinstance(message, bytes):
            samples = len(message) // self._frame_bytes
            self.window.add_audio(message, samples)
        else:
            self.window.add_text(message(self.window.end.messages + 1))
        self._changed()
        return samples

    def take_back(self, samples: int) -> int:
        """Drop what was not sent yet of the last `samples` samples; gives how many that was."""
        dropped = self.window.take_back(samples)
        self._changed()
        return dropped

    @property
    def flushed(self) -> bool:
        """Whether everything was written."""
        return not self.window.waiting and (self.feed is None or not self.feed.writing)

    def acknowledge(self, received: Position) -> None:
        """Forget what the client has.

        Raises:
            ProtocolError: It claims to have what was never sent.
        """
        self.window.acknowledge(received)
        self._changed()

    def rewind(self, received: Position) -> Missing | None:
        """Send again what lies behind `received`; gives what is no longer held.

        Raises:
            ProtocolError: It claims to have what was never sent; nothing has changed.
        """
        missing = self.window.rewind(received)
        self._changed()
        return missing

    def attach(self, feed: "Feed") -> None:
        """Let `feed` take from here; the one before it is closed.

        Two connections must never take from one stream: each would send a part of it.
        """
        self.detach()
        self.feed = feed
        feed.carry(self)

    @property
    def attached(self) -> bool:
        """Whether a connection takes what is put."""
        return self.feed is not None

    def detach(self) -> None:
        """Let nobody take from here."""
        if self.feed is not None:
            self.feed.close()
            self.feed = None
            self._changed()

    def take(self) -> str | bytes | None:
        """The next message to write; None where none waits."""
        return self.window.take()

    def written(self) -> None:
        """What was taken last was written."""
        if not self._keep:
            self.window.acknowledge(self.window.sent)
        self._changed()

    def _changed(self) -> None:
        self._changes.tell()
        if self.feed is not None:
            self.feed.wake()


class Feed:
    """What one connection has to write: its session's stream, what concerns it alone, and its end.

    It is what a session knows of the connection that carries it.

    Attributes:
        ended: Why the connection is to be ended, once it is.
        closed: Another connection has taken over, or this one is gone.
        writing: A message was taken and is not written yet.
    """

    URGENT_LIMIT = 64
    """Urgent messages that may wait; then whoever reads the socket should wait, too."""

    def __init__(self, timeout_s: float) -> None:
        """Have nothing to write; `timeout_s` is the longest that a client may take nothing in."""
        self.ended: asyncio.Future[Close] = asyncio.get_running_loop().create_future()
        self.closed = False
        self.writing = False
        self._timeout_s = timeout_s
        self._urgent: deque[str] = deque()
        self._acknowledgement: str | None = None
        self._outgoing: Outgoing | None = None
        self._awake = asyncio.Event()
        self._taken = Changes()
        self._crowded_at: tuple[Position, float] | None = None

    @property
    def crowded(self) -> bool:
        """Whether more urgent messages wait than should."""
        return len(self._urgent) >= self.URGENT_LIMIT

    def end(self, why: Close) -> None:
        """End the connection; the first reason is the one that counts."""
        if not self.ended.done():
            forget_frames(why)  # they know the connection that keeps this feed
            self.ended.set_result(why)

    def put_urgent(self, text: str) -> None:
        """Write an unnumbered message before everything that waits; lost with the connection."""
        self._urgent.append(text)
        self._awake.set()

    def acknowledge(self, text: str) -> None:
        """Write an acknowledgement; one that waits is replaced, since the newest says it all.

        Were they queued, a client that sends all of its audio before it reads would be made to
        wait for its own acknowledgements, for ever.
        """
        self._acknowledgement = text
        self._awake.set()

    def carry(self, outgoing: Outgoing) -> None:
        """Take from `outgoing` from now on."""
        self._outgoing = outgoing
        self._awake.set()

    def wake(self) -> None:
        """Look again for something to write."""
        self._awake.set()

    def close(self) -> None:
        """Have nothing more to write."""
        self.closed = True
        self._outgoing = None
        self._awake.set()
        self._taken.tell()

    async def next(self) -> str | bytes | None:
        """The next message to write, as soon as there is one; None once the feed is closed.

        Raises:
            Close: The stream is full and the client has acknowledged nothing for too long.
        """
        while not self.closed:
            if (message := self._take()) is not None:
                self.writing = True
                return message
            self._awake.clear()
            await self._wait()
        return None

    def written(self) -> None:
        """The message that `next` gave last was written."""
        self.writing = False
        if self._outgoing is not None:
            self._outgoing.written()

    async def room(self) -> None:
        """Wait until few urgent messages wait."""
        await self._taken.until(lambda: self.closed or not self.crowded)

    def _take(self) -> str | bytes | None:
        # `session.started` lies among the urgent ones, and nothing may come before it.
        if self._urgent:
            self._taken.tell()
            return self._urgent.popleft()
        if self._acknowledgement is not None:
            text, self._acknowledgement = self._acknowledgement, None
            return text
        return None if self._outgoing is None else self._outgoing.take()

    async def _wait(self) -> None:
        """Wait for something to write, but not for ever for a client that makes no room."""
        try:
            async with asyncio.timeout_at(self._deadline()):
                await self._awake.wait()
        except TimeoutError:
            # Else there is room by now, or the client cannot be heard.
            deadline = self._deadline()
            if deadline is not None and deadline <= asyncio.get_running_loop().time():
                raise slow_reader(self._timeout_s) from None

    def _deadline(self) -> float | None:
        """When to give up: so long after the window became full without moving on.

        A client that is read late is not to blame, since its acknowledgements wait, too.
        """
        out = self._outgoing
        if out is None or out.window.has_room:
            self._crowded_at = None
            return None
        base = out.window.base
        if self._crowded_at is None or self._crowded_at[0] != base or out.is_read_late:
            self._crowded_at = (base, asyncio.get_running_loop().time())
        return self._crowded_at[1] + self._timeout_s


def slow_reader(timeout_s: float) -> Close:
    """Why a connection ends whose client takes nothing in."""
    return Close(
        ErrorCode.SLOW_READER,
        f"replies were not read for {timeout_s:g} s",
        "read, and acknowledge what came; resume to get the rest",
    )
