"""`labkit serve`, `labkit token` and `labkit talk`: who may come in, from the options on."""

import asyncio
import gc
import json
import logging
import os
import socket
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from labkit.audio.pcm import write_wav
from labkit.cli import serve as module
from labkit.cli.tools import token
from labkit.errors import ServerError, TokenError
from labkit.measure.server_process import labkit_server, running_server
from labkit.net import TOKEN_VARIABLE, require_token
from labkit.server.app import VoiceServer
from labkit.session.settings import ServerSettings
from labkit.voice.models import ModelPaths
from labkit.voice.pipeline import EchoPipeline
from labkit.voice.scheduling import EngineQueue
from labkit.voice.turn import Pipeline
from tests.certificates import self_signed
from tests.cli.commands import Labkit
from tests.support import until

ONE = "one-token-of-sixteen"
TWO = "two_token_of_sixteen"
SERVING = "labkit.server.app.serve_until_signal"

app = typer.Typer()
app.command()(module.serve)


@pytest.mark.parametrize(("stuck", "ended"), [(True, [1]), (False, [])])
async def test_an_engine_that_never_returns_keeps_no_process(
    monkeypatch: pytest.MonkeyPatch, *, stuck: bool, ended: list[int]
) -> None:
    left: list[int] = []
    monkeypatch.setattr(os, "_exit", left.append)
    monkeypatch.setattr(logging, "shutdown", lambda: None)
    monkeypatch.setattr(module, "_STUCK_S", 0.1 if stuck else 10.0)
    before, gate, engine = set(threading.enumerate()), threading.Event(), EngineQueue("model")
    if not stuck:
        gate.set()
    call = asyncio.create_task(engine.run("ann", lambda _: 0, lambda _: gate.wait()))
    await until(lambda: threading.active_count() > len(before))
    engine.close()
    module.leave_stuck_engines(before)
    assert left == ended
    gate.set()
    await call


def settings_of(monkeypatch: pytest.MonkeyPatch, *options: str) -> ServerSettings:
    """The settings that these options make, of a server that is not started."""
    asked: list[ServerSettings] = []
    monkeypatch.setattr(SERVING, lambda _, settings, *__: asked.append(settings))
    monkeypatch.setattr(module, "run", lambda _: None)
    monkeypatch.setattr(module, "_log_to_stderr", lambda: None)
    monkeypatch.setattr(module, "addresses_to_bind", lambda *_: ["127.0.0.1"])
    command = ["--pipeline", "echo", *options]
    CliRunner().invoke(app, command, catch_exceptions=False)
    (settings,) = asked
    return settings


@pytest.fixture(autouse=True)
def no_token_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)


def test_without_options_the_defaults_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings_of(monkeypatch) == ServerSettings()


def test_options_become_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = self_signed(tmp_path)
    tokens = tmp_path / "tokens.txt"
    tokens.write_text(f"{ONE}\n")
    tokens.chmod(0o600)
    monkeypatch.setenv(TOKEN_VARIABLE, TWO)
    settings = settings_of(
        monkeypatch,
        *("--host", "0.0.0.0", "--port", "0", "--token-file", str(tokens)),
        *("--max-sessions", "3", "--max-per-address", "2", "--log-transcripts", "--insecure"),
        *("--allow-origin", "https://a.example", "--allow-origin", "https://b.example"),
        *("--tls-cert", str(made.cert), "--tls-key", str(made.key)),
    )
    assert settings == ServerSettings(
        host="0.0.0.0",
        port=0,
        max_sessions=3,
        max_sessions_per_address=2,
        tokens=(ONE, TWO),
        insecure=True,
        allowed_origins=("https://a.example", "https://b.example"),
        tls_cert=made.cert,
        tls_key=made.key,
        log_transcripts=True,
    )


def test_a_token_is_no_option(monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(app, ["--token", ONE])
    assert result.exit_code == 2


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (
            ["--host", "0.0.0.0"],
            ServerError,
            r"^host \(--host\) is '0.0.0.0', where other machines",
        ),
        (
            ["--allow-origin", "*"],
            ServerError,
            r"^allowed_origins \(--allow-origin\) has '\*'; an origin is like",
        ),
        (["--tls-cert", "none.pem"], ServerError, "none.pem"),
        (
            ["--tls-key", "tls_key"],
            ServerError,
            r"^tls_key \(--tls-key\) is tls_key, and there is no tls_cert \(--tls-c",
        ),
        (["--token-file", "none.txt"], TokenError, "none.txt"),
    ],
)
def test_what_cannot_start_is_refused_before_any_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, options: list[str], error: type[Exception], words: str
) -> None:
    def load(*_: object) -> Pipeline:
        raise AssertionError("the models were loaded")

    monkeypatch.setattr(module, "_voice", load)
    monkeypatch.setattr(module, "_log_to_stderr", lambda: None)
    with pytest.raises(error, match=words):
        CliRunner().invoke(app, options, catch_exceptions=False)


def test_a_port_that_is_taken_is_told_before_any_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(*_: object) -> Pipeline:
        raise AssertionError("the models were loaded")

    monkeypatch.setattr(module, "_voice", load)
    monkeypatch.setattr(module, "_log_to_stderr", lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        options = ["--host", "127.0.0.1", "--port", str(taken.getsockname()[1])]
        with pytest.raises(ServerError, match="Another program listens there"):
            CliRunner().invoke(app, options, catch_exceptions=False)


def test_what_is_loaded_is_left_out_of_collections(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(gc, "collect", lambda: done.append("collect"))
    monkeypatch.setattr(gc, "freeze", lambda: done.append("freeze"))
    settings_of(monkeypatch)
    assert done == ["collect", "freeze"]


@pytest.mark.parametrize("given", ["Be kind.", "", "told.txt"])
def test_what_the_model_is_told_is_a_text_or_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str
) -> None:
    told: list[str | None] = []

    def load(paths: ModelPaths, **_: object) -> Pipeline:
        told.append(paths.system)
        return EchoPipeline()

    (tmp_path / "told.txt").write_text("Be kind.\n")
    monkeypatch.setattr("labkit.voice.loading.load_pipeline", load)
    monkeypatch.setattr(SERVING, lambda *_: None)
    monkeypatch.setattr(module, "run", lambda _: None)
    monkeypatch.setattr(module, "_log_to_stderr", lambda: None)
    monkeypatch.setattr("labkit.server.app.require_startable", lambda _: None)
    monkeypatch.setattr(module, "addresses_to_bind", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    CliRunner().invoke(app, ["--system", given], catch_exceptions=False)
    assert told == ["" if given == "" else "Be kind."]


@pytest.mark.parametrize("given", ["prompt.txt", "prompts/kind", "kind.md", "folder"])
def test_a_mistyped_name_is_no_message_to_the_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(typer.BadParameter, match=f"--system {given} looks like a file, and there"):
        module._told(given)


def test_bytes_that_are_no_text_are_no_message_to_the_model() -> None:
    with pytest.raises(typer.BadParameter, match="--system has bytes that are no UTF-8"):
        module._told("you are \udcff")


def test_what_the_model_is_told_is_logged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "told.txt").write_text("Be kind.\n")
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO)
    module._told("Answer and/or ask.")
    module._told("told.txt")
    assert [record.getMessage() for record in caplog.records] == [
        "the language model is told 18 characters, from --system",
        "the language model is told 8 characters, from told.txt",
    ]


def test_a_message_that_would_fill_the_context_is_refused() -> None:
    result = CliRunner().invoke(app, ["--port", "0", "--system", "word " * 400])
    assert result.exit_code == 2
    assert "2000 characters, of 1500 at most" in " ".join(result.output.replace("│", "").split())


def test_a_printed_token_is_one() -> None:
    printer = typer.Typer()
    printer.command()(token)
    result = CliRunner().invoke(printer, [])
    assert require_token(result.output.strip(), "printed")


@pytest.fixture
def recording(tmp_path: Path) -> str:
    """Something short to say."""
    path = tmp_path / "short.wav"
    write_wav(path, np.full(3_200, 0.25, np.float32))
    return str(path)


async def test_talking_to_a_server_with_token_and_certificate(
    tmp_path: Path, recording: str
) -> None:
    made = self_signed(tmp_path)
    tokens = tmp_path / "tokens.txt"
    tokens.write_text(f"{ONE} # first\n{TWO}\n")
    tokens.chmod(0o600)
    serve = labkit_server("--pipeline", "echo", "--host", "127.0.0.1", "--token-file", str(tokens))
    async with running_server(
        [*serve, "--tls-cert", str(made.cert), "--tls-key", str(made.key)]
    ) as server:
        assert server.url.startswith("wss://127.0.0.1:")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "labkit", "talk", recording),
            *("--url", server.url, "--token-file", str(tokens), "--ca", str(made.cert), "--json"),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
    assert process.returncode == 0
    assert json.loads(out)["transcript"].endswith("seconds of audio")


async def test_the_token_of_the_environment_is_shown(
    labkit: Labkit, monkeypatch: pytest.MonkeyPatch, recording: str
) -> None:
    settings = ServerSettings(host="127.0.0.1", port=0, tokens=(ONE,))
    async with VoiceServer(EchoPipeline(), settings) as server:
        words = ("talk", recording, "--url", server.url)
        refused = await asyncio.to_thread(labkit, *words)
        assert refused.code == 1
        assert "HTTP 401" in refused.err
        monkeypatch.setenv(TOKEN_VARIABLE, ONE)
        heard = await asyncio.to_thread(labkit, *words)
        assert heard.code == 0
        assert "seconds of audio" in heard.out


def test_a_system_message_that_is_no_text_is_named(labkit: Labkit, tmp_path: Path) -> None:
    path = tmp_path / "system.bin"
    path.write_bytes(b"\xff\xfe")
    done = labkit("serve", "--port", "0", "--system", str(path))
    assert done.code == 1
    assert done.err.startswith(f"error: --system {path} is no text in UTF-8: ")
