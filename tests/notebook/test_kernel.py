"""The six lines of the README in a real kernel, interrupted and restarted in the middle."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager

from tests.paths import ROOT
from tests.support import until

pytestmark = [pytest.mark.notebook, pytest.mark.slow]

BEGIN = """
from labkit.course import begin
await begin(1)
"""
START = """
from labkit import recording, say, start_labkit
server = await start_labkit("--pipeline", "echo")
server.pid
"""
SAY = """
turn = await say(recording("ked-01"), server)
turn.plot_waterfall()
turn.plot_waveform()
turn
"""


@asynccontextmanager
async def kernel() -> AsyncIterator[tuple[AsyncKernelManager, AsyncKernelClient]]:
    manager = AsyncKernelManager(kernel_name="python3")
    await manager.start_kernel(cwd=str(ROOT))
    client = manager.client()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=60)
        yield manager, client
    finally:
        client.stop_channels()
        await manager.shutdown_kernel(now=True)


class Cell:
    """A cell that runs, and what it has put out."""

    def __init__(self, client: AsyncKernelClient, source: str) -> None:
        self.outputs: list[dict[str, object]] = []
        self._client = client
        self._source = source

    async def run(self) -> str:
        """Run it to its end; gives its error's name, or nothing."""
        reply = await self._client.execute_interactive(
            self._source, output_hook=self.outputs.append, timeout=60
        )
        return str(reply["content"].get("ename", ""))

    def shown(self, kind: str) -> list[str]:
        contents = [output["content"] for output in self.outputs]
        data = [content.get("data", {}) for content in contents if isinstance(content, dict)]
        return [one[kind] for one in data if kind in one]


async def pid_of_started(client: AsyncKernelClient) -> int:
    cell = Cell(client, START)
    assert await cell.run() == ""
    return int(cell.shown("text/plain")[-1])


async def test_what_is_no_python_in_a_kept_cell_is_shown_as_in_any_other(tmp_path: Path) -> None:
    async with kernel() as (_, client):
        begun = f"import os; os.environ['LABKIT_MINE'] = {str(tmp_path)!r}\n{BEGIN}"
        assert await Cell(client, begun).run() == ""
        cell = Cell(client, "%%keep one\nx = 1\ndef f(:")
        assert await cell.run() == "SyntaxError"
    (error,) = [one["content"] for one in cell.outputs if one["msg_type"] == "error"]
    assert isinstance(error, dict)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error["traceback"]))
    assert "%%keep one:3" in shown
    assert "def f(:" in shown
    assert "interactiveshell" not in shown


async def test_a_turn_is_seen_and_heard() -> None:
    async with kernel() as (_, client):
        await pid_of_started(client)
        cell = Cell(client, SAY)
        assert await cell.run() == ""
        waterfall, waveform, *turn = cell.shown("text/html")
    assert waterfall.startswith('<img alt="Waterfall of one turn. ')
    assert waveform.startswith('<img alt="Waveform of one turn: ')
    # Words and players, and beside them the waterfall as a widget, or the picture in its place.
    assert turn[0].count("<audio controls") == 2
    assert "application/vnd.jupyter.widget-view+json" in str(cell.outputs)
    assert any(text.startswith("said   ") for text in cell.shown("text/plain"))


async def test_an_interrupt_ends_the_turn_and_not_the_server() -> None:
    async with kernel() as (manager, client):
        pid = await pid_of_started(client)
        cell = Cell(client, f"import os\nprint('speaking', flush=True)\n{SAY}")
        running = asyncio.create_task(cell.run())
        await until(lambda: any(o["msg_type"] == "stream" for o in cell.outputs), 30)
        await manager.interrupt_kernel()
        assert await running in ("CancelledError", "KeyboardInterrupt")
        assert psutil.pid_exists(pid)
        assert await Cell(client, SAY).run() == ""


async def test_a_restart_ends_the_server_and_the_cells_run_again() -> None:
    async with kernel() as (manager, client):
        pid = await pid_of_started(client)
        running = asyncio.create_task(Cell(client, SAY).run())
        await manager.restart_kernel(now=True)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await until(lambda: not psutil.pid_exists(pid), 30)
        await client.wait_for_ready(timeout=60)
        again = await pid_of_started(client)
        assert again != pid
        assert await Cell(client, SAY).run() == ""
    await until(lambda: not psutil.pid_exists(again), 30)
