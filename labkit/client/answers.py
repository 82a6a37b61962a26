"""What servers answer, whatever they are: how long to wait for it, how to read it, how to tell it.

No wait is without an end: where an answer does not come, the error says what went out and what
came. A dialect holds its own server to each field; a client of anybody's server has another aim.
What can be understood is taken, a type or a code that nobody has heard of ends no session, and
what cannot be understood is told in words, with what was expected.
"""

import io
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import soundfile
from pydantic import FiniteFloat, NonNegativeFloat, ValidationError

from labkit.audio.formats import WIRE, mix
from labkit.audio.misread import FormatWatch
from labkit.audio.pcm import SAMPLE_RATE, Float32, decode_s16le, resample
from labkit.audio.readings import header_of
from labkit.client.dial import CONNECT_S
from labkit.errors import ClientError, ErrorCode, ProtocolError
from labkit.protocol import plain, v1

_SHOWN: Final = 60
"""Most characters of a text of the server that are repeated."""
LONGEST_MESSAGE: Final = plain.LONGEST_REPLY * WIRE.frame_bytes
"""Bytes of a binary message of a whole reply that another one follows."""
_MIN_RATE: Final = 4_000
_MAX_RATE: Final = 192_000
_SAMPLES: Final = "signed 16-bit samples (low byte first, mono, 16 kHz)"
_EXPECTED: Final = {
    "audio": _SAMPLES,
    "transcript": '{"type": "transcript", "text": "what was heard"}',
    "done": '{"type": "done"}, with "reply_text" and "marks" if you like',
    "error": '{"type": "error", "code": "…", "message": "…", "hint": "…"}',
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """How long a client waits, in seconds."""

    connect_s: float = CONNECT_S
    """For a connection: name, TCP, TLS, and the answer to the handshake."""
    start_s: float = 10.0
    """For the answer to `session.start`."""
    answer_s: float = 60.0
    """For each next sign of an answer (its transcript, a piece of it, a pong), and for room in a
    connection whose server does not read."""

    def __post_init__(self) -> None:
        """Refuse deadlines that leave no time.

        Raises:
            ValueError: One is not above 0.
        """
        for name in ("connect_s", "start_s", "answer_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name):g}")


@dataclass(frozen=True, slots=True)
class Unknown:
    """A message of a type that this client does not know."""

    type: str
    """Its type."""
    fields: Mapping[str, object]
    """All that it says, its type included."""

    @property
    def seq(self) -> int | None:
        """Its number among the numbered messages of labkit.v1; None where it has none."""
        number = self.fields.get("seq")
        return number if isinstance(number, int) else None


@dataclass(slots=True)
class TurnSoFar:
    """What went out and what came in of one turn, to be told where the rest does not come."""

    said_s: float = 0.0
    """Audio that was sent, in seconds."""
    asked: str = ""
    """The message that asked for the answer; empty while none has."""
    came: Counter[str] = field(default_factory=Counter)
    """What came, by name, and how often."""
    heard: str | None = None
    """The transcript of the whole utterance, None while it has not come."""
    reply_s: float = 0.0
    """Audio of the reply that came, in seconds."""
    refused: str = ""
    """What the server's last error said."""

    def note(self, message: "ServerText | v1.ServerMessage") -> None:
        """Note a text message of the server, of either dialect."""
        match message:
            case plain.Transcript(text=text) | v1.TranscriptFinal(text=text):
                self.heard = text
                self.came[f"{message.type} {text[:_SHOWN]!r}"] += 1
            case plain.Error(code=code) | v1.Error(code=code):
                self.refused = message.message
                self.came[f"error {str(code)!r}"] += message.count
            case _:
                self.came[message.type] += 1

    def missing(self, what: str, within_s: float) -> ClientError:
        """The error that says `what` (such as "no transcript came") within `within_s` seconds."""
        return ClientError(f"{self.sent()}; {what} within {within_s:.3g} s; {self.received()}")

    def missing_answer(self, within_s: float) -> ClientError:
        """The error that says which part of an answer did not come."""
        if self.heard is None:
            return self.missing("no transcript came", within_s)
        what = "no more of the reply came" if self.reply_s else "no reply came"
        return self.missing(what, within_s)

    def sent(self) -> str:
        """What went out, in words."""
        audio = f"{self.said_s:.1f} s of audio" if self.said_s else ""
        asked = f"{self.asked!r}" if self.asked else ""
        return f"sent {' and '.join(filter(None, (audio, asked))) or 'nothing'}"

    def received(self) -> str:
        """What came in, in words."""
        names = [f"{count} × {name}" if count > 1 else name for name, count in self.came.items()]
        if self.reply_s:
            names.append(f"{self.reply_s:.1f} s of reply")
        came = f"what came: {', '.join(names)}" if names else "nothing else came"
        return came + (f"; the server said: {self.refused}" if self.refused else "")


# -- the messages of a plain server ---------------------------------------------------------


class ForeignDone(plain.Done):
    """The reply is complete; nothing else has to be told."""

    reply_text: str = ""
    reply_samples: int = 0
    marks: dict[str, FiniteFloat] = {}  # type: ignore[assignment] # wider on purpose
    listening_cpu_ms: NonNegativeFloat | None = None  # type: ignore[assignment] # likewise


class ForeignError(plain.Error):
    """A refusal of any code, or of none."""

    code: str = ""  # type: ignore[assignment] # wider on purpose
    message: str = "it gave no reason"


ServerText = plain.Transcript | ForeignDone | ForeignError | Unknown
"""A text message of a server."""

_MODELS: Final[dict[str, type[plain.Transcript | ForeignDone | ForeignError]]] = {
    "transcript": plain.Transcript,
    "done": ForeignDone,
    "error": ForeignError,
}


def read(message: str | bytes) -> ServerText | bytes:
    """Understand a message of a server: text, also where it came as binary, or audio.

    Raises:
        ProtocolError: It is no message, or one of a known type that lacks what it is for.
    """
    if isinstance(message, bytes):
        if not (message[:1] == b"{" and message[-1:] == b"}"):
            return message
        text = message.decode(errors="replace")
        return read(text) if "type" in (_object(text) or {}) else message
    fields = _object(message)
    kind = None if fields is None else fields.get("type")
    if fields is None or not isinstance(kind, str):
        what = "is no JSON object" if fields is None else "has no 'type'"
        raise _wrong(f"the text message {message[:_SHOWN]!r} {what}", "transcript")
    if kind not in _MODELS:
        return Unknown(kind, fields)
    try:
        return _MODELS[kind].model_validate(fields)
    except ValidationError as invalid:
        fault = invalid.errors(include_url=False)[0]
    name = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "missing":
        raise _wrong(f"{kind!r} has no {name!r}", kind)
    value = json.dumps(fault["input"])[:_SHOWN]
    raise _wrong(f"{name!r} of {kind!r} is {value}, and {_should(fault['msg'])}", kind)


def _object(text: str) -> dict[str, object] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _should(message: str) -> str:
    """What a validator expects, as the end of a sentence."""
    return message.removeprefix("Input ").split(",")[0]


def _wrong(what: str, kind: str) -> ProtocolError:
    expected = _EXPECTED[kind]
    return ProtocolError(
        ErrorCode.INVALID_FIELD, f"the server's answer: {what}; expected {expected}", expected
    )


class ReplyReader:
    """The audio of a reply: s16le mono at 16 kHz, or whatever else came and can be read."""

    def __init__(self, remark: Callable[[str], None]) -> None:
        """Let `remark` note what is wrong with it, a sentence each."""
        self._remark = remark
        self._sizes: list[int] = []
        self._pieces: list[Float32] = []
        self._raw = bytearray()
        self._rest = b""
        self._rate, self._channels = SAMPLE_RATE, 1

    @property
    def has_begun(self) -> bool:
        """Whether a binary message came, be it empty."""
        return bool(self._sizes)

    @property
    def is_whole(self) -> bool:
        """Whether it is complete as one message, or as full ones and a shorter one."""
        full = [size == LONGEST_MESSAGE for size in self._sizes]
        return bool(full) and all(full[:-1]) and not full[-1]

    def take(self, payload: bytes) -> Float32:
        """Take a binary message, give its samples at 16 kHz.

        Raises:
            ProtocolError: It is a file that cannot be read.
        """
        self._sizes.append(len(payload))
        header = header_of(payload)
        samples = self._bare(payload) if header is None else self._file(payload, header.name)
        self._pieces.append(samples)
        return samples

    def whole(self) -> Float32:
        """All of it; looks whether it is what it is to be."""
        if (found := _mismatch(bytes(self._raw))) is not None:
            self._remark(f"the reply {found.code.replace('_', ' ')}, where {_SAMPLES} are due")
        return np.concatenate([np.zeros(0, np.float32), *self._pieces])

    def _bare(self, payload: bytes) -> Float32:
        """Samples without a header, of the rate and channels of the header that came before."""
        data, size = self._rest + payload, 2 * self._channels
        whole = len(data) // size * size
        self._rest = data[whole:]
        if len(payload) % size:
            self._remark(
                f"a binary message of {len(payload)} bytes is no whole number of 16-bit samples"
            )
        self._raw += data[:whole]
        frames = decode_s16le(data[:whole]).reshape(-1, self._channels)
        return resample(mix(frames), self._rate, SAMPLE_RATE)

    def _file(self, payload: bytes, name: str) -> Float32:
        try:
            frames, rate = soundfile.read(io.BytesIO(payload), dtype="float32", always_2d=True)
        except (OSError, soundfile.LibsndfileError):
            raise _wrong(f"the reply begins as a {name} file and cannot be read", "audio") from None
        self._rate, self._channels = int(rate), frames.shape[1]
        told = f"the reply is a {name} file ({rate} Hz, channels: {self._channels})"
        if not _MIN_RATE <= rate <= _MAX_RATE:  # resampled, a message could fill the memory
            raise _wrong(told, "audio")
        self._remark(f"{told}, where {_SAMPLES} are due, without a header")
        return resample(mix(frames), self._rate, SAMPLE_RATE)


def _mismatch(raw: bytes) -> ProtocolError | None:
    """The first sign that bytes are not s16le mono at 16 kHz, heard as if they came live."""
    watch, size = FormatWatch(WIRE), WIRE.bytes_per_second // 10
    for number, at in enumerate(range(0, len(raw), size), start=1):
        if found := watch.feed(raw[at : at + size], number * 100_000_000):
            return found[0]
    return None
