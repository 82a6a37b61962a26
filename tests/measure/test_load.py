"""Levels and whole loads, against servers in this process and in processes of their own."""

import csv
import json
from pathlib import Path

import pytest

from labkit.errors import ClientError, LabkitError
from labkit.measure.capacity import BARE
from labkit.measure.load import (
    GIVEN,
    LABKIT,
    LoadProgress,
    recorded_speech,
    run_load,
    write_load,
)
from labkit.measure.load_config import LoadConfig
from labkit.measure.pace import Pace
from labkit.server.app import VoiceServer
from labkit.session.settings import ServerSettings
from labkit.voice.pipeline import EchoPipeline
from tests.paths import SPEECH

PACE = Pace(speed=20)


def test_utterances_are_cut_at_the_end_of_their_speech(config: LoadConfig) -> None:
    speeches = recorded_speech(config.recordings, chunk_ms=40)
    assert [len(speech.payloads) for speech in speeches] == [4, 4]


def test_the_project_s_recordings_can_be_said() -> None:
    assert all(speech.length_ns > 5 * 10**8 for speech in recorded_speech(SPEECH, 40))


def test_a_folder_without_utterances_says_so(config: LoadConfig) -> None:
    manifest = config.recordings / "manifest.jsonl"
    manifest.write_text(manifest.read_text().splitlines()[-1])
    with pytest.raises(LabkitError, match=r"^recordings: .* holds no utterance"):
        recorded_speech(config.recordings, 40)


async def test_a_given_server_is_loaded_alone(config: LoadConfig, tmp_path: Path) -> None:
    async with VoiceServer(EchoPipeline(), ServerSettings(host="127.0.0.1", port=0)) as server:
        given = LoadConfig(
            recordings=config.recordings, sessions=(1, 2), seconds=2, url=server.url,
            manners=config.manners,
        )  # fmt: skip
        load = await run_load(given, pace=PACE)
    assert [(level.server, level.sessions) for level in load.levels] == [(GIVEN, 1), (GIVEN, 2)]
    write_load(load, tmp_path / "deep" / "folder")
    written = json.loads((tmp_path / "deep" / "folder" / "load.json").read_text())
    assert written["about"]["settings"]["url"] == given.url
    assert written["about"]["settings"]["sessions"] == [1, 2]
    assert written["ratios_over_bare"] == []
    assert written["conclusion"][0].startswith("given ")


async def test_a_given_address_where_nobody_answers_is_an_error(config: LoadConfig) -> None:
    wrong = LoadConfig(recordings=config.recordings, url="ws://127.0.0.1:1")
    with pytest.raises(ClientError, match="no voice server answers at ws://127.0.0.1:1"):
        await run_load(wrong)


async def test_both_servers_get_every_level_in_processes_of_their_own(
    config: LoadConfig, tmp_path: Path
) -> None:
    told: list[LoadProgress] = []
    load = await run_load(config, told.append, PACE)
    assert {(level.server, level.sessions) for level in load.levels} == {
        (server, sessions) for server in (LABKIT, BARE) for sessions in (1, 3)
    }
    assert [level.sessions for level in load.levels] == [1, 1, 3, 3]
    assert all(level.turns and not level.lost and not level.errors for level in load.levels)
    bare = [level for level in load.levels if level.server == BARE]
    assert all(level.bytes_received < level.bytes_sent / 10 for level in bare)
    assert (told[-1].done_s, told[-1].total_s) == (16, 16)
    write_load(load, tmp_path)
    with (tmp_path / "load.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 4
    about = json.loads((tmp_path / "load.json").read_text())["about"]
    assert {"cpu", "versions", "settings", "bound_ms"} <= set(about)
