"""The drill `abandoned` in short, and that it sees what is left."""

from dataclasses import replace

import pytest

from labkit.drills.abandoned import LIMITS, WAYS, abandon, judged, settled
from labkit.drills.target import Vitals, settings_of
from labkit.server.app import VoiceServer
from labkit.voice.pipeline import EchoPipeline

SHORT = {**LIMITS, "idle_s": 1.0, "idle_audio_s": 1.0, "max_session_s": 2.0, "resume_s": 0.5}
NOTHING = Vitals(0, 0, 0, 0, 0)


@pytest.mark.slow
async def test_every_way_of_leaving_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labkit.drills.abandoned.LIMITS", SHORT)
    monkeypatch.setattr("labkit.drills.abandoned._HALF_OPEN_S", 1.0)
    async with VoiceServer(EchoPipeline(), settings_of(SHORT)) as server:
        await abandon(server.url, bytes(96_000), 2, lambda *_: None)
        # The client is in this process, too: only what is the server's own counts here.
        await settled(server.url, NOTHING, patience_s=2.0)
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
