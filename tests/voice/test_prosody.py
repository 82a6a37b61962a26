"""Pitch and level of the last sounds, on tones whose pitch is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.audio.pcm import SAMPLE_RATE, Float32
from labkit.voice.prosody import WINDOW_SAMPLES, prosody


def voice(*hertz: float, each_s: float = 0.4, gain: float = 0.1) -> Float32:
    """A buzz with ten harmonics that goes from pitch to pitch."""
    pitch = np.repeat(hertz, round(each_s * SAMPLE_RATE))
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    return gain * np.sum([np.sin(n * phase) / n for n in range(1, 11)], axis=0, dtype=np.float32)


def silence(seconds: float, level: float = 0.001) -> Float32:
    noise = np.random.default_rng(0).normal(0, level, round(seconds * SAMPLE_RATE))
    return noise.astype(np.float32)


@pytest.mark.parametrize("hertz", [80, 120, 200, 330])
def test_a_pitch_is_found(hertz: float) -> None:
    found = prosody(np.concatenate([voice(hertz), silence(0.2)]))
    assert found is not None
    assert found.pitch == pytest.approx(np.log2(hertz), abs=0.05)
    assert found.last_pitch == pytest.approx(np.log2(hertz), abs=0.05)


def test_a_fall_at_the_end_is_heard_over_the_silence_behind_it() -> None:
    found = prosody(np.concatenate([voice(200, 200, 200, 150), silence(0.2)]))
    assert found is not None
    assert found.pitch - found.last_pitch == pytest.approx(np.log2(200 / 150), abs=0.05)


def test_a_softer_end_is_heard() -> None:
    said = [voice(120), voice(120, gain=0.05, each_s=0.2), silence(0.2)]
    found = prosody(np.concatenate(said))
    assert found is not None
    assert found.last_db == pytest.approx(-6, abs=0.5)


def test_only_what_was_said_last_counts() -> None:
    last = np.concatenate([voice(*[150] * 7), silence(0.2)])
    assert len(last) == WINDOW_SAMPLES
    assert prosody(np.concatenate([voice(90, 330), last])) == prosody(last)


@pytest.mark.parametrize("samples", [0, 1, 700, SAMPLE_RATE])
def test_without_a_voice_nothing_is_told(samples: int) -> None:
    assert prosody(np.zeros(samples, np.float32)) is None
    assert prosody(silence(1.0, 0.1)[:samples]) is None
    assert prosody(np.cumsum(silence(1.0))[:samples]) is None
    assert prosody(np.repeat(np.float32([0.3, 0.0]), samples // 2)) is None


@given(st.integers(0, 2**32 - 1), st.integers(1, 40_000), st.floats(0.0, 1.0))
def test_whatever_is_heard_gives_numbers_or_none(seed: int, samples: int, level: float) -> None:
    rng = np.random.default_rng(seed)
    found = prosody(np.cumsum(rng.normal(0, level, samples)).astype(np.float32))
    assert found is None or np.isfinite([found.pitch, found.last_pitch, found.last_db]).all()
