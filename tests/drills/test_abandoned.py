"""The drill `abandoned` in short, and that it sees what is left."""

import pytest

from labkit.drills.abandoned import LIMITS, WAYS, abandon, left_behind, settled
from labkit.drills.target import Vital, settings_of
from labkit.server.app import VoiceServer
from labkit.voice.pipeline import EchoPipeline

SHORT = {**LIMITS, "idle_s": 0.5, "idle_audio_s": 0.5, "max_session_s": 1.0, "resume_s": 0.25}
MANY = 1_000_000
NOTHING = {Vital.TASKS: MANY, Vital.OPEN_FILES: MANY}
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


FIGURES = (Vital.SESSIONS, Vital.TASKS, Vital.HELD_BYTES, Vital.QUEUED_CALLS, Vital.OPEN_FILES)


@pytest.mark.parametrize("figure", FIGURES)
def test_whatever_is_left_or_not_told_breaks_the_promise(figure: str) -> None:
    before = dict(zip(FIGURES, range(1, 6), strict=True))
    assert all(finding.holds for finding in left_behind(before, before))
    untold = {name: number for name, number in before.items() if name != figure}
    for after in (before | {figure: 99}, untold):
        assert [finding.holds for finding in left_behind(before, after)].count(False) == 1


def test_what_a_server_tells_neither_before_nor_after_is_not_left_behind() -> None:
    echo = {figure: 1 for figure in FIGURES if figure != Vital.QUEUED_CALLS}
    judged_ones = [finding.name for finding in left_behind(echo, echo) if finding.bar]
    assert judged_ones == ["sessions", "tasks", "held bytes", "open files"]
    assert all(finding.holds for finding in left_behind(echo, echo))


def test_every_way_is_explained() -> None:
    assert all(way.__doc__ for way in WAYS)
