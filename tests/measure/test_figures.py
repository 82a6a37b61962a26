"""The figures of one turn."""

from io import BytesIO

import numpy as np
import pytest
from matplotlib.figure import Figure

from labkit.measure.figures import axes, figure_of, plain_ticks, plot_waterfall, plot_waveform
from labkit.trace import STAGES, Mark, Trace

SPANS = {stage: 10.0 + number for number, stage in enumerate(STAGES)}


def turn() -> Trace:
    trace, at_ns = Trace(), 0
    for stage, (start, end) in STAGES.items():
        trace.mark(start, at_ns)
        at_ns += round(SPANS[stage] * 1e6)
        trace.mark(end, at_ns)
    return trace


def test_a_turn_and_its_stages_give_the_same_waterfall() -> None:
    for given in (turn(), SPANS):
        bars = plot_waterfall(given).patches
        ends = [bar.get_x() + bar.get_width() for bar in bars]  # type: ignore[attr-defined]
        starts = [bar.get_x() for bar in bars]  # type: ignore[attr-defined]
        assert starts[1:] == pytest.approx(ends[:-1])
        assert ends[-1] == pytest.approx(sum(SPANS.values()))


def test_work_ahead_is_drawn_beside_its_stage() -> None:
    trace = turn()
    asked_ns = trace.marks[Mark.END_STREAM_RECEIVED]
    trace.ahead = {Mark.ASR_STARTED: asked_ns - 9_000_000, Mark.ASR_DONE: asked_ns - 2_000_000}
    pale = [bar for bar in plot_waterfall(trace).patches if bar.get_alpha()]
    assert [round(bar.get_width(), 3) for bar in pale] == [7, 2]  # type: ignore[attr-defined]


def test_stages_have_the_names_that_they_have_everywhere() -> None:
    names = [tick.get_text() for tick in plot_waterfall(SPANS).get_yticklabels()]
    assert names == [stage.label for stage in STAGES]
    assert names[2:4] == ["ASR", "LLM first token"]


def test_a_turn_without_a_reply_has_an_empty_waterfall() -> None:
    trace = Trace()
    trace.mark(Mark.STREAM_STARTED, 0)
    assert not plot_waterfall(trace).patches


def test_a_waveform_keeps_its_peaks_and_its_length() -> None:
    samples = np.zeros(160_000, np.float32)
    samples[77_777] = 0.9
    samples[80_000] = -0.8
    ax = plot_waveform(samples, 16_000, end_of_speech=100_000)
    (shape,) = ax.collections
    values = shape.get_paths()[0].vertices[:, 1]
    assert (values.max(), values.min()) == pytest.approx((0.9, -0.8))
    assert ax.get_xlim() == (0, 10)
    assert ax.texts[0].get_text() == "end of speech"


@pytest.mark.parametrize("samples", [0, 1, 7])
def test_a_short_waveform_is_drawn_too(samples: int) -> None:
    ax = Figure().add_subplot()
    assert plot_waveform(np.zeros(samples, np.float32), 16_000, ax=ax) is ax
    assert figure_of(ax) is ax.figure


def test_a_logarithmic_axis_has_plain_numbers_that_leave_one_another_room() -> None:
    ax = axes(None)
    ax.plot([0.25, 4.0], [0, 1])
    ax.set_xscale("log")
    plain_ticks(ax.xaxis)
    ax.figure.savefig(BytesIO())
    labels = {tick.get_text() for tick in ax.get_xticklabels(which="both")} - {""}
    assert {"0.5", "1", "2"} <= labels <= {"0.1", "0.2", "0.5", "1", "2", "5", "10"}
