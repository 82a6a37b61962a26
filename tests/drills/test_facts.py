"""What callers tell, and who says what."""

from collections import Counter

import pytest

from labkit.drills.facts import Fact, Topic, fact_of, plan_callers
from labkit.drills.inputs import Dialect
from labkit.errors import InstrumentError
from labkit.measure.recordings import Recording, load_manifest
from tests.paths import SPEECH


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    return load_manifest(SPEECH)


@pytest.mark.parametrize(
    ("text", "topic", "words"),
    [
        ("hi i am laura", Topic.NAME, "laura"),
        ("please call me james", Topic.NAME, "james"),
        ("i'm oliver", Topic.NAME, "oliver"),
        ("the code is one five seven", Topic.NUMBER, "one five seven"),
        ("please remember eight three nine", Topic.NUMBER, "eight three nine"),
        ("set a timer for two hours", Topic.TIMER, "two hour"),
        ("start a two hour timer", Topic.TIMER, "two hour"),
        ("wake me in twenty two seconds", Topic.TIMER, "twenty two second"),
    ],
)
def test_a_fact_is_found_in_its_sentence(text: str, topic: Topic, words: str) -> None:
    assert fact_of(text) == Fact(topic, words)


@pytest.mark.parametrize("text", ["say four eight nine", "what is a session", "dim the bedroom"])
def test_other_sentences_tell_no_fact(text: str) -> None:
    assert fact_of(text) is None


def test_an_answer_has_a_fact_as_whole_words() -> None:
    fact = Fact(Topic.TIMER, "two hour")
    assert fact.in_answer("Your timer is set for two hours.")
    assert not fact.in_answer("Your timer is set for twenty minutes.")
    assert not Fact(Topic.NUMBER, "one two three").in_answer("It is one, two, or three.")


def test_every_caller_has_a_fact_of_its_own_and_says_it_first(recordings: list[Recording]) -> None:
    plans = plan_callers(recordings, 16, 4, seed=1)
    assert len({plan.fact for plan in plans}) == 16
    assert all(fact_of(plan.recordings[0].text) == plan.fact for plan in plans)
    assert {plan.turns for plan in plans} == {4}
    assert Counter(plan.dialect for plan in plans) == {Dialect.PLAIN: 8, Dialect.V1: 8}


def test_what_is_said_besides_comes_once_before_any_comes_again(
    recordings: list[Recording],
) -> None:
    said = Counter(
        one.name for plan in plan_callers(recordings, 20, 3, seed=3) for one in plan.recordings
    )
    assert set(said.values()) == {1}


def test_plans_follow_from_the_seed(recordings: list[Recording]) -> None:
    assert plan_callers(recordings, 8, 3, seed=1) == plan_callers(recordings, 8, 3, seed=1)
    assert plan_callers(recordings, 8, 3, seed=1) != plan_callers(recordings, 8, 3, seed=2)


@pytest.mark.parametrize("sessions", [0, 60])
def test_there_are_no_more_callers_than_facts(recordings: list[Recording], sessions: int) -> None:
    with pytest.raises(InstrumentError, match=f"sessions: {sessions} callers need"):
        plan_callers(recordings, sessions, 3, seed=1)


def test_callers_need_something_to_say_besides_facts(recordings: list[Recording]) -> None:
    facts = [one for one in recordings if fact_of(one.text)]
    assert plan_callers(facts, 4, 2, seed=1)
    with pytest.raises(InstrumentError, match="nothing to say besides"):
        plan_callers(facts, 4, 3, seed=1)
