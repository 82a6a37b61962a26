"""The marks of a turn: stages that add up, marks that stay, clocks that differ."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.trace import (
    DECIDED_STAGES,
    STAGES,
    Mark,
    Stage,
    Trace,
    chrome_events,
    largest_part,
    wrong_parts,
)

instants = st.integers(0, 10**15)
some_marks = st.dictionaries(st.sampled_from(Mark), instants)
all_marks = st.fixed_dictionaries({mark: instants for mark in Mark})


@given(all_marks)
def test_stages_add_up_to_the_latency(marks: dict[Mark, int]) -> None:
    trace = Trace(marks)
    total = trace.ttfa_ms()
    assert total is not None
    assert sum(trace.stages_ms().values()) == pytest.approx(total, abs=1e-3)


def test_stages_follow_one_another_without_a_gap() -> None:
    assert {*STAGES, *DECIDED_STAGES, Stage.UNTOLD} == set(Stage)
    for stages in (STAGES, DECIDED_STAGES):
        spans = list(stages.values())
        assert all(before[1] is after[0] for before, after in pairwise(spans))
        assert (spans[0][0], spans[-1][1]) == (Mark.END_OF_SPEECH, Mark.FIRST_AUDIO_HEARD)


def test_stages_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        STAGES[Stage.ASR] = (Mark.ASR_DONE, Mark.ASR_DONE)  # type: ignore[index]


@given(some_marks)
def test_a_stage_is_there_when_both_of_its_marks_are(marks: dict[Mark, int]) -> None:
    stages = STAGES if Mark.END_STREAM_SENT in marks else DECIDED_STAGES
    wanted = [stage for stage, ends in stages.items() if set(ends) <= set(marks)]
    told = [stage for stage in Trace(marks).stages_ms() if stage is not Stage.UNTOLD]
    assert told == wanted


@given(st.sets(st.sampled_from(Mark)))
def test_what_a_server_does_not_tell_is_a_part_of_its_own(told: set[Mark]) -> None:
    ends = {Mark.END_OF_SPEECH, Mark.FIRST_AUDIO_HEARD}
    trace = Trace({mark: at * 1_000_000 for at, mark in enumerate(Mark) if mark in told | ends})
    stages, total = trace.stages_ms(), trace.ttfa_ms()
    assert total is not None
    assert sum(stages.values()) == pytest.approx(total)
    assert (Stage.UNTOLD in stages) == (set(trace.stages) - set(stages) != set())


@given(some_marks)
def test_parts_of_marks_in_their_order_are_believed(marks: dict[Mark, int]) -> None:
    in_order = {mark: at for mark, at in zip(Mark, sorted(marks.values()), strict=False)}
    trace = Trace(in_order)
    assert wrong_parts(trace.stages_ms(), trace.ttfa_ms()) == ""


def test_a_mark_of_another_turn_is_found() -> None:
    stale = Trace(
        {
            Mark.END_OF_SPEECH: 300_000_000_000,
            Mark.END_STREAM_RECEIVED: 100_000_000_000,
            Mark.FIRST_AUDIO_RECEIVED: 300_500_000_000,
            Mark.FIRST_AUDIO_HEARD: 300_520_000_000,
        }
    )
    assert "dead air takes -200000.0 ms" in wrong_parts(stale.stages_ms(), stale.ttfa_ms())
    missing = wrong_parts({Stage.DEAD_AIR: 500.0, Stage.ASR: 60.0}, 570.0)
    assert missing == "the parts of the wait add up to 560.0 ms of 570.0"


def test_a_server_that_tells_nothing_leaves_one_part_between_those_of_the_client() -> None:
    at_ms = {
        Mark.END_OF_SPEECH: 0,
        Mark.END_STREAM_SENT: 10,
        Mark.FIRST_AUDIO_RECEIVED: 191,
        Mark.FIRST_AUDIO_HEARD: 246,
    }
    stages = Trace({mark: at * 1_000_000 for mark, at in at_ms.items()}).stages_ms()
    assert list(stages.items()) == [
        (Stage.PACKETISATION, 10),
        (Stage.UNTOLD, 181),
        (Stage.LEADING_SILENCE, 55),
    ]
    assert Stage.UNTOLD.label == "not told by the server"
    assert largest_part(stages) == (Stage.UNTOLD, 181 / 246)
    assert largest_part({}) is None


def test_a_stage_of_no_length_is_still_there() -> None:
    trace = Trace({Mark.ASR_DONE: 5, Mark.LLM_FIRST_TOKEN: 5})
    assert trace.stages_ms() == {Stage.LLM_FIRST_TOKEN: 0.0}


def test_milliseconds_of_a_known_turn() -> None:
    trace = Trace()
    trace.mark(Mark.END_OF_SPEECH, 1_000_000)
    trace.mark(Mark.FIRST_AUDIO_RECEIVED, 251_500_000)
    trace.mark(Mark.FIRST_AUDIO_HEARD, 271_500_000)
    assert trace.ttfb_ms() == 250.5
    assert trace.ttfa_ms() == 270.5


@given(st.sampled_from(Mark), instants, instants)
def test_the_first_instant_of_a_mark_stays(mark: Mark, first: int, second: int) -> None:
    trace = Trace()
    trace.mark(mark, first)
    trace.mark(mark, second)
    trace.merge({mark: second})
    assert trace.marks == {mark: first}


def test_an_instant_of_zero_is_a_mark() -> None:
    trace = Trace()
    trace.mark(Mark.ASR_DONE, 0)
    trace.mark(Mark.ASR_DONE, 7)
    assert trace.between_ms(Mark.ASR_DONE, Mark.ASR_DONE) == 0.0
    assert trace.marks == {Mark.ASR_DONE: 0}


@given(st.sets(st.sampled_from(Mark)))
def test_nothing_is_measured_without_its_marks(missing: set[Mark]) -> None:
    trace = Trace({mark: 1 for mark in Mark if mark not in missing})
    ends = {Mark.END_OF_SPEECH, Mark.FIRST_AUDIO_RECEIVED}
    assert (trace.ttfb_ms() is None) == bool(ends & missing)
    heard = {Mark.END_OF_SPEECH, Mark.FIRST_AUDIO_HEARD}
    assert (trace.ttfa_ms() is None) == bool(heard & missing)


@given(all_marks, st.integers(-(10**12), 10**12))
def test_merging_takes_the_offset_of_the_other_clock_out(
    marks: dict[Mark, int], offset: int
) -> None:
    trace = Trace()
    trace.merge({mark: at + offset for mark, at in marks.items()}, offset_ns=offset)
    assert trace.marks == marks


def test_traces_do_not_share_their_marks() -> None:
    Trace().mark(Mark.ASR_DONE, 1)
    assert Trace().marks == {}


def test_marks_are_named_on_the_wire_as_in_the_code() -> None:
    assert [mark.value for mark in Mark] == [mark.name.lower() for mark in Mark]


def test_what_was_done_before_anybody_waited_is_no_part_of_the_wait() -> None:
    trace = Trace()
    trace.mark(Mark.ASR_STARTED, 10)
    trace.mark(Mark.ASR_DONE, 20)
    trace.wait_from(50)
    trace.mark(Mark.LLM_FIRST_TOKEN, 80)
    assert trace.marks == {
        Mark.ASR_STARTED: 50,
        Mark.ASR_DONE: 50,
        Mark.END_STREAM_RECEIVED: 50,
        Mark.LLM_FIRST_TOKEN: 80,
    }
    assert trace.ahead == {Mark.ASR_STARTED: 10, Mark.ASR_DONE: 20}
    assert trace.ahead_spans() == {Stage.ASR: (10, 20), Stage.LLM_FIRST_TOKEN: (20, 50)}
    assert trace.ahead_ms() == {}
    trace.mark(Mark.END_OF_SPEECH, 0)
    assert trace.ahead_ms()[Stage.ASR] == (1e-5, 2e-5)
    del trace.marks[Mark.END_STREAM_RECEIVED]
    assert trace.ahead_spans() == {Stage.ASR: (10, 20)}


def test_a_turn_is_drawn_by_tools_for_traces() -> None:
    trace = Trace({mark: 1_000_000 * place for place, mark in enumerate(Mark)})
    trace.ahead[Mark.ASR_STARTED] = 2_500_000
    events = chrome_events(trace)
    spans = [event for event in events if event["ph"] == "X" and event["tid"] == 1]
    assert [event["name"] for event in spans] == [stage.label for stage in STAGES]
    assert sum(event["dur"] for event in spans) == pytest.approx(1e3 * (trace.ttfa_ms() or 0))
    marks = [event for event in events if event["ph"] == "i"]
    assert len(marks) == len(Mark)
    (ahead,) = [event for event in events if event["ph"] == "X" and event["tid"] == 3]
    assert (ahead["name"], ahead["ts"], ahead["dur"]) == ("ASR", 2500.0, 1500.0)
    assert min(event["ts"] for event in marks) == 0
    assert chrome_events(Trace()) == []


def test_the_turns_of_a_conversation_are_drawn_on_one_clock() -> None:
    turns = [
        Trace({mark: 1_000_000 * (place + late) for place, mark in enumerate(Mark)})
        for late in (0, 500)
    ]
    marks = [event for event in chrome_events(*turns) if event["ph"] == "i"]
    assert [event["pid"] for event in marks] == [1] * len(Mark) + [2] * len(Mark)
    assert marks[len(Mark)]["ts"] == 500_000
    assert chrome_events(Trace(), turns[1]) == chrome_events(turns[1])
