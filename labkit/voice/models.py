"""Model names to files on this machine, and files to a warm pipeline.

A model is named by its role and a word: the name of an embedded model, a path, or what its
library calls it. A *set* names one model for each role.

=======  =====================================================================================
role     what may be named
=======  =====================================================================================
`asr`    `lab-asr-en`, a folder, `base.en` and the other names of faster-whisper, `owner/repo`
`llm`    `lab-llm-en`, a `.gguf` file, `owner/repo:file.gguf`
`tts`    `lab-voice-en`, an `.onnx` file, `en_US-lessac-medium` and the other Piper voices
=======  =====================================================================================
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from labkit.errors import ModelError, ModelNotFoundError
from labkit.voice import hub
from labkit.voice.engines import Engines, FasterWhisperAsr, LlamaLlm, PiperTts, SileroVad
from labkit.voice.pipeline import VoicePipeline

__all__ = [
    "SETS",
    "Model",
    "ModelPaths",
    "ModelSet",
    "Role",
    "data_folder",
    "default_threads",
    "find",
    "fits_window",
    "load_engines",
    "load_pipeline",
    "locate",
    "longest_stretch_s",
    "models_of",
    "resolve",
]


class Role(StrEnum):
    """What a model does."""

    ASR = "asr"
    LLM = "llm"
    TTS = "tts"


@dataclass(frozen=True, slots=True)
class Model:
    """A model and where its files come from: a path, or a repository of the model hub.

    Attributes:
        role: What it does.
        name: As it was asked for.
        path: Where it lies, for a local model.
        source: Where it is pulled from, for a model of the hub.
    """

    role: Role
    name: str
    path: Path | None = None
    source: hub.Source | None = None


@dataclass(frozen=True, slots=True)
class ModelSet:
    """One model for each role, by name."""

    asr: str
    llm: str
    tts: str
    about: str

    def name_of(self, role: Role) -> str:
        """The model that the set has for `role`."""
        return {Role.ASR: self.asr, Role.LLM: self.llm, Role.TTS: self.tts}[role]


SETS: Final[Mapping[str, ModelSet]] = {
    "embedded": ModelSet(
        asr="lab-asr-en",
        llm="lab-llm-en",
        tts="lab-voice-en",
        about="shipped with labkit: the course's own domain, offline",
    ),
    "small": ModelSet(
        asr="base.en",
        llm="Qwen/Qwen2.5-0.5B-Instruct-GGUF:qwen2.5-0.5b-instruct-q8_0.gguf",
        tts="en_US-lessac-medium",
        about="public models of about 0.9 GB in all: real conversation",
    ),
}
"""The sets that can be named."""

_EMBEDDED: Final[Mapping[str, tuple[Role, str]]] = {
    "lab-asr-en": (Role.ASR, "lab-asr-en"),
    "lab-llm-en": (Role.LLM, "lab-llm-en/lab-llm-en.gguf"),
    "lab-voice-en": (Role.TTS, "lab-voice-en/lab-voice-en.onnx"),
}
_WHISPER_FILES: Final = (
    "config.json",
    "model.bin",
    "tokenizer.json",
    "vocabulary.*",
    "preprocessor_config.json",
)
_WHISPER_WINDOW_S: Final = 30.0
_WHISPER_OPTIONAL: Final = frozenset(("preprocessor_config.json",))


@dataclass(frozen=True, slots=True)
class ModelPaths:
    """What the engines load.

    Attributes:
        asr: Folder of a faster-whisper model.
        llm: GGUF file.
        tts: ONNX file of a Piper voice; its JSON lies beside it.
        fit_window: Whether the recogniser was trained for windows cut to the utterance.
        names: The models as they were asked for, by role.
    """

    asr: Path
    llm: Path
    tts: Path
    fit_window: bool
    names: Mapping[Role, str]


def data_folder() -> Path:
    """The project's `data/` folder: `LABKIT_DATA`, or the one beside the package."""
    told = os.environ.get("LABKIT_DATA")
    return Path(told) if told else Path(__file__).resolve().parents[2] / "data"


def find(role: Role, name: str) -> Model:
    """Understand what `name` means for `role`. Nothing is looked up on disk or network.

    Raises:
        ModelError: The name is none that this role knows.
    """
    if name in _EMBEDDED:
        known_role, place = _EMBEDDED[name]
        if known_role is not role:
            raise ModelError(f"{name} is a model for --{known_role}, not for --{role}")
        return Model(role, name, path=data_folder() / "models" / place)
    if (path := _as_path(role, name)) is not None:
        return Model(role, name, path=path)
    return Model(role, name, source=_SOURCES[role](name))


def _as_path(role: Role, name: str) -> Path | None:
    path = Path(name).expanduser()
    looks_like_one = name.startswith((".", "/", "~")) or path.exists()
    is_file_name = ":" not in name and name.endswith((".gguf", ".onnx"))
    return path if looks_like_one or (role is not Role.ASR and is_file_name) else None


def _whisper(name: str) -> hub.Source:
    if "/" in name:
        repo = name
    elif name.startswith("distil-"):
        repo = f"Systran/faster-distil-whisper-{name.removeprefix('distil-')}"
    else:
        repo = f"Systran/faster-whisper-{name}"
    return hub.Source(repo, _WHISPER_FILES, optional=_WHISPER_OPTIONAL)


def _gguf(name: str) -> hub.Source:
    repo, _, file = name.partition(":")
    if "/" not in repo or not file.endswith(".gguf"):
        raise ModelError(
            f"--llm {name!r} is no language model: name a .gguf file, or owner/repo:file.gguf"
        )
    return hub.Source(repo, (file,), main=file)


def _piper(name: str) -> hub.Source:
    locale, *rest = name.split("-")
    if len(rest) != 2 or "_" not in locale:
        raise ModelError(
            f"--tts {name!r} is no voice: name an .onnx file, or a Piper voice such as "
            "en_US-lessac-medium (language, speaker, quality)"
        )
    speaker, quality = rest
    file = f"{locale.split('_')[0]}/{locale}/{speaker}/{quality}/{name}.onnx"
    return hub.Source("rhasspy/piper-voices", (file, f"{file}.json"), main=file)


_SOURCES: Final = {Role.ASR: _whisper, Role.LLM: _gguf, Role.TTS: _piper}


def models_of(set_name: str) -> Iterator[Model]:
    """The models of a set.

    Raises:
        ModelError: There is no such set.
    """
    if set_name not in SETS:
        raise ModelError(f"there is no set {set_name!r}; there are {', '.join(SETS)}")
    return (find(role, SETS[set_name].name_of(role)) for role in Role)


def locate(model: Model) -> Path:
    """Where the engine finds `model` on this machine.

    Raises:
        ModelNotFoundError: It is not here; the error names the file and the mend.
        ModelChangedError: It is not the one that was first pulled.
    """
    if model.source is not None:
        path = hub.cached(model.source)
        if path is None:
            raise ModelNotFoundError(
                model.name, None, f"Run 'labkit models pull --{model.role} {model.name}'"
            )
        return path
    if model.path is None or not model.path.exists():
        raise ModelNotFoundError(model.name, model.path, _mend(model))
    return model.path


def _mend(model: Model) -> str:
    if model.name in _EMBEDDED:
        return "It is part of the repository: run 'git checkout -- data/models'"
    return f"Check the path given with --{model.role}"


def fits_window(asr: Path) -> bool:
    """Whether a recogniser says of itself that windows may be cut to the utterance.

    `preprocessor_config.json` of such a model has `"fit_window": true`; faster-whisper ignores
    the entry.
    """
    return bool(_preprocessor(asr).get("fit_window", False))


def longest_stretch_s(asr: Path) -> float:
    """Longest stretch of speech that a recogniser says it was trained on, in seconds.

    That is `"longest_s"` in `preprocessor_config.json`, its longest sentence. Models without it,
    such as the public ones, learned from windows full of speech, `"chunk_length"` long.
    """
    config = _preprocessor(asr)
    return float(config.get("longest_s", config.get("chunk_length", _WHISPER_WINDOW_S)))


def _preprocessor(asr: Path) -> dict[str, Any]:
    path = asr / "preprocessor_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def resolve(
    set_name: str = "embedded",
    *,
    asr: str | None = None,
    llm: str | None = None,
    tts: str | None = None,
) -> ModelPaths:
    """Find the files of a set, with single models named otherwise.

    Args:
        set_name: The set that everything comes from that is not named.
        asr: Another recogniser.
        llm: Another language model.
        tts: Another voice.

    Raises:
        ModelError: A name is unknown, or a model is not here.
    """
    own = {Role.ASR: asr, Role.LLM: llm, Role.TTS: tts}
    models = {m.role: m for m in models_of(set_name)}
    models |= {role: find(role, name) for role, name in own.items() if name is not None}
    places = {role: locate(model) for role, model in models.items()}
    return ModelPaths(
        asr=places[Role.ASR],
        llm=places[Role.LLM],
        tts=places[Role.TTS],
        fit_window=fits_window(places[Role.ASR]),
        names={role: model.name for role, model in models.items()},
    )


def default_threads() -> int:
    """Threads per engine: half of the cores, since two engines often work at once; 4 at most."""
    return max(1, min(4, (os.cpu_count() or 1) // 2))


def load_engines(
    paths: ModelPaths, *, threads: int | None = None, fit_window: bool | None = None
) -> Engines:
    """Load the four engines and warm them up. Blocks for seconds.

    Args:
        paths: The models.
        threads: CPU threads of each engine; by default `default_threads()`.
        fit_window: Cut the recogniser's window to the utterance; by default where the model
            was trained for it.

    Raises:
        ModelBrokenError: A model does not load.
    """
    threads = threads or default_threads()
    fit = paths.fit_window if fit_window is None else fit_window
    engines = Engines(
        vad=SileroVad(),
        asr=FasterWhisperAsr(paths.asr, threads=threads, fit_window=fit),
        llm=LlamaLlm(paths.llm, threads=threads),
        tts=PiperTts(paths.tts, threads=threads),
        longest_stretch_s=longest_stretch_s(paths.asr),
    )
    engines.warm_up()
    return engines


def load_pipeline(
    paths: ModelPaths | None = None, *, threads: int | None = None, fit_window: bool | None = None
) -> VoicePipeline:
    """A pipeline over engines that `load_engines` has loaded; by default, the embedded models."""
    return VoicePipeline(load_engines(paths or resolve(), threads=threads, fit_window=fit_window))
