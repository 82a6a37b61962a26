"""Levels and whole loads, against servers in this process and in processes of their own."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import ClientError, LabkitError
from labkit.measure.load import (
    GIVEN,
    Load,
    recorded_speech,
    run_level,
)
from labkit.measure.load_summary import BARE
from labkit.measure.plan import plan_levels
from labkit.measure.results import Results, conduct
from labkit.measure.server_process import RunningServer
from labkit.measure.targets import LABKIT
from labkit.server.app import VoiceServer
from labkit.session.settings import ServerSettings
from labkit.voice.pipeline import EchoPipeline
from tests.client.peers import of_the_readme, websocket
from tests.paths import SPEECH


@given(st.integers(0, 1000))
def test_every_server_gets_every_level_and_levels_rise(seed: int) -> None:
    plan = plan_levels((1, 8), ("a", "b"), seed=seed)
    assert sorted(plan[:2]) == [(1, "a"), (1, "b")]
    assert sorted(plan[2:]) == [(8, "a"), (8, "b")]
    assert plan == plan_levels((1, 8), ("a", "b"), seed=seed)


def test_no_server_always_comes_first() -> None:
    first = [name for _, name in plan_levels(range(1, 30), ("a", "b"), seed=1)[::2]]
    assert {"a", "b"} == set(first)


def test_engines_are_held_against_a_wider_bound() -> None:
    echo, voice = (Load(recordings=Path(), pipeline=name) for name in ("echo", "voice"))
    assert (echo.bound_ms, voice.bound_ms) == (100, 1000)


async def test_a_level_counts_callers_turns_and_refusals(config: Load) -> None:
    speeches = recorded_speech(config.recordings, 40)
    told: list[float] = []
    settings = ServerSettings(host="127.0.0.1", port=0, max_sessions=2)
    async with VoiceServer(EchoPipeline(), settings) as server:
        here = RunningServer(server.url)
        level = await run_level(here, 3, speeches, config, name="x", tell=told.append)
    assert (level.sessions, level.refused, level.lost, level.errors) == (3, 1, 0, {})
    assert level.turns >= 2
    assert level.turn_ms is not None
    assert level.turn_ms.sample == level.turns
    assert (level.rss_peak, level.cpu_per_s) == (None, None)
    assert told[-1] == config.seconds
    assert told == sorted(told)


async def test_nobody_there_refuses_every_caller(config: Load) -> None:
    speeches = recorded_speech(config.recordings, 40)
    nowhere = RunningServer("ws://127.0.0.1:1")
    level = await run_level(nowhere, 3, speeches, config, name="x")
    assert (level.sessions, level.refused, level.turns, level.turn_ms) == (3, 3, 0, None)


def test_utterances_are_cut_at_the_end_of_their_speech(config: Load) -> None:
    speeches = recorded_speech(config.recordings, chunk_ms=40)
    assert [len(speech) for speech in speeches] == [2_560, 2_560]


def test_the_project_s_recordings_can_be_said() -> None:
    assert all(len(speech) > 8_000 for speech in recorded_speech(SPEECH, 40))


def test_a_folder_without_utterances_says_so(config: Load) -> None:
    manifest = config.recordings / "manifest.jsonl"
    manifest.write_text(manifest.read_text().splitlines()[-1])
    with pytest.raises(LabkitError, match=r"^recordings: .* holds no utterance"):
        recorded_speech(config.recordings, 40)


async def test_a_given_server_is_loaded_alone(config: Load, tmp_path: Path) -> None:
    async with VoiceServer(EchoPipeline(), ServerSettings(host="127.0.0.1", port=0)) as server:
        url = server.url
        secret = url.replace("//", "//me:secret@")
        given = replace(config, sessions=(1, 2), seconds=2, url=secret)
        load = await conduct(given, Results(tmp_path / "deep" / "folder"))
    assert [(level.server, level.sessions) for level in load.levels] == [(GIVEN, 1), (GIVEN, 2)]
    written = json.loads((tmp_path / "deep" / "folder" / "load.json").read_text())
    assert written["about"]["settings"]["url"] == url
    assert written["about"]["settings"]["sessions"] == [1, 2]
    assert written["ratios_over_bare"] == []
    assert written["conclusion"][0].startswith("given ")


async def test_a_given_server_that_does_not_stream_is_loaded_and_told_of(
    config: Load, tmp_path: Path
) -> None:
    async with websocket(of_the_readme()) as url:
        given = replace(config, sessions=(1,), seconds=2, url=url)
        load = await conduct(given, Results(tmp_path / "results"))
    (level,) = load.levels
    assert (level.lost, level.errors) == (0, {})
    assert level.turns > 0
    assert "does not offer ?reply=stream" in load.sentences()[-1]


async def test_a_given_address_where_nobody_answers_is_an_error(
    config: Load, tmp_path: Path
) -> None:
    wrong = Load(recordings=config.recordings, url="ws://127.0.0.1:1")
    with pytest.raises(ClientError, match="no voice server answers at ws://127.0.0.1:1"):
        await conduct(wrong, Results(tmp_path / "results"))
    assert not (tmp_path / "results").exists()


async def test_both_servers_get_every_level_in_processes_of_their_own(
    config: Load, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    folder = tmp_path / "results"
    load = await conduct(config, Results(folder), lambda _, *step: told.append(step))
    assert {(level.server, level.sessions) for level in load.levels} == {
        (server, sessions) for server in (LABKIT, BARE) for sessions in (1, 3)
    }
    assert [level.sessions for level in load.levels] == [1, 1, 3, 3]
    assert all(level.turns and not level.lost and not level.errors for level in load.levels)
    assert told[-1] == (16, 16)
    with (folder / "load.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 4
    about = json.loads((folder / "load.json").read_text())["about"]
    assert {"cpu", "versions", "settings", "bound_ms"} <= set(about)
