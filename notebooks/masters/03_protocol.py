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
# *About 55 minutes. Needs: this checkout, set up with `make lab`. No network, no GPU, no
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
# | `response.ack`, and `resume` in `session.start` | not yet: they are for chapter 4 |
# | anything else | `error` with `code`, `message`, `hint`, `cause` |
#
# Each side has a *union*: a message is one of these, and nothing else. It is *closed*, so a `match` over it can
# be complete, and `assert_never` says when it is not. The messages are classes of `labkit.protocol.v1`, which
# labkit's own server and client use, too. You can make sure that what you send is right, but what you receive may
# be anything. So pydantic reads the JSON into these classes, and checks every field: the type, the range, and that
# there is no field that nobody knows. This is the longest of them, and what two of its fields are. Where does it say that
# 200 kHz is no sample rate?

# %%
import inspect

from labkit.protocol import v1

print(inspect.getsource(v1.AudioSpec), inspect.getsource(v1.SessionStart), sep="\n")

# %% [markdown]
# What a client asks for, and you do not do, is not always an error. `turn_detection` may be `server`: then the
# server should find the end of an utterance. Yours answers with the `turn_detection` that it has, `client`, and the
# client knows where it is. labkit's own client sends this field, and talks to your server.
#
# An error says by its `code` what was wrong. Your server needs these, and the checks of this chapter ask for
# the first seven by name:
#
# | `code` | what was wrong |
# |---|---|
# | `invalid_json` | a text that is no JSON, no JSON object, or nested more deeply than anybody reads |
# | `unknown_type` | an object whose `type` no message has, or that has none |
# | `invalid_field` | one field of a message: its name, its type, its range |
# | `not_started` | anything before `session.start`, but for `ping`, which is answered at any time |
# | `already_started` | a second `session.start` |
# | `wrong_frame` | a message as JSON, but in a binary frame |
# | `odd_length` | half a sample |
# | `buffer_full` | an utterance longer than `LONGEST_S`, as in chapter 1 |
# | `invalid_audio` | floats that are no numbers |
# | `session_unknown` | a session to come back to, until chapter 4 |
#
# In Python each is a member of `ErrorCode`, in capitals: `ErrorCode.INVALID_JSON`. As in chapter 1, `ProtocolError(code,
# message, hint)` carries it to `handle`, which tells the client. In the next cell the client's union is given. `decode`
# is yours.
#
# `ValidationError` knows what was wrong with a text: `error.errors()[0]` is a dict with `loc`, the names on the way to
# the fault, `msg`, the fault in words, and `type`, pydantic's name for it. Text that is no JSON has the type
# `json_invalid`; JSON that is no object `dict_type`; an unknown `type` in an object `union_tag_invalid`, and none
# `union_tag_not_found`. All others are about one field.

# %% [markdown] card="ch3.decode"
# The card of the exercise.

# %% keep="messages" exercise="ch3.decode"
from typing import Annotated, assert_never

from pydantic import Field, TypeAdapter, ValidationError

from labkit.protocol import v1

FromClient = v1.SessionStart | v1.AudioEnd | v1.ResponseAck | v1.Ping
CLIENT = TypeAdapter(Annotated[FromClient, Field(discriminator="type")])


def decode(text):
    """One text message of the client → its object; raises ProtocolError where it is none."""
    raise NotImplementedError(
        "CLIENT.validate_json(text), or raise ProtocolError for what is wrong"
    )


# %% keep="messages" solution="ch3.decode"
from typing import Annotated, assert_never

from pydantic import Field, TypeAdapter, ValidationError

from labkit.protocol import v1

FromClient = v1.SessionStart | v1.AudioEnd | v1.ResponseAck | v1.Ping
CLIENT = TypeAdapter(Annotated[FromClient, Field(discriminator="type")])


def decode(text):
    """One text message of the client → its object; raises ProtocolError where it is none."""
    try:
        return CLIENT.validate_json(text)
    except ValidationError as error:
        wrong = error.errors()[0]
    code, hint = ErrorCode.INVALID_FIELD, "each field has a name, a type and a range"
    if wrong["type"] in ("json_invalid", "dict_type"):
        code, hint = ErrorCode.INVALID_JSON, "text is a JSON object; audio is binary"
    elif wrong["type"] in ("union_tag_invalid", "union_tag_not_found"):
        code, hint = ErrorCode.UNKNOWN_TYPE, "give a type that this server knows"
    raise ProtocolError(code, f"{wrong['msg']}, in {wrong['loc']}", hint)


# %% [markdown]
# Its check, `ch3.errors`, needs a whole session around it, so it comes with the last exercise. Until then this
# cell tells: every line should begin with ✔, and say what is wrong in words that would help *you*, with only
# the error at hand.

# %%
for text, expected in (
    ('{"type": "ping", "id": "a-1"}', v1.Ping(id="a-1")),
    ('{"type": "ping"', ErrorCode.INVALID_JSON),
    ("[]", ErrorCode.INVALID_JSON),
    ('{"type": "pingg"}', ErrorCode.UNKNOWN_TYPE),
    ('{"typ": "ping"}', ErrorCode.UNKNOWN_TYPE),
    ('{"type": "session.start", "input": {"sample_rate": 200000}}', ErrorCode.INVALID_FIELD),
    ('{"type": "session.start", "input": {"samplerate": 48000}}', ErrorCode.INVALID_FIELD),
):
    try:
        found = told = decode(text)
    except ProtocolError as wrong:
        found, told = wrong.code, f"{wrong.code}: {wrong}; {wrong.hint}"
    right = type(found) is type(expected) and found == expected
    print("✔" if right else f"✘ expected {expected!r}:", f"{text}\n  → {told}")

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
# ones. There are two laws: µ-law in North America and Japan, A-law elsewhere (ITU-T G.711). How bytes are laid
# out is an `AudioFormat` in labkit: encoding, rate, channels. It knows both laws, as tables.

# %%
laws = {law: AudioFormat(law, 8_000).decode(bytes(range(256)))[:, 0] for law in ("mulaw", "alaw")}
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
mulaw, alaw = AudioFormat("mulaw", 8_000), AudioFormat("alaw", 8_000)
phone = wire.as_bytes(wire.samples_of(said), mulaw)
play(mulaw.decode(phone)[:, 0], f"µ-law, read as µ-law: {said.text}", rate=8_000)
play(alaw.decode(phone)[:, 0], "the same bytes, read as A-law", rate=8_000)

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
import soxr

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
# A *stream* keeps the last samples of one chunk for the first of the next. labkit has one for each direction:
# `StreamEncoder(form)` turns samples at 16 kHz into bytes of a format, `StreamDecoder(form)` bytes into 16-bit
# samples at 16 kHz. Each has `feed`, for the next chunk, and `flush`, when the utterance or the reply is over.
# Now the same chunks through one encoder. The dashed line should stay at zero.

# %%
from labkit.audio.formats import StreamEncoder

wide = AudioFormat(sample_rate=48_000)
encoder = StreamEncoder(wide)
encoded = [encoder.feed(one) for one in chunks]
joined = wide.decode(b"".join([*encoded, encoder.flush()]))[:, 0]
print(f"The first chunk makes {3 * chunk} samples; {len(encoded[0]) // 2} of them came at once.")
show(
    wire.plot_differences(
        {"chunk by chunk": apart, "one stream": joined}, whole,
        start_s=0.6, seconds=0.12, rate=48_000,
    ).figure,
    alt="As before; beside it the line of one stream, whose largest difference is "
    f"{np.abs(joined[:len(whole)] - whole[:len(joined)]).max():.6f}.",
)  # fmt: skip
play(joined, f"one stream: {words}", rate=48_000)
print(
    f"Chunk by chunk, the faults lie {wire.below_db(apart, whole):.0f} dB below the speech, "
    f"of one stream {wire.below_db(joined, whole):.0f} dB. The finest step of 16 bits: 90 dB."
)

# %% [markdown]
# The price is a delay: what the first chunk makes stays in the filter, and comes with those behind it. That is
# why `flush` is there.
#
# ## Two dialects, one session
#
# Both dialects do the same turn. They differ in how they read messages and in how they tell what happens. So
# the new one is a kind of `SessionState`: it has a `receive` of its own, and its own `send_transcript`,
# `send_audio` and `send_done`.
#
# The next four cells are given. What is wrong with a message is found in `decode`, and in `begin`, `obey` and `hear`,
# which you write below. Each raises `ProtocolError(code, message, hint)`, and `refuse` tells the client, with the `cause`:
# which message it was. Read on: where is the reply resampled, and where does a message get its number?

# %% keep="v1"
import secrets
from contextlib import suppress

from labkit.protocol.replay import Position


class V1(SessionState):
    """One caller who speaks labkit.v1."""

    def __init__(self, socket):
        super().__init__(socket)
        self.id, self.tokens = secrets.token_hex(8), [secrets.token_urlsafe(24)]
        self.start = None  # the client's session.start, once it came
        self.received = Position()  # how far the server is in what the client says
        self.seq = self.turn = self.samples = 0

    async def receive(self, message):
        """Do what one message of the client asks for."""
        self.cause = v1.Cause.of(message, self.received)
        await obey(self, decode(message) if isinstance(message, str) else message)

    async def tell(self, message):
        """Say something about the connection; where that is gone, nobody needs it."""
        with suppress(ConnectionClosed):
            await self.socket.send(message.encode())

    async def refuse(self, error):
        """Say what is wrong with the message that came last."""
        await self.tell(v1.Error.of(error, self.cause))

    async def welcome(self, resumed=False, missing=None):
        """Tell the client which session it has, what was agreed, and how far the session is."""
        started = v1.SessionStarted(
            session=self.id, token=self.tokens[-1], resumed=resumed, missing=missing,
            received=self.received, input=self.start.input, output=self.start.output,
            turn_detection=v1.TurnDetection.CLIENT, limits=LIMITS,
        )  # fmt: skip
        await self.tell(started)

    async def send_transcript(self, text):
        """Tell the caller what was heard: a turn begins."""
        self.turn, self.samples = self.turn + 1, 0
        await put(self, v1.TranscriptFinal(turn=self.turn, text=text))

    async def send_audio(self, samples):
        """Send a piece of the reply, in the caller's format."""
        if audio := self.encoder.feed(samples):
            await put(self, audio)

    async def send_done(self, text):
        """The turn is over: send the last samples, and say so."""
        if audio := self.encoder.flush():
            await put(self, audio)
        status = v1.ResponseStatus.COMPLETED if text else v1.ResponseStatus.NOTHING_HEARD
        done = v1.ResponseDone(turn=self.turn, status=status, text=text, samples=self.samples)
        await put(self, done)


# %% keep="stream"
async def put(session, message):
    """Say something of a turn: audio, or a message that gets the next number."""
    if isinstance(message, bytes):
        session.samples += len(message) // session.start.output.format.frame_bytes
        await session.socket.send(message)
    else:
        session.seq += 1
        await session.socket.send(message.model_copy(update={"seq": session.seq}).encode())


def acknowledge(session, received):
    """The client has so much of the replies. Nothing is kept here that could be let go of."""


# %% [markdown]
# `handle` makes a session of either kind, and `choose` picks the subprotocol while the WebSocket opens. `answer` of
# chapter 2 stays as it is: it tells a turn without knowing whom it tells.


# %% keep="handle"
async def handle(socket):
    """Serve one caller, until they leave."""
    session = V1(socket) if socket.subprotocol == "labkit.v1" else SessionState(socket)
    with attached(session):
        async for message in socket:
            try:
                await session.receive(message)
            except ProtocolError as error:
                await session.refuse(error)


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
# ## Build it: begin
#
# `session.start` is where both sides say what they mean. `decode` has checked it: what it asks for is possible, and
# `start.input.format` is an `AudioFormat`. What is left is to note it, to make one decoder and one encoder for the
# whole session, and to answer with `welcome` of `V1` above, which repeats both formats, so that each side knows what was
# agreed. `LIMITS` go with it: how much of everything a client may count on.
#
# A `start.resume` is refused with `SESSION_UNKNOWN`: no session lasts here yet. Below `begin`, the same cell has
# `end_utterance`, which is given: it does what has to happen at the end of an utterance.

# %% [markdown] card="ch3.begin"
# The card of the exercise.

# %% keep="begin" exercise="ch3.begin"
from labkit.audio.formats import StreamDecoder, StreamEncoder
from labkit.protocol.limits import Limits

LIMITS = Limits(resume_s=0)


async def begin(session, start):
    """Begin a session, in the formats that the client asks for."""
    raise NotImplementedError("set session.start, decoder and encoder; then session.welcome()")


async def end_utterance(session):
    """Answer what was said."""
    session.buffer.extend(session.decoder.flush().tobytes())
    audio = bytes(session.buffer)
    session.buffer.clear()
    await answer(session, audio)


# %% keep="begin" solution="ch3.begin"
from labkit.audio.formats import StreamDecoder, StreamEncoder
from labkit.protocol.limits import Limits

LIMITS = Limits(resume_s=0)


async def begin(session, start):
    """Begin a session, in the formats that the client asks for."""
    if start.resume is not None:
        raise ProtocolError(ErrorCode.SESSION_UNKNOWN, "no session lasts here", "start anew")
    session.start = start
    session.decoder = StreamDecoder(start.input.format)
    session.encoder = StreamEncoder(start.output.format)
    await session.welcome()


async def end_utterance(session):
    """Answer what was said."""
    session.buffer.extend(session.decoder.flush().tobytes())
    audio = bytes(session.buffer)
    session.buffer.clear()
    await answer(session, audio)


# %% [markdown]
# Its checks, `ch3.start` and `ch3.formats`, are whole conversations, and come with the last exercise. Until then,
# begin two sessions with nobody: in the place of a connection is an object that prints some of what is sent to it.
# There should be one `session.started` with both formats, and one refusal, `session_unknown`. The decoder should give a
# third of the samples, less some that are still in its filter.


# %%
class Nobody:
    """In place of a connection: prints some of what is sent."""

    async def send(self, message):
        told = json.loads(message)
        print("sent:", *(f"{name}: {told.get(name)}" for name in ("type", "input", "output")))


trial = V1(Nobody())
await begin(trial, v1.SessionStart(input=v1.AudioSpec(sample_rate=48_000)))
print(f"4,800 samples at 48 kHz give {len(trial.decoder.feed(bytes(9600)))} at 16 kHz.")
try:
    resume = v1.Resume(session="another", token="guessed")
    await begin(V1(Nobody()), v1.SessionStart(resume=resume))
except ProtocolError as wrong:
    print("refused:", wrong.code)

# %% [markdown]
# ## Build it: obey
#
# All messages come here, audio too: what there is to do is one `match`, with one case for each. `hear`, for audio,
# is the next exercise; the checks of this one send none in a session.

# %% [markdown] card="ch3.obey"
# The card of the exercise.


# %% keep="obey" exercise="ch3.obey"
async def obey(session, message):
    """Do what a message asks for: one of FromClient, or bytes, which are audio."""
    raise NotImplementedError("match message: a case for each, and assert_never at the end")


# %% keep="obey" solution="ch3.obey"
async def obey(session, message):
    """Do what a message asks for: one of FromClient, or bytes, which are audio."""
    match message:
        case v1.Ping():
            await session.tell(v1.Pong(id=message.id))
        case v1.SessionStart() if session.start is None:
            await begin(session, message)
        case v1.SessionStart():
            raise ProtocolError(ErrorCode.ALREADY_STARTED, "a session runs", "connect once more")
        case _ if session.start is None:
            raise ProtocolError(ErrorCode.NOT_STARTED, "no session runs", "send session.start")
        case bytes():
            await hear(session, message)
        case v1.AudioEnd():
            await end_utterance(session)
        case v1.ResponseAck():
            acknowledge(session, message.received)
        case never:
            assert_never(never)


# %%
await check("ch3.obey", handle)

# %% [markdown]
# ## Build it: hear
#
# A binary message is audio in the format of `session.start.input`, which says how many bytes a sample has over all
# channels: `session.start.input.format.frame_bytes`. Some of what comes is none: control as JSON, which was meant as
# text, and which `v1.require_audio(data, max_bytes=LIMITS.max_message_bytes)` refuses, as in labkit's own server; and
# parts of a sample. `decoder.feed` raises `AudioError` for floats that are no numbers. What is good goes into the
# buffer, with `take` of chapter 1.

# %% [markdown] card="ch3.hear"
# The card of the exercise.


# %% keep="hear" exercise="ch3.hear"
from labkit.errors import AudioError


async def hear(session, data):
    """A binary message: audio in the caller's format, or something to refuse."""
    raise NotImplementedError("refuse what is no audio; give the rest to session.decoder, and take")


# %% keep="hear" solution="ch3.hear"
from labkit.errors import AudioError


async def hear(session, data):
    """A binary message: audio in the caller's format, or something to refuse."""
    v1.require_audio(data, max_bytes=LIMITS.max_message_bytes)
    if len(data) % session.start.input.format.frame_bytes:
        raise ProtocolError(ErrorCode.ODD_LENGTH, f"{len(data)} bytes", "send whole samples")
    try:
        take(session.buffer, session.decoder.feed(data).tobytes())
    except AudioError as error:
        raise ProtocolError(ErrorCode.INVALID_AUDIO, str(error), "send finite floats") from None


# %%
await check("ch3.hear", handle)

# %% [markdown]
# Now there are whole sessions, so the checks of `begin` and of `decode` can run, too. Their clients speak 48 kHz,
# 44.1 kHz, µ-law and A-law; the formats are drawn anew each time.

# %%
await check("ch3.begin", handle)

# %%
await check("ch3.decode", handle)

# %% [markdown]
# ## Check it
#
# The same for what was kept, in a process of its own, and the checks of chapter 1 once more: has a new dialect
# broken the old one?

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
class Apart(StreamDecoder):
    def feed(self, data):
        return np.concatenate([super().feed(data), self.flush()])  # as if each chunk were the last


class ApartEncoder(StreamEncoder):
    def feed(self, samples):
        return super().feed(samples) + self.flush()


mine, StreamDecoder, StreamEncoder = (StreamDecoder, StreamEncoder), Apart, ApartEncoder
broken = await check("ch3.formats", handle, strict=False, record=False)
StreamDecoder, StreamEncoder = mine
broken

# %% [markdown]
# Most often the recogniser understood every word: these models forgive what your ear does not. A check by
# transcript alone would have passed this server, unless it was unlucky in what it drew.
#
# ## A refusal, from the other side
#
# This is a client that makes four mistakes and still gets its answer (of a long one, the beginning is shown).
# Each error says what to do (`hint`) and which message it is about (`cause`, with the `id` that the client gave
# it). That matters when a client does not wait: the error may come ten messages later.

# %%
from websockets.asyncio.client import connect

server = await start_mine()
async with connect(server.url, subprotocols=["labkit.v1"]) as socket:
    for message in (
        '{"type": "audio.end", "id": "too-early"}',
        '{"type": "session.start", "id": "too-wide", "input": {"sample_rate": 96000}}',
        '{"type": "session.start"}',
        '{"type": "session.start", "id": "twice"}',
        b'{"type": "audio.end"}',
        '{"type": "ping", "id": "still-there"}',
    ):
        await socket.send(message)
        print(f"→ {message}\n← {str(await socket.recv())[:280]}\n")

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
# ## Recap
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
# ## Quiz

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
