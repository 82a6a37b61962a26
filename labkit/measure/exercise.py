"""The latency exercise: recorded utterances, chunk sizes in random order, one row per turn."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from labkit.audio.pcm import SAMPLE_RATE, Float32, leading_silence, read_audio
from labkit.client.plain import ClientTurn, VoiceClient
from labkit.client.speech import Clock
from labkit.errors import LabkitError
from labkit.measure.exercise_summary import BASELINE, ExerciseSummary, Row
from labkit.measure.plan import CHUNK_SIZES_MS, LABKIT, PlannedTurn, plan_turns
from labkit.measure.recordings import Kind, Recording, load_manifest
from labkit.measure.results import Experiment, Progress, Tell
from labkit.measure.server_process import labkit_server, running_server
from labkit.trace import Mark, Stage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Exercise", "overhead_bytes", "ping_until", "row_of"]

_FULL: Final = 18
"""Turns per chunk size. A turn takes about two and a half seconds, nearly all of them speech; 18
turns for each of eight sizes take six to seven minutes."""
_QUICK: Final = 4

_LONGEST_S: Final = 2.6
_KEPT_SILENCE_S: Final = 0.1
_PING_EVERY_S: Final = 0.05
_SEGMENT_BYTES: Final = 1448
"""Payload of one TCP segment on an Ethernet of 1,500 bytes, with time stamps."""
_SEGMENT_HEADERS: Final = 20 + 32
"""IPv4 header, and TCP header with time stamps."""


@dataclass(slots=True, kw_only=True)
class Exercise(Experiment[Row, ExerciseSummary]):
    """What to run, through `labkit.measure.results.conduct`.

    Attributes:
        recordings: Folder with recordings and their manifest.
        seed: Draws order, recordings and the phase of the end of speech in its chunk.
        repeats: Turns per chunk size and server.
        chunk_sizes_ms: Lengths of one message.
        baseline: Whether the naive server is measured beside labkit's.
        model_options: Options that name the models, handed on to the servers.
        pings_ms: Round trips of `ping` while turns run, by server; only with a baseline.
    """

    recordings: Path
    seed: int = 1
    repeats: int = _FULL
    chunk_sizes_ms: tuple[int, ...] = CHUNK_SIZES_MS
    baseline: bool = False
    model_options: tuple[str, ...] = ()
    pings_ms: dict[str, list[float]] = field(default_factory=dict)

    raw = "turns.csv"
    summary = "summary.json"
    libraries = (
        "labkit", "faster-whisper", "ctranslate2", "llama-cpp-python", "piper-tts", "onnxruntime",
        "websockets", "numpy",
    )  # fmt: skip
    columns = (
        *(f.name for f in fields(Row) if f.name not in ("stages", "marks")),
        *(f"stage_{stage}_ms" for stage in Stage),
        *(f"mark_{mark}_ms" for mark in Mark),
    )

    @classmethod
    def of_length(cls, *, quick: bool, baseline: bool = False, **settings: Any) -> Self:
        """An exercise of under eight minutes, or of under two; two servers share that time."""
        repeats = _QUICK if quick else _FULL
        return cls(repeats=repeats // 2 if baseline else repeats, baseline=baseline, **settings)

    async def run(self, record: Callable[[Row], None], tell: Tell) -> None:
        """Run the turns: the servers in processes of their own, the client in this one.

        Raises:
            AudioError: A recording or the manifest is not usable.
            ServerError: A server did not start.
            LabkitError: No recording is short enough.
        """
        recordings = _short_ones(load_manifest(self.recordings))
        servers = (LABKIT, BASELINE) if self.baseline else (LABKIT,)
        turns = plan_turns(
            seed=self.seed,
            recordings=len(recordings),
            repeats=self.repeats,
            servers=servers,
            chunk_sizes_ms=self.chunk_sizes_ms,
        )
        async with AsyncExitStack() as stack:
            tell(Progress(0, len(turns), "loading the models"))
            urls = {name: await self._start(stack, name) for name in servers}
            for number, turn in enumerate(turns):
                now = "warming up" if turn.warmup else f"chunks of {turn.chunk_ms} ms"
                tell(Progress(number, len(turns), now))
                record(await self._say(turn, recordings[turn.recording], urls[turn.server]))
        tell(Progress(len(turns), len(turns), "done"))

    async def _start(self, stack: AsyncExitStack, name: str) -> str:
        command = labkit_server()
        if name == BASELINE:
            command = ["labkit.course.naive_server", "--port", "0"]
        server = running_server([*command, *self.model_options])
        return (await stack.enter_async_context(server)).url

    async def _say(self, turn: PlannedTurn, recording: Recording, url: str) -> Row:
        """One turn as a new conversation, so that every turn has the same prompt before it."""
        samples, end_of_speech = _prepared(recording, turn)
        async with AsyncExitStack() as stack:
            if self.baseline and not turn.warmup:
                pings = self.pings_ms.setdefault(turn.server, [])
                await stack.enter_async_context(_pinging(url, pings, turn.recording))
            client = await stack.enter_async_context(VoiceClient.connect(url))
            said = await client.say(samples, chunk_ms=turn.chunk_ms, end_of_speech=end_of_speech)
        return row_of(turn, recording, said)

    def flat(self, row: Row) -> Mapping[str, Any]:
        """The row as columns; stages and marks one each, empty where there is none."""
        columns = {name: getattr(row, name, None) for name in self.columns}
        columns["warmup"] = int(row.warmup)
        columns |= {f"stage_{stage}_ms": span for stage, span in row.stages.items()}
        columns |= {f"mark_{mark}_ms": at for mark, at in row.marks.items()}
        return columns

    def summarise(self, rows: Sequence[Row]) -> ExerciseSummary:
        """Sum up the turns.

        Raises:
            LabkitError: No turn was answered.
        """
        return ExerciseSummary(rows, self.pings_ms, seed=self.seed)

    def about(self) -> dict[str, Any]:
        """What was drawn and run, and by which clock."""
        return {
            "seed": self.seed,
            "repeats": self.repeats,
            "chunk_sizes_ms": list(self.chunk_sizes_ms),
            "models": list(self.model_options) or ["embedded"],
            "clock": "one machine: client and server share the monotonic clock",
        }

    def draw(self, summary: ExerciseSummary) -> dict[str, "Figure"]:
        """The trade-off, the waterfall, the distribution, and the baseline where there is one."""
        # Drawing libraries take a second to load, which a run does not have to wait for.
        from labkit.measure.exercise_figures import exercise_figures

        return exercise_figures(summary)


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
    over = asyncio.Event()
    async with VoiceClient.connect(url) as client:
        pinging = ping_until(over, client, rtts_ms, random.Random(seed), Clock())
        task = asyncio.create_task(pinging)  # a TaskGroup would wrap what the block raises
        try:
            yield
        finally:
            over.set()
            await task


async def ping_until(
    over: asyncio.Event,
    client: VoiceClient,
    rtts_ms: list[float],
    rng: random.Random,
    clock: Clock,
) -> None:
    """Ping at random moments, and count every round trip from when it was due.

    A server that stands still for a second holds up all pings that are due in it, and not just
    the first. Those that are due before `over` are all waited for.
    """
    due_ns = clock.now_ns()
    while True:
        due_ns += round(rng.expovariate(1 / _PING_EVERY_S) * 1e9)
        held_up = clock.now_ns() >= due_ns
        await clock.sleep_until(due_ns)
        if over.is_set() and not held_up:
            return
        # That a sleep lasted too long is this process's doing, and not the server's.
        start_ns = due_ns if held_up else clock.now_ns()
        await client.ping()
        rtts_ms.append((clock.now_ns() - start_ns) / 1e6)


def row_of(planned: PlannedTurn, recording: Recording, turn: ClientTurn) -> Row:
    """One turn as a row."""
    start = turn.trace.marks[Mark.STREAM_STARTED]
    return Row(
        utterance=recording.path.name,
        voice=recording.voice,
        chunk_ms=planned.chunk_ms,
        warmup=planned.warmup,
        transcript=turn.transcript,
        reply_text=turn.reply_text,
        reply_seconds=turn.reply_seconds,
        ttfa_ms=turn.trace.ttfa_ms(),
        ttfb_ms=turn.trace.ttfb_ms(),
        server=planned.server,
        block=planned.block,
        said=recording.text,
        audio_seconds=turn.bytes_sent / 32_000,
        messages=turn.messages_sent,
        overhead_bytes=overhead_bytes(turn.bytes_sent, turn.messages_sent),
        listening_cpu_ms=turn.listening_cpu_ms,
        errors="; ".join(error.message for error in turn.errors),
        stages=turn.trace.stages_ms(),
        marks={m: (turn.trace.marks[m] - start) / 1e6 for m in Mark if m in turn.trace.marks},
    )


def overhead_bytes(payload: int, messages: int) -> int:
    """Bytes around `payload` bytes of audio in `messages` equal messages, client to server.

    Counted are the WebSocket frame header with its mask (RFC 6455, section 5.2: 6 bytes, 8 from
    126 bytes of payload, 14 from 65,536) and the IPv4 and TCP headers of each segment; not the
    acknowledgements that come back.
    """
    if not messages:
        return 0
    size = -(-payload // messages)
    frame = 6 if size < 126 else 8 if size < 65_536 else 14
    segments = -(-(size + frame) // _SEGMENT_BYTES)
    return messages * (frame + segments * _SEGMENT_HEADERS)
