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
# # 4. Failure modes
#
# *About 30 minutes. Needs: this checkout, set up with `make lab`. No network, no GPU, no
# microphone.*
#
# ## What you will be able to do
#
# - **break** a server in four ways, on purpose and repeatably, with a proxy that cuts at any byte;
# - **count** positions, so that a reply goes on where it broke off: nothing lost, nothing twice;
# - **give** a session to the connection that comes back, and to nobody else;
# - **bound** what a caller costs who takes nothing, or never comes back;
# - **say** what survives a killed process, and what does not.

# %%
from labkit import play, recording, show, start_mine, stop_servers
from labkit.course import begin, check, hint, lab, measured, predict, quiz, solution

await begin(4)

# %% [markdown]
# ## What broke last time
#
# Chapter 3's server speaks a protocol with types. It also believes that a connection lasts. Real ones do
# not: a phone changes from Wi-Fi to 4G, a laptop sleeps, a server is restarted. This chapter is a
# laboratory. Between a client and your server stands a proxy that passes bytes on, cuts the connection
# at a byte that you choose, or swallows everything, as a network does that is gone.
#
# This is your server as chapter 3 left it, in a process of its own.

# %%
before = await start_mine(name="before", file=lab.server_before())
said = recording("ked-01")
print(f"The recording says: {said.text!r}")

# %% [markdown]
# ## Failure 1: the connection drops
#
# The recording is 83 kB on the wire. The first call is left alone. The second is cut on its way *up*, to
# the server, in the middle of the sentence; the client comes back and goes on with what it had not sent.
#
# **Predict first.** How many per cent of the words does your server hear, when the connection is cut in
# the middle of the sentence? Words that were never said count against it: it is 100 % less the word error
# rate of chapter 0.

# %%
predict("ch4.words_percent", 50)

# %%
uncut = await lab.cut_call(before, said, after=None)
print(uncut)
print(await lab.cut_call(before, said, after=45_000))

# %% [markdown]
# Look at *heard*: the first half is gone, and the second alone is not understood. It was in a buffer of the session, and the session was dropped
# with its connection. Now at several bytes, in both directions. Cut downwards, it is the reply that breaks
# off, and nobody sends the rest.

# %%
places = [("up", 25_000), ("up", 45_000), ("up", 65_000), ("down", 10_000), ("down", 40_000)]
cut_before = [await lab.cut_call(before, said, after=n, direction=way) for way, n in places]
for call in cut_before:
    print(call)
show(
    lab.plot_calls({"before": cut_before}).figure,
    alt="What gets through over the byte of the cut: less than everything at every byte, both ways.",
)
half = 100 * cut_before[1].through(1.0)
print(f"Cut in the middle of the sentence, {half:.0f} % of the words were heard.")
measured("ch4.words_percent", half)

# %% [markdown]
# The same to click, with slow networks too: each cut becomes another point of the figure. `await
# lab.cut_call(before, said, after=45_000, network="satellite")` does it without a slider.

# %%
lab.bench(before, said, cut_before)

# %% [markdown]
# ## Failure 2: the format is not what was declared
#
# `session.start` says 16-bit integers, and floats come. Both are only bytes.

# %%
print(await lab.say_floats(before, said))
play(lab.misread_as_integers(said), "What the server hears: floats, read as integers. It is noise.")

# %% [markdown]
# No error, no words, and the caller is left to guess. Turn the volume down before you play it.
#
# ## Failure 3: a client takes nothing
#
# A reply is made faster than it is played, so it waits somewhere: in the client, in the network, or in
# the server. This client asks again and again, and never says that it has received anything.

# %%
taken_before = await lab.take_nothing(before, said)
show(
    lab.plot_taken({"before": taken_before}).figure,
    alt="Bytes sent over the turns that were asked for: a straight line upwards.",
)
print(f"After {taken_before.asked[-1]} turns, {taken_before.sent[-1] / 1024:.0f} KiB were sent.")

# %% [markdown]
# A straight line: there is no end to it. A thousand such callers fill somebody's memory.
#
# ## Failure 4: callers go away, and nobody tells
#
# 80 callers speak, and then their network is gone. No closing message comes, so for the server they are
# all still there. How many sessions does `/metrics` of chapter 2 count, second by second?

# %%
crowd_before = await lab.leave_alone(before, said)
show(
    lab.plot_crowd({"before": crowd_before}).figure,
    alt="Sessions over time, after all callers have gone: a level line at 80.",
)
print(
    f"{crowd_before.sessions[-1]} sessions with {crowd_before.held[-1] / 1e6:.1f} MB of audio are held "
    f"{crowd_before.at_s[-1]:.0f} s after the last caller has gone; {crowd_before.refused} were refused."
)
before.stop()

# %% [markdown]
# ## The idea: a position
#
# All four fixes rest on one idea. Each direction of a session is a *stream*: numbered messages and audio,
# in one order. It goes on from one connection to the next. A **position** says how far somebody is in it:
# how many numbered messages, and how many samples.
#
# - The client comes back with `resume`: the session's name, its secret *token*, and its position in the
#   reply. The server sends what lies behind it.
# - The server answers with its own position in what the client says. The client sends what lies behind it.
# - In between, `response.ack` and `audio.ack` say "I have everything up to here", and the other side may
#   forget it.
#
# WebSocket never delivers half a message, and never out of order. So one position says everything.
#
# ```
# the server's stream   transcript  audio 0……3200  audio 3200……6400  done
#                                           │
#  the client is at {"messages": 1, "samples": 2100}: send 2100…3200 again, then the rest
# ```
#
# ## Build it: what may have to be said again

# %% [markdown] card="ch4.replay"
# The card of the exercise.


# %% keep="replay" exercise="ch4.replay"
class Replay:
    """What was said to a client, as far as it may have to be said again."""

    def __init__(self):
        self.begin = Position()  # the client has everything up to here
        self.kept = []  # what lies behind it: pairs of a message and its samples, 0 for text
        self.sent = 0  # how many of them went out on this connection

    def held(self):
        """Bytes that are kept."""
        return sum(len(message) for message, _ in self.kept)

    def add(self, message, samples):
        """Keep a message; it is the last in the order of sending."""
        self.kept.append((message, samples))

    def next(self):
        """The next message to be sent; None where there is none."""
        if self.sent == len(self.kept):
            return None
        self.sent += 1
        return self.kept[self.sent - 1][0]

    def forget(self):
        """Give up the oldest, which was sent; a client without it cannot resume."""
        message, samples = self.kept.pop(0)
        self.sent -= 1
        self.begin.messages += samples == 0
        self.begin.samples += samples

    def acknowledge(self, position):
        """The client has everything up to there: forget it. ValueError where it cannot have."""
        raise NotImplementedError("walk through what was sent until position is reached; delete it")

    def rewind(self, position):
        """Send again what lies behind that position; ValueError where it was never sent."""
        raise NotImplementedError("acknowledge up to there; then nothing of the rest was sent")


# %% keep="replay" solution="ch4.replay"
class Replay:
    """What was said to a client, as far as it may have to be said again."""

    def __init__(self):
        self.begin = Position()  # the client has everything up to here
        self.kept = []  # what lies behind it: pairs of a message and its samples, 0 for text
        self.sent = 0  # how many of them went out on this connection

    def held(self):
        """Bytes that are kept."""
        return sum(len(message) for message, _ in self.kept)

    def add(self, message, samples):
        """Keep a message; it is the last in the order of sending."""
        self.kept.append((message, samples))

    def next(self):
        """The next message to be sent; None where there is none."""
        if self.sent == len(self.kept):
            return None
        self.sent += 1
        return self.kept[self.sent - 1][0]

    def forget(self):
        """Give up the oldest, which was sent; a client without it cannot resume."""
        message, samples = self.kept.pop(0)
        self.sent -= 1
        self.begin.messages += samples == 0
        self.begin.samples += samples

    def acknowledge(self, position):
        """The client has everything up to there: forget it. ValueError where it cannot have."""
        messages = position.messages - self.begin.messages
        samples = position.samples - self.begin.samples
        whole = 0  # of what is kept, how much it has as a whole
        for _, size in self.kept[: self.sent]:
            if not (0 < size <= samples if size else messages > 0):
                break
            messages, samples = messages - (size == 0), samples - size
            whole += 1
        size = self.kept[whole][1] if whole < self.sent else 0
        if messages or not (samples == 0 or 0 < samples < size):
            raise ValueError(f"{position} was never sent")
        del self.kept[:whole]
        self.sent -= whole
        if samples:  # the client has the first part of a piece of audio
            audio = self.kept[0][0]
            self.kept[0] = audio[samples * (len(audio) // size) :], size - samples
        self.begin = position

    def rewind(self, position):
        """Send again what lies behind that position; ValueError where it was never sent."""
        self.acknowledge(position)
        self.sent = 0


# %% [markdown]
# Try it by hand. Two pieces of four samples were sent; the client has a message and six samples. What is
# left has to be the two samples that it lacks.

# %%
replay = Replay()
for message, samples in (("hello", 0), (b"aabbccdd", 4), (b"eeffgghh", 4), ("done", 0)):
    replay.add(message, samples)
while replay.next() is not None:
    pass
replay.rewind(Position(messages=1, samples=6))
print("it sends again:", [replay.next() for _ in replay.kept])

# %% [markdown]
# ## Build it: a session that outlives its connection
#
# The next cell is given. `Lasting` is chapter 3's session with three changes. What it says goes through
# `put`, into the replay, and from there to whatever connection there is. What it hears is counted. And a
# turn runs in a task of its own, so that it goes on while the client is away, and so that `ping` and
# `response.ack` are read meanwhile.
#
# Look for the line in `put` that waits. It is the whole fix of failure 3: where too much is not
# acknowledged, the reply is not made any further. That is *backpressure*.

# %% keep="lasting"
from contextlib import suppress

RESUME_S = 3.0  # how long a session waits for its client; labkit's server waits for 120 s
KEPT_BYTES = 256 * 1024  # of a reply, for a client that has not acknowledged it
PLACES = 64  # connections; and as many sessions that wait
serving = {}  # connections, and the session of each
lasting = {}  # sessions of labkit.v1 by name; those that wait longest first


class Resume(BaseModel, extra="forbid", strict=True):
    session: str
    token: str
    received: Position


class SessionStart(SessionStart):
    resume: Resume | None = None
    acknowledges: bool = False


class ResponseAck(FromClient):
    type: Literal["response.ack"]
    received: Position


class Limits(BaseModel):
    resume_s: float = RESUME_S


class SessionStarted(SessionStarted):
    limits: Limits = Limits()


class AudioAck(BaseModel):
    type: Literal["audio.ack"] = "audio.ack"
    received: Position


ClientMessage = SessionStart | AudioEnd | ResponseAck | Ping | SessionEnd
CLIENT = TypeAdapter(Annotated[ClientMessage, Field(discriminator="type")])


class Counting(Resampler):
    """A resampler that knows how many samples it was fed: half of a position."""

    samples = 0

    def feed(self, samples):
        self.samples += len(samples)
        return super().feed(samples)


class Lasting(V1):
    """A session of labkit.v1 that outlives its connections."""

    def __init__(self, socket):
        super().__init__(socket)
        self.tokens = [self.token]  # those that are good
        self.replay, self.room = Replay(), asyncio.Event()
        self.ends, self.noted = 0, None  # each `audio.end` is numbered, too
        self.turns, self.one_by_one = set(), asyncio.Lock()
        self.expiry = self.closing = None

    def agree(self, start):
        super().agree(start)
        self.incoming = Counting(start.input.sample_rate, RATE)
        lasting[self.id] = self

    @property
    def received(self):
        """How far the server is in the client's stream."""
        return Position(messages=self.ends, samples=self.incoming.samples)

    async def send(self, message):
        """Send to the connection that there is; where there is none, the replay has it."""
        if self.socket is not None:
            with suppress(ConnectionClosed):
                await self.socket.send(message)

    async def tell_numbered(self, kind, **fields):
        self.seq += 1
        message = kind(seq=self.seq, turn=self.turn, **fields)
        await self.put(message.model_dump_json(exclude_none=True), 0)

    async def send_ready(self, samples):
        if len(samples):
            self.samples += len(samples)
            await self.put(encoded(samples, self.start.output.encoding), len(samples))

    async def put(self, message, samples):
        """Say something that may have to be said again; wait while too much is kept."""
        while self.replay.held() > KEPT_BYTES and self.is_active:
            if self.replay.sent and not self.start.acknowledges:
                self.replay.forget()
            else:
                self.room.clear()
                await self.room.wait()
        self.replay.add(message, samples)
        await self.flush()

    async def flush(self):
        """Send what was not sent on this connection yet, for as long as it is this one."""
        socket = self.socket
        while self.socket is socket and (message := self.replay.next()) is not None:
            await self.send(message)

    async def receive(self, message):
        match decode(message) if isinstance(message, str) else None:
            case SessionStart(resume=Resume() as resume) if self.start is None:
                await come_back(self.socket, resume)
            case ResponseAck(received=received) if self.start is not None:
                await self.acknowledge(received)
            case SessionEnd():
                lasting.pop(self.id, None)  # nobody comes back to it
                await super().receive(message)
            case _:
                await super().receive(message)
        if self.start is not None:
            mark = self.ends, self.incoming.samples // self.start.input.sample_rate
            if mark != self.noted:  # after each second, and each `audio.end`
                self.noted = mark
                await self.tell(AudioAck(received=self.received))

    async def acknowledge(self, received):
        try:
            self.replay.acknowledge(received)
        except ValueError as error:
            hint, cause = "count messages with a seq, and samples", Cause(type="response.ack")
            await self.refuse("position_invalid", str(error), hint, cause)
        self.room.set()

    async def end_utterance(self):
        """Answer it behind those that wait, whatever becomes of the connection, and read on."""
        self.ends += 1
        if len(self.turns) >= 4:
            hint, cause = "send audio.end again later", Cause(type="audio.end")
            return await self.refuse("too_many_turns", "4 utterances wait", hint, cause)
        audio = bytes(self.buffer)
        self.buffer.clear()
        turn = asyncio.create_task(self.answer_in_turn(audio))
        self.turns.add(turn)
        turn.add_done_callback(self.turns.discard)

    async def answer_in_turn(self, audio):
        async with self.one_by_one:
            await respond(self, audio)

    def expire(self):
        """Forget the session, and all that it holds."""
        self.is_active = False
        lasting.pop(self.id, None)
        sessions.discard(self)
        for turn in self.turns:
            turn.cancel()


# %% [markdown] card="ch4.come_back"
# The card of the exercise.


# %% keep="come_back" exercise="ch4.come_back"
async def come_back(socket, resume):
    """Give a connection the session that it asks for, or say that there is none."""
    raise NotImplementedError("find the session, compare the token, rewind, and swap the sockets")


# %% keep="come_back" solution="ch4.come_back"
async def come_back(socket, resume):
    """Give a connection the session that it asks for, or say that there is none."""
    new, session = serving[socket], lasting.get(resume.session)
    cause, hint = Cause(type="session.start"), "send session.start without resume"
    if session is None or not any(
        secrets.compare_digest(resume.token.encode(), token.encode()) for token in session.tokens
    ):
        return await new.refuse("session_unknown", "no such session and token", hint, cause)
    try:
        session.replay.rewind(resume.received)
    except ValueError as error:
        return await new.refuse("position_invalid", str(error), hint, cause)
    session.token = secrets.token_urlsafe(24)
    session.tokens = [resume.token, session.token]  # the answer with the new one may be lost
    old, session.socket, serving[socket] = session.socket, socket, session
    if session.expiry is not None:
        session.expiry.cancel()
    new.expire()
    if serving.pop(old, None) is not None:
        session.closing = asyncio.create_task(old.close(4006, "resumed on another connection"))
    await session.tell(
        SessionStarted(
            protocol="labkit.v1",
            session=session.id,
            token=session.token,
            resumed=True,
            input=session.start.input,
            output=session.start.output,
            received=session.received,
        )
    )
    await session.flush()
    session.room.set()


# %% [markdown]
# Why `compare_digest`? `==` stops at the first character that differs, so how long it takes tells an
# attacker how many were right. And why is a token needed at all: who knows a session's name could
# otherwise have its conversation.
#
# ## Build it: let go
#
# Sessions that survive make a new failure: those that nobody comes back to.

# %% [markdown] card="ch4.bounds"
# The card of the exercise.


# %% keep="bounds" exercise="ch4.bounds"
async def has_place(socket):
    """Whether there is a place for one more connection; where there is none, tell it."""
    raise NotImplementedError("count serving; where it is full, close with 1013 and a reason")


def leave(session):
    """A connection is gone: its session waits, for a while."""
    raise NotImplementedError("no socket; expire in RESUME_S; where too many wait, the oldest goes")


# %% keep="bounds" solution="ch4.bounds"
async def has_place(socket):
    """Whether there is a place for one more connection; where there is none, tell it."""
    if len(serving) < PLACES:
        return True
    await socket.close(1013, f"all {PLACES} places are taken; try again in a few seconds")
    return False


def leave(session):
    """A connection is gone: its session waits, for a while."""
    session.socket = None
    if lasting.pop(session.id, None) is None:
        return session.expire()  # it never began, or its client has ended it
    lasting[session.id] = session  # behind those that wait for longer
    session.expiry = asyncio.get_running_loop().call_later(RESUME_S, session.expire)
    waiting = [one for one in lasting.values() if one.socket is None]
    if len(waiting) > PLACES:
        waiting[0].expire()


# %% [markdown]
# ## Build it: name what was sent instead
#
# Speech is smooth. The next value is close to the last one, unless the bytes are read wrongly; then it is
# noise. So read them in several ways, and see which reading is smooth.

# %% [markdown] card="ch4.misread"
# The card of the exercise.


# %% keep="misread" exercise="ch4.misread"
def misread(audio):
    """What bytes that should be 16-bit samples look like instead: an error code, or None."""
    raise NotImplementedError("b'RIFF' begins a file; otherwise, which reading is the smoothest?")


# %% keep="misread" solution="ch4.misread"
READINGS = {None: "<i2", "looks_like_float32": "<f4", "looks_like_big_endian": ">i2"}


def roughness(samples):
    """How much neighbours differ, for their size: below 1 for speech, above it for noise."""
    size = np.abs(samples).mean()
    return np.abs(np.diff(samples)).mean() / size if np.isfinite(size) and size > 0 else np.inf


def misread(audio):
    """What bytes that should be 16-bit samples look like instead: an error code, or None."""
    if audio.startswith(b"RIFF"):
        return "looks_like_file"
    audio = audio[: len(audio) // 4 * 4]
    with np.errstate(all="ignore"):
        rough = {
            code: roughness(np.frombuffer(audio, kind).astype(float))
            for code, kind in READINGS.items()
        }
    best = min(rough, key=rough.get)
    return best if rough[best] < 0.7 * rough[None] else None


# %% [markdown]
# The recording, sent in three ways. Each line should name what it is.

# %%
samples = lab.samples_of(said)
for name, form in (("as declared", "<i2"), ("floats", "<f4"), ("high byte first", ">i2")):
    data = samples if form == "<f4" else samples * 32767
    print(f"{name}: {misread(data.astype(form).tobytes())}")

# %% [markdown]
# ## Put it together
#
# What is left is given. `handle` knows for each connection which session it serves, so that another
# connection can take it over. `main` looks after callers who are gone: every second, the library sends
# a WebSocket ping, and it closes a connection that leaves one unanswered for three. Both are short for
# a laboratory; labkit's server takes 20 s for each.


# %% keep="turn"
async def answer(session):
    """The utterance is over. A session that lasts is answered while its connection reads on."""
    if isinstance(session, Lasting):
        return await session.end_utterance()
    audio = bytes(session.buffer)
    session.buffer.clear()
    await respond(session, audio)


async def respond(session, audio):
    """One turn, in the words of the session's dialect."""
    if isinstance(session, Lasting) and (code := misread(audio)) is not None:
        hint = "send what session.start declares, or declare what is sent"
        await session.refuse(code, "this is no audio as declared", hint, Cause(type="audio"))
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
    """Serve one connection: its own session, or one that it comes back to."""
    if not await has_place(socket):
        return
    dialect = Lasting if socket.subprotocol == "labkit.v1" else Plain
    session = serving[socket] = dialect(socket)
    sessions.add(session)
    try:
        async for message in socket:
            if (session := serving.get(socket)) is None:
                break  # another connection has the session now
            await session.receive(message)
    except ConnectionClosed:
        pass  # callers go away without a word, and that is no fault
    finally:
        session = serving.pop(socket, None)
        if isinstance(session, Lasting):
            leave(session)
        elif session is not None:
            session.is_active = False
            sessions.discard(session)


# %% keep="main"
def choose(socket, offered):
    """The dialect for a new connection: labkit.v1 where the client offers it, else the plain one."""
    return "labkit.v1" if "labkit.v1" in offered else None


async def main(port):
    """Serve until the program is ended. Callers who are gone are noticed within five seconds."""
    options = {"select_subprotocol": choose, "process_request": pages}
    options |= {"ping_interval": 1, "ping_timeout": 3, "close_timeout": 1}  # seconds
    async with serve(handle, "127.0.0.1", port, **options) as server:
        port = server.sockets[0].getsockname()[1]
        print(f"your server is ready at ws://127.0.0.1:{port}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(os.environ.get("PORT", "8766"))))

# %% [markdown]
# ## Check it
#
# Nine checks. `ch4.nothing_lost` is the hard one: six cuts at drawn bytes, up and down, and each sample is
# compared. The last one kills your process, so the file is checked, in a process of its own.

# %%
await check("ch4", fresh=True)

# %% [markdown]
# And everything from chapter 1 on, with the same server: what was right before should still be. It takes
# one or two minutes.

# %%
await check("all", fresh=True)

# %% [markdown]
# ## Measure it again
#
# The same four failures, now with your server.

# %%
after = await start_mine(name="after")
cut_after = [await lab.cut_call(after, said, after=n, direction=way) for way, n in places]
show(
    lab.plot_calls({"before": cut_before, "after": cut_after}).figure,
    alt="What gets through over the byte of the cut: before, less than everything; after, all of it.",
)
same = sum(call.heard == uncut.heard for call in cut_after)
print(f"{same} of {len(cut_after)} were heard as in the call that was not cut.")


# %%
after = await start_mine(name="after")
print(await lab.say_floats(after, said))
taken_after = await lab.take_nothing(after, said)
show(
    lab.plot_taken({"before": taken_before, "after": taken_after}).figure,
    alt="Bytes sent over turns asked for: before, a straight line; after, it becomes level.",
)
print(
    f"Before, {taken_before.sent[-1] / 1024:.0f} KiB went out unacknowledged; "
    f"now the reply waits at {taken_after.sent[-1] / 1024:.0f} KiB."
)

# %%
after = await start_mine(name="after")
crowd_after = await lab.leave_alone(after, said)
show(
    lab.plot_crowd({"before": crowd_before, "after": crowd_after}).figure,
    alt="Sessions after all callers have gone: before, level at 80; after, from 64 down to none.",
)
print(
    f"{crowd_after.refused} callers were refused politely. {crowd_after.at_s[-1]:.0f} s after the last "
    f"had gone, {crowd_after.sessions[-1]} sessions are left, where {crowd_before.sessions[-1]} were."
)

# %% [markdown]
# ## A satellite
#
# Coming back takes a handshake, then `session.start` and its answer: two round trips. On a geostationary
# satellite each takes half a second. Predict how long that is, in milliseconds, then measure.

# %%
predict("ch4.satellite_ms", 1000)

# %%
after = await start_mine(name="after")
far = await lab.cut_call(after, said, after=45_000, network="satellite")
print(far)
measured("ch4.satellite_ms", far.back_ms)

# %% [markdown]
# Nothing is lost there either. But if your server waited for less than that, the session would be gone
# when its client arrives: `RESUME_S` has to be longer than the worst way back. Three seconds are for a
# laboratory; labkit's server waits for two minutes.
#
# ## A killed process
#
# Now the server itself goes, in mid-sentence, and is started again. What survives?


# %%
async def again():
    return await start_mine(name="again")


after = await start_mine(name="after")
print(await lab.kill(after, again, said))

# %% [markdown]
# Nothing that was in the server's memory: the session is unknown, and the server says so instead of
# pretending. What survives is what the *client* has kept. It has its utterance up to the last
# acknowledgement, so it says it again in a new session. What is really lost is the history. To keep that,
# it would have to leave the process, into a database; that is a decision about privacy as much as about
# code.
#
# ## Recap
#
# | failure | what it looked like | the fix | where |
# |---|---|---|---|
# | the connection drops | half a sentence, half a reply | positions, replay, resume | `Replay`, `come_back` |
# | wrong format | silence, no error | read it in several ways, name it | `misread` |
# | a client takes nothing | memory without an end | wait for acknowledgements | `put` |
# | callers never come back | sessions without an end | places, expiry, keepalive | `has_place`, `leave`, `main` |
# | the process dies | everything is gone | say so; the client keeps its half | `come_back` |
#
# ## Quiz

# %%
quiz("ch4")

# %% [markdown]
# ## Stop and clean up

# %%
await stop_servers()

# %% [markdown]
# Your server is complete. **Next:** `05_latency_exercise` measures it, beside labkit's and the naive one.
