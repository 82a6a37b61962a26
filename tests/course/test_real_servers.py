"""The checks on servers as they come: labkit's own, the naive one, and servers that are none."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection

from labkit.audio.pcm import read_audio
from labkit.client.v1 import SessionClient
from labkit.course import checking
from labkit.course.checking import check, check_one
from labkit.course.checks import CHECKS
from labkit.course.checks.check import Check
from labkit.course.keep import assembled
from labkit.course.masters import sections
from labkit.course.verdict import Report, Reports, Verdict
from labkit.measure.recordings import recording
from labkit.measure.server_process import labkit_server, naive_server, running_server
from tests.course.chapters import CHAPTERS
from tests.course.servers import SOLUTION
from tests.paths import DATA

pytestmark = [
    pytest.mark.engines,
    pytest.mark.real_time,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not (DATA / "models" / "lab-asr-en").exists(), reason="the embedded models are not here"
    ),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_MINE", str(tmp_path / "mine"))
    monkeypatch.setattr(checking, "machine_factor", lambda: 1.0)


async def reports(command: list[str]) -> tuple[Report, ...]:
    async with running_server(command) as server:
        found = await check("all", server, seed=8, strict=False)
    assert isinstance(found, Reports)
    return found.all


async def test_labkits_own_server_passes_every_check() -> None:
    async with running_server(labkit_server()) as server:
        found = await check("all", server, seed=8, strict=False)
        assert isinstance(found, Reports)
        # A check of shares of a turn may have met a busy moment of this machine: not twice.
        late = [report.check for report in found.all if not report.passed]
        again = [await check(name, server, seed=8, strict=False) for name in late]
    assert [repr(report) for report in again if not report.passed] == []


@pytest.mark.parametrize("chapter", [3, 4])
async def test_labkits_own_client_talks_to_a_learners_server(chapter: int, tmp_path: Path) -> None:
    file = tmp_path / "server.py"
    file.write_text(assembled(sections(chapter)), encoding="utf-8")
    said = recording("ked-01")
    async with running_server([str(file)]) as server, SessionClient.connect(server.url) as client:
        answer = await client.say(read_audio(said.path), pace=0.0)
    assert answer.transcript.endswith("timer for forty three minutes"), said.text
    assert answer.done is not None
    assert answer.done.samples * 2 == len(answer.audio)
    assert answer.errors == []


async def test_the_naive_server_fails_in_many_ways_each_with_its_message() -> None:
    found = await reports(naive_server())
    failed = {report.check for report in found if report.verdict is Verdict.NOT_YET}
    assert failed >= {
        "ch1.pong_while_busy",
        "ch1.loud_samples",
        "ch1.odd_frame",
        "ch1.bounded_buffer",
        "ch1.reply_streams",
        "ch4.too_many",
    }
    faults = {report.fault.expected for report in found if report.fault is not None}
    assert len(faults) >= 8
    assert all(report.verdict in (Verdict.PASSED, Verdict.NOT_YET) for report in found)
    assert all("✘ " in report.diagram for report in found if not report.passed)


async def echo(socket: ServerConnection) -> None:
    async for message in socket:
        await socket.send(message)


async def recorded(socket: ServerConnection) -> None:
    """Answers whatever comes with the same words and the same sound."""
    async for message in socket:
        if message == "end_stream":
            await socket.send('{"type": "transcript", "text": "turn on the light"}')
            await socket.send(bytes(32_000))
            await socket.send('{"type": "done", "reply_text": "The light is on."}')


async def garbage(socket: ServerConnection) -> None:
    async for _ in socket:
        await socket.send('{"type": "transcript", "text": ["')
        await socket.send(b"\xff\x00\xfe")


async def silent(socket: ServerConnection) -> None:
    async for _ in socket:
        pass


@pytest.mark.parametrize("handler", [echo, recorded, garbage, silent])
async def test_what_is_no_voice_server_passes_nothing_and_breaks_nothing(
    handler: Callable[[ServerConnection], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "machine_factor", lambda: 0.05)  # nobody waits for long
    found = await check("all", handler, seed=8, strict=False)
    assert isinstance(found, Reports)
    assert {report.verdict for report in found.all} == {Verdict.NOT_YET}


DIES = """
import asyncio, os
from websockets.asyncio.server import serve
async def handle(socket):
    await socket.recv()
    print("out of memory", flush=True)
    os._exit(3)
async def main():
    async with serve(handle, "localhost", int(os.environ["PORT"])) as server:
        await server.serve_forever()
asyncio.run(main())
"""


async def test_a_server_that_dies_is_told_to_have_died(tmp_path: Path) -> None:
    file = tmp_path / "dies.py"
    file.write_text(DIES)
    found = await check("ch1", file, seed=8, strict=False)
    assert isinstance(found, Reports)
    for report in found.all:
        assert report.verdict is Verdict.NOT_YET
        assert report.fault is not None
        assert report.fault.observed == "the process of your server ended with code 3", report
        assert "[your server] out of memory" in report.told


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("one", CHECKS, ids=lambda one: one.name)
async def test_a_right_server_passes_whatever_is_drawn(one: Check) -> None:
    """`make check-course` draws a hundred times."""
    servers = CHAPTERS[int(one.chapter[2:])]
    for seed in range(int(os.environ.get("LABKIT_REPEATS", "2"))):
        report = await check_one(one, servers.target(one.name, SOLUTION), seed=seed)
        assert report.passed, repr(report)
