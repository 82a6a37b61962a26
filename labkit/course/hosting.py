"""The server that is checked, wherever it runs: in this program, in a process, or at an address.

A handler of the notebook runs on a thread with an event loop of its own. There it can block that
loop, leave tasks behind and raise, and none of it holds up the check, which sees it all.
"""

import asyncio
import ctypes
import gc
import io
import logging
import re
import signal
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeAlias
from weakref import WeakSet

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.http11 import Request, Response

from labkit.errors import ServerError
from labkit.measure.server_process import RunningServer, script_server, start_server

Handler: TypeAlias = Callable[[ServerConnection], Awaitable[None]]
"""What serves one caller."""
Target: TypeAlias = "Handler | Callable[[], Handler] | str | Path | RunningServer | FileServer"
"""What can be checked: a handler, a function that makes one, a file, an address, a server."""

_STOP_S: Final = 5.0
_SETTLE_S: Final = 0.5
_PLACES: Final = 2
_LOST: Final = "websockets.exceptions.ConnectionClosed"
_HANDSHAKE_S: Final = 8.0
_DUMP_S: Final = 0.3
_FRAME: Final = re.compile(r'  File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<name>.+)')
_LABKIT: Final = str(Path(__file__).resolve().parents[1])
_LIBRARIES: Final = tuple(
    sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")
)


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line that the server wrote.

    Attributes:
        at_ns: When, by the monotonic clock; of a process, when it was seen.
        text: The line.
    """

    at_ns: int
    text: str


class Hosted:
    """A server while it is checked; of one at an address, nothing else is known.

    Attributes:
        url: Its address.
    """

    def __init__(self, url: str = "") -> None:
        self.url = url

    def log(self) -> list[LogLine]:
        """What it has written so far."""
        return []

    def ended(self) -> str:
        """How it ended by itself; empty while it lives, or where nobody can know."""
        return ""

    async def stuck_at(self) -> str:
        """The line of the learner's at which it is right now; empty where nobody can know."""
        return ""

    async def restart(self) -> None:
        """Kill it as a crash would, and start it again.

        Raises:
            ServerError: It is no file in a process of its own.
        """
        raise ServerError("a server that runs elsewhere cannot be killed; give its file")

    async def stop(self) -> None:
        """End it, where nobody else may use it."""

    def left(self) -> list[str]:
        """A sentence for whatever it has left behind, once it was stopped."""
        return []

    def raised(self) -> list[str]:
        """What its handler has raised, as far as anybody can know; that may harm nobody."""
        return []

    def let_out(self, since_ns: int) -> bool:
        """Whether a lost connection came out of its handler as an error, as far as is known."""
        told = [line for line in self.log() if line.at_ns >= since_ns]
        return any(line.text.startswith(_LOST) for line in told)


@asynccontextmanager
async def hosted(target: Target) -> AsyncIterator[Hosted]:
    """Run `target` for the length of the block; a file that runs already goes on behind it.

    Raises:
        ServerError: It is nothing that can be run, or did not start.
    """
    if isinstance(target, FileServer):
        if target.ended() or not await answers(target.url, _HANDSHAKE_S):
            await target.restart()
        yield target
        return
    server = await _start(target)
    try:
        yield server
    finally:
        await server.stop()


async def answers(url: str, within_s: float) -> bool:
    """Whether a server answers one more connection in time, be it with a refusal."""
    try:
        async with connect(url, open_timeout=within_s, close_timeout=1, proxy=None):
            pass
    except TimeoutError:
        return False
    except (OSError, WebSocketException):
        pass
    return True


async def _start(target: Target) -> Hosted:
    match target:
        case RunningServer():
            return _Process(target)
        case str() if target.startswith(("ws://", "wss://")):
            return Hosted(target)
        case str() | Path():
            return await FileServer.start(Path(target))
        case FileServer():
            return target
    if not callable(target):
        raise ServerError(
            f"a {type(target).__name__} is no server; give a handler, such as 'handle', the path "
            "of a file, or an address that begins with ws://"
        )
    return await _Thread.start(_handler(target))


def _beside(handler: Handler, name: str) -> Any:
    """What has this name beside the handler, in its file or notebook; None where nothing has.

    Such are `pages`, which answers plain HTTP, and `choose`, which chooses the subprotocol: its
    `main` gives both to `serve`.
    """
    return getattr(handler, "__globals__", {}).get(name)


def _handler(target: Callable[..., Any]) -> Handler:
    """`target` itself where it takes a connection; what it gives where it takes nothing."""
    import inspect

    try:
        inspect.signature(target).bind(None)
    except TypeError:
        made = target()
        if not callable(made):
            raise ServerError(
                f"{getattr(target, '__name__', 'the function')}() gave a {type(made).__name__}; "
                "it should give a handler, a function of one connection"
            ) from None
        return made  # type: ignore[no-any-return]
    return target


class _Process(Hosted):
    """A process that runs already, and goes on; what it has written before does not matter."""

    def __init__(self, server: RunningServer) -> None:
        super().__init__(server.url)
        self._server = server
        self._seen: list[LogLine] = []
        self._before = len(server.log().splitlines())

    def log(self) -> list[LogLine]:
        lines = self._server.log().splitlines()[self._before + len(self._seen) :]
        self._seen += [LogLine(time.perf_counter_ns(), text) for text in lines]
        return self._seen

    def ended(self) -> str:
        process = self._server.process
        if process is None or (code := process.poll()) is None:
            return ""
        how = f"with code {code}" if code >= 0 else f"by signal {-code}"
        return f"the process of your server ended {how}"

    async def stuck_at(self) -> str:
        process = self._server.process
        if process is None or not hasattr(signal, "SIGUSR1"):
            return ""
        before = len(self.log())
        process.send_signal(signal.SIGUSR1)  # labkit.measure.child writes where it is
        await asyncio.sleep(_DUMP_S)
        for line in self.log()[before:]:
            if (at := _FRAME.match(line.text)) and not is_library(at["file"]):
                return f"{Path(at['file']).name}, line {at['line']}, in {at['name']}"
        return ""


class FileServer(_Process):
    """A file in a process of its own.

    Attributes:
        file: The file.
    """

    def __init__(self, file: Path, server: RunningServer) -> None:
        super().__init__(server)
        self.file = file
        self._before = 0
        self._stopped = False

    @classmethod
    async def start(cls, file: Path) -> Self:
        """Start it, and wait until it takes callers."""
        return cls(file, await start_server(script_server(file)))

    def log(self) -> list[LogLine]:
        """What it has written so far, also when it was stopped."""
        return self._seen if self._stopped else super().log()

    async def restart(self) -> None:
        """Kill it as a crash would, and start it again; its address may be another one then."""
        if self._server.process is not None:
            self._server.process.kill()
            await self._server.stop_async()
        self._server, self._seen = await start_server(script_server(self.file)), []
        self.url = self._server.url

    async def stop(self) -> None:
        """End it, and keep what it wrote."""
        self.log()
        self._stopped = True  # what it wrote is gone with it, and stays in `_seen`
        await self._server.stop_async()


_collecting: ContextVar["_Lines | None"] = ContextVar("_collecting", default=None)
"""Whose lines this context writes; threads of `asyncio.to_thread` inherit it."""


class _Lines(logging.Handler):
    """Collects what a handler prints and logs."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[LogLine] = []

    def emit(self, record: logging.LogRecord) -> None:
        if not record.exc_info:  # what a handler raised is here already
            self.add(record.getMessage())

    def add(self, text: str) -> None:
        now_ns = time.perf_counter_ns()
        self.lines += [LogLine(now_ns, line) for line in text.splitlines() if line.strip()]


def is_library(filename: str) -> bool:
    """Whether a file of a traceback is Python's, a package's or labkit's own."""
    return filename.startswith(("<frozen", _LABKIT, *_LIBRARIES))


def _last_words(error: BaseException) -> list[str]:
    """What went wrong, and the last places where, a line each: the learner's, if there are any."""
    every = traceback.extract_tb(error.__traceback__)
    places = ([at for at in every if not is_library(at.filename)] or every)[-_PLACES:]
    return [
        *(f"{Path(at.filename).name}, line {at.lineno}: {at.line or at.name}" for at in places),
        f"{type(error).__name__}: {error}",
    ]


class _Split(io.TextIOBase):
    """Standard output that keeps apart what a checked handler prints."""

    def __init__(self, rest: Any) -> None:
        self._rest = rest

    def write(self, text: str) -> int:
        lines = _collecting.get()
        if lines is None:
            return int(self._rest.write(text) or 0)
        lines.add(text)
        return len(text)

    def flush(self) -> None:
        self._rest.flush()

    def remove(self) -> None:
        """Take it out from wherever it is: a server that hangs may outlast one that came later."""
        outer = sys.stdout
        if outer is self:
            sys.stdout = self._rest
        while isinstance(outer, _Split) and outer is not self:
            if outer._rest is self:
                outer._rest = self._rest
            outer = outer._rest


@contextmanager
def split_output() -> Iterator[None]:
    """Keep apart what a checked handler prints, for the length of the block."""
    split = _Split(sys.stdout)
    sys.stdout = split
    try:
        yield
    finally:
        split.remove()


class _Thread(Hosted):
    """A handler of this program, on a thread and an event loop of its own."""

    def __init__(self, handler: Handler) -> None:
        super().__init__()
        self._handler = handler
        self._lines = _Lines()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sockets: WeakSet[ServerConnection] = WeakSet()
        self._over = asyncio.Event()
        self._ready: Future[str] = Future()
        self._left: list[str] = []
        self._raised: list[str] = []
        self._let_out = False
        self._is_stuck = False
        self._thread = threading.Thread(target=self._run, name="checked server", daemon=True)

    @classmethod
    async def start(cls, handler: Handler) -> "_Thread":
        hosted = cls(handler)
        hosted._thread.start()
        hosted.url = await asyncio.wrap_future(hosted._ready)
        return hosted

    def log(self) -> list[LogLine]:
        return self._lines.lines

    def ended(self) -> str:
        return "" if self._thread.is_alive() else "the thread of your server ended"

    async def stuck_at(self) -> str:
        frame = sys._current_frames().get(self._thread.ident or 0)
        own = [at for at in traceback.extract_stack(frame) if not is_library(at.filename)]
        if frame is None or not own:
            return ""
        self._is_stuck = True
        return f"{Path(own[-1].filename).name}, line {own[-1].lineno}, in {own[-1].name}"

    def left(self) -> list[str]:
        return self._left

    def raised(self) -> list[str]:
        return self._raised

    def let_out(self, since_ns: int) -> bool:
        return self._let_out

    async def stop(self) -> None:
        if self._loop is None or not self._thread.is_alive():
            return
        with suppress(RuntimeError):  # its loop has ended, and its thread does in this instant
            self._loop.call_soon_threadsafe(self._over.set)
        if not await self._ends_within(_SETTLE_S if self._is_stuck else _STOP_S):
            self._left.append(
                "your server could not be stopped: its event loop is blocked, or a handler waits "
                "for what never comes"
            )
            await self._interrupt()

    async def _ends_within(self, seconds: float) -> bool:
        deadline_s = time.monotonic() + seconds
        while self._thread.is_alive() and time.monotonic() < deadline_s:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        return not self._thread.is_alive()

    async def _interrupt(self) -> None:
        """End what runs for ever in the learner's code: it would slow down all that follows."""
        if await self.stuck_at():
            ident, error = ctypes.c_ulong(self._thread.ident or 0), asyncio.CancelledError
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(error))
            await self._ends_within(_STOP_S)

    def _run(self) -> None:
        _collecting.set(self._lines)
        try:
            with split_output():
                asyncio.run(self._serve())
        except BaseException as error:  # such as the SystemExit of a handler; the check tells it
            self._lines.add("\n".join(_last_words(error)[-1:]))
            if not self._ready.done():
                self._ready.set_exception(ServerError(f"the server did not start: {error}"))

    async def _serve(self) -> None:
        loop = self._loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._unread)
        logger = logging.Logger("checked server", logging.INFO)
        logger.addFilter(lambda record: record.levelno >= logging.WARNING)
        logger.addHandler(self._lines)
        try:
            async with serve(
                self._attend,
                "127.0.0.1",
                0,
                process_request=self._page,
                compression=None,
                select_subprotocol=_beside(self._handler, "choose") or (lambda _, __: None),
                create_connection=self._connection,  # type: ignore[arg-type]  # it is only called
                logger=logger,
                close_timeout=_SETTLE_S,
            ) as server:
                own = asyncio.all_tasks()
                self._ready.set_result(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")
                await self._over.wait()
        finally:
            self._hang_up()
        await self._look_around(own)
        self._expire_what_waits()

    def _expire_what_waits(self) -> None:
        """Let sessions that wait for their client go: what would end them ends with this loop.

        They are in the notebook's own names, and would count in each check that follows.
        """
        lasting, expire = (_beside(self._handler, name) for name in ("lasting", "expire"))
        if isinstance(lasting, dict) and callable(expire):
            for session in list(lasting.values()):
                try:
                    expire(session)
                except Exception as error:
                    self._lines.add("\n".join(_last_words(error)[-1:]))

    def _connection(self, *arguments: Any, **options: Any) -> ServerConnection:
        """Make one, and remember it: websockets forgets one whose handler has exited."""
        connection = ServerConnection(*arguments, **options)
        self._sockets.add(connection)
        return connection

    def _hang_up(self) -> None:
        """End what is open still, as of a handler that has exited: nothing can after this loop."""
        for socket in self._sockets:
            if transport := getattr(socket, "transport", None):  # none before its loop turns
                transport.abort()

    async def _attend(self, socket: ServerConnection) -> None:
        """Serve one caller, and note what the handler raises before the connection is closed."""
        try:
            await self._handler(socket)
        except ConnectionClosed:
            self._let_out = True  # it was writing while its caller left, which harms nobody
            raise
        except Exception as error:
            words = _last_words(error)
            self._raised.append(words[-1])
            self._lines.add("\n".join(words))
            raise

    def _page(self, connection: ServerConnection, request: Request) -> Response | None:
        """What the handler's file answers over plain HTTP; note what that raises."""
        pages = _beside(self._handler, "pages")
        try:
            return None if pages is None else pages(connection, request)
        except Exception as error:
            self._lines.add("\n".join(_last_words(error)))
            raise

    async def _look_around(self, own: set[asyncio.Task[Any]]) -> None:
        """Note the tasks that are left once every caller is gone, after a moment to end."""
        deadline_s = time.monotonic() + _SETTLE_S
        while (left := asyncio.all_tasks() - own) and time.monotonic() < deadline_s:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        works: list[Any] = [task.get_coro() for task in left]
        # One of labkit's is left where the learner's code has left what it belongs to.
        own_works = [one for one in works if not one.cr_code.co_filename.startswith(_LABKIT)]
        names = sorted({one.__qualname__ for one in own_works})
        self._left += [f"your server left a task behind: {name}" for name in names]
        gc.collect()  # an exception that nobody read is told when its task is collected

    def _unread(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        what = f"{type(error).__name__}: {error}" if error else context["message"]
        self._left.append(f"nobody read this exception of your server: {what}")
