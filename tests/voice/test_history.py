"""The memory of a conversation."""

from hypothesis import given
from hypothesis import strategies as st

from labkit.voice.history import Exchange, History, Message


def exchange(number: int, answer: str = "answer") -> Exchange:
    return Exchange(f"question {number}", f"{answer} {number}")


def test_history_keeps_the_last_exchanges() -> None:
    history = History(2)
    for number in range(3):
        history.record(number, exchange(number))
    assert history.messages("now") == [
        Message("user", "question 1"),
        Message("assistant", "answer 1"),
        Message("user", "question 2"),
        Message("assistant", "answer 2"),
        Message("user", "now"),
    ]


def test_a_turn_recorded_again_replaces_its_own_entry_alone() -> None:
    history = History(8)
    for number in (1, 2, 4):
        history.record(number, exchange(number))
    history.record(1, exchange(1, "half of answer"))
    history.record(3, exchange(3))
    assert list(history) == [exchange(1, "half of answer"), exchange(2), exchange(3), exchange(4)]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers()), max_size=20), st.integers(1, 4))
def test_it_holds_the_latest_word_on_each_of_the_last_turns(
    records: list[tuple[int, int]], limit: int
) -> None:
    history = History(limit)
    for turn, number in records:
        history.record(turn, exchange(number))
        assert len(history) <= limit
    latest = dict(records)
    assert list(history) == [exchange(latest[turn]) for turn in sorted(latest)[-limit:]]
