"""What README.md shows works as it stands there."""

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from websockets.asyncio.server import serve

from labkit.client.plain import VoiceClient
from labkit.measure.server_process import running_server
from labkit.measure.wer import word_errors
from labkit.notebook.turn import recording, say
from labkit.voice.pipeline import EchoPipeline, Pipeline, VoicePipeline
from labkit.voice.scripted import scripted_engines
from tests.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.M | re.S)


def own_server() -> str:
    (source,) = [block for block in BLOCKS if "async def converse" in block]
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


@pytest.mark.engines
@pytest.mark.slow
async def test_it_runs_as_a_program_on_the_engines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = own_server().replace("port=8766", "port=0")
    (tmp_path / "own_server.py").write_text(source, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    async with running_server(["own_server"]) as server:
        turn = await say(recording("ked-01"), server)
    wrong, _ = word_errors(turn.said, turn.heard)
    assert wrong <= 1
    assert turn.reply


def test_the_notebook_of_the_readme_is_six_lines() -> None:
    (cell,) = [block for block in BLOCKS if "start_labkit()" in block]
    assert len([line for line in cell.splitlines() if line]) == 6
