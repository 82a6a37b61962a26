"""What a network does to the bytes of a connection, as pure decisions: when, and how many.

A link is one direction. It first delays what it takes, then lets it out at a limited rate, and
may fail after a stated byte. Nothing here reads a clock or a socket.
"""

import math
import random
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from labkit.errors import InstrumentError

QUEUE_BYTES: Final = 64 * 1024
"""What a link holds beside the bytes in flight: the queue of a small router."""

FASTEST: Final = 12_500_000
"""Bytes per second (100 Mbit/s) up to which a delayed link holds all that is in flight."""

BURST_NS: Final = 20_000_000
"""What a throttled link that was idle may let out at once, as time at its rate: 20 ms."""

_PIECES_PER_S: Final = 100


class Direction(StrEnum):
    """Which way bytes go."""

    UP = "up"
    """From the client to the server."""
    DOWN = "down"
    """From the server to the client."""


class Fault(StrEnum):
    """How a connection fails."""

    CLOSE = "close"
    """Both peers see an orderly end (FIN), as from a proxy that restarts."""
    RESET = "reset"
    """Both peers see a reset (RST), as from a crashed process or a NAT entry that expired."""
    HALF_OPEN = "half-open"
    """Everything is swallowed and nobody is told, as when a phone leaves its network."""
    STALL = "stall"
    """Nothing more is forwarded, and the sender comes to feel it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One direction of a connection. Without arguments it changes nothing.

    Attributes:
        delay_ms: Milliseconds by which every byte is late; 0 or more.
        jitter_ms: Most that is added to the delay, in milliseconds; drawn evenly from 0 on for
            what arrives together. Bytes never overtake, so a late one holds up those behind it.
        bytes_per_s: Most bytes per second, above 0; None for no limit.
        cut_after: Bytes after which `fault` happens, 0 or more; None for never.
        fault: What happens then. `Fault.STALL` stalls this direction; the others end both.

    Raises:
        InstrumentError: A value is out of its range; the error names field and value.
    """

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    bytes_per_s: float | None = None
    cut_after: int | None = None
    fault: Fault = Fault.CLOSE

    def __post_init__(self) -> None:
        _need("delay_ms", self.delay_ms, self.delay_ms >= 0, "0 ms or more")
        _need("jitter_ms", self.jitter_ms, self.jitter_ms >= 0, "0 ms or more")
        if self.bytes_per_s is not None:
            _need("bytes_per_s", self.bytes_per_s, self.bytes_per_s > 0, "above 0")
        if self.cut_after is not None:
            _need("cut_after", self.cut_after, self.cut_after >= 0, "0 bytes or more")

    @property
    def window_bytes(self) -> int:
        """Most bytes that the link holds: its queue, and what is in flight for the delay.

        As with a TCP window, a delayed link thus carries no more than `FASTEST`, or its own
        rate where that is lower.
        """
        longest_s = (self.delay_ms + self.jitter_ms) / 1000
        return QUEUE_BYTES + math.ceil(longest_s * min(self.bytes_per_s or FASTEST, FASTEST))

    def allowance(self, carried: int, size: int) -> int:
        """How many of `size` bytes may go in one piece, `carried` having gone before.

        A piece ends where the link is cut, and is no more than 10 ms at the link's rate, but at
        least one byte.
        """
        if self.bytes_per_s is not None:
            size = min(size, max(1, int(self.bytes_per_s / _PIECES_PER_S)))
        if self.cut_after is not None and carried < self.cut_after:
            size = min(size, self.cut_after - carried)
        return size


def _need(name: str, value: float, holds: bool, wanted: str) -> None:
    if not (holds and math.isfinite(value)):
        raise InstrumentError(f"{name} is {value:g}; it must be {wanted}, and finite")


@dataclass(frozen=True, slots=True)
class Conditions:
    """What both directions of a connection go through: up to the server, and down to the client."""

    up: Link = Link()
    down: Link = Link()

    def __getitem__(self, direction: Direction) -> Link:
        return self.up if direction is Direction.UP else self.down


class Schedule:
    """When the bytes of one link may be forwarded.

    Jitter follows from the seed and from where in the stream the bytes stand, not from how many
    pieces came before: the same stream is late in the same places at every run, except where TCP
    joins what was written separately.
    """

    def __init__(self, link: Link, seed: str) -> None:
        self._link = link
        self._seed = seed
        self._taken = 0
        self._last_due_ns = 0
        self._free_ns = 0

    def admit(self, size: int, now_ns: int) -> int:
        """Take `size` bytes at `now_ns`; returns when they are due, never before earlier ones."""
        late_ms = self._link.delay_ms + self._jitter_ms()
        self._taken += size
        self._last_due_ns = max(self._last_due_ns, now_ns + math.ceil(late_ms * 1e6))
        return self._last_due_ns

    def spend(self, size: int, now_ns: int) -> int:
        """Note that `size` bytes were forwarded at `now_ns`; returns when the next may go.

        This is a token bucket in the form of virtual scheduling (GCRA, ITU-T I.371): over any
        time, no more is forwarded than the rate gives for it and for `BURST_NS`, and one piece.
        """
        if self._link.bytes_per_s is None:
            return now_ns
        cost_ns = math.ceil(size * 1e9 / self._link.bytes_per_s)
        self._free_ns = max(self._free_ns, now_ns - BURST_NS) + cost_ns
        return self._free_ns

    def _jitter_ms(self) -> float:
        if not self._link.jitter_ms:
            return 0.0
        return random.Random(f"{self._seed}/{self._taken}").uniform(0, self._link.jitter_ms)
