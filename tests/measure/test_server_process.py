"""A server in a process of its own, and that it never outlives whoever started it."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from labkit.client.plain import VoiceClient
from labkit.errors import ClientError, ServerError
from labkit.measure.server_process import (
    RunningServer,
    labkit_server,
    running_server,
    start_server,
)

ECHO = labkit_server("--pipeline", "echo")
PATIENCE_S = 30.0

READY = "import sys, time; print('ready at ws://127.0.0.1:1', flush=True); "


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Makes a module of a line of Python; gives the command that runs it."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))

    def make(line: str) -> list[str]:
        (tmp_path / "made_server.py").write_text(line)
        return ["made_server"]

    return make


def gone(pid: int) -> bool:
    """Whether a process ends within a while."""
    deadline_s = time.monotonic() + PATIENCE_S
    while psutil.pid_exists(pid) and time.monotonic() < deadline_s:
        if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return not psutil.pid_exists(pid)


async def test_the_echo_server_starts_answers_and_ends() -> None:
    async with running_server(ECHO) as server, VoiceClient.connect(server.url) as client:
        assert await client.ping() > 0
        assert server.pid is not None
        os.kill(server.pid, 0)
        usage = server.usage()
        assert usage is not None
        assert usage.rss_bytes > 10_000_000
        assert usage.cpu_s > 0
    assert server.usage() is None
    assert not psutil.pid_exists(server.pid)


async def test_a_server_is_started_in_one_place_and_stopped_in_another() -> None:
    server = await start_server(ECHO)
    assert server.url.startswith("ws://")
    assert "ready at" in server.log()
    server.stop()
    server.stop()
    assert server.pid is not None
    assert not psutil.pid_exists(server.pid)


async def test_a_server_that_dies_is_quoted(module: Callable[[str], list[str]]) -> None:
    command = module("import sys; sys.exit('the models are missing')")
    with pytest.raises(ServerError, match=r"ended with code 1(.|\n)*the models are missing"):
        async with running_server(command):
            pass


def test_what_a_server_wrote_meanwhile_explains_why_it_left_its_client() -> None:
    with tempfile.TemporaryFile() as output:
        server = RunningServer("ws://127.0.0.1:1", output=output)
        os.write(output.fileno(), "größer\n".encode())  # longer in bytes than in characters
        with pytest.raises(ClientError) as raised, server.speaking_for_itself():
            raise ClientError("it left")
        assert str(raised.value) == "it left"
        with pytest.raises(ClientError) as raised, server.speaking_for_itself():
            os.write(output.fileno(), b"ValueError: no memory\n")
            raise ClientError("it left")
    assert str(raised.value) == "it left. It said:\nValueError: no memory"


async def test_a_server_that_says_nothing_is_given_up(module: Callable[[str], list[str]]) -> None:
    command = module("import signal; signal.pause()")
    with pytest.raises(ServerError, match=r"not ready within 0.2 s\. It said nothing"):
        async with running_server(command, start_s=0.2):
            pass


async def test_a_token_in_the_environment_does_not_shut_out_the_callers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LABKIT_TOKEN", "a-token-of-the-environment")
    async with running_server(ECHO) as server, VoiceClient.connect(server.url) as client:
        assert await client.ping() > 0


async def test_what_a_server_started_ends_with_it(module: Callable[[str], list[str]]) -> None:
    child = "import subprocess; child = subprocess.Popen(['sleep', '1000'])"
    server = await start_server(module(f"{child}\n{READY}time.sleep(1000)"))
    assert server.pid is not None
    (helper,) = psutil.Process(server.pid).children()
    server.stop()
    assert gone(helper.pid)


PARENT = """
import asyncio, sys
from labkit.measure.server_process import start_server
print(asyncio.run(start_server(sys.argv[1:])).pid, flush=True)
input()
"""


@pytest.mark.parametrize("fate", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_server_ends_with_a_parent_that_was_terminated_or_killed(fate: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, *ECHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert psutil.pid_exists(pid)
        parent.send_signal(fate)
        parent.wait()
        assert gone(pid)


async def test_a_server_that_does_not_hear_the_end_is_cut_off(
    module: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    server = await start_server(module(f"{deaf}{READY}time.sleep(1000)"))
    monkeypatch.setattr("labkit.measure.server_process._STOP_S", 0.1)
    server.stop()
    assert server.process is not None
    assert server.process.returncode == -signal.SIGKILL


def test_nothing_is_known_of_a_process_elsewhere() -> None:
    elsewhere = RunningServer("ws://example.org")
    assert (elsewhere.pid, elsewhere.usage(), elsewhere.log()) == (None, None, "")
    elsewhere.stop()


def test_cpu_time_is_counted_finer_than_in_ticks() -> None:
    process: Any = SimpleNamespace(pid=os.getpid())
    this = RunningServer("", process)
    first = this.usage()
    sum(range(200_000))
    second = this.usage()
    assert first is not None
    assert second is not None
    assert second.cpu_s > first.cpu_s
