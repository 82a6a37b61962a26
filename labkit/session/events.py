"""What a session is told of its caller, and what it tells its client and whoever counts.

In terms of no dialect.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from labkit.audio.pcm import Float32
from labkit.errors import ErrorCode, ProtocolError
from labkit.trace import Trace


class Status(StrEnum):
    """How a turn ended, as its client is told."""

    COMPLETED = "completed"
    NOTHING_HEARD = "nothing_heard"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Speech began, `at_s` seconds into the utterance."""

    at_s: float


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """Speech ended, `at_s` seconds into the utterance."""

    at_s: float


@dataclass(frozen=True, slots=True)
class PartialTranscript:
    """What was heard of an utterance that goes on.

    Attributes:
        turn: The number that its turn will have.
        text: All words so far.
        confirmed: Those at its beginning that will not change any more.
        behind_s: Seconds of audio that came since.
    """

    turn: int
    text: str
    confirmed: str
    behind_s: float


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was heard in a turn, empty where nothing was said."""

    turn: int
    text: str


@dataclass(frozen=True, slots=True)
class Sentence:
    """The next sentence of a reply, before its audio; `first` where the reply begins with it."""

    turn: int
    text: str
    first: bool


@dataclass(frozen=True, slots=True)
class ReplyAudio:
    """The next audio of a reply: mono, 16 kHz, of any length."""

    turn: int
    samples: Float32


@dataclass(frozen=True, slots=True)
class ReplyPaused:
    """Somebody speaks over a reply: its client should stop playing, and keep what it has."""

    turn: int


@dataclass(frozen=True, slots=True)
class ReplyResumed:
    """What was said over a reply was no interruption: the client plays on where it was.

    Attributes:
        turn: Its number.
        text: What was said over it; empty where that was no words.
    """

    turn: int
    text: str


@dataclass(frozen=True, slots=True)
class ReplyInterrupted:
    """What was said over a reply ends it: what the client has of it is not to be played.

    Attributes:
        turn: Its number.
        heard: Samples of it that a client has played that plays at once, in its format.
    """

    turn: int
    heard: int


@dataclass(frozen=True, slots=True)
class ReplyEnd:
    """No more audio of this reply comes: what an encoder still holds has to go out."""

    turn: int


@dataclass(frozen=True, slots=True)
class TurnOver:
    """A turn is over. Exactly one comes for each utterance that ended.

    Attributes:
        turn: Its number.
        status: How it ended.
        text: The whole text of the reply; of a cancelled one, what is remembered.
        samples: Samples of its audio that were sent, in the client's format.
        marks: When each stage ended, in nanoseconds of the server's monotonic clock.
        listening_cpu_ms: CPU time of the process while the utterance came in.
        ahead: When those stages ended that were worked on before the turn was over, likewise.
    """

    turn: int
    status: Status
    text: str
    samples: int
    marks: Mapping[str, int]
    listening_cpu_ms: float
    ahead: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Refused:
    """Something was refused; the session goes on.

    Attributes:
        error: What, why, and what to do.
        count: How many messages were refused for this since it was told last.
        cause: The message at fault, as its dialect tells of it: a session hands it back as it is.
    """

    error: ProtocolError
    count: int = 1
    cause: object = None


Event = (
    SpeechStarted
    | SpeechStopped
    | PartialTranscript
    | Transcript
    | Sentence
    | ReplyAudio
    | ReplyPaused
    | ReplyResumed
    | ReplyInterrupted
    | ReplyEnd
    | TurnOver
    | Refused
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls.

    Attributes:
        identity: Who it is, where that is known; nobody else may resume its sessions.
        address: What callers from the same place are counted by; empty where they are not.
    """

    identity: str | None = None
    address: str = ""


Encoded = bytes | Callable[[int], str]
"""Audio in the client's format, or a text message that is written once its number is known."""


class Encoder(Protocol):
    """Makes a dialect's messages of a session's events. One per session: audio is a stream."""

    @property
    def held_bytes(self) -> int:
        """Bytes of audio that wait in it for the rest of their message."""
        ...

    def encode(self, event: Event) -> Iterable[Encoded]:
        """The messages that tell of `event`; none where the dialect has no word for it."""
        ...


class Observer(Protocol):
    """Who counts what sessions do."""

    def turn_answered(self, trace: Trace) -> None:
        """A turn was answered, or nothing was heard in it."""
        ...

    def refused(self, code: ErrorCode, count: int) -> None:
        """So many messages were refused, or turns failed."""
        ...

    def underrun(self) -> None:
        """A client that plays at once has run out of reply audio."""
        ...

    def worked_ahead(self, *, used: bool) -> None:
        """An answer was begun in a pause; `used` where the pause was the end."""
        ...
