"""The floors beneath a turn: a policy that computes nothing, and engines without a server."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.audio.pcm import SAMPLE_RATE, Float32
from labkit.measure.floor import (
    Beneath,
    back_to_back,
    followed_by_silence,
    policy_decides_s,
    recognise,
)
from labkit.voice.scripted import EnergyVad, ScriptedAsr, scripted_engines


def spoken(*seconds: float) -> Float32:
    """Sound and silence by turns, beginning with sound."""
    lengths = [round(one * SAMPLE_RATE) for one in seconds]
    return np.concatenate(
        [np.full(size, 0.5 * (n % 2 == 0), np.float32) for n, size in enumerate(lengths)]
    )


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


def test_the_floor_hears_and_answers_and_is_none_where_nothing_is_said() -> None:
    engines = scripted_engines(asr=ScriptedAsr(lambda audio: "hello"))
    floor = back_to_back(engines, spoken(0.5))
    assert floor.transcript == "hello"
    assert floor.first_audio_s is not None
    assert back_to_back(engines, np.zeros(SAMPLE_RATE, np.float32)).first_audio_s is None


def test_a_recording_is_followed_by_silence_from_its_last_word_on() -> None:
    samples = spoken(0.5, 0.2)
    said = followed_by_silence(samples, SAMPLE_RATE // 2 - 1)
    assert len(said) == round(10.5 * SAMPLE_RATE)
    assert np.array_equal(said[: len(samples)], samples)
    assert not said[len(samples) :].any()
    assert len(followed_by_silence(spoken(0.1, 12.0), 1600)) == round(12.1 * SAMPLE_RATE)


def test_what_is_recognised_at_once_is_what_the_server_had_heard_when_the_turn_was_over() -> None:
    heard = list[int]()

    def transcribe(audio: Float32) -> str:
        heard.append(len(audio))
        return "hello"

    engines = scripted_engines(asr=ScriptedAsr(transcribe))
    samples = spoken(0.5, 0.8, 0.5)
    assert recognise(engines, samples, ended_s=0.9) == "hello"
    assert recognise(engines, samples, ended_s=1.8) in ("hello", "hello hello")
    assert recognise(engines, samples, ended_s=30.0) in ("hello", "hello hello")
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
