"""Pulling models from something shaped like the model hub."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import close_session

from labkit.errors import ModelBrokenError, ModelChangedError, ModelError, ModelNotFoundError
from labkit.voice import hub
from labkit.voice.models import Model, Role, check_files
from tests.voice.hub_server import Hub, hub_server

BIG = bytes(range(256)) * 4096
VOICE = hub.Source("owner/voice", ("en/voice.onnx", "en/voice.onnx.json"), main="en/voice.onnx")
WHISPER = hub.Source(
    "owner/whisper",
    ("config.json", "model.bin", "vocabulary.*", "extra.json"),
    optional=frozenset(("extra.json",)),
)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with hub_server() as server:
        server.files = {
            "owner/voice/en/voice.onnx": BIG,
            "owner/voice/en/voice.onnx.json": b'{"audio": {}}',
            "owner/voice/README.md": b"not asked for",
            "owner/whisper/config.json": b"{}",
            "owner/whisper/model.bin": BIG[::-1],
            "owner/whisper/vocabulary.txt": b"a\nb\n",
        }
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server
        close_session()


def test_a_voice_is_pulled_recorded_and_found(served: Hub) -> None:
    assert hub.cached(VOICE) is None
    path = hub.pull(VOICE)
    assert path.read_bytes() == BIG
    assert path.with_name("voice.onnx.json").exists()
    assert hub.cached(VOICE) == path
    record = json.loads(hub.record_file().read_text())
    assert record["owner/voice"]["revision"] == "a" * 40
    assert record["owner/voice"]["files"]["en/voice.onnx"] == hashlib.sha256(BIG).hexdigest()
    assert not any("README" in request for request in served.requests)


def test_what_was_pulled_is_held_against_the_record(served: Hub) -> None:
    assert hub.recorded(VOICE) == {}
    path = hub.pull(VOICE)
    assert {file.name for file in hub.recorded(VOICE)} == {"voice.onnx", "voice.onnx.json"}
    voice = Model(Role.TTS, "voice", VOICE)
    assert dict(check_files(voice)) == dict.fromkeys(hub.recorded(VOICE), True)
    path.resolve().write_bytes(BIG[::-1])
    assert dict(check_files(voice))[path] is False


def test_a_folder_of_files_by_pattern(served: Hub) -> None:
    folder = hub.pull(WHISPER)
    assert sorted(p.name for p in folder.iterdir()) == [
        "config.json",
        "model.bin",
        "vocabulary.txt",
    ]
    assert hub.cached(WHISPER) == folder


def test_a_download_that_broke_off_goes_on_where_it_stopped(served: Hub) -> None:
    """The hub client writes blocks of 10 MiB, so that is where it can go on."""
    content = BIG * 24
    served.files["owner/voice/en/voice.onnx"] = content
    served.cut_after = 21 << 20
    assert hub.pull(VOICE).read_bytes() == content
    assert any(f"bytes={20 << 20}-" in request for request in served.requests)


def test_a_truncated_file_is_refused(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub announces more bytes than it has: no retry can complete the file."""

    class Short(bytes):
        def __len__(self) -> int:
            return super().__len__() + 10

    served.files["owner/voice/en/voice.onnx"] = Short(BIG)
    with pytest.raises(ModelError, match="owner/voice|cannot be reached"):
        hub.pull(VOICE)
    assert hub.cached(VOICE) is None


def test_a_file_that_is_not_what_was_announced_is_deleted(served: Hub) -> None:
    served.lie.add("owner/voice/en/voice.onnx")
    with pytest.raises(ModelBrokenError, match="the hub announced .* Pull it again"):
        hub.pull(VOICE)
    assert hub.cached(VOICE) is None
    served.lie.clear()
    assert hub.pull(VOICE).read_bytes() == BIG


def test_another_content_under_the_same_revision_is_noticed(
    served: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.pull(VOICE)
    served.files["owner/voice/en/voice.onnx"] = BIG[::-1]
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "emptied"))
    with pytest.raises(ModelChangedError, match="recorded .* found"):
        hub.pull(VOICE)


def test_a_revision_that_is_gone_is_noticed(served: Hub) -> None:
    hub.pull(VOICE)
    served.commit = "b" * 40
    with pytest.raises(ModelChangedError, match="recorded revision a{40}, found no such revision"):
        hub.pull(VOICE)


def test_unknown_repository_and_file(served: Hub) -> None:
    with pytest.raises(ModelNotFoundError, match="no such repository"):
        hub.pull(hub.Source("owner/none", ("x",)))
    with pytest.raises(ModelNotFoundError, match="no file 'x.gguf'"):
        hub.pull(hub.Source("owner/voice", ("x.gguf",)))


def test_without_a_network_one_sentence_says_so(
    served: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(ModelError, match=r"hub at http://127\.0\.0\.1:1 cannot be reached") as told:
        hub.pull(VOICE)
    assert "\n" not in str(told.value)


def test_a_damaged_record_says_what_to_do(served: Hub) -> None:
    hub.record_file().parent.mkdir(parents=True)
    hub.record_file().write_text("[]")
    with pytest.raises(ModelError, match="is damaged .* Delete it"):
        hub.cached(VOICE)
