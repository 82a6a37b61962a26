"""What README.md shows works as it stands there."""

import asyncio
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from typer.main import get_command
from websockets.asyncio.server import serve

from labkit.cli.app import app
from labkit.client.plain import VoiceClient
from labkit.measure.exercise import Exercise
from labkit.measure.recordings import recording
from labkit.measure.results import Results, conduct
from labkit.measure.server_process import running_server
from labkit.measure.targets import Target
from labkit.measure.wer import word_errors
from labkit.notebook.turn import say
from labkit.protocol.plain import LONGEST_REPLY
from labkit.session.settings import ServerSettings
from labkit.trace import STAGES, Stage
from labkit.voice.pipeline import EchoPipeline, VoicePipeline
from labkit.voice.scripted import scripted_engines
from labkit.voice.turn import Pipeline
from tests.callers import serving
from tests.paths import ROOT, SPEECH

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.M | re.S)


def own_server() -> str:
    (source,) = [block for block in BLOCKS if "load_pipeline" in block]
    return source


def scripted() -> Pipeline:
    return VoicePipeline(scripted_engines())


@pytest.mark.parametrize(
    ("pipeline", "heard", "reply"),
    [
        (EchoPipeline, "0.60 seconds of audio", "0.60 seconds of audio"),
        (scripted, "9600 samples", "You: 9600 samples."),
    ],
)
async def test_the_server_of_the_readme_answers(
    pipeline: Callable[[], Pipeline], heard: str, reply: str
) -> None:
    module = ModuleType("own_server")
    exec(own_server(), module.__dict__)
    speech = np.full(9600, 0.25, np.float32)
    answering = pipeline()
    async with serve(partial(module.converse, answering), "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with VoiceClient.connect(url) as client:
            assert await client.ping() > 0
            for _ in range(2):
                turn = await client.say(speech, chunk_ms=100)
                assert (turn.transcript, turn.reply_text) == (heard, reply)
                assert len(turn.reply) >= 4800
    answering.close()
    assert len(own_server().splitlines()) < 60


async def test_the_bare_server_of_the_readme_can_be_measured(tmp_path: Path) -> None:
    (source,) = [block for block in BLOCKS if "BEEP" in block]
    assert len(source.splitlines()) <= 35
    path = tmp_path / "bare.py"
    path.write_text(source, encoding="utf-8")
    target = Target.script(path)
    exercise = Exercise(recordings=SPEECH, targets=[target], blocks=1, chunk_sizes_ms=(40,))
    summed = await conduct(exercise, Results(tmp_path / "results"))
    (server,) = summed.servers
    assert (server.name, server.turns) == ("bare", 2)
    assert Stage.UNTOLD in server.rest
    assert {row.errors for row in summed.rows if not row.warmup} == {""}


async def test_the_client_of_the_readme_counts_the_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (source,) = [block for block in BLOCKS if "end_of_speech_sample" in block]
    path = tmp_path / "client.py"
    path.write_text(source, encoding="utf-8")
    async with serving() as server:
        url = f"ws://127.0.0.1:{server.port}"
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(path), url, cwd=tmp_path, stdout=asyncio.subprocess.PIPE
        )
        told = (await process.communicate())[0].decode()
    assert process.returncode == 0
    transcript, done, wait = told.splitlines()
    assert transcript.startswith("{'type': 'transcript', ")
    assert done.startswith("{'type': 'done', ")
    assert re.fullmatch(r"\d+ ms from the end of speech to the first sound", wait)


@pytest.mark.engines
@pytest.mark.slow
async def test_it_runs_as_a_program_on_the_engines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "own_server.py"
    path.write_text(own_server(), encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    async with running_server([str(path)]) as server:
        turn = await say(recording("ked-01"), server)
    wrong, _ = word_errors(turn.said, turn.heard)
    assert wrong <= 1
    assert turn.reply
    assert set(turn.trace.stages_ms()) == set(STAGES)


def test_the_notebook_of_the_readme_is_six_lines() -> None:
    (cell,) = [block for block in BLOCKS if "start_labkit()" in block]
    assert len([line for line in cell.splitlines() if line]) == 6


def test_every_command_and_target_that_it_names_is_there() -> None:
    commands = set(re.findall(r"(?:`|bin/)labkit ([a-z]+)", README))
    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    assert commands >= {"serve", "talk", "drill", "token", "lab"}
    assert commands <= known
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"make ([a-z-]+)", README)) <= targets


def test_every_folder_of_the_package_has_its_line() -> None:
    folders = {path.parent.name for path in (ROOT / "labkit").glob("*/__init__.py")}
    listed = README.partition("## What is where")[2].partition("## Licences")[0]
    assert {folder for folder in folders if f" {folder}/ " not in listed} == set()
    named = {*re.findall(r"^  ([a-z]+(?:/|\.py)) ", listed, re.M)}
    assert len(named) >= 8
    assert {one for one in named if not (ROOT / "labkit" / one).exists()} == set()


def test_the_limits_of_the_plain_dialect_are_those_of_the_server() -> None:
    limits = ServerSettings()
    told = (
        (limits.max_message_bytes, 1024, "Binary messages may be {} KiB"),
        (limits.max_text_bytes, 1024, "text messages {} KiB"),
        (limits.max_read_bytes, 1024**2, "more than {} MiB"),
    )
    words = " ".join(README.split())
    for limit, unit, sentence in told:
        assert sentence.format(limit // unit) in words
    assert f"{2 * LONGEST_REPLY:,} bytes" in words
