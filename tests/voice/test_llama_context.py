"""Conversations in llama.cpp: none is read twice, and none makes another slow or different."""

from collections.abc import Iterator, Sequence
from itertools import zip_longest

import pytest

from labkit.errors import EngineError
from labkit.voice import llama_context
from labkit.voice.history import Message
from labkit.voice.scheduling import Stop
from tests.engines import embedded_engines
from tests.voice.llama_reader import Reader, conversation


def talk(llm: Reader, name: str, turns: int) -> Iterator[tuple[str, int, int]]:
    """Each reply to one caller, the tokens read for it, and those of the whole prompt."""
    messages: list[Message] = []
    for said in [f"my name is {name}", "what is my name", *["set a timer for ten minutes"] * turns]:
        messages.append(Message("user", said))
        reply, read = llm.answer(messages)
        yield reply, read, llm.count(messages)
        messages.append(Message("assistant", reply.strip()))


def askers() -> list[list[Message]]:
    """Three conversations, one of which is longer than what is read in one call.

    Their replies are sure: where two words are as likely, the last bit of a sum decides, which
    depends on how many tokens were read at a time.
    """
    before = [
        Message("user", "set a timer for ten minutes"),
        Message("assistant", "Timer set for ten minutes."),
    ]
    said = ("turn on the kitchen light", "what is back pressure", "what is jitter")
    return [[*before * n, Message("user", words)] for n, words in enumerate(said)]


def alone(asked: Sequence[Sequence[Message]]) -> list[str]:
    """The reply to each, as somebody gets it who is alone."""
    return ["".join(embedded_engines().llm.reply(messages, Stop())) for messages in asked]


def in_turns(llm: Reader, asked: Sequence[Sequence[Message]]) -> tuple[list[str], int]:
    """The replies, written a token of each at a time, and how many tokens that was."""
    turns = list(zip_longest(*(llm.reply(messages, Stop()) for messages in asked)))
    replies = ["".join(filter(None, pieces)) for pieces in zip(*turns, strict=True)]
    return replies, sum(bool(piece) for pieces in turns for piece in pieces)


@pytest.mark.engines
class TestConversations:
    def test_what_was_read_is_not_read_again(self) -> None:
        turns = list(talk(Reader(), "clara", 6))
        assert all(read < 24 for _, read, _ in turns)
        assert turns[-1][2] > 120

    def test_what_was_read_of_others_meanwhile_costs_nobody_a_second_reading(self) -> None:
        llm = Reader()
        callers = [talk(llm, name, 6) for name in ("clara", "peter", "maria")]
        rounds = list(zip(*callers, strict=True))
        assert all(read < 24 for turns in rounds for _, read, _ in turns)
        names = [reply.lower() for reply, _, _ in rounds[1]]
        names = [reply.lower() for reply, _, _ in rounds[1]]
        assert ["clara" in names[0], "peter" in names[1], "maria" in names[2]] == [True] * 3

    @pytest.mark.parametrize("cells", [4096, 50])
    def test_replies_that_are_written_in_turns_are_as_if_alone(self, cells: int) -> None:
        """Also where each puts the others aside for want of room; and none is read twice."""
        asked, llm = askers(), Reader()
        llm._model.cells = cells
        together, written = in_turns(llm, asked)
        assert together == alone(asked)
        assert llm.tokens <= sum(map(llm.count, asked)) + written

    @pytest.mark.parametrize("room_aside", [0, 300_000])
    def test_where_there_is_no_room_aside_either_they_are_read_again(self, room_aside: int) -> None:
        asked, llm = askers(), Reader()
        llm._model.cells, llm._model.room_aside = 50, room_aside
        together, written = in_turns(llm, asked)
        assert together == alone(asked)
        assert llm.tokens > sum(map(llm.count, asked)) + written

    def test_what_cannot_be_brought_back_is_read_again(self) -> None:
        asked, llm = askers(), Reader()
        llm._model.cells = 50
        llm._model.restore = lambda *_: False  # type: ignore[method-assign]
        assert in_turns(llm, asked)[0] == alone(asked)

    def test_a_conversation_that_was_put_aside_goes_on_where_it_was(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(llama_context, "_MAY_STAY", 0)
        llm = Reader()
        rounds = list(zip(talk(llm, "clara", 6), talk(llm, "peter", 6), strict=True))
        assert all(read < 24 for turns in rounds for _, read, _ in turns)
        assert "clara" in rounds[1][0][0].lower()
        assert "peter" in rounds[1][1][0].lower()
        assert sum(one.sequence >= 0 for one in llm._conversations._held) == 1

    def test_who_has_another_callers_beginning_leaves_it_to_them(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A copy of what is put aside: the one whose it is finds it untouched."""
        monkeypatch.setattr(llama_context, "_MAY_STAY", 0)
        llm, first = Reader(), conversation(6)
        other = [*first[:8], Message("user", "another question")]
        llm.answer(first)
        llm.answer([Message("user", "hello")])  # which puts the first one aside
        assert llm.answer(other)[1] < llm.count(other) / 2
        assert llm.answer(first)[1] <= 8

    def test_few_tokens_are_in_the_context_that_nobody_waits_for(self) -> None:
        llm = Reader()
        for name in ("clara", "peter", "maria", "anna", "john", "sue"):
            for _ in talk(llm, name, 4):
                held = [one for one in llm._conversations._held if one.sequence >= 0]
                assert sum(len(one.tokens) for one in held[:-1]) <= 256

    def test_what_callers_are_all_told_is_read_once(self) -> None:
        llm, told = Reader(), Message("system", "you are a helpful assistant " * 4)
        _, first = llm.answer([told, Message("user", "hello")])
        _, second = llm.answer([told, Message("user", "what is back pressure")])
        assert first > 24 > second

    def test_a_caller_with_the_same_words_disturbs_nobody(self) -> None:
        llm, asked = Reader(), [Message("user", "what is back pressure")]
        alone = llm.answer(asked)[0]
        one, other = llm.reply(asked, Stop()), llm.reply(asked, Stop())
        pieces = zip_longest(one, other, fillvalue="")
        assert ["".join(whole) for whole in zip(*pieces, strict=True)] == [alone, alone]

    def test_what_is_held_is_bounded(self) -> None:
        llm = Reader()
        llm._model.cells, llm._model.room_aside = 150, 1_000_000
        for messages in (conversation(n) for n in range(1, 9)):
            llm.answer(messages)
            held = llm._conversations
            assert held._cells() <= 150
            assert sum(len(one.aside or b"") for one in held._held) <= 1_000_000
        assert 1 < len(llm._conversations._held) < 8

    def test_more_callers_than_sequences_are_answered(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(llama_context, "_MOST_SEQUENCES", 2)
        llm, asked = Reader(), askers()
        alone = ["".join(embedded_engines().llm.reply(messages, Stop())) for messages in asked]
        pieces = zip_longest(*(llm.reply(messages, Stop()) for messages in asked), fillvalue="")
        assert ["".join(whole) for whole in zip(*pieces, strict=True)] == alone

    def test_a_model_without_a_past_to_cut_reads_all_again(self) -> None:
        """Such as models with a state of one size: they cannot go back to a beginning."""
        llm, asked = Reader(), askers()[2]
        reply, whole = llm.answer(asked)
        cut = llm._model.cut
        llm._model.cut = lambda sequence, _: cut(sequence, 0)  # type: ignore[method-assign]
        assert llm.answer(asked) == (reply, whole)

    def test_of_a_large_model_one_of_full_length_is_there_and_one_aside(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """So two callers in turns are not read again at each turn."""
        small = Reader()._model
        assert (small.cells, small.room_aside) == (2048, 48 << 20)
        monkeypatch.setattr(llama_context, "_MOST_KEPT", 0)
        large = Reader()._model
        assert (large.cells, large.room_aside) == (1024, 1024 * large._cell_bytes())

    def test_llama_cpp_saying_no_is_an_engines_error(self) -> None:
        llm = Reader()
        with pytest.raises(EngineError, match="llama_decode gave"):
            llm._model.read(99, [1], 0)
