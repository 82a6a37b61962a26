"""The audio of one utterance, and where speech begins and ends in it."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.audio.pcm import SAMPLE_RATE, Float32, Int16
from labkit.errors import AudioError
from labkit.voice.hearing import (
    Endpointing,
    SpeechChange,
    SpeechSpan,
    SpeechTracker,
    Utterance,
    frames_in,
    speech_stretches,
)

FRAME = 512
FRAME_S = FRAME / SAMPLE_RATE
TIGHT = Endpointing(pad_s=0)
STATE = object()


def ramp(count: int, start: int = 0) -> Int16:
    return np.arange(start, start + count).astype(np.int16)


def integers(audio: Float32) -> Int16:
    return (audio * 32_768).astype(np.int16)


def examine(utterance: Utterance, frames: int, probability: float = 0.0) -> None:
    utterance.examined([probability] * frames, STATE)


class TestUtterance:
    @given(st.lists(st.integers(0, 40_000), max_size=12), st.integers(1, 150_000))
    def test_what_fits_is_kept_in_order_and_the_rest_is_counted(
        self, sizes: list[int], limit: int
    ) -> None:
        utterance = Utterance(limit, FRAME)
        given_samples = dropped = 0
        for size in sizes:
            dropped += utterance.append(ramp(size, given_samples))
            given_samples += size
        assert len(utterance) == min(given_samples, limit)
        assert dropped == given_samples - len(utterance)
        assert np.array_equal(integers(utterance.audio()), ramp(len(utterance)))

    @given(st.integers(0, 40_000), st.integers(0, 40_000))
    def test_a_stretch_is_that_stretch(self, start: int, length: int) -> None:
        utterance = Utterance(90_000, FRAME)
        utterance.append(ramp(70_000))
        assert np.array_equal(
            integers(utterance.audio(start, start + length)), ramp(70_000)[start : start + length]
        )

    def test_floats_are_exactly_what_the_integers_say(self) -> None:
        utterance = Utterance(10, FRAME)
        utterance.append(np.array([-32_768, -1, 0, 1, 32_767], np.int16))
        expected = np.array([-32_768, -1, 0, 1, 32_767]) / 32_768
        assert np.array_equal(utterance.audio(), expected.astype(np.float32))

    def test_floats_are_refused(self) -> None:
        floats: Any = np.float32([0.5])
        with pytest.raises(AudioError, match=r"takes samples of int16.* WIRE\.decode_int16"):
            Utterance(10, FRAME).append(floats)

    def test_nothing_is_copied_while_it_grows_and_blocks_are_counted(self) -> None:
        utterance = Utterance(90_000, FRAME)
        assert utterance.nbytes == 0
        utterance.append(ramp(10))
        block = 2 * Utterance.BLOCK
        assert utterance.nbytes == block
        before = utterance._blocks[0]
        utterance.append(ramp(40_000))
        assert utterance._blocks[0] is before
        assert utterance.nbytes == 3 * block
        utterance.forget()
        assert (utterance.nbytes, len(utterance), utterance.unexamined(ended=True)) == (0, 0, 0)

    def test_only_whole_frames_are_given_until_the_last(self) -> None:
        utterance = Utterance(10_000, FRAME)
        utterance.append(ramp(1300))
        assert (utterance.unexamined(), utterance.unexamined(ended=True)) == (2, 3)
        assert np.array_equal(integers(utterance.next_frames(1)), ramp(512))
        assert np.array_equal(integers(utterance.next_frames(9)), ramp(1024))
        examine(utterance, 2)
        assert utterance.unexamined() == 0
        assert len(utterance.next_frames(9)) == 0
        rest = utterance.next_frames(9, ended=True)
        assert len(rest) == 512
        assert np.array_equal(integers(rest[:276]), ramp(276, 1024))
        assert not rest[276:].any()

    def test_without_frames_there_is_nothing_to_examine(self) -> None:
        utterance = Utterance(10_000, None)
        utterance.append(ramp(5000))
        assert utterance.unexamined(ended=True) == 0
        assert len(utterance.split(1234)) == 5000 - 1234

    @given(
        st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.integers(0, 3 * SAMPLE_RATE)
    )
    def test_a_split_gives_away_the_rest_as_an_utterance_of_its_own(
        self, dropped: int, frames: int, examined: int, more: int
    ) -> None:
        utterance = Utterance(10 * SAMPLE_RATE, FRAME)
        utterance.append(ramp(60 * FRAME))
        examine(utterance, examined)
        utterance.drop_front(dropped)
        gone = utterance.dropped_samples
        rest = utterance.split(frames * FRAME)
        kept = min(frames * FRAME, 60 * FRAME - gone)
        assert np.array_equal(integers(utterance.audio()), ramp(kept, gone))
        assert len(utterance.probabilities) == min(frames, examined - gone // FRAME)
        rest.append(ramp(more, 60 * FRAME))
        assert np.array_equal(
            integers(rest.audio()), ramp(60 * FRAME - gone - kept + more, gone + kept)
        )
        assert (rest.probabilities, rest.vad_state, rest.dropped_samples) == ([], None, 0)
        assert rest.limit == utterance.limit
        utterance.append(ramp(700, gone + kept))
        assert np.array_equal(integers(utterance.audio()), ramp(kept + 700, gone))

    @given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 8), st.integers(0, 8))))
    def test_forgetting_the_front_changes_nothing_of_what_comes_behind(
        self, steps: list[tuple[int, int, int]]
    ) -> None:
        utterance, came, seen = Utterance(20_000, FRAME), 0, []
        for samples, examine_frames, drop in steps:
            came += samples - utterance.append(ramp(samples, came))
            frames = utterance.next_frames(examine_frames)
            seen.append(integers(frames))
            utterance.examined([float(len(seen))] * (len(frames) // FRAME), STATE)
            utterance.drop_front(drop)
            gone = utterance.dropped_samples
            assert gone % FRAME == 0
            assert np.array_equal(integers(utterance.audio()), ramp(came - gone, gone))
            assert len(utterance) == came - gone
        joined = np.concatenate([np.zeros(0, np.int16), *seen])
        assert np.array_equal(joined, ramp(len(joined)))
        assert utterance.nbytes <= 2 * (len(utterance) + 2 * Utterance.BLOCK)

    def test_what_is_known_of_a_stretch_stays_when_the_audio_before_it_goes(self) -> None:
        utterance = Utterance(20 * FRAME, FRAME)
        utterance.append(ramp(8 * FRAME))
        examine(utterance, 8)
        stretch = utterance.stretch(SpeechSpan(4 * FRAME, 6 * FRAME))
        assert np.array_equal(integers(stretch.audio), ramp(2 * FRAME, 4 * FRAME))
        stretch.learn("before it", "words")
        utterance.drop_front(2)
        again = SpeechSpan(2 * FRAME, 4 * FRAME)
        assert utterance.stretch(again).known("before it") == "words"
        assert utterance.beginning(5).stretch(again).known("before it") == "words"
        assert utterance.stretch(again).known("") is None
        assert utterance.stretch(SpeechSpan(2 * FRAME, 5 * FRAME)).known("before it") is None
        assert utterance.split(4 * FRAME).stretch(again).known("before it") is None
        utterance.forget()
        assert utterance.stretch(again).known("before it") is None
        assert len(stretch.pcm) == 2 * FRAME

    def test_what_is_found_in_frames_that_are_gone_is_not_kept(self) -> None:
        utterance = Utterance(10_000, FRAME)
        utterance.append(ramp(8 * FRAME))
        examine(utterance, 2)
        utterance.split(2 * FRAME)
        examine(utterance, 6, 0.9)
        assert utterance.probabilities == [0.0, 0.0]


def stretches(
    probabilities: list[float], rules: Endpointing | None = None, longest_s: float = 30.0
) -> list[tuple[int, int]]:
    """The stretches, in frames."""
    found = speech_stretches(probabilities, FRAME, rules, longest_s=longest_s)
    assert all(span.start % FRAME == span.end % FRAME == 0 for span in found)
    return [(span.start // FRAME, span.end // FRAME) for span in found]


class TestSpeechStretches:
    def test_silence_has_no_speech(self) -> None:
        assert stretches([0.1] * 50) == []
        assert stretches([]) == []

    def test_speech_is_found_between_silences(self) -> None:
        rules = Endpointing(pad_s=FRAME_S)
        assert speech_stretches([0.0] * 10 + [0.9] * 8 + [0.0] * 10, FRAME, rules) == [
            SpeechSpan(9 * FRAME, 19 * FRAME)
        ]

    def test_a_click_is_no_speech(self) -> None:
        assert stretches([0.0] * 10 + [0.9] * 3 + [0.0] * 10) == []

    @pytest.mark.parametrize(("dip", "frames"), [(0.40, 9), (0.34, 4)])
    def test_a_dip_above_the_release_threshold_does_not_split(
        self, dip: float, frames: int
    ) -> None:
        """Eight frames around the dip are speech; neither side alone is long enough at 0.34."""
        assert stretches([0.9] * 4 + [dip] + [0.9] * 3 + [dip], TIGHT) == [(0, frames)]

    def test_padding_stays_inside_the_audio(self) -> None:
        assert stretches([0.9] * 6) == [(0, 6)]

    def test_short_pauses_are_kept_and_long_ones_split(self) -> None:
        short, long = [0.0] * 12, [0.0] * 13  # 0.4 s is 12.5 frames
        speech = [0.9] * 10
        assert stretches(speech + short + speech) == [(0, 32)]
        assert stretches(speech + long + speech) == [(0, 14), (14, 33)]

    def test_a_long_pause_reaches_no_recogniser(self) -> None:
        assert stretches([0.9] * 10 + [0.0] * 100 + [0.9] * 10) == [(0, 14), (90, 120)]

    def test_what_is_too_long_is_cut_at_its_longest_pause(self) -> None:
        said = [0.9] * 70 + [0.0] * 5 + [0.9] * 70 + [0.0] * 3 + [0.9] * 60
        assert stretches(said, longest_s=5.0) == [(0, 72), (72, 146), (146, 208)]

    def test_without_pauses_it_is_cut_where_speech_is_least_probable(self) -> None:
        said = [0.9] * 90 + [0.6] * 3 + [0.9] * 90
        assert stretches(said, longest_s=5.0) == [(0, 91), (91, 183)]

    def test_a_single_sentence_is_one_stretch(self) -> None:
        assert stretches([0.9] * 70 + [0.0] * 5 + [0.9] * 70, longest_s=5.0) == [(0, 145)]

    @given(
        st.lists(
            st.tuples(st.sampled_from([0.0, 0.2, 0.4, 0.6, 0.9]), st.integers(1, 90)), max_size=20
        ),
        st.sampled_from([2.0, 5.0, 30.0]),
    )
    def test_stretches_are_in_order_short_enough_and_hold_all_speech(
        self, runs: list[tuple[float, int]], longest_s: float
    ) -> None:
        probabilities = [probability for probability, length in runs for _ in range(length)]
        found = stretches(probabilities, Endpointing(min_s=0), longest_s)
        edges = [edge for span in found for edge in span]
        assert edges == sorted(edges)
        most = longest_s * SAMPLE_RATE
        assert all(0 < FRAME * (end - start) <= most for start, end in found)
        held = {frame for start, end in found for frame in range(start, end)}
        assert held >= {frame for frame, p in enumerate(probabilities) if p >= 0.5}
        assert held <= set(range(len(probabilities)))

    @given(
        st.lists(st.tuples(st.sampled_from([0.0, 0.4, 0.9]), st.integers(1, 40)), max_size=20),
        st.sampled_from([2.0, 5.0, 30.0]),
    )
    def test_what_is_finished_stays_as_it_is_whatever_comes(
        self, runs: list[tuple[float, int]], longest_s: float
    ) -> None:
        probabilities = [probability for probability, length in runs for _ in range(length)]
        whole = speech_stretches(probabilities, FRAME, longest_s=longest_s)
        tracker = SpeechTracker(FRAME)
        for frame in range(len(probabilities) + 1):
            finished = speech_stretches(
                probabilities[:frame], FRAME, longest_s=longest_s, finished=True
            )
            assert finished == whole[: len(finished)]
            tracker.feed(probabilities[frame : frame + 1])
        assert tracker.stretches == len(stretches(probabilities, longest_s=1e6))

    def test_no_stretch_is_longer_than_the_recogniser_s_window(self) -> None:
        """Of 938 frames, the last ends behind 30 s."""
        assert len(stretches([0.9] * 937)) == 1
        assert len(stretches([0.9] * 938)) > 1


class TestSpeechTracker:
    @given(
        st.lists(st.floats(0, 1), max_size=120),
        st.lists(st.integers(1, 30), max_size=20),
        st.sampled_from([0.2, 0.5, 3.0]),
    )
    def test_changes_do_not_depend_on_how_frames_come(
        self, probabilities: list[float], sizes: list[int], stop_s: float
    ) -> None:
        begin = partial(SpeechTracker, FRAME, Endpointing(stop_s=stop_s))
        whole = begin().feed(probabilities)
        pieces, tracker, at = [], begin(), 0
        for size in [*sizes, len(probabilities)]:
            pieces += tracker.feed(probabilities[at : at + size])
            at += size
        assert pieces == whole
        assert [change.speaking for change in whole] == [n % 2 == 0 for n in range(len(whole))]

    def test_speech_is_told_when_it_lasts_and_its_end_when_silence_does(self) -> None:
        tracker = SpeechTracker(FRAME, Endpointing(min_s=3 * FRAME_S, stop_s=4 * FRAME_S))
        speech = [0.0, 0.9, 0.0, 0.9, 0.9, 0.9, 0.4, 0.0, 0.0, 0.9, 0.0, 0.0, 0.0, 0.0]
        assert tracker.feed(speech) == [
            SpeechChange(speaking=True, frame=3, known=6),
            SpeechChange(speaking=False, frame=10, known=14),
        ]
        assert tracker.quiet
        assert tracker.leading_silence == 3

    @pytest.mark.parametrize(("stop_s", "frames"), [(0.2, 7), (0.5, 16), (3.0, 94)])
    def test_the_silence_that_ends_an_utterance_is_a_length_of_time(
        self, stop_s: float, frames: int
    ) -> None:
        tracker = SpeechTracker(FRAME, Endpointing(stop_s=stop_s))
        changes = tracker.feed([0.9] * 10 + [0.0] * 100)
        assert changes[-1] == SpeechChange(speaking=False, frame=10, known=10 + frames)

    @given(st.lists(st.sampled_from([0.0, 0.4, 0.9]), max_size=60))
    def test_no_speech_lies_in_the_leading_silence(self, probabilities: list[float]) -> None:
        tracker, least = SpeechTracker(FRAME), 0
        for probability in probabilities:
            tracker.feed([probability])
            least = max(least, tracker.leading_silence)
        # What was leading silence once still is: it may have been forgotten since.
        assert tracker.leading_silence >= least
        for start, _ in stretches(probabilities, TIGHT):
            assert least <= start


def test_a_length_of_time_is_covered_by_whole_frames() -> None:
    assert [frames_in(s, FRAME) for s in (0.0, 0.032, 0.033, 0.128, 0.64)] == [0, 1, 2, 4, 20]


def test_the_beginning_of_an_utterance_that_is_over_ends_with_it() -> None:
    utterance = Utterance(Utterance.BLOCK, 512)
    utterance.append(np.arange(Utterance.BLOCK, dtype=np.int16))
    frames = utterance.unexamined(ended=True)
    assert frames * 512 > Utterance.BLOCK  # the last is filled up with silence
    utterance.examined([1.0] * frames, None)
    beginning = utterance.beginning(frames)
    assert np.array_equal(beginning.audio(), utterance.audio())
    assert beginning.probabilities == utterance.probabilities
