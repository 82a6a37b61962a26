"""What a server may say to a hostile client: nothing but its dialect, in its dialect's order.

Checked are the form of each message, that reply audio comes only inside of a reply, that
numbers follow each other without a gap, that nothing is answered that was not asked, and that
every refusal is told: one by one, or as a count. Pure.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Protocol

from labkit.audio.formats import WIRE
from labkit.drills.inputs import Ticket
from labkit.errors import CloseCode, ErrorCode, ProtocolError
from labkit.protocol import plain, v1
from labkit.protocol.limits import Limits
from labkit.protocol.replay import Position

__all__ = ["Answers", "PlainAnswers", "Tally", "V1Answers"]

_DEFAULTS: Final = Limits()
_EXAMPLES: Final = 10
_FAREWELL: Final = "farewell"
_FAULT_OF_THE_SERVER: Final = frozenset((ErrorCode.INTERNAL, ErrorCode.ENGINE_FAILED))
_PROTOCOL_ERROR: Final = 1002
"""A frame that breaks RFC 6455; the library sends it, so `CloseCode` does not have it."""
_LONGEST_MESSAGE: Final = 1024 * 1024
"""What clients take by the defaults of their libraries."""
_FULL_REPLY: Final = plain.LONGEST_REPLY * WIRE.frame_bytes
"""Bytes of a message of the plain dialect that is followed by the rest of the reply."""
_ORDERLY: Final = (frozenset(CloseCode) - {CloseCode.INTERNAL_ERROR}) | {_PROTOCOL_ERROR}


@dataclass(slots=True)
class Tally:
    """What came over all connections.

    Attributes:
        sent: Messages sent, by what was wrong with them.
        answers: Answers, by type.
        codes: Errors, by code.
        closes: Connections that the server closed, by close code.
        illegal: Answers that must not be; some of them are quoted in `examples`.
        examples: What they were.
        stuck: Connections on which the server neither answered nor hung up, by what was sent.
        connections: Connections made.
    """

    sent: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    closes: Counter[int] = field(default_factory=Counter)
    illegal: int = 0
    examples: list[str] = field(default_factory=list)
    stuck: Counter[str] = field(default_factory=Counter)
    connections: int = 0

    def blame(self, what: str) -> None:
        """Note something that must not be."""
        self.illegal += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(what[:300])

    def take_error(self, code: ErrorCode) -> None:
        """Note an error that the server told."""
        self.answers["error"] += 1
        self.codes[code.value] += 1
        if code in _FAULT_OF_THE_SERVER:
            self.blame(f"error {code.value}")

    def take_close(self, code: int | None, reason: str = "") -> None:
        """Note that the server hung up; None where it did so without a close frame."""
        self.closes[code or 0] += 1
        if code not in _ORDERLY:
            self.blame(f"closed with code {code}: {reason}")


class Answers(Protocol):
    """Checks what comes on one connection."""

    def asked(self, payload: str | bytes) -> None:
        """The client sends this."""
        ...

    def take(self, message: str | bytes) -> None:
        """The server sent this."""
        ...

    def farewell(self) -> str:
        """The last message to send; once it is answered, everything before it was read."""
        ...

    @property
    def settled(self) -> bool:
        """Whether the last message was answered."""
        ...

    @property
    def untold(self) -> list[str]:
        """Messages that had to be refused and were not, in words."""
        ...


class _Refusals:
    """Messages that the server has to refuse whatever came before, and what it told of them."""

    def __init__(self) -> None:
        self.due: Counter[ErrorCode] = Counter()
        self.told: Counter[ErrorCode] = Counter()

    @property
    def untold(self) -> list[str]:
        """What is missing. There may be more of a code than was due, for other reasons."""
        return [
            f"{due} messages were {code.value}, and {self.told[code]} told of"
            for code, due in self.due.items()
            if self.told[code] < due
        ]


class PlainAnswers:
    """Answers in the plain dialect."""

    def __init__(self, tally: Tally, *, stream: bool, limits: Limits = _DEFAULTS) -> None:
        """Count into `tally`; `stream` says how the client asked for its replies."""
        self._tally = tally
        self._stream = stream
        self._limits = limits
        self._owed = {plain.Ping: 0, plain.EndStream: 0}
        self._refusals = _Refusals()
        self._in_reply = False

    def asked(self, payload: str | bytes) -> None:
        """Count the commands that are to be answered, and what has to be refused."""
        is_text = isinstance(payload, str)
        longest = self._limits.max_text_bytes if is_text else self._limits.max_message_bytes
        try:
            command = plain.decode_client(payload, max_bytes=longest)
        except ProtocolError as error:
            self._refusals.due[error.code] += 1
            return
        if type(command) in self._owed:
            self._owed[type(command)] += 1

    def farewell(self) -> str:
        """A `ping`: everything before it is answered before its `pong`."""
        return "ping"

    @property
    def settled(self) -> bool:
        """Whether every `ping` was answered."""
        return not self._owed[plain.Ping]

    @property
    def untold(self) -> list[str]:
        """Refusals that are missing."""
        return self._refusals.untold

    def take(self, message: str | bytes) -> None:
        """Check a pong, a JSON message, or audio of a reply."""
        if isinstance(message, bytes):
            self._take_audio(message)
        elif message == plain.PONG:
            self._tally.answers["pong"] += 1
            self._settle(plain.Ping, "pong")
        else:
            self._take_json(message)

    def _take_audio(self, pcm: bytes) -> None:
        self._tally.answers["audio"] += 1
        if not self._in_reply:
            self._tally.blame(f"{len(pcm)} bytes of audio outside of a reply")
        if len(pcm) % 2:
            self._tally.blame(f"{len(pcm)} bytes are no whole number of samples")
        if len(pcm) > _LONGEST_MESSAGE:
            self._tally.blame(f"a message of {len(pcm)} bytes, which most clients refuse")
        self._in_reply = self._in_reply and (self._stream or len(pcm) == _FULL_REPLY)

    def _take_json(self, text: str) -> None:
        try:
            message = plain.decode_server(text)
        except ProtocolError as error:
            self._tally.blame(str(error))
            return
        if isinstance(message, plain.Error):
            self._refusals.told[message.code] += message.count
            self._tally.take_error(message.code)
            return
        self._tally.answers[message.type] += 1
        if isinstance(message, plain.Transcript):
            self._settle(plain.EndStream, "transcript")
            if self._in_reply:
                self._tally.blame("a transcript inside of a reply")
        elif not (self._stream and self._in_reply):
            self._tally.blame("'done' without a reply")
        self._in_reply = isinstance(message, plain.Transcript)

    def _settle(self, command: type[plain.Ping] | type[plain.EndStream], answer: str) -> None:
        self._owed[command] -= 1
        if self._owed[command] < 0:
            self._tally.blame(f"a {answer} that nobody asked for")


class V1Answers:
    """Answers in labkit.v1.

    Attributes:
        received: What has come of the session, None where that is not known.
        settled: Whether the last message was answered.
    """

    def __init__(self, tally: Tally, resumes_at: Position | None = None) -> None:
        """Count into `tally`; the client's first message resumes at `resumes_at`, if it does."""
        self._tally = tally
        self._resumes_at = resumes_at
        self._acknowledged = Position()
        self._started: v1.SessionStarted | None = None
        self._in_reply: bool | None = False
        self._refusals = _Refusals()
        self._acknowledges = False
        self.settled = False
        self.received: Position | None = None

    @property
    def ticket(self) -> Ticket | None:
        """The session that this connection carries, once it does."""
        if self._started is None:
            return None
        received = self.received or Position()
        return Ticket(self._started.session, self._started.token, received)

    def asked(self, payload: str | bytes) -> None:
        """Count what has to be refused whatever came before."""
        if isinstance(payload, bytes):  # what audio is refused for depends on what came before
            return
        try:
            message = v1.decode_client(payload)
        except ProtocolError as error:
            self._refusals.due[error.code] += 1
            return
        if self._started is None and isinstance(message, v1.SessionStart):
            self._acknowledges |= message.acknowledges

    def farewell(self) -> str:
        """A `ping` with a name of its own."""
        return v1.Ping(id=_FAREWELL).encode()

    @property
    def untold(self) -> list[str]:
        """Refusals that are missing, where the session has to tell of them."""
        # Without a session there is nothing to tell through; a resume tells older things again;
        # and to a client that does not acknowledge what it said it would, little is told.
        started = self._started is not None and not self._started.resumed
        return self._refusals.untold if started and not self._acknowledges else []

    def take(self, message: str | bytes) -> None:
        """Check a JSON message, or audio of a response."""
        if isinstance(message, bytes):
            self._take_audio(message)
            return
        try:
            decoded = v1.decode_server(message)
        except ProtocolError as error:
            self._tally.blame(f"{error}: {message[:80]!r}")
            return
        if isinstance(decoded, v1.Error):
            self._refusals.told[decoded.code] += decoded.count
            self._tally.take_error(decoded.code)
            if self._started is None:  # that was the resume, if it was one
                self._resumes_at = None
        else:
            self._tally.answers[decoded.type] += 1
        self._take_number(getattr(decoded, "seq", None))
        self._take_text(decoded)

    def _take_text(self, message: v1.ServerMessage) -> None:
        match message:
            case v1.SessionStarted():
                self._start(message)
            case v1.ResponseStarted():
                if self._in_reply:
                    self._tally.blame("'response.started' inside of a response")
                self._in_reply = True
            case v1.ResponseDone():
                self._in_reply = False
            case v1.Pong(id=name):
                self.settled |= name == _FAREWELL
            case v1.AudioAck(received=received):
                if not received.reaches(self._acknowledged):
                    self._tally.blame(f"{received} acknowledged after {self._acknowledged}")
                self._acknowledged = received

    def _start(self, started: v1.SessionStarted) -> None:
        if self._started is not None:
            self._tally.blame("a second 'session.started'")
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
            self._tally.blame(f"number {number} before the session")
        elif self.received is not None and number != self.received.messages + 1:
            self._tally.blame(f"number {number} after number {self.received.messages}")
        samples = self.received.samples if self.received else 0
        self.received = Position(messages=number, samples=samples)

    def _take_audio(self, payload: bytes) -> None:
        self._tally.answers["audio"] += 1
        if self._started is None or self._in_reply is False:
            self._tally.blame(f"{len(payload)} bytes of audio outside of a response")
            return
        frame = self._started.output.format.frame_bytes
        if not payload or len(payload) % frame:
            self._tally.blame(f"{len(payload)} bytes are no whole number of samples")
        if self.received is not None:
            self.received = self.received.plus(samples=len(payload) // frame)
