"""Where speech begins and ends, from probabilities alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.voice.endpointing import (
    Endpointing,
    SpeechChange,
    SpeechSpan,
    SpeechTracker,
    speech_span,
)

FRAME = 512
TIGHT = Endpointing(pad_frames=0)


def test_silence_has_no_speech() -> None:
    assert speech_span([0.1] * 50, FRAME) is None
    assert speech_span([], FRAME) is None


def test_speech_is_found_between_silences() -> None:
    assert speech_span([0.0] * 10 + [0.9] * 8 + [0.0] * 10, FRAME, TIGHT) == SpeechSpan(
        10 * FRAME, 18 * FRAME
    )


def test_a_click_is_no_speech() -> None:
    assert speech_span([0.0] * 10 + [0.9] * 3 + [0.0] * 10, FRAME) is None


@pytest.mark.parametrize(("dip", "frames"), [(0.40, 9), (0.34, 4)])
def test_a_dip_above_the_release_threshold_does_not_split(dip: float, frames: int) -> None:
    """Eight frames around the dip are speech, but neither side alone is long enough at 0.34."""
    rules = Endpointing(pad_frames=0, min_frames=4)
    span = speech_span([0.9] * 4 + [dip] + [0.9] * 3 + [dip], FRAME, rules)
    assert span is not None
    assert span.end == frames * FRAME


def test_pauses_inside_are_kept() -> None:
    span = speech_span([0.9] * 5 + [0.0] * 40 + [0.9] * 5, FRAME, TIGHT)
    assert span == SpeechSpan(0, 50 * FRAME)


def test_padding_stays_inside_the_audio() -> None:
    assert speech_span([0.9] * 6, FRAME, Endpointing(pad_frames=9)) == SpeechSpan(0, 6 * FRAME)


@given(st.lists(st.floats(0, 1), max_size=80))
def test_the_span_lies_inside_and_holds_all_frames_above_the_threshold(
    probabilities: list[float],
) -> None:
    span = speech_span(probabilities, FRAME, Endpointing(min_frames=1))
    loud = [i for i, p in enumerate(probabilities) if p >= 0.5]
    assert (span is None) == (not loud)
    if span is not None:
        assert 0 <= span.start <= loud[0] * FRAME
        assert (loud[-1] + 1) * FRAME <= span.end <= len(probabilities) * FRAME


@given(
    st.lists(st.floats(0, 1), max_size=120),
    st.lists(st.integers(1, 30), max_size=20),
)
def test_changes_of_speech_do_not_depend_on_how_frames_come(
    probabilities: list[float], sizes: list[int]
) -> None:
    whole = SpeechTracker().feed(probabilities)
    pieces, tracker, at = [], SpeechTracker(), 0
    for size in [*sizes, len(probabilities)]:
        pieces += tracker.feed(probabilities[at : at + size])
        at += size
    assert pieces == whole
    assert [change.speaking for change in whole] == [n % 2 == 0 for n in range(len(whole))]


def test_speech_is_told_when_it_lasts_and_its_end_when_silence_does() -> None:
    rules = Endpointing(min_frames=3, stop_frames=4)
    tracker = SpeechTracker(rules)
    speech = [0.0, 0.9, 0.0, 0.9, 0.9, 0.9, 0.4, 0.0, 0.0, 0.9, 0.0, 0.0, 0.0, 0.0]
    assert tracker.feed(speech) == [
        SpeechChange(speaking=True, frame=3, known=6),
        SpeechChange(speaking=False, frame=10, known=14),
    ]
    assert tracker.quiet
