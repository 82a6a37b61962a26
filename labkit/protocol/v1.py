"""The dialect ``labkit.v1``: every message as a model, in two closed unions told apart by `type`.

Text messages are JSON and control; binary messages are audio in the negotiated format. The
client speaks first, with `session.start`; the server answers `session.started`.

What belongs to the conversation is numbered: the server writes the number into `seq`, the
client's are counted by both sides in the order in which they come. A `Position` (numbered
messages and samples of audio so far) names a place in either direction, so that after a lost
connection each side sends again exactly what the other lacks. Messages about the connection
itself (`session.started`, `audio.ack`, `pong`, fatal errors) carry no number and are never
repeated: the next connection begins with their news.
"""

import json
from contextlib import suppress
from enum import StrEnum
from typing import Annotated, ClassVar, Final, Literal, TypeAlias, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from labkit.audio.formats import MAX_CHANNELS, MAX_RATE, MIN_RATE, AudioFormat
from labkit.audio.pcm import SAMPLE_RATE, Encoding
from labkit.errors import ErrorCode, ProtocolError
from labkit.protocol.limits import (
    BEGINS_TEXT,
    Amount,
    Limits,
    require_no_control,
    require_short,
    too_large,
)
from labkit.protocol.replay import LARGEST, WHOLE, Count, Missing, Position

SUBPROTOCOL: Final = "labkit.v1"
"""The WebSocket subprotocol to ask for."""


Ordinal = Annotated[int, Field(ge=1, le=LARGEST), WHOLE]
"""A whole number, counted from 1."""


class _Model(BaseModel):
    """What all parts of messages have in common."""

    # Strict, so that what is taken is what the schema says: "3" is no number.
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )


class _ServerPart(_Model):
    # A client of today has to understand a server that has learnt a new field.
    model_config = ConfigDict(extra="ignore")


class AudioSpec(_Model):
    """How the binary messages of one direction are laid out."""

    encoding: Encoding = Encoding.PCM_S16LE
    """Sample format: signed 16-bit or 32-bit float, both little-endian, or G.711 µ-law or A-law."""
    sample_rate: Annotated[int, Field(ge=MIN_RATE, le=MAX_RATE), WHOLE] = SAMPLE_RATE
    """Samples per second and channel, 8000 to 48000."""
    channels: Annotated[int, Field(ge=1, le=MAX_CHANNELS), WHOLE] = 1
    """Interleaved channels, 1 or 2; what comes is averaged to mono."""

    @classmethod
    def of(cls, form: AudioFormat) -> "AudioSpec":
        """What says the same to a client."""
        encoding = Encoding(form.encoding)  # a notebook may have written it as text
        return cls(encoding=encoding, sample_rate=form.sample_rate, channels=form.channels)

    @property
    def format(self) -> AudioFormat:
        """The same for codecs."""
        return AudioFormat(self.encoding, self.sample_rate, self.channels)


class TurnDetection(StrEnum):
    """Who decides that an utterance is over."""

    CLIENT = "client"
    """The client, with `audio.end`."""
    SERVER = "server"
    """The server, after a stretch of silence; `audio.end` still ends it at once."""


class Endpointing(StrEnum):
    """How much silence ends an utterance, where the server decides."""

    FIXED = "fixed"
    """`silence_s`, for everybody."""
    ADAPTIVE = "adaptive"
    """This speaker's usual pause, less where the speaker ended low and softly, more where not, and
    more again where what was said calls for more, such as "set a timer for". `silence_s` is taken
    for the usual pause of a speaker of whom nothing is known. 0.25 to 2 s."""


class Resume(_Model):
    """Which session to go on with, and what of it has come."""

    session: str = Field(max_length=64)
    """Identifier from `session.started`."""
    token: str = Field(max_length=128, repr=False)
    """The latest resume token that came."""
    received: Position = Position()
    """Everything up to here has come; the server sends what lies behind it."""


class Cause(_ServerPart):
    """Which message of the client an error is about."""

    type: str = Field(max_length=64)
    """Its `type`; `audio` for a binary message, `text` for one without a type of the dialect."""
    position: Position
    """What the server had of the client before that message."""
    id: str | None = None
    """Its `id`, where it had one."""

    @classmethod
    def of(cls, message: str | bytes, position: Position) -> "Cause":
        """Which message this is, as far as one that may be wrong says so itself."""
        if isinstance(message, bytes):
            return cls(type="audio", position=position)
        try:
            require_short(message, Limits().max_text_bytes)
            named = _Named.model_validate_json(message)
        except (ProtocolError, ValueError):
            return cls(type="text", position=position)
        kind = str(named.type) if named.type in _TYPES else "text"
        name = named.id if isinstance(named.id, str) and len(named.id) <= 64 else None
        return cls(type=kind, position=position, id=name)


class _ClientMessage(_Model):
    numbered: ClassVar[bool] = True

    id: Annotated[str, Field(max_length=64)] | None = None
    """Any name; an error about this message repeats it."""

    def encode(self) -> str:
        """The message as JSON text."""
        return self.model_dump_json(exclude_none=True)


class SessionStart(_ClientMessage):
    """Begin or resume a session. The first message of a connection."""

    numbered: ClassVar[bool] = False

    type: Literal["session.start"] = "session.start"
    protocol: Literal["labkit.v1"] = "labkit.v1"
    """The dialect again: proxies may agree to a subprotocol that the server never chose."""
    input: AudioSpec = AudioSpec()
    """The audio that the client sends."""
    output: AudioSpec = AudioSpec()
    """The audio that the client wants."""
    turn_detection: TurnDetection = TurnDetection.CLIENT
    """Who decides that an utterance is over."""
    silence_s: Annotated[float, Field(ge=0.2, le=3.0)] | None = None
    """Silence behind speech that ends an utterance where the server decides, 0.2 to 3 s; absent
    for the server's own."""
    endpointing: Endpointing = Endpointing.FIXED
    """How that silence is chosen."""
    partials: bool = False
    """Send `transcript.partial` while an utterance goes on."""
    barge_in: bool = False
    """Speech over a response pauses it, and ends it where it is an interruption; needs
    `turn_detection` of `server`. Responses then come at the pace at which they are played."""
    acknowledges: bool = False
    """The client will send `response.ack`; then nothing that it lacks is ever forgotten."""
    resume: Resume | None = None
    """Go on with a session; its formats and turn detection stay as they were."""


class AudioEnd(_ClientMessage):
    """The utterance is over: answer it."""

    type: Literal["audio.end"] = "audio.end"


class ResponseCancel(_ClientMessage):
    """Stop a response, for instance because the user speaks over it."""

    type: Literal["response.cancel"] = "response.cancel"
    turn: Ordinal
    """Number of the turn, from `response.started`."""
    heard_samples: Count = 0
    """Samples of this response that were played; the conversation remembers that much."""


class ResponseAck(_ClientMessage):
    """Everything up to here has come; the server need not keep it."""

    numbered: ClassVar[bool] = False

    type: Literal["response.ack"] = "response.ack"
    received: Position
    """What the client has of the server's numbered messages and audio."""


class Ping(_ClientMessage):
    """Ask for a `pong`."""

    numbered: ClassVar[bool] = False

    type: Literal["ping"] = "ping"


class SessionEnd(_ClientMessage):
    """End the session; it cannot be resumed."""

    numbered: ClassVar[bool] = False

    type: Literal["session.end"] = "session.end"


ClientMessage: TypeAlias = (
    SessionStart | AudioEnd | ResponseCancel | ResponseAck | Ping | SessionEnd
)
"""Every text message of the client, told apart by `type`."""
_TYPES: Final = tuple(kind.model_fields["type"].default for kind in get_args(ClientMessage))


class _Named(BaseModel):
    """What names a message, whatever is wrong with it, these two included."""

    type: object = None
    id: object = None


class _ServerMessage(_ServerPart):
    def encode(self) -> str:
        """The message as JSON text."""
        return self.model_dump_json(exclude_none=True)


class Numbered(_ServerMessage):
    """A message about the conversation."""

    seq: Count = 0
    """Number of this message among the numbered ones of the session, from 1."""


class _OfTurn(Numbered):
    turn: Ordinal
    """Number of the turn, from 1."""


class SessionStarted(_ServerMessage):
    """The session is open, new or resumed: what will be used, and every limit."""

    type: Literal["session.started"] = "session.started"
    protocol: Literal["labkit.v1"] = "labkit.v1"
    """The dialect that the server speaks."""
    session: str
    """Identifier of the session."""
    token: str = Field(repr=False)
    """Resume token. A new one comes with each resume; use the latest."""
    resumed: bool
    """Whether an earlier session goes on."""
    input: AudioSpec
    """The audio that the server takes."""
    output: AudioSpec
    """The audio that the server sends."""
    turn_detection: TurnDetection
    """Who decides that an utterance is over."""
    silence_s: Amount = 0.5
    """Silence behind speech that ends an utterance where the server decides."""
    endpointing: Endpointing = Endpointing.FIXED
    """How that silence is chosen."""
    barge_in: bool = False
    """Whether speech over a response pauses and may end it."""
    received: Position
    """What the server has of the client; send what lies behind it."""
    missing: Missing | None = None
    """What the server can no longer send again; absent where nothing is missing."""
    limits: Limits
    """Every limit that applies."""


class AudioAck(_ServerMessage):
    """The server has everything up to here; the client need not keep it."""

    type: Literal["audio.ack"] = "audio.ack"
    received: Position
    """What the server has of the client's numbered messages and audio."""


class SpeechStarted(Numbered):
    """Speech began."""

    type: Literal["speech.started"] = "speech.started"
    at_s: Amount
    """Where, in seconds of the utterance."""


class SpeechStopped(Numbered):
    """Speech ended."""

    type: Literal["speech.stopped"] = "speech.stopped"
    at_s: Amount
    """Where, in seconds of the utterance."""


class TranscriptPartial(_OfTurn):
    """What was heard so far of an utterance that goes on, where the client wants to know."""

    type: Literal["transcript.partial"] = "transcript.partial"
    turn: Ordinal
    """Number that its turn will have, from 1."""
    text: str
    """All words so far. `transcript.final` is heard anew, and is what is answered."""
    confirmed: str
    """Those at its beginning that will not change in the partials that follow."""
    behind_s: Amount
    """Seconds of audio that have come since."""


class TranscriptFinal(_OfTurn):
    """What was heard, empty where nothing was said."""

    type: Literal["transcript.final"] = "transcript.final"
    text: str
    """The words."""


class ResponseStarted(_OfTurn):
    """A response begins; the audio up to its `response.done` belongs to it."""

    type: Literal["response.started"] = "response.started"


class ResponseText(_OfTurn):
    """The next sentence of the response, or the next part of a long one, before its audio."""

    type: Literal["response.text"] = "response.text"
    text: str
    """As the model wrote it: markup, code and emoji are in it, and are not spoken."""


class ResponsePaused(_OfTurn):
    """Somebody speaks over the response: stop playing, and keep what was not played."""

    type: Literal["response.paused"] = "response.paused"


class ResponseResumed(_OfTurn):
    """What was said over the response was no interruption: play on where it was paused."""

    type: Literal["response.resumed"] = "response.resumed"
    text: str
    """What was said, such as "yeah"; empty where no words were. Nothing answers it."""


class ResponseInterrupted(_OfTurn):
    """What was said over the response ends it: drop what was not played."""

    type: Literal["response.interrupted"] = "response.interrupted"
    heard_samples: Count
    """Samples of it that were played, as far as the server can tell: the conversation remembers so
    much. A client that knows better says so with `response.cancel`."""


class ResponseStatus(StrEnum):
    """How a turn ended."""

    COMPLETED = "completed"
    """The whole response was given."""
    NOTHING_HEARD = "nothing_heard"
    """There was no speech to answer."""
    CANCELLED = "cancelled"
    """The client cancelled it or spoke over it, or was away for too long."""
    FAILED = "failed"
    """An engine failed; an `error` says which."""


class ResponseDone(_OfTurn):
    """A turn is over. Exactly one comes for each utterance that ended."""

    type: Literal["response.done"] = "response.done"
    status: ResponseStatus
    """How it ended."""
    text: str = ""
    """The whole text of the response; of a cancelled one, what the conversation remembers."""
    samples: Count = 0
    """Samples of its audio that were sent."""
    marks: dict[str, Count] = {}
    """When each stage of the turn ended, in nanoseconds of the server's monotonic clock."""
    ahead: dict[str, Count] = {}
    """Of those that were worked on before the utterance was over, when that really was. In `marks`
    they end as it is over: nobody waited for them before."""


class Pong(_ServerMessage):
    """The answer to `ping`."""

    type: Literal["pong"] = "pong"
    id: str | None = None
    """The `id` of the ping."""


class Error(_ServerMessage):
    """The server refused something, or gives up on the connection."""

    type: Literal["error"] = "error"
    seq: Count | None = None
    """Number among the numbered messages; absent where it is fatal, or no session has begun."""
    code: ErrorCode
    """What was wrong, for programs."""
    message: str
    """What was wrong, for people."""
    hint: str = ""
    """What to send instead."""
    count: Ordinal = 1
    """Messages that this is about: of a row of binary messages that are refused for one reason,
    the first is told at once, and how many more there were when the row is over. Left out where
    it is 1."""
    fatal: bool = False
    """Whether the connection is closed."""
    cause: Cause | None = None
    """Which message it is about; absent where it is about none."""

    @classmethod
    def of(cls, error: ProtocolError, cause: Cause | None, count: int = 1) -> "Error":
        """The message that tells the client of `error`."""
        return cls(code=error.code, message=str(error), hint=error.hint, count=count, cause=cause)

    def encode(self) -> str:
        """The message as JSON text."""
        unsaid = {"count"} if self.count == 1 else None
        return self.model_dump_json(exclude=unsaid, exclude_none=True)


class SessionEnded(_ServerMessage):
    """The session is over and cannot be resumed."""

    type: Literal["session.ended"] = "session.ended"
    reason: str
    """Why, in plain words."""


ServerMessage: TypeAlias = (
    SessionStarted
    | AudioAck
    | SpeechStarted
    | SpeechStopped
    | TranscriptPartial
    | TranscriptFinal
    | ResponseStarted
    | ResponseText
    | ResponsePaused
    | ResponseResumed
    | ResponseInterrupted
    | ResponseDone
    | Pong
    | Error
    | SessionEnded
)
"""Every text message of the server, told apart by `type`."""

_CLIENT: Final[TypeAdapter[ClientMessage]] = TypeAdapter(
    Annotated[ClientMessage, Field(discriminator="type")]
)
_SERVER: Final[TypeAdapter[ServerMessage]] = TypeAdapter(
    Annotated[ServerMessage, Field(discriminator="type")]
)
M = TypeVar("M")


def decode_client(text: str, *, max_bytes: int = Limits().max_text_bytes) -> ClientMessage:
    """Understand one text message of a client.

    Args:
        text: The message.
        max_bytes: Longest message that is accepted, in bytes of UTF-8.

    Raises:
        ProtocolError: It is too long, no JSON object, its type is unknown, or a field is wrong.
    """
    # Looked at before the models see it: they collect every error of a message, which takes half
    # a second of everybody's time where one holds tens of thousands of unknown fields.
    require_short(text, max_bytes)
    _require_few_fields(text)
    return _decode(_CLIENT, text)


def require_audio(payload: bytes, *, max_bytes: int) -> None:
    """Make sure that a binary message can be audio.

    Raises:
        ProtocolError: It is too long, or is a message that should have come as text.
    """
    if len(payload) > max_bytes:
        raise too_large(len(payload), max_bytes, "send audio in messages of 20 to 100 ms")
    if payload[:2] in BEGINS_TEXT:
        require_no_control(payload)


_MOST_FIELDS: Final = 32
"""Fields of one JSON object; no message has more than ten."""


def _require_few_fields(text: str) -> None:
    def count(fields: list[tuple[str, object]]) -> object:
        if len(fields) > _MOST_FIELDS:
            raise ProtocolError(
                ErrorCode.INVALID_FIELD,
                f"an object of the message has {len(fields)} fields; none of the dialect has "
                f"more than {_MOST_FIELDS}",
                "see the dialect's schema at /schema.json for the fields of each message",
            )
        return dict(fields)

    # What is no JSON at all is for the models to find, in their words.
    with suppress(RecursionError, ValueError):
        json.loads(text, object_pairs_hook=count)


def decode_server(text: str) -> ServerMessage:
    """Understand one text message of a server.

    Raises:
        ProtocolError: It is no JSON object, its type is unknown, or a field is wrong.
    """
    # A client of today has to understand a server that has learnt a new field, in any part.
    return _decode(_SERVER, text, extra="ignore")


def _decode(union: TypeAdapter[M], text: str, *, extra: Literal["ignore"] | None = None) -> M:
    try:
        return union.validate_json(text, extra=extra)
    except ValidationError as error:
        raise _refusal(error.errors(include_url=False)[0]) from None
    except ValueError as error:  # text with lone surrogates
        raise _not_json(str(error)) from None


def _refusal(detail: ErrorDetails) -> ProtocolError:
    """The first thing that is wrong with a message, in the project's words."""
    match detail["type"]:
        case "json_invalid":
            return _not_json(str(detail["ctx"]["error"]))
        case "union_tag_not_found":
            return _unknown_type("a message has no 'type'")
        case "union_tag_invalid":
            return _unknown_type(f"the type {str(detail['ctx']['tag'])[:40]!r} is unknown")
        case "model_attributes_type" | "dict_type":
            return _not_json("the message is no object")
    field = ".".join(str(part) for part in detail["loc"][1:])[:80]
    # Of a field that is missing, the input is the object that lacks it.
    is_missing = detail["type"] == "missing"
    wrong = "missing" if is_missing else f"{str(detail['input'])[:40]!r}: {detail['msg']}"
    return ProtocolError(
        ErrorCode.INVALID_FIELD,
        f"field {field!r} of {detail['loc'][0]!r} is {wrong}",
        "see the dialect's schema at /schema.json for each field",
    )


def _not_json(reason: str) -> ProtocolError:
    return ProtocolError(
        ErrorCode.INVALID_JSON,
        f"a text message is no JSON object: {reason}",
        "send control as a JSON object with a 'type', and audio as binary messages",
    )


def _unknown_type(what: str) -> ProtocolError:
    return ProtocolError(
        ErrorCode.UNKNOWN_TYPE,
        what,
        "send one of: " + ", ".join(_TYPES),
    )
