"""What a server tells of itself: labkit's, a learner's, one that has no page, one that is gone."""

import asyncio
import xml.etree.ElementTree as ElementTree

import pytest
from websockets.asyncio.server import ServerConnection, serve

from labkit.errors import ServerError
from labkit.measure.recordings import recording
from labkit.measure.server_process import RunningServer, labkit_server, running_server
from labkit.measure.server_status import ServerStatus, fetch_status, read_status
from labkit.notebook.turn import say
from labkit.server.http import Metrics
from labkit.trace import Mark, Stage, Trace
from tests.callers import calling, serving

URL = "ws://localhost:1"


async def test_labkits_server_tells_sessions_queues_and_stage_times() -> None:
    async with serving() as server:
        async with calling(server):
            told = await asyncio.to_thread(fetch_status, server.url)
        assert told.session_count == 0  # it counts from `session.start` on
        assert set(told.waiting) == set(server._pipeline.queued())
        assert (told.trouble, told.running, told.stages) == ("", True, {})
        turn = await say(recording("ked-01"), server.url)
        assert turn.heard
        told = await asyncio.to_thread(fetch_status, server.url)
    assert told.stages
    for turns, mean_ms in told.stages.values():
        assert turns == 1
        assert mean_ms >= 0


def test_the_page_of_labkits_server_becomes_numbers() -> None:
    metrics = Metrics()
    metrics.sessions.labels(state="attached").set(2)
    metrics.sessions.labels(state="detached").set(1)
    metrics.sessions.labels(state="expired").set(0)
    metrics.queued.labels(engine="asr").set(4)
    metrics.held_bytes.set(12_000)
    metrics.worked_ahead(used=True)
    metrics.underrun()
    for ms in (100, 300):
        marks = {Mark.END_STREAM_RECEIVED: 0, Mark.ASR_DONE: ms * 1_000_000}
        metrics.turn_answered(Trace(marks, tokens=21))
    told = read_status(URL, metrics.page().decode())
    assert told == ServerStatus(
        URL,
        sessions={"attached": 2, "detached": 1, "expired": 0},
        ahead={"used": 1},
        underruns=1,
        tokens=42,
        waiting={"asr": 4},
        stages={Stage.ASR: (2, pytest.approx(200.0))},
        held_bytes=12_000,
    )
    assert repr(told).splitlines() == [
        f"running at {URL}",
        "  sessions            3 (2 attached, 1 detached)",
        "  calls that wait     4 for asr",
        "  bytes held          12,000",
        "  ASR                 200 ms, mean of 2 turns",
    ]
    table = ElementTree.fromstring(told.table())
    shown = ["".join(cell.itertext()) for cell in table.iter() if cell.tag in ("th", "td")]
    assert shown == [word for row in told.rows() for word in row]
    assert "running at ws://localhost:1" in told._repr_html_()


def test_the_page_of_a_learners_server_has_two_numbers() -> None:
    told = read_status(URL, "sessions 3\nheld_bytes 12000\n")
    assert (told.session_count, told.held_bytes, told.trouble) == (3, 12_000, "")
    assert told.rows() == [("sessions", "3"), ("bytes held", "12,000")]


@pytest.mark.parametrize(
    ("page", "trouble"),
    [
        ("held_bytes 3\n", "no line `sessions`"),
        ("", "no line `sessions`"),
        ("sessions three\n", "not in Prometheus' format: could not convert string"),
        ("<html>\n", "not in Prometheus' format: invalid metric name"),
    ],
)
def test_a_page_that_says_something_else_is_named(page: str, trouble: str) -> None:
    told = read_status(URL, page)
    assert trouble in told.trouble
    assert told.running
    with pytest.raises(ServerError, match="page /metrics"):
        _ = told.session_count


async def test_a_server_without_such_a_page_is_not_one_that_is_gone() -> None:
    async def handle(_: ServerConnection) -> None: ...

    async with serve(handle, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        told = await asyncio.to_thread(fetch_status, url)
    assert told.running
    assert told.trouble == "it has no page /metrics that can be read (HTTP 426)"
    gone = await asyncio.to_thread(fetch_status, url)
    assert not gone.running
    assert "nobody answers there" in gone.trouble
    assert repr(gone).startswith("not running (ws://")


async def test_a_server_of_ones_own_tells_until_it_is_stopped() -> None:
    async with running_server(labkit_server("--pipeline", "echo")) as server:
        told = server.status()
        assert (told.url, told.running, told.session_count) == (server.url, True, 0)
    assert server.status() == ServerStatus(server.url, "its process has ended", running=False)


def test_a_server_of_somebody_else_is_asked_at_its_address() -> None:
    assert not RunningServer("ws://localhost:1").status().running
