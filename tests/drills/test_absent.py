"""The drills `stalled` and `abandoned` in short, and that they see what grows and what is left."""

import math

import numpy as np
import pytest

from labkit.drills.absent import (
    LIMITS,
    WAYS,
    abandon,
    judged,
    left_behind,
    listen,
    settled,
    stalling,
)
from labkit.drills.target import Vital, settings_of
from labkit.server.app import VoiceServer
from labkit.session.settings import ServerSettings
from labkit.voice.pipeline import EchoPipeline, VoicePipeline
from labkit.voice.scripted import ScriptedAsr, ScriptedLlm, scripted_engines
from tests.support import until

SAID = np.full(8000, 0.25, np.float32)
MIB = 1024 * 1024


def server(**settings: float) -> VoiceServer:
    """A server whose replies are longer than any buffer on the way takes."""
    engines = scripted_engines(llm=ScriptedLlm(lambda _: "word " * 20 + "end. " + "word " * 400))
    chosen = ServerSettings(host="127.0.0.1", port=0, **settings)  # type: ignore[arg-type]
    return VoiceServer(VoicePipeline(engines), chosen)


async def test_little_is_held_for_clients_that_do_not_read_and_others_are_served() -> None:
    async with server() as this, stalling(this.url, [SAID], 4, lambda *_: None):
        await until(lambda: this.held_bytes() > 4 * this.settings.replay_bytes, seconds=20)
        heard: list[str] = []
        waits = await listen(this.url, [SAID], 0.0, lambda now, *_: heard.append(now))
        assert not waits
        assert this.held_bytes() < 4 * MIB


async def test_who_gets_no_reply_is_not_taken_for_quick() -> None:
    deaf = VoicePipeline(scripted_engines(asr=ScriptedAsr(lambda _: "")))
    async with VoiceServer(deaf, ServerSettings(host="127.0.0.1", port=0)) as this:
        waits = await listen(this.url, [SAID], 0.2, lambda *_: None)
    assert set(waits) == {math.inf}


async def test_those_that_never_read_are_closed() -> None:
    async with (
        server(send_timeout_s=0.1) as this,
        stalling(this.url, [SAID], 2, lambda *_: None),
    ):
        await until(lambda: b'labkit_closes_total{code="4008"} 2.0' in this.metrics.page())


def found(**changes: object) -> list[bool]:
    values: dict[str, object] = {
        "clients": 10,
        "grown": 5 * MIB,
        "held": 3 * MIB,
        "without": [100.0] * 20,
        "meanwhile": [110.0] * 20,
        "closed": 10,
    }
    return [one.holds for one in judged(**{**values, **changes})]  # type: ignore[arg-type]


def test_what_a_server_sways_by_is_not_laid_on_a_few_clients() -> None:
    assert all(found(clients=4, grown=5 * MIB))
    assert not all(found(clients=4, grown=9 * MIB))


@pytest.mark.parametrize(
    "changes",
    [
        {"grown": 11 * MIB},
        {"meanwhile": [130.0] * 20},
        {"meanwhile": []},
        {"meanwhile": [110.0] * 20 + [math.inf]},
        {"closed": 9},
    ],
)
def test_what_breaks_the_promise_is_seen(changes: dict[str, object]) -> None:
    assert all(found())
    assert not all(found(**changes))


# -- clients that leave ------------------------------------------------------------------------

SHORT = {**LIMITS, "idle_s": 0.5, "idle_audio_s": 0.5, "max_session_s": 1.0, "resume_s": 0.25}
MANY = 1_000_000
NOTHING = {Vital.TASKS: MANY, Vital.OPEN_FILES: MANY}
"""The client is in the server's process: its tasks and files are counted, too."""


@pytest.mark.slow
async def test_every_way_of_leaving_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labkit.drills.absent.LIMITS", SHORT)
    monkeypatch.setattr("labkit.drills.absent._HALF_OPEN_S", 0.5)
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
