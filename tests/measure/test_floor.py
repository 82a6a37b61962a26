"""What lies beneath a turn: the engines without a server, and a policy without engines."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.audio.pcm import SAMPLE_RATE, Float32
from labkit.measure.floor import Beneath, policy_decides_s
from labkit.voice.scripted import EnergyVad, ScriptedAsr, scripted_engines
from tests.measure.samples import spoken


@given(
    speech_s=st.floats(0.3, 2.0),
    silence_s=st.sampled_from((0.3, 0.5, 0.9)),
    chunk_ms=st.sampled_from((20, 40, 100)),
)
def test_a_policy_knows_of_the_end_a_frame_and_a_chunk_after_its_wait(
    speech_s: float, silence_s: float, chunk_ms: int
) -> None:
    samples = spoken(speech_s)
    at_s = policy_decides_s(
        EnergyVad(),
        samples,
        end_of_speech=len(samples) - 1,
        silence_s=silence_s,
        chunk_ms=chunk_ms,
    )
    assert at_s is not None
    wait_s = at_s - len(samples) / SAMPLE_RATE
    assert silence_s - 1e-9 <= wait_s <= silence_s + 2 * 0.032 + chunk_ms / 1000
    assert at_s * 1000 / chunk_ms == pytest.approx(round(at_s * 1000 / chunk_ms))


def test_a_policy_that_cuts_off_has_no_floor() -> None:
    samples = spoken(0.5, 0.8, 0.5)
    found = policy_decides_s(
        EnergyVad(), samples, end_of_speech=len(samples) - 1, silence_s=0.5, chunk_ms=20
    )
    assert found is None


async def test_the_floor_hears_and_answers_and_is_none_where_nothing_is_said() -> None:
    with Beneath(scripted_engines(asr=ScriptedAsr(lambda audio: "hello"))) as beneath:
        floor = await beneath.floor(spoken(0.5))
        silent = await beneath.floor(np.zeros(SAMPLE_RATE, np.float32))
    assert floor.transcript == "hello"
    assert floor.first_audio_s is not None
    assert silent.first_audio_s is None


async def test_what_is_recognised_at_once_is_what_was_heard_when_the_turn_was_over() -> None:
    heard = list[int]()

    def transcribe(audio: Float32) -> str:
        heard.append(len(audio))
        return "hello"

    samples = spoken(0.5, 0.8, 0.5)
    with Beneath(scripted_engines(asr=ScriptedAsr(transcribe))) as beneath:
        assert await beneath.words(samples, 0.9) == "hello"
        assert await beneath.words(samples, 1.8) in ("hello", "hello hello")
        assert await beneath.words(samples, 30.0) in ("hello", "hello hello")
    assert heard[0] <= 0.95 * SAMPLE_RATE < sum(heard[1:])


async def test_all_that_lies_beneath_runs_on_one_thread() -> None:
    threads = set[str]()

    def transcribe(audio: Float32) -> str:
        threads.add(threading.current_thread().name)
        return "hello"

    with Beneath(scripted_engines(asr=ScriptedAsr(transcribe))) as beneath:
        assert (await beneath.floor(spoken(0.5))).transcript == "hello"
        assert await beneath.words(spoken(0.5), 1.0) == "hello"
    assert len(threads) == 1
