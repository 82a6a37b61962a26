"""What a machine lacks for labkit, and the mend for each.

`run_checks` looks at everything and changes nothing. Each check is a function of what it looks
at, so each can be tried on a machine that is not broken.
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

import numpy as np

from labkit.errors import ModelError, ModelNotFoundError, ServerError
from labkit.net import addresses_to_bind
from labkit.session import DEFAULT_PORT
from labkit.voice.loading import default_threads, most_threads, usable_cores
from labkit.voice.models import Model, Role, locate

_OLDEST: Final = (3, 11)
_NEEDED_GB: Final = 2
_LOADING_S: Final = 120
_WORK_S: Final = 0.012
"""What `_work_s` takes on one of two virtual cores of a server of 2024, otherwise idle."""
_PROGRAM: Final = (
    "import sys\nfrom pathlib import Path\nfrom labkit.voice import llama, piper, whisper\n"
    "model = Path(sys.argv[1])\n"
)
_HOME: Final = "set HOME to a folder that you may write to, as in HOME=$PWD/home labkit lab"

_LOAD: Final[Mapping[Role, str]] = {
    Role.ASR: "whisper.FasterWhisperAsr(model, threads=1).warm_up()",
    Role.LLM: "llama.LlamaLlm(model, threads=1).warm_up()",
    Role.TTS: "piper.PiperTts(model, threads=1).warm_up()",
}


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found."""

    name: str
    """What was looked at, in a word or two."""
    ok: bool
    """Whether it is as labkit needs it."""
    detail: str
    mend: str = ""
    """What to do about it; empty where nothing is to be done."""


def _check(name: str, ok: bool, detail: str, mend: str) -> Check:
    return Check(name, ok, detail, "" if ok else mend)


async def run_checks(models: Iterable[Model]) -> list[Check]:
    """Look at everything that labkit needs, in the order in which to mend it.

    It takes some seconds, because the models are loaded.
    """
    return [
        check_python(sys.version_info[:3], sys.executable),
        check_packages(required_packages()),
        check_compiler(os.environ.get("CXX", "c++"), needed=not _installed("llama-cpp-python")),
        *[await check_model(model) for model in models],
        check_cores(usable_cores(), os.cpu_count() or 1),
        check_home(jupyter_folders()),
        _tried("kernel", lambda: check_kernel(kernel_command(), sys.executable), _HOME),
        check_port(DEFAULT_PORT),
        # The working folder is where results will be written.
        _tried("disk", lambda: check_disk(Path.cwd()), "change into a folder that exists"),
    ]


def _tried(name: str, look: Callable[[], Check], mend: str) -> Check:
    """What a check finds, or that the system did not let it look; the other rows are told, too."""
    try:
        return look()
    except OSError as error:
        place = error.filename or "the working folder"
        return Check(name, False, f"{place}: {error.strerror or error}", mend)


def check_python(version: tuple[int, int, int], executable: str) -> Check:
    """Whether this Python is new enough."""
    return _check(
        "python",
        version[:2] >= _OLDEST,
        f"{'.'.join(map(str, version))} at {executable}",
        f"Python {'.'.join(map(str, _OLDEST))} or newer is needed: "
        "run 'make clean setup PYTHON=/path/to/python3.12'",
    )


def required_packages() -> list[str]:
    """What labkit requires, as lines such as `numpy>=2.0`.

    In a checkout it is what the checkout says: the environment may be that of an older one, and
    its own record with it.
    """
    project = Path(__file__).resolve().parents[1] / "pyproject.toml"
    if project.exists():
        return list(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"])
    return metadata.requires("labkit") or []


def check_packages(requirements: Iterable[str]) -> Check:
    """Whether every package is installed that lines such as `numpy>=2.0` require.

    Those of an extra are skipped.
    """
    names = [
        re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0]
        for line in requirements
        if "extra ==" not in line
    ]
    missing = [name for name in names if not _installed(name)]
    detail = f"{', '.join(missing)} missing" if missing else f"all {len(names)} installed"
    return _check("packages", not missing and bool(names), detail, "run 'make setup'")


def check_compiler(command: str, *, needed: bool) -> Check:
    """Whether there is a C++ compiler, which is only `needed` to build llama-cpp-python."""
    found = shutil.which(command)
    detail = found or ("none" if needed else "none, and none needed: llama-cpp-python is built")
    return _check(
        "compiler",
        found is not None or not needed,
        detail,
        "install one (Debian: 'apt install g++', macOS: 'xcode-select --install')",
    )


async def check_model(model: Model) -> Check:
    """Whether a model is there, loads in its engine and works.

    That happens in a process of its own: an engine built for another processor kills its process
    rather than raise an error.
    """
    try:
        path = locate(model)
    except ModelNotFoundError as error:
        return Check(model.role, False, f"{model.name} is not here", error.mend)
    except ModelError as error:
        return Check(model.role, False, str(error), f"pull {model.name} anew")
    wrong = await _run([sys.executable, "-c", _PROGRAM + _LOAD[model.role], str(path)])
    if not wrong:
        return Check(model.role, True, f"{model.name} loads and works")
    return Check(model.role, False, f"{model.name}: {wrong}", _mend(model))


async def _run(command: Sequence[str]) -> str:
    """Why a process failed: what its exception said, or the signal that ended it; or nothing."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        async with asyncio.timeout(_LOADING_S):
            _, said = await process.communicate()
    except TimeoutError:
        return f"it takes over {_LOADING_S} s to load"
    finally:  # also where a signal ends the wait
        if process.returncode is None:
            process.kill()
            await process.wait()
    code = process.returncode or 0
    if code < 0:
        return f"the engine was ended by signal {-code}"
    words = [f"the engine exited with {code}", *said.decode(errors="replace").strip().splitlines()]
    return re.sub(r"^[\w.]*(Error|Exception): ", "", words[-1]) if code else ""


def _mend(model: Model) -> str:
    restore = f"restore {model.name} from where it came"
    if model.role is Role.LLM:
        return (
            f"run 'make rebuild-llama' if llama.cpp was built on another processor, else {restore}"
        )
    return restore


def jupyter_folders() -> Sequence[Path]:
    """Where Jupyter keeps its settings, and what it notes while it runs."""
    from jupyter_core.paths import jupyter_config_dir, jupyter_runtime_dir

    return Path(jupyter_config_dir()), Path(jupyter_runtime_dir())


def check_home(folders: Iterable[Path]) -> Check:
    """Whether a user may write into these folders, or make those that are not there yet."""
    for folder in folders:
        try:
            there = next(place for place in (folder, *folder.parents) if place.exists())
            with TemporaryFile(dir=there):
                pass
        except OSError as error:
            why = error.strerror or str(error)
            return Check("home", False, f"Jupyter can keep nothing in {folder}: {why}", _HOME)
    return Check("home", True, "Jupyter can keep its files")


def kernel_command() -> Sequence[str] | None:
    """How Jupyter starts the kernel of the notebooks; None if it knows none."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        command: Sequence[str] = KernelSpecManager().get_kernel_spec("python3").argv
    except NoSuchKernel:
        return None
    return command


def check_kernel(command: Sequence[str] | None, executable: str) -> Check:
    """Whether notebooks get a kernel, and one that runs in this very environment."""
    if command is None:
        return _check("kernel", False, "Jupyter knows no kernel 'python3'", "run 'make setup'")
    # Jupyter puts its own Python in the place of a bare name.
    ours = command[0] == executable or re.fullmatch(r"python[0-9.]*", command[0]) is not None
    return _check(
        "kernel",
        ours,
        f"python3 runs {executable if ours else command[0]}",
        "another kernel spec hides this one: 'jupyter kernelspec list' shows it, "
        "'jupyter kernelspec remove python3' removes it",
    )


def check_cores(usable: int, there: int) -> Check:
    """How many threads each engine should have on the cores that are usable; one is too few."""
    of = "" if usable == there else f" of {there}"
    threads = default_threads(usable)
    advice = f"{threads} thread{'s' * (threads > 1)} for each engine, as by default"
    if (alone := most_threads(usable)) > threads:
        advice += f", {alone} for the language model alone"
    if threads > 1:
        advice += "; --threads 1 where other programs keep them busy"
    return _check(
        "cores",
        usable > 1,
        f"{usable}{of} to use: {advice}",
        "give labkit two cores: on one, a reply is written and spoken by turns",
    )


def check_port(port: int) -> Check:
    """Whether the server could listen on `port` now."""
    try:
        addresses_to_bind("localhost", port)
    except ServerError as error:
        reason, _, advice = str(error).partition(". ")
        return Check("port", False, reason, advice)
    return Check("port", True, f"{port} is free")


def machine_factor() -> float:
    """How many times slower this machine is, now, than the one that labkit was measured on.

    A piece of work like a model's, and one like a server's, three times; the fastest counts.
    Never below 1, so that what waits for something waits long enough.
    """
    return max(1.0, min(_work_s() for _ in range(3)) / _WORK_S)


def _work_s() -> float:
    started_s = time.perf_counter()
    matrix = np.ones((192, 192), np.float32)
    for _ in range(8):
        matrix = matrix @ matrix * 0.001
    json.loads(json.dumps(list(range(20_000))))
    return time.perf_counter() - started_s


def check_disk(place: Path) -> Check:
    """Whether there is room for results and for larger models."""
    free_gb = shutil.disk_usage(place).free / 1e9
    return _check(
        "disk",
        free_gb >= _NEEDED_GB,
        f"{free_gb:.1f} GB free at {place}",
        f"make room; {_NEEDED_GB} GB are needed for results and larger models",
    )


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
