"""The drill `stalled` in short, and that it sees what grows."""

import math

import numpy as np
import pytest

from labkit.drills.stalled import judged, listen, stalling
from labkit.server.app import VoiceServer
from labkit.session.settings import ServerSettings
from labkit.voice.pipeline import VoicePipeline
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
