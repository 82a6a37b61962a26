"""Floods: they hold against the server, and are noticed where nothing stops them."""

from labkit.drills.floods import audio_flood, text_flood, untaken_refusals
from labkit.drills.target import settings_of
from labkit.server.app import VoiceServer
from labkit.voice.pipeline import EchoPipeline


async def test_floods_are_stopped_slowed_down_or_bounded() -> None:
    settings = settings_of({"audio_burst_s": 1.0, "message_burst": 20, "replay_bytes": 4096})
    async with VoiceServer(EchoPipeline(), settings) as server:
        assert (await text_flood(server.url, 200)).holds
        assert (await audio_flood(server.url, 1.2)).holds
        closed, *_ = await untaken_refusals(server.url, 200)
        assert closed.holds


async def test_a_server_without_limits_is_caught() -> None:
    endless = {"max_messages_per_s": 1e6, "message_burst": 10**6, "replay_bytes": 10**8}
    async with VoiceServer(EchoPipeline(), settings_of(endless)) as server:
        assert not (await audio_flood(server.url, 1.2)).holds
        closed, *_ = await untaken_refusals(server.url, 200, patience_s=0.5)
        assert not closed.holds
        assert not (await text_flood(server.url, 200, patience_s=0.5)).holds
