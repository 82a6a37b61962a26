"""Sliders that measure, with and without clicking; the latency exercise in a notebook."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from matplotlib.figure import Figure

from labkit.course.keep import write_sections
from labkit.course.latency import NETWORKS
from labkit.course.masters import sections
from labkit.errors import ClientError, InstrumentError
from labkit.measure.exercise import Exercise
from labkit.measure.recordings import recording
from labkit.measure.results import Results
from labkit.measure.server_process import RunningServer
from labkit.notebook.bench import Bench, run_exercise
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


@pytest.mark.parametrize("interrupted", [False, True])
async def test_it_says_where_the_results_are(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    interrupted: bool,
) -> None:
    asked: list[tuple[Exercise, Results]] = []

    async def conduct(exercise: Exercise, results: Results, _: object) -> SimpleNamespace:
        asked.append((exercise, results))
        results.measured = 3
        if interrupted:
            raise asyncio.CancelledError
        return SimpleNamespace()

    monkeypatch.setattr("labkit.notebook.bench.conduct", conduct)
    with suppress(asyncio.CancelledError):
        await run_exercise(quick=True, out=tmp_path)
    ((exercise, results),) = asked
    assert results.folder.parent == tmp_path
    assert [target.name for target in exercise.targets] == ["labkit"]
    assert capsys.readouterr().out == f"3 turns; raw data and figures: {results.folder}\n"


async def test_the_conditions_are_those_that_were_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Exercise] = []

    async def conduct(exercise: Exercise, results: Results, _: object) -> SimpleNamespace:
        asked.append(exercise)
        return SimpleNamespace()

    monkeypatch.setenv("LABKIT_MINE", str(tmp_path))
    monkeypatch.setattr("labkit.notebook.bench.conduct", conduct)
    with pytest.raises(NotImplementedError, match="nothing is kept yet: run the cells"):
        await run_exercise(mine=True, out=tmp_path)
    write_sections(sections(2))
    await run_exercise(mine=True, labkit=False, baseline=True, blocks=3, network="4g", out=tmp_path)
    (exercise,) = asked
    assert [target.name for target in exercise.targets] == ["mine", "naive"]
    assert exercise.targets[0].command == [str(tmp_path / "server.py")]
    assert exercise.blocks == 3
    assert str(exercise.access) == "4g"


async def test_a_server_need_not_be_in_a_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Exercise] = []

    async def conduct(exercise: Exercise, *_: object) -> None:
        asked.append(exercise)

    monkeypatch.setattr("labkit.notebook.bench.conduct", conduct)
    await run_exercise(labkit=False, servers="ws://localhost:8766", out=tmp_path)
    assert [target.url for target in asked[0].targets] == ["ws://localhost:8766"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"chunk_sizes_ms": [0]}, r"\[0\] is no list of whole milliseconds from 5 to 1000"),
        ({"chunk_sizes_ms": []}, r"write them as \[20, 100, 500\]"),
        ({"chunk_sizes_ms": [20.5]}, r"\[20.5\] is no list"),
        ({"blocks": -1}, "blocks is -1, and has to be at least 1"),
        ({"blocks": 0}, "blocks is 0"),
    ],
)
async def test_what_leaves_nothing_to_run_is_named(
    tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(InstrumentError, match=words):
        await run_exercise(**settings, out=tmp_path)


async def test_an_exercise_of_no_server_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InstrumentError, match="there is no server to measure; name one"):
        await run_exercise(labkit=False, out=tmp_path)
