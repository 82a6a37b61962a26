"""What the rules make of one block; how blocks become findings is in test_watch."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.audio import misread
from labkit.audio.formats import AudioFormat
from labkit.audio.misread import MISMATCHES, RULES, Layout, Pace, Rule, Window
from labkit.audio.pcm import Encoding, Float32
from labkit.audio.readings import DECLARED
from labkit.errors import ErrorCode

S16, F32, MULAW, ALAW = Encoding
RNG = np.random.default_rng(7)


def pace(speed: float, form: AudioFormat, seconds: float = 4) -> Pace:
    """Of messages of 20 ms, for `seconds` of the clock."""
    found = Pace(form.bytes_per_second)
    for number in range(round(seconds * 50)):
        found.feed(number * 20_000_000, round(speed * form.bytes_per_second / 50))
    return found


def window(form: AudioFormat, block: bytes, speed: float = 1.0) -> Window:
    return Window(Layout.of(form), block[:4096], pace(speed, form))


def voice(level: float = 0.3) -> Float32:
    """A vowel: a row of pulses through two resonances, which no rule may take for noise."""
    times = np.arange(4_096) / 16_000
    harmonics = [np.sin(2 * np.pi * 120 * k * times) / k for k in range(1, 12)]
    return (level * np.sum(harmonics, axis=0) / 2).astype(np.float32)


def noise(sigma: float) -> Float32:
    return np.clip(sigma * RNG.standard_normal(4_096), -1, 1).astype(np.float32)


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("samples", [np.zeros(4_096, np.float32), noise(0.001)])
def test_silence_and_soft_noise_are_silent(encoding: Encoding, samples: Float32) -> None:
    form = AudioFormat(encoding)
    assert window(form, form.encode(samples)).is_silent


@pytest.mark.parametrize("encoding", Encoding)
def test_a_voice_reads_well_and_noise_does_not(encoding: Encoding) -> None:
    form = AudioFormat(encoding)
    heard = window(form, form.encode(voice()))
    assert not heard.is_noise
    assert not heard.is_silent
    assert window(form, form.encode(noise(0.5))).is_noise


@pytest.mark.parametrize(("encoding", "asked"), [(S16, False), (F32, False), (MULAW, True)])
def test_what_is_not_loud_may_be_misread_only_where_samples_are_bytes(
    encoding: Encoding, asked: bool
) -> None:
    form = AudioFormat(encoding)
    assert window(form, form.encode(noise(0.05))).seems_misread is asked


def test_floats_of_a_quiet_room_are_silence_otherwise() -> None:
    form = AudioFormat(S16)
    quiet = AudioFormat(F32).encode(noise(0.0005))
    assert window(form, quiet).is_noise
    assert window(form, quiet).is_silent_otherwise


def test_a_quiet_room_on_the_scale_of_integers_is_silence_otherwise() -> None:
    form = AudioFormat(F32)
    quiet = np.round(noise(0.0005) * 32_768).astype("<f4").tobytes()
    assert window(form, quiet).is_noise
    assert window(form, quiet).is_silent_otherwise


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("sigma", [0.2, 0.5, 1.0])
def test_noise_is_silent_under_no_reading(encoding: Encoding, sigma: float) -> None:
    form = AudioFormat(encoding)
    assert not window(form, form.encode(noise(sigma))).is_silent_otherwise


def test_another_reading_is_what_the_stream_is_taken_for_from_then_on() -> None:
    finding = misread.another_reading(window(AudioFormat(S16), AudioFormat(F32).encode(voice())))
    assert finding is not None
    assert finding.codes == (ErrorCode.LOOKS_LIKE_FLOAT32,)
    assert finding.layout == Layout("32-bit floats", DECLARED[F32], 16_000, 1)
    assert finding.layout.bytes_per_second == 64_000
    assert str(finding.layout) == "32-bit floats 16000 Hz mono"


def test_another_reading_from_the_middle_of_a_sample_is_two_faults() -> None:
    shifted = AudioFormat(F32).encode(voice())[2:]
    finding = misread.another_reading(window(AudioFormat(S16), shifted))
    assert finding is not None
    assert finding.codes == (ErrorCode.LOOKS_LIKE_FLOAT32, ErrorCode.LOOKS_SHIFTED)
    assert "bytes were lost or added" in finding.faults[1].hint


def test_hints_of_the_high_byte_name_the_encoding_too() -> None:
    swapped = np.frombuffer(AudioFormat(F32).encode(voice()), "<f4").astype(">f4").tobytes()
    finding = misread.another_reading(window(AudioFormat(S16), swapped))
    assert finding is not None
    assert finding.codes == (ErrorCode.LOOKS_LIKE_BIG_ENDIAN,)
    assert "declare pcm_f32le" in finding.faults[0].hint


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.judge.__name__)
def test_no_rule_says_anything_about_a_live_voice_or_live_noise(rule: Rule) -> None:
    for form in (AudioFormat(e, channels=c) for e in Encoding for c in (1, 2)):
        for samples in (voice(), voice(0.02), noise(0.02), noise(0.3), noise(1.0)):
            assert rule.ask(window(form, form.encode(samples))) is None


@pytest.mark.parametrize(
    ("judge", "speed", "seconds", "told"),
    [
        (misread.other_rate, 3.0, 4, True),
        (misread.other_rate, 3.0, 2, False),
        (misread.other_rate, 1.2, 4, False),
        (misread.other_rate, 0.5, 4, True),
        (misread.incompressible, 0.5, 4, True),
        (misread.incompressible, 0.5, 1, False),
        (misread.incompressible, 1.0, 4, False),
    ],
)
def test_a_pace_counts_once_it_has_lasted(
    judge: Callable[[Window], object], speed: float, seconds: float, told: bool
) -> None:
    form = AudioFormat()
    block = RNG.bytes(4_096) if judge is misread.incompressible else form.encode(voice())[:4096]
    seen = Window(Layout.of(form), block, pace(speed, form, seconds))
    assert (judge(seen) is not None) is told


@given(st.sampled_from(Encoding), st.integers(1, 2), st.binary(min_size=64, max_size=4_096))
def test_any_audible_block_is_judged_without_an_error(
    encoding: Encoding, channels: int, block: bytes
) -> None:
    form = AudioFormat(encoding, channels=channels)
    for speed in (0.5, 1.0, 2.0):
        seen = Window(Layout.of(form), block, pace(speed, form))
        for finding in (rule.ask(seen) for rule in RULES if not seen.is_silent):
            assert finding is None or set(finding.codes) <= MISMATCHES


def test_every_rule_gives_its_reason() -> None:
    assert all(rule.judge.__doc__ for rule in RULES)
    assert all(1 <= rule.votes <= rule.of for rule in RULES)
