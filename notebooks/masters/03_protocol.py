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
# *About 45 minutes. Needs: this checkout, set up with `make lab`. No network, no GPU, no
# microphone.*
#
# ## What you will be able to do
#
# - **read** control messages as one closed union, so that nothing is left without an answer;
# - **agree** on formats with callers at 48 kHz and callers on a telephone;
# - **resample** a stream without a click at each chunk, and **show** the clicks of the other way;
# - **refuse** a message by name, with a hint, and keep the conversation;
# - **say** what a client and a server of different versions owe each other.

# %%
from labkit import AudioFormat, play, recording, show, start_mine, stop_servers
from labkit.course import begin, check, hint, measured, predict, quiz, solution, wire

await begin(3)

# %% [markdown]
# ## What broke last time
#
# Your server takes 16-bit samples, 16,000 a second, and says so nowhere. A browser's microphone gives
# 48,000. A telephone gives 8,000, with one byte each.
#
# **Predict first.** A caller sends good speech at 48 kHz to your server of chapter 2. How many of its
# words come out right, in percent?

# %% guess="50"
predict("ch3.words_percent", ...)

# %%
server = await start_mine()
said = recording("kal-03")
at_48_khz = wire.as_bytes(wire.samples_of(said), AudioFormat(sample_rate=48_000))
heard = await wire.ask_plain(server, at_48_khz)
print(f"said:  {said.text}\nheard: {heard or '(nothing)'}")
play(wire.samples_of(said), f"What the caller said: {said.text}")
play(
    from_wire(at_48_khz), "What your server heard: the same samples, played three times too slowly"
)
measured("ch3.words_percent", wire.percent_heard(said, heard))

# %% [markdown]
# Listen to the second player. No byte was lost, and nothing raised: the same numbers mean something
# else at another rate. Neither side could notice, since neither ever said what it speaks. That is what a
# protocol is for: **both sides say what they mean before they rely on it**.
#
# ## Messages: a closed union
#
# From here on your server speaks a second dialect, a part of labkit's own, to clients that ask for the
# WebSocket *subprotocol* `labkit.v1`. Binary messages stay audio. Text messages are JSON objects, and
# their `type` says which:
#
# | from the client | from the server |
# |---|---|
# | `session.start` with `input` and `output` | `session.started` with the same, `session`, `token` |
# | binary: audio | |
# | `audio.end` | `transcript.final`, binary audio, `response.done` |
# | `ping` | `pong`, with the `id` of its `ping` |
# | `session.end` | `session.ended`; then it closes the connection |
# | `response.ack`, and `resume` in `session.start` | not yet: they are for chapter 4 |
# | anything else | `error` with `code`, `message`, `hint`, `cause` |
#
# What you tell is yours to get right; what you are told may be anything. So your server sends plain dicts,
# and reads into classes. All of them are a *union*: a message is one of these, and nothing else. It is
# *closed*, so a `match` over it can be complete, and `assert_never` says when it is not. pydantic reads the
# JSON and checks every field: the type, the range, and that there is no field that nobody knows.
#
# An error says by its `code` what was wrong. Your server needs eight, and the checks ask for them by name:
#
# | `code` | what was wrong |
# |---|---|
# | `invalid_json` | a text that is no JSON, or no JSON object |
# | `unknown_type` | an object whose `type` no message has, or that has none |
# | `invalid_field` | one field of a message: its name, its type, its range |
# | `not_started` | audio, `audio.end` or `session.end` before `session.start` (a `ping` is answered at any time) |
# | `already_started` | a second `session.start` |
# | `wrong_frame` | a message as JSON, but in a binary frame |
# | `odd_length` | half a sample |
# | `buffer_full` | an utterance longer than `LONGEST_S`, as in chapter 1 |
#
# Read this cell, it is given. Where does it say that 200 kHz is no sample rate?

# %% keep="messages"
import secrets
from typing import Annotated, Literal, assert_never

from pydantic import BaseModel, Field, TypeAdapter, ValidationError


class FromClient(BaseModel, extra="forbid", strict=True):
    """What comes from outside: no field may be of another type, or one that nobody knows."""


class Format(FromClient):
    """How the binary messages of one direction are laid out."""

    encoding: Literal["pcm_s16le", "mulaw", "alaw"] = "pcm_s16le"
    sample_rate: int = Field(RATE, ge=8_000, le=48_000)
    channels: Literal[1] = 1


class Position(FromClient):
    """How far somebody is in a stream: messages, and samples of audio."""

    messages: int = 0
    samples: int = 0


class Resume(FromClient):
    """The session that a client comes back to, and how much of the replies it has."""

    session: str
    token: str
    received: Position


class Message(FromClient):
    """Any message: an error about it repeats its id."""

    id: str | None = Field(None, max_length=64)


class Signal(Message):
    """A message that is its type alone."""

    type: Literal["audio.end", "ping", "session.end"]


class SessionStart(Message):
    type: Literal["session.start"]
    protocol: Literal["labkit.v1"] = "labkit.v1"
    input: Format = Format()
    output: Format = Format()
    resume: Resume | None = None
    acknowledges: bool = False


class ResponseAck(Message):
    type: Literal["response.ack"]
    received: Position


CLIENT = TypeAdapter(Annotated[SessionStart | ResponseAck | Signal, Field(discriminator="type")])


class Refused(Exception):
    """Why something is not taken: a code for programs; what is wrong and a hint, for people."""


# %% [markdown] card="ch3.decode"
# The card of the exercise.


# %% keep="decode" exercise="ch3.decode"
def decode(text):
    """One text message of the client → its object; raises Refused where it is none."""
    raise NotImplementedError("CLIENT.validate_json(text), or raise Refused for what is wrong")


# %% keep="decode" solution="ch3.decode"
def decode(text):
    """One text message of the client → its object; raises Refused where it is none."""
    try:
        return CLIENT.validate_json(text)
    except ValidationError as error:
        wrong = error.errors()[0]
    match wrong["type"]:
        case "json_invalid" | "dict_type":
            raise Refused("invalid_json", wrong["msg"], "text is a JSON object; audio is binary")
        case "union_tag_invalid" | "union_tag_not_found":
            raise Refused("unknown_type", wrong["msg"], "give a type that this server knows")
    field = ".".join(str(part) for part in wrong["loc"])
    raise Refused("invalid_field", f"{field}: {wrong['msg']}", "each field has a type and a range")


# %% [markdown]
# Try it by hand. Each line should say what is wrong in words that would help *you*, with only the error
# at hand.

# %%
for text in (
    '{"type": "ping", "id": "a-1"}',
    '{"type": "ping"',
    '{"type": "pingg"}',
    '{"type": "session.start", "input": {"sample_rate": 200000}}',
    '{"type": "session.start", "input": {"samplerate": 48000}}',
):
    try:
        told = decode(text)
    except Refused as refused:
        told = refused
    print(f"{text}\n  → {told!r}")

# %% [markdown]
# The last line is the important one. A server that passes over `samplerate` takes the default, and you have
# just heard how that sounds. So unknown fields are refused **from the client**, who asks for something.
# From the server it is the other way round: a client passes over what it does not know, so that a newer
# server can tell more.
#
# ## Formats: a byte that is a sample
#
# G.711 is how telephones have written sound since 1972: 8,000 samples a second, one byte each. The steps
# between its 256 values are fine near zero and wide far from it, because quiet speech needs the fine
# ones. There are two laws: µ-law in North America and Japan, A-law elsewhere (ITU-T G.711). soundfile knows
# both, as it knows the files that hold them.

# %% keep="formats"
import io

import soundfile
import soxr

LAWS = {"mulaw": "ULAW", "alaw": "ALAW"}  # as soundfile calls them


def decoded(data, encoding):
    """Bytes of an encoding → float32 samples."""
    if encoding not in LAWS:
        return from_wire(data)
    raw = {"format": "RAW", "subtype": LAWS[encoding], "samplerate": 8_000, "channels": 1}
    return soundfile.read(io.BytesIO(data), dtype="float32", **raw)[0]


def encoded(samples, encoding):
    """Float32 samples → bytes of an encoding."""
    if encoding not in LAWS:
        return to_wire(samples)
    written = io.BytesIO()
    # Resampling may have gone beyond 1, for which a law has no byte.
    soundfile.write(written, np.clip(samples, -1, 1), 8_000, LAWS[encoding], format="RAW")
    return written.getvalue()


# %%
laws = {law: decoded(bytes(range(256)), law) for law in LAWS}
show(
    wire.plot_laws(laws).figure,
    alt="What each of the 256 bytes stands for: both laws rise slowly around zero and steeply at "
    "both ends, where 8-bit integers rise evenly.",
)
fine = np.abs(laws["mulaw"][laws["mulaw"] != 0]).min()
print(f"The finest step of µ-law is {fine * 32768:.0f} of 32768, of 8-bit integers 256.")

# %% [markdown]
# The curves lie close together, and still the two are not the same. This sends µ-law, and reads it as
# A-law. Listen to the quiet parts.

# %%
phone = wire.as_bytes(wire.samples_of(said), AudioFormat("mulaw", 8_000))
play(decoded(phone, "mulaw"), f"µ-law, read as µ-law: {said.text}", rate=8_000)
play(decoded(phone, "alaw"), "the same bytes, read as A-law", rate=8_000)

# %% [markdown]
# ## Resampling: the seams
#
# Your models want 16 kHz, so audio at 48 kHz has to be resampled, and the reply back. A filter does that.
# For each sample that it gives, it looks at the samples around it. What does it look at, where a chunk
# begins?
#
# **Predict first.** A reply is resampled in chunks of 20 ms, each by itself. How far below the speech lie
# the faults that this makes, in dB? (20 dB: a tenth as loud. 60 dB: a thousandth.)

# %% guess="60"
predict("ch3.below_db", ...)

# %%
words = "The kitchen light is at forty five percent."
speech = models.speak(words)
chunk = RATE // 50  # 20 ms
chunks = [speech[at : at + chunk] for at in range(0, len(speech), chunk)]
whole = soxr.resample(speech, RATE, 48_000)
apart = np.concatenate([soxr.resample(one, RATE, 48_000) for one in chunks])
play(whole, f"resampled in one piece: {words}", rate=48_000)
play(apart, "resampled chunk by chunk", rate=48_000)
play((apart - whole) * 5, "what differs, five times as loud", rate=48_000)
show(
    wire.plot_differences(
        {"chunk by chunk": apart}, whole, start_s=0.6, seconds=0.12, rate=48_000
    ).figure,
    alt="The difference is zero inside of each chunk, with a spike wherever one chunk ends and the "
    "next begins, every 20 ms.",
)
off = (apart - whole) ** 2
edge = np.abs((np.arange(len(off)) + 480) % 960 - 480) < 96  # within 2 ms of an edge
print(f"{off[edge].sum() / off.sum():.0%} of the difference lies within 2 ms of a chunk's edge.")
measured("ch3.below_db", wire.below_db(apart, whole))

# %% [markdown]
# Look at where the spikes are: 20 ms apart. Fifty faults a second are a buzz; you hear it best in the
# third player. At both ends of a chunk the filter takes silence for what it cannot see.
#
# A *stream* keeps the last samples of one chunk for the first of the next.

# %% [markdown] card="ch3.resampling"
# The card of the exercise.


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


# %% [markdown]
# Now the same chunks through yours. The dashed line should stay at zero.

# %%
stream = Resampler(RATE, 48_000)
joined = np.concatenate([*(stream.feed(one) for one in chunks), stream.end()])
show(
    wire.plot_differences(
        {"chunk by chunk": apart, "your stream": joined}, whole,
        start_s=0.6, seconds=0.12, rate=48_000,
    ).figure,
    alt="As before; beside it the line of your stream, whose largest difference is "
    f"{np.abs(joined[:len(whole)] - whole[:len(joined)]).max():.6f}.",
)  # fmt: skip
play(joined, f"your stream: {words}", rate=48_000)
print(
    f"Chunk by chunk, the faults lie {wire.below_db(apart, whole):.0f} dB below the speech, "
    f"of your stream {wire.below_db(joined, whole):.0f} dB. The finest step of 16 bits: 90 dB."
)

# %% [markdown]
# The price is a delay: of the first chunk a little stays in the filter, and comes with the next one. That is
# why `end` is there.
#
# ## Two dialects, one session
#
# Both dialects do the same turn. They differ in how they read messages and in how they tell what happens.
# So each is a kind of `SessionState`: it has `receive`, and its own `send_transcript`, `send_audio` and
# `send_done`. This is the plain one, as you know it.


# %% keep="plain"
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
            audio = bytes(self.buffer)
            self.buffer.clear()
            await answer(self, audio)


# %% [markdown]
# And this is the other. What is wrong with a message is found in three places, `decode`, and `hear` and `obey`
# below. Each raises `Refused`, and `receive` alone tells the client, since it knows which message it was. Read on:
# where is the reply resampled, and where does a message get its number?


# %% keep="v1"
class V1(SessionState):
    """One caller who speaks labkit.v1."""

    def __init__(self, socket):
        super().__init__(socket)
        self.id, self.token = secrets.token_hex(8), secrets.token_urlsafe(24)
        self.start = None  # the client's session.start, once it came
        self.seq = self.turn = self.samples = 0

    async def receive(self, message):
        """One message; where it is refused, say why, and which it was, and go on."""
        cause = {"type": "audio" if isinstance(message, bytes) else "text"}
        try:
            if isinstance(message, bytes):
                await hear(self, message)
            else:
                message = decode(message)
                cause = {"type": message.type, "id": message.id}
                await obey(self, message)
        except Refused as refused:
            code, why, hint = refused.args
            error = {"type": "error", "code": code, "message": why, "hint": hint, "cause": cause}
            await self.send_json(error)

    async def begin(self, start):
        """A session, in the formats that the client asks for."""
        if start.resume is not None:
            raise Refused("session_unknown", "no session lasts here", "start without resume")
        self.start = start
        self.incoming = Resampler(start.input.sample_rate, RATE)
        self.outgoing = Resampler(RATE, start.output.sample_rate)
        await self.send_json({
            "type": "session.started", "protocol": "labkit.v1",
            "session": self.id, "token": self.token,
            "resumed": False, "received": {"messages": 0, "samples": 0},
            "input": start.input.model_dump(), "output": start.output.model_dump(),
        })  # fmt: skip

    def listen(self, samples):
        """Take audio at the caller's rate."""
        if (full := take(self.buffer, to_wire(self.incoming.feed(samples)))) is not None:
            raise Refused(full["code"], full["message"], "send audio.end")

    async def end_utterance(self):
        """Answer what was said."""
        take(self.buffer, to_wire(self.incoming.end()))
        audio = bytes(self.buffer)
        self.buffer.clear()
        await answer(self, audio)

    def acknowledge(self, received):
        """The client has so much of the replies. Nothing is kept here that could be let go of."""

    async def end(self):
        """The client leaves."""
        await self.send_json({"type": "session.ended", "reason": "the client ended it"})
        await self.socket.close()

    async def tell_numbered(self, kind, **fields):
        """Send a message about a turn, with the next number."""
        self.seq += 1
        await self.send_json({"type": kind, "seq": self.seq, "turn": self.turn, **fields})

    async def send_transcript(self, text):
        """Tell the caller what was heard: a turn begins."""
        self.turn, self.samples = self.turn + 1, 0
        await self.tell_numbered("transcript.final", text=text)

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
        await self.tell_numbered("response.done", status=status, text=text, samples=self.samples)


# %% [markdown] card="ch3.hear"
# The card of the exercise.


# %% keep="hear" exercise="ch3.hear"
async def hear(session, data):
    """A binary message: audio in the caller's format, or something to refuse."""
    raise NotImplementedError("refuse what is no audio; decode the rest for session.listen")


# %% keep="hear" solution="ch3.hear"
async def hear(session, data):
    """A binary message: audio in the caller's format, or something to refuse."""
    if session.start is None:
        raise Refused("not_started", "no session runs yet", "send session.start first")
    if data.startswith(b"{") and data.rstrip().endswith(b"}") and b'"type"' in data:
        raise Refused("wrong_frame", "JSON in a binary message", "send control as text")
    encoding = session.start.input.encoding
    if encoding == "pcm_s16le" and len(data) % 2:
        raise Refused("odd_length", f"{len(data)} bytes are no whole samples", "send two for each")
    session.listen(decoded(data, encoding))


# %% [markdown] card="ch3.obey"
# The card of the exercise.


# %% keep="obey" exercise="ch3.obey"
async def obey(session, message):
    """Do what a text message asks for."""
    raise NotImplementedError("match message.type: a case for each, and assert_never at the end")


# %% keep="obey" solution="ch3.obey"
async def obey(session, message):
    """Do what a text message asks for."""
    match message.type:
        case "ping":
            await session.send_json({"type": "pong", "id": message.id})
        case "session.start" if session.start is None:
            await session.begin(message)
        case "session.start":
            raise Refused("already_started", "a session runs", "open another connection")
        case _ if session.start is None:
            raise Refused("not_started", "no session runs yet", "send session.start first")
        case "audio.end":
            await session.end_utterance()
        case "response.ack":
            session.acknowledge(message.received)
        case "session.end":
            await session.end()
        case never:
            assert_never(never)


# %% [markdown]
# The rest is given. `session_of` takes a session of either kind now; `answer` tells a turn without knowing
# whom it tells; `choose` picks the subprotocol while the WebSocket opens.

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
async def answer(session, audio):
    """One turn, in the words of the session's dialect."""
    words = await off_loop(models.hear, from_wire(audio))
    await session.send_transcript(words)
    sentences = []
    if words:
        chat = [*session.history, {"role": "user", "content": words}]
        sentences = await off_loop(models.think, chat)
        remember(session.history, words, " ".join(sentences))
    samples = await say_reply(session, sentences)
    await session.send_done(" ".join(sentences), samples)


async def handle(socket):
    """Serve one caller, until they leave."""
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

# %% [markdown]
# ## Check it
#
# The clients of these checks speak 48 kHz, 44.1 kHz, µ-law and A-law; the formats are drawn anew each time.

# %%
await check("ch3", handle)

# %% [markdown]
# And what was kept, in a process of its own, with the checks of chapter 1 once more: has a new dialect broken
# the old one?

# %%
await check("ch3", fresh=True)

# %%
await check("ch1", handle)

# %% [markdown]
# ## Break it
#
# Put the chunk-by-chunk way back for a moment. Which line of the check notices: the one about words, or the
# one about clicks?


# %%
class Apart:
    def __init__(self, source, target):
        self.rates = source, target

    def feed(self, samples):
        return soxr.resample(samples, *self.rates)

    def end(self):
        return np.zeros(0, np.float32)


Resampler, mine = Apart, Resampler
broken = await check("ch3.formats", handle, strict=False, record=False)
Resampler = mine
broken

# %% [markdown]
# The recogniser understood every word: these models forgive what your ear does not. A check by transcript
# alone would have passed this server.
#
# ## A refusal, from the other side
#
# This is a client that makes four mistakes and still gets its answer. Each error says what to do (`hint`) and
# which message it is about (`cause`, with the `id` that the client gave it). That matters when a client does
# not wait: the error may come ten messages later.

# %%
from websockets.asyncio.client import connect

server = await start_mine()
async with connect(server.url, subprotocols=["labkit.v1"]) as socket:
    for message in (
        '{"type": "audio.end", "id": "too-early"}',
        '{"type": "session.start", "input": {"sample_rate": 96000}}',
        '{"type": "session.start"}',
        '{"type": "session.start", "id": "twice"}',
        b'{"type": "audio.end"}',
        '{"type": "ping", "id": "still-there"}',
    ):
        await socket.send(message)
        print(f"→ {message}\n← {await socket.recv()}\n")

# %% [markdown]
# ## Measure it
#
# What does each format cost, and what does it keep? Four recordings, over your server.

# %%
server = await start_mine()
said = [recording(name) for name in ("ked-01", "slt-03", "kal-03", "slt-deep-03")]
forms = [
    AudioFormat(sample_rate=48_000), AudioFormat(),
    AudioFormat("mulaw", 8_000), AudioFormat("alaw", 8_000),
]  # fmt: skip
found = await wire.measure_formats(server, said, forms)
show(
    wire.plot_understood(found).figure,
    alt="For each format two bars: kilobytes a second, and percent of words understood.",
)
print("format                      kB a second  words understood")
for one in found:
    rate = one.form.bytes_per_second / 1000
    print(f"{one.form!s:27} {rate:11.0f}  {one.percent:15.0f}%")
wide, usual, phone = found[:3]
print(
    f"48 kHz sends {wide.form.bytes_per_second / usual.form.bytes_per_second:.0f} times the bytes "
    f"of 16 kHz, and {wide.percent - usual.percent:+.0f} percentage points are understood; "
    f"µ-law sends a quarter, and it is {phone.percent - usual.percent:+.0f}."
)

# %% [markdown]
# The recogniser works at 16 kHz, so what 48 kHz has above 8 kHz is thrown away. A telephone has nothing
# above 4 kHz, where *s* and *f* are told apart; bright voices lose most.
#
# ## Liveness: who is still there?
#
# A phone in a tunnel closes nothing. TCP says nothing while nothing is sent, so a server would keep its
# session for ever. The library sends WebSocket pings of its own (every 20 s; they are no messages, so your
# code never sees them) and closes where no answer comes within 20 s. With half a second for both:

# %%
import time

quick = {"ping_interval": 0.5, "ping_timeout": 0.5, "close_timeout": 0.1}
took = {}
async with serve(handle, "127.0.0.1", 0, select_subprotocol=choose, **quick) as watchful:
    address = f"ws://127.0.0.1:{watchful.sockets[0].getsockname()[1]}"
    for how in ("closes", "breaks off", "falls silent"):
        client = await connect(address, subprotocols=["labkit.v1"], ping_interval=None)
        while not sessions:
            await asyncio.sleep(0.001)
        left = time.perf_counter()
        if how == "closes":
            await client.close()
        elif how == "breaks off":
            client.transport.abort()  # the system tells the server
        else:
            client.transport.pause_reading()  # nobody tells it
        while sessions:
            await asyncio.sleep(0.001)
        took[how] = time.perf_counter() - left
        client.transport.abort()
for how, seconds in took.items():
    print(f"a client that {how:12} is let go of after {seconds * 1000:5.0f} ms")

# %% [markdown]
# The third needs both times: one until the next ping, one until it is overdue. So what is `ping` in JSON for?
# It goes the whole way through your handler. A server whose loop is free and whose handler hangs answers
# WebSocket pings, and no `ping`.
#
# ## Versions
#
# | what changes | who has to do what |
# |---|---|
# | the server tells one field more | nobody: clients pass over it |
# | the client may ask for one thing more | the client looks for the server's answer; an old server refuses it, by name |
# | a field changes its meaning | a new name: `labkit.v2`, offered beside `labkit.v1` |
#
# The client offers what it speaks, best first; the server chooses one, or none. That happens while the
# connection opens, before anything can be misunderstood. `protocol` in `session.start` says it once more,
# because a proxy may agree to a subprotocol that its server never chose.
#
# ## To take away
#
# | question | answer |
# |---|---|
# | what is in this message? | its `type`, in a closed union; every case has its code |
# | is it control or audio? | the frame says so: text or binary |
# | what do these bytes mean? | what `session.started` has agreed to |
# | how is a stream resampled? | as a stream: the filter remembers |
# | what if it is wrong? | `code` for programs, `message` and `hint` for people, `cause` for which; the session goes on |
# | is anybody there? | pings of the library for the connection, `ping` for the handler |
#
# ## Four questions

# %%
quiz("ch3")

# %% [markdown]
# ## Clean up

# %%
await stop_servers()

# %% [markdown]
# ## Next
#
# Your session has a name and a token, and no use for them yet. In chapter 4 you break the connection, at every
# byte, and the conversation goes on.
