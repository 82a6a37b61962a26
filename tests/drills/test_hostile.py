"""The drill `hostile`: what it takes for a broken promise, and that its attacks attack."""

import math
from typing import Any

import pytest

from labkit.drills.hostile import (
    NOBODY,
    Endured,
    audio_flood,
    broken_off,
    endure,
    judged,
    text_flood,
)
from labkit.drills.target import settings_of
from labkit.measure.callers import Pings
from labkit.measure.server_process import running_server
from labkit.server.app import VoiceServer
from labkit.voice.pipeline import EchoPipeline
from tests.support import until

MEBI = 1024 * 1024


def endured(**changed: Any) -> Endured:
    kept = {"kind": "pings", "pings": Pings([1.0] * 99), "grown_bytes": MEBI, "ended_s": 1.0}
    return Endured(**{**kept, **changed})


def test_what_is_within_its_bounds_holds() -> None:
    (row,) = judged(endured())
    assert row.holds
    assert row.value == "1.0/1 ms, 1.0 MiB, 1.0 s"
    assert row.bar == "20/100 ms, 8 MiB, 5 s"


@pytest.mark.parametrize(
    "changed",
    [
        {"pings": Pings([1.0] * 99 + [101.0])},
        {"pings": Pings([1.0] * 90 + [21.0] * 9)},
        {"pings": Pings([1.0], lost=1)},
        {"grown_bytes": 9 * MEBI},
        {"ended_s": 5.1},
        {"ended_s": math.inf},
        {"faults": ["Traceback"]},
    ],
)
def test_whatever_is_beyond_its_bound_breaks_the_promise(changed: dict[str, Any]) -> None:
    assert not all(row.holds for row in judged(endured(**changed)))


def test_memory_is_allowed_for_each_connection_and_bounded_in_all() -> None:
    assert judged(endured(kind="stalled", grown_bytes=30 * MEBI))[0].holds
    assert not judged(endured(kind="idle", grown_bytes=300 * MEBI))[0].holds


def test_beside_nobody_nothing_is_judged() -> None:
    (row,) = judged(endured(kind=NOBODY, ended_s=math.inf))
    assert not row.bar


async def test_an_attack_is_endured_from_its_begin_to_the_end_of_the_server() -> None:
    found = await endure("unfinished", 0.5)
    assert found.pings.ms
    assert found.grown_bytes > 0
    assert math.isfinite(found.ended_s)


async def test_an_attack_that_breaks_off_has_shown_nothing() -> None:
    async with running_server(["labkit.drills.hostile", "no such kind", "ws://127.0.0.1:1"]) as it:
        await until(lambda: it.process and it.process.poll() is not None)
        assert broken_off(it) == ["the attack broke off: KeyError: 'no such kind'"]
    async with running_server(["labkit.drills.hostile", "pings", "ws://127.0.0.1:1"]) as it:
        assert broken_off(it) == []


@pytest.fixture
def _small_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labkit.drills.hostile._FLOOD", 200)


@pytest.mark.usefixtures("_small_flood")
async def test_floods_are_stopped_and_slowed_down() -> None:
    settings = settings_of({"burst_s": 0.1, "message_burst": 20})
    async with VoiceServer(EchoPipeline(), settings) as server:
        assert (await text_flood(server.url)).holds
        assert (await audio_flood(server.url, 1.2)).holds


@pytest.mark.usefixtures("_small_flood")
async def test_a_server_without_limits_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labkit.drills.hostile._PATIENCE_S", 0.5)
    endless = {"max_messages_per_s": 1e6, "message_burst": 10**6}
    async with VoiceServer(EchoPipeline(), settings_of(endless)) as server:
        assert not (await audio_flood(server.url, 1.2)).holds
        assert not (await text_flood(server.url)).holds
