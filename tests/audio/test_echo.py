"""The server's own voice, and a caller's, told apart."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.audio.echo import WINDOW, EchoDetector
from labkit.audio.pcm import SAMPLE_RATE, Float32, read_audio
from tests.paths import SPEECH

FRAME = 512
LOUD = 0.005


def reply() -> Float32:
    return np.concatenate([read_audio(SPEECH / f"slt-0{n}.flac") for n in (1, 2, 8)])


def caller() -> Float32:
    """Another voice, from its first sound on."""
    voice = read_audio(SPEECH / "kal-03.flac")
    return voice[int(np.argmax(np.abs(voice) > 0.05)) :]


def found(sent: Float32, microphone: Float32, *, lead: int = SAMPLE_RATE) -> list[bool]:
    """What is found in each loud frame of a microphone while a reply is sent `lead` ahead."""
    detector, so_far, verdicts = EchoDetector(), 0, []
    for end in range(FRAME, len(microphone), FRAME):
        if (due := min(len(sent), end + lead)) > so_far:
            detector.sent(sent[so_far:due])
            so_far = due
        if np.sqrt(np.mean(np.square(microphone[end - FRAME : end]))) > LOUD:
            verdicts.append(detector.is_echo(microphone[max(0, end - WINDOW) : end], end))
    return verdicts


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2 * SAMPLE_RATE), st.floats(-24, -3))
def test_a_reply_that_comes_back_is_found_at_any_delay(delay: int, level_db: float) -> None:
    quieter = np.float32(10 ** (level_db / 20))
    microphone = np.concatenate([np.zeros(delay, np.float32), quieter * reply()])
    assert all(found(reply(), microphone))


def test_it_is_found_through_noise() -> None:
    rng = np.random.default_rng(3)
    echo = np.float32(0.25) * reply()
    noise = rng.normal(0, np.sqrt(np.mean(echo**2)) / 6, len(echo)).astype(np.float32)
    assert np.mean(found(reply(), echo + noise)) > 0.9


def test_a_caller_is_not_taken_for_it() -> None:
    assert np.mean(found(reply(), caller())) < 0.1


@pytest.mark.parametrize("level_db", [-12, -20])
def test_a_caller_is_heard_over_it(level_db: float) -> None:
    """Soon enough: of the frames of the first word, four in a row are the caller's."""
    sent, voice = reply(), caller()
    microphone = np.float32(10 ** (level_db / 20)) * sent
    start = 2 * SAMPLE_RATE
    end = min(len(microphone), start + len(voice))
    microphone[start:end] += voice[: end - start]
    before, over = found(sent, microphone[:start]), found(sent, microphone)
    assert all(before)
    first = "".join("e" if echo else "-" for echo in over[len(before) : len(before) + 16])
    assert "----" in first


def test_silence_is_no_echo() -> None:
    detector = EchoDetector()
    assert not detector.is_echo(caller()[:WINDOW], WINDOW)
    detector.sent(np.zeros(SAMPLE_RATE, np.float32))
    assert not detector.is_echo(caller()[8000 : 8000 + WINDOW], WINDOW)
    detector.sent(reply())
    assert not detector.is_echo(np.zeros(WINDOW, np.float32), WINDOW)


def test_it_remembers_a_few_seconds() -> None:
    detector = EchoDetector()
    for _ in range(20):
        detector.sent(reply()[:SAMPLE_RATE])
    assert detector.nbytes <= 5 * 4 * SAMPLE_RATE
