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
# # 2. State of a session
#
# *About 40 minutes. Needs: this checkout, set up with `make lab`. No network, no GPU, no
# microphone.*
#
# ## What you will be able to do
#
# - **show** what happens when two callers share one variable, and **keep** them apart;
# - **bound** a conversation's memory, by a number that you have measured;
# - **let go** of a caller however they leave, and **prove** it by counting;
# - **tell** from outside how many callers a server has, and what it keeps for them.

# %%
from labkit import ServerPanel, play, recording, recordings, say, show, start_mine, stop_servers
from labkit.course import begin, callers, check, hint, measured, predict, quiz, solution

await begin(2)

# %% [markdown]
# ## What broke last time
#
# HTTP forgets: each request brings all that is needed to answer it. A conversation does not work like
# that. Between two messages of a caller the server has to remember the half of a sentence that came, what
# was said before, and whether anybody is still there. That is the *state* of a *session*, and most faults
# of voice servers are in it.
#
# Chapter 1 kept it in two local variables of `handle`. Nobody can share those by mistake. But nobody else
# can see them, either: not the page that says how many callers there are, not the client that comes back
# after its connection broke (chapter 4). So the state has to move out of `handle`, and the first place that
# comes to mind is this one.
#
# `begin` has run the file that this chapter builds on, section by section. So `from_wire`, `off_loop`,
# `models` and all the other names of chapter 1 are here, and so are its imports.
#
# ## Fault 1: one buffer for everybody
#
# Two callers speak at the same time, into one buffer. **Predict first**: of the words that they say, how
# many percent come out right in the transcripts that they get?

# %% guess="50"
predict("ch2.words_right_percent", ...)

# %%
buffer = bytearray()  # of the module: every caller's audio goes in here
names = {}
came = []  # who sent each message, and how long it was
utterances = []


async def handle_shared(socket):
    async for message in socket:
        if isinstance(message, bytes):
            name = names.setdefault(socket, f"caller {len(names) + 1}")
            came.append((name, len(message)))
            buffer.extend(message)
        elif message == "ping":
            await socket.send("pong")
        elif message == "end_stream":
            utterances.append(from_wire(buffer))
            buffer.clear()
            words = await off_loop(models.hear, utterances[-1])
            await socket.send(json.dumps({"type": "transcript", "text": words}))
            await socket.send(json.dumps({"type": "done", "reply_text": ""}))


said = [recording("ked-03"), recording("slt-04")]
async with serve(handle_shared, "127.0.0.1", 0) as shared:
    url = f"ws://127.0.0.1:{shared.sockets[0].getsockname()[1]}"
    turns = await asyncio.gather(*(say(one, url) for one in said))
heard = [turn.heard for turn in turns]
for one, words in zip(said, heard, strict=True):
    print(f"said:  {one.text}\nheard: {words or '(nothing)'}\n")
right = callers.words_right([one.text for one in said], heard)
print(f"{right:.0f} % of the words came out right.")
measured("ch2.words_right_percent", right)

# %% [markdown]
# This is what the recogniser was given. Play it: each voice is cut into pieces of 40 ms, the length of one
# message, and the other one's pieces lie between them. The figure shows the first second of it.

# %%
play(utterances[0], f"two callers in one buffer: {said[0].text}; {said[1].text}")
show(
    callers.plot_buffer(came).figure,
    alt="Two rows of bars, one for each caller, which alternate: a piece of one voice, then a piece "
    "of the other.",
)
turned = sum(one[0] != other[0] for one, other in zip(came, came[1:], strict=False))
print(f"{len(came)} messages came; {turned} times, the next one was the other caller's.")

# %% [markdown]
# Nothing raised and nothing was logged. With one caller every test passes: this fault needs two at the
# same time, so it is found by a test with two callers, or by the callers.
#
# A variable of the module is one way to share by mistake. Others are an attribute of a class
# (`buffer = bytearray()` under `class`), a default argument (`history=[]` is made once, when `def` runs), and
# an object that is reused for the next caller.
#
# ## Build: one object for each caller
#
# All that is kept of a caller goes into one object, and all that is sent to them goes through it. Its `is_active` is
# `True` from the beginning, until the caller is gone.

# %% [markdown] card="ch2.session"
# The card of the exercise.

# %% keep="session" exercise="ch2.session"
from websockets.exceptions import ConnectionClosed

sessions = set()  # every state that the server keeps


class SessionState:
    """All that the server knows of one caller."""

    def __init__(self, socket):
        raise NotImplementedError("keep socket, buffer, history and is_active, each in self")

    async def send_transcript(self, text):
        """Tell the caller what was heard."""
        raise NotImplementedError('send JSON text: "type" is "transcript", "text" is the text')

    async def send_audio(self, samples):
        """Send a piece of the reply."""
        raise NotImplementedError("send the samples as bytes, with to_wire")

    async def send_done(self, text):
        """Tell the caller that the turn is over."""
        await self.socket.send(json.dumps({"type": "done", "reply_text": text}))

    async def refuse(self, error):
        """Tell the caller what was refused, and why."""
        told = {"code": error.code, "message": str(error), "hint": error.hint}
        await self.socket.send(json.dumps({"type": "error", **told}))

    async def receive(self, message):
        """Do what one message of the caller asks for."""
        if isinstance(message, bytes):
            take(self.buffer, message)
        elif message == "ping":
            await self.socket.send("pong")
        elif message == "end_stream":
            audio = bytes(self.buffer)
            self.buffer.clear()
            await answer(self, audio)


# %% keep="session" solution="ch2.session"
from websockets.exceptions import ConnectionClosed

sessions = set()  # every state that the server keeps


class SessionState:
    """All that the server knows of one caller."""

    def __init__(self, socket):
        self.socket = socket
        self.buffer = bytearray()  # the utterance, as far as it has come
        self.history = []  # messages of the chat, oldest first
        self.is_active = True  # until the caller is gone

    async def send_transcript(self, text):
        """Tell the caller what was heard."""
        await self.socket.send(json.dumps({"type": "transcript", "text": text}))

    async def send_audio(self, samples):
        """Send a piece of the reply."""
        await self.socket.send(to_wire(samples))

    async def send_done(self, text):
        """Tell the caller that the turn is over."""
        await self.socket.send(json.dumps({"type": "done", "reply_text": text}))

    async def refuse(self, error):
        """Tell the caller what was refused, and why."""
        told = {"code": error.code, "message": str(error), "hint": error.hint}
        await self.socket.send(json.dumps({"type": "error", **told}))

    async def receive(self, message):
        """Do what one message of the caller asks for."""
        if isinstance(message, bytes):
            take(self.buffer, message)
        elif message == "ping":
            await self.socket.send("pong")
        elif message == "end_stream":
            audio = bytes(self.buffer)
            self.buffer.clear()
            await answer(self, audio)


# %% [markdown]
# The last three methods are given: `send_done` says that a turn is over, and `refuse` and `receive` do what chapter 1
# did in `handle` for each message. So are the five cells below the class. `attached` notes a session in `sessions`, for
# as long as its caller is there. `remember` does nothing yet. `say_reply` and `answer` are those of chapter 1, with
# a session in the place of socket, buffer and history. A send to a caller who is gone raises `ConnectionClosed`. Think
# of `send_audio` in the middle of a reply: which functions does this exception pass through, one after the other?

# %% keep="life"
from contextlib import contextmanager


@contextmanager
def attached(session):
    """Keep a session for as long as its caller is here."""
    sessions.add(session)
    yield
    session.is_active = False
    sessions.discard(session)


# %% keep="history"
def remember(history, said, replied):
    """Add an exchange; for now, nothing is remembered."""


# %% keep="say"
async def say_reply(session, sentences):
    """Speak one sentence after the other, and send each in pieces."""
    for sentence in sentences:
        speech = await off_loop(models.speak, sentence)
        for start in range(0, len(speech), PIECE):
            await session.send_audio(speech[start : start + PIECE])


# %% keep="turn"
async def answer(session, audio):
    """One turn: what was heard, the reply as it is spoken, and that it is over."""
    words = await off_loop(models.hear, from_wire(audio))
    await session.send_transcript(words)
    sentences = []
    if words:
        chat = [*session.history, {"role": "user", "content": words}]
        sentences = await off_loop(models.think, chat)
        remember(session.history, words, " ".join(sentences))
    await say_reply(session, sentences)
    await session.send_done(" ".join(sentences))


# %% keep="handle"
async def handle(socket):
    """Serve one caller, until they leave."""
    session = SessionState(socket)
    with attached(session):
        async for message in socket:
            try:
                await session.receive(message)
            except ProtocolError as error:
                await session.refuse(error)


# %%
await check("ch2.session", handle)

# %% [markdown]
# The same two callers again, now with your server, in a process of its own.

# %%
server = await start_mine()
turns = await asyncio.gather(*(say(one, server) for one in said))
mine = callers.words_right([one.text for one in said], [turn.heard for turn in turns])
print(
    f"{mine:.0f} % of the words came out right; with one buffer for everybody it was {right:.0f} %."
)
turns[0]

# %% [markdown]
# ## Fault 2: nothing is remembered, or everything
#
# A caller tells a name, and asks for it three turns later.

# %%
conversation = [
    recording("slt-deep-04"),
    recording("ked-03"),
    recording("slt-01"),
    recording("kal-04"),
    "do you know my name",
]
await callers.talk(await start_mine(), *conversation)

# %% [markdown]
# A language model keeps nothing between two calls. It knows what stands in the text that it is given, so the
# server gives it the whole conversation, each time: `models.think([*session.history, …])`.
#
# Then why not keep all of it? A model reads a text of limited length, its *context*: 1,024 tokens (parts of
# words) for this one, as its card in `data/models/lab-llm-en` says, and what is longer is cut off. But long
# before that it may lose its way. **Predict**: with how many exchanges before it is a name lost in more than
# half of the conversations?

# %% guess="40"
predict("ch2.lost_after_exchanges", ...)

# %%
small_talk = [one for one in recordings() if "light" in one.text or "timer" in one.text]
lengths = (0, 4, 8, 10, 12, 14, 16, 20)
recalls = await off_loop(callers.measure_recall, models, small_talk, lengths)
show(
    callers.plot_recall(recalls).figure,
    alt="Share of conversations in which the name is known, over the exchanges before it: all of them "
    "up to about ten, then a steep fall to none.",
)
print("exchanges  words  known    ms to reply")
for one in recalls:
    print(f"{one.exchanges:9}  {one.words:5.0f}  {one.known} of {one.of}  {one.think_ms:8.0f}")
lost = next((one for one in recalls if 2 * one.known < one.of), recalls[-1])
well = [one.words for one in recalls if one.known == one.of and one.words < lost.words]
print(
    f"Up to {max(well, default=0):.0f} words every name was known; at {lost.words:.0f}, {lost.known} of {lost.of}. "
    f"A reply took {recalls[-1].think_ms / recalls[0].think_ms:.1f} times as long at the end."
)
measured("ch2.lost_after_exchanges", lost.exchanges)

# %% [markdown]
# Look at where the line falls. By its card, this model was trained on conversations of nine exchanges at
# most, and in longer ones it may be lost. Another model falls elsewhere, and each reads more slowly the more
# there is. So a history needs two bounds, a number of exchanges and a length, and the measurement says which.
# Choose yours well before the fall.

# %% [markdown] card="ch2.remember"
# The card of the exercise.


# %% keep="history" exercise="ch2.remember"
MOST_TURNS = 8  # exchanges that are remembered; what does your measurement say?
MOST_WORDS = 120  # in all of them


def remember(history, said, replied):
    """Add an exchange, and forget the oldest ones where there are too many.

    It is two messages: {"role": "user", "content": said}, and the reply, of the role "assistant".
    """
    raise NotImplementedError("append two messages; delete from the front what is too much")


# %% keep="history" solution="ch2.remember"
MOST_TURNS = 8  # exchanges that are remembered
MOST_WORDS = 120  # in all of them: a small model gets lost in more


def remember(history, said, replied):
    """Add an exchange, and forget the oldest ones where there are too many."""
    history.append({"role": "user", "content": said})
    history.append({"role": "assistant", "content": replied})
    words = [len(message["content"].split()) for message in history]
    while len(history) > 2 * MOST_TURNS or sum(words) > MOST_WORDS:
        del history[:2], words[:2]


# %%
await check("ch2.remember", handle)

# %% [markdown]
# The conversation from above once more, with your server: does the last reply hold the name?

# %%
await callers.talk(await start_mine(), *conversation)

# %% [markdown]
# Which exchanges to forget is a question of its own. You forget the oldest one each time. labkit forgets the
# older half at once, and seldom: a model keeps what it has read, and a conversation that begins otherwise
# has to be read anew.
#
# ## Fault 3: who is still here?
#
# How many callers does your server have, and how much does it keep for them? A page over plain HTTP is the
# usual answer: monitoring fetches it again and again, in the format of Prometheus. Each line is a name, a
# space and a number, such as `sessions 3`. The WebSocket's port can serve it, since each WebSocket begins as an
# HTTP request. The given `pages` answers the request instead of letting it become a WebSocket.

# %% [markdown] card="ch2.pages"
# The card of the exercise.


# %% keep="pages" exercise="ch2.pages"
def metrics():
    """What the server keeps now, as one `str`: a name, a space and a number in each line."""
    raise NotImplementedError("count the sessions that are active, and the bytes in all buffers")


def pages(connection, request):
    """Answer `/metrics` over plain HTTP; everything else becomes a WebSocket."""
    return connection.respond(200, metrics()) if request.path == "/metrics" else None


# %% keep="pages" solution="ch2.pages"
def metrics():
    """What the server keeps now, as one `str`: a name, a space and a number in each line."""
    active = sum(session.is_active for session in sessions)
    held = sum(len(session.buffer) for session in sessions)
    return f"sessions {active}\nheld_bytes {held}\n"


def pages(connection, request):
    """Answer `/metrics` over plain HTTP; everything else becomes a WebSocket."""
    return connection.respond(200, metrics()) if request.path == "/metrics" else None


# %% keep="main"
async def main(port):
    """Serve until the program is ended."""
    async with serve(handle, "127.0.0.1", port, process_request=pages) as server:
        port = server.sockets[0].getsockname()[1]
        print(f"your server is ready at ws://127.0.0.1:{port}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(os.environ.get("PORT", "8766"))))

# %%
await check("ch2.pages", handle)

# %% [markdown]
# Your page is made for machines; this panel asks it once a second and shows it to people. Run the cell, and
# look here again whenever one of the next cells starts your server anew: who is here, and what is kept for
# them? (Without buttons: `server.status()`, `server.stop()`.)

# %%
server = await start_mine()  # with the page
ServerPanel("mine")

# %% [markdown]
# Eight callers come and speak. Four hang up, and four go away without a word, as a phone does in a tunnel.
# **Predict**: how many does your server count when all eight are gone?

# %% guess="0"
predict("ch2.left_callers", ...)

# %%
server = await start_mine()
before = await callers.measure_stays(server, recording("ked-03"))
show(
    callers.plot_stays({"as given": before}).figure,
    alt="Callers that the server counts, while eight come, four hang up and four go away: "
    f"{max(one.sessions for one in before)} at most, {before[-1].sessions} in the end.",
)
print(
    f"All are gone. The server counts {before[-1].sessions}, and keeps {before[-1].held_bytes:,} bytes "
    f"for them. Lines in its log: {len(server.log().splitlines())}."
)
measured("ch2.left_callers", before[-1].sessions)

# %% [markdown]
# Where a caller hangs up, `async for` ends. Where a connection breaks, it raises `ConnectionClosed`. In
# `attached` that exception comes out of the `yield`, and what stands below it never runs. The server would
# grow until somebody starts it again, and no test that hangs up politely would show it.
#
# It is the same for a caller who leaves in mid-turn: there it is a send that raises, out of `answer` and out of the loop.
#
# Your `attached` needs two things, then:
#
# - `finally`, for what has to happen in any case;
# - `except ConnectionClosed: pass` around the `yield`, and with it around the whole loop of the connection.
#   A caller who goes away is no fault. But websockets takes whatever leaves a handler for one, and writes its
#   traceback: these are the lines that were counted above. In a log full of them, nobody finds a real fault.
#   So catch this one exception, and no other.

# %% [markdown] card="ch2.life"
# The card of the exercise.

# %% keep="life" exercise="ch2.life"
from contextlib import contextmanager


@contextmanager
def attached(session):
    """Keep a session for as long as its caller is here."""
    raise NotImplementedError("add it and yield; catch ConnectionClosed; take it out in any case")
    yield


# %% keep="life" solution="ch2.life"
from contextlib import contextmanager


@contextmanager
def attached(session):
    """Keep a session for as long as its caller is here."""
    sessions.add(session)
    try:
        yield
    except ConnectionClosed:
        pass  # callers go away without a word, in mid-turn too, and that is no fault
    finally:
        session.is_active = False
        sessions.discard(session)


# %%
await check("ch2.life", handle)

# %%
server = await start_mine()
after = await callers.measure_stays(server, recording("ked-03"))
show(
    callers.plot_stays({"as given": before, "yours": after}).figure,
    alt=f"Callers that the server counts: in the end yours {after[-1].sessions}, and the one that was "
    f"given {before[-1].sessions}.",
)
lines = len(server.log().splitlines())
print(
    f"Now it counts {after[-1].sessions}, and keeps {after[-1].held_bytes:,} bytes for them. "
    f"Lines in its log: {lines}; one says that it is ready, and there should be no more."
)

# %% [markdown]
# ## Check it
#
# Each exercise was checked in this notebook. Now all six checks of this chapter on the kept file, in a fresh
# process; then those of chapter 1, since what worked there has to work still.

# %%
await check("ch2", fresh=True)

# %%
await check("ch1", fresh=True)

# %% [markdown]
# ## Break it
#
# One word in the wrong place is enough: a history that is a default argument. Which check notices, and which
# do not? Decide, then run.


# %%
class SharedHistory(SessionState):
    def __init__(self, socket, history=[]):  # made once, when `def` runs
        super().__init__(socket)
        self.history = history


SessionState, kept = SharedHistory, SessionState
broken = await check("ch2.sessions_isolated", handle, strict=False, record=False)
SessionState = kept
broken

# %% [markdown]
# The transcripts are right: the buffers are still apart. What one caller has said turns up in the reply to
# another, which nobody would take for a fault of the buffer.
#
# ## Measure it: what does a caller cost?
#
# Memory is what bounds the callers of a server that does little else. Two hundred callers, first silent, then
# with the two and a half seconds of a recording each.

# %%
server, many = await start_mine(), 200
weights = await callers.measure_weight(server, recording("ked-03"), many)
print("callers      process, MB  held, MB  for each caller, kB")
for name, (process, held) in weights.items():
    each = (process - weights["nobody"][0]) / many / 1e3
    print(f"{name:11}  {process / 1e6:11.1f}  {held / 1e6:8.1f}  {each:23.1f}")

# %% [markdown]
# An idle caller costs the buffers of a connection and little else. One who speaks costs 32 kB a second, and
# not more than a minute of that: the bound of chapter 1. When all are gone, the bytes in your buffers are
# zero. The process may keep its memory for the next ones, so look at what is *held*, not at the process
# alone, when you search for a leak.
#
# ## Recap
#
# | fault | why | what you did |
# |---|---|---|
# | voices and names get mixed up | something is shared that belongs to one caller | one object for each |
# | a caller has to say everything again | a model keeps nothing between calls | a history, given each time |
# | a long conversation ends in nonsense | a model reads only so much | bounds, by turns and by words |
# | a server grows until it is restarted | cleaning up was not in `finally` | a context manager, and a count |
# | nobody knows who is here | state was hidden in a function | a page with two numbers |
#
# ## Quiz

# %%
quiz("ch2")

# %% [markdown]
# ## Clean up

# %%
await stop_servers()

# %% [markdown]
# ## Next
#
# Your server takes one format of audio, and three words of text. Chapter 3 lets a client say what it speaks,
# and what it got wrong.
