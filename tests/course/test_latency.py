"""What chapter 5 measures and makes of it: short experiments, tables."""

from collections.abc import AsyncIterator

import pytest

from labkit.course.latency import (
    Point,
    by_network,
    longer_ms,
    measure_two_writes,
    networks_figure,
    plot_points,
    plot_two_writes,
    table,
    way_out_ms,
)
from labkit.measure.server_process import RunningServer
from labkit.notebook.server import start_labkit, stop_servers
from labkit.trace import Mark, Trace
from tests.course.measurements import TWO_WRITES, summary


def point(chunk_ms: int, network: str, *waits_ms: float) -> Point:
    marks = (
        {Mark.END_OF_SPEECH: 0, Mark.FIRST_AUDIO_HEARD: round(wait * 1e6)} for wait in waits_ms
    )
    return Point(chunk_ms, network, [Trace(one) for one in marks])


@pytest.fixture
async def server() -> AsyncIterator[RunningServer]:
    yield await start_labkit("--pipeline", "echo")
    await stop_servers()


def test_a_table_says_what_each_size_adds() -> None:
    first, *_, last = table(summary().servers[0])
    assert (first["chunk_ms"], first["added_ms"], first["predicted_ms"]) == (20, 0.0, 0.0)
    assert first["headers_percent"] == pytest.approx(9.375)
    assert last["predicted_ms"] == 240
    assert last["low_ms"] <= last["added_ms"] <= last["high_ms"]


def test_a_network_is_compared_recording_by_recording() -> None:
    assert longer_ms(summary(), summary(more_ms=37)) == pytest.approx(37)
    networks = by_network({"loopback": summary(), "4g": summary(more_ms=37)})
    assert [one.name for one in networks] == ["loopback", "4g"]
    assert len(networks_figure(networks).axes) == 2


def test_a_large_chunk_takes_long_on_a_thin_line() -> None:
    assert way_out_ms(500, "3g") == pytest.approx(1000 * (16_000 + 8 + 12 * 52) / 96_000)
    assert way_out_ms(500, "lan") == 0


def test_points_are_told_and_drawn() -> None:
    points = [point(20, "loopback", 200, 220, 260), point(100, "4g", 300), point(40, "4g")]
    assert str(points[0]) == "20 ms chunks over loopback: 220 ms (200 to 260, 3 turns)"
    assert str(points[2]) == "40 ms chunks over 4g: nothing was heard"
    drawn = plot_points(points)
    assert [text.get_text() for text in drawn.get_legend().get_texts()] == ["loopback", "4g"]
    plot_points([])
    names = [label.get_text() for label in plot_two_writes(TWO_WRITES).get_yticklabels()]
    assert names[-1] == "2 writes, TCP_NODELAY off"


@pytest.mark.slow
async def test_two_writes_are_timed_in_every_way(server: RunningServer) -> None:
    found = await measure_two_writes(server)
    assert list(found) == list(TWO_WRITES)
    assert all(len(took) == 25 and min(took) > 0 for took in found.values())
