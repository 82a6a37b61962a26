"""What is told of an utterance while it goes on."""

import asyncio
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.audio.pcm import SAMPLE_RATE
from labkit.errors import EngineError
from labkit.session.events import PartialTranscript, Transcript, TurnOver
from labkit.session.overhearing import Agreement, Partials
from labkit.voice.hearing import Endpointing, SpeechSpan, Stretch, Utterance, speech_stretches
from tests.session.sessions import FRAME, Inline, Scene, at_work, sound


async def say(scene: Scene, seconds: float, level: float = 0.25) -> None:
    audio = sound(round(seconds * SAMPLE_RATE), level)
    for start in range(0, len(audio), 1600):
        scene.hear(audio[start : start + 1600])
        await scene.settle()


async def test_words_are_told_while_they_are_said_and_confirmed_words_stay() -> None:
    async with at_work(server_ends=True, partials=True) as scene:
        await say(scene, 3)
        told = scene.told.of(PartialTranscript)
        assert 5 <= len(told) <= 8
        assert [one.turn for one in told] == [1] * len(told)
        assert told[0].confirmed == ""
        for before, after in zip(told, told[1:], strict=False):
            assert after.confirmed.startswith(before.confirmed)
            assert after.text.startswith(after.confirmed)
        assert len(told[-1].confirmed.split()) > 15
        await say(scene, 1, 0.0)
        kinds = [type(one) for one in scene.told.events]
        assert kinds.index(Transcript) > max(
            place for place, kind in enumerate(kinds) if kind is PartialTranscript
        )
        before = len(scene.told.of(PartialTranscript))
        await say(scene, 1)
        assert scene.told.of(PartialTranscript)[before].turn == 2


async def test_who_did_not_ask_is_told_nothing_and_costs_nothing() -> None:
    async with at_work(server_ends=True) as scene:
        await say(scene, 3)
        assert not scene.told.of(PartialTranscript)
        assert not scene.pipeline.overheard


async def test_the_same_where_the_client_ends_its_utterances() -> None:
    async with at_work(partials=True) as scene:
        await say(scene, 1.5)
        assert scene.told.of(PartialTranscript)
        scene.session.end_utterance()
        await scene.session.all_answered()
        before = len(scene.told.of(PartialTranscript))
        await scene.settle()
        assert len(scene.told.of(PartialTranscript)) == before
        assert len(scene.told.of(TurnOver)) == 1


async def test_work_does_not_grow_with_what_is_over() -> None:
    async with at_work(partials=True) as scene:
        for _ in range(20):
            await say(scene, 1)
            await say(scene, 0.6, 0.0)
        # Each second of speech is heard twice or thrice while it grows, and once when it is over.
        assert scene.pipeline.overheard < 20 * 4 * SAMPLE_RATE
        assert len(scene.told.of(PartialTranscript)[-1].confirmed.split()) >= 19 * 9


class Numbered(Inline):
    """Hears words that are told apart by their level, three seconds at a time."""

    def stretches(
        self, utterance: Utterance, first: int = 0, *, finished: bool = False
    ) -> list[SpeechSpan]:
        found, rules = utterance.probabilities, Endpointing(pad_s=0.1)
        return speech_stretches(found, FRAME, rules, longest_s=3.0, first=first, finished=finished)

    async def overhear(
        self, session: str, stretch: Stretch, *, before: str = "", since_ns: int | None = None
    ) -> str:
        return " ".join(
            str(round(level * 100)) for level, _ in groupby(stretch.audio[::FRAME]) if level
        )


@pytest.mark.parametrize("every", [1, 2, 5, 40])
async def test_of_speech_without_long_pauses_no_word_is_lost_or_told_twice(every: int) -> None:
    utterance = Utterance(60 * SAMPLE_RATE, FRAME)
    pipeline, confirmed = Numbered(), ""
    partials = Partials(pipeline, "one", utterance)
    for word in range(2, 62):
        for level, frames in ((word / 100, 8), (0.0, 1 + 5 * word % 12)):
            utterance.append_s16le(sound(frames * FRAME, level))
            await pipeline.listen("one", utterance)
        if word % every == 0:
            text, now = await partials.hear()
            assert f"{now} ".startswith(f"{confirmed} ".lstrip())
            assert f"{text} ".startswith(f"{now} ".lstrip())
            assert text.split() == [str(one) for one in range(2, word + 1)]
            confirmed = now
    assert confirmed


class Held(Inline):
    """Holds the recogniser up until told otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.free = asyncio.Event()
        self.calls = 0

    async def overhear(
        self, session: str, stretch: Stretch, *, before: str = "", since_ns: int | None = None
    ) -> str:
        self.calls += 1
        await self.free.wait()
        return await super().overhear(session, stretch, before=before)


async def test_under_load_the_latest_wins_and_how_far_behind_is_told() -> None:
    pipeline = Held()
    async with at_work(pipeline, server_ends=True, partials=True) as scene:
        await say(scene, 4)
        assert pipeline.calls == 1
        pipeline.free.set()
        await scene.settle()
        await say(scene, 0.5)
        first, second = scene.told.of(PartialTranscript)[:2]
        assert first.behind_s > 3
        assert second.behind_s < 0.2
        assert len(second.text.split()) > 35


async def test_what_comes_late_for_an_utterance_that_is_over_is_not_told() -> None:
    pipeline = Held()
    async with at_work(pipeline, server_ends=True, partials=True) as scene:
        await say(scene, 2)
        await say(scene, 1, 0.0)
        assert scene.told.of(TurnOver)
        pipeline.free.set()
        await scene.settle()
        assert not scene.told.of(PartialTranscript)


class Deaf(Inline):
    async def overhear(
        self, session: str, stretch: Stretch, *, before: str = "", since_ns: int | None = None
    ) -> str:
        raise EngineError("out of memory")


async def test_a_recogniser_that_fails_ahead_costs_the_turn_nothing() -> None:
    async with at_work(Deaf(), server_ends=True, partials=True) as scene:
        await say(scene, 2)
        await say(scene, 1, 0.0)
        assert not scene.told.of(PartialTranscript)
        assert [over.text for over in scene.told.of(TurnOver)] == ["One. Two."]


async def test_a_copy_of_the_beginning_is_examined_as_the_utterance_is() -> None:
    utterance = Utterance(SAMPLE_RATE, 512)
    utterance.append(np.arange(5 * 512, dtype=np.int16))
    await Inline().listen("", utterance)
    copy = utterance.beginning(3)
    assert copy.probabilities == utterance.probabilities[:3]
    assert len(copy) == 3 * 512
    assert (copy.audio() == utterance.audio(0, 3 * 512)).all()
    assert not copy.unexamined(ended=True)


WORDS = st.sampled_from(["set", "a", "timer", "Timer.", "for", "four", "five"])
HYPOTHESES = st.lists(st.lists(WORDS, max_size=6).map(" ".join), max_size=8)


def test_what_two_hypotheses_agree_on_is_confirmed() -> None:
    agreement = Agreement()
    assert agreement.feed("set a time") == ["set", "a", "time"]
    assert agreement.confirmed == []
    assert agreement.feed("set a timer") == ["set", "a", "timer"]
    assert agreement.confirmed == ["set", "a"]
    agreement.feed("Set a timer, for")
    assert agreement.confirmed == ["set", "a", "timer,"]


@given(HYPOTHESES)
def test_confirmed_words_never_change(hypotheses: list[str]) -> None:
    agreement, before = Agreement(), list[str]()
    for hypothesis in hypotheses:
        shown = agreement.feed(hypothesis)
        assert agreement.confirmed[: len(before)] == before
        assert shown[: len(agreement.confirmed)] == agreement.confirmed
        before = list(agreement.confirmed)


@given(HYPOTHESES)
def test_nothing_is_confirmed_that_was_not_heard_twice_in_its_place(hypotheses: list[str]) -> None:
    agreement = Agreement()
    for hypothesis in hypotheses:
        agreement.feed(hypothesis)
    heard = [[word.strip(".").casefold() for word in h.split()] for h in hypotheses]
    for place, word in enumerate(agreement.confirmed):
        bare = word.strip(".").casefold()
        times = [place < len(words) and words[place] == bare for words in heard]
        assert any(a and b for a, b in zip(times, times[1:], strict=False))
