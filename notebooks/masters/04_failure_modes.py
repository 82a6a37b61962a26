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
# *About 45 minutes, five of them for the machine. Needs: this checkout, set up with `make lab`. No network, no GPU, no
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

# %% guess="50"
predict("ch4.words_percent", ...)

# %%
uncut = await lab.cut_call(before, said, after=None)
print(uncut)
print(await lab.cut_call(before, said, after=45_000))

# %% [markdown]
# Look at *heard*: the first half is gone, and the second alone is not understood. The first half was in a
# buffer of the session, and the session was dropped with its connection. Now at several bytes, in both
# directions. Cut downwards, it is the reply that breaks off, and nobody sends the rest.

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
#
# `Replay` keeps what was said, in order, until the client has acknowledged it. Two of its methods are
# yours. `acknowledge(position)` lets go of what lies before a position, and of a piece of audio that lies
# across it, of its first part. `rewind(position)` does the same for a client that is back, and then nothing
# of what is left counts as sent. Like `begin`, a position counts from the beginning of the session. A client
# may be wrong about it: where a position is none in the stream, lies before `begin` or behind what was sent,
# raise `Refused("position_invalid", …)`.

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

    def forget(self):
        """Let go of the oldest, which was sent; a client without it cannot resume."""
        _, samples = self.kept.pop(0)
        self.sent -= 1
        self.begin.messages += samples == 0
        self.begin.samples += samples

    def acknowledge(self, position):
        """The client has everything up to there: forget it. Refused where it cannot have."""
        raise NotImplementedError("forget what was sent, one by one, until begin is position")

    def rewind(self, position):
        """Send again what lies behind that position."""
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

    def forget(self):
        """Let go of the oldest, which was sent; a client without it cannot resume."""
        _, samples = self.kept.pop(0)
        self.sent -= 1
        self.begin.messages += samples == 0
        self.begin.samples += samples

    def acknowledge(self, position):
        """The client has everything up to there: forget it. Refused where it cannot have."""
        while self.sent and self.begin != position:
            message, size = self.kept[0]
            part = position.samples - self.begin.samples  # what the client has of it
            if 0 < part < size:  # the first part of a piece of audio
                self.kept[0] = message[part * (len(message) // size) :], size - part
                self.begin.samples += part
            elif part < size or (size == 0 and position.messages <= self.begin.messages):
                break  # nothing of it, so this is no place in the stream
            else:
                self.forget()
        if self.begin != position:
            raise Refused("position_invalid", f"{position} was never sent", "count what came")

    def rewind(self, position):
        """Send again what lies behind that position."""
        self.acknowledge(position)
        self.sent = 0


# %% [markdown]
# Try it by hand. Two pieces of four samples were sent; the client has a message and six samples. What is
# left has to be the two samples that it lacks.

# %%
replay = Replay()
replay.kept = [("hello", 0), (b"aabbccdd", 4), (b"eeffgghh", 4), ("done", 0)]
replay.sent = 4
replay.rewind(Position(messages=1, samples=6))
print("it sends again:", [message for message, _ in replay.kept[replay.sent :]])

# %% [markdown]
# ## Build it: a session that outlives its connection
#
# The next cell is given. It takes the place of chapter 3's `V1`, in your file too, since its section has the same
# name. Three things are new. What it says of a turn goes through `put`, into the replay, and from there to
# whatever connection there is. What it hears is counted, in `received`. And a turn runs in a task of its own, so
# that it goes on while the client is away, and so that `ping` and `response.ack` are read meanwhile. `receive`,
# and how a reply is said (`send_transcript`, `send_audio`, `send_done`), are as they were.
#
# Look for the line in `put` that waits. It is the whole fix of failure 3: where too much is not
# acknowledged, the reply is not made any further. That is *backpressure*.

# %% keep="v1"
from contextlib import suppress

RESUME_S = 3.0  # how long a session waits for its client; labkit's server waits for 120 s
KEPT_BYTES = 256 * 1024  # of a reply, for a client that has not acknowledged it
PLACES = 64  # connections; and as many sessions that wait
serving = {}  # connections, and the session of each
lasting = {}  # sessions of labkit.v1 by name; those that wait longest first


class V1(SessionState):
    """A session of labkit.v1, over as many connections as it takes."""

    def __init__(self, socket):
        super().__init__(socket)
        self.id, self.tokens = secrets.token_hex(8), [secrets.token_urlsafe(24)]
        self.start = None  # the client's session.start, once it came
        self.received = Position()  # how far the server is in what the client says
        self.replay, self.room = Replay(), asyncio.Event()  # what the server says
        self.seq = self.turn = self.samples = 0
        self.turns, self.one_by_one = set(), asyncio.Lock()
        self.expiry = self.closing = None

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
        """A session, in the formats that the client asks for; or the one that it comes back to."""
        if start.resume is not None:
            return await come_back(self.socket, start.resume)
        self.start, lasting[self.id] = start, self
        self.incoming = Resampler(start.input.sample_rate, RATE)
        self.outgoing = Resampler(RATE, start.output.sample_rate)
        await self.send_started(resumed=False)

    def listen(self, samples):
        """Take audio at the caller's rate."""
        self.received.samples += len(samples)
        if (full := take(self.buffer, to_wire(self.incoming.feed(samples)))) is not None:
            raise Refused(full["code"], full["message"], "send audio.end")

    async def end_utterance(self):
        """Answer it behind those that wait, whatever becomes of the connection, and read on."""
        self.received.messages += 1
        await self.send_json({"type": "audio.ack", "received": self.received.model_dump()})
        if len(self.turns) == 4:
            raise Refused("too_many_turns", "4 utterances wait", "send audio.end again later")
        take(self.buffer, to_wire(self.incoming.end()))
        audio = bytes(self.buffer)
        self.buffer.clear()
        turn = asyncio.create_task(self.answer_in_turn(audio))
        self.turns.add(turn)
        turn.add_done_callback(self.turns.discard)
        if (code := misread(audio)) is not None:  # a guess: it is answered all the same
            raise Refused(code, "this is no audio as declared", "send what was declared")

    async def answer_in_turn(self, audio):
        async with self.one_by_one:
            await answer(self, audio)

    def acknowledge(self, received):
        """The client has so much of the replies: there is room for more."""
        self.replay.acknowledge(received)
        self.room.set()

    async def end(self):
        """The client leaves, and does not come back."""
        lasting.pop(self.id, None)
        await self.send_json({"type": "session.ended", "reason": "the client ended it"})
        await self.socket.close()

    def expire(self):
        """Forget the session, and all that it holds."""
        self.is_active = False
        lasting.pop(self.id, None)
        sessions.discard(self)
        for turn in self.turns:
            turn.cancel()

    async def send(self, message):
        """Send to the connection that there is; where there is none, the replay has it."""
        if self.socket is not None:
            with suppress(ConnectionClosed):
                await self.socket.send(message)

    async def send_started(self, resumed):
        """Tell the caller which session this is, and how far it is."""
        await self.send_json({
            "type": "session.started", "protocol": "labkit.v1",
            "session": self.id, "token": self.tokens[-1], "limits": {"resume_s": RESUME_S},
            "resumed": resumed, "received": self.received.model_dump(),
            "input": self.start.input.model_dump(), "output": self.start.output.model_dump(),
        })  # fmt: skip

    async def tell_numbered(self, kind, **fields):
        """Send a message about a turn, with the next number."""
        self.seq += 1
        message = {"type": kind, "seq": self.seq, "turn": self.turn, **fields}
        await self.put(json.dumps(message), 0)

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
            await self.put(encoded(samples, self.start.output.encoding), len(samples))

    async def send_done(self, text, samples):
        """The turn is over: send the last samples, and say so."""
        await self.send_ready(self.outgoing.end())
        status = "completed" if text else "nothing_heard"
        await self.tell_numbered("response.done", status=status, text=text, samples=self.samples)

    async def put(self, message, samples):
        """Say something that may have to be said again; wait while too much is kept."""
        while self.replay.held() > KEPT_BYTES:
            if self.replay.sent and not self.start.acknowledges:
                self.replay.forget()
            else:
                self.room.clear()
                await self.room.wait()
        self.replay.kept.append((message, samples))
        await self.flush()

    async def flush(self):
        """Send what was not sent on this connection yet, for as long as it is this one."""
        socket, replay = self.socket, self.replay
        while self.socket is socket and replay.sent < len(replay.kept):
            replay.sent += 1
            await self.send(replay.kept[replay.sent - 1][0])


# %% [markdown]
# ## Build it: the way back
#
# A connection begins with a session of its own, `serving[socket]`, which `handle` (below) makes for it. If its
# `session.start` has `resume`, `begin` above calls `come_back`. What has to happen there:
#
# - If there is no session of that name in `lasting`, or the token is none of its `tokens`, raise
#   `Refused("session_unknown", …)`. A position that is none is refused by `rewind`. Nothing else has changed
#   then, and the client may send `session.start` without `resume`.
# - Otherwise the session gets a new token, and keeps the one that was used until the client uses the new
#   one: the answer with it may be lost, too. The last of `tokens` is the one that the client is told.
# - The session has the new socket now, `serving` says so, it does not expire any more, and nothing is left
#   of the new session. If the old connection is still in `serving`, it is taken out, and closed with 4006.
#   Closing takes a second where nobody answers, so do not wait for it: `session.closing` keeps its task.
# - The answer is `send_started(resumed=True)`. Behind it goes what the client lacks (`flush`), and
#   `room.set()` wakes a `put` that waits.

# %% [markdown] card="ch4.come_back"
# The card of the exercise.


# %% keep="come_back" exercise="ch4.come_back"
async def come_back(socket, resume):
    """Give a connection the session that it asks for; Refused where there is none."""
    raise NotImplementedError("find the session, compare the token, rewind, and swap the sockets")


# %% keep="come_back" solution="ch4.come_back"
async def come_back(socket, resume):
    """Give a connection the session that it asks for; Refused where there is none."""
    new, session = serving[socket], lasting.get(resume.session)
    tokens = [] if session is None else session.tokens
    if not any(secrets.compare_digest(resume.token.encode(), one.encode()) for one in tokens):
        raise Refused("session_unknown", "no such session and token", "start without resume")
    session.replay.rewind(resume.received)
    # The answer with the new token may be lost, so the one that was used stays good.
    session.tokens = [resume.token, secrets.token_urlsafe(24)]
    old, session.socket, serving[socket] = session.socket, socket, session
    new.expire()
    if session.expiry is not None:
        session.expiry.cancel()
    if serving.pop(old, None) is not None:
        session.closing = asyncio.create_task(old.close(4006, "resumed on another connection"))
    await session.send_started(resumed=True)
    await session.flush()
    session.room.set()


# %% [markdown]
# Why `compare_digest`? `==` stops at the first character that differs, so how long it takes tells an
# attacker how many were right. And why is a token needed at all: who knows a session's name could
# otherwise have its conversation.
#
# ## Build it: let go
#
# Sessions that survive make a new failure: those that nobody comes back to. Two functions let go.
#
# What you keep here takes the place of chapter 2's `session_of`, by which every session ended with its
# connection. `handle` asks `has_place` about each new connection, before that is in `serving`. `leave` gets the
# session of a connection that has ended, for whatever reason. Most wait from then on: without a socket,
# in `lasting`, for `RESUME_S`, and `PLACES` of them at most. A session that never began, or that its
# client has ended, is not in `lasting`: nobody can come back to it, so it expires at once.

# %% [markdown] card="ch4.bounds"
# The card of the exercise.


# %% keep="life" exercise="ch4.bounds"
async def has_place(socket):
    """Whether there is a place for one more connection; where there is none, tell it."""
    raise NotImplementedError("count serving; where it is full, close with 1013 and a reason")


def leave(session):
    """A connection is gone: its session waits, for a while."""
    raise NotImplementedError("no socket; expire in RESUME_S; where too many wait, the oldest goes")


# %% keep="life" solution="ch4.bounds"
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
# noise. So read them in several ways, and see which reading is smooth. The client is told one of three
# codes: `looks_like_float32`, `looks_like_big_endian` (the high byte of each sample first), and
# `looks_like_file` for a WAV file, whose first four bytes are `RIFF`.

# %% [markdown] card="ch4.misread"
# The card of the exercise.


# %% keep="misread" exercise="ch4.misread"
def misread(audio):
    """What bytes that should be 16-bit samples look like instead: an error code, or None.

    The codes: looks_like_file, looks_like_float32, looks_like_big_endian.
    """
    raise NotImplementedError("b'RIFF' begins a file; otherwise, which reading is the smoothest?")


# %% keep="misread" solution="ch4.misread"
READINGS = {None: "<i2", "looks_like_float32": "<f4", "looks_like_big_endian": ">i2"}


def roughness(audio, kind):
    """How much neighbours differ, for their size: below 1 for speech, above it for noise."""
    samples = np.frombuffer(audio[: len(audio) // 4 * 4], kind).astype(float)
    size = np.abs(samples).sum()
    return np.abs(np.diff(samples)).sum() / size if np.isfinite(size) and size > 0 else np.inf


def misread(audio):
    """What bytes that should be 16-bit samples look like instead: an error code, or None.

    The codes: looks_like_file, looks_like_float32, looks_like_big_endian.
    """
    if audio.startswith(b"RIFF"):
        return "looks_like_file"
    with np.errstate(all="ignore"):  # bytes that are no floats may read as no numbers
        rough = {code: roughness(audio, kind) for code, kind in READINGS.items()}
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
# a WebSocket ping, and it closes a connection that leaves one unanswered for eight, with code 1011. Less
# would take a busy machine for a network that is gone. Both are short for a laboratory; labkit's server
# takes 20 s for each.


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
    """Serve one connection: its own session, or one that it comes back to."""
    if not await has_place(socket):
        return
    session = V1(socket) if socket.subprotocol == "labkit.v1" else Plain(socket)
    serving[socket] = session
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
        if isinstance(session, V1):
            leave(session)
        elif session is not None:
            session.is_active = False
            sessions.discard(session)


# %% keep="main"
def choose(socket, offered):
    """The dialect for a new connection: labkit.v1 where the client offers it, else the plain one."""
    return "labkit.v1" if "labkit.v1" in offered else None


async def main(port):
    """Serve until the program is ended. Callers who are gone are noticed within ten seconds."""
    options = {"select_subprotocol": choose, "process_request": pages}
    options |= {"ping_interval": 1, "ping_timeout": 8, "close_timeout": 1}  # seconds
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
crowd_after = await lab.leave_alone(after, said, watch_s=30)  # or until nobody is left
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

# %% guess="1000"
predict("ch4.satellite_ms", ...)

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
