"""A server for a notebook: started in one cell, stopped in another, and never there twice.

It runs in a process of its own, so that a kernel that computes does not hold it up. An interrupt
of the cell that starts it leaves nothing behind, and it ends with the kernel, however that ends.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import traitlets

from labkit.course.keep import kept_sections, server_file
from labkit.course.masters import still_to_write
from labkit.errors import ServerError
from labkit.measure.server_process import (
    RunningServer,
    labkit_server,
    naive_server,
    script_server,
    start_server,
)


class Place(traitlets.HasTraits):
    """A name under which one server runs at a time, whichever cells start and stop it.

    Attributes:
        command: What was started here last; empty where nothing was yet.
    """

    server = traitlets.Instance(RunningServer, allow_none=True)
    """What runs here. Whoever observes it is told of the next one."""
    command: Sequence[str] = ()

    async def start(self, command: Sequence[str]) -> RunningServer:
        """Start a server here, in place of the one that runs."""
        await self.stop()
        server = await start_server(command)
        await self.stop()  # one that was started at the same time, by cells that do not wait
        self.command, self.server = command, server
        return server

    async def start_again(self) -> RunningServer:
        """Start what was started here last.

        Raises:
            ServerError: Nothing was yet, or it ended or got stuck before it was ready.
        """
        if not self.command:
            raise ServerError("nothing was started here yet: run the cell that starts it")
        return await self.start(self.command)

    async def stop(self) -> None:
        """Stop what runs here, which may be talking to this event loop meanwhile."""
        old, self.server = self.server, None
        if old is not None:
            await old.stop_async()


# The one thing that outlives a cell here: a cell that runs again has to find what it started
# before, even where nothing in the notebook is bound to it any more.
_places: Final[dict[str, Place]] = {}


def place_of(name: str) -> Place:
    """The place of that name."""
    return _places.setdefault(name, Place())


def as_server(server: RunningServer | str) -> RunningServer:
    """What a cell calls a server: one that was started, or an address.

    Raises:
        ServerError: It is neither.
    """
    if isinstance(server, str):
        return RunningServer(server)
    if not isinstance(server, RunningServer):
        raise ServerError(
            f"{server!r} is no server; give what 'await start_labkit()' or 'await start_mine()' "
            "gives, or an address such as ws://localhost:8765"
        )
    return server


async def start_labkit(*options: str | float, name: str = "labkit") -> RunningServer:
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
    return await place_of(name).start(labkit_server(*map(str, options)))


async def start_mine(*, name: str = "mine", file: Path | str | None = None) -> RunningServer:
    """Start the server that your kept cells make, as `start_labkit` does with labkit's.

    Args:
        name: Servers of different names run side by side.
        file: Another file of Python to start instead, such as the server of an earlier chapter.

    Raises:
        NotImplementedError: A section of it is still a stub.
        ServerError: The file is none of Python, or the server ended or got stuck before it was
            ready; the error has its last words.
    """
    command = kept_server() if file is None else script_server(Path(file))
    return await place_of(name).start(command)


def kept_server() -> list[str]:
    """The server that your kept cells make.

    Raises:
        NotImplementedError: Nothing is kept, or a section of it is still a stub.
    """
    kept = kept_sections()
    if not kept:
        raise NotImplementedError("nothing is kept yet: run the cells that begin with %%keep")
    if waiting := still_to_write(kept):
        raise NotImplementedError(f"still to be written: {', '.join(waiting)}")
    return script_server(server_file())


async def start_naive(*, name: str = "naive") -> RunningServer:
    """Start the server of chapter 1 that does everything in its handler, likewise."""
    return await place_of(name).start(naive_server())


async def stop_servers() -> None:
    """Stop every server that was started here, and wait until their ports are free."""
    for place in list(_places.values()):
        await place.stop()
