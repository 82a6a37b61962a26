"""Each check says yes on a sound machine, and names the mend on a broken one."""

import errno
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from labkit import doctor
from labkit.doctor import Check
from labkit.errors import ModelChangedError
from labkit.voice import hub
from labkit.voice.models import Model, Role
from tests.paths import ROOT

HERE = sys.executable


@pytest.mark.parametrize(
    ("version", "ok"), [((3, 10, 14), False), ((3, 11, 0), True), ((3, 14, 1), True)]
)
def test_python(version: tuple[int, int, int], ok: bool) -> None:
    check = doctor.check_python(version, "/usr/bin/python3")
    assert check.ok is ok
    assert check.detail == f"{'.'.join(map(str, version))} at /usr/bin/python3"
    assert check.mend.startswith("" if ok else "Python 3.11 or newer is needed: run 'make clean")


def test_packages() -> None:
    there = ["numpy>=2.0", "rich", "no-such-package>=1; extra == 'train'"]
    assert doctor.check_packages(there) == Check("packages", True, "all 2 installed")
    missing = doctor.check_packages([*there, "no-such-package>=1"])
    assert missing == Check("packages", False, "no-such-package missing", "run 'make setup'")


def test_packages_of_something_that_is_not_installed() -> None:
    assert not doctor.check_packages([]).ok


@pytest.mark.parametrize(
    ("command", "needed", "ok"),
    [(HERE, True, True), (HERE, False, True), ("no-such-c++", False, True)],
)
def test_compiler(command: str, needed: bool, ok: bool) -> None:
    assert doctor.check_compiler(command, needed=needed).ok is ok


def test_a_compiler_that_is_needed_and_missing() -> None:
    check = doctor.check_compiler("no-such-c++", needed=True)
    assert not check.ok
    assert "apt install g++" in check.mend


@pytest.mark.parametrize("role", Role)
async def test_a_missing_model(role: Role, tmp_path: Path) -> None:
    check = await doctor.check_model(Model(role, "mine", tmp_path / "absent"))
    assert check == Check(role, False, "mine is not here", f"Check the path given with --{role}")


async def test_a_model_that_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    def locate(_: Model) -> Path:
        raise ModelChangedError(Path("model.bin"), "1234", "5678", "Pull it")

    monkeypatch.setattr(doctor, "locate", locate)
    check = await doctor.check_model(Model(Role.ASR, "base.en", hub.Source("a/b", ())))
    assert not check.ok
    assert "recorded 1234, found 5678" in check.detail
    assert check.mend == "pull base.en anew"


async def test_a_broken_model(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF and then nothing")
    check = await doctor.check_model(Model(Role.LLM, "mine", broken))
    assert not check.ok
    assert check.detail.startswith(f"mine: model file {broken} does not load: ")
    assert "make rebuild-llama" in check.mend


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import os; os.kill(os.getpid(), 4)", "the engine was ended by signal 4"),
        ("class EngineError(Exception): pass\nraise EngineError('no VAD')", "no VAD"),
        ("raise ImportError('no module')", "no module"),
        ("raise SystemExit(3)", "the engine exited with 3"),
    ],
)
async def test_why_an_engine_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str, words: str
) -> None:
    monkeypatch.setattr(doctor, "_PROGRAM", f"{program}\n")
    check = await doctor.check_model(Model(Role.TTS, "mine", tmp_path))
    assert check == Check("tts", False, f"mine: {words}", "restore mine from where it came")


async def test_an_engine_that_hangs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "_LOADING_S", 0.2)
    monkeypatch.setattr(doctor, "_PROGRAM", "import time; time.sleep(60)\n")
    check = await doctor.check_model(Model(Role.ASR, "mine", tmp_path))
    assert "over 0.2 s" in check.detail


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_engine_that_is_tried(number: signal.Signals, tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from labkit import doctor
from labkit.cli.terminal import run
from labkit.voice.models import Model, Role
doctor._PROGRAM = (
    "import os, sys, time; open(sys.argv[1] + '/pid', 'w').write(f'{os.getpid()} '); time.sleep(60)"
    "\\n"
)
run(doctor.check_model(Model(Role.ASR, "mine", Path(sys.argv[1]))))
"""
    with subprocess.Popen([HERE, "-c", program, str(tmp_path)], cwd=ROOT) as process:
        told = tmp_path / "pid"
        while not (told.exists() and told.read_text().endswith(" ")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
    assert process.returncode == 128 + number
    assert not psutil.pid_exists(int(told.read_text()))


@pytest.mark.parametrize("command", ["python", "python3", "python3.12", HERE])
def test_a_kernel_of_this_environment(command: str) -> None:
    check = doctor.check_kernel([command, "-m", "ipykernel_launcher"], HERE)
    assert check == Check("kernel", True, f"python3 runs {HERE}")


def test_a_kernel_of_another_environment() -> None:
    check = doctor.check_kernel(["/elsewhere/bin/python", "-m", "ipykernel_launcher"], HERE)
    assert (check.ok, check.detail) == (False, "python3 runs /elsewhere/bin/python")
    assert "jupyter kernelspec" in check.mend


def test_no_kernel() -> None:
    assert doctor.check_kernel(None, HERE).mend == "run 'make setup'"


@pytest.mark.parametrize("below", ["", "not/yet/there"])
def test_a_home_that_can_be_written(tmp_path: Path, below: str) -> None:
    assert doctor.check_home([tmp_path / below]) == Check(
        "home", True, "Jupyter can keep its files"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check = doctor.check_home([tmp_path, tmp_path / "file" / ".jupyter"])
    assert not check.ok
    assert check.detail.startswith(f"Jupyter can keep nothing in {tmp_path}/file/.jupyter: Not a")
    assert check.mend.startswith("set HOME to a folder that you may write to")


async def test_what_the_system_does_not_let_it_look_at_is_a_row_like_any_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused() -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "/proc/.ipython")

    def gone() -> Path:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(doctor, "kernel_command", refused)
    monkeypatch.setattr(Path, "cwd", gone)
    rows = {check.name: check for check in await doctor.run_checks([])}
    assert rows["kernel"].detail == "/proc/.ipython: No such file or directory"
    assert "HOME" in rows["kernel"].mend
    assert rows["disk"].detail == "the working folder: No such file or directory"
    assert len(rows) == 8


def test_the_kernel_that_jupyter_knows() -> None:
    command = doctor.kernel_command()
    assert command is not None
    assert "ipykernel_launcher" in command


@pytest.mark.parametrize(
    ("usable", "there", "ok", "detail"),
    [
        (
            2,
            2,
            True,
            "2 to use: 1 thread for each engine, as by default, 2 for the language model alone",
        ),
        (
            6,
            64,
            True,
            "6 of 64 to use: 2 threads for each engine, as by default, "
            "4 for the language model alone; "
            "--threads 1 where other programs keep them busy",
        ),
        (1, 1, False, "1 to use: 1 thread for each engine, as by default"),
    ],
)
def test_cores(usable: int, there: int, ok: bool, detail: str) -> None:
    check = doctor.check_cores(usable, there)
    assert (check.ok, check.detail) == (ok, detail)
    assert bool(check.mend) is not ok


def test_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        check = doctor.check_port(port)
    assert not check.ok
    assert check.detail == f"cannot listen on localhost:{port}: Address already in use"
    assert check.mend.startswith("Another program listens there: stop it, or choose another port")
    assert doctor.check_port(0) == Check("port", True, "0 is free")


@pytest.mark.parametrize(("free", "ok"), [(1_900_000_000, False), (2_000_000_000, True)])
def test_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, ok: bool) -> None:
    usage = type("Usage", (), {"free": free})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    check = doctor.check_disk(tmp_path)
    assert check.ok is ok
    assert check.detail == f"{free / 1e9:.1f} GB free at {tmp_path}"


async def test_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "usable_cores", lambda: 2)
    monkeypatch.setattr(doctor, "DEFAULT_PORT", 0)
    monkeypatch.chdir(tmp_path)
    absent = Model(Role.ASR, "mine", tmp_path / "absent")
    checks = await doctor.run_checks([absent])
    names = ["python", "packages", "compiler", "asr", "cores", "home", "kernel", "port", "disk"]
    assert [check.name for check in checks] == names
    assert [check.name for check in checks if not check.ok] == ["asr"]
    assert all(bool(check.mend) is not check.ok for check in checks)
