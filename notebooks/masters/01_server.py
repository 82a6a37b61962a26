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
# *About 30 minutes. Needs: this checkout, set up with `make lab`. No network, no GPU.*

# %%
from labkit.course import begin

await begin(1)

# %% keep="imports"
import asyncio
import json
import os

import numpy as np
from websockets.asyncio.server import serve

from labkit.course import Models

RATE = 16_000  # samples a second
LONGEST_S = 60  # of one utterance
PIECE = RATE // 5  # samples of one message of a reply
models = Models.load()


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
    whole = np.rint(samples * 32768)
    return np.clip(whole, -32768, 32767).astype("<i2").tobytes()


# %% keep="chunks" exercise="ch1.chunks"
def take(buffer, chunk):
    """Add a chunk to the buffer of the utterance; gives an error to send, or None."""
    raise NotImplementedError("refuse what is no whole number of samples, and what is too much")


# %% keep="chunks" solution="ch1.chunks"
def take(buffer, chunk):
    """Add a chunk to the buffer of the utterance; gives an error to send, or None."""
    if len(chunk) % 2:
        return error("odd_length", f"{len(chunk)} bytes are no whole number of samples")
    if len(buffer) + len(chunk) > LONGEST_S * RATE * 2:
        return error("buffer_full", f"an utterance has {LONGEST_S} s at most")
    buffer.extend(chunk)
    return None


def error(code, message):
    """What the client is told when something is refused."""
    return {"type": "error", "code": code, "message": message}


# %% keep="off_loop" exercise="ch1.off_loop"
async def off_loop(call, *arguments):
    """Run a call that blocks, and leave the event loop to everybody else."""
    raise NotImplementedError("run call(*arguments) on another thread, and await what it gives")


# %% keep="off_loop" solution="ch1.off_loop"
async def off_loop(call, *arguments):
    """Run a call that blocks, and leave the event loop to everybody else."""
    return await asyncio.to_thread(call, *arguments)


# %% keep="say" exercise="ch1.say"
async def say(socket, sentences):
    """Speak one sentence after the other; gives how many samples were sent."""
    raise NotImplementedError("speak a sentence, send it in pieces, then speak the next")


# %% keep="say" solution="ch1.say"
async def say(socket, sentences):
    """Speak one sentence after the other; gives how many samples were sent."""
    samples = 0
    for sentence in sentences:
        speech = await off_loop(models.speak, sentence)
        for start in range(0, len(speech), PIECE):
            await socket.send(to_wire(speech[start : start + PIECE]))
        samples += len(speech)
    return samples


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
    samples = await say(socket, sentences)
    done = {"type": "done", "reply_text": " ".join(sentences), "reply_samples": samples}
    await socket.send(json.dumps(done))


async def handle(socket):
    """Serve one caller, until they leave."""
    buffer, history = bytearray(), []
    async for message in socket:
        if isinstance(message, bytes):
            if (refused := take(buffer, message)) is not None:
                await socket.send(json.dumps(refused))
        elif message == "ping":
            await socket.send("pong")
        elif message == "end_stream":
            audio = bytes(buffer)
            buffer.clear()
            await answer(socket, audio, history)


# %% keep="main"
async def main(port):
    """Serve until the program is ended."""
    async with serve(handle, "127.0.0.1", port) as server:
        port = server.sockets[0].getsockname()[1]
        print(f"your server is ready at ws://127.0.0.1:{port}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(os.environ.get("PORT", "8766"))))
