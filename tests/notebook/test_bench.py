"""Sliders that measure: what a click does, and the same without clicking."""

from collections.abc import AsyncIterator

import pytest
from matplotlib.figure import Figure

from labkit.course.latency import NETWORKS
from labkit.errors import ClientError, InstrumentError
from labkit.measure.recordings import recording
from labkit.measure.server_process import RunningServer
from labkit.notebook.bench import Bench
from labkit.notebook.server import start_labkit, stop_servers
from tests.support import until


@pytest.fixture
async def server() -> AsyncIterator[RunningServer]:
    yield await start_labkit("--pipeline", "echo")
    await stop_servers()


@pytest.mark.slow
async def test_a_click_measures_and_draws(server: RunningServer) -> None:
    bench = Bench(server, recording("slt-deep-08"))
    size, network, button, told, drawn = bench.widget().children
    assert (size.description, network.description) == ("Chunk size, ms", "Network")
    size.value, network.value = 100, "lan"
    button.click()
    button.click()  # while it measures, a click changes nothing
    await until(lambda: "100 ms chunks over lan" in told.text, seconds=30)
    await until(lambda: bench._running.done())
    assert len(bench.points) == 1
    assert len(bench.points[0].waits_ms) == 3
    assert '<img alt="Waits over chunk size' in drawn.value
    assert repr(bench) == str(bench.points[0])


async def test_a_server_that_is_gone_is_told(server: RunningServer) -> None:
    bench = Bench(server, recording("slt-deep-08"))
    *_, button, told, _ = bench.widget().children
    await server.stop_async()
    button.click()
    await until(lambda: told.text and "Measuring" not in told.text)
    assert bench.points == []


async def test_a_click_tells_whatever_goes_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr("labkit.notebook.bench.measure_point", fail)
    *_, button, told, _ = Bench("ws://localhost:1", "slt-deep-08").widget().children
    button.click()
    await until(lambda: told.text == "OSError('no room')")


async def test_an_address_is_a_server() -> None:
    bench = Bench("ws://localhost:1", "slt-deep-08")
    with pytest.raises(ClientError, match="localhost:1"):
        await bench.measure(chunk_ms=40)


async def test_sliders_offer_every_network() -> None:
    bench = Bench(RunningServer("ws://localhost:1"), "slt-deep-08")
    with pytest.raises(InstrumentError, match="network '5g' is none of loopback, lan, wifi"):
        await bench.measure(chunk_ms=40, network="5g")
    assert repr(bench) == "nothing was measured yet"
    assert bench.widget().children[1].options == NETWORKS
    assert isinstance(bench.figure(), Figure)
