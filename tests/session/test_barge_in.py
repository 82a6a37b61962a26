"""Speech over a reply: paused at once, then played on or ended, and nothing of it lost."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest

from labkit.audio.pcm import SAMPLE_RATE, to_int16
from labkit.errors import EngineError
from labkit.session.events import (
    ReplyAudio,
    ReplyInterrupted,
    ReplyPaused,
    ReplyResumed,
    Sentence,
    SpeechStarted,
    SpeechStopped,
    Status,
    Transcript,
    TurnOver,
)
from labkit.session.outgoing import Feed
from labkit.voice.hearing import Stretch
from labkit.voice.history import Exchange
from tests.session.sessions import Inline, Scene, at_work, sound

S = 10**9
SHORT, LONG = 5 * SAMPLE_RATE // 16, SAMPLE_RATE
LEAD = SAMPLE_RATE


class Talkative(Inline):
    """Gives replies of four seconds, and hears over them what it is told."""

    def __init__(self, over: str | Exception = "") -> None:
        super().__init__()
        self.pieces = 39  # and one more
        self.over = over
        self.looks = self.heard = 0

    async def overhear(
        self, session: str, stretch: Stretch, *, before: str = "", since_ns: int | None = None
    ) -> str:
        assert since_ns is not None
        self.looks += 1
        self.heard += len(stretch.pcm)
        if isinstance(self.over, Exception):
            raise self.over
        return self.over


def buzz(samples: int, level: float) -> bytes:
    """A sound unlike the reply's, which would be taken for its echo."""
    return to_int16(level * np.resize(np.array([1, -1], np.float32), samples)).tobytes()


async def say(scene: Scene, *samples: int, level: float = 0.25) -> None:
    """Speech and silence by turns, beginning with speech, chunk by chunk."""
    for number, count in enumerate(samples):
        audio = sound(count, 0.0) if number % 2 else buzz(count, level)
        for start in range(0, len(audio), 1600):
            scene.hear(audio[start : start + 1600])
            await scene.settle()


async def played(scene: Scene, seconds: float, *, reads: bool = True) -> None:
    """Let time pass in which the client plays what it reads."""
    for _ in range(round(10 * seconds)):
        scene.clock.now_ns += S // 10
        scene.session.recount()
        await scene.settle()
        while reads and scene.session.outgoing.take() is not None:
            scene.session.outgoing.written()


def given(scene: Scene) -> int:
    return sum(len(one.samples) for one in scene.told.of(ReplyAudio))


@asynccontextmanager
async def replying(
    over: str | Exception, *, reads: bool = True, muted_s: float = 60.0, **options: bool
) -> AsyncIterator[Scene]:
    """A session whose reply of four seconds has been played for one."""
    settings = {"muted_s": muted_s}
    options = {"server_ends": True, "barge_in": True, **options}
    async with at_work(Talkative(over), settings, **options) as scene:
        await say(scene, SAMPLE_RATE, LONG)
        await scene.settle()
        await played(scene, 1.0, reads=reads)
        yield scene


async def test_a_reply_is_sent_as_it_is_played() -> None:
    async with replying("") as scene:
        assert given(scene) == pytest.approx(LEAD + SAMPLE_RATE, abs=3200)
        await played(scene, 5.0)
        assert given(scene) == 40 * 1600
        (over,) = scene.told.of(TurnOver)
        assert over.status is Status.COMPLETED


async def test_speech_over_it_pauses_it_at_once() -> None:
    async with replying("what about tomorrow") as scene:
        before = given(scene)
        await say(scene, 4 * 512 + 1600)
        assert [one.turn for one in scene.told.of(ReplyPaused)] == [1]
        assert isinstance(scene.told.of(SpeechStarted, ReplyPaused)[-1], ReplyPaused)
        await played(scene, 5.0)
        assert given(scene) == before


async def test_an_interruption_ends_it_and_is_answered() -> None:
    async with replying("what about tomorrow") as scene:
        await say(scene, SAMPLE_RATE)
        (ended,) = scene.told.of(ReplyInterrupted)
        assert ended.turn == 1
        assert ended.heard == pytest.approx(SAMPLE_RATE, abs=3200)
        (over,) = scene.told.of(TurnOver)
        assert (over.status, over.text) == (Status.CANCELLED, "One.")
        assert over.samples == given(scene)
        await say(scene, 0, LONG)
        assert [one.turn for one in scene.told.of(Transcript)] == [1, 2]
        assert next(iter(scene.session.history)) == Exchange(f"{SAMPLE_RATE} loud samples", "One.")


async def test_what_was_not_sent_is_taken_back() -> None:
    """The client reads nothing: not even what was put into the stream for it is on its way."""
    async with replying("stop it now", reads=False) as scene:
        assert scene.session.outgoing.window.end.samples == given(scene) > 0
        await say(scene, SAMPLE_RATE)
        assert scene.session.outgoing.window.end.samples == 0
        (over,) = scene.told.of(TurnOver)
        assert over.samples == 0


@pytest.mark.parametrize("over", ["yeah", "uh-huh", "", EngineError("it broke")])
def test_a_sign_of_listening_ends_nothing(over: str | Exception) -> None:
    async def listen() -> None:
        async with replying(over) as scene:
            before = given(scene)
            await say(scene, 8 * 512, SHORT)
            (resumed,) = scene.told.of(ReplyResumed)
            assert resumed.text == ("" if isinstance(over, Exception) else over)
            assert len(scene.told.of(SpeechStopped)) == len(scene.told.of(SpeechStarted))
            await say(scene, 0, LONG)
            await played(scene, 5.0)
            assert given(scene) == 40 * 1600 > before
            (done,) = scene.told.of(TurnOver)
            assert (done.status, done.samples) == (Status.COMPLETED, 40 * 1600)
            assert not scene.told.of(ReplyInterrupted)
            await say(scene, SAMPLE_RATE, LONG)  # and what is said behind it is answered
            assert [one.turn for one in scene.told.of(Transcript)] == [1, 2]

    asyncio.run(listen())


async def test_a_noise_that_goes_on_is_looked_at_more_and_more_rarely() -> None:
    async with replying("") as scene:
        pipeline = scene.pipeline
        await say(scene, 32 * SAMPLE_RATE)
        assert scene.told.of(ReplyPaused) and not scene.told.of(ReplyResumed)
        assert pipeline.looks < 15
        assert pipeline.heard < 2 * 32 * SAMPLE_RATE


async def test_an_aside_ends_nothing() -> None:
    async with replying("did you feed the cat") as scene:
        await say(scene, SAMPLE_RATE, SHORT, level=0.05)
        assert scene.told.of(ReplyResumed)
        assert not scene.told.of(ReplyInterrupted)


async def test_of_what_was_no_interruption_nothing_is_held() -> None:
    async with replying("uh huh") as scene:
        spoken = scene.session._listening.utterance
        await say(scene, SAMPLE_RATE, LONG)
        assert scene.told.of(ReplyResumed)
        assert scene.session._listening.utterance is not spoken
        assert (len(spoken), spoken.nbytes) == (0, 0)


async def test_a_yes_to_the_last_of_a_reply_is_answered() -> None:
    async with replying("yes") as scene:
        await played(scene, 2.8)  # 0.3 s are left
        assert scene.told.of(TurnOver)
        await say(scene, SAMPLE_RATE // 2, LONG)
        (ended,) = scene.told.of(ReplyInterrupted)
        assert ended.turn == 1
        assert ended.heard < 40 * 1600
        assert [one.turn for one in scene.told.of(Transcript)] == [1, 2]


async def test_behind_a_reply_nobody_interrupts_it() -> None:
    async with replying("what about tomorrow") as scene:
        await played(scene, 6.0)
        await say(scene, SAMPLE_RATE, LONG)
        assert not scene.told.of(ReplyPaused, ReplyInterrupted)
        assert [one.turn for one in scene.told.of(Transcript)] == [1, 2]


async def test_who_speaks_on_before_the_reply_begins_takes_it_back() -> None:
    pipeline = Talkative("and the kitchen")
    pipeline.gate.clear()
    async with at_work(pipeline, server_ends=True, barge_in=True) as scene:
        await say(scene, SAMPLE_RATE, LONG)
        await say(scene, SAMPLE_RATE)
        (over,) = scene.told.of(TurnOver)
        assert (over.status, over.samples) == (Status.CANCELLED, 0)
        pipeline.gate.set()
        await say(scene, 0, LONG)
        assert [one.turn for one in scene.told.of(Transcript)] == [2]


async def test_the_clients_word_on_what_was_heard_counts() -> None:
    async with replying("what about tomorrow") as scene:
        await say(scene, SAMPLE_RATE)
        scene.session.cancel(1, 0)
        assert list(scene.session.history) == [Exchange(f"{SAMPLE_RATE} loud samples", "")]


async def test_a_client_that_cancels_by_itself_is_not_asked_again() -> None:
    async with replying("what about tomorrow") as scene:
        await say(scene, 4 * 512 + 1600)
        assert scene.told.of(ReplyPaused)
        scene.session.cancel(1, 800)
        await say(scene, SAMPLE_RATE, LONG)
        assert not scene.told.of(ReplyInterrupted, ReplyResumed)
        assert [one.turn for one in scene.told.of(Transcript)] == [1, 2]


async def test_a_client_that_ends_its_utterance_over_a_reply_wants_an_answer() -> None:
    async with replying("yeah") as scene:
        await say(scene, 4 * 512 + 1600)
        scene.session.end_utterance()
        await scene.settle()
        assert scene.told.of(ReplyInterrupted)
        assert [one.turn for one in scene.told.of(Transcript)] == [1, 2]


@pytest.mark.parametrize("over", ["yeah", "what about tomorrow"])
async def test_a_turn_that_begins_meanwhile_leaves_it_undecided(over: str) -> None:
    """Nothing was heard in the first, nothing in the second, and somebody speaks over both."""
    pipeline = Talkative(over)
    pipeline.gate.clear()
    async with at_work(pipeline, server_ends=True, barge_in=True) as scene:
        for _ in range(2):
            await say(scene, 0, SHORT)
            scene.session.end_utterance()
            await scene.settle()
        await say(scene, 4 * 512 + 1600)
        assert [one.turn for one in scene.told.of(ReplyPaused)] == [1]
        pipeline.gate.set()
        await scene.settle()
        assert [one.turn for one in scene.told.of(TurnOver)] == [1]
        await say(scene, LONG if over != "yeah" else 0, LONG)
        decided = scene.told.of(ReplyResumed, ReplyInterrupted)
        assert [one.turn for one in decided] == [1]
        await scene.settle()
        assert [one.turn for one in scene.told.of(TurnOver)][:2] == [1, 2]


Passes = Callable[[Scene, float], Awaitable[None]]


@pytest.fixture
async def passes(monkeypatch: pytest.MonkeyPatch) -> Passes:
    """Lets so many seconds pass for the loop at once."""
    loop, passed_s = asyncio.get_running_loop(), 0.0
    monotonic = loop.time
    monkeypatch.setattr(loop, "time", lambda: monotonic() + passed_s)

    async def passing(scene: Scene, seconds: float) -> None:
        nonlocal passed_s
        passed_s += seconds
        await scene.settle()

    return passing


async def test_who_falls_silent_by_a_switch_has_nothing_to_say(passes: Passes) -> None:
    async with replying("what about tomorrow", muted_s=600) as scene:
        await say(scene, 4 * 512 + 1600)
        await passes(scene, 601)
        assert scene.told.of(ReplyResumed)
        assert len(scene.told.of(SpeechStopped)) == len(scene.told.of(SpeechStarted))
        await say(scene, 0, LONG)  # switched on again: what was said before is not answered
        await played(scene, 5.0)
        assert given(scene) == 40 * 1600
        assert [one.turn for one in scene.told.of(Transcript)] == [1]


async def test_who_speaks_again_behind_the_switch_is_heard_over_the_reply(passes: Passes) -> None:
    async with replying("what about tomorrow", muted_s=600) as scene:
        await say(scene, 7 * 512)
        await passes(scene, 601)
        await say(scene, SAMPLE_RATE, LONG)
        assert scene.told.of(ReplyInterrupted)
        loud = int(scene.told.of(Transcript)[1].text.split()[0])
        assert SAMPLE_RATE <= loud < SAMPLE_RATE + 512  # what was no whole frame before is there


async def test_who_comes_back_is_given_time_to_speak_on(passes: Passes) -> None:
    async with replying("what about tomorrow", muted_s=600) as scene:
        await say(scene, 4 * 512 + 1600)
        scene.session.detach()
        await passes(scene, 500)
        scene.session.attach(Feed(60.0))
        await scene.settle()
        await passes(scene, 500)
        assert not scene.told.of(ReplyResumed)
        await passes(scene, 101)
        assert scene.told.of(ReplyResumed)


async def test_nothing_of_a_reply_is_played_while_its_client_is_away() -> None:
    async with replying("what about tomorrow", resumable=True) as scene:
        before, end = given(scene), scene.session.outgoing.window.end
        scene.session.detach()
        await played(scene, 8.0, reads=False)
        assert given(scene) == before
        # Half a second of what was sent was lost with the connection.
        scene.session.outgoing.rewind(end.plus(samples=-SAMPLE_RATE // 2))
        scene.session.attach(Feed(60.0))
        await scene.settle()
        assert given(scene) == before + SAMPLE_RATE // 2 + 1600  # as far ahead as it may be
        await played(scene, 0.3)
        await say(scene, SAMPLE_RATE, LONG)
        (ended,) = scene.told.of(ReplyInterrupted)
        assert ended.heard == before - SAMPLE_RATE // 2 + 4800
        assert [one.turn for one in scene.told.of(Transcript)] == [1, 2]


async def test_a_reply_that_is_cancelled_while_its_client_is_away_is_not_paused_any_more() -> None:
    async with replying("yeah") as scene:
        await say(scene, 4 * 512 + 1600)
        scene.session.cancel_running()
        await say(scene, 1600, LONG)
        assert len(scene.told.of(ReplyInterrupted)) == len(scene.told.of(ReplyPaused)) == 1
        assert not scene.told.of(ReplyResumed)
        assert [one.turn for one in scene.told.of(Transcript)] == [1, 2]


async def test_without_it_nothing_is_held_back() -> None:
    async with at_work(Talkative(""), server_ends=True) as scene:
        await say(scene, SAMPLE_RATE, LONG)
        await scene.settle()
        assert given(scene) == 40 * 1600
        await say(scene, SAMPLE_RATE)
        assert not scene.told.of(ReplyPaused, ReplyInterrupted)


async def test_nothing_is_left_of_it() -> None:
    before = len(asyncio.all_tasks())
    async with replying("what about tomorrow") as scene:
        working = len(asyncio.all_tasks())
        await say(scene, SAMPLE_RATE)
        await scene.settle()
        assert len(asyncio.all_tasks()) == working - 2  # of the turn, and of its pace
        assert [type(one) for one in scene.told.of(Sentence)] == [Sentence]
    assert len(asyncio.all_tasks()) == before
