"""What several tests of loads share."""

import json
from pathlib import Path

import numpy as np
import pytest

from labkit.audio.pcm import write_wav
from labkit.client.speech import Clock
from labkit.measure.callers import Manners
from labkit.measure.load import Load
from tests.client.conftest import virtual_time as virtual_time


@pytest.fixture
def config(tmp_path: Path) -> Load:
    """Three short recordings, of which two hold an utterance."""
    lines = []
    for name, kind in (("a", "utterance"), ("b", "utterance"), ("c", "noise")):
        write_wav(tmp_path / f"{name}.wav", np.full(3_200, 0.2, np.float32))
        line = {"file": f"{name}.wav", "text": "hi", "voice": "v", "kind": kind}
        line |= {"synthesiser": "s", "licence": "l", "end_of_speech_sample": 2_559}
        if kind == "noise":
            line |= {"text": "", "end_of_speech_sample": None}
        lines.append(json.dumps(line))
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines))
    manners = Manners(pause_s=0.5, patience_s=200)
    return Load(
        recordings=tmp_path,
        sessions=(1, 3),
        seconds=4,
        manners=manners,
        clock=Clock(speed=20),
    )
