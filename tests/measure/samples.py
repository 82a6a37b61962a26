"""Rows of an exercise, and sound, that follow a formula: what is made of them can be predicted."""

from collections.abc import Mapping, Sequence

import numpy as np

from labkit.audio.pcm import SAMPLE_RATE, Float32
from labkit.measure.chunking import CHUNK_SIZES_MS, overhead_bytes
from labkit.measure.exercise_summary import ExerciseSummary, Row
from labkit.measure.plan import plan_turns
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
FOREIGN = {Stage.UNTOLD: 190.0, Stage.LEADING_SILENCE: 10.0}


def row(
    chunk_ms: int,
    phase: float,
    *,
    server: str = "labkit",
    block: int | None = 0,
    rest: Mapping[Stage, float] = REST,
) -> Row:
    """A turn whose speech ended at `phase` of its chunk."""
    stages = {Stage.PACKETISATION: (1 - phase) * chunk_ms, **rest}
    ttfa = sum(stages.values())
    messages = 2000 // chunk_ms
    return Row(
        utterance=f"{block}.flac",
        voice="one",
        chunk_ms=chunk_ms,
        warmup=block is None,
        transcript="set a timer",
        reply_text="Timer set.",
        reply_seconds=0.8,
        ttfa_ms=ttfa,
        ttfb_ms=ttfa - rest[Stage.LEADING_SILENCE],
        heard_ms=stages[Stage.PACKETISATION] + rest.get(Stage.ASR, 30.0),
        server=server,
        block=block,
        phase=phase,
        said="set a timer",
        audio_seconds=2.0,
        messages=messages,
        overhead_bytes=overhead_bytes(64_000, messages),
        listening_cpu_ms=messages * 0.2 if Stage.ASR in rest else None,
        stages=stages,
        marks={Mark.STREAM_STARTED: 0.0, Mark.END_OF_SPEECH: 1900.0},
    )


def rows(
    sizes: Sequence[int] = CHUNK_SIZES_MS,
    blocks: int = 8,
    *,
    servers: Mapping[str, Mapping[Stage, float]] | None = None,
) -> list[Row]:
    """The turns of a plan, those that warm up first; what a recording adds is its own."""
    rests = servers or {"labkit": REST}
    planned = plan_turns(
        seed=1, recordings=blocks, blocks=blocks, servers=list(rests), chunk_sizes_ms=sizes
    )
    return [
        row(
            turn.chunk_ms,
            turn.phase,
            server=turn.server,
            block=turn.block,
            rest=_longer(rests[turn.server], 40.0 * (turn.block or 0)),
        )
        for turn in planned
    ]


def _longer(rest: Mapping[Stage, float], by_ms: float) -> dict[Stage, float]:
    """What another sentence takes longer to be understood and answered."""
    longest = max(rest, key=lambda stage: rest[stage])
    return {**rest, longest: rest[longest] + by_ms}


def summary(measured: Sequence[Row] | None = None) -> ExerciseSummary:
    """An exercise summed up."""
    return ExerciseSummary(rows() if measured is None else measured)


def side_by_side() -> ExerciseSummary:
    """Three servers: labkit's, one that is slower, and one that tells nothing of itself."""
    slow = {stage: 2 * span for stage, span in REST.items()}
    measured = rows(servers={"labkit": REST, "naive": slow, "mine": FOREIGN})
    return ExerciseSummary(measured, {"labkit": [1.0] * 100, "naive": [40.0] * 100})


def spoken(*seconds: float) -> Float32:
    """Sound and silence by turns, beginning with sound."""
    lengths = [round(one * SAMPLE_RATE) for one in seconds]
    return np.concatenate(
        [np.full(size, 0.5 * (n % 2 == 0), np.float32) for n, size in enumerate(lengths)]
    )
