"""Rows of an exercise that follow a formula, so that what is made of them can be predicted."""

from collections.abc import Sequence

from labkit.measure.exercise import overhead_bytes
from labkit.measure.exercise_summary import ExerciseSummary, Row
from labkit.measure.plan import CHUNK_SIZES_MS
from labkit.trace import Mark, Stage

REST = {
    Stage.UPLINK: 1.0,
    Stage.ASR: 30.0,
    Stage.LLM_FIRST_TOKEN: 12.0,
    Stage.LLM_FIRST_SENTENCE: 6.0,
    Stage.TTS_FIRST_AUDIO: 20.0,
    Stage.DOWNLINK: 1.0,
    Stage.LEADING_SILENCE: 10.0,
}


def row(chunk_ms: int, phase: float, *, server: str = "labkit", block: int | None = 0) -> Row:
    """A turn whose speech ended at `phase` of its chunk."""
    wait = (1 - phase) * chunk_ms
    stages = {Stage.PACKETISATION: wait, **REST}
    ttfa = sum(stages.values())
    messages = 2000 // chunk_ms
    return Row(
        utterance="one.flac",
        voice="one",
        chunk_ms=chunk_ms,
        warmup=block is None,
        transcript="set a timer",
        reply_text="Timer set.",
        reply_seconds=0.8,
        ttfa_ms=ttfa,
        ttfb_ms=ttfa - REST[Stage.LEADING_SILENCE],
        server=server,
        block=block,
        said="set a timer",
        audio_seconds=2.0,
        messages=messages,
        overhead_bytes=overhead_bytes(64_000, messages),
        listening_cpu_ms=messages * 0.2,
        stages=stages if server == "labkit" else {},
        marks={Mark.STREAM_STARTED: 0.0, Mark.END_OF_SPEECH: 1900.0},
    )


def rows(
    sizes: Sequence[int] = CHUNK_SIZES_MS, repeats: int = 8, *, baseline: bool = False
) -> list[Row]:
    """Turns with evenly spread phases, the first one to warm up."""
    servers = ("labkit", "naive") if baseline else ("labkit",)
    counted = [
        row(size, (i + 0.5) / repeats, server=server, block=i)
        for server in servers
        for size in sizes
        for i in range(repeats)
    ]
    return [row(40, 0.5, block=None), *counted]


def summary(measured: Sequence[Row] | None = None, *, baseline: bool = False) -> ExerciseSummary:
    """An exercise summed up."""
    pings = {"labkit": [1.0] * 50, "naive": [40.0] * 50} if baseline else {}
    found = rows(baseline=baseline) if measured is None else measured
    return ExerciseSummary(found, pings)
