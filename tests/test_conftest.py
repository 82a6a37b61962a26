"""The guards of the suite catch what they are there for."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFTEST = Path(__file__).with_name("conftest.py").read_text(encoding="utf-8")

SETTINGS = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
markers = slow
"""

LEAVES_A_TASK = """
import asyncio

kept = set()


async def test_it():
    kept.add(asyncio.create_task(asyncio.sleep(60)))
"""

NOBODY_READS = """
import asyncio


async def test_it():
    async def fail():
        raise ValueError("unheard")

    task = asyncio.create_task(fail())
    await asyncio.wait([task])
    del task
"""

LEAVES_A_THREAD = """
import threading

done = threading.Event()


def test_it():
    threading.Thread(target=done.wait, name="left-behind").start()


def test_end():
    done.set()
"""

IS_TIDY = """
import asyncio
import threading


async def test_it():
    await asyncio.create_task(asyncio.sleep(0))
    await asyncio.to_thread(lambda: None)


def test_thread():
    threading.Thread(target=lambda: None).start()
"""


IS_LONG = """
import pytest


@pytest.mark.slow
def test_last():
    pass
"""


@pytest.fixture
def guarded(pytester: pytest.Pytester) -> pytest.Pytester:
    """A suite of its own, under this suite's guards, that does not wait for a thread."""
    impatient = CONFTEST.replace("LAST_WORDS_S = 5.0", "LAST_WORDS_S = 0.01")
    assert impatient != CONFTEST
    pytester.makeconftest(impatient)
    pytester.makeini(SETTINGS)
    return pytester


@pytest.mark.parametrize(
    ("suite", "message"),
    [
        (LEAVES_A_TASK, "*tasks that outlived the test: *sleep*"),
        (NOBODY_READS, "*exceptions that nobody read: *unheard*"),
        (LEAVES_A_THREAD, "*threads that outlived the test: *left-behind*"),
    ],
)
def test_what_outlives_a_test_fails_it(guarded: pytest.Pytester, suite: str, message: str) -> None:
    guarded.makepyfile(suite)
    result = guarded.runpytest_inprocess("-p", "no:cacheprovider")
    assert result.parseoutcomes().get("errors") == 1
    result.stdout.fnmatch_lines([message])


def test_a_tidy_test_passes(guarded: pytest.Pytester) -> None:
    guarded.makepyfile(IS_TIDY)
    assert guarded.runpytest_inprocess("-p", "no:cacheprovider").parseoutcomes() == {"passed": 2}


def test_workers_begin_with_what_is_long(
    guarded: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    guarded.makepyfile(test_a=IS_TIDY, test_b=IS_LONG)
    result = guarded.runpytest_inprocess("-v", "-p", "no:cacheprovider")
    assert result.parseoutcomes() == {"passed": 3}
    result.stdout.fnmatch_lines(["test_b.py::test_last PASSED*", "test_a.py::test_it PASSED*"])
