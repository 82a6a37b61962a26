"""A server in a process of its own: started, watched, asked, ended with whoever started it.

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

What a server tells of itself is its page `/metrics`. Labkit's tells all of it. The one that a
learner builds in chapter 2 has two numbers there, sessions and bytes that are held, and a server
that has no such page is told apart from one that is gone.
"""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from html import escape
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import IO, Final
from urllib.error import HTTPError
from urllib.parse import urljoin

import psutil

from labkit.errors import ClientError, ServerError
from labkit.net import TOKEN_VARIABLE
from labkit.trace import Stage

_READY: Final = re.compile(r"ready at (wss?://\S+)\n")
_START_S: Final = 120.0
"""Longest that a server may take to get ready, model loading included."""
_STOP_S: Final = 10.0
_LOOK_S: Final = 0.02
_PATIENCE_S: Final = 2.0
_TAIL: Final = 2000
_CPU_OF_ALL_THREADS: Final = 2
_PORT: Final = "PORT"
"""Environment variable that tells a file of Python where to listen."""

# Not by way of a proxy that the environment names: the server is on this machine.
_OPENER: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


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


@dataclass(frozen=True, slots=True, repr=False)
class ServerStatus:
    """What a server told of itself at one moment.

    Attributes:
        trouble: Why the rest is not known, in a sentence; empty where it is.
        running: Whether it is there.
        sessions: How many sessions it has, by state; under "" where it tells only how many.
        waiting: Calls that wait for an engine, by engine.
        stages: For each stage of a turn, turns so far and what they took on average, in
            milliseconds.
        held_bytes: Audio and messages that it keeps for its sessions; None where it does not tell.
        ahead: Answers begun in a pause, by what became of them.
        underruns: Times that reply audio came too late; None where it does not tell.
        tokens: Tokens of the replies so far; None where it does not tell.
    """

    url: str
    trouble: str = ""
    running: bool = True
    sessions: Mapping[str, int] = field(default_factory=dict)
    waiting: Mapping[str, int] = field(default_factory=dict)
    stages: Mapping[Stage, tuple[int, float]] = field(default_factory=dict)
    held_bytes: int | None = None
    ahead: Mapping[str, int] = field(default_factory=dict)
    underruns: int | None = None
    tokens: int | None = None

    @property
    def session_count(self) -> int:
        """How many sessions it has.

        Raises:
            ServerError: It does not tell.
        """
        if self.trouble:
            raise ServerError(f"{self.url}: {self.trouble}")
        return sum(self.sessions.values())

    @property
    def headline(self) -> str:
        """Whether it runs, and where."""
        return f"running at {self.url}" if self.running else f"not running ({self.url})"

    def rows(self) -> list[tuple[str, str]]:
        """What is known, each with its name."""
        rows = [("note", self.trouble)] if self.trouble else []
        if self.sessions:
            states = ", ".join(f"{n} {state}" for state, n in self.sessions.items() if state and n)
            number = self.session_count
            rows.append(("sessions", f"{number} ({states})" if states else f"{number}"))
        if self.waiting:
            calls = ", ".join(f"{n} for {engine}" for engine, n in self.waiting.items())
            rows.append(("calls that wait", calls))
        if self.held_bytes is not None:
            rows.append(("bytes held", f"{self.held_bytes:,}"))
        for stage, (turns, mean_ms) in self.stages.items():
            of = "1 turn" if turns == 1 else f"{turns} turns"
            rows.append((stage.label, f"{mean_ms:.0f} ms, mean of {of}"))
        return rows

    def __repr__(self) -> str:
        return "\n".join([self.headline, *(f"  {name:19} {what}" for name, what in self.rows())])

    def _repr_html_(self) -> str:
        return f"<div>{escape(self.headline)}</div>{self.table()}"

    def table(self) -> str:
        """What is known as HTML, without the headline."""
        rows = (
            f'<tr><th scope="row" style="text-align:left">{escape(name)}</th>'
            f'<td style="text-align:left">{escape(what)}</td></tr>'
            for name, what in self.rows()
        )
        return f'<table aria-label="What the server tells of itself">{"".join(rows)}</table>'


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

    def log(self) -> str:
        """What it has written so far; empty where that is not known."""
        if self.output is None or self.output.closed:  # `stop` lets go of it
            return ""
        # Read at a place of our own: the server writes at the file's position.
        number = self.output.fileno()
        return os.pread(number, os.fstat(number).st_size, 0).decode(errors="replace")

    @property
    def ending(self) -> str:
        """How its process ended; empty where it runs, and where that is not known."""
        code = None if self.process is None else self.process.poll()
        if code is None:
            return ""
        if code >= 0:
            return f"ended with code {code}"
        names = {one.value: one.name for one in signal.Signals}
        return f"was ended by {names.get(-code, f'signal {-code}')}"

    def last_words(self, start: int = 0) -> str:
        """How it ended, and what it wrote last, behind `start` characters; as part of an error."""
        ended, words = self.ending, self._last_written(start)
        told = (f"Its process {ended}." if ended else "", f"It said:\n{words}" if words else "")
        return " ".join(filter(None, told))

    def why_gone(self) -> str:
        """The same in one line, of a server that has ended; empty where it runs."""
        ended, words = self.ending, self._last_written()
        if not ended:
            return ""
        said = f"wrote last: {words.splitlines()[-1].strip()}" if words else "wrote nothing"
        return f"its process {ended}, and {said}"

    def _last_written(self, start: int = 0) -> str:
        return self.log()[start:][-_TAIL:].strip()

    @contextmanager
    def speaking_for_itself(self) -> Iterator[None]:
        """Let a `ClientError` that ends the block also say what the server has written meanwhile.

        A server that fails closes the connection, which tells its client little; its log has the
        traceback.
        """
        before = len(self.log())
        try:
            yield
        except ClientError as error:
            if words := self.last_words(before):
                raise ClientError(f"{error}. {words}") from error
            raise

    def status(self) -> ServerStatus:
        """What it tells of itself; as the last line of a cell, that shows itself."""
        if self.ending:
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
        """Stop it, and leave the event loop to others meanwhile."""
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


async def start_server(command: Sequence[str]) -> RunningServer:
    """Start a server in a process of its own, and wait until it accepts callers.

    The `command` is a module that Python can run, or a file of Python (its name ends in `.py`), and
    arguments. The server does not get the token of this process's environment, since callers that
    measure show none.

    Raises:
        ServerError: It ended or got stuck before it was ready; the error has its last words.
    """
    port = _free_port() if command[0].endswith(".py") else None
    server = _spawn(command, port)
    try:
        return replace(server, url=await _ready(server, port))
    except BaseException:
        await server.stop_async()
        raise


@asynccontextmanager
async def running_server(command: Sequence[str]) -> AsyncIterator[RunningServer]:
    """Run a server for the length of the block, as `start_server` starts it."""
    server = await start_server(command)
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
        stdin=subprocess.PIPE,  # held open, never written to: its end ends the child
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
        # Ctrl-C, and the interrupt of a notebook's kernel, go to a whole group of processes.
        # They mean the program that started the server, which then ends it in order.
        start_new_session=True,
    )
    return RunningServer("", process, output)


async def _ready(server: RunningServer, port: int | None) -> str:
    """Wait until the server says where it answers, or answers where it was told to."""
    deadline_s = time.monotonic() + _START_S
    while (found := _READY.search(server.log())) is None:
        if ended := server.ending:
            raise _failed(server, f"{ended} before it was ready")
        if port is not None and await _accepts(port):
            return f"ws://localhost:{port}"
        if time.monotonic() > deadline_s:
            told = "" if port is None else f"; {_PORT} told it to listen on port {port}"
            raise _failed(server, f"was not ready within {_START_S:g} s{told}")
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
    words = server._last_written()
    said = f"It said:\n{words}" if words else "It said nothing."
    return ServerError(f"the server {what}. {said}")


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


# -- what it tells of itself -------------------------------------------------------------------


def get_page(url: str, path: str, patience_s: float = _PATIENCE_S) -> tuple[int, str]:
    """A page of the server that takes callers at `url`: the HTTP status, and the text.

    Only for servers of other processes: one on the event loop of this thread could not answer.

    Raises:
        OSError: Nobody answers there within `patience_s` seconds.
        HTTPException: Somebody does, and not with HTTP.
    """
    try:
        page = urljoin(url.replace("ws", "http", 1), path)
        with _OPENER.open(page, timeout=patience_s) as answer:
            return int(answer.status), str(answer.read().decode(errors="replace"))
    except HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode(errors="replace")


def figures_on(page: str) -> dict[str, dict[str, float]]:
    """The figures of a page in Prometheus' format, by their names and then their first label.

    Raises:
        ValueError: It is another format.
    """
    from prometheus_client.parser import text_string_to_metric_families

    figures: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(page):
        for name, labels, value, *_ in family.samples:
            label = next(iter(labels.values()), "")
            by_label = figures.setdefault(name, {})
            by_label[label] = by_label.get(label, 0) + value
    return figures


def fetch_status(url: str) -> ServerStatus:
    """Ask the server that takes callers at `url`, and wait up to two seconds for its answer."""
    try:
        status, page = get_page(url, "/metrics")
    except TimeoutError:
        return ServerStatus(url, f"its page /metrics did not come within {_PATIENCE_S:g} s")
    except (OSError, HTTPException) as error:
        return ServerStatus(url, f"nobody answers there ({error})", running=False)
    if status != HTTPStatus.OK:
        return ServerStatus(url, f"it has no page /metrics that can be read (HTTP {status})")
    return read_status(url, page)


def read_status(url: str, page: str) -> ServerStatus:
    """Take the numbers from a page in Prometheus' format; names that are not known are no harm."""
    try:
        numbers = {name.removeprefix("labkit_"): by for name, by in figures_on(page).items()}
    except ValueError as error:
        return ServerStatus(url, f"its page /metrics is not in Prometheus' format: {error}")
    sums, counts = numbers.get("stage_seconds_sum", {}), numbers.get("stage_seconds_count", {})
    return ServerStatus(
        url,
        "" if "sessions" in numbers else "its page /metrics has no line `sessions`",
        sessions=_whole(numbers.get("sessions", {})),
        waiting=_whole(numbers.get("queued_calls", {})),
        stages={
            stage: (int(turns), 1000 * sums[stage] / turns)
            for stage in Stage
            if (turns := counts.get(stage, 0.0)) and stage in sums
        },
        held_bytes=_whole(numbers.get("held_bytes", {})).get(""),
        ahead=_whole(numbers.get("work_ahead_total", {})),
        underruns=_whole(numbers.get("underruns_total", {})).get(""),
        tokens=_whole(numbers.get("tokens_total", {})).get(""),
    )


def _whole(numbers: Mapping[str, float]) -> dict[str, int]:
    return {name: int(number) for name, number in numbers.items()}
