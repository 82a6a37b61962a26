"""A caller who speaks over replies of a real server."""

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from labkit.audio.pcm import Float32, read_audio
from labkit.measure.barge_in import Overlap, _Caller, speak_over
from labkit.protocol import v1
from labkit.server.app import VoiceServer
from labkit.session.settings import ServerSettings
from labkit.voice.pipeline import VoicePipeline
from tests.engines import embedded_engines
from tests.paths import SPEECH

pytestmark = [pytest.mark.slow, pytest.mark.real_time]
NOTHING = np.zeros(0, np.float32)


def recording(name: str) -> Float32:
    return read_audio(SPEECH / f"{name}.flac")


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with VoiceServer(VoicePipeline(embedded_engines()), ServerSettings(port=0)) as server:
        yield server.url


async def over(url: str, said: Float32, echo_db: float | None = -12) -> Overlap:
    return await speak_over(url, recording("kal-08"), said, echo_db=echo_db)


async def test_a_question_over_a_reply_ends_it_and_is_answered(url: str) -> None:
    overlap = await over(url, recording("kal-09"))
    assert overlap.interrupted
    assert overlap.stopped_ms is not None
    assert overlap.heard_s > 0.9
    assert len(overlap.transcripts) == 2
    assert "sample rate" in overlap.transcripts[1]


async def test_the_servers_own_voice_is_not_taken_for_the_callers(url: str) -> None:
    overlap = await over(url, NOTHING)
    assert (overlap.pauses, overlap.interrupted, len(overlap.transcripts)) == (0, False, 1)


async def test_speech_to_somebody_else_lets_it_go_on(url: str) -> None:
    overlap = await over(url, np.float32(0.2) * recording("kal-09"), echo_db=None)
    assert not overlap.interrupted
    assert overlap.resumed is not None
    assert len(overlap.transcripts) == 1


async def test_noise_is_nothing(url: str) -> None:
    rng = np.random.default_rng(2)
    cough = (0.2 * rng.normal(size=4800) * np.hanning(4800)).astype(np.float32)
    overlap = await over(url, cough, echo_db=None)
    assert not overlap.interrupted
    assert len(overlap.transcripts) == 1


async def test_who_does_not_hear_it_out_hangs_up_once_the_verdict_is_known(url: str) -> None:
    overlap = await speak_over(url, recording("kal-08"), recording("kal-09"), hears_out=False)
    assert overlap.interrupted
    assert overlap.stopped_ms is not None
    assert len(overlap.transcripts) == 2


async def test_over_a_reply_that_is_too_short_nothing_is_said(url: str) -> None:
    overlap = await speak_over(url, recording("kal-08"), recording("kal-09"), after_s=50.0)
    assert overlap.began_s is None
    assert not overlap.interrupted
    assert len(overlap.transcripts) == 1


async def test_what_an_echo_sets_off_before_the_caller_speaks_is_no_answer_to_it() -> None:
    nobody: Any = None
    caller = _Caller(nobody, NOTHING, np.ones(160, np.float32), 1.0, 0.0)
    await caller._take(v1.ResponsePaused(turn=1))
    await caller._take(v1.SpeechStarted(at_s=1.0))
    assert caller.overlap.pauses == 1
    assert caller.overlap.paused_s is caller.overlap.detected_s is None
    caller.overlap.began_s = 0.0
    await caller._take(v1.SpeechStarted(at_s=2.0))
    await caller._take(v1.ResponsePaused(turn=1))
    assert caller.overlap.paused_s is not None
    assert caller.overlap.stopped_ms == 0
