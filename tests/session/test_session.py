"""One conversation without any socket: what it hears, answers, remembers, and holds."""

import asyncio
import gc
import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.audio.formats import AudioFormat
from labkit.audio.pcm import Encoding
from labkit.errors import EngineError, ErrorCode, ProtocolError
from labkit.session.events import (
    Refused,
    ReplyAudio,
    SpeechStarted,
    SpeechStopped,
    Status,
    Transcript,
    TurnOver,
)
from labkit.session.limits import Budget
from labkit.session.outgoing import Feed
from labkit.voice.hearing import Utterance
from labkit.voice.history import Exchange
from labkit.voice.pipeline import EchoPipeline, VoicePipeline
from labkit.voice.scripted import ScriptedLlm, scripted_engines
from labkit.voice.turn import Sink, Turn
from tests.session.sessions import FRAME, Inline, Scene, at_work, sound
from tests.support import until

SECOND = 16_000


async def test_an_utterance_is_answered_and_remembered() -> None:
    async with at_work() as scene:
        scene.hear(sound(SECOND))
        scene.session.end_utterance()
        await scene.session.all_answered()
        assert scene.told.of(Transcript) == [Transcript(1, "16000 loud samples")]
        (over,) = scene.told.of(TurnOver)
        assert (over.status, over.text, over.samples) == (Status.COMPLETED, "One. Two.", 3200)
        assert list(scene.session.history) == [Exchange("16000 loud samples", "One. Two.")]
        assert scene.counts.turns == 1


async def test_of_silence_nothing_is_remembered() -> None:
    async with at_work() as scene:
        scene.hear(sound(SECOND, 0))
        scene.session.end_utterance()
        await scene.session.all_answered()
        assert scene.told.of(TurnOver)[0].status is Status.NOTHING_HEARD
        assert not len(scene.session.history)


async def test_a_cancel_of_a_turn_in_which_nothing_was_heard_changes_no_other() -> None:
    async with at_work() as scene:
        for level in (0.25, 0.0):
            scene.hear(sound(SECOND, level))
            scene.session.end_utterance()
            await scene.session.all_answered()
        before = list(scene.session.history)
        scene.session.cancel(2, 0)
        assert list(scene.session.history) == before != []


async def test_a_late_cancel_of_an_earlier_turn_amends_that_one() -> None:
    async with at_work() as scene:
        for samples in (SECOND, 2 * SECOND):
            scene.hear(sound(samples))
            scene.session.end_utterance()
            await scene.session.all_answered()
        scene.session.cancel(1, 100)
        assert [exchange.assistant for exchange in scene.session.history] == ["One.", "One. Two."]


async def test_a_cancel_while_the_last_audio_waits_for_room() -> None:
    pipeline = Inline()
    async with at_work(pipeline, settings={"replay_s": 0.1}) as scene:
        scene.hear(sound(SECOND))
        scene.session.end_utterance()
        await scene.settle()
        assert scene.session.busy
        scene.session.cancel(1, 10)
        await scene.session.all_answered()
        assert scene.told.of(TurnOver)[0].status is Status.CANCELLED
        assert [exchange.assistant for exchange in scene.session.history] == ["One."]


async def test_a_turn_that_waits_can_be_cancelled_and_never_runs() -> None:
    async with at_work() as scene:
        scene.pipeline.gate.clear()
        for _ in range(2):
            scene.hear(sound(SECOND))
            scene.session.end_utterance()
        await scene.settle()
        scene.session.cancel(2, 0)
        scene.pipeline.gate.set()
        await scene.session.all_answered()
        assert [(over.turn, over.status) for over in scene.told.of(TurnOver)] == [
            (2, Status.CANCELLED),
            (1, Status.COMPLETED),
        ]
        assert [event.turn for event in scene.told.of(Transcript)] == [1]


async def test_a_turn_is_cancelled_before_the_detector_has_looked_at_it() -> None:
    async with at_work() as scene:
        for _ in range(2):
            scene.hear(sound(SECOND))
            scene.session.end_utterance()
        scene.session.cancel(1, 0)  # nothing was examined yet
        await scene.session.all_answered()
        assert [(over.turn, over.status) for over in scene.told.of(TurnOver)] == [
            (1, Status.CANCELLED),
            (2, Status.COMPLETED),
        ]
        assert [event.turn for event in scene.told.of(Transcript)] == [2]


async def test_the_turn_that_is_answered_is_known_while_as_many_wait_as_may() -> None:
    async with at_work(settings={"history": 0, "max_waiting_turns": 2}) as scene:
        scene.pipeline.gate.clear()
        for _ in range(3):
            scene.hear(sound(SECOND))
            scene.session.end_utterance()
            await scene.settle()
        scene.session.cancel(1, 0)
        assert scene.told.of(TurnOver)[0].turn == 1


async def test_a_turn_that_waits_and_is_cancelled_takes_no_place() -> None:
    async with at_work(settings={"max_waiting_turns": 1}) as scene:
        scene.pipeline.gate.clear()
        for turn in range(1, 5):
            scene.hear(sound(SECOND))
            scene.session.end_utterance()
            await scene.settle()
            if turn > 1:
                scene.session.cancel(turn, 0)
        assert scene.session.held_bytes() < 2 * 2 * SECOND + 1000


@pytest.mark.parametrize("server_ends", [False, True])
async def test_a_session_that_is_over_holds_nothing_when_its_tasks_end(server_ends: bool) -> None:
    above = Budget(10**9)
    async with at_work(settings={"replay_s": 0.2}, server_ends=server_ends) as scene:
        scene.session._budget = Budget(10**9, above)
        scene.hear(sound(2 * SECOND) + sound(SECOND, 0))
        if not server_ends:
            scene.session.end_utterance()
        scene.hear(sound(2 * SECOND) + sound(SECOND // 5, 0))
        await scene.settle()
        scene.session.recount()
        assert above.used > 4 * SECOND
    assert above.used == 0


async def test_what_was_said_is_let_go_of_when_its_turn_is_cancelled() -> None:
    async with at_work() as scene:
        scene.pipeline.gate.clear()
        scene.hear(sound(10 * SECOND))
        scene.session.end_utterance()
        await until(lambda: scene.session._answers._answering)
        answering = scene.session._answers._answering
        assert answering is not None
        said = weakref.ref(answering.asked.utterance)
        del answering
        scene.session.cancel(1, 0)
        await scene.settle()
        assert said() is None


async def test_how_long_an_answer_is_waited_for_is_not_what_its_client_holds_up() -> None:
    async with at_work(settings={"replay_s": 0.1}, acknowledges=True) as scene:
        scene.pipeline.gate.clear()
        scene.hear(sound(SECOND))
        scene.session.end_utterance()
        await scene.settle()
        assert scene.session.behind_s(30 * 10**9) == 30
        scene.session.outgoing.put_now(bytes(3200))  # and nothing of it is acknowledged
        assert scene.session.behind_s(30 * 10**9) == 0
        scene.session.acknowledge(scene.session.outgoing.window.sent)
        while scene.session.outgoing.take() is not None:
            pass
        scene.session.acknowledge(scene.session.outgoing.window.sent)
        assert scene.session.behind_s(30 * 10**9) == 30
        scene.session.detach()
        assert scene.session.behind_s(30 * 10**9) == 0


async def test_audio_that_comes_too_fast_is_told_once_until_it_comes_slowly() -> None:
    settings = {"burst_s": 2.0, "max_audio_speed": 8.0, "max_utterance_s": 600.0}
    async with at_work(settings=settings) as scene:
        for times in (1, 2):
            for _ in range(1000):  # 20 s as fast as they are read, by a clock that is a little late
                scene.hear(sound(SECOND // 50))
                late_ns = 4_000_000 if scene.session.wait_until_ns else 0
                scene.clock.now_ns = max(scene.clock.now_ns, scene.session.wait_until_ns) + late_ns
            assert scene.counts.refusals == {ErrorCode.AUDIO_TOO_FAST: times}
            for _ in range(50):  # and a second at the pace of speech
                scene.clock.now_ns += 20_000_000
                scene.hear(sound(SECOND // 50))


@pytest.mark.parametrize("how", ["cancelled", "over with its session"])
@pytest.mark.parametrize("barge_in", [False, True])
async def test_nothing_of_a_reply_that_is_stopped_waits_for_the_collector(
    how: str, barge_in: bool
) -> None:
    pipeline = VoicePipeline(
        scripted_engines(llm=ScriptedLlm(lambda messages: "one two three. " * 900))
    )
    gc.collect()
    gc.disable()
    try:
        async with at_work(pipeline, server_ends=True, barge_in=barge_in) as scene:
            scene.hear(sound(SECOND) + sound(SECOND, 0))
            await until(lambda: scene.told.of(ReplyAudio))
            answering = scene.session._answers._answering
            assert answering is not None
            left = weakref.ref(answering.asked.utterance)
            del answering
            if how == "cancelled":
                scene.session.cancel(1, 0)
                await scene.session.all_answered()
                await until(lambda: left() is None)
        await until(lambda: left() is None)
    finally:
        gc.enable()
        pipeline.close()


async def test_a_turn_that_never_was_is_named() -> None:
    async with at_work() as scene:
        with pytest.raises(ProtocolError, match="turn 9 .*: no turn was answered yet") as caught:
            scene.session.cancel(9, 0)
        assert caught.value.code is ErrorCode.UNKNOWN_RESPONSE
        scene.hear(sound(320))
        scene.session.end_utterance()
        await scene.settle()
        with pytest.raises(ProtocolError, match="turn 9 is none of the last 1 that were answered"):
            scene.session.cancel(9, 0)


class Bad(EchoPipeline):
    """Gives what no engine should."""

    def __init__(self, gift: Any) -> None:
        self.gift = gift

    async def answer(self, turn: Turn, sink: Sink) -> Exchange:
        gift, self.gift = self.gift, "well"
        if isinstance(gift, np.ndarray):
            await sink.audio(gift)
        elif isinstance(gift, Exception):
            raise gift
        else:
            await sink.transcript(gift)
        return Exchange("well", "")


@pytest.mark.parametrize(
    "gift",
    [
        np.array([0.1, np.nan], np.float32),
        np.array([np.inf], np.float32),
        np.zeros((2, 2), np.float32),
        None,
        b"bytes",
        "half \ud800 a letter",
        EngineError("it broke"),
    ],
    ids=["NaN", "infinity", "shape", "None", "bytes", "surrogate", "failure"],
)
async def test_what_an_engine_must_not_give_fails_its_turn_and_no_other(gift: Any) -> None:
    async with at_work(Bad(gift)) as scene:
        for _ in range(2):
            scene.hear(sound(800))
            scene.session.end_utterance()
            await scene.session.all_answered()
        assert [over.status for over in scene.told.of(TurnOver)] == [
            Status.FAILED,
            Status.COMPLETED,
        ]
        assert [told.error.code for told in scene.told.of(Refused)] == [ErrorCode.ENGINE_FAILED]
        assert [exchange.user for exchange in scene.session.history] == ["well"]


async def test_a_detector_that_failed_is_asked_again_where_no_audio_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise EngineError("it broke")

    monkeypatch.setattr("labkit.session.listening._AGAIN_S", 0.0)
    async with at_work(server_ends=True) as scene:
        with monkeypatch.context() as broken:
            broken.setattr(scene.pipeline, "listen", fail)
            scene.hear(sound(SECOND) + sound(SECOND, 0))
            await scene.settle()
        (told,) = scene.told.of(Refused)
        assert "nobody listens for speech: it broke" in str(told.error)
        await until(lambda: scene.told.of(TurnOver))
        assert scene.told.of(Transcript)[0] == Transcript(1, f"{SECOND} loud samples")


@pytest.mark.parametrize("server_ends", [False, True])
async def test_a_detector_that_fails_is_told_of_once_where_no_turn_does(
    server_ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise EngineError("it broke")

    async with at_work(server_ends=server_ends) as scene:
        with monkeypatch.context() as broken:
            broken.setattr(scene.pipeline, "listen", fail)
            for _ in range(20):
                scene.hear(sound(FRAME))
                await scene.settle()
        told = [one.error.code for one in scene.told.of(Refused)]
        assert told == [ErrorCode.ENGINE_FAILED] * server_ends
        scene.hear(sound(FRAME) + sound(SECOND, 0))
        scene.session.end_utterance()
        await scene.session.all_answered()
        assert scene.told.of(Transcript)[0] == Transcript(1, f"{21 * FRAME} loud samples")


@pytest.mark.parametrize("lost_midway", [False, True])
async def test_a_long_message_is_heard_piece_by_piece(lost_midway: bool) -> None:
    async with at_work() as scene:
        scene.session.hear(sound(10 * SECOND))
        pieces = 1
        while scene.session.hears_on and not lost_midway:
            scene.session.hear_on()
            pieces += 1
        assert pieces == (1 if lost_midway else 10)
        scene.session.end_utterance()
        await scene.session.all_answered()
        assert scene.told.of(Transcript) == [Transcript(1, "160000 loud samples")]
        assert scene.session.received_samples == 10 * SECOND


async def test_a_message_that_a_lost_connection_left_is_heard_when_its_client_is_back() -> None:
    async with at_work(server_ends=True) as scene:
        scene.session.hear(sound(2 * SECOND) + sound(SECOND, 0))
        scene.session.detach()
        assert scene.session.hears_on
        scene.session.attach(Feed(60.0))  # and nothing more is said: all of it has come
        await scene.settle()
        assert scene.told.of(Transcript) == [Transcript(1, "32000 loud samples")]


async def test_who_takes_no_refusals_is_told_no_more_and_loses_nothing_of_what_it_asked() -> None:
    odd = ProtocolError(ErrorCode.ODD_LENGTH, "", "")
    async with at_work(settings={"replay_bytes": 100}, acknowledges=True) as scene:
        session, feed = scene.session, scene.session.outgoing.feed
        assert feed is not None
        while not session.outgoing.window.is_overfull:
            session.refuse(odd, None, binary=False)
        for _ in range(2):
            session.refuse(odd, None, binary=True)
        assert feed.ended.result().code is ErrorCode.SLOW_READER
        told = len(scene.told.events)
        # What was refused last would be told of now.
        scene.hear(sound(SECOND))
        session.refuse(odd, None, binary=True)
        session.end_utterance()
        await scene.settle()
        assert session.busy
        assert len(scene.told.of(Refused)) == told
        session.cancel(1, 0)
        assert [over.status for over in scene.told.of(TurnOver)] == [Status.CANCELLED]


async def test_what_does_not_fit_of_a_long_message_is_dropped_and_told_once() -> None:
    async with at_work(settings={"max_utterance_s": 2.0}) as scene:
        scene.session.hear(sound(10 * SECOND))
        with pytest.raises(ProtocolError, match="8.00 s"):
            while scene.session.hears_on:
                scene.session.hear_on()
        assert not scene.session.hears_on
        assert scene.session.held_bytes() < 4 * SECOND * 2


async def test_a_full_utterance_is_told_once_and_then_counted() -> None:
    async with at_work(settings={"max_utterance_s": 1.0}) as scene:
        for _ in range(100):
            try:
                scene.hear(sound(320))
            except ProtocolError as error:
                scene.session.refuse(error, None, binary=True)
            scene.session.accepted_text(0)  # a ping in between ends no such row
        told = scene.told.of(Refused)
        assert [(one.error.code, one.count) for one in told] == [(ErrorCode.BUFFER_FULL, 1)]
        scene.session.end_utterance()
        first, others = scene.told.of(Refused)
        assert (first.count, others.count) == (1, 49)
        assert str(first.error) == "one utterance holds 1 s of audio; 0.02 s dropped so far"
        assert "; 1.00 s dropped so far" in str(others.error)
        assert scene.counts.refusals == {ErrorCode.BUFFER_FULL: 50}


async def test_what_an_earlier_utterance_dropped_is_not_counted_again() -> None:
    async with at_work(settings={"max_utterance_s": 1.0}) as scene:
        for _ in range(2):
            with pytest.raises(ProtocolError, match="; 1.00 s dropped so far"):
                scene.hear(sound(2 * SECOND))
            scene.session.end_utterance()
            await scene.settle()


async def test_audio_that_comes_too_fast_makes_its_reader_wait_and_is_told_once() -> None:
    async with at_work(settings={"burst_s": 1.0, "max_audio_speed": 4.0}) as scene:
        scene.hear(sound(SECOND))
        assert scene.session.wait_until_ns == 0
        for _ in range(3):
            scene.hear(sound(SECOND))
        assert scene.session.wait_until_ns == pytest.approx(0.75e9)
        told = scene.told.of(Refused)
        assert [one.error.code for one in told] == [ErrorCode.AUDIO_TOO_FAST]


async def test_empty_and_refused_audio_is_no_sign_of_life() -> None:
    async with at_work() as scene:
        scene.clock.now_ns = 5
        scene.hear(b"")
        with pytest.raises(ProtocolError, match="3 bytes"):
            scene.hear(b"xxx")
        assert scene.session.activity.audio_ns == 0
        scene.hear(sound(1))
        assert scene.session.activity.audio_ns == 5


async def test_what_is_held_is_bounded_and_counted_above() -> None:
    limit = 4 * SECOND
    async with at_work(settings={"max_held_bytes": limit}) as scene:
        scene.pipeline.gate.clear()
        scene.hear(sound(2 * SECOND))
        assert scene.session.must_wait
        waiting = asyncio.create_task(scene.session.room())
        scene.session.end_utterance()
        await scene.settle()
        assert not waiting.done()
        scene.pipeline.gate.set()
        await waiting
        assert scene.session.held_bytes() < limit


# What is heard does not depend on how, or how fast, the audio came.

PAUSE, SPEECH = "pause", "speech"
SCRIPTS = st.lists(
    st.tuples(st.sampled_from([PAUSE, SPEECH, "end"]), st.integers(1, 30)), min_size=1, max_size=6
)


CUTS = st.lists(st.integers(300, 20_000), min_size=1, max_size=4)


def audio_of(script: list[tuple[str, int]]) -> list[bytes | None]:
    """The script as pieces of audio, and None for each end that the client says."""
    pieces: list[bytes | None] = []
    for kind, length in script:
        if kind == "end":
            pieces.append(None)
        else:
            pieces.append(sound(length * 700, 0.25 if kind == SPEECH else 0.0))
    return [*pieces, sound(SECOND, 0.0)]


async def play(
    script: list[tuple[str, int]], cuts: list[int], settle: bool, **options: Any
) -> list[Any]:
    """What is told when the audio comes in pieces of `cuts` samples, over and over."""
    async with at_work(**options) as scene:
        sizes = iter(cuts * 100_000)
        for piece in audio_of(script):
            if piece is None:
                scene.session.end_utterance()
                await live(scene, settle)
            while piece:
                size = 2 * next(sizes)
                scene.hear(piece[:size])
                piece = piece[size:]
                await live(scene, settle)
        scene.session.end_utterance()
        await scene.session.all_answered()
        return in_order(scene)


async def live(scene: Scene, settle: bool) -> None:
    if settle:
        await scene.settle()


def in_order(scene: Scene) -> list[Any]:
    """Events of speech, and apart from them those of turns: the two may overlap in time."""
    return [
        scene.told.of(SpeechStarted, SpeechStopped),
        scene.told.of(Transcript),
        [(over.turn, over.status, over.text) for over in scene.told.of(TurnOver)],
    ]


@settings(max_examples=80)
@given(SCRIPTS, CUTS, st.booleans())
def test_any_split_and_any_speed_gives_the_turns_of_live_audio(
    script: list[tuple[str, int]], cuts: list[int], settle: bool
) -> None:
    async def both() -> None:
        options = {"server_ends": True, "settings": {"max_waiting_turns": 2}}
        expected = await play(script, [1600], settle=True, **options)
        assert await play(script, cuts, settle=settle, **options) == expected

    asyncio.run(both())


@settings(max_examples=60)
@given(SCRIPTS, CUTS, st.booleans())
def test_and_the_same_where_the_client_ends_its_utterances(
    script: list[tuple[str, int]], cuts: list[int], settle: bool
) -> None:
    async def both() -> None:
        options = {"settings": {"max_waiting_turns": 20}}
        expected = await play(script, [1600], settle=True, **options)
        assert await play(script, cuts, settle=settle, **options) == expected

    asyncio.run(both())


@pytest.mark.parametrize("silence_s", [1, 9.5, 10.2, 12, 20, 47])
@pytest.mark.parametrize("at_once", [True, False])
async def test_long_silence_before_speech_loses_nothing_of_it(
    silence_s: float, at_once: bool
) -> None:
    async with at_work(server_ends=True) as scene:
        audio = sound(round(silence_s * SECOND), 0) + sound(2 * SECOND) + sound(SECOND, 0)
        step = len(audio) if at_once else 6400
        for start in range(0, len(audio), step):
            scene.hear(audio[start : start + step])
            await live(scene, not at_once)
        await until(lambda: scene.told.of(TurnOver))
        assert scene.told.of(Transcript) == [Transcript(1, f"{2 * SECOND} loud samples")]
        started = scene.told.of(SpeechStarted)[0].at_s
        assert started == pytest.approx(silence_s, abs=0.04)


async def test_an_open_microphone_in_a_silent_room_fills_nothing() -> None:
    async with at_work(server_ends=True) as scene:
        for _ in range(100):
            scene.hear(sound(SECOND, 0))
            await scene.settle()
            assert scene.session.held_bytes() < 12 * 2 * SECOND


class Looks(Inline):
    """Notes at how many frames it looked at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    async def listen(self, session: str, utterance: Utterance, *, ended: bool = False) -> None:
        before = len(utterance.probabilities)
        await super().listen(session, utterance, ended=ended)
        self.sizes.append(len(utterance.probabilities) - before)


async def test_what_decides_nothing_now_is_examined_several_frames_at_a_time() -> None:
    pipeline = Looks()
    async with at_work(pipeline) as scene:
        looks = []
        for level in (0.0, 0.25, 0.0):  # silence, speech, and the pause that may be its end
            pipeline.sizes.clear()
            for _ in range(31):
                scene.hear(sound(FRAME, level))
                await scene.settle()
            looks.append(list(pipeline.sizes))
    assert looks[0] == [12, 12]
    assert looks[1][0] == 8  # with the silence that waited
    assert looks[1][1:4] == [1, 1, 1]
    assert set(looks[1][4:]) == {3}
    assert looks[2][0] <= 3
    assert set(looks[2][1:-1]) == {1}
    assert looks[2][-1] == 12  # the utterance is over


@pytest.mark.parametrize("level", [0.0009, 0.002, 0.25])
async def test_sound_before_speech_is_examined_at_once(level: float) -> None:
    pipeline = Looks()
    async with at_work(pipeline) as scene:
        scene.hear(sound(512, level))
        await scene.settle()
    assert bool(pipeline.sizes) == (level > 0.001)


async def test_speech_without_a_pause_is_ended_at_the_limit_and_nothing_is_dropped() -> None:
    async with at_work(server_ends=True, settings={"max_utterance_s": 4.0}) as scene:
        for _ in range(10):
            scene.hear(sound(SECOND))
            await scene.settle()
        scene.session.end_utterance()
        await scene.session.all_answered()
        loud = [int(event.text.split()[0]) for event in scene.told.of(Transcript)]
        assert sum(loud) == 10 * SECOND
        assert len(loud) == 3
        assert not scene.told.of(Refused)


@pytest.mark.parametrize("silence_s", [0.2, 0.5, 3.0])
async def test_the_silence_that_ends_an_utterance_is_the_clients_to_say(silence_s: float) -> None:
    async with at_work(server_ends=True, silence_s=silence_s) as scene:
        scene.hear(sound(SECOND))
        scene.hear(sound(round((silence_s - 0.1) * SECOND), 0))
        await scene.settle()
        assert not scene.told.of(SpeechStopped)
        scene.hear(sound(round(0.2 * SECOND), 0))
        await scene.settle()
        await scene.session.all_answered()
        assert scene.told.of(SpeechStopped)
        assert scene.told.of(Transcript)


async def test_large_messages_lose_no_speech_where_turns_wait() -> None:
    narrow = AudioFormat(Encoding.MULAW, 8000, 1)  # a byte is four of what is held
    options = {"settings": {"max_waiting_turns": 1}, "server_ends": True, "input": narrow}
    async with at_work(**options) as scene:
        scene.pipeline.gate.clear()
        silence = bytes([255]) * scene.settings.max_message_bytes
        while not scene.session.must_wait:
            scene.hear(silence[: len(silence) // 9])
        scene.hear(silence)
        scene.hear(silence)
        assert not scene.told.of(Refused)


async def test_turns_that_wait_hold_up_the_detector_and_lose_no_speech() -> None:
    async with at_work(server_ends=True, settings={"max_waiting_turns": 1}) as scene:
        scene.pipeline.gate.clear()
        for _ in range(5):
            scene.hear(sound(SECOND) + sound(SECOND, 0))
            await scene.settle()
        scene.pipeline.gate.set()
        await scene.settle()
        await scene.session.all_answered()
        assert [event.turn for event in scene.told.of(Transcript)] == [1, 2, 3, 4, 5]
        assert not scene.told.of(Refused)


async def test_a_turn_that_is_taken_up_makes_room_for_the_next_at_once() -> None:
    class Prompt(Inline):
        async def listen(self, session: str, utterance: Utterance, *, ended: bool = False) -> None:
            frames = utterance.next_frames(64, ended=ended).reshape(-1, FRAME)
            utterance.examined([float(frame.any()) for frame in frames], ())

    async with at_work(Prompt(), {"max_waiting_turns": 1}, server_ends=True) as scene:
        scene.pipeline.gate.clear()
        for _ in range(4):
            scene.hear(sound(SECOND) + sound(SECOND, 0))
        await scene.settle()
        # One is answered, one waits, and one is over and has no room yet.
        assert len(scene.told.of(SpeechStopped)) == 3


async def test_what_waits_for_room_does_not_come_behind_the_end_of_a_cancelled_turn() -> None:
    words = "one two three four five six seven eight nine ten."
    pipeline = VoicePipeline(scripted_engines(llm=ScriptedLlm(lambda messages: words)))
    async with at_work(pipeline, {"replay_s": 0.35}, acknowledges=True, resumable=True) as scene:
        window = scene.session.outgoing.window
        for turn in (1, 2):
            scene.hear(sound(SECOND))
            scene.session.end_utterance()
            await until(lambda: not window.has_room)
            while scene.session.outgoing.take() is not None:
                scene.session.outgoing.written()
            scene.session.acknowledge(window.sent)  # now there is room, and in the same instant
            scene.session.cancel(turn, 0)
            end = window.end
            await scene.session.all_answered()
            assert window.end == end
        assert [one.status for one in scene.told.of(TurnOver)] == [Status.CANCELLED] * 2
        pipeline.close()


async def test_audio_of_a_cancelled_turn_does_not_come_behind_its_end() -> None:
    async with at_work() as scene:
        scene.pipeline.pieces = 50
        scene.hear(sound(SECOND))
        scene.session.end_utterance()
        await until(lambda: scene.told.of(ReplyAudio))
        scene.session.cancel(1, 0)
        await scene.settle()
        kinds = [type(event) for event in scene.told.events]
        assert kinds.index(TurnOver) == len(kinds) - 1
