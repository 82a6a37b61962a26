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
# # 1. A server
#
# *About 30 minutes. Needs: this checkout, set up with `make lab`. No network, no GPU, no
# microphone.*
#
# ## What you will be able to do
#
# - **build** a WebSocket server that hears speech and answers with speech;
# - **show** by a measurement that one blocking call stops every caller, and **fix** it;
# - **turn** samples into bytes and back without a click;
# - **refuse** what no server should take, and keep the conversation;
# - **send** the first sentence of a reply while the second is still being made.

# %%
from labkit import recording, say, show, start_mine, start_naive, stop_servers
from labkit.course import begin, check, hint, looks, measured, predict, quiz, solution

await begin(1)

# %% [markdown]
# ## A first server, and it works
#
# WebSockets keep one connection open for the whole conversation. The caller sends audio in binary
# messages while speaking, and text to say what should happen. This course's *plain dialect* has two
# words, and one answer for what goes wrong:
#
# | the caller sends | the server answers |
# |---|---|
# | binary messages: 16-bit samples, little-endian, mono, 16,000 a second | nothing |
# | text `end_stream` | what it heard, as JSON; the spoken reply, as binary; `done`, as JSON |
# | text `ping` | text `pong`, at once |
# | what cannot be taken | `{"type": "error", "code": "odd_length", "message": "…", "hint": "…"}`, or with the code `buffer_full`; the conversation goes on |
#
# This is how a first server looks: three models, everything in the handler.

# %%
import inspect

from labkit.course.naive_server import NaiveServer

print(inspect.getsource(NaiveServer))

# %% [markdown]
# Start it and talk to it. It runs in a process of its own, as every server does that is measured
# here. Play the reply: is there anything in it that you would not expect of a voice?

# %%
naive = await start_naive()
turn = await say(recording("ked-01"), naive)
turn

# %% [markdown]
# It works. Five things are wrong with it all the same. You are going to find each by measuring,
# before you fix it in a server of your own.
#
# ## Fault 1: one caller is answered, and all others wait
#
# A `ping` costs next to nothing, so its `pong` is back within a millisecond. One caller pings, again
# and again, while another is answered.
#
# **Predict first.** How long does the slowest `pong` take, in milliseconds, while the models work
# for somebody else?

# %% guess="20"
predict("ch1.slowest_pong_ms", ...)

# %%
naive_pings = await looks.measure_pings(naive, recording("ked-01"))
show(
    looks.plot_pings({"naive": naive_pings}).figure,
    alt="Round trip of each ping over time: short before the turn; the first ping in the turn "
    "waits until the turn is over.",
)
print(
    f"Idle, a pong takes {naive_pings.idle_ms:.1f} ms. While another caller was answered, the "
    f"slowest took {naive_pings.slowest_ms:.0f} ms, of a turn of {naive_pings.turn_ms:.0f} ms."
)
measured("ch1.slowest_pong_ms", naive_pings.slowest_ms)

# %% [markdown]
# Look for the gap in the figure: in the shaded time there is one `ping`, and its `pong` comes when the
# turn is over.
#
# An *event loop* runs one thing at a time, on one thread. `await` is where a function gives the loop
# away; between two of them it has the loop for itself. `self.asr.transcribe(...)` computes, and has no
# `await` in it. For that long the server accepts nobody, reads nothing and sends nothing, to any caller.
#
# ## Fault 2: the loudest sample clicks
#
# The voice gives samples between −1 and 1, as floats. On the wire they are 16-bit integers. The naive
# server multiplies by 32768 and casts. This draws the reply around the place where two neighbours are
# furthest apart.

# %%
reply = turn.reply_audio
at = looks.largest_jump(reply)
show(
    looks.plot_samples(reply, at).figure,
    alt="Samples of the reply as dots: a smooth curve up to its highest point, where one sample "
    "lies at the very bottom.",
)
print(f"Neighbours in the reply: {reply[at]:+.3f}, then {reply[at + 1]:+.3f}.")

# %% [markdown]
# One dot lies at the bottom, between neighbours at the top. `1.0 * 32768` is 32768, one more than 16
# bits hold, and the bits of 32768 read as −32768. Play the reply again: that dot is the click.
#
# ## Fault 3: three bytes end the conversation
#
# A sample has two bytes. What happens when somebody sends three?

# %%
import asyncio

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

async with connect(naive.url) as socket:
    await socket.send(b"abc")
    await socket.send("end_stream")
    try:
        print(await socket.recv())
    except ConnectionClosed as closed:
        print("the connection is gone:", closed)
await asyncio.sleep(0.3)  # until its last words are written
print("the server's last words:", *naive.log().splitlines()[-1:])

# %% [markdown]
# The handler raised, so the library closed the connection, with code 1011: the server's fault. The
# conversation is lost, and the caller was never told what was wrong.
#
# ## Fault 4: a caller can fill the memory
#
# Nothing says how long an utterance may be. Half an hour of silence is 1,800 messages of 32,000 bytes,
# 58 MB. The process grows by more than that: it also keeps room for the buffer to grow, and memory that
# it has used on the way.

# %%
before = naive.usage().rss_bytes
async with connect(naive.url) as socket:
    for _ in range(1800):
        await socket.send(bytes(32_000))  # one second
    await socket.send("ping")
    await socket.recv()
    grown = naive.usage().rss_bytes - before
print(f"The server has grown by {grown / 1e6:.0f} MB, for one caller who never asked for anything.")

# %% [markdown]
# ## Fault 5: the reply waits for its last sample
#
# This reply has two sentences. When does its sound arrive?

# %%
naive_arrivals = await looks.measure_arrivals(naive, recording("slt-deep-08"))
show(
    looks.plot_arrivals({"naive": naive_arrivals}).figure,
    alt="Audio that has arrived, over time: nothing for a long while, then all of it at once.",
)
print(
    f"The first sound comes after {naive_arrivals.at_ms[0]:.0f} ms, together with all the other "
    f"{sum(naive_arrivals.seconds):.1f} s."
)

# %% [markdown]
# The caller could have listened to the first sentence while the second was made. Speech takes longer
# to play than to make.
#
# ## The checks
#
# A *check* talks to a live server as a caller would, with recordings, chunk sizes and bytes that are
# drawn anew each time. It says what held, then the first thing that did not: what was expected, and
# what came. Chapter 1 has ten. This runs them on the naive server. Besides the five faults, a transcript
# may be wrong: asked in the plainest way, the recogniser now and then adds words that nobody said.

# %%
await check("ch1", naive, strict=False)

# %% [markdown]
# Open *The messages* under one that failed: time runs down, and the message at fault is marked. All that
# was sent and received lies in the folder that is named as evidence, as sound too.
#
# ## Build your own
#
# A cell that begins with `%%keep` runs as usual, and becomes a section of `server.py` in your folder.
# Run it again, and the section is replaced. At the end of chapter 4 that file is your server. If you
# come back to this chapter then, a copy of the later server is put aside before a cell here changes
# what the later one needs, and you are told how to get it back.
#
# There are four exercises. Each has a cell behind it to try it by hand; the checks need all four, so they
# come at the end. Nothing has to be right at once: change the cell, run it, and try again.
#
# `Models` are the three models with three calls: `models.hear(samples)` gives words,
# `models.think(messages)` a list of sentences, `models.speak(sentence)` samples. Each *blocks*: it holds
# the thread that calls it until it is done.

# %% keep="imports"
import asyncio
import json
import os

import numpy as np
from websockets.asyncio.server import serve

from labkit.course import Models
from labkit.errors import ErrorCode, ProtocolError

RATE = 16_000  # samples a second
LONGEST_S = 60  # of one utterance
PIECE = RATE // 5  # samples of one message of a reply
models = Models.load()

# %% [markdown] card="ch1.samples"
# The card of the exercise.


# %% keep="audio" exercise="ch1.samples"
def from_wire(data):
    """Bytes of 16-bit samples, little-endian → float32 samples in [-1, 1)."""
    raise NotImplementedError("give the samples in data, divided by 32768")


def to_wire(samples):
    """Float32 samples → bytes of 16-bit samples, little-endian."""
    raise NotImplementedError("give the bytes; a sample of 1.0 becomes 32767")


# %% keep="audio" solution="ch1.samples"
def from_wire(data):
    """Bytes of 16-bit samples, little-endian → float32 samples in [-1, 1)."""
    return np.frombuffer(data, "<i2").astype(np.float32) / 32768


def to_wire(samples):
    """Float32 samples → bytes of 16-bit samples, little-endian."""
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes()


# %% [markdown]
# Look at a tone whose peaks reach 1.0, there and back. The curve should have no dot on the wrong side.

# %%
tone = np.sin(np.arange(400) * 0.1).astype(np.float32)
tone[np.abs(tone) > 0.995] = np.sign(tone[np.abs(tone) > 0.995])
again = from_wire(to_wire(tone))
off = np.abs(again - tone).max()
show(
    looks.plot_samples(again, 40).figure,
    alt=f"A sine wave as dots, there and back; the dot that is furthest off is off by {off:.5f}.",
)
print(f"The samples are off by {off:.5f} at most; one step of 16 bits is {1 / 32768:.5f}.")

# %% [markdown]
# What cannot be taken is refused with an exception, `ProtocolError(code, message, hint)`: its `code` is for programs, the
# other two are for people, what was wrong and what to send instead. The handler below tells the caller.

# %% [markdown] card="ch1.chunks"
# The card of the exercise.


# %% keep="chunks" exercise="ch1.chunks"
def take(buffer, chunk):
    """Add a chunk to the buffer of the utterance, whole; raises ProtocolError where it is refused.

    The code is ErrorCode.ODD_LENGTH for an odd number of bytes, and ErrorCode.BUFFER_FULL where the
    buffer would hold more than LONGEST_S seconds.
    """
    raise NotImplementedError("refuse what is no whole number of samples, and what is too much")


# %% keep="chunks" solution="ch1.chunks"
def take(buffer, chunk):
    """Add a chunk to the buffer of the utterance, whole; raises ProtocolError where it is refused."""
    if len(chunk) % 2:
        raise ProtocolError(ErrorCode.ODD_LENGTH, f"{len(chunk)} bytes", "send whole samples")
    if len(buffer) + len(chunk) > LONGEST_S * RATE * 2:
        raise ProtocolError(ErrorCode.BUFFER_FULL, f"{LONGEST_S} s at most", "end the utterance")
    buffer.extend(chunk)


# %% [markdown]
# Try it by hand: what do three bytes give, and how much is in the buffer after an hour? There
# should be an error for each, `odd_length` and `buffer_full`, and 60 s in the buffer.

# %%
buffer, refused = bytearray(), {}
for chunk in (b"abc", *[bytes(32_000)] * 3600):
    try:
        take(buffer, chunk)
    except ProtocolError as error:
        refused[error.code] = f"{error.code}: {error} ({error.hint})"
print(*refused.values(), f"{len(buffer) / 32_000:.0f} s are in the buffer", sep="\n")

# %% [markdown] card="ch1.off_loop"
# The card of the exercise.


# %% keep="off_loop" exercise="ch1.off_loop"
async def off_loop(call, *arguments):
    """Run a call that blocks, and leave the event loop to everybody else."""
    raise NotImplementedError("run call(*arguments) on another thread, and await what it gives")


# %% keep="off_loop" solution="ch1.off_loop"
async def off_loop(call, *arguments):
    """Run a call that blocks, and leave the event loop to everybody else."""
    return await asyncio.to_thread(call, *arguments)


# %% [markdown]
# A thread helps here because these models compute in C, and let go of Python's lock meanwhile. Watch the
# loop while something blocks: each dot is a moment at which it was free. There should be nearly thirty.

# %%
import time

free = []
blocking = asyncio.ensure_future(off_loop(time.sleep, 0.3))
while not blocking.done():
    free.append(time.perf_counter())
    await asyncio.sleep(0.01)
await blocking
print("." * len(free), f"the loop was free {len(free)} times in 300 ms")

# %% [markdown] card="ch1.say"
# The card of the exercise.


# %% keep="say" exercise="ch1.say"
async def say_reply(socket, sentences):
    """Speak one sentence after the other, and send each in pieces."""
    raise NotImplementedError("speak a sentence, send it in pieces, then speak the next")


# %% keep="say" solution="ch1.say"
async def say_reply(socket, sentences):
    """Speak one sentence after the other, and send each in pieces."""
    for sentence in sentences:
        speech = await off_loop(models.speak, sentence)
        for start in range(0, len(speech), PIECE):
            await socket.send(to_wire(speech[start : start + PIECE]))


# %% [markdown]
# Speak two sentences to nobody: when does each piece leave? There should be a pause between the two
# sentences, while the second is made, and the two numbers at the end should be the same: nothing that
# the voice made may be lost, not even the last piece of a sentence, which is a short one.


# %%
class Nobody:
    """In place of a caller: notes what is sent, and when."""

    async def send(self, message):
        sent.append(len(message) // 2)
        print(f"{(time.perf_counter() - begun) * 1e3:6.0f} ms  {len(message) // 2:5} samples")


sentences = ["Good morning.", "The kitchen light is on."]
made = sum(len(models.speak(sentence)) for sentence in sentences)
sent, begun = [], time.perf_counter()
await say_reply(Nobody(), sentences)
print(f"The voice made {made} samples, and you sent {sum(sent)}.")

# %% [markdown]
# What is left is given: the turn, and the handler that reads until the caller leaves. Read it and find
# where each of your functions is called, and every place where another caller may get a turn.
#
# `main` serves on the port that the environment variable `PORT` names. Its last two lines are for
# `python server.py`: a kept cell runs as if the file were imported, so here they start nothing.


# %% keep="turn"
async def answer(socket, audio, history):
    """One turn: what was heard, the reply as it is spoken, and `done`."""
    words = await off_loop(models.hear, from_wire(audio))
    await socket.send(json.dumps({"type": "transcript", "text": words}))
    sentences = []
    if words:
        history.append({"role": "user", "content": words})
        sentences = await off_loop(models.think, history)
        history.append({"role": "assistant", "content": " ".join(sentences)})
    await say_reply(socket, sentences)
    await socket.send(json.dumps({"type": "done", "reply_text": " ".join(sentences)}))


async def handle(socket):
    """Serve one caller, until they leave."""
    buffer, history = bytearray(), []
    async for message in socket:
        try:
            if isinstance(message, bytes):
                take(buffer, message)
            elif message == "ping":
                await socket.send("pong")
            elif message == "end_stream":
                audio = bytes(buffer)
                buffer.clear()
                await answer(socket, audio, history)
        except ProtocolError as error:
            told = {"code": error.code, "message": str(error), "hint": error.hint}
            await socket.send(json.dumps({"type": "error", **told}))


# %% keep="main"
async def main(port):
    """Serve until the program is ended."""
    async with serve(handle, "127.0.0.1", port) as server:
        port = server.sockets[0].getsockname()[1]
        print(f"your server is ready at ws://127.0.0.1:{port}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(os.environ.get("PORT", "8766"))))

# %% [markdown]
# ## Check it
#
# `check` takes your handler. With the name of an exercise, as in `check("ch1.chunks", handle)`, it runs
# the checks of that one only. When one does not pass: `hint("ch1.pong")` gives a hint, another at each
# call, and `solution("ch1.say")` shows the solution of an exercise.

# %%
await check("ch1", handle)

# %% [markdown]
# The same once more, for what was *kept*: your file in a fresh process. It would find a name that exists
# in this notebook only.

# %%
await check("ch1", fresh=True)

# %% [markdown]
# ## Break it
#
# A check that cannot fail is worth nothing. This puts the blocking call back for a moment. Does the check
# notice, and how long does the slowest `pong` take now? Predict, then run.


# %%
async def blocking_call(call, *arguments):
    return call(*arguments)


off_loop, mine = blocking_call, off_loop
try:
    broken = await check("ch1.pong_while_busy", handle, strict=False, record=False)
finally:
    off_loop = mine
broken

# %% [markdown]
# ## Measure it
#
# Your server in a process of its own, beside the naive one.

# %%
server = await start_mine()
naive = await start_naive()
pings = {
    "naive": await looks.measure_pings(naive, recording("slt-deep-08")),
    "yours": await looks.measure_pings(server, recording("slt-deep-08")),
}
arrivals = {
    "naive": await looks.measure_arrivals(naive, recording("slt-deep-08")),
    "yours": await looks.measure_arrivals(server, recording("slt-deep-08")),
}
show(
    looks.plot_pings(pings).figure,
    alt="Round trips of ping while a turn runs; the slowest of each server: "
    + ", ".join(f"{name} {one.slowest_ms:.0f} ms" for name, one in pings.items()),
)
show(
    looks.plot_arrivals(arrivals).figure,
    alt="Audio that has arrived, over time; its first sound and its last: "
    + ", ".join(
        f"{name} {one.at_ms[0]:.0f} and {one.at_ms[-1]:.0f} ms" for name, one in arrivals.items()
    ),
)
print("server  slowest pong, ms  first sound, ms  whole reply, ms")
for name in pings:
    first, last = arrivals[name].at_ms[0], arrivals[name].at_ms[-1]
    print(f"{name:6}  {pings[name].slowest_ms:16.1f}  {first:15.0f}  {last:15.0f}")
ratio = pings["naive"].slowest_ms / pings["yours"].slowest_ms
print(f"While somebody else is answered, your server says pong {ratio:.0f} times sooner.")

# %% [markdown]
# ## Recap
#
# | fault | why | what you did |
# |---|---|---|
# | every caller waits for one | the event loop runs one thing at a time | blocking calls on a thread |
# | a click | 1.0 × 32768 does not fit into 16 bits | limit, then cast |
# | three bytes end it all | an exception in the handler closes the connection | refuse, with a name for the reason |
# | the memory fills | nothing said how long an utterance may be | a bound, told when it is reached |
# | the first sound comes last | everything was made before anything was sent | sentence by sentence, in pieces |
#
# ## Quiz

# %%
quiz("ch1")

# %% [markdown]
# ## Clean up

# %%
await stop_servers()

# %% [markdown]
# ## Next
#
# Your handler keeps buffer and history in two local variables. Chapter 2 asks what else belongs to a
# session, what two callers may never share, and what has to be gone when one leaves.
