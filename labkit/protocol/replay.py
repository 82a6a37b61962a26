"""What was sent and may have to be sent again: numbering, acknowledgements, replay.

Each direction of a session is one ordered stream of text messages and audio. A `Position` in it
counts both: the text messages that are numbered, and the samples of audio (per channel) since
the session began. WebSocket keeps the order and never delivers half a message, so one position
says exactly what the other side has and what it lacks.

`ReplayWindow` holds what the other side may still lack. It is used by both ends: the client
keeps the utterance in it, the server the reply. It is pure; whoever waits for room waits outside.
"""

from collections import deque
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from labkit.errors import ErrorCode, ProtocolError

LARGEST: Final = 2**53
"""Above this, JSON readers that keep numbers as doubles lose count."""


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE: Final = BeforeValidator(_whole)
"""16000.0 is a whole number to JSON Schema, and is how some languages write all numbers."""
Count = Annotated[int, Field(ge=0, le=LARGEST), WHOLE]
"""A whole number that JSON readers which keep numbers as doubles can hold, too."""


class Position(BaseModel):
    """A place in one direction of a session."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )

    messages: Count = 0
    """Numbered text messages up to here."""
    samples: Count = 0
    """Samples of audio up to here, per channel, since the session began."""

    def plus(self, messages: int = 0, samples: int = 0) -> "Position":
        """The position that many text messages and samples later."""
        return Position(messages=self.messages + messages, samples=self.samples + samples)

    def reaches(self, other: "Position") -> bool:
        """Whether everything up to `other` lies before this position."""
        return self.messages >= other.messages and self.samples >= other.samples


class Missing(BaseModel):
    """What can no longer be sent again: what lies between two positions."""

    # A client of today has to understand a server that has learnt a new field.
    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    after: Position
    """The last that the client has."""
    up_to: Position
    """Where the replay goes on; everything from here comes."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """One WebSocket message; audio counts its samples, text counts one message."""

    payload: str | bytes
    samples: int

    @property
    def messages(self) -> int:
        return int(isinstance(self.payload, str))

    @property
    def size(self) -> int:
        return len(self.payload)

    def after(self, start: Position) -> Position:
        return start.plus(self.messages, self.samples)

    def split(self, samples: int) -> tuple["_Entry", "_Entry"]:
        """A piece of audio as its first `samples` samples and the rest."""
        at = samples * (len(self.payload) // self.samples)
        return (
            _Entry(self.payload[:at], samples),
            _Entry(self.payload[at:], self.samples - samples),
        )


class ReplayWindow:
    """The end of an outgoing stream: what waits, and what was sent and may have to be again.

    Attributes:
        base: Where the window begins; everything before is gone.
        sent: Up to here it went out.
        end: Up to here it was produced.
        held_bytes: Bytes held, waiting or sent.
        waiting_bytes: Bytes that were not sent yet.
    """

    def __init__(self, *, max_bytes: int, max_samples: int, until_acknowledged: bool) -> None:
        """Begin empty.

        Args:
            max_bytes: Most bytes held; the message that crosses the bound is still taken.
            max_samples: Most samples of audio held, likewise.
            until_acknowledged: Keep what was sent until the other side says that it has it,
                so that nothing can be lost; there is no room while it does not. Otherwise
                the oldest that was sent makes room for what is new.
        """
        self.base = self.sent = self.end = Position()
        self.until_acknowledged = until_acknowledged
        self._max_bytes = max_bytes
        self._max_samples = max_samples
        self._kept: deque[_Entry] = deque()
        self._waiting: deque[_Entry] = deque()
        self.held_bytes = self.waiting_bytes = 0
        self._longest_audio = 0

    @property
    def waiting(self) -> int:
        """Messages that were not sent yet, empty ones too."""
        return len(self._waiting)

    @property
    def has_room(self) -> bool:
        """Whether more may be added."""
        start = self.base if self.until_acknowledged else self.sent
        samples = self.end.samples - start.samples
        return self._not_taken < self._max_bytes and samples < self._max_samples

    @property
    def is_overfull(self) -> bool:
        """Whether twice as much is held as there is room for: nothing more may be added.

        Audio is taken whole where there was room, and one message of it may be longer than that.
        """
        return self._not_taken >= 2 * self._max_bytes + self._longest_audio

    @property
    def _not_taken(self) -> int:
        """Bytes that only the other side can make go: it has to read, or to acknowledge."""
        return self.held_bytes if self.until_acknowledged else self.waiting_bytes

    def add_text(self, payload: str) -> None:
        """Add a text message; its number is `end.messages + 1` before the call."""
        self._add(_Entry(payload, 0))

    def add_audio(self, payload: bytes, samples: int) -> None:
        """Add `samples` samples of audio (per channel); an empty message has none.

        Raises:
            ValueError: There is not the same number of bytes for each sample.
        """
        if samples < 0 or (len(payload) % samples if samples else payload):
            raise ValueError(f"{len(payload)} bytes are no {samples} whole samples")
        self._longest_audio = max(self._longest_audio, len(payload))
        self._add(_Entry(payload, samples))

    def take(self) -> str | bytes | None:
        """The next message to send, which counts as sent from now on; None where none waits."""
        if not self._waiting:
            return None
        entry = self._waiting.popleft()
        self.waiting_bytes -= entry.size
        self._kept.append(entry)
        self.sent = entry.after(self.sent)
        self._make_room()
        return entry.payload

    def take_back(self, samples: int) -> int:
        """Drop audio that waits, of the last `samples` samples; gives how many samples that was.

        The text messages among it keep their numbers and go out.
        """
        kept: deque[_Entry] = deque()
        dropped = 0
        while self._waiting and dropped < samples:
            entry = self._waiting.pop()
            if entry.samples > samples - dropped:
                entry, tail = entry.split(entry.samples - (samples - dropped))
                kept.appendleft(entry)
            elif entry.samples:
                tail = entry
            else:
                kept.appendleft(entry)
                continue
            dropped += tail.samples
            self.held_bytes -= tail.size
            self.waiting_bytes -= tail.size
        self._waiting += kept
        self.end = self.end.plus(samples=-dropped)
        return dropped

    def acknowledge(self, received: Position) -> None:
        """Forget what the other side has.

        Raises:
            ProtocolError: `received` was never sent.
        """
        self.require(received)
        while self._kept and received.reaches(after := self._kept[0].after(self.base)):
            self._drop_oldest(after)

    def rewind(self, received: Position) -> Missing | None:
        """Send again what comes behind `received`, the last that the other side has.

        Returns:
            What is no longer held; the replay begins behind it. None where nothing is missing.

        Raises:
            ProtocolError: `received` was never sent; nothing has changed.
        """
        self.require(received)
        start = received if received.reaches(self.base) else self.base
        while self._kept and not start.reaches(self.sent):
            self._take_back(start)
        return None if start == received else Missing(after=received, up_to=start)

    def _take_back(self, start: Position) -> None:
        """Let the last that was sent wait again, as far as it lies behind `start`."""
        entry = self._kept.pop()
        before = self.sent.plus(-entry.messages, -entry.samples)
        if entry.samples and start.samples > before.samples:
            head, entry = entry.split(start.samples - before.samples)
            self._kept.append(head)
            before = head.after(before)
        self._waiting.appendleft(entry)
        self.waiting_bytes += entry.size
        self.sent = before

    def _add(self, entry: _Entry) -> None:
        self._waiting.append(entry)
        self.held_bytes += entry.size
        self.waiting_bytes += entry.size
        self.end = entry.after(self.end)
        self._make_room()

    def _make_room(self) -> None:
        """Without acknowledgements, the oldest that was sent goes."""
        while not self.until_acknowledged and self._kept:
            samples = self.end.samples - self.base.samples
            if self.held_bytes <= self._max_bytes and samples <= self._max_samples:
                return
            self._drop_oldest(self._kept[0].after(self.base))

    def _drop_oldest(self, after: Position) -> None:
        self.held_bytes -= self._kept.popleft().size
        self.base = after

    def require(self, received: Position) -> None:
        """Make sure that the other side can be at `received`.

        Raises:
            ProtocolError: It lies on no way from the beginning to what was sent.
        """
        if not self._has_passed(received):
            raise ProtocolError(
                ErrorCode.POSITION_INVALID,
                f"position {received.messages} messages, {received.samples} samples was never sent;"
                f" the stream is at {self.sent.messages} messages, {self.sent.samples} samples",
                "count every numbered message and every sample that came, in order, and nothing"
                " else",
            )

    def _has_passed(self, received: Position) -> bool:
        """Whether it lies on the way from the beginning to what was sent."""
        if self.base.reaches(received):
            return True
        at = self.base
        for entry in self._kept:
            after = entry.after(at)
            if after.reaches(received):
                return received.reaches(at)
            at = after
        return False
