"""One level against a server in the same process."""

from labkit.measure.level import run_level
from labkit.measure.load import recorded_speech
from labkit.measure.load_config import LoadConfig
from labkit.measure.pace import Pace
from labkit.measure.server_process import RunningServer
from labkit.server.app import VoiceServer
from labkit.session.settings import ServerSettings
from labkit.voice.pipeline import EchoPipeline

PACE = Pace(speed=20)


async def test_a_level_counts_callers_turns_and_refusals(config: LoadConfig) -> None:
    speeches = recorded_speech(config.recordings, 40)
    told: list[float] = []
    settings = ServerSettings(host="127.0.0.1", port=0, max_sessions=2)
    async with VoiceServer(EchoPipeline(), settings) as server:
        here = RunningServer(server.url)
        level = await run_level(here, 3, speeches, config, name="x", pace=PACE, tell=told.append)
    assert (level.sessions, level.refused, level.lost, level.errors) == (3, 1, 0, {})
    assert level.turns >= 2
    assert level.turn_ms is not None
    assert level.turn_ms.sample == level.turns
    assert (level.resources.rss_peak, level.resources.cpu_per_s) == (None, None)
    assert told[-1] == config.seconds
    assert told == sorted(told)


async def test_nobody_there_refuses_every_caller(config: LoadConfig) -> None:
    speeches = recorded_speech(config.recordings, 40)
    nowhere = RunningServer("ws://127.0.0.1:1")
    level = await run_level(nowhere, 3, speeches, config, name="x", pace=PACE)
    assert (level.sessions, level.refused, level.turns, level.turn_ms) == (3, 3, 0, None)
