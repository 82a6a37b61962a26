"""The drill `abandoned` in short, and that it sees what is left."""

from dataclasses import replace

import pytest

from labkit.drills.abandoned import LIMITS, WAYS, abandon, judged, settled
from labkit.drills.target import Vitals, settings_of
from labkit.server.app import VoiceServer
from labkit.voice.pipeline import EchoPipeline

SHORT = {**LIMITS, "idle_s": 0.5, "idle_audio_s": 0.5, "max_session_s": 1.0, "resume_s": 0.25}
MANY = 1_000_000
NOTHING = Vitals(sessions=0, tasks=MANY, held_bytes=0, queued_calls=0, open_files=MANY)
"""The client is in the server's process: its tasks and files are counted, too."""


@pytest.mark.slow
async def test_every_way_of_leaving_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labkit.drills.abandoned.LIMITS", SHORT)
    monkeypatch.setattr("labkit.drills.abandoned._HALF_OPEN_S", 0.5)
    async with VoiceServer(EchoPipeline(), settings_of(SHORT)) as server:
        await abandon(server.url, bytes(96_000), 2, lambda *_: None)
        await settled(server.url, NOTHING, patience_s=5.0)
        assert server.sessions == 0
        assert server.held_bytes() == 0


@pytest.mark.parametrize("field", ["sessions", "tasks", "held_bytes", "queued_calls", "open_files"])
def test_whatever_is_left_breaks_the_promise(field: str) -> None:
    before = Vitals(1, 2, 3, 4, 5)
    assert all(finding.holds for finding in judged(before, before))
    left = replace(before, **{field: 99})
    assert [finding.holds for finding in judged(before, left)].count(False) == 1


def test_every_way_is_explained() -> None:
    assert all(way.__doc__ for way in WAYS)
