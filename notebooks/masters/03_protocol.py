# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 3. A protocol
#
# *About 30 minutes. Needs: this checkout, set up with `make lab`. No network, no GPU, no
# microphone.*

# %%
from labkit.course import begin, check

await begin(3)

# %% keep="messages"
import secrets
from typing import Annotated, Literal, assert_never

from pydantic import BaseModel, Field, TypeAdapter, ValidationError


class Format(BaseModel, extra="forbid", strict=True):
    """How the binary messages of one direction are laid out."""

    encoding: Literal["pcm_s16le", "mulaw", "alaw"] = "pcm_s16le"
    sample_rate: int = Field(RATE, ge=8_000, le=48_000)
    channels: Literal[1] = 1


class FromClient(BaseModel, extra="forbid", strict=True):
    id: str | None = Field(None, max_length=64)  # an error about this message repeats it


class SessionStart(FromClient):
    """The first message. Chapter 4 adds `resume` and `acknowledges` here."""

    type: Literal["session.start"]
    protocol: Literal["labkit.v1"] = "labkit.v1"
    input: Format = Format()
    output: Format = Format()


class AudioEnd(FromClient):
    type: Literal["audio.end"]


class Ping(FromClient):
    type: Literal["ping"]


class SessionEnd(FromClient):
    type: Literal["session.end"]


class Position(BaseModel):
    """A place in the client's stream; chapter 4 counts."""

    messages: int = 0
    samples: int = 0


class SessionStarted(BaseModel):
    type: Literal["session.started"] = "session.started"
    protocol: str
    session: str
    token: str
    resumed: bool = False
    input: Format
    output: Format
    received: Position = Position()


class TranscriptFinal(BaseModel):
    type: Literal["transcript.final"] = "transcript.final"
    seq: int
    turn: int
    text: str


class ResponseDone(BaseModel):
    type: Literal["response.done"] = "response.done"
    seq: int
    turn: int
    status: Literal["completed", "nothing_heard"]
    text: str
    samples: int


class Pong(BaseModel):
    type: Literal["pong"] = "pong"
    id: str | None


class Cause(BaseModel):
    """The message that an error is about: "audio" if binary, "text" if it could not be read."""

    type: str
    id: str | None = None


class Error(BaseModel):
    type: Literal["error"] = "error"
    code: str  # for programs
    message: str  # for people: what is wrong
    hint: str  # for people: what to send instead
    cause: Cause


class SessionEnded(BaseModel):
    type: Literal["session.ended"] = "session.ended"
    reason: str


ClientMessage = SessionStart | AudioEnd | Ping | SessionEnd
ServerMessage = SessionStarted | TranscriptFinal | ResponseDone | Pong | Error | SessionEnded


# %% keep="decode" exercise="ch3.decode"
CLIENT = TypeAdapter(Annotated[ClientMessage, Field(discriminator="type")])


def decode(text):
    """One text message of the client → its object; where it is none, the Error to send."""
    raise NotImplementedError("CLIENT.validate_json(text), or an Error for what is wrong with it")


# %% keep="decode" solution="ch3.decode"
CLIENT = TypeAdapter(Annotated[ClientMessage, Field(discriminator="type")])


def decode(text):
    """One text message of the client → its object; where it is none, the Error to send."""
    try:
        return CLIENT.validate_json(text)
    except ValidationError as error:
        wrong = error.errors()[0]
    cause = Cause(type="text")
    match wrong["type"]:
        case "json_invalid" | "dict_type":
            code, hint = "invalid_json", "text is a JSON object with a type; audio is binary"
        case "union_tag_invalid" | "union_tag_not_found":
            code, hint = "unknown_type", "session.start, audio.end, ping and session.end are known"
        case _:
            code, hint = "invalid_field", "each field has a type and a range"
    field = ".".join(str(part) for part in wrong["loc"])
    return Error(code=code, message=f"{field} {wrong['msg']}".strip(), hint=hint, cause=cause)


# %% keep="formats"
import io

import soundfile
import soxr


def law(name):
    """What each of the 256 bytes of a law of G.711 stands for."""
    every = io.BytesIO(bytes(range(256)))
    raw = {"format": "RAW", "samplerate": 8_000, "channels": 1, "subtype": name}
    return soundfile.read(every, dtype="float32", **raw)[0]


LAWS = {"mulaw": law("ULAW"), "alaw": law("ALAW")}


def decoded(data, encoding):
    """Bytes of an encoding → float32 samples."""
    return LAWS[encoding][np.frombuffer(data, "u1")] if encoding in LAWS else from_wire(data)


def encoded(samples, encoding):
    """Float32 samples → bytes of an encoding; under a law, the nearest that it has."""
    if encoding not in LAWS:
        return to_wire(samples)
    order = np.argsort(LAWS[encoding])
    levels = LAWS[encoding][order]
    nearest = np.searchsorted((levels[1:] + levels[:-1]) / 2, samples)
    return order[nearest].astype("u1").tobytes()


# %% keep="resampling" exercise="ch3.resampling"
class Resampler:
    """Samples at one rate → samples at another: one stream, in chunks of any length."""

    def __init__(self, source, target):
        raise NotImplementedError("begin a soxr.ResampleStream(source, target, 1, dtype='float32')")

    def feed(self, samples):
        """The next samples; gives those that are ready."""
        raise NotImplementedError("give what resample_chunk gives")

    def end(self):
        """The stream is over; gives what is left, and the next stream may begin."""
        raise NotImplementedError("resample_chunk with no samples and last=True; then clear()")


# %% keep="resampling" solution="ch3.resampling"
class Resampler:
    """Samples at one rate → samples at another: one stream, in chunks of any length."""

    def __init__(self, source, target):
        self.stream = soxr.ResampleStream(source, target, 1, dtype="float32")

    def feed(self, samples):
        """The next samples; gives those that are ready."""
        return self.stream.resample_chunk(samples)

    def end(self):
        """The stream is over; gives what is left, and the next stream may begin."""
        rest = self.stream.resample_chunk(np.zeros(0, np.float32), last=True)
        self.stream.clear()
        return rest


# %% keep="dialects"
class Plain(SessionState):
    """One caller who speaks the plain dialect: two words, one format."""

    async def send_done(self, text, samples):
        """The turn is over."""
        await self.send_json({"type": "done", "reply_text": text, "reply_samples": samples})

    async def receive(self, message):
        """One message, of whatever kind."""
        if isinstance(message, bytes):
            if (refused := take(self.buffer, message)) is not None:
                await self.send_json(refused)
        elif message == "ping":
            await self.send("pong")
        elif message == "end_stream":
            await answer(self)


class V1(SessionState):
    """One caller who speaks labkit.v1.

    Resume, in chapter 4: all of this outlives a connection, and only `socket` is another one
    afterwards. What is said of turns goes through `tell_numbered` and `send_audio`: there the
    replay of what was sent attaches. What comes is counted where `receive` begins.
    """

    def __init__(self, socket):
        super().__init__(socket)
        self.id, self.token = secrets.token_hex(8), secrets.token_urlsafe(24)
        self.start = None  # the client's, once it came
        self.seq = self.turn = self.samples = 0

    def agree(self, start):
        """Use the formats that the client asks for."""
        self.start = start
        self.incoming = Resampler(start.input.sample_rate, RATE)
        self.outgoing = Resampler(RATE, start.output.sample_rate)

    async def tell(self, message: ServerMessage):
        """Send a message."""
        await self.send(message.model_dump_json(exclude_none=True))

    async def refuse(self, code, message, hint, cause):
        """Say what was refused, and why; the session goes on."""
        await self.tell(Error(code=code, message=message, hint=hint, cause=cause))

    async def tell_numbered(self, kind, **fields):
        """Send a message about a turn, with the next number."""
        self.seq += 1
        await self.tell(kind(seq=self.seq, turn=self.turn, **fields))

    async def send_transcript(self, text):
        """Tell the caller what was heard: a turn begins."""
        self.turn, self.samples = self.turn + 1, 0
        await self.tell_numbered(TranscriptFinal, text=text)

    async def send_audio(self, samples):
        """Send a piece of the reply, in the caller's format."""
        await self.send_ready(self.outgoing.feed(samples))

    async def send_ready(self, samples):
        if len(samples):
            self.samples += len(samples)
            await self.send(encoded(samples, self.start.output.encoding))

    async def send_done(self, text, samples):
        """The turn is over: send the last samples, and say so."""
        await self.send_ready(self.outgoing.end())
        status = "completed" if text else "nothing_heard"
        await self.tell_numbered(ResponseDone, status=status, text=text, samples=self.samples)

    async def receive(self, message):
        """One message, of whatever kind."""
        if isinstance(message, bytes):
            await hear(self, message)
        elif isinstance(told := decode(message), Error):
            await self.tell(told)
        else:
            await obey(self, told)


# %% keep="hear" exercise="ch3.hear"
async def hear(session, data):
    """A binary message: audio in the caller's format, or something to refuse."""
    raise NotImplementedError("refuse what is no audio; decode, resample and take the rest")


# %% keep="hear" solution="ch3.hear"
async def hear(session, data):
    """A binary message: audio in the caller's format, or something to refuse."""
    cause = Cause(type="audio")
    if session.start is None:
        return await session.refuse("not_started", "no session", "send session.start", cause)
    if data.startswith(b"{") and data.rstrip().endswith(b"}") and b'"type"' in data:
        hint = "send control as text; binary messages are audio"
        return await session.refuse("wrong_frame", "JSON in a binary message", hint, cause)
    encoding = session.start.input.encoding
    if encoding == "pcm_s16le" and len(data) % 2:
        told = f"{len(data)} bytes are no whole number of samples"
        return await session.refuse("odd_length", told, "send two bytes for each sample", cause)
    samples = session.incoming.feed(decoded(data, encoding))
    if (full := take(session.buffer, to_wire(samples))) is not None:
        await session.refuse(full["code"], full["message"], "send audio.end", cause)


# %% keep="obey" exercise="ch3.obey"
async def obey(session, message: ClientMessage):
    """Do what a text message asks for."""
    raise NotImplementedError("match message: a case for each type, and assert_never at the end")


# %% keep="obey" solution="ch3.obey"
async def obey(session, message: ClientMessage):
    """Do what a text message asks for. Chapter 4: a `resume` in SessionStart is looked at here."""
    cause = Cause(type=message.type, id=message.id)
    match message:
        case Ping(id=name):
            await session.tell(Pong(id=name))
        case SessionStart() if session.start is None:
            session.agree(message)
            await session.tell(SessionStarted(
                protocol=message.protocol, session=session.id, token=session.token,
                input=message.input, output=message.output,
            ))  # fmt: skip
        case SessionStart():
            hint = "open another connection for another session"
            await session.refuse("already_started", "a session runs", hint, cause)
        case AudioEnd() | SessionEnd() if session.start is None:
            await session.refuse("not_started", "no session", "send session.start first", cause)
        case AudioEnd():
            take(session.buffer, to_wire(session.incoming.end()))
            await answer(session)
        case SessionEnd():
            await session.tell(SessionEnded(reason="the client ended the session"))
            await session.socket.close()
        case never:
            assert_never(never)


# %% keep="life"
from contextlib import contextmanager


@contextmanager
def session_of(session):
    """Keep one caller's session for as long as they are here."""
    sessions.add(session)
    try:
        yield session
    except ConnectionClosed:
        pass  # callers go away without a word, and that is no fault
    finally:
        session.is_active = False
        sessions.discard(session)


# %% keep="turn"
async def answer(session):
    """One turn, in the words of the session's dialect."""
    audio = bytes(session.buffer)
    session.buffer.clear()
    words = await off_loop(models.hear, from_wire(audio))
    await session.send_transcript(words)
    sentences = []
    if words:
        chat = [*session.history, {"role": "user", "content": words}]
        sentences = await off_loop(models.think, chat)
        remember(session.history, words, " ".join(sentences))
    samples = await say(session, sentences)
    await session.send_done(" ".join(sentences), samples)


async def handle(socket):
    """Serve one caller, until they leave. Chapter 4: a V1 is kept after that, for a resume."""
    dialect = V1 if socket.subprotocol == "labkit.v1" else Plain
    with session_of(dialect(socket)) as session:
        async for message in socket:
            await session.receive(message)


# %% keep="main"
def choose(socket, offered):
    """The dialect for a new connection: labkit.v1 where the client offers it, else the plain one."""
    return "labkit.v1" if "labkit.v1" in offered else None


async def main(port):
    """Serve until the program is ended."""
    options = {"select_subprotocol": choose, "process_request": pages}
    async with serve(handle, "127.0.0.1", port, **options) as server:
        port = server.sockets[0].getsockname()[1]
        print(f"your server is ready at ws://127.0.0.1:{port}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(os.environ.get("PORT", "8766"))))
