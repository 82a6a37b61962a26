"""The real server process with the real engines, spoken to by a bare WebSocket client."""

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect

from labkit.audio.pcm import (
    SAMPLE_RATE,
    Float32,
    decode_s16le,
    encode_s16le,
    read_audio,
    resample,
)
from labkit.client.dial import Backoff
from labkit.client.v1 import SessionClient
from labkit.measure.links import Fault
from labkit.measure.netem import Proxy
from labkit.measure.recordings import load_manifest
from labkit.measure.wer import word_errors
from labkit.voice.scheduling import Stop
from tests.engines import embedded_engines
from tests.paths import SPEECH

pytestmark = [pytest.mark.engines, pytest.mark.slow]

CHUNK_BYTES = 1280


@dataclass
class Serving:
    """A server process that is ready."""

    process: asyncio.subprocess.Process
    url: str


@asynccontextmanager
async def serving() -> AsyncIterator[Serving]:
    command = [sys.executable, "-m", "labkit", "serve", "--port", "0"]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    try:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        found = re.search(r"ws://\S+", line)
        assert found, line
        yield Serving(process, found[0])
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def say(socket: ClientConnection, audio: Float32) -> tuple[str, Float32]:
    """One turn in the plain dialect: the transcript and the reply."""
    pcm = encode_s16le(audio)
    for start in range(0, len(pcm), CHUNK_BYTES):
        await socket.send(pcm[start : start + CHUNK_BYTES])
    await socket.send("end_stream")
    transcript = json.loads(await socket.recv())
    assert transcript["type"] == "transcript"
    reply = await socket.recv()
    assert isinstance(reply, bytes)
    return transcript["text"], decode_s16le(reply)


def recording(name: str) -> tuple[str, Float32]:
    found = next(r for r in load_manifest(SPEECH) if r.name == name)
    return found.text, read_audio(found.path)


async def test_what_is_said_is_heard_and_answered_in_a_voice_that_can_be_understood() -> None:
    text, audio = recording("kal-03")
    async with serving() as server, connect(server.url) as socket:
        heard, reply = await say(socket, audio)
    errors, words = word_errors(text, heard)
    assert errors <= words // 2
    answer = embedded_engines().asr.transcribe(reply, Stop())
    assert len(answer.split()) >= 2


async def test_silence_and_noise_get_an_empty_transcript_and_no_reply() -> None:
    async with serving() as server, connect(server.url) as socket:
        for name in ("silence", "noise"):
            heard, reply = await say(socket, recording(name)[1])
            assert heard == ""
            assert not len(reply)


async def test_callers_at_the_same_time_have_a_state_each() -> None:
    """Three callers speak at once, and each gets what it said itself."""
    names = ("kal-01", "kal-03", "kal-08")
    async with serving() as server:

        async def call(name: str) -> tuple[str, str]:
            text, audio = recording(name)
            async with connect(server.url) as socket:
                heard, reply = await say(socket, audio)
                assert np.abs(reply).max() > 0.1
                return text, heard

        for text, heard in await asyncio.gather(*map(call, names)):
            errors, words = word_errors(text, heard)
            assert errors <= words // 2


async def test_a_signal_during_turns_ends_the_server_in_order() -> None:
    async with serving() as server, connect(server.url) as first, connect(server.url) as second:
        for socket in (first, second):
            await socket.send(encode_s16le(recording("slt-03")[1]))
            await socket.send("end_stream")
        await first.recv()
        server.process.send_signal(signal.SIGTERM)
        out, log = await server.process.communicate()
        assert server.process.returncode == 0
        assert not out
        for line in log.decode().splitlines():
            assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", line), line


def spoken(sentence: str) -> Float32:
    """A sentence in the embedded voice, with silence on both sides."""
    voice = embedded_engines().tts
    speech = np.concatenate(list(voice.synthesise(sentence, Stop())))
    return np.pad(resample(speech, voice.sample_rate, SAMPLE_RATE), SAMPLE_RATE // 4)


async def test_what_was_said_before_a_lost_connection_is_remembered_after_it() -> None:
    quick = Backoff(first_s=0.01)
    async with serving() as server:
        target = urlsplit(server.url)
        async with (
            Proxy(target.hostname or "", target.port or 0) as network,
            SessionClient.connect(network.url(), backoff=quick, seed=1) as client,
        ):
            told = await client.say(spoken("my name is ada"), pace=0)
            name = told.transcript.split()[-1]
            network.cut(Fault.RESET)
            asked = await client.say(spoken("what is my name"), pace=0)
            assert len(asked.interruptions) == 1
            assert name in " ".join(asked.sentences).lower()
