"""What an exercise says, in a table and in one sentence, computed from its data."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from labkit.errors import LabkitError
from labkit.measure.experiment import BASELINE, Exercise
from labkit.measure.results import (
    Row,
    SizeSummary,
    error_rate,
    summarise,
    write_csv,
    write_json,
)
from labkit.measure.statistics import Estimate, difference_of_medians, percentile
from labkit.trace import Stage, packetisation_model_ms

__all__ = ["Report", "conclusion", "ratios", "report", "sentences", "write_report", "write_turns"]


@dataclass(frozen=True, slots=True)
class Report:
    """An exercise summed up.

    Attributes:
        exercise: What was measured.
        sizes: labkit's server, by chunk size.
        baseline: The naive server, by chunk size; empty where it was not measured.
        pings_ms: 99th percentile of the ping round trip while turns ran, by server.
        word_error_rate: Of all transcripts of labkit's server.
        conclusion: One sentence.
    """

    exercise: Exercise
    sizes: Sequence[SizeSummary]
    baseline: Sequence[SizeSummary]
    pings_ms: dict[str, Estimate]
    word_error_rate: float
    conclusion: str


def report(exercise: Exercise) -> Report:
    """Sum an exercise up.

    Raises:
        LabkitError: No turn was answered, so there is nothing to sum up.
    """
    summaries = summarise(exercise.rows, seed=exercise.config.seed)
    own = [s for s in summaries if s.server != BASELINE]
    if not own:
        reasons = [row.errors for row in exercise.rows if row.errors]
        said = f"the server said: {reasons[0]}" if reasons else "nothing was heard in any recording"
        raise LabkitError(f"no turn was answered, so there is nothing to sum up; {said}")
    return Report(
        exercise=exercise,
        sizes=own,
        baseline=[s for s in summaries if s.server == BASELINE],
        pings_ms={name: percentile(rtts, 99) for name, rtts in exercise.pings_ms.items() if rtts},
        word_error_rate=error_rate(r for r in exercise.rows if r.server != BASELINE),
        conclusion=conclusion(exercise.rows, own),
    )


def conclusion(rows: Sequence[Row], sizes: Sequence[SizeSummary]) -> str:
    """What the data say of chunk size and latency, and no more than they say."""
    small, large = sizes[0], sizes[-1]
    by_size = {
        s.chunk_ms: [
            r.ttfa_ms
            for r in rows
            if r.chunk_ms == s.chunk_ms
            and r.server == s.server
            and not r.warmup
            and r.ttfa_ms is not None
        ]
        for s in (small, large)
    }
    grown = difference_of_medians(by_size[small.chunk_ms], by_size[large.chunk_ms])
    predicted = packetisation_model_ms(large.chunk_ms) - packetisation_model_ms(small.chunk_ms)
    middle = min(sizes, key=lambda s: abs(s.chunk_ms - 40))
    stage, share = _largest_stage(middle)
    return (
        f"From {small.chunk_ms} to {large.chunk_ms} ms chunks the median wait for the first "
        f"audible reply {_grew(small, large, grown)} (half a chunk more predicts "
        f"{predicted:.0f} ms), while messages fell from {small.messages_per_s:.0f} to "
        f"{large.messages_per_s:.0f} a second; at {middle.chunk_ms} ms the largest part of the "
        f"wait is {stage.value.replace('_', ' ')} with {share:.0f} %."
    )


def _grew(small: SizeSummary, large: SizeSummary, grown: Estimate) -> str:
    span = f"95 % interval {grown.low:.0f} to {grown.high:.0f}"
    if grown.low <= 0 <= grown.high:
        return f"did not change by more than the noise ({grown.value:+.0f} ms, {span})"
    verb = "rose" if grown.value > 0 else "fell"
    return (
        f"{verb} from {small.ttfa_p50.value:.0f} to {large.ttfa_p50.value:.0f} ms "
        f"({grown.value:+.0f} ms, {span})"
    )


def _largest_stage(size: SizeSummary) -> tuple[Stage, float]:
    total = sum(size.stages.values())
    stage = max(size.stages, key=lambda s: size.stages[s])
    return stage, 100 * size.stages[stage] / total


def ratios(summed: Report) -> dict[str, float]:
    """The naive server over labkit's, in the same run; empty without a baseline."""
    own = {s.chunk_ms: s.ttfa_p50.value for s in summed.sizes}
    found = [s.ttfa_p50.value / own[s.chunk_ms] for s in summed.baseline if s.chunk_ms in own]
    if not found:
        return {}
    both = {"ttfa_p50": fmean(found)}
    if len(summed.pings_ms) == 2:
        both["ping_p99"] = summed.pings_ms[BASELINE].value / summed.pings_ms["labkit"].value
    return both


def sentences(summed: Report) -> list[str]:
    """What the exercise found, in words."""
    found = [
        summed.conclusion,
        f"Words misheard: {100 * summed.word_error_rate:.1f} % of those that were said.",
    ]
    compared = ratios(summed)
    if "ttfa_p50" in compared:
        found.append(
            f"The naive server took {compared['ttfa_p50']:.1f} times as long to the first "
            f"audible reply{_ping_sentence(compared)}."
        )
    return found


def _ping_sentence(compared: dict[str, float]) -> str:
    if "ping_p99" not in compared:
        return ""
    return f", and its 99th percentile of ping was {compared['ping_p99']:.1f} times as long"


def write_turns(exercise: Exercise, folder: Path) -> None:
    """Write the raw data as `turns.csv` into `folder`, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "turns.csv", exercise.rows)


def write_report(summed: Report, folder: Path) -> None:
    """Write `summary.json` into `folder`."""
    content: dict[str, Any] = {
        "about": summed.exercise.about,
        "conclusion": summed.conclusion,
        "word_error_rate": summed.word_error_rate,
        "labkit": summed.sizes,
    }
    if summed.baseline:
        content |= {
            "naive": summed.baseline,
            "ping_p99_ms": summed.pings_ms,
            "ratios_naive_over_labkit": ratios(summed),
        }
    write_json(folder / "summary.json", content)
