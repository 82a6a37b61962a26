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
# *About an hour, five minutes of it for the machine. Needs: this checkout, set up with `make lab`. No network, no GPU, no
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
from labkit.course import Turns, begin, check, hint, lab, measured, predict, quiz, solution

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
print(
    f"The recording says {said.text!r}, in {2 * len(lab.samples_of(said)) / 1000:.0f} kB of audio."
)

# %% [markdown]
# ## Failure 1: the connection drops
#
# Two calls say the recording. The first is left alone. The second is cut on its way *up*, to the server, after
# 45,000 bytes, in the middle of the sentence; the client comes back and goes on with what it had not sent.
#
# **Predict first.** How many percent of the words does your server hear, when the connection is cut in
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
# `session.start` says 16-bit integers, and floats come. Both are only bytes. Turn the volume down before you
# play it.

# %%
print(await lab.say_floats(before, said))
play(lab.misread_as_integers(said), "What the server hears: floats, read as integers. It is noise.")

# %% [markdown]
# No error, no words, and the caller is left to guess.
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
# - The client comes back with `resume`: the session's name (`session`), its secret `token`, and its position in
#   the reply (`received`). The server sends what lies behind it.
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
# ## A window of what was said
#
# The server keeps what it said until the client has acknowledged it, and what it has not sent yet. That is
# labkit's `ReplayWindow`, which its own server and client use. You add at its end, `take` the next message to send,
# and say what the client has: `acknowledge(position)` lets go of what lies before a position, and `rewind(position)`
# sends again what lies behind it. Both raise `ProtocolError` where a client claims a position that it cannot have.
#
# Four messages were sent, two of them pieces of four samples; the client has a message and six samples. **Predict**
# which bytes are sent again before you run it.

# %%
from labkit.protocol.replay import Position, ReplayWindow

window = ReplayWindow(max_bytes=100, max_samples=100, until_acknowledged=True)
window.add_text("hello")
window.add_audio(b"aabbccdd", samples=4)
window.add_audio(b"eeffgghh", samples=4)
window.add_text("done")
print("it sends:", [window.take() for _ in range(window.waiting)])
window.rewind(Position(messages=1, samples=6))
print("it sends again:", [window.take() for _ in range(window.waiting)])
window.acknowledge(Position(messages=2, samples=8))
print("kept, when all of it is acknowledged:", window.held_bytes, "bytes")

# %% [markdown]
# ## What lasts
#
# A connection and its session are two things from here on, so the server keeps two tables: which session each
# connection has, and the sessions that a client may come back to. `expire` takes a session out, for good. `LIMITS` are
# what clients are told in `session.started`, and what you keep to. This cell is given, and so are the next four.

# %% keep="lasting"
from labkit.protocol.limits import Limits

LIMITS = Limits(resume_s=3)  # labkit's server lets sessions wait for 120 s
serving = {}  # connections, and the session of each
lasting = {}  # sessions of labkit.v1, by name


def expire(session):
    """Forget a session, and all that it holds."""
    session.is_active = False
    sessions.discard(session)
    if session in lasting.values():
        del lasting[session.id]
        session.turns.cancel()


# %% [markdown]
# A session that lasts has to keep more than one of chapter 3, so it needs a new `begin`. The next cell takes the place
# of chapter 3's section of the same name, in your file too. Four things are new:
#
# - what is said of a turn will wait in `session.replay`, and `session.room` is set when there may be room in it again;
# - what is heard is counted, in `session.received`, and each `audio.end` is acknowledged;
# - turns run in a task of their own, one after the other, so that they go on while the client is away, and so that
#   `ping` and `response.ack` are read meanwhile. labkit's `Turns` does that, for a bounded number; `help(Turns)` tells
#   what becomes of a turn that fails;
# - `session.expiry` will be the timer that lets the session go when nobody comes back to it. None runs yet.

# %% keep="begin"
from labkit.audio.formats import StreamDecoder, StreamEncoder
from labkit.audio.misread import FormatWatch
from labkit.course import Turns


async def begin(session, start):
    """Begin a session in the formats that the client asks for, or the one that it comes back to."""
    if start.resume is not None:
        return await come_back(session.socket, start.resume)
    session.start, lasting[session.id] = start, session
    session.decoder = StreamDecoder(start.input.format)
    session.encoder = StreamEncoder(start.output.format)
    session.watch = FormatWatch(start.input.format)
    session.replay = LIMITS.replay_window(start.output.sample_rate, start.acknowledges)
    session.room, session.expiry = asyncio.Event(), None
    session.turns = Turns(LIMITS.max_waiting_turns, session.tell)
    await session.welcome()


async def end_utterance(session):
    """Answer it behind those that wait, whatever becomes of the connection, and read on."""
    session.received = session.received.plus(messages=1)
    await session.tell(v1.AudioAck(received=session.received))
    session.buffer.extend(session.decoder.flush().tobytes())
    audio = bytes(session.buffer)
    session.buffer.clear()
    session.turns.add(answer, session, audio)


# %% [markdown]
# Three more cells are given. The first takes the place of chapter 2's `attached`, by which every session ended with its
# connection. It does hardly anything yet: it is your last exercise. `handle` knows for each connection which session it
# serves, so that another connection can take it over; what the old one still says then is passed over.
#
# `main` looks after callers who are gone: every second, the library sends a WebSocket ping, and it closes a connection
# that leaves one unanswered for eight, with code 1011. Less would take a busy machine for a network that is gone. Both
# are short for a laboratory; labkit's server takes 20 s for each.


# %% keep="life"
async def has_place(socket):
    """Whether there is a place for one more connection; for now, always."""
    return True


def leave(session):
    """A connection is gone; for now, a session that its client may come back to waits for ever."""
    if session not in lasting.values():
        expire(session)


# %% keep="handle"
async def handle(socket):
    """Serve one connection: its own session, or one that it comes back to."""
    if not await has_place(socket):
        return
    serving[socket] = V1(socket) if socket.subprotocol == "labkit.v1" else SessionState(socket)
    sessions.add(serving[socket])
    try:
        async for message in socket:
            if (session := serving.get(socket)) is None:
                continue  # another connection has it now
            try:
                await session.receive(message)
            except ProtocolError as error:
                await session.refuse(error)
    except ConnectionClosed:
        pass  # callers go away without a word, and that is no fault
    finally:
        if session := serving.pop(socket, None):
            leave(session)


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
# ## Build it: say it, and keep it
#
# In chapter 3, `put` sent each message at once, and forgot it. Now it has three steps:
#
# 1. While `session.replay.has_room` is false, as much as may be kept is kept already: wait for `session.room`, which
#    `acknowledge` sets. `clear` it before you wait, since it may be set from before.
#    This line is the whole fix of failure 3. Where too much is not acknowledged, the reply is not made any further.
#    That is *backpressure*.
# 2. Add the message: `add_audio(message, samples)`, or `add_text(…)` with the next number, as in chapter 3.
# 3. `flush(session)`, which is yours, too: take from the window and send, message by message, for as long as
#    `serving` says that this connection has this session. When nothing waits any more, `session.replay.take()` gives
#    `None`. Where the connection is gone, `ConnectionClosed` is no fault: the window has it all.

# %% [markdown] card="ch4.put"
# The card of the exercise.


# %% keep="stream" exercise="ch4.put"
async def put(session, message):
    """Say something that may have to be said again; wait while too much is kept."""
    raise NotImplementedError("wait for room, add it to session.replay with its number, and flush")


async def flush(session):
    """Send what waits, for as long as the session has this connection."""
    raise NotImplementedError("while serving has the session here: session.replay.take(), and send")


def acknowledge(session, received):
    """The client has everything up to there: forget it, and there is room for more."""
    session.replay.acknowledge(received)
    session.room.set()


# %% keep="stream" solution="ch4.put"
async def put(session, message):
    """Say something that may have to be said again; wait while too much is kept."""
    while not session.replay.has_room:
        session.room.clear()
        await session.room.wait()
    if isinstance(message, bytes):
        samples = len(message) // session.start.output.format.frame_bytes
        session.samples += samples
        session.replay.add_audio(message, samples)
    else:
        session.seq += 1
        session.replay.add_text(message.model_copy(update={"seq": session.seq}).encode())
    await flush(session)


async def flush(session):
    """Send what waits, for as long as the session has this connection."""
    socket = session.socket
    while serving.get(socket) is session and (message := session.replay.take()) is not None:
        with suppress(ConnectionClosed):
            await socket.send(message)


def acknowledge(session, received):
    """The client has everything up to there: forget it, and there is room for more."""
    session.replay.acknowledge(received)
    session.room.set()


# %% [markdown]
# Of its two checks, this one can run now. `ch4.nothing_lost` needs all of the next two exercises, too.

# %%
await check("ch4.slow_reader", handle)

# %% [markdown]
# ## Build it: name what was sent instead
#
# Speech is smooth. The next value is close to the last one, unless the bytes are read wrongly; then it is noise. So
# read them in several ways, and see which reading is smooth. That is what labkit's `FormatWatch` does, for each
# caller, now and then; its text says what cannot be told. It is fed each message with the time at which it came, in
# nanoseconds of `time.perf_counter_ns()`, and gives what is new about the stream: `ProtocolError`s, mostly none.
#
# The recording, sent in three ways. Each line should name what it is.

# %%
from labkit import WIRE
from labkit.audio.misread import FormatWatch

samples = lab.samples_of(said)
for name, form in (("as declared", "<i2"), ("floats", "<f4"), ("high byte first", ">i2")):
    data = (samples if form == "<f4" else samples * 32767).astype(form).tobytes()
    watch, ns_per_byte = FormatWatch(WIRE), 1e9 * len(samples) / RATE / len(data)
    steps = range(0, len(data), 1280)
    found = [one for at in steps for one in watch.feed(data[at : at + 1280], int(at * ns_per_byte))]
    print(
        f"{name}: {', '.join(one.code for one in found) or 'nothing is wrong'}",
        *found,
        sep="\n    ",
    )

# %% [markdown]
# The new `hear` is that of chapter 3 and two things more. It counts: `session.received.plus(samples=…)`, for all that
# is a whole number of samples. And `session.watch` sees each message *before* it is decoded: what is floats by
# mistake may be no numbers, which the decoder refuses. A finding is a guess, so the caller is told
# (`session.refuse`), and the audio is taken all the same. If you began with this chapter, read the `hear` of
# chapter 3 first: it is in `server_of_03.py`, in the folder of this notebook, below the line that begins with
# `# %% hear`.

# %% [markdown] card="ch4.misread"
# The card of the exercise.


# %% keep="hear" exercise="ch4.misread"
import time

from labkit.errors import AudioError


async def hear(session, data):
    """A binary message: audio in the caller's format, or something to refuse."""
    raise NotImplementedError(
        "hear of chapter 3; count the samples, and let session.watch see them"
    )


# %% keep="hear" solution="ch4.misread"
import time

from labkit.errors import AudioError


async def hear(session, data):
    """A binary message: audio in the caller's format, or something to refuse."""
    v1.require_audio(data, max_bytes=LIMITS.max_message_bytes)
    samples, rest = divmod(len(data), session.start.input.format.frame_bytes)
    if rest:
        raise ProtocolError(ErrorCode.ODD_LENGTH, f"{len(data)} bytes", "send whole samples")
    session.received = session.received.plus(samples=samples)
    for guess in session.watch.feed(data, time.perf_counter_ns()):
        await session.refuse(guess)
    try:
        take(session.buffer, session.decoder.feed(data).tobytes())
    except AudioError as error:
        raise ProtocolError(ErrorCode.INVALID_AUDIO, str(error), "send finite floats") from None


# %%
await check("ch4.misread", handle)

# %% [markdown]
# ## Build it: the way back
#
# A connection begins with a session of its own, `serving[socket]`, which `handle` makes for it. If its
# `session.start` has `resume`, `begin` above calls `come_back`. What has to happen there:
#
# - If there is no session of that name in `lasting`, or the token is none of its `tokens` (compare them by
#   `secrets.compare_digest`, as bytes), raise `ProtocolError` with `SESSION_UNKNOWN`. `rewind` refuses a
#   position that the client cannot have. In both cases nothing may have changed, and the client may still send
#   `session.start` without `resume`.
# - Otherwise the session gets a new token, and keeps the one that was used until the client uses the new
#   one: the answer with it may be lost, too. The last of `tokens` is the one that the client is told.
# - The session has the new socket now, `serving` says so, it does not expire any more (`session.expiry` is None, or a
#   timer to `cancel()`), and nothing is left of the new session. The old connection is in `serving` no more.
# - The answer is `session.welcome(resumed=True, missing=…)`, with what `rewind` gave. Behind it goes what the client
#   lacks (`flush`), and `room.set()` wakes a `put` that waits.
# - Last, the old connection is closed with 4006. That takes a second where nobody answers, so nothing else may wait
#   behind it.

# %% [markdown] card="ch4.come_back"
# The card of the exercise.


# %% keep="come_back" exercise="ch4.come_back"
async def come_back(socket, resume):
    """Give a connection the session that it asks for; ProtocolError where there is none."""
    raise NotImplementedError("find the session, compare the token, rewind, and swap the sockets")


# %% keep="come_back" solution="ch4.come_back"
async def come_back(socket, resume):
    """Give a connection the session that it asks for; ProtocolError where there is none."""
    new, session = serving[socket], lasting.get(resume.session)
    tokens = [] if session is None else session.tokens
    if not any(secrets.compare_digest(resume.token.encode(), one.encode()) for one in tokens):
        raise ProtocolError(ErrorCode.SESSION_UNKNOWN, "no such session and token", "start anew")
    missing = session.replay.rewind(resume.received)
    # The answer with the new token may be lost, so the one that was used stays good.
    session.tokens = [resume.token, secrets.token_urlsafe(24)]
    old, session.socket, serving[socket] = session.socket, socket, session
    serving.pop(old, None)
    expire(new)
    if session.expiry:
        session.expiry.cancel()
    await session.welcome(resumed=True, missing=missing)
    await flush(session)
    session.room.set()
    await old.close(4006, "resumed on another connection")  # where it is closed, nothing happens


# %%
await check("ch4.come_back", handle)

# %% [markdown]
# Now the check of `put` that was left: six cuts at drawn bytes, up and down, and each sample is compared. It is the
# hardest of the course.

# %%
await check("ch4.nothing_lost", handle)

# %% [markdown]
# Why `compare_digest`? `==` stops at the first character that differs, so how long it takes tells an
# attacker how many were right. And why is a token needed at all: who knows a session's name could
# otherwise have its conversation.
#
# ## Build it: let go
#
# Sessions that survive make a new failure: those that nobody comes back to. Two functions let go, in the place of
# the two that were given:
#
# - `handle` asks `has_place` about each new connection, before that is in `serving`. Where `PLACES` connections are
#   there already, close the new one with code 1013 and a reason, and give False.
# - `leave` is called when a connection has ended, for whatever reason, and is no longer in `serving`. It gets the
#   session that the connection had. The session waits for `LIMITS.resume_s`; then `expire`, above, forgets it. A
#   session that is not in `lasting` expires at once, since nobody can come back to it: one of the plain dialect, or
#   one that never began. So does one where `lasting` holds more than `2 * PLACES`: those who come and go may not fill
#   the memory either.

# %% [markdown] card="ch4.bounds"
# The card of the exercise.


# %% keep="life" exercise="ch4.bounds"
PLACES = 64  # connections; and as many sessions that wait


async def has_place(socket):
    """Whether there is a place for one more connection; where there is none, tell it."""
    raise NotImplementedError("count serving; where it is full, close with 1013 and a reason")


def leave(session):
    """A connection is gone: its session waits, for a while."""
    raise NotImplementedError("expire it in LIMITS.resume_s; or at once, where it may not wait")


# %% keep="life" solution="ch4.bounds"
PLACES = 64  # connections; and as many sessions that wait


async def has_place(socket):
    """Whether there is a place for one more connection; where there is none, tell it."""
    if len(serving) < PLACES:
        return True
    await socket.close(1013, f"all {PLACES} places are taken; try again in a few seconds")
    return False


def leave(session):
    """A connection is gone: its session waits, for a while."""
    if session not in lasting.values() or len(lasting) > 2 * PLACES:
        return expire(session)
    session.expiry = asyncio.get_running_loop().call_later(LIMITS.resume_s, expire, session)


# %%
await check("ch4.bounds", handle)

# %% [markdown]
# ## Check it
#
# The nine checks of this chapter on your file, in a process of its own: `ch4.killed` can kill it now. And everything
# from chapter 1 on with it, since what was right before should still be. It takes a minute.

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
# when its client arrives: `LIMITS.resume_s` has to be longer than the worst way back. Three seconds are for a
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
# | the connection drops | half a sentence, half a reply | positions, replay, resume | `put`, `flush`, `come_back` |
# | wrong format | silence, no error | read it in several ways, name it | `hear`, with `FormatWatch` |
# | a client takes nothing | memory without an end | wait for acknowledgements | `put` |
# | callers never come back | sessions without an end | places, expiry, keepalive | `has_place`, `leave`, `main` |
# | the process dies | everything is gone | say so; the client keeps its half | `come_back` |
#
# ## Quiz

# %%
quiz("ch4")

# %% [markdown]
# ## Clean up

# %%
await stop_servers()

# %% [markdown]
# Your server is complete. **Next:** `05_latency_exercise` measures it, beside labkit's and the naive one.
