"""The drill `resume` in short, and that it sees what it is there to see."""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from labkit.drills.resume import Call, Cuts, Harm, compare, cut_calls, judged, stream, utterances
from labkit.drills.served import scripted_pipeline
from labkit.errors import ProtocolError
from labkit.measure.netem import UNCHANGED
from labkit.protocol.replay import Missing, Position, ReplayWindow
from labkit.server.app import VoiceServer
from labkit.session.settings import ServerSettings
from labkit.voice.pipeline import EchoPipeline, VoicePipeline
from labkit.voice.scripted import ScriptedAsr, scripted_engines
from labkit.voice.turn import Pipeline


@asynccontextmanager
async def serving(pipeline: Pipeline) -> AsyncIterator[str]:
    async with VoiceServer(pipeline, ServerSettings(host="127.0.0.1", port=0)) as server:
        yield server.url


def nothing(_: str, __: int, ___: int) -> None:
    """Nobody wants to know how it goes on."""


async def test_an_echo_loses_and_repeats_nothing() -> None:
    cuts = Cuts(20, seed=3)
    async with serving(EchoPipeline()) as url:
        harm = await cut_calls(url, utterances, cuts, 3, nothing)
    assert all(finding.holds for finding in judged("echo", cuts, harm)), harm
    assert harm.turns > 3
    assert len(harm.away_s) > 8


async def test_engines_answer_as_if_nothing_had_been_cut() -> None:
    cuts = Cuts(3, seed=1, for_each=1)
    said = np.full(16_000, 0.25, np.float32)
    async with serving(VoicePipeline(scripted_engines())) as url:
        harm = await cut_calls(url, lambda _: Call([said]), cuts, 1, nothing, at_once=1)
    assert all(finding.holds for finding in judged("engines", cuts, harm)), harm


def small_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Utterances that lie a second apart."""
    for name, value in {
        "_UTTERANCE_S": (0.2, 0.3),
        "_LONG_SILENCE_S": (0.0, 0.1),
        "_SILENCE": 11_200,
    }.items():
        monkeypatch.setattr(f"labkit.drills.resume.{name}", value)


async def test_a_stream_of_utterances_is_heard_as_if_nothing_had_been_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small_streams(monkeypatch)
    cuts = Cuts(3, seed=2, for_each=3)
    async with serving(scripted_pipeline()) as url:
        harm = await cut_calls(url, stream, cuts, 2, nothing, at_once=1)
    assert all(finding.holds for finding in judged("streams", cuts, harm)), harm
    assert harm.turns


async def test_a_server_that_hears_less_after_a_cut_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small_streams(monkeypatch)
    heard = itertools.count()
    forgetful = ScriptedAsr(lambda audio: f"{len(audio)} samples, {next(heard)}")
    cuts = Cuts(1, seed=2)
    async with serving(VoicePipeline(scripted_engines(forgetful))) as url:
        harm = await cut_calls(url, stream, cuts, 2, nothing, at_once=1)
    assert harm.messages_wrong


@pytest.mark.parametrize(
    ("got", "found"),
    [
        (b"aabbcc", (0, 0, 0)),
        (b"aabb", (1, 0, 0)),
        (b"aabbccdd", (0, 1, 0)),
        (b"aaddcc", (0, 0, 1)),
        (b"", (3, 0, 0)),
    ],
)
def test_samples_that_differ_are_counted(got: bytes, found: tuple[int, int, int]) -> None:
    assert compare(b"aabbcc", got) == found


def test_the_same_seed_plans_the_same_cuts() -> None:
    plans = [[Cuts(10, seed).plan(number) for number in range(5)] for seed in (1, 1, 2)]
    assert plans[0] == plans[1] != plans[2]


def test_a_caller_is_cut_as_often_as_wanted_and_no_more() -> None:
    cuts = Cuts(10, seed=1, for_each=1)
    assert cuts.plan(0) != UNCHANGED
    assert cuts.plan(1) == UNCHANGED


@pytest.mark.parametrize(
    "harm",
    [
        Harm(turns=1, lost=1),
        Harm(turns=1, surplus=1),
        Harm(turns=1, changed=1),
        Harm(turns=1, messages_wrong=1),
        Harm(turns=1, gaps=1),
        Harm(turns=1, broken=["gone"]),
        Harm(turns=0),
    ],
)
def test_any_harm_breaks_the_promise(harm: Harm) -> None:
    assert not all(finding.holds for finding in judged("echo", Cuts(0, seed=1), harm))


async def test_a_server_that_forgets_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(self: ReplayWindow, received: Position) -> Missing | None:
        self.require(received)
        return None

    monkeypatch.setattr(ReplayWindow, "rewind", forget)
    monkeypatch.setattr("labkit.drills.resume._PATIENCE_S", 0.5)
    cuts = Cuts(40, seed=3)
    async with serving(EchoPipeline()) as url:
        harm = await cut_calls(url, utterances, cuts, 3, nothing)
    assert not all(finding.holds for finding in judged("echo", cuts, harm))


def test_a_claim_that_cannot_be_is_no_way_to_hide_a_loss() -> None:
    window = ReplayWindow(max_bytes=100, max_samples=100, until_acknowledged=True)
    with pytest.raises(ProtocolError):
        window.rewind(Position(messages=1, samples=0))
