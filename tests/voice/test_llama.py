"""The language model on llama.cpp: what it is given, what it reads, what it writes."""

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import EngineError, ModelBrokenError
from labkit.voice import llama
from labkit.voice.history import Message
from labkit.voice.llama import LlamaLlm, Threads, fit_to_context
from labkit.voice.scheduling import Stop
from tests.engines import embedded_engines, embedded_paths


def by_words(messages: Sequence[Message]) -> int:
    return sum(len(message.content.split()) for message in messages)


def conversation(exchanges: int, *, system: str = "") -> list[Message]:
    said = [Message("system", system)] if system else []
    for number in range(exchanges):
        said += [Message("user", f"question {number}"), Message("assistant", f"answer {number}")]
    return [*said, Message("user", "last question")]


def test_the_oldest_exchanges_are_dropped_first() -> None:
    fitted = fit_to_context(conversation(5, system="be brief"), by_words, room=8)
    assert [m.content for m in fitted] == ["be brief", "question 4", "answer 4", "last question"]


def test_what_is_left_begins_the_same_for_two_turns() -> None:
    """Each time that the beginning changes, all of the prompt has to be read anew."""
    fitted = [fit_to_context(conversation(n), by_words, room=16) for n in range(2, 9)]
    assert [one[0].content[-1] for one in fitted] == list("0022446")


def test_of_a_last_message_that_is_too_long_the_end_stays() -> None:
    long = Message("user", " ".join(map(str, range(50))))
    (only,) = fit_to_context([Message("user", "before"), long], by_words, room=10)
    assert only.content.endswith("48 49")
    assert 0 < by_words([only]) <= 10


def test_what_the_model_is_told_leaves_room_for_what_is_said() -> None:
    told = conversation(1, system="be brief " * 3)
    assert fit_to_context(told, by_words, room=8)[-1].content == "last question"
    with pytest.raises(EngineError, match="the system message takes 8 tokens of the 8 that"):
        fit_to_context(conversation(1, system="be brief " * 4), by_words, room=8)


def told(*, few: Sequence[float], many: Sequence[float]) -> Threads:
    """One thread and two, that took so many seconds a token."""
    threads = Threads(1, 2)
    for seconds in few:
        threads.took(1, seconds)
    for seconds in many:
        threads.took(2, seconds)
    return threads


def written_by_few(threads: Threads, took: Sequence[float]) -> int:
    """How many tokens in a row one thread writes."""
    for tokens, seconds in enumerate(took):
        if threads.choose(alone=True) == 2:
            return tokens
        threads.took(1, seconds)
    return len(took)


class TestThreads:
    def test_few_beside_another_engine_and_many_alone(self) -> None:
        threads = Threads(1, 3)
        assert [threads.choose(alone=alone) for alone in (False, True)] == [1, 3]

    def test_where_many_are_slower_few_write_on_until_it_is_tried_again(self) -> None:
        threads = told(few=[0.010] * 3, many=[0.080] * 3)
        assert written_by_few(threads, [0.010] * 100) == 64
        for _ in range(3):  # what was slow then counts no longer
            assert threads.choose(alone=True) == 2
            threads.took(2, 0.009)
        assert written_by_few(threads, [0.010]) == 0

    def test_one_slow_token_of_many_says_little(self) -> None:
        threads = told(few=[0.016] * 3, many=[0.009] * 5 + [0.030])
        assert threads.choose(alone=True) == 2

    def test_what_few_took_on_a_faster_machine_is_not_believed(self) -> None:
        threads = told(few=[0.016] * 3, many=[0.010] * 3 + [0.018] * 3)
        assert written_by_few(threads, [0.025] * 100) == 3
        for _ in range(10):
            threads.took(2, 0.018)
        assert threads.choose(alone=True) == 2

    def test_many_are_not_judged_by_nothing(self) -> None:
        threads = Threads(1, 2)
        threads.took(2, 1.0)
        assert threads.choose(alone=True) == 2

    @given(st.lists(st.tuples(st.booleans(), st.floats(1e-4, 10))))
    def test_beside_another_engine_it_is_always_few(self, took: list[tuple[bool, float]]) -> None:
        threads = Threads(2, 4)
        for many, seconds in took:
            assert threads.choose(alone=False) == 2
            assert threads.choose(alone=True) in (2, 4)
            threads.took(4 if many else 2, seconds)


class Reader(LlamaLlm):
    """Counts the tokens that it reads and writes."""

    def __init__(self) -> None:
        super().__init__(embedded_paths().llm, threads=1)
        self.tokens = 0
        read = self._model.read

        def counted(sequence: int, tokens: Sequence[int], at: int) -> int:
            self.tokens += len(tokens)
            return read(sequence, tokens, at)

        self._model.read = counted  # type: ignore[method-assign]

    def answer(self, messages: Sequence[Message], stop: Stop | None = None) -> tuple[str, int]:
        """The reply, and how many tokens of the prompt were read for it."""
        before = self.tokens
        pieces = [piece for piece in self.reply(messages, stop or Stop()) if piece]
        return "".join(pieces), self.tokens - before - len(pieces)


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


@pytest.mark.engines
class TestLlm:
    @staticmethod
    def answer(*said: str) -> str:
        llm = embedded_engines().llm
        messages: list[Message] = []
        for words in said:
            messages.append(Message("user", words))
            messages.append(Message("assistant", "".join(llm.reply(messages, Stop())).strip()))
        return messages[-1].content

    def test_it_answers_and_remembers(self) -> None:
        assert "clara" in self.answer("my name is clara", "set a timer for ten minutes",
                                      "what is my name").lower()  # fmt: skip

    def test_the_same_conversation_gets_the_same_reply(self) -> None:
        assert self.answer("what is back pressure") == self.answer("what is back pressure")

    @pytest.mark.parametrize("with_openmp", [True, False])
    def test_what_it_says_does_not_depend_on_its_threads(
        self, with_openmp: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        used: list[int] = []

        class Counted(llama._Model):
            has_openmp = with_openmp  # type: ignore[assignment]

            def use_threads(self, threads: int) -> None:
                used.append(threads)
                super().use_threads(threads)

        monkeypatch.setattr(llama, "_Model", Counted)
        llm = LlamaLlm(embedded_paths().llm, threads=1, alone=2)
        llm.warm_up()
        used.clear()
        for words in ("what is back pressure", "set a timer for ten minutes", "who are you"):
            said = [Message("user", words)]
            replies = set()
            for alone in (False, True):
                llm._threads = Threads(1, 2 if with_openmp else 1)  # and nothing learnt
                llm.set_alone(alone)
                replies.add("".join(llm.reply(said, Stop())))
            assert len(replies) == 1
        assert set(used) == ({1, 2} if with_openmp else {1})

    def test_it_stops_between_two_tokens(self) -> None:
        llm, stop = embedded_engines().llm, Stop()
        pieces = []
        for piece in filter(None, llm.reply([Message("user", "what is back pressure")], stop)):
            pieces.append(piece)
            stop.set()
        assert len(pieces) == 1
        assert len(self.answer("what is back pressure")) > len("".join(pieces))

    @pytest.mark.parametrize(
        ("again", "ends"), [("front page of the ", True), ("three ", False), ("", False)]
    )
    def test_a_reply_that_goes_round_in_circles_ends(self, again: str, ends: bool) -> None:
        llm = Reader()
        words = f"the code is three {again * 9}and that is all"
        tokens = iter(llm._model.tokens(words + llm._model.eos))
        llm._model.read = lambda *_: next(tokens)  # type: ignore[method-assign]
        reply, _ = llm.answer([Message("user", "hello")])
        assert reply.count(again.strip()) >= 3
        assert reply.endswith("and that is all") is not ends

    @pytest.mark.parametrize("most", [3, 40])
    def test_a_reply_that_has_to_end_says_so(self, most: int) -> None:
        llm, stop = Reader(), Stop()
        llm.max_tokens = most
        tokens = llm._model.tokens("Oh 🎉🎉." + llm._model.eos)
        assert most == 40 or len(tokens) > 8
        following = iter(tokens)
        llm._model.read = lambda *_: next(following)  # type: ignore[method-assign]
        llm.answer([Message("user", "hello")], stop)
        assert stop.is_set() is (most == 3)

    def test_control_tokens_in_what_was_heard_are_only_words(self) -> None:
        llm = embedded_engines().llm
        with_token = [Message("user", "say one two <|end|> three")]
        without = [Message("user", "say one two  end  three")]
        assert list(llm.reply(with_token, Stop())) == list(llm.reply(without, Stop()))

    def test_a_long_conversation_fits(self) -> None:
        talk = [Message("user", "set a timer for ten minutes")]
        for _ in range(80):
            talk += [Message("assistant", "A timer for ten minutes, starting now."), talk[0]]
        assert "".join(embedded_engines().llm.reply(talk, Stop()))

    def test_a_broken_model_names_its_file(self, tmp_path: Path) -> None:
        broken = tmp_path / "broken.gguf"
        broken.write_bytes(b"GGUF but not really")
        with pytest.raises(ModelBrokenError, match=r"broken\.gguf .* takes GGUF files\. Fetch it"):
            LlamaLlm(broken, threads=1)

    @pytest.mark.parametrize(
        "template", [b"{% for", b"{{ nobody.knows }}", b"{{ raise_exception('No.') }}"]
    )
    def test_a_model_with_a_broken_chat_template_is_named(
        self, template: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("llama_cpp.llama_model_chat_template", lambda *_: template)
        with pytest.raises(ModelBrokenError, match="its chat template does not work"):
            Reader()

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
        assert ["clara" in names[0], "peter" in names[1], "maria" in names[2]] == [True] * 3

    @pytest.mark.parametrize("cells", [4096, 50])
    def test_replies_that_are_written_in_turns_are_as_if_alone(self, cells: int) -> None:
        """Also where there is so little room that each makes the others lose theirs."""
        asked = askers()
        alone = [embedded_engines().llm.reply(messages, Stop()) for messages in asked]
        llm = Reader()
        llm._model.cells = cells
        turns = list(zip_longest(*(llm.reply(messages, Stop()) for messages in asked)))
        together = ["".join(filter(None, pieces)) for pieces in zip(*turns, strict=True)]
        assert together == ["".join(pieces) for pieces in alone]
        written = sum(bool(piece) for pieces in turns for piece in pieces)
        read_once = sum(map(llm.count, asked)) + written
        assert (llm.tokens <= read_once) is (cells == 4096)

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
        llm._model.cells = 150
        for messages in (conversation(n) for n in range(6)):
            llm.answer(messages)
            assert llm._conversations._cells() <= 150
        assert len(llm._conversations._held) < 6

    def test_more_callers_than_sequences_are_answered(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("labkit.voice.llama._MOST_SEQUENCES", 2)
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

    def test_llama_cpp_saying_no_is_an_engines_error(self) -> None:
        llm = Reader()
        with pytest.raises(EngineError, match="llama_decode gave"):
            llm._model.read(99, [1], 0)

    @pytest.mark.parametrize("looks", [0, 1, 3])
    def test_a_caller_who_hangs_up_stops_the_reading(self, looks: int) -> None:
        class HungUp(Stop):
            def is_set(self) -> bool:
                self.looks = getattr(self, "looks", 0) + 1
                return self.looks > looks

        llm = Reader()
        messages = conversation(12)
        assert llm.answer(messages, HungUp()) == ("", looks * 16)
        reply, read = llm.answer(messages)
        assert reply
        assert read == llm.count(messages) - looks * 16
