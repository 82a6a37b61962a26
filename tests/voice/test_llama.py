"""The language model on llama.cpp: what it is given, what it reads, what it writes."""

from collections.abc import Sequence
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
from tests.voice.llama_reader import Reader, conversation


def by_words(messages: Sequence[Message]) -> int:
    return sum(len(message.content.split()) for message in messages)


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

        class Counted(llama.Model):
            has_openmp = with_openmp  # type: ignore[assignment]

            def use_threads(self, threads: int) -> None:
                used.append(threads)
                super().use_threads(threads)

        monkeypatch.setattr(llama, "Model", Counted)
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
    def test_a_reply_that_has_to_end_says_so(
        self, most: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        llm, stop = Reader(), Stop()
        monkeypatch.setattr(llama, "MOST_TOKENS", most)
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
