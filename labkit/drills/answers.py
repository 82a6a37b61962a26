"""What a server may say to a hostile client: nothing but its dialect, in its dialect's order.

Checked are the form of each message, that reply audio comes only inside of a reply, that
numbers follow each other without a gap, that nothing is answered that was not asked, and that
every refusal is told: one by one, or as a count. Pure.
"""

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from labkit.audio.formats import WIRE
from labkit.client.dial import MAX_MESSAGE_BYTES
from labkit.drills.inputs import LIMITS
from labkit.errors import CloseCode, ErrorCode, ProtocolError
from labkit.protocol import plain, v1
from labkit.protocol.replay import Position

_EXAMPLES: Final = 10
_LAST: Final = "the last message"
_FAULT_OF_THE_SERVER: Final = frozenset((ErrorCode.INTERNAL, ErrorCode.ENGINE_FAILED))
_FULL_REPLY: Final = plain.LONGEST_REPLY * WIRE.frame_bytes
"""Bytes of a message of the plain dialect that is followed by the rest of the reply."""
_ORDERLY: Final = frozenset(CloseCode) - {CloseCode.INTERNAL_ERROR}


@dataclass(slots=True)
class Tally:
    """What came over all connections."""

    sent: Counter[str] = field(default_factory=Counter)
    """Messages sent, by what was wrong with them."""
    answers: Counter[str] = field(default_factory=Counter)
    """Answers, by type."""
    codes: Counter[str] = field(default_factory=Counter)
    """Errors, by code."""
    closes: Counter[int] = field(default_factory=Counter)
    """Connections that the server closed, by close code; 0 where it sent no close frame."""
    illegal: int = 0
    """Answers that must not be."""
    examples: list[str] = field(default_factory=list)
    """Some of them."""
    stuck: Counter[str] = field(default_factory=Counter)
    """Connections on which the server neither answered nor hung up, by what was sent."""
    connections: int = 0

    def blame(self, what: str) -> None:
        """Note something that must not be."""
        self.illegal += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(what[:300])

    def take_close(self, code: int | None, reason: str = "") -> None:
        """Note that the server hung up; None where it did so without a close frame."""
        self.closes[code or 0] += 1
        if code not in _ORDERLY:
            self.blame(f"closed with code {code}: {reason}")


class Answers(ABC):
    """Checks what comes on one connection."""

    last: str
    """The last message to send; once it is answered, everything before it was read."""
    settled: bool = False
    """Whether it was answered."""
    received: Position | None = None
    """What has come of the session, where there is one and that is known."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self._due: Counter[ErrorCode] = Counter()
        self._told: Counter[ErrorCode] = Counter()

    def asked(self, payload: str | bytes) -> None:
        """The client sends this: note what is to be answered, and what has to be refused."""
        try:
            self._ask(payload)
        except ProtocolError as error:
            self._due[error.code] += 1

    def take(self, message: str | bytes) -> None:
        """The server sent this."""
        try:
            if isinstance(message, bytes):
                self.tally.answers["audio"] += 1
                self._take_audio(message)
            else:
                self._take_text(message)
        except ProtocolError as error:
            self.tally.blame(f"{error}: {message[:80]!r}")

    @property
    def untold(self) -> list[str]:
        """Messages that had to be refused, whatever came before, and were not, in words.

        There may be more of a code than was due, for other reasons.
        """
        return [
            f"{due} messages were {code.value}, and {self._told[code]} told of"
            for code, due in self._due.items()
            if self._told[code] < due
        ]

    def _take_error(self, error: plain.Error | v1.Error) -> None:
        self._told[error.code] += error.count
        self.tally.codes[error.code.value] += 1
        if error.code in _FAULT_OF_THE_SERVER:
            self.tally.blame(f"error {error.code.value}")

    def _check_whole(self, audio: bytes, frame_bytes: int) -> None:
        if len(audio) % frame_bytes:
            self.tally.blame(f"{len(audio)} bytes are no whole number of samples")

    @abstractmethod
    def _ask(self, payload: str | bytes) -> None: ...

    @abstractmethod
    def _take_audio(self, audio: bytes) -> None: ...

    @abstractmethod
    def _take_text(self, text: str) -> None: ...


class PlainAnswers(Answers):
    """Answers in the plain dialect."""

    last = "ping"

    def __init__(self, tally: Tally, *, stream: bool) -> None:
        super().__init__(tally)
        self._stream = stream
        self._owed: Counter[type[plain.Command]] = Counter()
        self._in_reply = False

    def _ask(self, payload: str | bytes) -> None:
        is_text = isinstance(payload, str)
        longest = LIMITS.max_text_bytes if is_text else LIMITS.max_message_bytes
        command = type(plain.decode_client(payload, max_bytes=longest))
        self._owed[command] += 1
        self.settled &= command is not plain.Ping

    def _settle(self, command: type[plain.Command], answer: str) -> None:
        self._owed[command] -= 1
        if self._owed[command] < 0:
            self.tally.blame(f"a {answer} that nobody asked for")

    def _take_audio(self, audio: bytes) -> None:
        if not self._in_reply:
            self.tally.blame(f"{len(audio)} bytes of audio outside of a reply")
        self._check_whole(audio, WIRE.frame_bytes)
        if len(audio) > MAX_MESSAGE_BYTES:
            self.tally.blame(f"a message of {len(audio)} bytes, which most clients refuse")
        self._in_reply = self._in_reply and (self._stream or len(audio) == _FULL_REPLY)

    def _take_text(self, text: str) -> None:
        if text == plain.PONG:
            self.tally.answers["pong"] += 1
            self._settle(plain.Ping, "pong")
            self.settled = not self._owed[plain.Ping]
            return
        message = plain.decode_server(text)
        self.tally.answers[message.type] += 1
        match message:
            case plain.Error():
                self._take_error(message)
            case plain.Transcript():
                self._settle(plain.EndStream, "transcript")
                if self._in_reply:
                    self.tally.blame("a transcript inside of a reply")
                self._in_reply = True
            case plain.Done():
                if not (self._stream and self._in_reply):
                    self.tally.blame("'done' without a reply")
                self._in_reply = False


class V1Answers(Answers):
    """Answers in labkit.v1."""

    last = v1.Ping(id=_LAST).encode()

    def __init__(self, tally: Tally, resumes_at: Position | None = None) -> None:
        """Count into `tally`; the client's first message resumes at `resumes_at`, if it does."""
        super().__init__(tally)
        self._resumes_at = resumes_at
        self._acknowledged = Position()
        self._started: v1.SessionStarted | None = None
        self._in_reply: bool | None = False  # None: it is not known
        self._acknowledges = False

    @property
    def ticket(self) -> v1.Resume | None:
        """The session that this connection carries, once it does."""
        if self._started is None:
            return None
        session, token = self._started.session, self._started.token
        return v1.Resume(session=session, token=token, received=self.received or Position())

    @property
    def untold(self) -> list[str]:
        """Refusals that are missing, where the session has to tell of them."""
        # Without a session there is nothing to tell through; a resume tells older things again;
        # and to a client that does not acknowledge what it said it would, little is told.
        started = self._started is not None and not self._started.resumed
        return super().untold if started and not self._acknowledges else []

    def _ask(self, payload: str | bytes) -> None:
        if isinstance(payload, bytes):  # what audio is refused for depends on what came before
            return
        message = v1.decode_client(payload)
        if self._started is None and isinstance(message, v1.SessionStart):
            self._acknowledges |= message.acknowledges

    def _take_text(self, text: str) -> None:
        message = v1.decode_server(text)
        self.tally.answers[message.type] += 1
        self._take_number(getattr(message, "seq", None))
        match message:
            case v1.Error():
                self._take_error(message)
                if self._started is None:  # that was the resume, if it was one
                    self._resumes_at = None
            case v1.SessionStarted():
                self._start(message)
            case v1.ResponseStarted():
                if self._in_reply:
                    self.tally.blame("'response.started' inside of a response")
                self._in_reply = True
            case v1.ResponseDone():
                self._in_reply = False
            case v1.Pong(id=name):
                self.settled |= name == _LAST
            case v1.AudioAck(received=received):
                if not received.reaches(self._acknowledged):
                    self.tally.blame(f"{received} acknowledged after {self._acknowledged}")
                self._acknowledged = received

    def _start(self, started: v1.SessionStarted) -> None:
        if self._started is not None:
            self.tally.blame("a second 'session.started'")
        self._started = started
        if not started.resumed:
            self.received = Position()
            return
        # What a resume goes on with may lie in the midst of a reply.
        self._in_reply = None
        self.received = started.missing.up_to if started.missing else self._resumes_at

    def _take_number(self, number: int | None) -> None:
        if number is None:
            return
        if self._started is None:
            self.tally.blame(f"number {number} before the session")
        elif self.received is not None and number != self.received.messages + 1:
            self.tally.blame(f"number {number} after number {self.received.messages}")
        samples = self.received.samples if self.received else 0
        self.received = Position(messages=number, samples=samples)

    def _take_audio(self, audio: bytes) -> None:
        if self._started is None or self._in_reply is False:
            self.tally.blame(f"{len(audio)} bytes of audio outside of a response")
            return
        frame = self._started.output.format.frame_bytes
        if not audio:
            self.tally.blame("an empty message of audio")
        self._check_whole(audio, frame)
        if self.received is not None:
            self.received = self.received.plus(samples=len(audio) // frame)
