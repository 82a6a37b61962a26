"""Everything that can go wrong, in one place.

The exception tree::

    LabkitError
    ├── AudioError                a recording or a buffer that is not usable audio
    ├── ProtocolError             the peer sent something the dialect does not allow
    ├── ModelError
    │   ├── ModelNotFoundError    a model file is missing
    │   ├── ModelBrokenError      a model file is there and does not load
    │   └── ModelChangedError     a model file differs from the one first pulled
    ├── EngineError               an engine failed while it worked
    ├── ServerError               the server could not start or stop as asked
    ├── Close                     a connection ends, for a reason that its client is told
    ├── ClientError               the client could not reach the server, or gave up on it
    │   └── ConnectError          no connection came about
    ├── TokenError                a token, or a file of tokens, is not usable
    └── InstrumentError           an instrument of measurement cannot do what it was asked

`ErrorCode` lists every error code that a client can receive, and `CloseCode` every WebSocket
close code that the server uses.
"""

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pydantic_core import ValidationError

_MOST_TOLD: Final = 60
"""Characters of a wrong value that an error repeats."""


class ErrorCode(StrEnum):
    """Why the server refused something. Unless an error says `fatal`, the session goes on."""

    ODD_LENGTH = "odd_length"
    """Binary message whose length is no whole number of samples over all channels."""
    MESSAGE_TOO_LARGE = "message_too_large"
    """Binary or text message above the size limit; it was dropped whole."""
    BUFFER_FULL = "buffer_full"
    """More audio than one utterance may hold; what no longer fitted was dropped."""
    UNKNOWN_COMMAND = "unknown_command"
    """Text message that is no command of the plain dialect."""
    WRONG_FRAME = "wrong_frame"
    """A command in a binary message; commands are text."""
    TOO_MANY_TURNS = "too_many_turns"
    """An utterance ended while too many earlier turns still wait for their answer."""
    ENGINE_FAILED = "engine_failed"
    """An engine failed during this turn; the next turn may work."""
    NOT_UNDERSTOOD = "not_understood"
    """Somebody spoke in a part of the utterance in which no words were found."""

    INVALID_AUDIO = "invalid_audio"
    """Audio with samples that are no finite numbers."""
    LOOKS_LIKE_INT16 = "looks_like_int16"
    """Audio that was declared otherwise looks like 16-bit integers, little-endian."""
    LOOKS_LIKE_FLOAT32 = "looks_like_float32"
    """Audio that was declared otherwise looks like 32-bit floats, little-endian."""
    LOOKS_LIKE_MULAW = "looks_like_mulaw"
    """Audio that was declared otherwise looks like G.711 µ-law."""
    LOOKS_LIKE_ALAW = "looks_like_alaw"
    """Audio that was declared otherwise looks like G.711 A-law."""
    LOOKS_LIKE_UINT8 = "looks_like_uint8"
    """Audio that was declared otherwise looks like unsigned 8-bit integers."""
    LOOKS_LIKE_BIG_ENDIAN = "looks_like_big_endian"
    """Audio looks like integers or floats with the high byte first."""
    LOOKS_SHIFTED = "looks_shifted"
    """Audio looks like what was declared, read from the middle of a sample on."""
    FLOAT_OUT_OF_SCALE = "float_out_of_scale"
    """Floats on the scale of 16-bit integers, ±32768 in place of ±1."""
    LOOKS_LIKE_COMPRESSED = "looks_like_compressed"
    """Audio looks like the output of an encoder: MP3, AAC, Ogg, Opus, FLAC, WebM, MP4."""
    LOOKS_LIKE_FILE = "looks_like_file"
    """Audio looks like a file with its header, such as WAV."""
    LOOKS_LIKE_STEREO = "looks_like_stereo"
    """Audio looks like two interleaved channels, declared as one."""
    LOOKS_LIKE_MONO = "looks_like_mono"
    """Audio looks like one channel, declared as two."""
    RATE_MISMATCH = "rate_mismatch"
    """Audio comes at the pace of another sample rate than the declared one."""
    CHANNELS_CANCEL = "channels_cancel"
    """Two channels of opposite sign, of which nothing is left when they are mixed."""
    INVALID_JSON = "invalid_json"
    """Text message that is no JSON object, or one nested too deeply."""
    UNKNOWN_TYPE = "unknown_type"
    """JSON message whose `type` is none of the dialect."""
    INVALID_FIELD = "invalid_field"
    """JSON message with a field that is missing, of the wrong type, or out of range."""
    NOT_STARTED = "not_started"
    """Something came before `session.start`."""
    ALREADY_STARTED = "already_started"
    """A second `session.start` on one connection."""
    START_TIMEOUT = "start_timeout"
    """No `session.start` came in time."""
    SESSION_UNKNOWN = "session_unknown"
    """Nothing to resume: the session is unknown or expired, or the token is not its token."""
    POSITION_INVALID = "position_invalid"
    """A position in the stream that was never reached, in a resume or an acknowledgement."""
    TAKEN_OVER = "taken_over"
    """Another connection resumed this session."""
    UNKNOWN_RESPONSE = "unknown_response"
    """`response.cancel` of a turn that never was, or is long over."""
    AUDIO_TOO_FAST = "audio_too_fast"
    """Audio far faster than real time; the server reads on at the pace that it allows."""
    TOO_MANY_MESSAGES = "too_many_messages"
    """A flood of control messages."""
    IDLE = "idle"
    """Nothing came for too long."""
    SESSION_TOO_LONG = "session_too_long"
    """The session reached its maximum length."""
    SLOW_READER = "slow_reader"
    """The client did not read or acknowledge its replies in time."""
    SHUTTING_DOWN = "shutting_down"
    """The server is shutting down."""
    INTERNAL = "internal"
    """A fault of the server; its log has the details."""

    @property
    def close(self) -> "CloseCode | None":
        """The code with which this error closes the connection; None where it goes on."""
        return _CLOSES.get(self)


class CloseCode(IntEnum):
    """WebSocket close codes that the server sends (RFC 6455, section 7.4.1)."""

    NORMAL = 1000
    """The client ended the session."""
    GOING_AWAY = 1001
    """The server is shutting down."""
    PROTOCOL_ERROR = 1002
    """A frame that RFC 6455 does not allow."""
    INVALID_TEXT = 1007
    """A text message that is not UTF-8."""
    POLICY = 1008
    """The client broke a rule again and again."""
    MESSAGE_TOO_BIG = 1009
    """A message so large that it was not even read."""
    INTERNAL_ERROR = 1011
    """A fault of the server, or a client that no longer answers keepalive pings."""
    START_TIMEOUT = 4001
    """No `session.start` came in time."""
    IDLE = 4004
    """Nothing came for too long."""
    SESSION_TOO_LONG = 4005
    """The session reached its maximum length."""
    TAKEN_OVER = 4006
    """Another connection resumed this session."""
    SLOW_READER = 4008
    """The client did not read or acknowledge its replies in time."""

    @property
    def resumable(self) -> bool:
        """Whether a session of labkit.v1 can be resumed after this close."""
        return self in _RESUMABLE


_CLOSES: Final[Mapping[ErrorCode, CloseCode]] = MappingProxyType(
    {
        ErrorCode.START_TIMEOUT: CloseCode.START_TIMEOUT,
        ErrorCode.TAKEN_OVER: CloseCode.TAKEN_OVER,
        ErrorCode.TOO_MANY_MESSAGES: CloseCode.POLICY,
        ErrorCode.IDLE: CloseCode.IDLE,
        ErrorCode.SESSION_TOO_LONG: CloseCode.SESSION_TOO_LONG,
        ErrorCode.SLOW_READER: CloseCode.SLOW_READER,
        ErrorCode.SHUTTING_DOWN: CloseCode.GOING_AWAY,
        ErrorCode.INTERNAL: CloseCode.INTERNAL_ERROR,
    }
)
_RESUMABLE: Final = frozenset(
    {
        CloseCode.PROTOCOL_ERROR,
        CloseCode.INVALID_TEXT,
        CloseCode.POLICY,
        CloseCode.MESSAGE_TOO_BIG,
        CloseCode.INTERNAL_ERROR,
        CloseCode.START_TIMEOUT,  # the session of a resume that came too late still waits
        CloseCode.IDLE,
        CloseCode.SLOW_READER,
    }
)


class LabkitError(Exception):
    """Base class of every error that labkit raises on purpose."""


class AudioError(LabkitError):
    """A recording or a buffer is not usable audio."""


class ProtocolError(LabkitError):
    """The peer sent something that the dialect does not allow.

    Attributes:
        code: What was wrong, from the table of error codes.
        hint: What to send instead, in plain words.
    """

    def __init__(self, code: ErrorCode, message: str, hint: str) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


class ModelError(LabkitError):
    """A model is not usable."""


class ModelNotFoundError(ModelError):
    """A model file is missing.

    Attributes:
        mend: The command or action that mends it.
    """

    def __init__(self, name: str, path: Path | None, mend: str) -> None:
        where = f" (looked for {path})" if path is not None else ""
        super().__init__(f"model {name!r} is not here{where}. {mend}")
        self.mend = mend


class ModelBrokenError(ModelError):
    """A model file is there and does not load."""

    VERIFY: Final = (
        "Fetch it anew; of the models of a set, 'labkit models verify' says which files are wrong"
    )

    def __init__(self, path: Path, reason: str, mend: str = VERIFY) -> None:
        super().__init__(f"model file {path} does not load: {reason}. {mend}")


class ModelChangedError(ModelError):
    """A model file differs from the one that was recorded when it was first pulled."""

    def __init__(self, path: Path, expected: str, found: str, mend: str) -> None:
        """`expected` and `found` are revisions or SHA-256 sums."""
        super().__init__(f"model file {path} changed: recorded {expected}, found {found}. {mend}")


class EngineError(LabkitError):
    """An engine failed while it worked."""


class ServerError(LabkitError):
    """The server could not start or stop as asked."""


class Close(LabkitError):  # noqa: N818 - the end of a connection is not always an error
    """A connection ends, for a reason that its client is told.

    Attributes:
        code: The error code, None where nothing went wrong.
        close: The WebSocket close code.
        hint: What the client can do.
    """

    def __init__(self, code: ErrorCode | None, reason: str, hint: str) -> None:
        """Say why (`code`, which closes connections; `reason` in words), and what to do.

        Raises:
            KeyError: Errors of this code close no connection.
        """
        super().__init__(reason)
        self.code = code
        self.close = CloseCode.NORMAL if code is None else _CLOSES[code]
        self.hint = hint


class ClientError(LabkitError):
    """The client could not reach the server, or gave up on it."""


class ConnectError(ClientError):
    """No connection came about.

    Attributes:
        retry: Whether a later try may succeed.
        retry_after_s: How long the server asks to wait until then.
    """

    def __init__(self, message: str, *, retry: bool, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry = retry
        self.retry_after_s = retry_after_s


class TokenError(LabkitError):
    """A token, or a file of tokens, is not usable."""


class InstrumentError(LabkitError):
    """An instrument of measurement cannot do what it was asked."""


def first_fault(error: "ValidationError") -> str:
    """What a value was refused for, the first of it: the field, what it should be, what it is."""
    fault = error.errors(include_url=False)[0]
    name, what = ".".join(map(str, fault["loc"])), fault["msg"]
    if not name:
        return what
    if fault["type"] not in ("missing", "value_error"):  # words of our own tell it
        what += f"; it is {repr(fault['input'])[:_MOST_TOLD]}"
    return f"field {name!r}: {what}"
