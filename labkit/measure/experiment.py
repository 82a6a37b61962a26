"""The latency exercise: recorded utterances, chunk sizes in random order, one row per turn."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from labkit.audio.pcm import SAMPLE_RATE, Float32, leading_silence, read_audio
from labkit.client.plain import VoiceClient
from labkit.errors import LabkitError
from labkit.measure.machine import about_machine
from labkit.measure.plan import CHUNK_SIZES_MS, PlannedTurn, plan
from labkit.measure.recordings import Kind, Recording, load_manifest
from labkit.measure.results import Row, row_of
from labkit.measure.server_process import labkit_server, running_server

__all__ = ["Exercise", "ExerciseConfig", "Progress", "run_exercise"]

BASELINE: Final = "naive"
"""Name of the server that is written the naive way."""

_LONGEST_S: Final = 2.6
_KEPT_SILENCE_S: Final = 0.1
_PING_EVERY_S: Final = 0.05
_LIBRARIES: Final = (
    "labkit",
    "faster-whisper",
    "ctranslate2",
    "llama-cpp-python",
    "piper-tts",
    "onnxruntime",
    "websockets",
    "numpy",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExerciseConfig:
    """What to run.

    Attributes:
        recordings: Folder with recordings and their manifest.
        seed: Draws order, recordings and the phase of the end of speech in its chunk.
        repeats: Turns per chunk size and server.
        chunk_sizes_ms: Lengths of one message.
        baseline: Whether the naive server is measured beside labkit's.
        model_options: Options that name the models, handed on to the servers.
    """

    recordings: Path
    seed: int = 1
    repeats: int = 18
    chunk_sizes_ms: tuple[int, ...] = CHUNK_SIZES_MS
    baseline: bool = False
    model_options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an exercise has come.

    Attributes:
        done: Turns that ran.
        total: Turns in all.
        now: What happens now, in words.
    """

    done: int
    total: int
    now: str


@dataclass(slots=True)
class Exercise:
    """What an exercise gave.

    Attributes:
        config: What was run.
        rows: One per turn, in the order in which they ran.
        pings_ms: Round trips of `ping` while turns ran, by server; only with a baseline.
        about: Versions, machine and method.
    """

    config: ExerciseConfig
    rows: list[Row] = field(default_factory=list)
    pings_ms: dict[str, list[float]] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)


async def run_exercise(
    config: ExerciseConfig, progress: Callable[[Progress], None] = lambda _: None
) -> Exercise:
    """Run the exercise: the servers in processes of their own, the client in this one.

    Args:
        config: What to run.
        progress: Told before each turn.

    Raises:
        AudioError: A recording or the manifest is not usable.
        ServerError: A server did not start.
        LabkitError: No recording is short enough.
    """
    recordings = _short_ones(load_manifest(config.recordings))
    servers = ("labkit", BASELINE) if config.baseline else ("labkit",)
    turns = plan(
        seed=config.seed,
        recordings=len(recordings),
        repeats=config.repeats,
        servers=servers,
        chunk_sizes_ms=config.chunk_sizes_ms,
    )
    exercise = Exercise(config, about=_about(config))
    async with AsyncExitStack() as stack:
        progress(Progress(0, len(turns), "loading the models"))
        started = {s: await stack.enter_async_context(_server(s, config)) for s in servers}
        urls = {name: server.url for name, server in started.items()}
        for number, turn in enumerate(turns):
            now = "warming up" if turn.warmup else f"chunks of {turn.chunk_ms} ms"
            progress(Progress(number, len(turns), now))
            exercise.rows.append(await _run(exercise, turn, recordings[turn.recording], urls))
    progress(Progress(len(turns), len(turns), "done"))
    return exercise


def _short_ones(recordings: Sequence[Recording]) -> list[Recording]:
    """Utterances that do not take long to say; speaking is most of the exercise's time."""
    short = [
        r
        for r in recordings
        if r.kind is Kind.UTTERANCE and (r.end_of_speech_sample or 0) < _LONGEST_S * SAMPLE_RATE
    ]
    if not short:
        raise LabkitError(f"no recording ends within {_LONGEST_S:g} s; add shorter ones")
    return short


def _server(name: str, config: ExerciseConfig) -> Any:
    command = labkit_server()
    if name == BASELINE:
        command = ["labkit.course.naive_server", "--port", "0"]
    return running_server([*command, *config.model_options])


async def _run(
    exercise: Exercise, turn: PlannedTurn, recording: Recording, urls: Mapping[str, str]
) -> Row:
    """One turn as a new conversation, so that every turn has the same prompt before it."""
    url = urls[turn.server]
    samples, end_of_speech = _prepared(recording, turn)
    async with AsyncExitStack() as stack:
        if exercise.config.baseline and not turn.warmup:
            pings = exercise.pings_ms.setdefault(turn.server, [])
            await stack.enter_async_context(_pinging(url, pings, turn.recording))
        client = await stack.enter_async_context(VoiceClient.connect(url))
        said = await client.say(samples, chunk_ms=turn.chunk_ms, end_of_speech=end_of_speech)
    return row_of(turn, recording, said)


def _prepared(recording: Recording, turn: PlannedTurn) -> tuple[Float32, int]:
    """The recording without most of its leading silence, and its end of speech.

    Silence is put before it, less than a chunk, so that the speech ends at the planned phase;
    and behind it, for the longest chunk to be filled.
    """
    samples = read_audio(recording.path)
    silence = leading_silence(samples, SAMPLE_RATE) - _KEPT_SILENCE_S
    cut = max(0, round(silence * SAMPLE_RATE))
    end = (recording.end_of_speech_sample or len(samples)) - cut
    chunk = turn.chunk_ms * SAMPLE_RATE // 1000
    lead_in = (round(turn.phase * chunk) - end) % chunk
    return np.pad(samples[cut:], (lead_in, SAMPLE_RATE)), end + lead_in


@asynccontextmanager
async def _pinging(url: str, rtts_ms: list[float], seed: int) -> AsyncIterator[None]:
    """Measure ping round trips on a connection of its own for the length of the block."""
    async with VoiceClient.connect(url) as client:
        task = asyncio.create_task(_ping(client, rtts_ms, random.Random(seed)))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _ping(client: VoiceClient, rtts_ms: list[float], rng: random.Random) -> None:
    """Ping at random moments; a ping that waits holds up the next, as a caller would be."""
    while True:
        await asyncio.sleep(rng.expovariate(1 / _PING_EVERY_S))
        rtts_ms.append(await client.ping() * 1000)


def _about(config: ExerciseConfig) -> dict[str, Any]:
    return {
        "seed": config.seed,
        "repeats": config.repeats,
        "chunk_sizes_ms": list(config.chunk_sizes_ms),
        "models": list(config.model_options) or ["embedded"],
        **about_machine(_LIBRARIES),
        "clock": "one machine: client and server share the monotonic clock",
    }
