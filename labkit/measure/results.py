"""What an exercise measured: one row per turn, its file, and the summary over all rows."""

import csv
import dataclasses
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.client.plain import ClientTurn
from labkit.measure.plan import PlannedTurn
from labkit.measure.recordings import Recording
from labkit.measure.statistics import Estimate, percentile
from labkit.measure.wer import word_error_rate
from labkit.trace import Mark, Stage

__all__ = ["Row", "SizeSummary", "overhead_bytes", "row_of", "summarise", "write_csv", "write_json"]

_SEGMENT_BYTES = 1448
"""Payload of one TCP segment on an Ethernet of 1,500 bytes, with time stamps."""
_SEGMENT_HEADERS = 20 + 32
"""IPv4 header, and TCP header with time stamps."""


@dataclass(frozen=True, slots=True)
class Row:
    """One turn as it was measured. Times in milliseconds, None where there is none.

    Attributes:
        utterance: File of the recording.
        voice: Who speaks in it.
        chunk_ms: Length of one message.
        warmup: Whether it only warmed things up.
        transcript: What the server heard.
        reply_text: What the reply says.
        reply_seconds: Length of the spoken reply.
        ttfa_ms: End of speech to the first audible reply.
        ttfb_ms: End of speech to the first byte of the reply.
        server: Which server answered.
        said: What was really said.
        audio_seconds: Audio that was sent.
        messages: Binary messages that carried it.
        overhead_bytes: Bytes of headers around that audio.
        listening_cpu_ms: CPU time of the server while the audio came in.
        errors: What the server refused or failed at, in its words.
        stages: The parts of `ttfa_ms`.
        marks: All marks, in milliseconds since the microphone opened.
    """

    utterance: str
    voice: str
    chunk_ms: int
    warmup: bool
    transcript: str
    reply_text: str
    reply_seconds: float
    ttfa_ms: float | None
    ttfb_ms: float | None
    server: str
    said: str
    audio_seconds: float
    messages: int
    overhead_bytes: int
    listening_cpu_ms: float
    errors: str = ""
    stages: Mapping[Stage, float] = field(default_factory=dict)
    marks: Mapping[Mark, float] = field(default_factory=dict)


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
        said=recording.text,
        audio_seconds=turn.bytes_sent / 32_000,
        messages=turn.messages_sent,
        overhead_bytes=overhead_bytes(turn.bytes_sent, turn.messages_sent),
        listening_cpu_ms=turn.listening_cpu_ms,
        errors="; ".join(error.message for error in turn.errors),
        stages=turn.trace.stages_ms(),
        marks={m: (turn.trace.marks[m] - start) / 1e6 for m in Mark if m in turn.trace.marks},
    )


def _flat(row: Row) -> dict[str, Any]:
    """The row as columns; stages and marks one each, empty where there is none."""
    columns = {
        f.name: getattr(row, f.name)
        for f in dataclasses.fields(Row)
        if f.name not in ("stages", "marks")
    }
    columns["warmup"] = int(row.warmup)
    columns |= {f"stage_{stage.value}_ms": row.stages.get(stage) for stage in Stage}
    columns |= {f"mark_{mark.value}_ms": row.marks.get(mark) for mark in Mark}
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in columns.items()}


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write the raw data, a row per turn, the warm-up turns too."""
    flat = [_flat(row) for row in rows]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(flat[0]))
        writer.writeheader()
        writer.writerows(flat)


@dataclass(frozen=True, slots=True)
class SizeSummary:
    """What one chunk size gave on one server; times in milliseconds.

    Attributes:
        server: Which server.
        chunk_ms: Length of one message.
        ttfa_p50: Median of the end-to-end latency, with its 95 % interval.
        ttfa_p95: 95th percentile of it.
        ttfb_p50: Median up to the first byte.
        stages: Mean of each part of `ttfa`; means add up, medians do not.
        messages_per_s: Messages per second of audio.
        overhead_bytes_per_s: Header bytes per second of audio.
        cpu_ms_per_s: Server CPU per second of audio that came in.
    """

    server: str
    chunk_ms: int
    ttfa_p50: Estimate
    ttfa_p95: Estimate
    ttfb_p50: Estimate
    stages: Mapping[Stage, float]
    messages_per_s: float
    overhead_bytes_per_s: float
    cpu_ms_per_s: float


def summarise(rows: Iterable[Row], *, seed: int = 0) -> list[SizeSummary]:
    """Summaries by server and chunk size, warm-up turns and turns without a reply left out."""
    counted = [row for row in rows if not row.warmup and row.ttfa_ms is not None]
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in counted:
        groups.setdefault((row.server, row.chunk_ms), []).append(row)
    return [_of_group(groups[key], seed) for key in sorted(groups)]


def _of_group(rows: Sequence[Row], seed: int) -> SizeSummary:
    audio = sum(row.audio_seconds for row in rows)
    ttfa = [row.ttfa_ms for row in rows if row.ttfa_ms is not None]
    ttfb = [row.ttfb_ms for row in rows if row.ttfb_ms is not None]
    return SizeSummary(
        server=rows[0].server,
        chunk_ms=rows[0].chunk_ms,
        ttfa_p50=percentile(ttfa, 50, seed=seed),
        ttfa_p95=percentile(ttfa, 95, seed=seed),
        ttfb_p50=percentile(ttfb, 50, seed=seed),
        stages={
            stage: statistics.fmean(row.stages[stage] for row in rows)
            for stage in Stage
            if all(stage in row.stages for row in rows)
        },
        messages_per_s=sum(row.messages for row in rows) / audio,
        overhead_bytes_per_s=sum(row.overhead_bytes for row in rows) / audio,
        cpu_ms_per_s=sum(row.listening_cpu_ms for row in rows) / audio,
    )


def error_rate(rows: Iterable[Row]) -> float:
    """Word error rate of the transcripts, over all turns."""
    return word_error_rate((row.said, row.transcript) for row in rows)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a summary as JSON; dataclasses become objects."""
    path.write_text(json.dumps(content, indent=2, default=_plain) + "\n", encoding="utf-8")


def _plain(value: object) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} does not go into JSON")
