"""How well a server knows that somebody has finished: cut-offs against dead air, as a line.

An endpointer that waits long cuts nobody off, and makes everybody wait. So one number says nothing:
what counts is the line of all its settings (as in LiveKit's eot-bench, 2026). It is read off at two
places on each axis: the dead air at 5 and 10 % of turns cut off, the turns cut off at 300 and
600 ms of dead air. Computation counts as zero here: this is the policy's own line, below which no
faster machine gets.

The decisions are those of the server: the same tracker, the same policies, frame by frame, and what
was said so far is what a recogniser makes of the audio up to then. A fixed wait is the baseline.
Policies of others can be drawn beside it: their decisions on the same turns come from a file.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field, fields
from itertools import cycle
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat, TypeAdapter

from labkit.audio.pcm import SAMPLE_RATE
from labkit.errors import InstrumentError
from labkit.measure.pauses import Turn, drawn_conversations, voices
from labkit.measure.results import Experiment, Tell, read_rows
from labkit.voice.engines import Asr
from labkit.voice.hearing import Endpointing, SpeechTracker, frames_in
from labkit.voice.scheduling import Stop
from labkit.voice.turn_taking import (
    AdaptiveWait,
    EndpointingPolicy,
    FixedWait,
    Pauses,
    Prosody,
    prosody,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_RULES: Final = Endpointing()
_FRAME: Final = 512
_LATE_S: Final = 0.1
"""The detector may hear the end of speech so much before the annotation."""
_WAITS: Final = tuple(float(wait) for wait in np.arange(0.25, 2.05, 0.05).round(2))
_TIMES: Final = tuple(float(times) for times in np.arange(0.3, 3.05, 0.05).round(2))
CUT_OFF_AT: Final = (0.05, 0.10)
DEAD_AIR_AT: Final = (0.3, 0.6)
_RESAMPLES: Final = 1000

_POLICIES: Final[Mapping[str, tuple[Sequence[float], Callable[[float], EndpointingPolicy]]]] = {
    "fixed": (_WAITS, FixedWait),
    "adaptive": (_TIMES, lambda times: AdaptiveWait(_RULES.stop_s, times_usual=times)),
}
"""By name, the settings that are tried, and what makes a policy of one."""


Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Decision:
    """What one policy, at one setting, made of one turn.

    Attributes:
        setting: Seconds of a fixed wait; times a speaker's usual pause of an adaptive one.
        turn: Number of the turn among the caller's.
        cut_off: Whether it was taken for finished before it was.
        dead_air_s: From the end of speech until it was taken for finished, 0 or more.
    """

    policy: str
    setting: FiniteFloat
    caller: int
    turn: int
    cut_off: bool
    dead_air_s: Annotated[FiniteFloat, Field(ge=0)]

    def columns(self) -> dict[str, Any]:
        """The same as columns."""
        return asdict(self)


def read_decisions(path: Path) -> list[Decision]:
    """Read what other policies decided, from a file with the columns of `decisions.csv`.

    Raises:
        InstrumentError: It cannot be read, or a row lacks a column or has what does not belong.
    """
    return read_rows(path, TypeAdapter(Decision).validate_python)


@dataclass(frozen=True, slots=True)
class Heard:
    """A turn, and what was understood of it in each pause, and how that sounds, by frame."""

    turn: Turn
    words: Mapping[int, str]
    sounds: Mapping[int, Prosody | None] = field(default_factory=dict)


def pauses_of(turn: Turn) -> list[int]:
    """The frames at which a pause has lasted for so long that work on it begins."""
    tracker, found = _tracker(2 * AdaptiveWait.MOST_S), []
    for probability in turn.voiced:
        tracker.feed([probability])
        if tracker.pause == frames_in(_RULES.ahead_s, _FRAME):
            found.append(tracker.frames)
    return found


def _tracker(stop_s: float) -> SpeechTracker:
    return SpeechTracker(_FRAME, Endpointing(stop_s=stop_s))


def decide(heard: Heard, policy: EndpointingPolicy) -> list[float]:
    """When a server with this policy takes the turn for finished, in seconds.

    More than once where it was wrong: what comes behind it is an utterance of its own then.
    """
    ahead = frames_in(_RULES.ahead_s, _FRAME)
    pauses = Pauses(policy, frame_s=_FRAME / SAMPLE_RATE, shortest=ahead)
    tracker, times = _tracker(AdaptiveWait.MOST_S), list[float]()
    for frame, probability in enumerate(heard.turn.voiced, 1):
        change = next(iter(tracker.feed([probability])), None)
        pauses.follow(tracker.pause, change)
        if tracker.pause == ahead:
            wait_s = policy.wait_s(heard.words.get(frame), heard.sounds.get(frame))
            tracker.stop_frames = frames_in(wait_s, _FRAME)
        if change is not None and not change.speaking:
            times.append(frame * _FRAME / SAMPLE_RATE)
            tracker = _tracker(AdaptiveWait.MOST_S)
    return times


def judge(times: Sequence[float], turn: Turn) -> tuple[bool, float]:
    """Whether a turn that was taken for finished at these times was cut off, and its dead air.

    That is 0 where the detector heard the end a little before the annotation.
    """
    behind = [time for time in times if time >= turn.end_s - _LATE_S]
    longest_s = len(turn.samples) / SAMPLE_RATE - turn.end_s
    return len(behind) < len(times), (max(0.0, behind[0] - turn.end_s) if behind else longest_s)


@dataclass(frozen=True, slots=True)
class Line:
    """All settings of one policy.

    Attributes:
        points: For each setting, mean dead air in seconds and the share of turns cut off.
        dead_air_s: Least dead air at which no more than 5 and 10 % are cut off, by that share; None
            where no setting does it.
        cut_off: Least share that is cut off at 0.3 and 0.6 s of dead air, by those seconds.
    """

    policy: str
    points: Sequence[tuple[float, float]]
    dead_air_s: Mapping[float, float | None]
    cut_off: Mapping[float, float | None]


class EndpointingSummary:
    """The lines of all policies.

    Attributes:
        lines: In the order in which they were tried, the baseline first.
        turns: How many turns were judged at each setting.
        ratios: By the name of each other policy, its dead air at 5 % cut-offs over the baseline's,
            with a 95 % interval from resampling the callers; None where either has none.
    """

    def __init__(self, decisions: Sequence[Decision]) -> None:
        """Sum up.

        Raises:
            InstrumentError: There is nothing to sum up.
        """
        if not decisions:
            raise InstrumentError("no turn was judged")
        sums = {name: _sums(decisions, name) for name in dict.fromkeys(d.policy for d in decisions)}
        self.turns = len({(one.caller, one.turn) for one in decisions})
        self.lines = [_line(name, _points(own)) for name, own in sums.items()]
        baseline, *others = sums.items()
        self.ratios = {name: _ratio(baseline[1], own) for name, own in others}

    def sentences(self) -> list[str]:
        """What was found, in words."""
        told = [
            f"{line.policy}: no setting cuts off 5 % of the turns or fewer."
            if (dead_air := line.dead_air_s[CUT_OFF_AT[0]]) is None
            else f"{line.policy}: {1000 * dead_air:.0f} ms of dead air with no more than 5 % of "
            "the turns cut off."
            for line in self.lines
        ]
        told += [
            f"The dead air of {name} is {ratio[0]:.2f} times that of {self.lines[0].policy} "
            f"(95 % interval {ratio[1]:.2f} to {ratio[2]:.2f}, {self.turns} turns)."
            for name, ratio in self.ratios.items()
            if ratio is not None
        ]
        return told

    def content(self) -> Mapping[str, Any]:
        """The same in figures."""
        return {"turns": self.turns, "lines": self.lines, "ratios": self.ratios}


def _sums(decisions: Sequence[Decision], policy: str) -> Float64:
    """Cut-offs, seconds of dead air, and turns of one policy, by setting and caller."""
    callers = sorted({one.caller for one in decisions})
    own = [one for one in decisions if one.policy == policy]
    settings = sorted({one.setting for one in own})
    sums = np.zeros((len(settings), len(callers), 3))
    for one in own:
        place = settings.index(one.setting), callers.index(one.caller)
        sums[place] += (one.cut_off, one.dead_air_s, 1)
    return sums


def _points(sums: Float64) -> list[tuple[float, float]]:
    """Mean dead air and share of cut-offs of each setting."""
    cut, dead_air, turns = sums.sum(axis=1).T
    return list(zip((dead_air / turns).tolist(), (cut / turns).tolist(), strict=True))


def _line(name: str, points: Sequence[tuple[float, float]]) -> Line:
    dead_air = {at: _least_dead_air(points, at) for at in CUT_OFF_AT}
    cut_off = {
        at: min((share for seconds, share in points if seconds <= at), default=None)
        for at in DEAD_AIR_AT
    }
    return Line(name, points, dead_air, cut_off)


def _least_dead_air(points: Iterable[tuple[float, float]], cut_off: float) -> float | None:
    return min((seconds for seconds, share in points if share <= cut_off), default=None)


def _ratio(baseline: Float64, own: Float64) -> tuple[float, float, float] | None:
    callers = range(baseline.shape[1])

    def of(drawn: Sequence[int]) -> float:
        first, other = (
            _least_dead_air(_points(sums[:, drawn]), CUT_OFF_AT[0]) for sums in (baseline, own)
        )
        # Callers of whom no setting cuts off so few are the worst there are, and not left out.
        return math.inf if other is None else 0.0 if first is None else other / first

    value = of(callers)
    if not 0 < value < math.inf:
        return None
    rng = Random(0)
    drawn = [of(rng.choices(callers, k=len(callers))) for _ in range(_RESAMPLES)]
    low, high = np.percentile(drawn, (2.5, 97.5), method="inverted_cdf")  # none between a and inf
    return value, float(low), float(high)


@dataclass(slots=True)
class EndpointingExperiment(Experiment[Decision, EndpointingSummary]):
    """Conversations of callers who pause, played to every policy at every setting.

    Attributes:
        each: Callers with each voice; each says nine turns.
        compared: What other policies decided on the same turns.
    """

    asr: Asr
    _: KW_ONLY
    models: str
    seed: int = 1
    each: int = 2
    compared: Sequence[Decision] = ()

    raw = "decisions.csv"
    summary = "summary.json"
    columns = tuple(f.name for f in fields(Decision))

    def about(self) -> Mapping[str, Any]:
        """What was drawn, and how it was judged."""
        drawn = {"models": self.models, "seed": self.seed, "callers_of_a_voice": self.each}
        return {**drawn, "rules": asdict(_RULES), "computation_s": 0.0}

    async def run(self, record: Callable[[Decision], None], tell: Tell) -> None:
        """Draw the conversations, hear each pause once, and decide.

        Raises:
            InstrumentError: What is to be compared is called as one of these policies, or was
                decided on other turns.
        """
        if own := sorted({one.policy for one in self.compared} & _POLICIES.keys()):
            raise InstrumentError(
                f"policy {own[0]!r} is one of this command's own; give those to be compared with "
                "it other names"
            )
        total = len(voices()) * self.each
        drawing = drawn_conversations(Random(self.seed), voices(), each=self.each)
        spoken = list[list[Turn]]()
        tell("drawing the conversations", 0, total)
        # One at a time: a thread cannot be ended, and whoever is ended meanwhile waits for it.
        while (turns := await asyncio.to_thread(next, drawing, None)) is not None:
            spoken.append(turns)
            tell("drawing the conversations", len(spoken), total)
        drawn = Counter(
            (caller, n) for caller, turns in enumerate(spoken) for n in range(len(turns))
        )
        decided: dict[tuple[str, float], Counter[tuple[int, int]]] = {}
        for row in self.compared:
            decided.setdefault((row.policy, row.setting), Counter())[row.caller, row.turn] += 1
        if wrong := [which for which, turns in decided.items() if turns != drawn]:
            raise InstrumentError(
                f"policy {wrong[0][0]!r} at {wrong[0][1]:g} was decided on other turns than these; "
                f"it takes each of {len(drawn)} once, with --seed {self.seed} --each {self.each}"
            )
        for caller, turns in enumerate(spoken):
            tell(turns[0].speaker, caller, total)
            heard = [await asyncio.to_thread(self._hear, turn) for turn in turns]
            for name, (settings, make) in _POLICIES.items():
                for setting in settings:
                    policy = make(setting)
                    for number, one in enumerate(heard):
                        found = judge(decide(one, policy), one.turn)
                        record(Decision(name, setting, caller, number, *found))
        for decision in self.compared:
            record(decision)
        tell("done", total, total)

    def _hear(self, turn: Turn) -> Heard:
        audio = {frame: turn.samples[: frame * _FRAME] for frame in pauses_of(turn)}
        words = {at: self.asr.transcribe(said, Stop()) for at, said in audio.items()}
        return Heard(turn, words, {at: prosody(said) for at, said in audio.items()})

    def summarise(self, rows: Sequence[Decision]) -> EndpointingSummary:
        """The lines."""
        return EndpointingSummary(rows)

    def draw(self, summary: EndpointingSummary) -> Mapping[str, "Figure"]:
        """The lines in one figure."""
        from labkit.measure.figures import figure_of

        ax = plot_lines({line.policy: line.points for line in summary.lines})
        ax.axhline(100 * CUT_OFF_AT[0], color="grey", linestyle=":", linewidth=1)
        return {"endpointing": figure_of(ax)}


def plot_lines(
    named: Mapping[str, Sequence[tuple[float, float]]], *, ax: "Axes | None" = None
) -> "Axes":
    """Draw endpointers as lines: mean dead air to the right, share of turns cut off upwards.

    `named` has (seconds, share) of each setting, by name; a single one is drawn as a point. The
    line joins those that no other setting of its endpointer beats: two knobs make a field of them.
    """
    from labkit.measure.figures import BLUE, GREEN, ORANGE, PURPLE, axes, tidy

    ax = axes(ax)
    looks = ((BLUE, "o", "--"), (ORANGE, "", "-"), (GREEN, "D", "-"), (PURPLE, "s", ":"))
    for (name, points), (colour, marker, style) in zip(named.items(), cycle(looks), strict=False):
        best, size = unbeaten(points), 10 if len(points) == 1 else 4
        others = [point for point in points if point not in best]
        look: dict[str, Any] = {"marker": marker, "color": colour, "markersize": size}
        ax.plot(*_in_percent(best), linestyle=style, label=name, **look)
        if others:
            ax.plot(*_in_percent(others), linestyle="", alpha=0.25, **look)
    ax.set_ylim(bottom=0)
    ax.legend()
    return tidy(ax, "Lower and further left is better", "mean dead air, s", "turns cut off, %")


def unbeaten(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points, from left to right, that have none both lower and as far left."""
    best = list[tuple[float, float]]()
    for point in sorted(points):
        if not best or point[1] < best[-1][1]:
            best.append(point)
    return best


def _in_percent(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [seconds for seconds, _ in points], [100 * share for _, share in points]
