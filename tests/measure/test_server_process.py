"""A server in a process of its own, that it outlives nobody who started it, and what it tells.

That is told by labkit's server, a learner's, one that has no page, one that is gone.
"""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from websockets.asyncio.server import ServerConnection, serve

from labkit.client.plain import VoiceClient
from labkit.errors import ClientError, ServerError
from labkit.measure.recordings import recording
from labkit.measure.server_process import (
    RunningServer,
    ServerStatus,
    fetch_status,
    labkit_server,
    read_status,
    running_server,
    start_server,
)
from labkit.notebook.turn import say
from labkit.server.http import Metrics
from labkit.trace import Mark, Stage, Trace
from tests.callers import calling, serving

ECHO = labkit_server("--pipeline", "echo")
PATIENCE_S = 30.0
URL = "ws://localhost:1"

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


@pytest.mark.parametrize(
    ("end", "how"),
    [
        ("os._exit(7)", "ended with code 7"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was ended by SIGKILL"),
    ],
)
async def test_how_a_server_ended_is_told_with_its_last_words(
    module: Callable[[str], list[str]], end: str, how: str
) -> None:
    dies = f"""
        import os, signal, socket
        listening = socket.create_server(("127.0.0.1", 0))
        print(f"it is ready at ws://127.0.0.1:{{listening.getsockname()[1]}}", flush=True)
        listening.accept()
        print("no memory", flush=True)
        {end}
    """
    async with running_server(module(textwrap.dedent(dies))) as server:
        assert server.ending == server.why_gone() == ""
        with pytest.raises(ClientError) as raised, server.speaking_for_itself():
            async with VoiceClient.connect(server.url):
                pass
        assert server.process is not None
        server.process.wait()
        assert server.why_gone() == f"its process {how}, and wrote last: no memory"
        with pytest.raises(ClientError) as raised, server.speaking_for_itself():
            raise ClientError("nobody answers")
        assert str(raised.value) == f"nobody answers. Its process {how}."


async def test_a_server_that_says_nothing_is_given_up(
    module: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labkit.measure.server_process._START_S", 0.2)
    command = module("import signal; signal.pause()")
    with pytest.raises(ServerError, match=r"not ready within 0.2 s\. It said nothing"):
        async with running_server(command):
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


def test_what_a_server_started_ends_with_a_parent_that_was_killed(
    module: Callable[[str], list[str]],
) -> None:
    helper = "import subprocess; helper = subprocess.Popen(['sleep', '1000'])"
    command = module(f"{helper}\n{READY}time.sleep(1000)")
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        (started,) = psutil.Process(int(parent.stdout.readline())).children()
        parent.kill()
        parent.wait()
        assert gone(started.pid)


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


async def test_labkits_server_tells_sessions_queues_and_stage_times() -> None:
    async with serving() as server:
        async with calling(server):
            told = await asyncio.to_thread(fetch_status, server.url)
        assert told.session_count == 0  # it counts from `session.start` on
        assert set(told.waiting) == set(server._pipeline.queued())
        assert (told.trouble, told.running, told.stages) == ("", True, {})
        turn = await say(recording("ked-01"), server.url)
        assert turn.heard
        told = await asyncio.to_thread(fetch_status, server.url)
    assert told.stages
    for turns, mean_ms in told.stages.values():
        assert turns == 1
        assert mean_ms >= 0


def test_the_page_of_labkits_server_becomes_numbers() -> None:
    metrics = Metrics()
    metrics.sessions.labels(state="attached").set(2)
    metrics.sessions.labels(state="detached").set(1)
    metrics.sessions.labels(state="expired").set(0)
    metrics.queued.labels(engine="asr").set(4)
    metrics.held_bytes.set(12_000)
    metrics.worked_ahead(used=True)
    metrics.underrun()
    for ms in (100, 300):
        marks = {Mark.END_STREAM_RECEIVED: 0, Mark.ASR_DONE: ms * 1_000_000}
        metrics.turn_answered(Trace(marks, tokens=21))
    told = read_status(URL, metrics.page().decode())
    assert told == ServerStatus(
        URL,
        sessions={"attached": 2, "detached": 1, "expired": 0},
        ahead={"used": 1},
        underruns=1,
        tokens=42,
        waiting={"asr": 4},
        stages={Stage.ASR: (2, pytest.approx(200.0))},
        held_bytes=12_000,
    )
    assert repr(told).splitlines() == [
        f"running at {URL}",
        "  sessions            3 (2 attached, 1 detached)",
        "  calls that wait     4 for asr",
        "  bytes held          12,000",
        "  ASR                 200 ms, mean of 2 turns",
    ]
    table = ElementTree.fromstring(told.table())
    shown = ["".join(cell.itertext()) for cell in table.iter() if cell.tag in ("th", "td")]
    assert shown == [word for row in told.rows() for word in row]
    assert "running at ws://localhost:1" in told._repr_html_()


def test_the_page_of_a_learners_server_has_two_numbers() -> None:
    told = read_status(URL, "sessions 3\nheld_bytes 12000\n")
    assert (told.session_count, told.held_bytes, told.trouble) == (3, 12_000, "")
    assert told.rows() == [("sessions", "3"), ("bytes held", "12,000")]


@pytest.mark.parametrize(
    ("page", "trouble"),
    [
        ("held_bytes 3\n", "no line `sessions`"),
        ("", "no line `sessions`"),
        ("sessions three\n", "not in Prometheus' format: could not convert string"),
        ("<html>\n", "not in Prometheus' format: invalid metric name"),
    ],
)
def test_a_page_that_says_something_else_is_named(page: str, trouble: str) -> None:
    told = read_status(URL, page)
    assert trouble in told.trouble
    assert told.running
    with pytest.raises(ServerError, match="page /metrics"):
        _ = told.session_count


async def test_a_server_without_such_a_page_is_not_one_that_is_gone() -> None:
    async def handle(_: ServerConnection) -> None: ...

    async with serve(handle, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        told = await asyncio.to_thread(fetch_status, url)
    assert told.running
    assert told.trouble == "it has no page /metrics that can be read (HTTP 426)"
    gone = await asyncio.to_thread(fetch_status, url)
    assert not gone.running
    assert "nobody answers there" in gone.trouble
    assert repr(gone).startswith("not running (ws://")


async def test_a_server_of_ones_own_tells_until_it_is_stopped() -> None:
    async with running_server(labkit_server("--pipeline", "echo")) as server:
        told = server.status()
        assert (told.url, told.running, told.session_count) == (server.url, True, 0)
    assert server.status() == ServerStatus(server.url, "its process has ended", running=False)


def test_a_server_of_somebody_else_is_asked_at_its_address() -> None:
    assert not RunningServer("ws://localhost:1").status().running
