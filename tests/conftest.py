"""Rules that hold for every test: nothing outlives it, and properties are tried the same way."""

import asyncio
import gc
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import settings

from labkit.errors import ModelError
from labkit.voice.models import resolve

# The same examples at every run, however slow the machine. To look for new ones:
# HYPOTHESIS_PROFILE=explore make test
settings.register_profile("steady", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("explore", max_examples=1000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))

# Whoever is started in the background ignores Ctrl-C, and so do its children. Tests of what signals
# do want them as in a terminal.
for _number, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

IN_REAL_TIME = ("notebook", "browser", "real_time")
"""Marks of tests in which kernels, browsers and servers run beside each other in real time. A
machine that does something else at the wrong moment may fail one, so it gets a second try, which
pytest tells of (R). A fault of ours fails both."""

LAST_WORDS_S = 5.0
"""How long a thread that was told to stop may take to be gone."""


@pytest.fixture(autouse=True)
def no_thread_outlives() -> Iterator[None]:
    """Fail a test that leaves a thread behind, unless the thread is a daemon."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        if not thread.daemon:
            thread.join(LAST_WORDS_S)
    left = [t.name for t in set(threading.enumerate()) - before if not t.daemon]
    assert not left, f"threads that outlived the test: {left}"


@pytest.fixture(autouse=True)
def no_task_outlives(request: pytest.FixtureRequest, no_thread_outlives: None) -> None:
    """Fail an asynchronous test that leaves a task behind, or an exception that nobody read."""
    if request.node.get_closest_marker("asyncio"):
        request.getfixturevalue("watched_loop")


@pytest.fixture
async def watched_loop() -> AsyncIterator[None]:
    """The test's event loop, compared before and after."""
    loop = asyncio.get_running_loop()
    unread: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: unread.append(context))
    before = asyncio.all_tasks()
    yield
    await asyncio.sleep(0)  # lets callbacks of what has just ended run
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, f"tasks that outlived the test: {left}"
    gc.collect()  # an exception that nobody read is reported when its task is collected
    loop.set_exception_handler(None)
    assert not unread, f"exceptions that nobody read: {unread}"


def marked(item: pytest.Item, *marks: str) -> bool:
    """Whether a test has one of these marks."""
    return any(item.get_closest_marker(mark) for mark in marks)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Try twice what runs in real time, and skip what needs public models that are not here."""
    if "PYTEST_XDIST_WORKER" in os.environ:  # long ones first: nobody waits for one at the end
        items.sort(key=lambda item: not marked(item, *IN_REAL_TIME, "slow"))
    for item in items:
        if marked(item, *IN_REAL_TIME):
            item.add_marker(pytest.mark.flaky(reruns=1))
    public = [item for item in items if item.get_closest_marker("public")]
    if not public:
        return
    try:
        resolve("tiny")
    except ModelError as error:
        for item in public:
            item.add_marker(pytest.mark.skip(reason=str(error)))


def pytest_collection_finish() -> None:
    """Leave what was imported out of the collections that follow: each looked through it all."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell why a test was tried again: what passes the second time is worth a look, too."""
    for report in terminalreporter.getreports("rerun"):
        crash = getattr(report.longrepr, "reprcrash", None)
        why = crash.message if crash else str(report.longrepr)
        terminalreporter.write_line(f"tried again: {report.nodeid}: {why}")
