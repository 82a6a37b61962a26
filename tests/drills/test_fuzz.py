"""The drill `fuzz`: it holds against the server, and notices servers that break the promise."""

import logging
from collections import Counter
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest
from websockets.asyncio.server import ServerConnection

from labkit.drills import Dialect, Verdict
from labkit.drills.answers import Tally
from labkit.drills.fuzz import TARGET, Crowd, Fuzzed, fuzz, judged
from labkit.drills.target import Vital, running_target, settings_of
from labkit.errors import ErrorCode
from labkit.measure.callers import Pings
from labkit.measure.server_process import RunningServer
from labkit.protocol import v1
from labkit.server.app import VoiceServer
from labkit.voice.history import Exchange
from labkit.voice.pipeline import EchoPipeline
from labkit.voice.turn import Sink, Turn
from tests.client.peers import websocket

GROWTH = "growth from the half to the end, MB"
CROWD = Crowd(7, tuple(Dialect), parallel=8)
AFTER = {Vital.SESSIONS: 0, Vital.RSS_BYTES: 81_000_000, Vital.OPEN_FILES: 9}
GOOD = Fuzzed(
    Tally(sent=Counter(audio=40_000)),
    2.0,
    {Vital.SESSIONS: 0, Vital.RSS_BYTES: 70_000_000, Vital.OPEN_FILES: 9},
    {Vital.SESSIONS: 0, Vital.RSS_BYTES: 80_000_000, Vital.OPEN_FILES: 9},
    AFTER,
    [],
    {Dialect.PLAIN: "", Dialect.V1: ""},
    "",
    Pings([1.0, 2.0]),
)


@pytest.fixture(autouse=True)
def sessions_go_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The drill waits until sessions without a client have gone, and for answers."""
    monkeypatch.setattr("labkit.drills.fuzz._PATIENCE_S", 5.0)
    monkeypatch.setitem(TARGET, "resume_s", 0.3)
    monkeypatch.setitem(TARGET, "reap_interval_s", 0.1)


def nothing(_: str, __: int, ___: int) -> None:
    """Nobody wants to know how it goes on."""


def broken(verdict: Verdict) -> set[str]:
    return {finding.name for finding in verdict.findings if not finding.holds}


async def test_the_server_bears_some_hundred_hostile_messages() -> None:
    told: list[int] = []
    async with running_target(**TARGET) as server:
        fuzzed = await fuzz(server, 400, CROWD, lambda _, sent, __: told.append(sent))
    # How long a ping takes here says more of this machine than of the server.
    assert broken(judged(fuzzed, CROWD)) <= {"its longest round trip, ms"}
    assert 400 <= told[-1] == fuzzed.tally.sent.total() < 420
    assert {"error", "pong", "transcript", "session.started"} <= set(fuzzed.tally.answers)
    assert fuzzed.tally.codes[ErrorCode.INVALID_JSON.value]


class Faulty(EchoPipeline):
    """Fails in a way that no engine fails."""

    async def answer(self, turn: Turn, sink: Sink) -> Exchange:
        raise KeyError("a fault")


async def test_a_server_that_fails_in_turns_is_caught(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1)
    async with VoiceServer(Faulty(), settings_of(TARGET)) as server:
        fuzzed = await fuzz(RunningServer(server.url), 150, CROWD, nothing)
    found = broken(judged(fuzzed, CROWD))
    assert {
        "answers outside of the dialect",
        "a good turn of plain",
        "a good turn of v1",
    } <= found
    assert any("1011" in example for example in fuzzed.tally.examples)


def answering(answer: str | bytes) -> AbstractAsyncContextManager[str]:
    """A server of labkit.v1 that says the same to everything."""

    async def handle(socket: ServerConnection) -> None:
        async for _ in socket:
            await socket.send(answer)

    return websocket(handle, select_subprotocol=None, subprotocols=[v1.SUBPROTOCOL])


@pytest.mark.parametrize("answer", ["hello", bytes(320), '{"type": "pong"}'])
async def test_a_server_that_speaks_no_dialect_is_caught(
    answer: str | bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labkit.drills.fuzz._PATIENCE_S", 0.2)
    async with answering(answer) as url:
        fuzzed = await fuzz(RunningServer(url), 60, CROWD, nothing)
    found = broken(judged(fuzzed, CROWD))
    assert {"answers outside of the dialect", "/healthz"} <= found


def test_a_good_run_holds() -> None:
    verdict = judged(GOOD, CROWD)
    assert verdict.holds
    assert "40,000 hostile messages, seed 7" in verdict.title


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        (replace(GOOD, log_faults=["Traceback"]), "faults in the log"),
        (replace(GOOD, after=AFTER | {Vital.SESSIONS: 1}), "sessions left over"),
        (replace(GOOD, after=AFTER | {Vital.OPEN_FILES: 10}), "files left open"),
        (replace(GOOD, after=AFTER | {Vital.RSS_BYTES: 85_100_000}), GROWTH),
        (replace(GOOD, health="HTTP 500"), "/healthz"),
        (replace(GOOD, pings=Pings([1.0], 101.0)), "its longest round trip, ms"),
        (replace(GOOD, pings=Pings([1.0], lost=1)), "pings of an honest caller that were lost"),
        (replace(GOOD, served={Dialect.V1: "no answer"}), "a good turn of v1"),
        (
            replace(GOOD, tally=Tally(sent=Counter(audio=1), stuck=Counter(TLS=1))),
            "connections without an end",
        ),
        (
            replace(GOOD, tally=Tally(sent=Counter(audio=1), illegal=1)),
            "answers outside of the dialect",
        ),
    ],
)
def test_each_broken_promise_is_told_by_its_name(wrong: Fuzzed, name: str) -> None:
    assert broken(judged(wrong, CROWD)) == {name}


def test_memory_is_not_judged_while_a_server_grows_to_its_working_size() -> None:
    grown = replace(GOOD, after=AFTER | {Vital.RSS_BYTES: 90_000_000})
    assert not judged(grown, CROWD).holds
    assert judged(replace(grown, tally=Tally(sent=Counter(audio=39_999))), CROWD).holds


def test_what_a_server_does_not_tell_is_not_judged() -> None:
    unknown = replace(GOOD, before={}, half={}, after={}, log_faults=None)
    names = {finding.name for finding in judged(unknown, CROWD).findings if finding.bar}
    assert "files left open" not in names
    assert "faults in the log" not in names


@pytest.mark.parametrize(("attached", "holds"), [(0, True), (1, False)])
def test_a_server_of_other_settings_may_let_sessions_wait_that_may_come_back(
    attached: int, holds: bool
) -> None:
    before = {**AFTER, f"{Vital.SESSIONS} attached": 0}
    after = before | {Vital.SESSIONS: 5, f"{Vital.SESSIONS} attached": attached}
    found = replace(GOOD, before=before, half=before, after=after, log_faults=None)
    assert judged(found, CROWD).holds is holds
