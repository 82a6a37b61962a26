"""A WebSocket that reads, holds and answers no more than it may.

`websockets` parses all that the system gives it in one go, queues every frame, and answers every
ping at once. One client could so keep the event loop busy for seconds, or fill the memory with
pongs that it does not read. `BoundedConnection` is the library's connection with bounds below the
application:

- what came is parsed in short stretches, and everybody else gets a turn of the loop between them;
- frames of all kinds, control and empty ones too, are read at a pace;
- reading stops while the client leaves unread what was written to it.

Of a hundred messages, ninety-nine are chunks of audio that come as one frame in one piece. Those
are read here and heard at once; the library's parser, which can be stopped at any byte, takes as
long for one of them as hearing it does, and has all others.

While reading is held back, what the client sends waits in the network: nothing is lost, and no
keepalive is judged, since the answer to a ping may be in what was not read yet.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto
from http import HTTPStatus
from socket import SO_SNDBUF, SOL_SOCKET
from typing import Any, Final

from websockets.asyncio.server import Server, ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import (  # type: ignore[attr-defined]
    DATA_OPCODES,
    CloseCode,
    Frame,
    Opcode,
    apply_mask,
)
from websockets.protocol import Event, State
from websockets.server import ServerProtocol

from labkit.protocol.plain import LONGEST_REPLY
from labkit.server.http import page
from labkit.session.limits import TokenBucket
from labkit.session.settings import ServerSettings
from labkit.tasks import forget_frames

_PIECE: Final = 2048
"""Bytes that are parsed at a time: of empty frames, these are 340."""
_LONGEST_STRETCH_NS: Final = 500_000
_MOST_UNREAD: Final = 2 * LONGEST_REPLY + 64 * 1024
"""Bytes written and not yet taken by the system, above which reading stops. One message may be
the whole reply of the plain dialect; beyond that, these are pongs that nobody reads."""
_PACED_AT_ONCE: Final = 16
"""Frames of a slow client that are counted together: a look at the clock for each costs more."""
_MOST_QUEUED: Final = 1024 * 1024
"""Bytes of frames that may wait for the application before reading stops. Much, because reading
on is what answers a client's pings: a file that is sent in one go is heard at its pace, and the
client's own keepalive must not give up meanwhile."""
_LONGEST_HANDSHAKE: Final = 32 * 1024
"""Bytes of a request with all its headers: four times what other servers take at least."""
_TOO_LONG: Final = page(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    b"a request and its headers take at most %d bytes here\n" % _LONGEST_HANDSHAKE,
).serialize()
_HEARD_OUT: Final = 256
"""Frames that are looked through for a client's answer to the close; it is cut where that lies
behind more. Whoever goes on sending would else be worth all of the loop's time, unpaced."""
_SEND_BUFFER: Final = 64 * 1024
"""Bytes of the kernel's send buffer: two seconds of audio; Linux doubles it for itself."""


class _Hold(Enum):
    """Why reading is held back."""

    QUEUE = auto()
    """Frames wait for the application."""
    UNPARSED = auto()
    """Bytes wait for their stretch of the loop, or for the pace."""
    UNREAD = auto()
    """The client does not read."""


_STOPPING: Final = frozenset({_Hold.QUEUE, _Hold.UNREAD})
"""Holds that stop what came already, too: whoever lets them go parses on."""


class BoundedConnection(ServerConnection):
    """The library's connection, with bounds on what one client can make it do and hold.

    Attributes:
        hear: Takes a binary message at once, and says whether it did; None while nobody can.
    """

    def __init__(
        self,
        settings: ServerSettings,
        opened: Callable[["BoundedConnection"], None],
        lost: Callable[["BoundedConnection"], None],
        protocol: ServerProtocol,
        server: Server,
        **options: Any,
    ) -> None:
        """Take what `websockets` gives, after the first three.

        `opened` is called at the first byte, before any handshake, and `lost` when it is lost.
        """
        super().__init__(protocol, server, **options)
        self.hear: Callable[[bytes], bool] | None = None
        self._opened = opened
        self._lost = lost
        now_ns = time.perf_counter_ns()
        self._pace = TokenBucket(settings.max_frames_per_s, settings.frame_burst, now_ns)
        self._holds: set[_Hold] = set()
        self._times_held = 0
        self._frames = 0
        self._unpaced = 0
        self._queued_bytes = 0
        # One message has room in any case: what waits for its last piece has to be read.
        self._most_queued = max(_MOST_QUEUED, settings.max_read_bytes)
        self._handshake_bytes = 0
        self._ending = False
        self._last_frame = 0
        self._unparsed = b""
        self._later: asyncio.Handle | None = None

    @property
    def held_bytes(self) -> int:
        """Bytes that wait in either direction, below the application."""
        unparsed = len(self._unparsed) + len(self.protocol.reader.buffer)
        return self._queued_bytes + self.unread_bytes + unparsed

    @property
    def unread_bytes(self) -> int:
        """Bytes that were written and that the system has not taken."""
        return self.transport.get_write_buffer_size()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, and be known from the first byte on."""
        super().connection_made(transport)
        # The library pauses the transport where its queue is full. There are other reasons here,
        # and reading may only go on when none of them is left.
        self.recv_messages.pause = lambda: self._hold(_Hold.QUEUE)
        self.recv_messages.resume = self._queue_shrank
        _bound_send_buffer(transport)
        self._opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End; what was not parsed is of no use any more."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        self._unparsed = b""
        self.hear = None
        super().connection_lost(exc)
        self._lost(self)
        # Without these, the queue, the protocol and the connection would keep each other in memory.
        self.recv_messages.pause = self.recv_messages.resume = _nothing
        vars(self.protocol).pop("select_subprotocol", None)
        self.protocol.parser.close()  # a generator of the protocol's, which stands at its end
        if (error := self.protocol.parser_exc) is not None:
            forget_frames(error)  # with the message that was too long, or wrong

    def set_connection_exc(self, exc: BaseException | None) -> None:
        """Note why it is lost, but not through which frames: they know this connection."""
        super().set_connection_exc(exc)
        if exc is not None:
            forget_frames(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, as much as may be now."""
        if self.state is State.CONNECTING and not self._is_short_handshake(len(data)):
            return
        if self._is_heard_out:
            return
        if len(data) <= _PIECE and not self._holds:
            # A chunk of audio, as nearly always: nothing waits before it, and it is one piece.
            frames = self._frames
            if not self._hear_frame(data):
                super().data_received(data)
            self._unpaced += self._frames - frames
            if self._unpaced >= _PACED_AT_ONCE or self.paused:
                self._pace_frames(self._unpaced, time.perf_counter_ns())
                self._unpaced = 0
            return
        self._unparsed = self._unparsed + data if self._unparsed else data
        if self._later is None:
            self._parse()

    def _is_short_handshake(self, more: int) -> bool:
        """Count bytes of a request; whoever sends too many is refused, before they are kept."""
        self._handshake_bytes += more
        if self._handshake_bytes > _LONGEST_HANDSHAKE and not self.transport.is_closing():
            self.transport.write(_TOO_LONG)
            self.transport.close()
        return self._handshake_bytes <= _LONGEST_HANDSHAKE

    @property
    def _is_heard_out(self) -> bool:
        """Whether nothing that still comes is looked at: it is dropped."""
        return self._ending and self._frames > self._last_frame

    def _hear_frame(self, data: bytes) -> bool:
        """Hear `data` if it is just one chunk of audio, and nothing stands before it."""
        if self.hear is None or not _is_chunk(data) or not _expects_message(self.protocol):
            return False
        if self._ending or self.recv_messages.frames.queue:
            return False
        if not self.hear(apply_mask(data[8:], data[4:8])):
            return False
        self._frames += 1
        return True

    def eof_received(self) -> None:
        """Parse the rest, and end."""
        rest, self._unparsed = self._unparsed, b""
        if rest:
            super().data_received(rest)
        super().eof_received()

    def process_event(self, event: Event) -> None:
        """Count a frame, and hand it on unless the connection is about to be closed."""
        self._frames += 1
        if self._ending:
            return
        if isinstance(event, Frame):
            whole = event.opcode is Opcode.BINARY and event.fin
            # Only what nothing waits before, so that the order is kept.
            if whole and self.hear is not None and not self.recv_messages.frames.queue:
                if self.hear(bytes(event.data)):
                    return
            if whole or event.opcode in DATA_OPCODES:
                self._queue_grew(len(event.data))
        super().process_event(event)

    def _queue_grew(self, size: int) -> None:
        """Let the library pause where frames are large, too; it counts them by number alone."""
        self._queued_bytes += size
        queue = self.recv_messages
        if self._queued_bytes > self._most_queued and not queue.paused:
            queue.paused = True
            queue.pause()

    def _queue_shrank(self) -> None:
        """Go on reading where there is room in bytes; the library asks by number alone."""
        if self._queued_bytes > self._most_queued:
            self.recv_messages.paused = True  # so that it asks again
        else:
            self._release(_Hold.QUEUE)

    async def recv(self, decode: bool | None = None) -> Any:
        """The next message; what it took of the queue is free again."""
        message = await super().recv(decode)
        self._queued_bytes -= len(message if isinstance(message, bytes) else message.encode())
        # The library has asked already, when it took the message: before that was counted.
        self.recv_messages.maybe_resume()
        return message

    def stop_listening(self) -> None:
        """Drop what still comes: the connection is about to be closed.

        The client's answer to the close lies behind all that it has sent before, so neither pace
        nor room may hold back reading any more.
        """
        self._ending = True
        self._last_frame = self._frames + _HEARD_OUT
        self._holds.clear()
        self.transport.resume_reading()
        if self._later is not None:
            self._later.cancel()
        self._parse()

    def resume_writing(self) -> None:
        """The client has read most of what was written."""
        super().resume_writing()
        self._release(_Hold.UNREAD)

    async def send(self, message: Any, text: bool | None = None) -> None:
        """Send one message; waits while the client does not read.

        Raises:
            ConnectionClosed: The client is gone.
        """
        try:
            await super().send(message, text=text)
        except AttributeError:
            # A transport that was closed while data waited has no event loop any more, and the
            # library aborts it once more: a client that was killed would look like a fault here.
            if self.state is not State.CLOSED:
                raise
            raise self.close_exc from None

    async def keepalive(self) -> None:
        """Ping at intervals, and end the connection of a client that is no longer there."""
        if self.ping_interval is None:
            return
        while True:
            await asyncio.sleep(self.ping_interval)
            pong = asyncio.ensure_future(await self.ping())
            while not pong.done():
                held, frames = self._times_held, self._frames
                await asyncio.wait([pong], timeout=self.ping_timeout)
                # A pong may lie behind what was held back; whoever sends is there anyhow, with
                # or without a pong.
                silent = not self._holds and held == self._times_held and frames == self._frames
                if not pong.done() and silent:
                    await self._give_up()

    async def _give_up(self) -> None:
        # Once the connection is lost, the library cancels the task that this runs in.
        with suppress(ConnectionClosed):
            async with self.send_context():
                self.protocol.fail(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")

    def _parse(self) -> None:
        self._later = None
        data, at = self._unparsed, 0
        began_ns = now_ns = time.perf_counter_ns()
        wait_s = 0.0
        while at < len(data) and self._may_go_on(wait_s, now_ns - began_ns):
            piece = data[at : at + _PIECE]
            at += len(piece)
            frames = self._frames
            super().data_received(piece)
            now_ns = time.perf_counter_ns()
            wait_s = self._pace_frames(self._frames - frames, now_ns)
        self._unparsed = b"" if self._is_heard_out else data[at:]
        if self._later is None and self._unparsed and not self._holds & _STOPPING:
            self._later = self.loop.call_soon(self._parse)
        if self._later is not None or self._unparsed:
            self._hold(_Hold.UNPARSED)
        else:
            self._release(_Hold.UNPARSED)

    def _pace_frames(self, frames: int, now_ns: int) -> float:
        """Count what was parsed; where it was too much, parse on later, in so many seconds."""
        wait_s = self._pace.take(frames, now_ns) if frames else 0.0
        if wait_s and not self._ending and self._later is None:
            self._later = self.loop.call_later(wait_s, self._parse)
            self._hold(_Hold.UNPARSED)
        if self.paused and self.unread_bytes > _MOST_UNREAD:
            self._hold(_Hold.UNREAD)
        return wait_s

    def _may_go_on(self, wait_s: float, spent_ns: int) -> bool:
        """Whether more may be parsed in this turn of the loop."""
        if spent_ns >= _LONGEST_STRETCH_NS or self._is_heard_out:
            return False
        return self._ending or not (wait_s or self._holds & _STOPPING)

    def _hold(self, why: _Hold) -> None:
        if self._ending and why is not _Hold.UNPARSED:
            return
        if not self._holds:
            self.transport.pause_reading()
            self._times_held += 1
        self._holds.add(why)

    def _release(self, why: _Hold) -> None:
        if why not in self._holds:
            return
        self._holds.discard(why)
        stopped = self._holds & _STOPPING
        if why in _STOPPING and not stopped and self._unparsed and self._later is None:
            self._later = self.loop.call_soon(self._parse)
        elif not self._holds:
            self.transport.resume_reading()


def _is_chunk(data: bytes) -> bool:
    """Whether `data` is one whole binary message of 126 bytes or more (RFC 6455, section 5.2)."""
    # FIN and the opcode; MASK and "the length is in the next two bytes"; four bytes of the mask.
    if len(data) < 8 or data[:2] != b"\x82\xfe":
        return False
    return len(data) == 8 + (data[2] << 8 | data[3])


def _expects_message(protocol: ServerProtocol) -> bool:
    """Whether the next byte that comes begins a message as it is meant.

    The library's parser is a generator. Where nothing of a frame has come, it stands in the
    reader's `at_eof`; were that to change, no chunk would be read here any more, and nothing else.
    """
    if protocol.state is not State.OPEN or protocol.extensions or protocol.current_size is not None:
        return False
    parser = getattr(protocol.parser, "gi_yieldfrom", None)
    waits_in = getattr(parser, "gi_yieldfrom", None)
    return getattr(waits_in, "__name__", "") == "at_eof"


def _nothing() -> None:
    """Neither pause nor resume: the connection is lost."""


def _bound_send_buffer(transport: asyncio.BaseTransport) -> None:
    """Let little wait in the kernel, which would take megabytes for a client that does not read.

    What lies there cannot be called back, and counts as sent.
    """
    raw = transport.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(SOL_SOCKET, SO_SNDBUF, _SEND_BUFFER)
