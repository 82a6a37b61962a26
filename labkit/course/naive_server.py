"""A voice server the way a first attempt looks: it works, and it is slow. Kept as a baseline.

It uses the same models, and it is not made slower than such servers are. What it does not do:

- *Stay off the event loop.* Every model call runs in the handler, so nobody else is served
  meanwhile; a `ping` waits for the whole turn.
- *Fit the window.* `WhisperModel.transcribe` pads every utterance to 30 s.
- *Work ahead.* Voice activity detection starts when the speaker has ended.
- *Keep its samples in range.* Piper's loudest sample is 1.0, and 32768 wraps to −32768.
- *Refuse anything.* An odd number of bytes ends the conversation; a caller who never stops
  speaking fills the memory.
- *Stream.* The first sentence is spoken once the last was written, and the first sample is sent
  once the last was synthesised, all in one message.

It speaks the plain dialect. Run it with ``python -m labkit.course.naive_server --port 0``.
"""

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from faster_whisper import WhisperModel
from llama_cpp import Llama
from piper import PiperVoice
from websockets.asyncio.server import ServerConnection, serve

from labkit.audio.pcm import SAMPLE_RATE, decode_s16le, resample
from labkit.voice.models import ModelPaths, resolve


class NaiveServer:
    """Everything in the handler."""

    def __init__(self, paths: ModelPaths) -> None:
        """Load the models as their libraries' first examples do."""
        self.asr = WhisperModel(str(paths.asr), device="cpu")
        self.llm = Llama(str(paths.llm), n_ctx=2048, verbose=False)
        self.tts = PiperVoice.load(str(paths.tts))
        self.system = paths.system

    async def handle(self, socket: ServerConnection) -> None:
        """Serve one caller."""
        audio = bytearray()
        history = [{"role": "system", "content": self.system}] if self.system else []
        async for message in socket:
            if isinstance(message, bytes):
                audio += message
            elif message == "ping":
                await socket.send("pong")
            elif message == "end_stream":
                await self.answer(socket, bytes(audio), history)
                audio.clear()

    async def answer(
        self, socket: ServerConnection, audio: bytes, history: list[dict[str, str]]
    ) -> None:
        """Answer what was said, all of it before anything is sent."""
        text = self.transcribe(audio)
        reply = self.reply(text, history) if text else ""
        speech = self.synthesise(reply) if reply else b""
        await socket.send(json.dumps({"type": "transcript", "text": text}))
        await socket.send(speech)
        if socket.request is not None and "reply=stream" in socket.request.path:
            done = {"type": "done", "reply_text": reply, "reply_samples": len(speech) // 2}
            await socket.send(json.dumps(done))

    def transcribe(self, audio: bytes) -> str:
        """The words in `audio`."""
        segments, _ = self.asr.transcribe(decode_s16le(audio), language="en", vad_filter=True)
        return " ".join(segment.text.strip() for segment in segments)

    def reply(self, text: str, history: list[dict[str, str]]) -> str:
        """The answer to `text`."""
        history.append({"role": "user", "content": text})
        messages: Any = history
        answer: Any = self.llm.create_chat_completion(messages, temperature=0.0, max_tokens=160)
        reply = str(answer["choices"][0]["message"]["content"]).strip()
        history.append({"role": "assistant", "content": reply})
        return reply

    def synthesise(self, text: str) -> bytes:
        """All of the speech for `text`."""
        chunks = list(self.tts.synthesize(text))
        speech = np.concatenate([chunk.audio_float_array for chunk in chunks])
        samples = resample(speech, self.tts.config.sample_rate, SAMPLE_RATE) * 32768
        return samples.astype("<i2").tobytes()


async def _serve(server: NaiveServer, port: int) -> None:
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
    async with serve(server.handle, "127.0.0.1", port, max_size=None) as listening:
        address = listening.sockets[0].getsockname()
        sys.stdout.write(f"the naive server is ready at ws://127.0.0.1:{address[1]}\n")
        sys.stdout.flush()
        await asked.wait()


def main(
    arguments: Sequence[str] | None = None, make: Callable[[ModelPaths], NaiveServer] = NaiveServer
) -> None:
    """Run the server, or one that is made of it, until it is told to end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8766)
    parser.add_argument("--models", default="embedded")
    for role in ("asr", "llm", "tts"):
        parser.add_argument(f"--{role}")
    parser.add_argument("--system")
    options = vars(parser.parse_args(arguments))
    port, models = options.pop("port"), options.pop("models")
    paths = resolve(models, **options)
    if isinstance(paths.llm, str):
        raise SystemExit(f"the naive server runs its model itself; {paths.llm} is a server")
    asyncio.run(_serve(make(paths), port))


if __name__ == "__main__":
    main()
