"""The short form of `labkit drill formats`: two voices, and every kind of negative."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from itertools import cycle, product

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection

from labkit.audio.formats import AudioFormat
from labkit.audio.misread import MISMATCHES
from labkit.audio.pcm import Encoding, read_audio
from labkit.drills import Finding, Verdict, formats, misdeclared
from labkit.errors import ErrorCode, ProtocolError
from labkit.measure.recordings import load_manifest
from tests.client.peers import websocket
from tests.paths import SPEECH

RECORDINGS = load_manifest(SPEECH)
FORMS = [AudioFormat(*f) for f in product(Encoding, (8_000, 16_000, 44_100, 48_000), (1, 2))]


def silent(what: str, done: int, of: int) -> None:
    """Is told how far a drill has come."""


@pytest.mark.slow
async def test_every_lie_about_a_voice_is_found_and_named() -> None:
    assert {kind for lie in misdeclared.lies() for kind in lie.kinds} == MISMATCHES
    speech = np.resize(read_audio(RECORDINGS[4].path), 160_000)
    findings = [finding async for finding in formats.measure([speech], silent)]
    assert any("cannot be told" in finding.bar for finding in findings)
    assert [finding for finding in findings if not finding.holds] == []


def test_nothing_is_made_up_about_audio_that_is_as_declared() -> None:
    voiceless = [r for r in RECORDINGS if not r.kind.is_speech]
    sounds = misdeclared.negatives([RECORDINGS[20], *voiceless])
    for (name, sound), form in zip(sounds, cycle(FORMS[::5]), strict=False):
        data = form.encode(sound(form.sample_rate))
        assert formats.listen(form, data, 40, misdeclared.DELIVERIES["live"]) == [], (
            f"{name}, {form}"
        )


def test_every_delivery_keeps_the_order_of_messages() -> None:
    for delivery in misdeclared.DELIVERIES.values():
        times = delivery(0.04 * np.arange(1, 101))
        assert len(times) == 100
        assert np.diff(times).min() >= 0


@pytest.mark.parametrize(("right", "holds"), [(20, True), (19, True), (18, False)])
async def test_the_bar_is_95_percent_or_silence(
    right: int, holds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = ProtocolError(ErrorCode.RATE_MISMATCH, "", "")
    told = [[(1.0, fault)]] * right + [[]] * (20 - right)
    monkeypatch.setattr(formats, "_told", lambda members, speech: told)
    async for finding in formats.measure([], silent):
        if ErrorCode.RATE_MISMATCH in finding.bar.split() and "," not in finding.bar:
            assert finding.holds is holds
            assert finding.value == f"{5 * right} %, after 1.00 s"
        else:
            assert not finding.holds


@pytest.mark.parametrize(("right", "holds"), [(7, True), (6, True), (5, False)])
async def test_one_of_few_breaks_no_promise_of_a_share(
    right: int, holds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = ProtocolError(ErrorCode.RATE_MISMATCH, "", "")
    told = [[(1.0, fault)]] * right + [[]] * (7 - right)
    monkeypatch.setattr(formats, "_told", lambda members, speech: told)
    found = [one async for one in formats.measure([], silent)]
    assert {one.holds for one in found if one.bar == "≥ 95 % rate_mismatch"} == {holds}


async def test_a_false_alarm_is_counted_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    fault = ProtocolError(ErrorCode.RATE_MISMATCH, "too fast", "")
    monkeypatch.setattr(formats, "negatives", lambda _: [("tone", np.zeros)])
    monkeypatch.setattr(formats, "listen", lambda form, *_: [(1.0, fault)] * (form == FORMS[0]))
    count, example = [one async for one in formats.false_alarms([], silent)]
    assert (count.value, count.holds) == (1, False)
    assert example.value == "tone, pcm_s16le 8000 Hz mono, live: too fast"


@pytest.mark.parametrize("part", ["measure", "false_alarms"])
async def test_a_drill_that_computes_is_ended_at_the_next_stream(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = 0

    def judge(*_: object) -> list[tuple[float, ProtocolError]]:
        nonlocal judged
        if not (judged := judged + 1) % 2:
            task.cancel()  # as a signal does, in the midst of what computes
        return []

    async def work() -> None:
        speech = [np.zeros(160_000, np.float32)]
        findings = formats.measure(speech, silent) if part == "measure" else alarms
        async for _ in findings:
            pass

    monkeypatch.setattr(formats, "negatives", lambda _: [("tone", np.zeros)])
    monkeypatch.setattr(formats, "listen", judge)
    alarms = formats.false_alarms([], silent)
    task = asyncio.create_task(work())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert judged == 2


async def test_what_was_found_until_a_drill_is_ended_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def ended(*_: object) -> AsyncIterator[Finding]:
        yield Finding.none_of("first", 0)
        raise asyncio.CancelledError

    monkeypatch.setattr(formats, "measure", ended)
    findings: list[Finding] = []
    with pytest.raises(asyncio.CancelledError):
        await formats.run_formats(None, quick=True, tell=silent, findings=findings)
    assert [finding.name for finding in findings] == ["first"]


async def answered(answer: Callable[[bytes], str | None]) -> list[Finding]:
    """What is found of a server of the plain dialect that answers messages so."""

    async def handle(socket: ServerConnection) -> None:
        async for message in socket:
            said = answer(message) if isinstance(message, bytes) else None
            if said is not None:
                await socket.send(json.dumps({"type": "error", "code": said}))

    async with websocket(handle, select_subprotocol=None) as url:
        return await formats.send_all(url, np.zeros(3_200, np.float32), silent)


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "SECONDS", 0.2)
    monkeypatch.setattr(formats, "_LATE_S", 0.1)


@pytest.mark.real_time
@pytest.mark.usefixtures("_short")
async def test_any_server_is_judged_by_what_it_says() -> None:
    v1, *findings = await answered(lambda m: "looks_like_file" if m[:4] == b"RIFF" else None)
    assert (v1.name, v1.bar) == ("labkit.v1", "")
    by_name = {finding.name: finding for finding in findings}
    assert by_name["WAV with header, declared pcm_s16le 16000 Hz mono"].holds
    assert by_name["as declared, declared pcm_s16le 16000 Hz mono"].holds
    assert not by_name["32-bit floats, declared pcm_s16le 16000 Hz mono"].holds


@pytest.mark.usefixtures("_short")
async def test_a_server_that_looks_at_nothing_is_told_and_not_blamed() -> None:
    findings = await answered(lambda _: "too_fast")
    assert findings[-1].value == "not told by this server"
    assert {finding.name.partition(",")[0] for finding in findings if finding.bar} == {
        "as declared"
    }
    assert Verdict("x", tuple(findings)).holds


@pytest.mark.usefixtures("_short")
async def test_a_server_that_breaks_off_does_not_break_the_drill_and_is_seen() -> None:
    async def handle(socket: ServerConnection) -> None:
        await socket.recv()
        socket.transport.abort()

    async with websocket(handle, select_subprotocol=None) as url:
        findings = await formats.send_all(url, np.zeros(3_200, np.float32), silent)
    assert {finding.value for finding in findings if finding.bar} == {"hung up"}
    assert not Verdict("x", tuple(findings)).holds


def test_packets_of_ogg_come_without_pages_and_headers() -> None:
    def page(*packets: bytes) -> bytes:
        return b"OggS" + bytes(22) + bytes([len(packets), *map(len, packets)]) + b"".join(packets)

    assert misdeclared.packets(page(b"head") + page(b"tags") + page(b"ab", b"c")) == b"abc"
