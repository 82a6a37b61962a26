"""Turns with pauses: where they end, and what an endpointer makes of them."""

from random import Random

import numpy as np
import pytest

from labkit.client.events import ReplyAudio
from labkit.course.turns import FixedWait, Followed, decisions
from labkit.measure.pauses import FRAME_S, Turn, conversations, voices
from labkit.protocol import v1
from tests.paths import DATA


def turn(pattern: str) -> Turn:
    """One frame a sign: `#` is speech, `.` is silence."""
    voiced = [1.0 if sign == "#" else 0.0 for sign in pattern]
    end_s = (pattern.rindex("#") + 1) * FRAME_S
    return Turn("somebody", "words", np.zeros(0, np.float32), voiced, [], end_s)


class Told(FixedWait):
    """Remembers what it is told."""

    pauses: tuple[float, ...] = ()

    def paused(self, seconds: float) -> None:
        object.__setattr__(self, "pauses", (*self.pauses, seconds))


def test_a_silence_that_is_long_enough_ends_a_turn_once() -> None:
    (times,) = decisions([turn("..###.....###" + "." * 30)], FixedWait(3 * FRAME_S))
    assert times == pytest.approx([8 * FRAME_S, 16 * FRAME_S])
    (times,) = decisions([turn("..###.....###" + "." * 30)], FixedWait(6 * FRAME_S))
    assert times == pytest.approx([19 * FRAME_S])


def test_a_policy_is_told_of_pauses_and_not_of_the_end() -> None:
    told = Told(1.0)
    decisions([turn("###.....###..###" + "." * 40)], told)
    assert told.pauses == pytest.approx([5 * FRAME_S])  # two frames lie within a word


def test_short_bursts_are_no_speech() -> None:
    pattern = "####" + "." * 5 + "#" + "." * 40
    (times,) = decisions([turn(pattern)], FixedWait(8 * FRAME_S), min_speech_s=2 * FRAME_S)
    assert times == pytest.approx([12 * FRAME_S])
    (times,) = decisions([turn(pattern)], FixedWait(8 * FRAME_S), min_speech_s=0)
    assert times == pytest.approx([18 * FRAME_S])


def test_a_silence_that_times_out_ends_any_turn() -> None:
    (times,) = decisions([turn("###" + "." * 100)], FixedWait(60), time_out_s=10 * FRAME_S)
    assert times == pytest.approx([13 * FRAME_S])


@pytest.mark.engines
@pytest.mark.skipif(not (DATA / "speech").exists(), reason="the recordings are not here")
def test_pauses_are_put_into_speech_and_the_end_stays_behind_them() -> None:
    (caller,) = conversations(Random(2), voices()[:1])
    again = conversations(Random(2), voices()[:1])[0]
    for one, same in zip(caller, again, strict=True):
        assert np.array_equal(one.samples, same.samples)
        assert one.end_s < len(one.samples) / 16_000
        assert len(one.voiced) == -(-len(one.samples) // 512)
        for start_s, length_s in one.pauses:
            assert 0 < start_s < start_s + length_s < one.end_s


def test_what_a_server_makes_of_a_turn_is_noted_with_its_times() -> None:
    followed = Followed()
    told = v1.TranscriptPartial(seq=1, turn=1, text="set a timer", confirmed="set", behind_s=0.1)
    audio = ReplyAudio(0, bytes(20))
    followed.take(told, 0.7, end_s=2.0)
    followed.take(audio, 1.5, end_s=2.0)  # of a reply into a pause
    followed.take(v1.TranscriptFinal(seq=2, turn=1, text=""), 2.2, end_s=2.0)
    followed.take(v1.TranscriptFinal(seq=3, turn=2, text="set a timer"), 2.3, end_s=2.0)
    followed.take(audio, 2.4, end_s=2.0)
    followed.take(audio, 2.6, end_s=2.0)
    assert followed.partials == [(0.7, "set a timer", "set")]
    assert followed.heard == ["set a timer"]
    assert followed.first_sound_s == pytest.approx(0.4)
