"""A server in a process of its own: started, watched, and ended with whoever started it.

Measurements need it, since a client that is busy must not disturb the server; so do drills, which
break the server, and notebooks, whose kernel computes::

    server = await start_server(labkit_server("--pipeline", "echo"))   # in one cell
    server.url, server.usage()
    server.stop()                                                      # in another

    async with running_server(labkit_server()) as server:              # for the length of a block
        ...

A server of somebody else's is a file of Python: it listens on the port that the environment
variable `PORT` names, and is ready once it accepts there. One that chooses its port itself writes
`… is ready at ws://…`, as labkit's do.

The server ends when it is stopped, and also when this process ends without having stopped it:
terminated, killed, or by a terminal that closes (`labkit.measure.child`).
"""

import asyncio
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Final

import psutil

from labkit.errors import ClientError, ServerError
from labkit.measure.server_status import ServerStatus, fetch_status
from labkit.net import TOKEN_VARIABLE

_READY: Final = re.compile(r"ready at (wss?://\S+)\n")
_START_S: Final = 120.0
_STOP_S: Final = 10.0
_LOOK_S: Final = 0.02
_TAIL: Final = 2000
_CPU_OF_ALL_THREADS: Final = 2
_PORT: Final = "PORT"
"""Environment variable that tells a file of Python where to listen."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process takes up at one instant.

    Attributes:
        cpu_s: CPU seconds since it started, in user mode and in the kernel.
    """

    rss_bytes: int
    cpu_s: float


def _cpu_s(process: psutil.Process) -> float:
    """CPU time to the nanosecond where the system tells it.

    What psutil reads on Linux counts in ticks of 10 ms, more than a server with one caller uses
    in a second. The process's own clock (`clock_getcpuclockid` of the C library) is exact.
    """
    if psutil.LINUX:
        return time.clock_gettime(~process.pid << 3 | _CPU_OF_ALL_THREADS)
    times = process.cpu_times()
    return float(times.user + times.system)


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that accepts callers at `url`.

    Its process, and the file of what it writes to stdout and stderr, are None for a server that
    somebody else started.
    """

    url: str
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    output: IO[bytes] | None = field(default=None, repr=False)

    @property
    def pid(self) -> int | None:
        """Its process's number, as far as that is known."""
        return None if self.process is None else self.process.pid

    def usage(self) -> Usage | None:
        """Its memory and CPU time; None where it is gone, or was started by somebody else."""
        if self.process is None:
            return None
        try:
            process = psutil.Process(self.process.pid)
            return Usage(process.memory_info().rss, _cpu_s(process))
        except (psutil.Error, OSError):
            return None

    def log(self, start: int = 0) -> str:
        """What it has written so far, from byte `start` on; empty where that is not known."""
        if self.output is None or self.output.closed:  # `stop` lets go of it
            return ""
        # Read at a place of our own: the server writes at the file's position.
        number = self.output.fileno()
        size = max(0, os.fstat(number).st_size - start)
        return os.pread(number, size, start).decode(errors="replace")

    def last_words(self, start: int = 0) -> str:
        """The end of that, as part of an error; empty where it has written nothing."""
        words = self.log(start)[-_TAIL:].strip()
        return f"It said:\n{words}" if words else ""

    @contextmanager
    def speaking_for_itself(self) -> Iterator[None]:
        """Let a `ClientError` that ends the block also say what the server has written meanwhile.

        A server that fails closes the connection, which tells its client little; its log has the
        traceback.
        """
        before = len(self.log().encode())
        try:
            yield
        except ClientError as error:
            if words := self.last_words(before):
                raise ClientError(f"{error}. {words}") from error
            raise

    def status(self) -> ServerStatus:
        """What it tells of itself at `/metrics`: sessions, queues, the time of each stage.

        As the last line of a cell, that shows itself.
        """
        if self.process is not None and self.process.poll() is not None:
            return ServerStatus(self.url, "its process has ended", running=False)
        return fetch_status(self.url)

    def stop(self) -> None:
        """End it and what it started: ask, insist after ten seconds, wait until all are gone.

        Stopping a server again, or one that somebody else started, does nothing.
        """
        if self.process is None or self.output is None or self.output.closed:
            return
        try:
            _end(self.process)
        finally:  # also where an interrupt ends the wait: the pipe's end then ends the server
            self.output.close()

    async def stop_async(self) -> None:
        """Do what `stop` does, and leave the event loop to others meanwhile."""
        await asyncio.to_thread(self.stop)


def labkit_server(*options: str) -> list[str]:
    """Labkit's own server on a free port, with further `options` of `labkit serve`."""
    return ["labkit", "serve", "--port", "0", *options]


def naive_server(*options: str) -> list[str]:
    """The server that is written the naive way, likewise; its options name its models."""
    return ["labkit.course.naive_server", "--port", "0", *options]


def script_server(file: Path) -> list[str]:
    """A server that is a file of Python.

    Raises:
        ServerError: There is no such file, or it is another one.
    """
    if file.is_dir():
        raise ServerError(f"{file} is a folder; name a file of Python in it")
    if not file.is_file():
        raise ServerError(f"there is no file {file}")
    if file.suffix != ".py":
        raise ServerError(f"{file} is no file of Python; name one that ends in .py")
    return [str(file)]


async def start_server(command: Sequence[str], *, start_s: float = _START_S) -> RunningServer:
    """Start a server in a process of its own, and wait until it accepts callers.

    Args:
        command: A module that Python can run, or a file of Python (its name ends in `.py`), and
            arguments, such as `labkit_server` gives. It does not get the token of this process's
            environment, since callers that measure show none.
        start_s: Longest that it may take to get ready, model loading included.

    Raises:
        ServerError: It ended or got stuck before it was ready; the error has its last words.
    """
    port = _free_port() if command[0].endswith(".py") else None
    server = _spawn(command, port)
    try:
        return replace(server, url=await _ready(server, port, start_s))
    except BaseException:
        await server.stop_async()
        raise


@asynccontextmanager
async def running_server(
    command: Sequence[str], *, start_s: float = _START_S
) -> AsyncIterator[RunningServer]:
    """Run a server for the length of the block; arguments and errors are `start_server`'s."""
    server = await start_server(command, start_s=start_s)
    try:
        yield server
    finally:
        await server.stop_async()


@asynccontextmanager
async def running_servers(
    commands: Mapping[str, Sequence[str]],
) -> AsyncIterator[dict[str, RunningServer]]:
    """Run several servers for the length of the block, by their names."""
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(running_server(command))
            for name, command in commands.items()
        }


def _free_port() -> int:
    """A port that was free a moment ago; a server that is told of it takes it soon."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def _spawn(command: Sequence[str], port: int | None) -> RunningServer:
    """A server that was started and has no address yet."""
    environment = {name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE}
    if port is not None:
        environment |= {_PORT: str(port), "PYTHONUNBUFFERED": "1"}
    output = tempfile.TemporaryFile()
    process = subprocess.Popen(
        [sys.executable, "-m", "labkit.measure.child", *command],
        stdin=subprocess.PIPE,  # held open, never written to: see labkit.measure.child
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
        # Ctrl-C, and the interrupt of a notebook's kernel, go to a whole group of processes.
        # They mean the program that started the server, which then ends it in order.
        start_new_session=True,
    )
    return RunningServer("", process, output)


async def _ready(server: RunningServer, port: int | None, start_s: float) -> str:
    """Wait until the server says where it answers, or answers where it was told to."""
    deadline_s = time.monotonic() + start_s
    while (found := _READY.search(server.log())) is None:
        if server.process is not None and (code := server.process.poll()) is not None:
            raise _failed(server, f"ended with code {code} before it was ready")
        if port is not None and await _accepts(port):
            return f"ws://localhost:{port}"
        if time.monotonic() > deadline_s:
            told = "" if port is None else f"; {_PORT} told it to listen on port {port}"
            raise _failed(server, f"was not ready within {start_s:g} s{told}")
        # A process here belongs to no event loop, so that any may stop it, or none.
        await asyncio.sleep(_LOOK_S)
    return found[1]


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("localhost", port)
    except OSError:
        return False
    writer.close()
    return True


def _failed(server: RunningServer, what: str) -> ServerError:
    return ServerError(f"the server {what}. {server.last_words() or 'It said nothing.'}")


def _end(process: subprocess.Popen[bytes]) -> None:
    descendants: list[psutil.Process] = []
    with suppress(psutil.Error):  # it is gone already
        descendants = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_S)
    for one in descendants:
        with suppress(psutil.Error):
            one.kill()
    process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()
