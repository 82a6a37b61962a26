"""What chapter 3 measures and draws: callers in other formats, and seams between chunks."""

import numpy as np
import pytest
import soxr

from labkit.audio.formats import AudioFormat
from labkit.audio.pcm import SAMPLE_RATE, Encoding
from labkit.course import wire
from labkit.measure.figures import figure_of
from labkit.measure.recordings import recording
from labkit.protocol import v1

TONE = np.sin(np.arange(SAMPLE_RATE) * 0.2).astype(np.float32) / 2


def test_a_second_has_the_bytes_of_its_format() -> None:
    assert len(wire.as_bytes(TONE, AudioFormat(sample_rate=48_000))) == 96_000
    assert len(wire.as_bytes(TONE, AudioFormat(Encoding.MULAW, 8_000))) == 8_000


def test_a_format_that_is_written_as_text_is_asked_for_like_any_other() -> None:
    asked = v1.AudioSpec.of(AudioFormat("alaw", 8_000))  # type: ignore[arg-type]
    assert asked == v1.AudioSpec(encoding=Encoding.ALAW, sample_rate=8_000)


def test_a_fault_of_a_tenth_lies_20_db_below_the_sound() -> None:
    assert wire.below_db(TONE * 1.1, TONE) == pytest.approx(20, abs=0.01)
    assert wire.below_db(TONE, TONE) > 100


def test_what_was_not_heard_at_all_is_nought_percent() -> None:
    said = recording("kal-03")
    assert wire.percent_heard(said, said.text) == 100
    assert wire.percent_heard(said, "") == 0
    assert wire.percent_heard(said, "one two " * 20) == 0


def test_the_difference_between_chunks_is_drawn_where_it_is() -> None:
    whole = soxr.resample(TONE, SAMPLE_RATE, 48_000)
    pieces = [TONE[at : at + 320] for at in range(0, len(TONE), 320)]
    apart = np.concatenate([soxr.resample(one, SAMPLE_RATE, 48_000) for one in pieces])
    drawn = wire.plot_differences({"apart": apart}, whole, start_s=0.1, seconds=0.1, rate=48_000)
    sound, off = drawn.get_lines()[:2]
    assert len(off.get_ydata()) == len(sound.get_ydata()) == 4_800
    worst = int(np.abs(np.asarray(off.get_ydata())).argmax()) % 960
    assert min(worst, 960 - worst) <= 48  # within 1 ms of where two chunks meet


def test_each_format_has_its_two_bars() -> None:
    found = [
        wire.Understood(AudioFormat(), 90.0),
        wire.Understood(AudioFormat(Encoding.ALAW, 8_000), 0.0),
    ]
    widths = [bar.get_width() for bar in wire.plot_understood(found).patches]
    assert widths == [32, 8, 90, 0]


def test_no_number_lies_below_the_legend() -> None:
    found = [wire.Understood(AudioFormat(sample_rate=rate), 100.0) for rate in (48_000, 16_000)]
    drawn = wire.plot_understood([*found, *found])
    figure_of(drawn).draw_without_rendering()
    legend = drawn.get_legend()
    assert legend is not None
    place = legend.get_window_extent()
    over = [one.get_text() for one in drawn.texts if place.overlaps(one.get_window_extent())]
    assert not over


def test_a_law_is_drawn_in_the_order_of_its_values() -> None:
    drawn = wire.plot_laws({"backwards": np.linspace(1, -1, 256, dtype=np.float32)})
    values = np.asarray(drawn.get_lines()[0].get_ydata())
    assert (np.diff(values) > 0).all()
