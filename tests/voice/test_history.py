"""What a turn goes on from: the memory of a conversation."""

from hypothesis import given
from hypothesis import strategies as st

from labkit.voice.history import Exchange, History, Message


def exchange(number: int, answer: str = "answer") -> Exchange:
    return Exchange(f"question {number}", f"{answer} {number}")


def test_history_gives_the_last_exchanges_as_messages() -> None:
    history = History(2)
    for number in (1, 2):
        history.record(number, exchange(number))
    assert history.messages("now") == [
        Message("user", "question 1"),
        Message("assistant", "answer 1"),
        Message("user", "question 2"),
        Message("assistant", "answer 2"),
        Message("user", "now"),
    ]


def test_the_older_half_goes_at_once_so_that_the_beginning_seldom_changes() -> None:
    history = History(4)
    beginnings = []
    for number in range(1, 10):
        beginnings.append(history.messages("now")[0].content.split()[-1])
        history.record(number, exchange(number))
    assert beginnings == ["now", "1", "1", "1", "1", "4", "4", "4", "7"]


def test_a_turn_recorded_again_replaces_its_own_entry_alone() -> None:
    history = History(8)
    for number in (1, 2, 4):
        history.record(number, exchange(number))
    history.record(1, exchange(1, "half of answer"))
    history.record(3, exchange(3))
    assert list(history) == [exchange(1, "half of answer"), exchange(2), exchange(3), exchange(4)]


def test_a_recogniser_is_told_the_last_few_utterances_in_which_something_was_heard() -> None:
    history = History(8)
    assert history.said() == ""
    for number, user in enumerate(["one", "two", "", "three", "four"], 1):
        history.record(number, Exchange(user, ""))
    assert history.said() == "two three four"


@given(st.lists(st.tuples(st.integers(1, 9), st.integers()), max_size=20), st.integers(1, 4))
def test_it_holds_the_latest_word_on_each_of_the_last_turns(
    records: list[tuple[int, int]], limit: int
) -> None:
    history, last, forgotten = History(limit), {}, 0
    for turn, number in records:
        history.record(turn, exchange(number))
        if turn > forgotten:
            last[turn] = exchange(number)
        kept = sorted(last)[-len(history) :]
        assert list(history) == [last[turn] for turn in kept]
        assert min(len(last), (limit + 1) // 2) <= len(history) <= limit
        forgotten = max({0, *last} - set(kept))
        last = {turn: last[turn] for turn in kept}
