"""Nothing phones home, and nothing is left in the home folder."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest

from labkit import telemetry
from labkit.notebook.copies import jupyter_command
from tests.paths import ROOT

_CONNECT: Final = re.compile(r"connect\(\d+, \{sa_family=AF_INET6?, .*")
_LOOPBACK: Final = re.compile(r'inet_addr\("127\.|"::1"|"::ffff:127\.')
_NAME_SERVER: Final = "htons(53)"


def traced(trace: Path, command: Sequence[str]) -> list[str]:
    """`command`, with the connections of all its processes written to `trace`."""
    return [
        "strace",
        "-f",
        "--seccomp-bpf",
        "-qq",
        "-e",
        "trace=connect",
        "-o",
        str(trace),
        *command,
    ]


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


EXERCISE: Final = """
import asyncio, sys
from pathlib import Path
from labkit.measure.exercise import Exercise
from labkit.measure.results import Results, conduct
from labkit.voice.models import data_folder

speech = data_folder() / "speech"
exercise = Exercise(recordings=speech, blocks=1, chunk_sizes_ms=(40,))
asyncio.run(conduct(exercise, Results(Path(sys.argv[1]))))
"""

NOTEBOOK: Final = """
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

cell = '''
from labkit import recording, say, start_labkit
server = await start_labkit()
turn = await say(recording("ked-01"), server)
turn.plot_waterfall()
server.stop()
'''
NotebookClient(new_notebook(cells=[new_code_cell(cell)]), timeout=200).execute()
"""


@pytest.mark.engines
@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "arguments",
    [["-m", "labkit", "doctor"], ["-c", EXERCISE, "results"], ["-c", NOTEBOOK]],
    ids=["doctor", "exercise", "notebook"],
)
def test_what_a_learner_runs_connects_to_nobody(
    arguments: list[str], tmp_path: Path, home: Path
) -> None:
    trace = tmp_path / "trace"
    caches = {name: str(tmp_path / "caches") for name in ("IPYTHONDIR", "MPLCONFIGDIR")}
    ran = subprocess.run(
        traced(trace, [sys.executable, *arguments]),
        cwd=tmp_path,
        env=environment(home) | caches | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    # The doctor ends with 1 where this machine lacks something, such as a free port.
    ends = {0, 1} if "doctor" in arguments else {0}
    assert ran.returncode in ends, ran.stderr
    assert beyond_this_machine(trace) == []


def status_of(url: str, patience_s: float = 30.0) -> int:
    """What a server answers that says where it listens shortly before it does."""
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            with urlopen(url) as answer:
                return int(answer.status)
        except HTTPError as error:
            return error.code
        except URLError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.05)


@pytest.mark.slow
def test_jupyterlab_asks_nobody_for_news(tmp_path: Path, home: Path) -> None:
    """Its page asks its server for news and updates, which asks the network."""
    trace = tmp_path / "trace"
    command = jupyter_command(
        tmp_path, ["--no-browser", "--allow-root", "--port=0", "--IdentityProvider.token=secret"]
    )
    with subprocess.Popen(
        traced(trace, command),
        env=environment(home) | {"JUPYTER_PLATFORM_DIRS": "0", "IPYTHONDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as lab:
        try:
            assert lab.stderr is not None
            told = (re.search(r"http://localhost:\d+/", line) for line in lab.stderr)
            url = next(found[0] for found in told if found)
            for page in ("news", "update"):
                assert status_of(f"{url}lab/api/{page}?token=secret") == 200
        finally:
            os.killpg(lab.pid, signal.SIGKILL)
    assert beyond_this_machine(trace) == []
    for folder in home.iterdir():  # Jupyter notes its servers there, and tools that it looks for
        shutil.rmtree(folder)


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
