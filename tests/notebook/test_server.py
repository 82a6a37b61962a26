"""A server for a notebook: the cell that starts it may run as often as one likes."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from labkit.client.plain import VoiceClient
from labkit.course.keep import write_sections
from labkit.course.masters import sections
from labkit.errors import ServerError
from labkit.notebook.server import as_server, start_labkit, start_mine, stop_servers
from tests.paths import ROOT
from tests.support import until

ECHO = ("--pipeline", "echo")


@pytest.fixture(autouse=True)
async def stopped() -> AsyncIterator[None]:
    """Nothing is left running."""
    yield
    await stop_servers()


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


@pytest.mark.parametrize("server", [None, Path("mine.py"), 8765])
def test_what_is_no_server_is_told_with_the_mend(server: Any) -> None:
    with pytest.raises(ServerError, match=r"is no server; give what 'await start_labkit\(\)'"):
        as_server(server)


async def test_options_may_be_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Sequence[str]] = []

    async def start(_: object, command: Sequence[str]) -> None:
        started.append(command)

    monkeypatch.setattr("labkit.notebook.server.Place.start", start)
    await start_labkit("--threads", 1)
    assert started[0][-2:] == ["--threads", "1"]


@pytest.mark.slow
async def test_a_cell_that_runs_again_replaces_its_server() -> None:
    before = children()
    for _ in range(10):
        server = await start_labkit(*ECHO)
        assert children() - before == {server.pid}
    async with VoiceClient.connect(server.url) as client:
        assert await client.ping() > 0
    server.stop()
    assert children() == before


async def test_servers_of_different_names_run_side_by_side() -> None:
    one, other = await start_labkit(*ECHO), await start_labkit(*ECHO, name="other")
    assert one.url != other.url
    assert {one.pid, other.pid} <= children()


async def test_two_cells_at_once_leave_one_server() -> None:
    before = children()
    await asyncio.gather(start_labkit(*ECHO), start_labkit(*ECHO))
    assert len(children() - before) == 1


async def test_an_interrupt_while_it_starts_leaves_nothing_behind() -> None:
    before = children()
    cell = asyncio.create_task(start_labkit(*ECHO))
    await until(lambda: children() - before)
    cell.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cell
    assert children() == before


async def test_a_server_that_does_not_start_says_why() -> None:
    with pytest.raises(ServerError, match="--no-such-option"):
        await start_labkit("--no-such-option")


async def test_a_server_that_is_no_file_of_python_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ServerError, match="mine.txt is no file of Python; name one that ends in"):
        await start_mine(file=str(tmp_path / "mine.txt"))


async def test_what_is_still_to_be_written_is_named_with_its_exercise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABKIT_MINE", str(tmp_path))
    given = sections(2, stubs=["ch1.say"])
    own = "def extra():\n    raise NotImplementedError('later')"
    write_sections({**given, "say": sections(1, stubs=["ch1.say"])["say"], "extra": own})
    with pytest.raises(NotImplementedError, match=r"say_reply \(exercise ch1\.say\), extra$"):
        await start_mine()


KERNEL = """
import asyncio
from labkit import start_labkit

async def cell():
    print((await start_labkit("--pipeline", "echo")).pid, flush=True)
    await asyncio.sleep(3600)

asyncio.run(cell())
"""


async def test_it_ends_with_a_kernel_that_is_killed(tmp_path: Path) -> None:
    kernel = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", KERNEL),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert kernel.stdout is not None
    server = int(await kernel.stdout.readline())
    kernel.send_signal(signal.SIGKILL)
    await kernel.communicate()
    await until(lambda: not psutil.pid_exists(server), 30)
