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
    ├── ClientError               the client could not reach the server, or gave up on it
    └── InstrumentError           an instrument of measurement cannot do what it was asked

`ErrorCode` lists every error code that a client can receive, and `CloseCode` every WebSocket
close code that the server uses.
"""

from enum import IntEnum, StrEnum
from pathlib import Path

__all__ = [
    "AudioError",
    "ClientError",
    "CloseCode",
    "EngineError",
    "ErrorCode",
    "InstrumentError",
    "LabkitError",
    "ModelBrokenError",
    "ModelChangedError",
    "ModelError",
    "ModelNotFoundError",
    "ProtocolError",
    "ServerError",
]


class ErrorCode(StrEnum):
    """Why the server refused a message. The session goes on after each of them."""

    ODD_LENGTH = "odd_length"
    """Binary message whose length is no whole number of 16-bit samples."""
    MESSAGE_TOO_LARGE = "message_too_large"
    """Binary or text message above the size limit; it was dropped whole."""
    BUFFER_FULL = "buffer_full"
    """More audio than one utterance may hold; what no longer fitted was dropped."""
    UNKNOWN_COMMAND = "unknown_command"
    """Text message that is no command of the dialect."""
    TOO_MANY_TURNS = "too_many_turns"
    """`end_stream` while too many earlier turns still wait for their answer."""
    ENGINE_FAILED = "engine_failed"
    """An engine failed during this turn; the next turn may work."""


class CloseCode(IntEnum):
    """WebSocket close codes that the server sends (RFC 6455, section 7.4.1)."""

    GOING_AWAY = 1001
    """The server is shutting down."""
    MESSAGE_TOO_BIG = 1009
    """A message so large that it was not even read."""
    INTERNAL_ERROR = 1011
    """A fault of the server."""
    TRY_AGAIN_LATER = 1013
    """The server holds as many sessions as it may."""
    SLOW_READER = 4008
    """The client did not read its replies in time."""


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
        """Say what was wrong (`message`), under which `code`, and what to do (`hint`)."""
        super().__init__(message)
        self.code = code
        self.hint = hint


class ModelError(LabkitError):
    """A model is not usable."""


class ModelNotFoundError(ModelError):
    """A model file is missing.

    Attributes:
        name: The model as it was asked for.
        path: Where it was looked for, if that is known.
        mend: The command or action that mends it.
    """

    def __init__(self, name: str, path: Path | None, mend: str) -> None:
        """Name the model, the place where it should be, and the mend."""
        where = f" (looked for {path})" if path is not None else ""
        super().__init__(f"model {name!r} is not here{where}. {mend}")
        self.name = name
        self.path = path
        self.mend = mend


class ModelBrokenError(ModelError):
    """A model file is there and does not load.

    Attributes:
        path: The file or folder at fault.
        mend: The command or action that mends it.
    """

    def __init__(self, path: Path, reason: str, mend: str) -> None:
        """Name the file, what the engine said of it, and the mend."""
        super().__init__(f"model file {path} does not load: {reason}. {mend}")
        self.path = path
        self.mend = mend


class ModelChangedError(ModelError):
    """A model file differs from the one that was recorded when it was first pulled.

    Attributes:
        path: The file at fault.
        expected: The recorded revision or SHA-256.
        found: The revision or SHA-256 seen now.
    """

    def __init__(self, path: Path, expected: str, found: str, mend: str) -> None:
        """Name the file, what was recorded, what was found, and the mend."""
        super().__init__(f"model file {path} changed: recorded {expected}, found {found}. {mend}")
        self.path = path
        self.expected = expected
        self.found = found


class EngineError(LabkitError):
    """An engine failed while it worked."""


class ServerError(LabkitError):
    """The server could not start or stop as asked."""


class ClientError(LabkitError):
    """The client could not reach the server, or gave up on it."""


class InstrumentError(LabkitError):
    """An instrument of measurement cannot do what it was asked."""
