"""Names of models, and what they stand for."""

from pathlib import Path

import pytest

from labkit.errors import ModelError
from labkit.voice import hub
from labkit.voice.catalogue import SETS, Role, find, models_of


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
