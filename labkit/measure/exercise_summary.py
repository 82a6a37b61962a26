"""What the turns of a latency exercise say: by server and chunk size, and in sentences."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from statistics import fmean
from typing import Any, Final, TypeVar

from pydantic import FiniteFloat

from labkit.errors import LabkitError
from labkit.measure.chunking import packetisation_wait_ms
from labkit.measure.statistics import FEW, Estimate, median, percentile_95, percentile_99
from labkit.measure.wer import word_error_rate
from labkit.trace import Mark, Stage, largest_part

K = TypeVar("K", bound=Hashable)

TOO_FEW: Final = "too few turns to tell"
_OF_CHUNKS: Final = frozenset((Stage.PACKETISATION, Stage.DEAD_AIR))
"""Parts of the wait in which a chunk is filled."""
_NO_SOUND: Final = "nothing audible came, and no error"
FEW_BLOCKS: Final = 3
"""Fewer pairs than this have no interval that means anything."""


@dataclass(frozen=True, slots=True)
class Row:
    """One turn as it was measured. Times in milliseconds, None where there is none.

    Attributes:
        utterance: File of the recording.
        ttfa_ms: End of speech to the first audible reply: the wait.
        ttfb_ms: End of speech to the first byte of the reply.
        heard_ms: End of speech to the transcript.
        block: Turns of one block say the same recording; None for a turn that warms up.
        phase: Where in its chunk the speech ended, from 0 to 1.
        audio_seconds: Audio that was sent.
        messages: Binary messages that carried it.
        overhead_bytes: Bytes of headers around that audio, computed.
        wire_bytes: Bytes that went over TCP for it, compressed or encrypted where they are; None
            where nobody counted them.
        listening_cpu_ms: CPU time of the server while the audio came in; None where it does not
            tell.
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
    reply_seconds: FiniteFloat
    ttfa_ms: FiniteFloat | None
    ttfb_ms: FiniteFloat | None
    heard_ms: FiniteFloat | None
    server: str
    block: int | None
    phase: FiniteFloat
    said: str
    audio_seconds: FiniteFloat
    messages: int
    overhead_bytes: int
    listening_cpu_ms: FiniteFloat | None
    wire_bytes: int | None = None
    errors: str = ""
    stages: Mapping[Stage, FiniteFloat] = field(default_factory=dict)
    marks: Mapping[Mark, FiniteFloat] = field(default_factory=dict)

    def columns(self) -> dict[str, Any]:
        """Stages and marks are one each, empty where there is none."""
        told = {f.name: getattr(self, f.name) for f in fields(self)[:-2]}
        told["warmup"] = int(self.warmup)
        told |= {f"stage_{stage}_ms": self.stages.get(stage) for stage in Stage}
        return told | {f"mark_{mark}_ms": self.marks.get(mark) for mark in Mark}


COLUMNS: Final = (
    *(f.name for f in fields(Row)[:-2]),
    *(f"stage_{stage}_ms" for stage in Stage),
    *(f"mark_{mark}_ms" for mark in Mark),
)
"""Of a file of turns."""


@dataclass(frozen=True, slots=True)
class SizeSummary:
    """What one chunk size gave on one server; times in milliseconds.

    Attributes:
        turns: Turns that were answered.
        wait: Median wait for the first audible reply over the blocks, with its 95 % interval.
        wait_p95: 95th percentile over the turns; None where they are too few to tell.
        effect: How much later the transcript comes than with the smallest chunks: median of the
            differences within blocks, with its 95 % interval; None for the smallest itself. What
            follows the transcript knows nothing of chunks, and with real models it varies by more
            than any chunk size adds.
        longer: The same for the whole wait, up to the first audible reply.
        predicted_ms: What packetisation alone predicts for both.
        stages: Mean of each part of the wait; means add up, medians do not.
        wire_bytes_per_s: Bytes over TCP per second of audio; None where nobody counted them.
        cpu_ms_per_s: Server CPU per second of audio that came in; None where it does not tell.
    """

    chunk_ms: int
    turns: int
    wait: Estimate
    wait_p95: Estimate | None
    effect: Estimate | None
    longer: Estimate | None
    predicted_ms: float
    stages: Mapping[Stage, float]
    messages_per_s: float
    overhead_bytes_per_s: float
    wire_bytes_per_s: float | None
    cpu_ms_per_s: float | None


@dataclass(frozen=True, slots=True)
class ServerSummary:
    """What one server gave.

    Attributes:
        asked: Turns that it was asked to answer, those that warm up left out.
        sizes: By chunk size, rising.
        rest: Mean of each part of the wait that knows nothing of chunks, over all their sizes.
        longer: How much longer one waits than at the first server: median of the differences
            over the blocks; None for the first itself, and where there is no block to compare.
        word_error_rate: Of its transcripts; None where there are none.
        ping_p99_ms: 99th percentile of the ping's round trip while turns ran; None where it was
            not measured, too few were, or the server answers no ping.
    """

    name: str
    asked: int
    sizes: Sequence[SizeSummary]
    rest: Mapping[Stage, float]
    longer: Estimate | None = None
    word_error_rate: float | None = None
    ping_p99_ms: float | None = None

    @property
    def turns(self) -> int:
        """Turns that it answered."""
        return sum(size.turns for size in self.sizes)

    @property
    def middle(self) -> SizeSummary:
        """The usual chunk size: 40 ms, or what comes nearest to it."""
        return min(self.sizes, key=lambda size: abs(size.chunk_ms - 40))

    @property
    def parts(self) -> dict[Stage, float]:
        """The parts of the wait with the usual chunk size, all others from every turn."""
        own = {stage: span for stage, span in self.middle.stages.items() if stage in _OF_CHUNKS}
        return own | dict(self.rest)

    @property
    def wait_ms(self) -> float:
        """The mean wait with the usual chunk size: the sum of its `parts`."""
        return sum(self.parts.values())


def by_server(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The turns that count, by server, in the order in which the servers warmed up."""
    names = dict.fromkeys(row.server for row in rows)
    counted = {name: [r for r in rows if r.server == name and not r.warmup] for name in names}
    return {name: own for name, own in counted.items() if own}


def paired(
    first: Iterable[Row],
    second: Iterable[Row],
    value: Callable[[Row], float | None] = lambda row: row.ttfa_ms,
) -> list[float]:
    """How much longer one waits in the second turns, a difference for each block of both."""
    left, right = (balanced_means(rows, lambda row: row.block, value) for rows in (first, second))
    return [right[block] - left[block] for block in left if block in right]


def balanced_means(
    rows: Iterable[Row],
    key: Callable[[Row], K],
    value: Callable[[Row], float | None] = lambda row: row.ttfa_ms,
) -> dict[K, float]:
    """Means over groups of turns, in which every chunk size counts alike.

    `key` says what group a turn belongs to, such as its block or its recording. A group in which
    `value` (the wait by default) is None for any turn is left out, since the turns of a group
    balance one another.
    """
    groups: dict[K, dict[int, list[float | None]]] = {}
    for row in rows:
        groups.setdefault(key(row), {}).setdefault(row.chunk_ms, []).append(value(row))
    most = max((len(sizes) for sizes in groups.values()), default=0)
    return {
        name: fmean(fmean(v for v in values if v is not None) for values in sizes.values())
        for name, sizes in groups.items()
        if len(sizes) == most and not any(None in values for values in sizes.values())
    }


def summarise_server(
    name: str,
    rows: Sequence[Row],
    *,
    base: Sequence[Row] = (),
    rtts_ms: Sequence[float] = (),
    seed: int = 0,
) -> ServerSummary:
    """Sum up the turns of one server, and compare them with those of the first, `base`.

    `rtts_ms` are round trips of `ping` while they ran; `seed` draws what the intervals come from.
    """
    answered = [row for row in rows if row.ttfa_ms is not None]
    sizes = sorted({row.chunk_ms for row in answered})
    groups = {size: [row for row in rows if row.chunk_ms == size] for size in sizes}
    longer = paired(base, rows)
    pairs = [(row.said, row.transcript) for row in answered if row.said]
    return ServerSummary(
        name=name,
        asked=len(rows),
        sizes=[_size(groups[size], groups[sizes[0]], seed) for size in sizes],
        rest={s: t for s, t in _means(answered).items() if s not in _OF_CHUNKS},
        longer=median(longer, seed=seed) if longer else None,
        word_error_rate=word_error_rate(pairs) if pairs else None,
        ping_p99_ms=percentile_99(rtts_ms),
    )


def _size(rows: Sequence[Row], smallest: Sequence[Row], seed: int) -> SizeSummary:
    waits = [row.ttfa_ms for row in rows if row.ttfa_ms is not None]
    answered = [row for row in rows if row.ttfa_ms is not None]
    chunk_ms, base_ms = rows[0].chunk_ms, smallest[0].chunk_ms
    base = [] if chunk_ms == base_ms else smallest
    effect, longer = paired(base, rows, lambda row: row.heard_ms), paired(base, rows)
    audio = sum(row.audio_seconds for row in answered)
    cpu = [row.listening_cpu_ms for row in answered if row.listening_cpu_ms is not None]
    wire = [row.wire_bytes for row in answered if row.wire_bytes is not None]
    return SizeSummary(
        chunk_ms=chunk_ms,
        turns=len(answered),
        wait=median(list(balanced_means(rows, lambda row: row.block).values()) or waits, seed=seed),
        wait_p95=percentile_95(waits),
        effect=median(effect, seed=seed) if effect else None,
        longer=median(longer, seed=seed) if longer else None,
        predicted_ms=packetisation_wait_ms(chunk_ms) - packetisation_wait_ms(base_ms),
        stages=_means(answered),
        messages_per_s=sum(row.messages for row in answered) / audio,
        overhead_bytes_per_s=sum(row.overhead_bytes for row in answered) / audio,
        wire_bytes_per_s=sum(wire) / audio if len(wire) == len(answered) else None,
        cpu_ms_per_s=sum(cpu) / audio if len(cpu) == len(answered) else None,
    )


def _means(rows: Sequence[Row]) -> dict[Stage, float]:
    """Mean of each part; what some turns tell and others do not counts as not told."""
    told = [stage for stage in rows[0].stages if all(stage in row.stages for row in rows)]
    if Stage.UNTOLD not in told and any(len(row.stages) > len(told) for row in rows):
        told.insert(1, Stage.UNTOLD)
    known: list[Stage] = [stage for stage in told if stage is not Stage.UNTOLD]
    means = {stage: fmean(row.stages[stage] for row in rows) for stage in known}
    untold = fmean(row.ttfa_ms or 0.0 for row in rows) - sum(means.values())
    return {stage: means.get(stage, untold) for stage in told}


class ExerciseSummary:
    """An exercise summed up.

    Attributes:
        rows: What was measured, in the order in which it ran.
        rtts_ms: Round trips of `ping` while turns ran, by server; empty for a single server.
        notes: What servers do not offer, a sentence each.
        servers: By server, the one that the others are compared with first; servers that
            answered nothing are in `silent` instead.
        silent: Servers that answered nothing, with the reason.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        rtts_ms: Mapping[str, Sequence[float]] | None = None,
        *,
        notes: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        """Sum `rows` up; `seed` draws what the intervals come from.

        Raises:
            LabkitError: No turn was answered.
        """
        self.rows, self.rtts_ms, self.notes = rows, rtts_ms or {}, notes
        answered, self.silent = dict[str, list[Row]](), dict[str, str]()
        for name, own in by_server(rows).items():
            if any(row.ttfa_ms is not None for row in own):
                answered[name] = own
            else:
                self.silent[name] = _reason(own)
        if not answered:
            reason = next(iter(self.silent.values()), "nothing was said")
            raise LabkitError(f"no turn was answered, so there is nothing to sum up; {reason}")
        first = next(iter(answered))
        self.servers = [
            summarise_server(
                name,
                own,
                base=[] if name == first else answered[first],
                rtts_ms=self.rtts_ms.get(name, ()),
                seed=seed,
            )
            for name, own in answered.items()
        ]

    @property
    def conclusion(self) -> str:
        """What the data of the first server say of chunk size and wait, and no more than that."""
        return chunk_sentence(self.servers[0])

    def __repr__(self) -> str:
        """What was found, in words: what a cell shows of it."""
        return "\n".join(self.sentences())

    def sentences(self) -> list[str]:
        """What the exercise found, in words."""
        first, *others = self.servers
        found = [chunk_sentence(server) for server in self.servers]
        found += [_comparison(first, other) for other in others]
        found += [self._unanswered(s) for s in self.servers if s.turns < s.asked]
        found += [f"{name} answered no turn; {reason}." for name, reason in self.silent.items()]
        found += [*self.notes, *filter(None, map(_bytes, self.servers))]
        heard = [
            f"{s.name} {100 * s.word_error_rate:.1f} %"
            for s in self.servers
            if s.word_error_rate is not None
        ]
        if heard:
            found.append(f"Words misheard: {', '.join(heard)} of those that were said.")
        if all(size.wait_p95 is None for s in self.servers for size in s.sizes):
            most = max(size.turns for s in self.servers for size in s.sizes)
            found.append(f"95th percentiles: {TOO_FEW} (up to {most} a size, {FEW} are needed).")
        return found

    def _unanswered(self, server: ServerSummary) -> str:
        """How many turns have no wait, and why most of them: each was tried and counts as that."""
        own = by_server(self.rows)[server.name]
        why = Counter(row.errors or _NO_SOUND for row in own if row.ttfa_ms is None)
        ((most, count),) = why.most_common(1)
        return (
            f"{server.name} left {why.total()} of {server.asked} turns without an audible answer; "
            f"of {count} it is told: {most}."
        )

    def content(self) -> dict[str, Any]:
        """What goes into `summary.json`."""
        return {
            "conclusion": self.sentences(),
            "servers": self.servers,
            "silent": self.silent,
        }


def _reason(rows: Iterable[Row]) -> str:
    said = next((row.errors for row in rows if row.errors), "")
    return f"the server said: {said}" if said else _NO_SOUND


def chunk_sentence(server: ServerSummary) -> str:
    """What the chunk size did to one server's wait, and what the wait consists of."""
    small, large = server.sizes[0], server.sizes[-1]
    of_it = ""
    if (longest := largest_part(server.parts)) is not None:
        stage, share = longest
        of_it = (
            f"; with {server.middle.chunk_ms} ms chunks the largest part of its "
            f"mean wait, {server.wait_ms:.0f} ms, is {stage.label}, {100 * share:.0f} %"
        )
    if large.effect is None or large.longer is None:
        return f"{server.name}: a single chunk size has nothing to be compared with{of_it}."
    return (
        f"{server.name}: from {small.chunk_ms} to {large.chunk_ms} ms chunks the wait for the "
        f"transcript {_changed(large.effect)} (half a chunk more predicts "
        f"{large.predicted_ms:.0f} ms), and that for the first audible reply "
        f"{_changed(large.longer)}{of_it}."
    )


def _changed(effect: Estimate) -> str:
    if effect.sample < FEW_BLOCKS:
        return f"changed by {effect.value:+.0f} ms in the one or two blocks there are: {TOO_FEW}"
    span = f"{effect.interval()}, {effect.sample} blocks"
    if not effect.clear:
        return f"did not change by more than the noise: {effect.value:+.0f} ms, {span}"
    verb = "grew" if effect.value > 0 else "shrank"
    return f"{verb} by {abs(effect.value):.0f} ms, {span}"


def _comparison(first: ServerSummary, other: ServerSummary) -> str:
    """How one server compares with the first, over the recordings that both answered."""
    if other.longer is None or other.longer.sample < FEW_BLOCKS:
        return f"{other.name} and {first.name}: {TOO_FEW}."
    longer, ratio = other.longer, other.wait_ms / first.wait_ms
    found = (
        f"{other.name} takes {abs(longer.value):.0f} ms {'longer' if longer.value > 0 else 'less'} "
        f"than {first.name} (median of {longer.sample} blocks, all chunk sizes; "
        f"{longer.interval('+.0f')}), {ratio:.1f} times the mean wait with "
        f"{other.middle.chunk_ms} ms chunks"
        if longer.clear
        else f"{other.name} and {first.name} differ by no more than the noise "
        f"({longer.value:+.0f} ms, {longer.interval()})"
    )
    if first.ping_p99_ms and other.ping_p99_ms:
        pings = f"{other.ping_p99_ms:.1f} ms against {first.ping_p99_ms:.1f}"
        return f"{found}; 99th percentile of a ping while turns ran: {pings}."
    return f"{found}."


def _bytes(server: ServerSummary) -> str:
    """What went over the wire with the usual chunk size; empty where nobody counted."""
    used = server.middle.wire_bytes_per_s
    if used is None:
        return ""
    return (
        f"{server.name}: {used / 1000:.1f} kB went up for a second of audio (32.0 kB) in "
        f"{server.middle.chunk_ms} ms chunks, without the headers of TCP."
    )
