"""Answers that are begun in a pause: used where it was the end, and gone without a trace else."""

import asyncio
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.audio.pcm import SAMPLE_RATE
from labkit.errors import EngineError
from labkit.session.events import ReplyAudio, Sentence, Status, Transcript, TurnOver
from labkit.trace import Mark
from labkit.voice.hearing import Stretch
from labkit.voice.history import Exchange
from labkit.voice.turn import Sink, Turn
from tests.session.sessions import Inline, Scene, at_work, sound

SHORT, LONG = 5 * SAMPLE_RATE // 16, SAMPLE_RATE
"""A pause in which work begins, and one that ends an utterance."""


class Recording(Inline):
    """Keeps the turns that it was asked to answer."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Turn] = []
        self.given = 0
        self.ended = 0

    async def answer(self, turn: Turn, sink: Sink) -> Exchange:
        self.asked.append(turn)
        turn.mark(Mark.ASR_STARTED)
        try:
            return await super().answer(turn, sink)
        finally:
            self.ended += 1


async def say(scene: Scene, *samples: int) -> None:
    """Speech and silence by turns, beginning with speech, chunk by chunk."""
    for number, count in enumerate(samples):
        audio = sound(count, 0.0 if number % 2 else 0.25)
        for start in range(0, len(audio), 1600):
            scene.hear(audio[start : start + 1600])
            await scene.settle()


async def test_what_was_begun_in_the_last_pause_is_there_when_the_end_is_sure() -> None:
    pipeline = Recording()
    async with at_work(pipeline, server_ends=True) as scene:
        await say(scene, SAMPLE_RATE, SHORT)
        assert len(pipeline.asked) == 1
        assert pipeline.asked[0].playback.due(0) is None
        assert not scene.told.of(Transcript, Sentence, ReplyAudio, TurnOver)
        scene.clock.now_ns = 7
        await say(scene, 0, LONG)
        assert len(pipeline.asked) == 1
        assert pipeline.asked[0].playback.due(7) is not None
        (over,) = scene.told.of(TurnOver)
        assert over.status is Status.COMPLETED
        assert over.marks["asr_started"] == over.marks["end_stream_received"] == 7
        assert pipeline.asked[0].trace.ahead[Mark.ASR_STARTED] == 0
        assert scene.counts.ahead == [True]
        assert [one.assistant for one in scene.session.history] == ["One. Two."]


async def test_where_speech_goes_on_nothing_is_left_of_it() -> None:
    pipeline = Recording()
    async with at_work(pipeline, server_ends=True) as scene:
        before = len(asyncio.all_tasks())
        await say(scene, SAMPLE_RATE, SHORT)
        held = scene.session.held_bytes()
        await say(scene, SAMPLE_RATE)
        assert scene.counts.ahead == [False]
        assert pipeline.ended == 1
        assert len(asyncio.all_tasks()) == before
        assert scene.session.held_bytes() < held + 2 * SAMPLE_RATE
        await say(scene, 0, LONG)
        assert [one.text for one in scene.told.of(Transcript)] == [
            f"{2 * SAMPLE_RATE} loud samples"
        ]
        assert len(scene.session.history) == 1


async def test_work_ahead_can_be_switched_off() -> None:
    pipeline = Recording()
    async with at_work(pipeline, {"work_ahead": False}, server_ends=True) as scene:
        await say(scene, SAMPLE_RATE, SHORT)
        assert not pipeline.asked
        await say(scene, 0, LONG)
        assert len(scene.told.of(TurnOver)) == 1
        assert not scene.counts.ahead


SCRIPTS = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=5)


@settings(max_examples=60)
@given(SCRIPTS, st.integers(300, 20_000))
def test_the_client_hears_the_same_with_it_and_without(
    script: list[tuple[int, int]], cut: int
) -> None:
    async def heard(*, work_ahead: bool) -> list[Any]:
        async with at_work(settings={"work_ahead": work_ahead}, server_ends=True) as scene:
            for speech, pause in script:
                audio = sound(speech * 700) + sound(pause * 700, 0.0)
                for start in range(0, len(audio), 2 * cut):
                    scene.hear(audio[start : start + 2 * cut])
                    await scene.settle()
            scene.hear(sound(LONG, 0.0))
            await scene.settle()
            await scene.session.all_answered()
            overs = [
                (one.turn, one.status, one.text, one.samples) for one in scene.told.of(TurnOver)
            ]
            return [scene.told.of(Transcript, Sentence), overs, list(scene.session.history)]

    async def both() -> None:
        assert await heard(work_ahead=True) == await heard(work_ahead=False)

    asyncio.run(both())


class Failing(Inline):
    async def answer(self, turn: Turn, sink: Sink) -> Exchange:
        raise EngineError("the recogniser failed")


async def test_a_failure_ahead_is_told_only_where_somebody_waits_for_the_answer() -> None:
    async with at_work(Failing(), server_ends=True) as scene:
        await say(scene, SAMPLE_RATE, SHORT, SAMPLE_RATE)
        assert not scene.counts.refusals
        await say(scene, 0, LONG)
        (over,) = scene.told.of(TurnOver)
        assert over.status is Status.FAILED


class Endless(Inline):
    """Speaks for as long as it is listened to."""

    made = 0

    async def answer(self, turn: Turn, sink: Sink) -> Exchange:
        await sink.transcript("on and on")
        await sink.text("La.")
        while self.made < 1000:
            await sink.audio(np.full(SAMPLE_RATE, 0.25, np.float32))
            self.made += 1
        return Exchange("on and on", "La.")


async def test_so_much_of_a_reply_is_made_ahead_and_no_more() -> None:
    pipeline = Endless()
    async with at_work(pipeline, server_ends=True) as scene:
        await say(scene, SAMPLE_RATE, SHORT)
        for _ in range(20):
            await scene.settle()
        assert pipeline.made == 5
        assert scene.session.held_bytes() > 4 * 5 * SAMPLE_RATE
        await say(scene, 0, LONG)
        assert pipeline.made > 5
        scene.session.cancel(1, 0)
        await scene.settle()
        made = pipeline.made
        await scene.settle()
        assert pipeline.made == made


async def test_an_answer_to_another_past_is_of_no_use() -> None:
    pipeline = Recording()
    async with at_work(pipeline, server_ends=True) as scene:
        await say(scene, SAMPLE_RATE, LONG, SAMPLE_RATE, SHORT)
        scene.session.cancel(1, 0)  # less of the first reply was heard than was thought
        await say(scene, 0, LONG)
        assert scene.counts.ahead == [True, False]
        assert len(pipeline.asked) == 3
        assert len(scene.told.of(TurnOver)) == 2


@pytest.mark.parametrize("moment", ["in the pause", "behind the end"])
async def test_nothing_runs_on_when_the_session_is_over(moment: str) -> None:
    pipeline = Recording()
    before = len(asyncio.all_tasks())
    async with at_work(pipeline, server_ends=True) as scene:
        pipeline.gate.clear()
        await say(scene, SAMPLE_RATE, SHORT if moment == "in the pause" else LONG)
    assert pipeline.ended == len(pipeline.asked) == 1
    assert len(asyncio.all_tasks()) == before


async def test_a_turn_that_is_cancelled_as_it_begins_ends_what_was_begun_ahead() -> None:
    pipeline = Recording()
    async with at_work(pipeline, server_ends=True) as scene:
        pipeline.gate.clear()
        await say(scene, SAMPLE_RATE, LONG)
        scene.session.cancel(1, 0)
        await scene.settle()
        assert pipeline.ended == 1
        (over,) = scene.told.of(TurnOver)
        assert over.status is Status.CANCELLED


class Understood(Inline):
    """Understands what it is told to have understood."""

    def __init__(self, *said: str) -> None:
        super().__init__()
        self.said = list(said)
        self.overheard_as = ""
        self.before: list[str] = []

    async def overhear(
        self, session: str, stretch: Stretch, *, before: str = "", since_ns: int | None = None
    ) -> str:
        self.before.append(before)
        return self.overheard_as

    async def answer(self, turn: Turn, sink: Sink) -> Exchange:
        await self.gate.wait()
        said = self.said.pop(0)
        await sink.transcript(said)
        await sink.text("Yes.")
        return Exchange(said, "Yes.")


async def test_what_was_said_so_far_moves_the_wait() -> None:
    pipeline = Understood("set a timer for", "set a timer for six minutes")
    async with at_work(pipeline, server_ends=True, adaptive=True, silence_s=0.6) as scene:
        await say(scene, SAMPLE_RATE, SAMPLE_RATE)
        assert not scene.told.of(TurnOver)
        await say(scene, SAMPLE_RATE, SAMPLE_RATE)
        # Longer than the second for which the speaker has paused before.
        assert not scene.told.of(TurnOver)
        await say(scene, 0, SAMPLE_RATE // 2)
        assert [one.text for one in scene.told.of(Transcript)] == ["set a timer for six minutes"]
        assert scene.counts.ahead == [False, True]


@pytest.mark.parametrize("chunk", [160, 1600, 2 * SAMPLE_RATE])
@pytest.mark.parametrize(("last_hz", "ended"), [(150, True), (200, False)])
async def test_how_the_end_sounds_moves_the_wait(chunk: int, last_hz: int, ended: bool) -> None:
    pitch = np.repeat([200, last_hz], [7 * SAMPLE_RATE // 8, SAMPLE_RATE // 8])
    hum = np.sign(np.sin(2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE)) * 8000
    audio = np.pad(hum, (0, 3 * SAMPLE_RATE // 4)).astype("<i2").tobytes()
    pipeline = Understood("stop", "stop")
    async with at_work(pipeline, server_ends=True, adaptive=True, silence_s=0.4) as scene:
        for start in range(0, len(audio), 2 * chunk):
            scene.hear(audio[start : start + 2 * chunk])
            await scene.settle()
        assert bool(scene.told.of(TurnOver)) is ended


async def test_the_words_count_beside_another_turn_too() -> None:
    pipeline = Understood("stop", "set a timer for six minutes")
    async with at_work(pipeline, server_ends=True, adaptive=True, silence_s=0.6) as scene:
        await say(scene, SAMPLE_RATE, SAMPLE_RATE)
        pipeline.gate.clear()
        scene.hear(sound(SAMPLE_RATE))
        scene.session.end_utterance()
        await scene.settle()
        assert scene.session.busy
        pipeline.overheard_as = "set a timer for"
        await say(scene, SAMPLE_RATE, SAMPLE_RATE)
        pipeline.gate.set()
        await scene.session.all_answered()
        assert len(scene.told.of(TurnOver)) == 2


async def test_what_was_said_before_is_told_with_it() -> None:
    pipeline = Understood("first", "second")
    async with at_work(pipeline, server_ends=True, adaptive=True, partials=True) as scene:
        await say(scene, SAMPLE_RATE, 3 * SAMPLE_RATE)
        assert set(pipeline.before) == {""}
        pipeline.before.clear()
        await say(scene, SAMPLE_RATE, 3 * SAMPLE_RATE)
        assert set(pipeline.before) == {"first"}


async def test_the_decision_waits_for_the_words_that_it_depends_on() -> None:
    pipeline = Understood("stop")
    async with at_work(pipeline, server_ends=True, adaptive=True, silence_s=0.4) as scene:
        pipeline.gate.clear()
        await say(scene, SAMPLE_RATE, 2 * SAMPLE_RATE)
        assert not scene.told.of(TurnOver)
        pipeline.gate.set()
        await say(scene, 0, 1600)
        assert len(scene.told.of(TurnOver)) == 1


async def test_where_nothing_is_done_ahead_nothing_is_known_of_the_words() -> None:
    settings = {"work_ahead": False}
    pipeline = Understood("set a timer for")
    async with at_work(pipeline, settings, server_ends=True, adaptive=True, silence_s=0.3) as scene:
        await say(scene, SAMPLE_RATE, SAMPLE_RATE // 2)
        assert len(scene.told.of(TurnOver)) == 1


async def test_who_was_cut_off_is_waited_for_longer_afterwards() -> None:
    pipeline = Understood(*["stop"] * 9)
    async with at_work(pipeline, server_ends=True, adaptive=True, silence_s=0.4) as scene:
        pause = round(0.6 * SAMPLE_RATE)
        await say(scene, SAMPLE_RATE, pause, SAMPLE_RATE, 2 * SAMPLE_RATE)
        assert len(scene.told.of(TurnOver)) == 2
        await say(scene, SAMPLE_RATE, pause, SAMPLE_RATE, 2 * SAMPLE_RATE)
        assert len(scene.told.of(TurnOver)) == 3


async def test_who_speaks_again_later_did_not_pause() -> None:
    pipeline = Understood(*["stop"] * 9)
    async with at_work(pipeline, server_ends=True, adaptive=True, silence_s=0.3) as scene:
        for _ in range(3):
            await say(scene, SAMPLE_RATE, 2 * SAMPLE_RATE)
        assert len(scene.told.of(TurnOver)) == 3
        await say(scene, SAMPLE_RATE, SAMPLE_RATE // 2)
        assert len(scene.told.of(TurnOver)) == 4


async def test_where_the_client_ends_an_utterance_no_silence_runs_into_the_next() -> None:
    pipeline = Understood(*["stop"] * 9)
    async with at_work(pipeline, server_ends=True, adaptive=True, silence_s=0.3) as scene:
        await say(scene, SAMPLE_RATE, 2 * SAMPLE_RATE)
        scene.session.end_utterance()  # of silence; who speaks now did not pause
        await scene.session.all_answered()
        turns = len(scene.told.of(TurnOver))
        await say(scene, SAMPLE_RATE, SAMPLE_RATE // 2)
        assert len(scene.told.of(TurnOver)) == turns + 1


async def test_an_end_for_length_is_no_pause() -> None:
    pipeline = Understood(*["stop"] * 9)
    settings = {"max_utterance_s": 2.0}
    async with at_work(pipeline, settings, server_ends=True, adaptive=True, silence_s=0.3) as scene:
        await say(scene, SAMPLE_RATE, SAMPLE_RATE)
        await say(scene, 5 * SAMPLE_RATE, SAMPLE_RATE // 2)
        turns = len(scene.told.of(TurnOver))
        await say(scene, 0, SAMPLE_RATE // 4)
        assert len(scene.told.of(TurnOver)) == turns


class Remembering(Inline):
    """Keeps the places of the stretches that it was asked to recognise."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[tuple[float, float]] = []

    async def overhear(
        self, session: str, stretch: Stretch, *, before: str = "", since_ns: int | None = None
    ) -> str:
        assert since_ns is None
        self.places.append(stretch.place.in_seconds)
        return await super().overhear(session, stretch, before=before)


PAUSE = 15 * SAMPLE_RATE // 32
"""A pause in speech, behind which another stretch begins."""


@pytest.mark.parametrize("server_ends", [False, True])
async def test_what_cannot_change_any_more_is_recognised_while_speech_goes_on(
    server_ends: bool,
) -> None:
    pipeline = Remembering()
    async with at_work(pipeline, server_ends=server_ends) as scene:
        await say(scene, SAMPLE_RATE, PAUSE)
        assert not pipeline.places
        await say(scene, SAMPLE_RATE, PAUSE)
        assert pipeline.places == [pytest.approx((0, 1), abs=0.04)]
        await say(scene, SAMPLE_RATE, PAUSE)
        assert pipeline.places[-1] == pytest.approx((47 / 32, 79 / 32), abs=0.06)
        await say(scene, 0, LONG)
        scene.session.end_utterance()
        await scene.session.all_answered()
        places = len(pipeline.places)
        await say(scene, SAMPLE_RATE, PAUSE, SAMPLE_RATE)  # the next one
        assert len(pipeline.places) == places + 1


async def test_without_work_ahead_nothing_is_recognised_before_the_end() -> None:
    pipeline = Remembering()
    async with at_work(pipeline, {"work_ahead": False}) as scene:
        await say(scene, *[SAMPLE_RATE, PAUSE] * 3)
        scene.session.end_utterance()
        await scene.session.all_answered()
        assert not pipeline.places


async def test_a_recogniser_that_fails_while_speech_goes_on_is_asked_about_the_next() -> None:
    class Deaf(Remembering):
        async def overhear(
            self, session: str, stretch: Stretch, *, before: str = "", since_ns: int | None = None
        ) -> str:
            await super().overhear(session, stretch, before=before)
            raise EngineError("out of memory")

    pipeline = Deaf()
    async with at_work(pipeline) as scene:
        await say(scene, *[SAMPLE_RATE, PAUSE] * 3)
        scene.session.end_utterance()
        await scene.session.all_answered()
        assert len(pipeline.places) == 2
        assert [over.text for over in scene.told.of(TurnOver)] == ["One. Two."]
