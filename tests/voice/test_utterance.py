"""The buffer of one utterance, and the history of a conversation."""

import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.voice.engines import Message
from labkit.voice.utterance import Exchange, History, Utterance


def ramp(count: int, start: int = 0) -> np.ndarray:
    return np.arange(start, start + count, dtype=np.float32)


@given(st.lists(st.integers(0, 700), max_size=12), st.integers(1, 3000))
def test_what_fits_is_kept_in_order_and_the_rest_is_counted(sizes: list[int], limit: int) -> None:
    utterance = Utterance(limit)
    given_samples = dropped = 0
    for size in sizes:
        dropped += utterance.append(ramp(size, given_samples))
        given_samples += size
    assert len(utterance) == min(given_samples, limit)
    assert dropped == given_samples - len(utterance)
    assert np.array_equal(utterance.audio(), ramp(len(utterance)))


def test_reading_changes_nothing_that_a_writer_in_another_thread_could_lose() -> None:
    utterance = Utterance(10_000)
    utterance.append(ramp(700))
    utterance.append(ramp(700, 700))
    before = {name: id(value) for name, value in vars(utterance).items()}
    utterance.audio()
    utterance.unseen(512)
    utterance.unseen(512, last=True)
    assert {name: id(value) for name, value in vars(utterance).items()} == before


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    """Threads take turns as often as Python can make them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("frequent_switches")
def test_nothing_is_lost_while_a_detector_reads_in_its_thread() -> None:
    utterance = Utterance(1_000_000)
    reading, over = threading.Event(), threading.Event()
    seen: list[np.ndarray] = []

    def detect() -> None:
        while not over.is_set():
            seen.append(utterance.unseen(512))
            utterance.probabilities += [0.0] * (len(seen[-1]) // 512)
            reading.set()

    detector = threading.Thread(target=detect)
    detector.start()
    reading.wait()
    for number in range(1500):
        utterance.append(ramp(160, 160 * number))
    over.set()
    detector.join()
    assert np.array_equal(utterance.audio(), ramp(160 * 1500))
    joined = np.concatenate(seen)
    assert np.array_equal(joined, ramp(len(joined)))


def test_only_whole_frames_are_given_until_the_last() -> None:
    utterance = Utterance(10_000)
    utterance.append(ramp(1300))
    assert np.array_equal(utterance.unseen(512), ramp(1024))
    utterance.probabilities += [0.0, 0.0]
    assert len(utterance.unseen(512)) == 0
    rest = utterance.unseen(512, last=True)
    assert len(rest) == 512
    assert np.array_equal(rest[:276], ramp(276, 1024))
    assert not rest[276:].any()


def test_history_keeps_the_last_exchanges() -> None:
    history = History(2)
    for number in range(3):
        history.add(Exchange(f"question {number}", f"answer {number}"))
    assert history.messages("now") == [
        Message("user", "question 1"),
        Message("assistant", "answer 1"),
        Message("user", "question 2"),
        Message("assistant", "answer 2"),
        Message("user", "now"),
    ]
