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
# *About 30 minutes. Needs: this checkout, set up with `make lab`. No network, no GPU, no
# microphone.*

# %%
from labkit.course import begin

await begin(2)


# %% keep="session" exercise="ch2.session"
from websockets.exceptions import ConnectionClosed

sessions = set()  # every state that the server keeps


class SessionState:
    """All that the server knows of one caller."""

    def __init__(self, socket):
        raise NotImplementedError("keep socket, buffer, history and is_active, each in self")

    async def send(self, message):
        """Send one message; where the caller is gone, note it in `is_active`."""
        raise NotImplementedError("send it; on ConnectionClosed, set is_active to False")

    async def send_json(self, message):
        """Send a dict as JSON text."""
        raise NotImplementedError("send json.dumps(message), with the method above")

    async def send_transcript(self, text):
        """Tell the caller what was heard."""
        raise NotImplementedError('send JSON: "type" is "transcript", "text" is the text')

    async def send_audio(self, samples):
        """Send a piece of the reply."""
        raise NotImplementedError("send the samples as bytes, with to_wire")


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

    async def send(self, message):
        """Send one message; where the caller is gone, note it in `is_active`."""
        if not self.is_active:
            return
        try:
            await self.socket.send(message)
        except ConnectionClosed:
            self.is_active = False

    async def send_json(self, message):
        """Send a dict as JSON text."""
        await self.send(json.dumps(message))

    async def send_transcript(self, text):
        """Tell the caller what was heard."""
        await self.send_json({"type": "transcript", "text": text})

    async def send_audio(self, samples):
        """Send a piece of the reply."""
        await self.send(to_wire(samples))


# %% keep="life" exercise="ch2.life"
from contextlib import contextmanager


@contextmanager
def session_of(socket):
    """The state of one caller, kept for as long as they are here."""
    raise NotImplementedError("add a state to sessions, yield it, and take it out whatever happens")
    yield


# %% keep="life" solution="ch2.life"
from contextlib import contextmanager


@contextmanager
def session_of(socket):
    """The state of one caller, kept for as long as they are here."""
    session = SessionState(socket)
    sessions.add(session)
    try:
        yield session
    except ConnectionClosed:
        pass  # callers go away without a word, and that is no fault
    finally:
        session.is_active = False
        sessions.discard(session)


# %% keep="history" exercise="ch2.remember"
def remember(history, said, replied):
    """Add an exchange, and forget the oldest ones where there are too many."""
    raise NotImplementedError("append two messages; delete from the front what is too much")


# %% keep="history" solution="ch2.remember"
MOST_TURNS = 8  # exchanges that are remembered
MOST_WORDS = 120  # in all of them: a small model gets lost in more


def remember(history, said, replied):
    """Add an exchange, and forget the oldest ones where there are too many."""
    history.append({"role": "user", "content": said})
    history.append({"role": "assistant", "content": replied})
    while len(history) > 2 * MOST_TURNS or words_in(history) > MOST_WORDS:
        del history[:2]


def words_in(history):
    """How many words a conversation has."""
    return sum(len(message["content"].split()) for message in history)


# %% keep="say"
async def say(session, sentences):
    """Speak one sentence after the other; gives how many samples were sent."""
    samples = 0
    for sentence in sentences:
        if not session.is_active:
            break  # nobody is there to hear the rest
        speech = await off_loop(models.speak, sentence)
        for start in range(0, len(speech), PIECE):
            await session.send_audio(speech[start : start + PIECE])
        samples += len(speech)
    return samples


# %% keep="turn"
async def answer(session):
    """One turn: what was heard, the reply as it is spoken, and `done`."""
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
    text = " ".join(sentences)
    await session.send_json({"type": "done", "reply_text": text, "reply_samples": samples})


async def handle(socket):
    """Serve one caller, until they leave."""
    with session_of(socket) as session:
        async for message in socket:
            if isinstance(message, bytes):
                if (refused := take(session.buffer, message)) is not None:
                    await session.send_json(refused)
            elif message == "ping":
                await session.send("pong")
            elif message == "end_stream":
                await answer(session)


# %% keep="pages" exercise="ch2.pages"
def metrics():
    """What the server keeps now: a name and a number in each line."""
    raise NotImplementedError("count the sessions that are active, and the bytes in all buffers")


def pages(connection, request):
    """Answer `/metrics` over plain HTTP; everything else becomes a WebSocket."""
    return connection.respond(200, metrics()) if request.path == "/metrics" else None


# %% keep="pages" solution="ch2.pages"
def metrics():
    """What the server keeps now: a name and a number in each line."""
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
