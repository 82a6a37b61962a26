"""Driving a coroutine from synchronous code."""

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar

import pytest

from labkit.notebook.loop import run

WORD = ContextVar("WORD", default="none")


class ForeignLoop(asyncio.AbstractEventLoop):
    """Like uvloop's: not one of asyncio's own, so it cannot be patched."""


@pytest.fixture
def in_foreign_loop() -> Iterator[None]:
    """The test runs as if within such a loop."""
    asyncio._set_running_loop(ForeignLoop())
    yield
    asyncio._set_running_loop(None)


async def answer() -> int:
    await asyncio.sleep(0)
    return 42


async def fail() -> None:
    raise ValueError("as planned")


def test_without_a_loop() -> None:
    assert run(answer()) == 42


def test_inside_a_running_loop() -> None:
    """In a process of its own, since the patch stays for the life of the process."""
    program = (
        "import asyncio\n"
        "from labkit import run\n"
        "async def answer():\n"
        "    await asyncio.sleep(0)\n"
        "    return 42\n"
        "async def cell():\n"
        "    return run(answer())\n"
        "raise SystemExit(asyncio.run(cell()))\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 42


@pytest.mark.usefixtures("in_foreign_loop")
def test_inside_a_loop_that_cannot_be_patched() -> None:
    assert run(answer()) == 42
    assert not hasattr(asyncio, "_nest_patched")


@pytest.mark.usefixtures("in_foreign_loop")
def test_a_failure_on_the_thread_is_the_caller_s() -> None:
    with pytest.raises(ValueError, match="as planned"):
        run(fail())


@pytest.mark.usefixtures("in_foreign_loop")
def test_context_variables_go_along() -> None:
    async def look() -> str:
        return WORD.get()

    token = WORD.set("word")
    assert run(look()) == "word"
    WORD.reset(token)


@pytest.mark.usefixtures("in_foreign_loop")
def test_an_interrupt_cancels_what_runs_on_the_thread() -> None:
    cancelled = []

    async def work() -> None:
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.append(True)

    with pytest.raises(KeyboardInterrupt):
        run(work())
    assert cancelled
