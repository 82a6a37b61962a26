"""A server for a notebook: started in one cell, stopped in another, and never there twice.

It runs in a process of its own, so that a kernel that computes does not hold it up. An interrupt
of the cell that starts it leaves nothing behind, and it ends with the kernel, however that ends.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from labkit.course.keep import kept_sections, server_file, stubs_in
from labkit.measure.server_process import RunningServer, labkit_server, start_server

__all__ = ["start_labkit", "start_mine", "start_naive", "stop_servers"]

# The one thing that outlives a cell here: a cell that runs again has to find what it started
# before, even where nothing in the notebook is bound to it any more.
_started: Final[dict[str, RunningServer]] = {}


async def start_labkit(*options: str, name: str = "labkit") -> RunningServer:
    """Start labkit's server, and wait until it takes callers.

    Running it again replaces the server that it started before::

        server = await start_labkit()
        ...
        server.stop()                       # in another cell; waits until its port is free

    Args:
        options: Options of `labkit serve`, such as ``"--pipeline", "echo"``; the port is any
            free one.
        name: Servers of different names run side by side.

    Raises:
        ServerError: It ended or got stuck before it was ready; the error has its last words.
    """
    return await _start(labkit_server(*options), name)


async def start_mine(*, name: str = "mine", file: Path | None = None) -> RunningServer:
    """Start the server that your kept cells make, as `start_labkit` does with labkit's.

    Args:
        name: Servers of different names run side by side.
        file: Another file of Python to start instead, such as the server of an earlier chapter.

    Raises:
        NotImplementedError: A section of it is still a stub.
        ServerError: It ended or got stuck before it was ready; the error has its last words.
    """
    if file is not None:
        return await _start([str(file)], name)
    kept = kept_sections()
    if not kept:
        raise NotImplementedError("nothing is kept yet: run the cells that begin with %%keep")
    if stubs := stubs_in(kept):
        raise NotImplementedError(f"still to be written: {', '.join(stubs)}; see the cards above")
    return await _start([str(server_file())], name)


async def start_naive(*, name: str = "naive") -> RunningServer:
    """Start the server of chapter 1 that does everything in its handler, likewise."""
    return await _start(["labkit.course.naive_server", "--port", "0"], name)


async def stop_servers() -> None:
    """Stop every server that was started here, and wait until their ports are free."""
    for name in list(_started):
        await _stop(name)


async def _start(command: Sequence[str], name: str) -> RunningServer:
    """Start a server, in place of the one of that name."""
    await _stop(name)
    server = await start_server(command)
    await _stop(name)  # one that was started at the same time, by cells that do not wait
    _started[name] = server
    return server


async def _stop(name: str) -> None:
    """Stop the server of that name, which may be talking to this event loop meanwhile."""
    if (old := _started.pop(name, None)) is not None:
        await old.stop_async()
