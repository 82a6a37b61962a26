"""A reply on its way to a client that plays it at once: how much was heard, how much may follow.

A reply that may be interrupted is not sent as fast as it is made. What was sent cannot be taken
back, and a client's buffer should neither starve nor grow: the server stays a fixed lead ahead.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from labkit.audio.pcm import SAMPLE_RATE
from labkit.session.events import ReplyAudio, Sentence
from labkit.tasks import Changes, stop

_MOST_HELD_S: Final = 10.0
"""Audio that is made and waits to be sent; then the engines pause."""


class Playout:
    """What a client that plays at once has in hand of one reply.

    Times are nanoseconds of a monotonic clock. The way to the client counts as none: what it played
    it tells itself, later and better.

    Attributes:
        sent_s: Seconds of the reply that were sent.
    """

    def __init__(self, lead_s: float, before: "Playout | None" = None) -> None:
        """Send `lead_s` seconds ahead; the reply `before` is played to its end first."""
        self.sent_s = 0.0
        self._lead_s = lead_s
        self._runs_out_ns: int = 0 if before is None else before._runs_out_ns
        self._paused_ns: int | None = None

    @property
    def paused(self) -> bool:
        """Whether the client has been told to pause."""
        return self._paused_ns is not None

    def sent(self, seconds: float, now_ns: int) -> None:
        """More was sent; where the client had run out, it plays from now."""
        self.sent_s += seconds
        self._runs_out_ns = max(self._runs_out_ns, self._at(now_ns)) + round(seconds * 1e9)

    def lacks(self, seconds: float, now_ns: int) -> None:
        """So much of what was sent has not come yet: it is played from now at the earliest."""
        self._runs_out_ns = max(self._runs_out_ns, self._at(now_ns) + round(seconds * 1e9))

    def left_s(self, now_ns: int) -> float:
        """Seconds that the client has and has not played."""
        return max(0, self._runs_out_ns - self._at(now_ns)) / 1e9

    def heard_s(self, now_ns: int) -> float:
        """Seconds that it has played."""
        return max(0.0, self.sent_s - self.left_s(now_ns))

    def wait_s(self, now_ns: int) -> float:
        """Seconds until more should be sent, if it is not paused before."""
        return max(0.0, self.left_s(now_ns) - self._lead_s)

    def pause(self, now_ns: int) -> None:
        """The client stops playing, and keeps what it has."""
        self._paused_ns = self._at(now_ns)

    def go_on(self, now_ns: int) -> None:
        """It plays on where it was."""
        self._runs_out_ns += now_ns - self._at(now_ns)
        self._paused_ns = None

    def _at(self, now_ns: int) -> int:
        return now_ns if self._paused_ns is None else self._paused_ns


class Pacer:
    """Sends a reply in its order and at its pace."""

    def __init__(
        self,
        playout: Playout,
        send: Callable[[Sentence | ReplyAudio], Awaitable[None]],
        changes: Changes,
        clock: Callable[[], int],
        attached: Callable[[], bool],
    ) -> None:
        """Begin, in a task of its own: `send` the parts as `playout` says, where they are counted.

        `changes` is told when `playout` was paused or goes on, and when the client comes back;
        while it is not `attached`, nothing is played. `clock` gives monotonic nanoseconds.
        """
        self._playout = playout
        self._send = send
        self._changes = changes
        self._clock = clock
        self._attached = attached
        self._parts: deque[Sentence | ReplyAudio] = deque()
        self._held_samples = 0
        self._whole = False
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(lambda _: changes.tell())

    @property
    def held_bytes(self) -> int:
        """Bytes of audio that wait."""
        return 4 * self._held_samples

    async def put(self, part: Sentence | ReplyAudio) -> None:
        """Add the next part; waits while much is held."""
        await self._changes.until(self._has_room)
        self._parts.append(part)
        if isinstance(part, ReplyAudio):
            self._held_samples += len(part.samples)
        self._changes.tell()

    async def drain(self) -> None:
        """Wait until all of the reply was sent. Whatever sending raised is raised here."""
        self._whole = True
        self._changes.tell()
        await self._task

    async def drop(self) -> None:
        """Send no more of it."""
        await stop(self._task)

    def _has_room(self) -> bool:
        return self._held_samples < _MOST_HELD_S * SAMPLE_RATE or self._task.done()

    async def _run(self) -> None:
        while True:
            await self._changes.until(lambda: self._parts or self._whole)
            if not self._parts:
                return
            part = self._parts.popleft()
            if isinstance(part, ReplyAudio):
                await self._due()
                self._held_samples -= len(part.samples)
            await self._send(part)
            self._changes.tell()

    async def _due(self) -> None:
        """Wait until the client should get more."""
        playout = self._playout

        def held() -> bool:
            return playout.paused or not self._attached()

        def due() -> bool:
            return not held() and not playout.wait_s(self._clock())

        while not due():
            before = held()
            with suppress(TimeoutError):
                async with asyncio.timeout(None if before else playout.wait_s(self._clock())):
                    await self._changes.until(lambda: due() or held() != before)  # noqa: B023
