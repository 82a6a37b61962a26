"""Names of models, and the files that they stand for."""

from pathlib import Path

import pytest

from labkit.errors import ModelError, ModelNotFoundError
from labkit.voice.models import (
    SETS,
    Role,
    find,
    fits_window,
    locate,
    longest_stretch_s,
    models_of,
    resolve,
)


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
    source = find(role, name).source
    assert source is not None
    assert source.repo == repo
    assert files in source.files


@pytest.mark.parametrize(
    ("role", "name"),
    [(Role.LLM, "model.gguf"), (Role.TTS, "./voice.onnx"), (Role.ASR, "/models/whisper")],
)
def test_paths(role: Role, name: str) -> None:
    assert find(role, name).path == Path(name)


@pytest.mark.parametrize(
    ("role", "name", "hint"),
    [
        (Role.LLM, "llama", "name a .gguf file, or owner/repo:file.gguf"),
        (Role.TTS, "lessac", "such as en_US-lessac-medium"),
        (Role.TTS, "lab-asr-en", "is a model for --asr, not for --tts"),
    ],
)
def test_names_that_are_none(role: Role, name: str, hint: str) -> None:
    with pytest.raises(ModelError, match=hint):
        find(role, name)


def test_every_set_names_a_model_for_each_role() -> None:
    for name in SETS:
        assert [model.role for model in models_of(name)] == list(Role)
    with pytest.raises(ModelError, match="there are embedded, small"):
        models_of("large")


def test_a_missing_model_names_the_file_and_the_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
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


def test_a_model_says_itself_whether_its_window_may_be_cut(tmp_path: Path) -> None:
    assert not fits_window(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"feature_size": 80, "fit_window": true}')
    assert fits_window(tmp_path)


def test_a_model_says_itself_how_much_speech_it_was_trained_on(tmp_path: Path) -> None:
    assert longest_stretch_s(tmp_path) == 30
    config = tmp_path / "preprocessor_config.json"
    config.write_text('{"chunk_length": 20}')
    assert longest_stretch_s(tmp_path) == 20
    config.write_text('{"chunk_length": 12, "longest_s": 5}')
    assert longest_stretch_s(tmp_path) == 5
    config.write_text("[]")
    assert longest_stretch_s(tmp_path) == 30
