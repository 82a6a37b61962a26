"""A client of the plain dialect, for labkit's servers and for those of others.

It speaks at the pace of speech, notes when everything happened, and takes what a server answers
for as long as it can be understood. What is odd about an answer becomes a remark of the turn.

A dialect holds its own server to each field; a client of anybody's server has another aim. A type
or a code that nobody has heard of ends no turn, and what cannot be understood is told in words,
with what was expected.
"""

import asyncio
import io
import json
import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Self, Unpack

import numpy as np
import soundfile
from pydantic import FiniteFloat, NonNegativeFloat, ValidationError
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from labkit.audio.formats import WIRE, mix
from labkit.audio.misread import FormatWatch
from labkit.audio.pcm import (
    SAMPLE_RATE,
    Float32,
    decode_s16le,
    encode_s16le,
    leading_silence,
    resample,
)
from labkit.audio.readings import header_of
from labkit.client.answers import SHOWN, Deadlines, TurnSoFar, Unknown
from labkit.client.dial import Reach, connected, why_closed
from labkit.client.speech import Clock, chunk_samples, speak, spoken_ns
from labkit.errors import ClientError, ErrorCode, ProtocolError
from labkit.protocol import plain
from labkit.trace import SERVER_MARKS, Mark, Trace

_PINGS: Final = 5
"""Round trips to estimate a clock's offset from; the fastest is the least disturbed."""
_PING_S: Final = 2.0
"""Longest wait for one of them."""
_LONGEST_REPLY_S: Final = 600.0
"""A reply that is longer is one that never ends."""
_MOST_REPLY_BYTES: Final = 4 * 1024 * 1024
"""A server that does not stream sends a reply in one message: two minutes of it are taken."""
_QUIET_S: Final = 0.5
"""Twice so long a server that answers message by message is silent once it has answered."""
_LONGEST_MESSAGE: Final = plain.LONGEST_REPLY * WIRE.frame_bytes
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

# -- what a server says ------------------------------------------------------------------------


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
            frames, rate = soundfile.read(io.BytesIO(payload), dtype="float32", always_2d=True)
        except (OSError, soundfile.LibsndfileError):
            raise _wrong(f"the reply begins as a {name} file and cannot be read", "audio") from None
        self._channels = frames.shape[1]
        told = f"the reply is a {name} file ({rate} Hz, channels: {self._channels})"
        if not _MIN_RATE <= rate <= _MAX_RATE:  # resampled, a message could fill the memory
            raise _wrong(told, "audio")
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


# -- a turn ------------------------------------------------------------------------------------


@dataclass(slots=True)
class ClientTurn:
    """One turn as the client saw it."""

    transcript: str = ""
    """What the server heard."""
    reply_text: str = ""
    """What the spoken reply says; empty without a streamed reply."""
    reply: Float32 = field(default_factory=lambda: np.zeros(0, np.float32))
    """The spoken reply, 16 kHz."""
    trace: Trace = field(default_factory=Trace)
    """The marks of the client, and those of the server where it sent them."""
    messages_sent: int = 0
    """Binary messages of the utterance."""
    bytes_sent: int = 0
    """Payload bytes of the utterance."""
    listening_cpu_ms: float | None = None
    """CPU time of the server's process while the utterance came in; None where it does not tell."""
    errors: list[plain.Error] = field(default_factory=list)
    """What the server refused during the turn."""
    clock_offset_ns: int | None = None
    """The server's clock minus this one, estimated from ping round trips and taken out of the
    server's marks; None where both share one clock."""
    remarks: list[str] = field(default_factory=list)
    """What is odd about the answer, or missing from it: a sentence each."""

    def remark(self, sentence: str) -> None:
        """Note what is odd, once."""
        if sentence not in self.remarks:
            self.remarks.append(sentence)

    @property
    def reply_seconds(self) -> float:
        """Length of the reply, its silences included."""
        return len(self.reply) / SAMPLE_RATE

    @property
    def reply_shown(self) -> str:
        """The words of the reply, or what there is in their place."""
        return self.reply_text or ("(its words were not told)" if len(self.reply) else "(none)")

    @property
    def refusals(self) -> list[str]:
        """What the server refused, a sentence each; one error may speak of many messages."""
        return [
            error.message
            + (f" ({error.hint})" if error.hint else "")
            + (f", {error.count} times" if error.count > 1 else "")
            for error in self.errors
        ]


class _Received(NamedTuple):
    """A message of the server, and when it came in."""

    message: str | bytes
    at_ns: int


class _Turn:
    """A turn while it happens: takes messages and marks, and knows when it is complete.

    Attributes:
        settled: The answer is complete.
        in_turn: The server answers one message after the other: a `ping` that was sent behind
            `end_stream` had its pong behind the reply.
    """

    def __init__(self, clock: Clock, *, stream: bool) -> None:
        self.result = ClientTurn()
        self.so_far = TurnSoFar()
        self.settled = False
        self.in_turn = False
        self._clock = clock
        self._stream = stream
        self._reply = ReplyReader(self.result.remark)
        self._failed = False
        self._last_ns = 0
        self._silence_s = 0.0
        self._server_marks: dict[Mark, int] = {}

    def mark(self, mark: Mark, at_ns: int | None = None) -> None:
        self.result.trace.mark(mark, self._clock.now_ns() if at_ns is None else at_ns)

    @property
    def progress(self) -> tuple[bool, float]:
        """Grows whenever the answer goes on; refusals and chatter are no progress."""
        return self.so_far.heard is not None, self.so_far.reply_s

    @property
    def looks_whole(self) -> bool:
        """Whether all has come that a server sends which was not asked to stream.

        An answer that failed has an error in the place of its transcript.
        """
        heard = self.so_far.heard is not None or self._failed
        return heard and (self._reply.is_whole or (self.in_turn and self._reply.has_begun))

    def take(self, received: _Received) -> None:
        """Take one message of the server."""
        if received.message == plain.PONG:
            self.in_turn = self.in_turn or self._reply.has_begun
            return
        if received.at_ns < self.result.trace.marks[Mark.END_STREAM_SENT]:
            self._take_early(received.message)
            return
        self._last_ns = received.at_ns
        message = read(received.message)
        if isinstance(message, bytes):
            self._take_audio(message, received.at_ns)
        else:
            self._take_text(message, received.at_ns, as_bytes=isinstance(received.message, bytes))
        if not self._stream and self.looks_whole:
            self._settle()

    def settle_without_done(self, why: str) -> bool:
        """Take the answer as complete; `why` says how that is known.

        Returns:
            Whether it is that of a server which does not stream.
        """
        whole = self._reply.is_whole
        offer = "it does not offer ?reply=stream" if whole else "the reply came in pieces, though"
        self.result.remark(f"{why}: {offer}")
        self._settle()
        return whole

    def _settle(self) -> None:
        self.mark(Mark.REPLY_RECEIVED, self._last_ns)
        self.settled = True

    def _take_early(self, raw: str | bytes) -> None:
        """What came before it was asked for: refusals of audio, or what nobody waits for."""
        name = "audio" if isinstance(raw, bytes) else f"the text {raw[:40]!r}"
        with suppress(ProtocolError):  # a greeting, perhaps
            message = read(raw)
            if isinstance(message, plain.Error):
                _note(self.so_far, message)
                self.result.errors.append(message)
                return
            name = name if isinstance(message, bytes) else repr(message.type)
        self.so_far.came[f"{name} before 'end_stream'"] += 1
        self.result.remark(f"{name} came before 'end_stream' was sent, and was left out")

    def _take_text(self, message: ServerText, at_ns: int, *, as_bytes: bool) -> None:
        if as_bytes:
            self.result.remark(f"{message.type!r} came as a binary message, where text is due")
        _note(self.so_far, message)
        match message:
            case plain.Transcript(text=heard):
                marks = self.result.trace.marks
                if self._reply.has_begun and Mark.TRANSCRIPT_RECEIVED not in marks:
                    self.result.remark("the reply came before the transcript")
                self.mark(Mark.TRANSCRIPT_RECEIVED, at_ns)
                self.result.transcript = heard
            case plain.Error() as error:
                self._failed = True
                self.result.errors.append(error)
            case ForeignDone() as done:
                self._take_done(done)
            case Unknown(type=kind):
                self.result.remark(f"a message of the unknown type {kind[:40]!r} came")

    def _take_audio(self, payload: bytes, at_ns: int) -> None:
        samples = self._reply.take(payload)
        if len(samples):
            self.mark(Mark.FIRST_AUDIO_RECEIVED, at_ns)
            self._look_for_sound(samples)
        self.so_far.reply_s += len(samples) / SAMPLE_RATE
        if self.so_far.reply_s > _LONGEST_REPLY_S:
            raise ClientError(f"the reply does not end; {self.so_far.received()}")

    def _look_for_sound(self, samples: Float32) -> None:
        """Mark when the first audible sample can play, playback starting with the first byte."""
        if Mark.FIRST_AUDIO_HEARD in self.result.trace.marks:
            return
        silence = leading_silence(samples, SAMPLE_RATE)
        self._silence_s += silence
        if silence < len(samples) / SAMPLE_RATE:
            first = self.result.trace.marks[Mark.FIRST_AUDIO_RECEIVED]
            self.mark(Mark.FIRST_AUDIO_HEARD, first + round(self._silence_s * 1e9))

    def _take_done(self, done: ForeignDone) -> None:
        self.result.reply_text = done.reply_text
        self.result.listening_cpu_ms = done.listening_cpu_ms
        self._server_marks = {
            mark: round(at_ns) for mark in SERVER_MARKS if (at_ns := done.marks.get(mark))
        }
        if self.so_far.heard is None and not self.result.errors:
            self.result.remark("no transcript came")
        if not self.so_far.reply_s and (done.reply_text or done.reply_samples):
            self.result.remark("'done' tells of a reply, and came before any of its audio")
        self._settle()

    def shares_clock(self, slack_ns: int = 0) -> bool:
        """Whether the server's marks lie inside of the turn, each at most `slack_ns` beside it.

        Clocks of two machines count from their starts, seconds to months apart.
        """
        marks, offset_ns = self.result.trace.marks, self.result.clock_offset_ns or 0
        first = marks[Mark.END_STREAM_SENT] - slack_ns + offset_ns
        last = marks[Mark.REPLY_RECEIVED] + slack_ns + offset_ns
        return all(first <= at_ns <= last for at_ns in self._server_marks.values())

    def estimate_offset(self, round_trip_s: float) -> None:
        """Take it that `end_stream` was on its way for half of a round trip.

        Where that puts the server's marks outside of the turn, they are left out.
        """
        received = self._server_marks.get(Mark.END_STREAM_RECEIVED)
        if received is not None:
            sent = self.result.trace.marks[Mark.END_STREAM_SENT]
            self.result.clock_offset_ns = received - sent - round(round_trip_s * 1e9 / 2)
        if not self.shares_clock(round(round_trip_s * 1e9)):
            self._server_marks.clear()
            self.result.clock_offset_ns = None
            self.result.remark("the server's marks do not fit into the turn, and were left out")

    def finish(self) -> ClientTurn:
        """The turn, with the server's marks on the client's clock."""
        self.result.trace.merge(self._server_marks, self.result.clock_offset_ns or 0)
        self.result.reply = self._reply.whole()
        return self.result


def _note(so_far: TurnSoFar, message: ServerText) -> None:
    match message:
        case plain.Transcript(text=text):
            so_far.hear(message.type, text)
        case plain.Error(code=code):
            so_far.refuse(str(code), message.message, message.count)
        case _:
            so_far.meet(message.type)


# -- the client --------------------------------------------------------------------------------


class VoiceClient:
    """A connection to a server that speaks the plain dialect.

    One turn at a time; `ping` may be called meanwhile.

    Attributes:
        stream: Replies are expected as they are made, with `done` behind them. It turns False
            once the server has shown that it does not offer that.
    """

    def __init__(
        self,
        socket: ClientConnection,
        *,
        stream: bool,
        deadlines: Deadlines | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Speak over `socket`; use `connect` instead of calling this."""
        self.stream = stream
        self._socket = socket
        self._deadlines = deadlines or Deadlines()
        self._clock = clock or Clock()
        self._messages: asyncio.Queue[_Received | None] = asyncio.Queue()
        self._pongs: deque[asyncio.Future[int | None] | None] = deque()
        self._end = ""
        self._under_way = False

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        url: str,
        *,
        stream: bool = True,
        deadlines: Deadlines | None = None,
        clock: Clock | None = None,
        **reach: Unpack[Reach],
    ) -> AsyncIterator[Self]:
        """Connect to `url`, such as ``ws://localhost:8765``.

        Args:
            url: The server's address; what its query asks for beside the reply stays.
            stream: Ask for the reply as it is synthesised. A server that does not offer that
                answers as it can.
            deadlines: How long to wait for what.
            clock: What the pace of speech goes by, and times are taken from.
            reach: Headers, certificates and such, as `labkit.client.dial.Reach` has them.

        Raises:
            ClientError: `url` is no address, or nobody answers there, not as a WebSocket, or with
                a refusal.
        """
        deadlines = deadlines or Deadlines()
        # No keepalive: a server that reads no faster than it works does not see pings in time.
        # Every wait has a deadline of its own instead.
        query = {"reply": "stream"} if stream else None
        connecting = connected(
            url, query=query, within_s=deadlines.connect_s, max_size=_MOST_REPLY_BYTES, **reach
        )
        streamed = stream or plain.wants_stream(url)  # an address may ask for it by itself
        async with connecting as socket:
            client = cls(socket, stream=streamed, deadlines=deadlines, clock=clock)
            receiving = asyncio.create_task(client._receive())
            try:
                yield client
            finally:
                receiving.cancel()
                await asyncio.gather(receiving, return_exceptions=True)

    @property
    def compresses(self) -> bool:
        """Whether client and server agreed to compress messages."""
        return bool(self._socket.protocol.extensions)

    @property
    def closed_with(self) -> int | None:
        """The close code, 1006 where the connection broke off; None while it is open."""
        return self._socket.close_code

    async def say(
        self,
        samples: Float32,
        *,
        chunk_ms: float = 40.0,
        end_of_speech: int | None = None,
        silence_s: float = 0.0,
        pace: float = 1.0,
        start_ns: int | None = None,
    ) -> ClientTurn:
        """Speak `samples` at the pace of speech, ask for the answer, and wait for all of it.

        Args:
            samples: Mono, 16 kHz.
            chunk_ms: Length of one message, in milliseconds.
            end_of_speech: Index of the last voiced sample, by annotation or by
                `labkit.audio.pcm.end_of_speech`. The chunk that holds it is the last one sent,
                filled with silence where the recording is over. Without it all of `samples` is
                sent, and its end counts as the end of speech.
            silence_s: Go on for so long behind the end of speech before asking, as a client does
                that finds the end by itself.
            pace: Times real time; 0 sends at once.
            start_ns: When the first sample is spoken, by the client's clock; by default now.

        Raises:
            ClientError: The connection was lost, or the next sign of the answer did not come in
                time; says what came until then. Or an earlier turn is under way, or was given up:
                its answer would be taken for that of this one.
            ProtocolError: The server's answer is not of this dialect.
            ValueError: `chunk_ms` is no length of a chunk.
        """
        chunk_samples(chunk_ms)  # what cannot be begun breaks no turn off
        if self._end:
            raise self._gone(TurnSoFar())
        if self._under_way:
            raise ClientError(
                "an earlier turn of this connection has not ended, and its answer may still come: "
                "one turn at a time, and a new connection after one that was given up"
            )
        self._under_way = True
        turn = _Turn(self._clock, stream=self.stream)
        await self._speak(turn, samples, chunk_ms, end_of_speech, silence_s, pace, start_ns)
        turn.mark(Mark.END_STREAM_SENT)  # before: the server may read it while send returns
        await self._send("end_stream", turn.so_far)
        turn.so_far.asked = "end_stream"
        if self.stream:
            # Whoever answers one message after the other shows by its pong that the reply is over,
            # be there a `done` or not. Others answer at once, which says nothing.
            self._pongs.append(None)
            await self._send("ping", turn.so_far)
        await self._take_answer(turn)
        self._under_way = False
        if not turn.shares_clock():
            turn.estimate_offset(await self._round_trip())
        return turn.finish()

    async def ping(self, within_s: float = math.inf) -> float:
        """Send `ping`, wait for `pong`; gives the round trip in seconds.

        Args:
            within_s: Longest wait, where that is less than an answer may take.

        Raises:
            ClientError: The connection was lost, or no `pong` came in time.
        """
        within_s, so_far = min(within_s, self._deadlines.answer_s), TurnSoFar(asked="ping")
        if self._end:
            raise self._gone(so_far)
        pong: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._pongs.append(pong)
        sent_ns = self._clock.now_ns()
        await self._send("ping", so_far)
        try:
            async with asyncio.timeout(within_s):
                answered_ns = await pong
        except TimeoutError:
            raise so_far.missing("no pong came", within_s) from None
        if answered_ns is None:
            raise self._gone(so_far)
        return (answered_ns - sent_ns) / 1e9

    async def _round_trip(self) -> float:
        """The fastest of several pings, in seconds; 0 where the server answers none."""
        trips = [0.0]
        with suppress(ClientError):
            trips = [await self.ping(_PING_S)]
            trips += [await self.ping() for _ in range(_PINGS - 1)]
        return min(trips)

    async def _speak(
        self,
        turn: _Turn,
        samples: Float32,
        chunk_ms: float,
        end_of_speech: int | None,
        silence_s: float,
        pace: float,
        start_ns: int | None,
    ) -> None:
        """Send each chunk when its last sample has been spoken, up to the end of speech."""
        size = chunk_samples(chunk_ms)
        end = len(samples)
        if end_of_speech is not None:
            end = end_of_speech + 1
            last = end + round(silence_s * SAMPLE_RATE)
            filled = -(-last // size) * size  # a microphone fills its last chunk, too
            samples = np.pad(samples[:filled], (0, max(0, filled - len(samples))))
        start_ns = self._clock.now_ns() if start_ns is None else start_ns
        turn.mark(Mark.STREAM_STARTED, start_ns)
        turn.mark(Mark.END_OF_SPEECH, start_ns + (spoken_ns(end, pace) if pace else 0))

        async def send(chunk: Float32) -> None:
            payload = encode_s16le(chunk)
            await self._send(payload, turn.so_far)
            turn.so_far.said_s += len(chunk) / SAMPLE_RATE
            turn.result.messages_sent += 1
            turn.result.bytes_sent += len(payload)

        await speak(
            samples, send, chunk_ms=chunk_ms, pace=pace, clock=self._clock, start_ns=start_ns
        )
        turn.mark(Mark.LAST_CHUNK_SENT)

    async def _send(self, message: str | bytes, so_far: TurnSoFar) -> None:
        """Send a message, unless the server reads nothing for too long."""
        within_s = self._deadlines.answer_s
        try:
            async with asyncio.timeout(within_s):
                await self._socket.send(message)
        except TimeoutError:
            raise so_far.missing("the server read no more", within_s) from None
        except ConnectionClosed as closed:
            self._end = why_closed(closed)
            raise self._gone(so_far) from closed

    async def _receive(self) -> None:
        """Note when each message came; pongs go to whoever pinged, the rest to the turn."""
        try:
            while True:
                received = _Received(await self._socket.recv(), self._clock.now_ns())
                if received.message == plain.PONG and self._pongs:
                    pong = self._pongs.popleft()
                    if pong is not None:
                        if not pong.done():
                            pong.set_result(received.at_ns)
                        continue
                self._messages.put_nowait(received)
        except ConnectionClosed as closed:
            self._end = why_closed(closed)  # whoever waits learns of it from the end marks below
        finally:
            self._messages.put_nowait(None)
            for pong in self._pongs:
                if pong is not None and not pong.done():
                    pong.set_result(None)  # no exception: whoever pinged may wait no longer

    async def _take_answer(self, turn: _Turn) -> None:
        """Wait for all of the answer; each sign that it goes on has the whole deadline."""
        loop, within_s = asyncio.get_running_loop(), self._deadlines.answer_s
        due, silences = loop.time() + within_s, 0
        while not turn.settled:
            quiet = turn.in_turn and turn.looks_whole
            try:
                received = await self._next(min(due, loop.time() + _QUIET_S) if quiet else due)
            except TimeoutError:
                silences += 1
                if quiet and silences == 1 and loop.time() < due:
                    # Where it was this process that stood still, `done` may have come and not been
                    # read yet, as timers go first: the second wait is one for the server.
                    continue
                if not turn.looks_whole:
                    raise turn.so_far.missing_answer(within_s) from None
                self._settle(turn, "the server sent no 'done' behind the reply")
                return
            if received is None:
                self._messages.put_nowait(None)
                if not turn.looks_whole:
                    raise self._gone(turn.so_far)
                self._settle(turn, f"no 'done' came behind the reply, but {self._end}")
                return
            before, silences = turn.progress, 0
            try:
                turn.take(received)
            except ProtocolError as wrong:
                so_far = f"{turn.so_far.sent()}; {turn.so_far.received()}"
                raise ProtocolError(wrong.code, f"{wrong}; {so_far}", wrong.hint) from None
            if turn.progress != before:
                due = loop.time() + within_s

    async def _next(self, until_s: float) -> _Received | None:
        """The next message, None once the connection is gone.

        Raises:
            TimeoutError: The loop's time is `until_s`, however much has come that is of no use.
        """
        if asyncio.get_running_loop().time() >= until_s:
            raise TimeoutError
        async with asyncio.timeout_at(until_s):
            return await self._messages.get()

    def _settle(self, turn: _Turn, why: str) -> None:
        """Take an answer without `done` as complete, and expect none where there is none."""
        self.stream = not turn.settle_without_done(why)

    def _gone(self, so_far: TurnSoFar) -> ClientError:
        """The error that says how the connection ended, and what had come until then."""
        while not self._messages.empty():
            last = self._messages.get_nowait()
            with suppress(ProtocolError):
                if last is not None and not isinstance(message := read(last.message), bytes):
                    _note(so_far, message)
        self._messages.put_nowait(None)
        return ClientError(f"{self._end}; {so_far.sent()}; {so_far.received()}")
