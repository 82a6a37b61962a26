"""Nothing phones home, and nothing is left in the home folder."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from labkit import telemetry

_CONNECT: Final = re.compile(r"connect\(\d+, \{sa_family=AF_INET6?, .*")
_LOOPBACK: Final = re.compile(r'inet_addr\("127\.|"::1"|"::ffff:127\.')
_NAME_SERVER: Final = "htons(53)"


def traced(trace: Path, command: Sequence[str]) -> list[str]:
    """`command`, with the connections of all its processes written to `trace`."""
    return ["strace", "-f", "-qq", "-e", "trace=connect", "-o", str(trace), *command]


def beyond_this_machine(trace: Path) -> list[str]:
    """Connections to somewhere else, and to name servers, which would be asked where that is."""
    found = _CONNECT.findall(trace.read_text(errors="replace"))
    return [line for line in found if not _LOOPBACK.search(line) or _NAME_SERVER in line]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home folder in which nothing may be left; the test needs strace."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: what a process connects to cannot be seen")
    if subprocess.run(traced(tmp_path / "try", ["true"]), check=False).returncode:
        pytest.skip("this system lets strace trace nothing")
    folder = tmp_path / "home"
    folder.mkdir()
    yield folder
    assert not [path for path in folder.rglob("*") if path.is_file()]


def environment(home: Path) -> dict[str, str]:
    """The environment of a user who never heard of telemetry."""
    ours = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name}
    return {name: ours[name] for name in ours if not name.startswith("XDG_")} | {"HOME": str(home)}


def test_importing_labkit_first_keeps_onnxruntime_quiet(tmp_path: Path, home: Path) -> None:
    trace = tmp_path / "trace"
    command = [sys.executable, "-c", "import labkit, onnxruntime"]
    subprocess.run(traced(trace, command), env=environment(home), check=True)
    assert beyond_this_machine(trace) == []


@pytest.mark.engines
@pytest.mark.slow
def test_a_server_with_all_engines_connects_to_nobody(tmp_path: Path, home: Path) -> None:
    trace = tmp_path / "trace"
    command = [sys.executable, "-m", "labkit", "serve", "--port", "0"]
    with subprocess.Popen(
        traced(trace, command),
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as server:
        try:
            assert server.stdout is not None
            assert "ready at" in server.stdout.readline()
            os.killpg(server.pid, signal.SIGINT)
            server.wait(60)
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGKILL)
    assert beyond_this_machine(trace) == []


def test_it_is_off_in_this_process_and_its_children() -> None:
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


class _Loaded:
    """Stands in for onnxruntime, imported before labkit was."""

    quiet = False

    def disable_telemetry_events(self) -> None:
        self.quiet = True


def test_an_onnxruntime_that_is_there_already_sends_nothing_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded = _Loaded()
    monkeypatch.setitem(sys.modules, "onnxruntime", loaded)
    telemetry.switch_off()
    assert loaded.quiet
