"""What servers say in the plain dialect, those of others as well: text, and the audio of a reply.

A dialect holds its own server to each field; a client of anybody's server has another aim. A type
or a code that nobody has heard of ends no turn, and what cannot be understood is told in words,
with what was expected.
"""

import io
import json
from collections.abc import Callable
from typing import Final

import numpy as np
import soundfile
from pydantic import FiniteFloat, NonNegativeFloat, ValidationError

from labkit.audio.formats import WIRE, mix
from labkit.audio.misread import FormatWatch
from labkit.audio.pcm import SAMPLE_RATE, Float32, decode_s16le, resample
from labkit.audio.readings import header_of
from labkit.client.answers import SHOWN, Unknown
from labkit.errors import ErrorCode, ProtocolError
from labkit.protocol import plain

_LONGEST_MESSAGE: Final = plain.LONGEST_REPLY * WIRE.frame_bytes
"""Bytes of a binary message of a whole reply that another one follows."""
_MIN_RATE: Final = 4_000
_MAX_RATE: Final = 192_000
_MOST_SAMPLES: Final = 60_000_000
"""In the file that a message is, over all channels: ten minutes of 48 kHz stereo."""
_SAMPLES: Final = "signed 16-bit samples (low byte first, mono, 16 kHz)"
_EXPECTED: Final = {
    "audio": _SAMPLES,
    "transcript": '{"type": "transcript", "text": "what was heard"}',
    "done": '{"type": "done"}, with "reply_text" and "marks" if you like',
    "error": '{"type": "error", "code": "…", "message": "…", "hint": "…"}',
}


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
        raise _wrong(f"the text message {message[:SHOWN]!r} {what}", "transcript")
    if kind not in _MODELS:
        return Unknown(kind, fields)
    try:
        return _MODELS[kind].model_validate(fields)
    except ValidationError as invalid:
        fault = invalid.errors(include_url=False)[0]
    name = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "missing":
        raise _wrong(f"{kind!r} has no {name!r}", kind)
    value = json.dumps(fault["input"])[:SHOWN]
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
        # Of each header, and before any, the rate and the pieces: one stream, so without seams.
        self._streams: list[tuple[int, list[Float32]]] = [(SAMPLE_RATE, [])]
        self._raw = bytearray()
        self._rest = b""
        self._channels = 1

    @property
    def has_begun(self) -> bool:
        """Whether a binary message came, be it empty."""
        return bool(self._sizes)

    @property
    def is_whole(self) -> bool:
        """Whether it is complete as one message, or as full ones and a shorter one."""
        full = [size == _LONGEST_MESSAGE for size in self._sizes]
        return bool(full) and all(full[:-1]) and not full[-1]

    def take(self, payload: bytes) -> Float32:
        """Take a binary message, give its samples at 16 kHz, as they sound by themselves.

        Raises:
            ProtocolError: It is a file that cannot be read.
        """
        self._sizes.append(len(payload))
        header = header_of(payload)
        samples = self._bare(payload) if header is None else self._file(payload, header.name)
        rate, pieces = self._streams[-1]
        pieces.append(samples)
        return resample(samples, rate, SAMPLE_RATE)

    def whole(self) -> Float32:
        """All of it; looks whether it is what it is to be."""
        if (found := _mismatch(bytes(self._raw))) is not None:
            self._remark(f"the reply {found.code.replace('_', ' ')}, where {_SAMPLES} are due")
        return np.concatenate(
            [
                resample(np.concatenate([np.zeros(0, np.float32), *pieces]), rate, SAMPLE_RATE)
                for rate, pieces in self._streams
            ]
        )

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
        return mix(decode_s16le(data[:whole]).reshape(-1, self._channels))

    def _file(self, payload: bytes, name: str) -> Float32:
        try:
            with soundfile.SoundFile(io.BytesIO(payload)) as file:
                rate, self._channels = file.samplerate, file.channels
                told = f"the reply is a {name} file ({rate} Hz, channels: {self._channels})"
                size = file.frames * file.channels
                # Decoded or resampled, a message could fill the memory.
                if not _MIN_RATE <= rate <= _MAX_RATE or size > _MOST_SAMPLES:
                    raise _wrong(f"{told} of {file.frames / rate:.0f} s", "audio")
                frames = file.read(dtype="float32", always_2d=True)
        except (OSError, soundfile.LibsndfileError):
            raise _wrong(f"the reply begins as a {name} file and cannot be read", "audio") from None
        self._remark(f"{told}, where {_SAMPLES} are due, without a header")
        self._streams.append((int(rate), []))
        return mix(frames)


def _mismatch(raw: bytes) -> ProtocolError | None:
    """The first sign that bytes are not s16le mono at 16 kHz, heard as if they came live."""
    watch, size = FormatWatch(WIRE), WIRE.bytes_per_second // 10
    for number, at in enumerate(range(0, len(raw), size), start=1):
        if found := watch.feed(raw[at : at + size], number * 100_000_000):
            return found[0]
    return None
