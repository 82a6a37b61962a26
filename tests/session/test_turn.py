"""The table of a turn: every state and every input, and what is remembered."""

from itertools import product
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import ErrorCode, ProtocolError
from labkit.session.events import Status
from labkit.session.turn import (
    TABLE,
    Answered,
    Begin,
    Cancel,
    Effect,
    Fail,
    Flushed,
    Heard,
    IllegalInputError,
    Input,
    Over,
    Played,
    Remember,
    Said,
    State,
    Stop,
    TakenBack,
    Turn,
)
from labkit.voice.history import Exchange

BROKEN = ProtocolError(ErrorCode.ENGINE_FAILED, "it failed", "say it again")
ONE_OF_EACH: dict[type[Input], Input] = {
    Begin: Begin(),
    Heard: Heard("hello"),
    Said: Said("Hi."),
    Played: Played(10),
    TakenBack: TakenBack(10),
    Answered: Answered(Exchange("hello", "Hi. Bye.")),
    Flushed: Flushed(),
    Cancel: Cancel(0),
    Fail: Fail(BROKEN),
}
WAY_TO: dict[State, list[Input]] = {
    State.ENDED: [],
    State.ANSWERING: [Begin()],
    State.FINISHING: [Begin(), Heard("hello"), Answered(Exchange("hello", "Hi."))],
    State.DONE: [Begin(), Heard("hello"), Answered(Exchange("hello", "Hi.")), Flushed()],
    State.CANCELLED: [Begin(), Heard("hello"), Cancel(0)],
    State.FAILED: [Begin(), Heard("hello"), Fail(BROKEN)],
}


def turn_after(*inputs: Input) -> tuple[Turn, list[Effect]]:
    turn, effects = Turn(1), []
    for given_input in inputs:
        effects += turn.step(given_input)
    return turn, effects


def test_there_is_a_way_to_every_state_and_an_example_of_every_input() -> None:
    assert set(WAY_TO) == set(State)
    assert set(ONE_OF_EACH) == set(get_args(Input))
    assert {state: turn_after(*way)[0].state for state, way in WAY_TO.items()} == {
        state: state for state in State
    }


@pytest.mark.parametrize(
    ("state", "kind"), list(product(State, ONE_OF_EACH)), ids=lambda v: getattr(v, "__name__", v)
)
def test_every_state_takes_every_input_or_names_both(state: State, kind: type[Input]) -> None:
    turn, _ = turn_after(*WAY_TO[state])
    if (state, kind) in TABLE:
        turn.step(ONE_OF_EACH[kind])
        assert turn.state is TABLE[state, kind]
    else:
        with pytest.raises(IllegalInputError, match=f"is {state.value} .* {kind.__name__}"):
            turn.step(ONE_OF_EACH[kind])
        assert turn.state is state


@pytest.mark.parametrize("state", State)
def test_a_cancel_is_legal_at_any_moment(state: State) -> None:
    assert (state, Cancel) in TABLE


def test_a_turn_that_is_answered_is_remembered_and_told_once() -> None:
    _, effects = turn_after(*WAY_TO[State.DONE])
    assert effects == [Remember(Exchange("hello", "Hi.")), Over(Status.COMPLETED, "Hi.")]


def test_of_silence_nothing_is_remembered() -> None:
    turn, effects = turn_after(Begin(), Heard(""), Answered(Exchange("", "")), Flushed())
    assert effects == [Over(Status.NOTHING_HEARD, "")]
    assert turn.step(Cancel(0)) == ()


def test_a_failed_turn_changes_no_memory_when_it_fails_nor_when_it_is_cancelled() -> None:
    turn, effects = turn_after(*WAY_TO[State.FAILED])
    assert effects == [Stop(), Over(Status.FAILED, "", BROKEN)]
    assert turn.step(Cancel(0)) == ()


SPOKEN: list[Input] = [
    Begin(), Heard("hello"), Said("One."), Played(100), Said("Two."), Played(100),
]  # fmt: skip


@pytest.mark.parametrize(
    ("heard", "text"),
    [(0, ""), (1, "One."), (100, "One."), (101, "One. Two."), (None, "One. Two.")],
)
def test_only_what_was_heard_is_remembered(heard: int | None, text: str) -> None:
    _, effects = turn_after(*SPOKEN, Cancel(heard))
    assert effects == [Stop(), Remember(Exchange("hello", text)), Over(Status.CANCELLED, text)]


def test_what_was_not_sent_was_not_heard_whatever_its_client_says() -> None:
    _, effects = turn_after(Begin(), Heard("hello"), Said("One."), Cancel(2**53))
    assert effects == [Stop(), Remember(Exchange("hello", "")), Over(Status.CANCELLED, "")]


def test_a_cancel_while_the_last_audio_waits_for_room_still_stops_the_turn() -> None:
    answered = Answered(Exchange("hello", "One. Two."))
    _, effects = turn_after(*SPOKEN, answered, Cancel(50))
    assert effects == [Stop(), Remember(Exchange("hello", "One.")), Over(Status.CANCELLED, "One.")]


def test_a_cancel_behind_the_end_only_changes_what_is_remembered() -> None:
    answered = Answered(Exchange("hello", "One. Two."))
    turn, _ = turn_after(*SPOKEN, answered, Flushed())
    assert turn.step(Cancel(50)) == (Remember(Exchange("hello", "One.")),)
    assert turn.step(Cancel(50)) == (Remember(Exchange("hello", "One.")),)


def test_a_turn_that_is_cancelled_before_it_was_recognised_is_not_remembered() -> None:
    for way in ([], [Begin()]):
        _, effects = turn_after(*way, Cancel(0))
        assert effects == [Stop(), Over(Status.CANCELLED, "")]


INPUTS = st.lists(
    st.one_of(
        st.just(Begin()),
        st.builds(Heard, st.sampled_from(["", "hello"])),
        st.builds(Said, st.sampled_from(["One.", "Two."])),
        st.builds(Played, st.integers(1, 100)),
        st.builds(Answered, st.builds(Exchange, st.sampled_from(["", "hello"]), st.just("One."))),
        st.just(Flushed()),
        st.builds(Cancel, st.none() | st.integers(0, 300)),
        st.just(Fail(BROKEN)),
    ),
    max_size=30,
)


@given(INPUTS)
def test_whatever_comes_a_turn_is_told_over_at_most_once(inputs: list[Input]) -> None:
    turn, effects = Turn(1), []
    for given_input in inputs:
        before = turn.state
        try:
            effects += turn.step(given_input)
        except IllegalInputError:
            assert (before, type(given_input)) not in TABLE
            assert turn.state is before
    over = [effect for effect in effects if isinstance(effect, Over)]
    assert len(over) == int(turn.over)


@given(INPUTS)
def test_nothing_is_remembered_that_was_not_said_or_not_heard(inputs: list[Input]) -> None:
    turn, said, sentences, at = Turn(1), "", [], 0
    for given_input in inputs:
        try:
            effects = turn.step(given_input)
        except IllegalInputError:
            continue
        match given_input:
            case Heard(text):
                said = text
            case Answered(exchange):
                said = exchange.user
            case Said(sentence):
                sentences.append((at, sentence))
            case Played(samples):
                at += samples
        for effect in effects:
            if isinstance(effect, Remember):
                assert effect.exchange.user == said != ""
                if isinstance(given_input, Cancel):
                    heard = at if given_input.heard is None else min(given_input.heard, at)
                    begun = [sentence for start, sentence in sentences if start < heard]
                    assert effect.exchange.assistant == " ".join(begun)


def test_what_was_taken_back_was_not_heard() -> None:
    turn, _ = turn_after(
        *[Begin(), Heard("hello"), Said("Hi."), Played(10), Said("Bye."), Played(10)]
    )
    turn.step(TakenBack(12))
    assert turn.samples == 8
    remembered, *_ = (one for one in turn.step(Cancel()) if isinstance(one, Remember))
    assert remembered.exchange == Exchange("hello", "Hi.")
