"""Cut-offs against dead air: what is decided in one turn, and the lines of many."""

import asyncio
import math
import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from labkit.errors import InstrumentError
from labkit.measure import endpointing
from labkit.measure.endpointing import (
    Decision,
    EndpointingExperiment,
    EndpointingSummary,
    Heard,
    decide,
    judge,
    pauses_of,
    read_decisions,
)
from labkit.measure.pauses import FRAME_S, Turn
from labkit.measure.results import Results, conduct
from labkit.voice.scripted import ScriptedAsr
from labkit.voice.turn_taking import AdaptiveWait, FixedWait


def turn(*seconds: float, text: str = "said") -> Turn:
    """Speech and silence by turns, beginning with speech; the last speech is the end."""
    lengths = [*seconds, 2.5]
    voiced = [
        float(number % 2 == 0)
        for number, length in enumerate(lengths)
        for _ in range(round(length / FRAME_S))
    ]
    end_s = sum(round(length / FRAME_S) for length in seconds) * FRAME_S
    samples = np.zeros(len(voiced) * 512, np.float32)
    return Turn("one", text, samples, voiced, [], end_s)


def decided(spoken: Turn, policy: FixedWait | AdaptiveWait, *words: str) -> list[float]:
    """When it is decided, after the end of speech."""
    heard = Heard(spoken, dict(zip(pauses_of(spoken), words, strict=False)))
    return [round(time - spoken.end_s, 2) for time in decide(heard, policy)]


def test_a_fixed_wait_decides_after_so_much_silence_and_cuts_off_in_longer_pauses() -> None:
    assert decided(turn(1.0), FixedWait(0.5)) == [0.51]
    assert decided(turn(1.0, 0.4, 1.0), FixedWait(0.5)) == [0.51]
    early, late = decided(turn(1.0, 0.8, 1.0), FixedWait(0.5))
    assert early < 0
    assert late == 0.51


def test_pauses_are_heard_once_they_are_long_enough_to_be_the_end() -> None:
    assert len(pauses_of(turn(1.0, 0.09, 1.0, 0.2, 1.0))) == 2


def test_an_open_ending_is_waited_for() -> None:
    spoken = turn(1.0, 0.8, 1.0)
    (late,) = decided(spoken, AdaptiveWait(0.5), "set a timer for", "set a timer for six minutes")
    assert late == pytest.approx(1.3 * (0.5 + 0.8) / 2, abs=0.05)
    assert len(decided(spoken, AdaptiveWait(0.5), "set a timer", "set a timer")) == 2


def test_who_was_cut_off_is_waited_for_longer_afterwards() -> None:
    policy = AdaptiveWait(0.5)
    assert len(decided(turn(1.0, 0.8, 1.0), policy)) == 2
    assert len(decided(turn(1.0, 0.8, 1.0), policy)) == 1


def drawn(cut: Sequence[bool], dead_air_s: float, policy: str = "fixed") -> list[Decision]:
    return [
        Decision(policy, dead_air_s, caller, 0, cut_off, dead_air_s)
        for caller, cut_off in enumerate(cut)
    ]


def test_a_line_is_read_off_at_both_axes() -> None:
    rows = [
        *drawn([True] * 10 + [False] * 10, 0.3),
        *drawn([True] * 2 + [False] * 18, 0.6),
        *drawn([True] + [False] * 19, 0.9),
    ]
    (line,) = EndpointingSummary(rows).lines
    assert line.dead_air_s == pytest.approx({0.05: 0.9, 0.10: 0.6})
    assert line.cut_off == pytest.approx({0.3: 0.5, 0.6: 0.1})


def test_the_last_policy_is_compared_with_the_first_and_the_interval_covers_it() -> None:
    rows = [*drawn([False] * 20, 1.0), *drawn([False] * 20, 0.5, "adaptive")]
    summary = EndpointingSummary(rows)
    assert summary.ratios["adaptive"] == pytest.approx((0.5, 0.5, 0.5))
    assert "0.50 times" in summary.sentences()[-1]


def test_dead_air_is_never_negative() -> None:
    spoken = turn(1.0)
    assert judge([spoken.end_s - 0.05], spoken) == (False, 0.0)
    assert judge([spoken.end_s - 0.2, spoken.end_s + 0.3], spoken) == (True, pytest.approx(0.3))


def test_callers_of_whom_no_setting_cuts_off_few_are_in_the_interval() -> None:
    cut = [True] + [False] * 19  # 5 % of all, and more of most that are drawn of them twice
    rows = [*drawn([False] * 20, 1.0), *drawn(cut, 0.5, "adaptive")]
    found = EndpointingSummary(rows).ratios["adaptive"]
    assert found == (0.5, 0.5, math.inf)


def test_what_no_setting_reaches_is_said() -> None:
    summary = EndpointingSummary([*drawn([True] * 20, 1.0), *drawn([True] * 20, 0.5, "adaptive")])
    assert summary.ratios["adaptive"] is None
    assert "no setting" in summary.sentences()[0]
    with pytest.raises(InstrumentError):
        EndpointingSummary([])


def draw(monkeypatch: pytest.MonkeyPatch, spoken: Iterable[list[Turn]]) -> None:
    """Let an experiment have these conversations."""
    monkeypatch.setattr(endpointing, "drawn_conversations", lambda rng, of, each: iter(spoken))


async def test_an_experiment_that_is_ended_draws_no_further_conversation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def drawing() -> Iterator[list[Turn]]:
        for number in count():
            if number == 2:
                loop.call_soon_threadsafe(task.cancel)
                cancelled.wait()
            drawn.append(number)
            yield [turn(1.0)]

    async def work() -> None:
        try:
            await conduct(experiment, Results(tmp_path / "out"))
        finally:
            cancelled.set()

    draw(monkeypatch, drawing())
    loop, cancelled = asyncio.get_running_loop(), threading.Event()
    experiment = EndpointingExperiment(ScriptedAsr(lambda audio: "stop"), models="script")
    task = asyncio.create_task(work())
    with pytest.raises(asyncio.CancelledError):
        await task
    await loop.shutdown_default_executor()
    assert drawn == [0, 1, 2]


def test_an_experiment_from_turns_to_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoken = [[turn(1.0, 0.4, 1.0), turn(0.5)], [turn(1.0, 0.9, 1.0)]]
    draw(monkeypatch, spoken)
    experiment = EndpointingExperiment(ScriptedAsr(lambda audio: "stop"), models="script")
    summary = asyncio.run(conduct(experiment, Results(tmp_path)))
    assert summary.turns == 3
    assert {path.name for path in tmp_path.iterdir()} == {
        "decisions.csv", "summary.json", "endpointing.png", "endpointing.svg",
    }  # fmt: skip
    assert all(isinstance(one, Figure) for one in experiment.draw(summary).values())


def test_decisions_of_others_are_drawn_beside_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(monkeypatch, [[turn(1.0)]])
    path = tmp_path / "theirs.csv"
    path.write_text("policy,setting,caller,turn,cut_off,dead_air_s\ntheirs,7,0,0,False,0.25\n")
    theirs = read_decisions(path)
    assert theirs == [Decision("theirs", 7.0, 0, 0, cut_off=False, dead_air_s=0.25)]
    asr = ScriptedAsr(lambda audio: "stop")
    experiment = EndpointingExperiment(asr, models="script", compared=theirs)
    summary = asyncio.run(conduct(experiment, Results(tmp_path / "out")))
    assert [line.policy for line in summary.lines] == ["fixed", "adaptive", "theirs"]
    assert list(summary.ratios) == ["adaptive", "theirs"]
    assert any(one.startswith("The dead air of theirs is") for one in summary.sentences())


def test_decisions_on_other_turns_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(monkeypatch, [[turn(1.0)] * 2])
    theirs = [Decision("theirs", 7.0, 0, 0, cut_off=False, dead_air_s=0.25)]
    asr = ScriptedAsr(lambda audio: "stop")
    with pytest.raises(InstrumentError, match="other turns"):
        asyncio.run(
            conduct(EndpointingExperiment(asr, models="script", compared=theirs), Results(tmp_path))
        )


COLUMNS = "policy,setting,caller,turn,cut_off,dead_air_s\n"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("policy,setting\na,1\n", "line 2: field 'caller': Field required"),
        (f"{COLUMNS}a,1,0,0,maybe,1\n", "line 2: field 'cut_off': .* it is 'maybe'"),
        (f"{COLUMNS}a,nan,0,0,False,1\n", "line 2: field 'setting': .* it is 'nan'"),
        (f"{COLUMNS}a,1,0,0,False,1\na,1,0,1,False,inf\n", "line 3: field 'dead_air_s': .*'inf'"),
        (f"{COLUMNS}a,1,0,0,False,-0.5\n", "line 2: field 'dead_air_s': .* it is '-0.5'"),
        (COLUMNS, "it has no rows"),
        ("", "it has no rows"),
    ],
)
def test_what_holds_no_decisions_is_refused_with_the_place(
    tmp_path: Path, content: str, why: str
) -> None:
    path = tmp_path / "theirs.csv"
    path.write_text(content)
    with pytest.raises(InstrumentError, match=f"theirs.csv cannot be read: {why}"):
        read_decisions(path)
    with pytest.raises(InstrumentError, match="cannot be read: "):
        read_decisions(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        (
            Decision("adaptive", 0.5, 0, 0, cut_off=False, dead_air_s=0.5),
            "one of this command's own",
        ),
        (Decision("theirs", 0.5, 0, 1, cut_off=False, dead_air_s=0.5), "on other turns than these"),
    ],
)
def test_what_would_be_mixed_up_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: Decision, said: str
) -> None:
    """A name of ours would add their decisions to our line; a turn too few or twice would, too."""
    draw(monkeypatch, [[turn(1.0)]])
    whole = Decision("theirs", 0.25, 0, 0, cut_off=False, dead_air_s=0.5)
    for compared in ([whole, theirs], [whole, theirs, theirs]):
        asr = ScriptedAsr(lambda audio: "stop")
        experiment = EndpointingExperiment(asr, models="script", compared=compared)
        with pytest.raises(InstrumentError, match=said):
            asyncio.run(conduct(experiment, Results(tmp_path)))


def test_every_line_is_drawn() -> None:
    names = [f"policy {number}" for number in range(6)]
    ax = endpointing.plot_lines(dict.fromkeys(names, [(0.3, 0.1), (0.6, 0.05)]))
    assert [line.get_label() for line in ax.lines] == names


def test_a_line_joins_the_settings_that_no_other_beats_and_shows_the_others() -> None:
    best, beaten = [(0.3, 0.5), (0.6, 0.2), (1.0, 0.0)], [(0.5, 0.5), (0.7, 0.3), (1.2, 0.0)]
    ax = endpointing.plot_lines({"two knobs": [*beaten, *best]})
    line, field = ax.lines
    assert [tuple(point) for point in np.asarray(line.get_xydata())] == [
        (seconds, 100 * share) for seconds, share in best
    ]
    assert len(np.asarray(field.get_xydata())) == len(beaten)
    assert field.get_linestyle() == "None"


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, 1))))
def test_of_all_settings_those_are_left_that_no_other_beats(
    points: list[tuple[float, float]],
) -> None:
    left = endpointing.unbeaten(points)
    assert left == sorted(left)
    for seconds, share in points:
        assert any(one <= seconds and other <= share for one, other in left)
    for (one, cut), (other, less) in pairwise(left):
        assert one <= other
        assert cut > less
