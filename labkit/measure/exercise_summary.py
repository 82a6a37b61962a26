"""What the turns of a latency exercise say, by server and chunk size, and in sentences."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Final

from labkit.errors import LabkitError
from labkit.measure.plan import LABKIT
from labkit.measure.statistics import Estimate, difference_of_medians, percentile
from labkit.measure.wer import word_error_rate
from labkit.trace import Mark, Stage, packetisation_model_ms

__all__ = ["BASELINE", "ExerciseSummary", "Row", "SizeSummary", "by_size", "conclusion"]

BASELINE: Final = "naive"
"""Name of the server that is written the naive way."""


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
        block: Turns of one block say the same recording; None for a turn that warms up.
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
    block: int | None
    said: str
    audio_seconds: float
    messages: int
    overhead_bytes: int
    listening_cpu_ms: float
    errors: str = ""
    stages: Mapping[Stage, float] = field(default_factory=dict)
    marks: Mapping[Mark, float] = field(default_factory=dict)


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


def by_size(rows: Iterable[Row], *, seed: int = 0) -> list[SizeSummary]:
    """Summaries by server and chunk size, warm-up turns and turns without a reply left out."""
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        if not row.warmup and row.ttfa_ms is not None:
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
            stage: fmean(row.stages[stage] for row in rows)
            for stage in Stage
            if all(stage in row.stages for row in rows)
        },
        messages_per_s=sum(row.messages for row in rows) / audio,
        overhead_bytes_per_s=sum(row.overhead_bytes for row in rows) / audio,
        cpu_ms_per_s=sum(row.listening_cpu_ms for row in rows) / audio,
    )


class ExerciseSummary:
    """An exercise summed up.

    Attributes:
        rows: What was measured, in the order in which it ran.
        rtts_ms: Round trips of `ping` while turns ran, by server; empty without a baseline.
        sizes: labkit's server, by chunk size.
        baseline: The naive server, by chunk size; empty where it was not measured.
        pings_ms: 99th percentile of the ping's round trip, by server.
        word_error_rate: Of all transcripts of labkit's server.
        conclusion: One sentence.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        rtts_ms: Mapping[str, Sequence[float]],
        *,
        seed: int = 0,
    ) -> None:
        """Sum `rows` up; `seed` draws what the intervals come from.

        Raises:
            LabkitError: No turn was answered, so there is nothing to sum up.
        """
        sizes = by_size(rows, seed=seed)
        self.rows, self.rtts_ms = rows, rtts_ms
        self.sizes = [s for s in sizes if s.server == LABKIT]
        self.baseline = [s for s in sizes if s.server == BASELINE]
        if not self.sizes:
            raise LabkitError(_nothing_answered(rows))
        self.pings_ms = {name: percentile(rtts, 99) for name, rtts in rtts_ms.items() if rtts}
        own = [row for row in rows if row.server == LABKIT]
        self.word_error_rate = word_error_rate((row.said, row.transcript) for row in own)
        self.conclusion = conclusion(own, self.sizes)

    def ratios(self) -> dict[str, float]:
        """The naive server over labkit's, in the same run; empty without a baseline."""
        own = {s.chunk_ms: s.ttfa_p50.value for s in self.sizes}
        found = [s.ttfa_p50.value / own[s.chunk_ms] for s in self.baseline if s.chunk_ms in own]
        if not found:
            return {}
        both = {"ttfa_p50": fmean(found)}
        if len(self.pings_ms) == 2:
            both["ping_p99"] = self.pings_ms[BASELINE].value / self.pings_ms[LABKIT].value
        return both

    def sentences(self) -> list[str]:
        """What the exercise found, in words."""
        found = [
            self.conclusion,
            f"Words misheard: {100 * self.word_error_rate:.1f} % of those that were said.",
        ]
        compared = self.ratios()
        if "ttfa_p50" in compared:
            pings = ""
            if "ping_p99" in compared:
                times = f"{compared['ping_p99']:.1f} times as long"
                pings = f", and its 99th percentile of ping was {times}"
            found.append(
                f"The naive server took {compared['ttfa_p50']:.1f} times as long to the first "
                f"audible reply{pings}."
            )
        return found

    def content(self) -> dict[str, Any]:
        """What goes into `summary.json`."""
        content: dict[str, Any] = {
            "conclusion": self.conclusion,
            "word_error_rate": self.word_error_rate,
            "labkit": self.sizes,
        }
        if self.baseline:
            content |= {
                "naive": self.baseline,
                "ping_p99_ms": self.pings_ms,
                "ratios_naive_over_labkit": self.ratios(),
            }
        return content


def _nothing_answered(rows: Iterable[Row]) -> str:
    reasons = [row.errors for row in rows if row.errors]
    said = f"the server said: {reasons[0]}" if reasons else "nothing was heard in any recording"
    return f"no turn was answered, so there is nothing to sum up; {said}"


def conclusion(rows: Iterable[Row], sizes: Sequence[SizeSummary]) -> str:
    """What the data of one server say of chunk size and latency, and no more than they say."""
    small, large = sizes[0], sizes[-1]
    grown = _growth(rows, small.chunk_ms, large.chunk_ms)
    predicted = packetisation_model_ms(large.chunk_ms) - packetisation_model_ms(small.chunk_ms)
    middle = min(sizes, key=lambda s: abs(s.chunk_ms - 40))
    stage = max(middle.stages, key=lambda s: middle.stages[s])
    share = 100 * middle.stages[stage] / sum(middle.stages.values())
    return (
        f"From {small.chunk_ms} to {large.chunk_ms} ms chunks the median wait for the first "
        f"audible reply {_grew(small, large, grown)} (half a chunk more predicts "
        f"{predicted:.0f} ms), while messages fell from {small.messages_per_s:.0f} to "
        f"{large.messages_per_s:.0f} a second; at {middle.chunk_ms} ms the largest part of the "
        f"wait is {stage.label} with {share:.0f} %."
    )


def _growth(rows: Iterable[Row], small_ms: int, large_ms: int) -> Estimate | None:
    """How much longer the wait is at the larger size, over blocks that have both sizes."""
    blocks: dict[int | None, dict[int, float]] = {}
    for row in rows:
        if not row.warmup and row.ttfa_ms is not None:
            blocks.setdefault(row.block, {})[row.chunk_ms] = row.ttfa_ms
    pairs = [
        (waits[small_ms], waits[large_ms])
        for waits in blocks.values()
        if small_ms in waits and large_ms in waits
    ]
    return difference_of_medians(*zip(*pairs, strict=True)) if pairs else None


def _grew(small: SizeSummary, large: SizeSummary, grown: Estimate | None) -> str:
    if grown is None:
        return "cannot be compared, as no recording was answered at both"
    span = f"95 % interval {grown.low:.0f} to {grown.high:.0f}"
    if grown.low <= 0 <= grown.high:
        return f"did not change by more than the noise ({grown.value:+.0f} ms, {span})"
    verb = "rose" if grown.value > 0 else "fell"
    return (
        f"{verb} from {small.ttfa_p50.value:.0f} to {large.ttfa_p50.value:.0f} ms "
        f"({grown.value:+.0f} ms, {span})"
    )
