"""Turns whose end the server decides: their marks, and why there is no answer."""

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from labkit.audio.pcm import SAMPLE_RATE, Float32, encode_s16le
from labkit.client.answers import TurnSoFar
from labkit.client.events import Event, ReplyAudio
from labkit.errors import ClientError, ErrorCode
from labkit.measure.decided import (
    CUT_OFF,
    _Decided,
    followed_by_silence,
    say,
    say_to,
)
from labkit.protocol import v1
from labkit.server.app import VoiceServer
from labkit.session.settings import ServerSettings
from labkit.trace import Mark, Stage, wrong_parts
from labkit.voice.pipeline import VoicePipeline
from labkit.voice.scripted import ScriptedAsr, scripted_engines
from tests.measure.samples import spoken

MS = 1_000_000
LOUD = encode_s16le(np.full(1600, 0.5, np.float32))


def done(decided_ms: int, **more_ms: int) -> v1.ResponseDone:
    told = {"end_stream_received": decided_ms, **more_ms}
    marks = {name: at * MS for name, at in told.items()}
    return v1.ResponseDone(turn=1, status=v1.ResponseStatus.COMPLETED, marks=marks)


def taken(turn: _Decided, *events: tuple[object, int]) -> list[bool]:
    return [turn.take(event, at_ms * MS) for event, at_ms in events]


def test_dead_air_is_what_lies_before_the_decision_and_the_parts_add_up() -> None:
    turn = _Decided(0, 1000 * MS)
    worked = done(1550, asr_done=1550, llm_first_token=1552, tts_first_audio=1590)
    ahead = {"asr_started": 1210 * MS, "asr_done": 1260 * MS}
    worked = worked.model_copy(update={"ahead": ahead})
    over = taken(
        turn,
        (v1.TranscriptFinal(turn=1, text="hello"), 1560),
        (v1.ResponseText(turn=1, text="Hi."), 1570),
        (ReplyAudio(0, LOUD), 1600),
        (worked, 1700),
    )
    assert over == [False, False, False, True]
    trace = turn.result.trace
    assert turn.result.transcript == "hello"
    assert trace.stages_ms()[Stage.DEAD_AIR] == 550
    assert trace.ttfa_ms() == 600
    assert trace.ahead_ms()[Stage.ASR] == (210, 260)
    assert wrong_parts(trace.stages_ms(), trace.ttfa_ms()) == ""


def test_a_turn_that_was_cut_off_has_no_waits_and_all_of_its_words() -> None:
    turn = _Decided(0, 3000 * MS)
    over = taken(
        turn,
        (v1.TranscriptFinal(turn=1, text="set a timer"), 1500),
        (ReplyAudio(0, LOUD), 1600),
        (done(1490), 1700),
        (v1.TranscriptFinal(turn=2, text="for six minutes"), 3510),
        (ReplyAudio(0, LOUD), 3600),
        (done(3500), 3700),
    )
    assert over == [False, False, False, False, False, True]
    assert turn.result.remarks == [CUT_OFF]
    assert turn.result.transcript == "set a timer for six minutes"
    assert turn.result.trace.ttfb_ms() is None
    assert turn.result.reply_seconds == 0.1


def test_marks_of_another_clock_are_left_out() -> None:
    turn = _Decided(0, 1000 * MS)
    taken(turn, (ReplyAudio(0, LOUD), 1600), (done(9000), 1700))
    assert Mark.END_STREAM_RECEIVED not in turn.result.trace.marks
    assert "do not fit" in turn.result.remarks[0]
    assert turn.result.trace.stages_ms() == {Stage.UNTOLD: 600, Stage.LEADING_SILENCE: 0}


def test_a_server_of_another_clock_that_answers_too_early_has_cut_off() -> None:
    turn = _Decided(0, 1000 * MS)
    over = taken(turn, (v1.TranscriptFinal(turn=1, text="set a"), 900), (done(90_000), 1700))
    assert over == [False, False]
    assert turn.result.remarks == [CUT_OFF]


def test_a_server_that_does_not_tell_when_it_decided_is_told_so() -> None:
    with pytest.raises(ClientError, match="does not tell when"):
        _Decided(0, 0).take(v1.ResponseDone(turn=1, status=v1.ResponseStatus.COMPLETED), 5)


class Telling:
    """A session that tells each event so many seconds after the one before, and then no more."""

    def __init__(self, *events: tuple[float, Event], lost: str = "") -> None:
        self.conversation = SimpleNamespace(so_far=TurnSoFar(said_s=0.5))
        self.lost = lost
        self._events = list(events)

    async def next_event(self) -> Event:
        wait_s, event = self._events.pop(0) if self._events else (3600.0, done(0))
        await asyncio.sleep(wait_s)
        return event

    async def send_audio(self, _: bytes) -> None:
        pass


@pytest.mark.usefixtures("virtual_time")
async def test_each_sign_of_an_answer_has_the_whole_deadline() -> None:
    answer = (v1.TranscriptFinal(turn=1, text="hello"), v1.ResponseText(turn=1, text="Hi."))
    client: Any = Telling(*((3.0, event) for event in (*answer, ReplyAudio(0, LOUD), done(0))))
    turn = await say_to(client, spoken(0.001), end_of_speech=0, answer_s=4)
    assert (turn.transcript, turn.reply_text, turn.reply_seconds) == ("hello", "Hi.", 0.1)


@pytest.mark.usefixtures("virtual_time")
@pytest.mark.parametrize(
    "drip",
    [
        v1.TranscriptPartial(turn=1, text="h", confirmed="", behind_s=0.0),
        v1.TranscriptFinal(turn=1, text="h"),
        v1.ResponseText(turn=1, text="h"),
        ReplyAudio(0, bytes(2)),
    ],
)
async def test_an_answer_that_drips_is_given_up(drip: Event) -> None:
    client: Any = Telling(*[(1.0, drip)] * 100)
    async with asyncio.timeout(50):
        with pytest.raises(ClientError, match=r"within 4 s|by more than 4 s"):
            await say_to(client, spoken(0.001), end_of_speech=0, answer_s=4)


@pytest.mark.usefixtures("virtual_time")
@pytest.mark.parametrize(
    ("client", "words"),
    [
        (Telling(), r"the server heard no speech in it \(is it loud enough\?\) within 4 s"),
        (Telling((0, v1.SpeechStarted(at_s=0.0))), "0.5 s of audio; no transcript came within 4 s"),
        (Telling(lost="nobody answers"), "within 4 s; .*; the connection was lost: nobody answers"),
    ],
)
async def test_why_no_answer_was_over_is_told(client: Any, words: str) -> None:
    with pytest.raises(ClientError, match=words):
        await say_to(client, spoken(0.001), end_of_speech=0, answer_s=4)


def test_a_turn_said_to_a_server_that_decides() -> None:
    async def said() -> None:
        pipeline = VoicePipeline(scripted_engines(asr=ScriptedAsr(lambda audio: "hello")))
        settings = ServerSettings(host="127.0.0.1", port=0)
        async with VoiceServer(pipeline, settings) as server:
            samples = spoken(0.4)
            turn = await say(server.url, samples, end_of_speech=len(samples) - 1, chunk_ms=20)
        stages = turn.trace.stages_ms()
        assert turn.transcript == "hello"
        assert turn.remarks == []
        assert stages[Stage.DEAD_AIR] >= 500
        assert wrong_parts(stages, turn.trace.ttfa_ms()) == ""

    asyncio.run(said())


def test_what_a_server_fails_at_is_told_with_the_turn() -> None:
    def fail(_: Float32) -> str:
        raise RuntimeError("out of memory")

    async def said() -> None:
        pipeline = VoicePipeline(scripted_engines(asr=ScriptedAsr(fail)))
        async with VoiceServer(pipeline, ServerSettings(host="127.0.0.1", port=0)) as server:
            samples = spoken(0.4)
            turn = await say(server.url, samples, end_of_speech=len(samples) - 1)
        assert [error.code for error in turn.errors] == [ErrorCode.ENGINE_FAILED]

    asyncio.run(said())


def test_a_recording_is_followed_by_silence_from_its_last_word_on() -> None:
    samples = spoken(0.5, 0.2)
    said = followed_by_silence(samples, SAMPLE_RATE // 2 - 1)
    assert len(said) == round(10.5 * SAMPLE_RATE)
    assert np.array_equal(said[: len(samples)], samples)
    assert not said[len(samples) :].any()
    assert len(followed_by_silence(spoken(0.1, 12.0), 1600)) == round(12.1 * SAMPLE_RATE)
