"""A server in a process of its own, for measurements that a busy client must not disturb."""

import asyncio
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import IO, Final

from labkit.errors import ServerError
from labkit.tokens import VARIABLE

__all__ = ["RunningServer", "labkit_server", "running_server", "server_process"]

_READY: Final = re.compile(r"ready at (wss?://\S+)")
_STOP_S: Final = 10.0
_TAIL: Final = 2000


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that accepts callers.

    Attributes:
        url: Its address.
        pid: Its process, as far as that is known.
        log_file: Where its stderr goes, as far as that is known.
    """

    url: str
    pid: int | None
    log_file: IO[bytes] | None = None

    def log(self, start: int = 0) -> str:
        """What it has written to stderr so far, from byte `start` on; empty where unknown."""
        return "" if self.log_file is None else _written(self.log_file, start)


def labkit_server(*options: str) -> list[str]:
    """The command that runs labkit's own server on a free port, with further `options`."""
    return [sys.executable, "-m", "labkit", "serve", "--port", "0", *options]


@asynccontextmanager
async def server_process(command: Sequence[str], *, start_s: float = 120.0) -> AsyncIterator[str]:
    """Run a server for the length of the block; yields its address. See `running_server`."""
    async with running_server(command, start_s=start_s) as server:
        yield server.url


@asynccontextmanager
async def running_server(
    command: Sequence[str], *, start_s: float = 120.0
) -> AsyncIterator[RunningServer]:
    """Run a server for the length of the block, without the token of the environment.

    Args:
        command: Program and arguments; it prints `… is ready at ws://…` once it accepts.
        start_s: Longest that it may take to get ready, model loading included.

    Yields:
        The server's address and process.

    Raises:
        ServerError: It ended or got stuck before it was ready; the error has its last words.
    """
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=log, env=_without_token()
        )
        try:
            yield RunningServer(await _ready(process, log, start_s), process.pid, log)
        finally:
            await _stop(process)


def _without_token() -> dict[str, str]:
    """The environment for a server whose callers, which measure, show no token."""
    return {name: value for name, value in os.environ.items() if name != VARIABLE}


async def _ready(process: asyncio.subprocess.Process, log: IO[bytes], start_s: float) -> str:
    try:
        async with asyncio.timeout(start_s):
            while line := await _line(process):
                if found := _READY.search(line):
                    return found[1]
    except TimeoutError:
        raise ServerError(
            f"the server was not ready within {start_s:g} s. {_last_words(log)}"
        ) from None
    code = await process.wait()
    raise ServerError(f"the server ended with code {code} before it was ready. {_last_words(log)}")


async def _line(process: asyncio.subprocess.Process) -> str:
    if process.stdout is None:
        raise ServerError("the server's output is not connected")
    return (await process.stdout.readline()).decode(errors="replace")


def _written(log: IO[bytes], start: int = 0) -> str:
    """The file from byte `start` on; the server writes at the file's position, so it stays."""
    size = os.fstat(log.fileno()).st_size
    return os.pread(log.fileno(), max(0, size - start), start).decode(errors="replace")


def _last_words(log: IO[bytes]) -> str:
    words = _written(log)[-_TAIL:].strip()
    return f"It said:\n{words}" if words else "It said nothing."


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Ask it to end, insist after a while, and wait until it is gone."""
    if process.returncode is None:
        process.terminate()
        try:
            async with asyncio.timeout(_STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
    await process.communicate()
