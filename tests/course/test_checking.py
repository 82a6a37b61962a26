"""Checks at work: on a handler, a file and an address; what goes wrong, and whose fault it is."""

import asyncio
import errno
import gc
import json
import os
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from labkit.course import checking
from labkit.course.checking import check, check_one
from labkit.course.checks import find_checks
from labkit.course.checks.check import Check, checked, checked_value
from labkit.course.folder import Progress
from labkit.course.hosting import hosted, split_output
from labkit.course.keep import server_file
from labkit.course.masters import stubs
from labkit.course.probe import Probe, Trial
from labkit.course.verdict import CheckFailed, NotYet, Report, Reports, Verdict
from labkit.errors import LabkitError

PONG = """
import asyncio, os, sys
from websockets.asyncio.server import serve

async def handle(socket):
    async for message in socket:
        if message == "ping":
            await socket.send("pong")

async def main(port):
    async with serve(handle, "127.0.0.1", port) as server:
        print(f"ready at ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await server.serve_forever()

if __name__ == "__main__":
    asyncio.run(main(int(os.environ.get("PORT", "0"))))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LABKIT_MINE", str(tmp_path / "mine"))
    monkeypatch.setenv("LABKIT_STRICT", "0")
    monkeypatch.setattr(checking, "machine_factor", lambda: 1.0)
    return tmp_path


async def answers_ping(socket: ServerConnection) -> None:
    async for message in socket:
        if message == "ping":
            await socket.send("pong")


@checked("ch1.try", "A ping is answered.")
async def ping(probe: Probe) -> None:
    """One `ping`."""
    caller = await probe.connect()
    await caller.send("ping")
    await caller.expect("pong")
    probe.ok("answers")


async def run(target: object, one: Check = ping) -> Report:
    return await check_one(one, target, seed=1)


async def test_a_handler_a_function_that_makes_one_a_file_and_an_address(folder: Path) -> None:
    file = folder / "server.py"
    file.write_text(PONG, encoding="utf-8")
    for target in (answers_ping, lambda: answers_ping, file, str(file)):
        assert (await run(target)).verdict is Verdict.PASSED
    nobody = await run("ws://127.0.0.1:1")
    assert nobody.verdict is Verdict.NOT_YET
    assert "no WebSocket came about" in repr(nobody)


@pytest.mark.parametrize("nothing", [3, lambda: 3, "no_such_file.py"])
async def test_what_is_no_server_is_named(nothing: object) -> None:
    report = await run(nothing)
    assert report.verdict is Verdict.NOT_YET
    assert "a server that starts" in repr(report)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("raise ValueError('no models')", "ValueError: no models"),
        (PONG.replace('"pong")', '"pong" / 2)'), "TypeError: unsupported operand"),
        (PONG.replace("await socket.send", "print('bye'); os._exit(3)"), "ended with code 3"),
    ],
)
async def test_a_file_that_dies_says_why(folder: Path, lines: str, told: str) -> None:
    file = folder / "server.py"
    file.write_text(lines, encoding="utf-8")
    started_s = time.monotonic()
    report = await run(file)
    assert report.verdict is Verdict.NOT_YET
    assert told in repr(report)
    assert time.monotonic() - started_s < 20  # it was not waited for until the time was over


async def test_what_a_handler_prints_and_leaves_behind_is_told() -> None:
    async def for_ever() -> None:
        await asyncio.sleep(3600)

    async def fails() -> None:
        raise ValueError("read me")

    async def handle(socket: ServerConnection) -> None:
        print("somebody came")  # noqa: T201
        handle.tasks = [asyncio.create_task(for_ever())]  # type: ignore[attr-defined]
        failing = asyncio.create_task(fails())
        await asyncio.sleep(0)
        del failing
        raise KeyError("lost")

    report = await run(handle)
    told = repr(report)
    assert "[your server] somebody came" in told
    assert "[your server] KeyError: 'lost'" in told
    assert "left a task behind: " in told
    assert "for_ever" in told
    assert "nobody read this exception of your server: ValueError: read me" in told


async def test_sessions_that_wait_do_not_outlive_the_check() -> None:
    names: dict[str, Any] = {}
    exec(
        textwrap.dedent("""
            lasting = {"one": "first", "two": "second"}
            expired = []

            def expire(session):
                expired.append(session)
                if session == "first":
                    raise KeyError(session)

            async def handle(socket):
                async for message in socket:
                    await socket.send("pong")
        """),
        names,
    )
    await run(names["handle"])
    assert names["expired"] == ["first", "second"]


@pytest.mark.parametrize("name", ["ch1.pong", "ch1.chunks", "ch1"])
async def test_a_function_that_is_no_handler_is_refused_before_anything_is_noted(
    name: str,
) -> None:
    def take(buffer: bytearray, chunk: bytes) -> None: ...

    with pytest.raises(LabkitError, match=r"talks to a server, and take\(\) takes 2 values"):
        await check(name, take)
    assert not Progress.load().checks


async def test_a_loop_that_is_blocked_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labkit.course.hosting._STOP_S", 0.1)
    over = threading.Event()

    async def handle(socket: ServerConnection) -> None:
        over.wait()

    @checked("ch1.soon", "Soon.")
    async def soon(probe: Probe) -> None:
        """Nothing."""
        await (await probe.connect()).next("an answer", within_s=0.2)

    try:
        report = await run(handle, soon)
    finally:
        over.set()
    assert "nothing within" in repr(report)
    assert "its event loop is blocked" in repr(report)


HANGS = PONG.replace(
    "await socket.send", 'while message == "ping": pass\n            await socket.send'
)


@checked("ch1.soon", "A ping is answered soon.")
async def soon(probe: Probe) -> None:
    """One `ping`."""
    caller = await probe.connect()
    await caller.send("ping")
    await caller.next("pong", within_s=0.3)


async def test_a_handler_that_runs_for_ever_is_named_and_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("labkit.course.probe._HANDSHAKE_S", 0.3)
    server: dict[str, Any] = {}
    exec(compile(HANGS.split("async def main")[0], "mine.py", "exec"), server)
    before = threading.enumerate()  # an earlier test's may still be on its way out
    report = await run(server["handle"], soon)
    assert "the event loop of your server is blocked, at mine.py, line 8, in handle" in repr(report)
    mine = [one for one in threading.enumerate() if one not in before]
    assert "checked server" not in [thread.name for thread in mine]


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
async def test_no_connection_is_left_open_by_a_handler_that_exits() -> None:
    async def handle(socket: ServerConnection) -> None:
        async for _ in socket:
            raise SystemExit("that was all")

    async with hosted(handle) as server, connect(server.url), connect(server.url) as caller:
        port = int(server.url.rsplit(":", 1)[1])
        no_handshake, writer = await asyncio.open_connection("127.0.0.1", port)
        await caller.send("now")
        assert await no_handshake.read() == b""
        with pytest.raises(ConnectionClosed):
            await caller.recv()
        writer.close()
    gc.collect()  # a transport that nobody closed is told of here


async def test_a_file_that_hangs_is_named_and_started_anew_for_the_next_check(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @checked("ch1.connects", "It takes a caller.")
    async def connects(probe: Probe) -> None:
        """Nothing."""
        await probe.connect()

    monkeypatch.setattr("labkit.course.probe._HANDSHAKE_S", 0.3)
    monkeypatch.setattr("labkit.course.hosting._HANDSHAKE_S", 0.3)
    file = folder / "server.py"
    file.write_text(HANGS, encoding="utf-8")
    async with hosted(file) as server:
        report = await run(server, soon)
        assert "is blocked, at server.py, line 8, in handle" in repr(report)
        assert (await run(server, connects)).verdict is Verdict.PASSED


def test_what_is_printed_goes_where_it_went_when_servers_end_in_another_order() -> None:
    before = sys.stdout
    for order in ((0, 1, 2), (1, 0, 2), (2, 0, 1), (0, 2, 1)):
        servers = [split_output() for _ in range(3)]
        for one in servers:
            one.__enter__()
        for number in order:
            servers[number].__exit__(None, None, None)
        assert sys.stdout is before


async def test_a_server_that_passes_is_told_what_it_raised() -> None:
    async def fails_behind(socket: ServerConnection) -> None:
        await answers_ping(socket)
        raise KeyError("who was here")

    report = await run(fails_behind, *find_checks("ch1.pong"))
    assert report.passed
    assert "note: all the same, your handler raised KeyError: 'who was here'" in repr(report)


async def test_a_check_that_fails_by_itself_is_our_fault() -> None:
    @checked("ch1.broken", "Broken.")
    async def broken(probe: Probe) -> None:
        """Nothing."""
        raise KeyError("ours")

    report = await run(answers_ping, broken)
    assert report.verdict is Verdict.OUR_FAULT
    assert report.evidence is not None
    assert "KeyError: 'ours'" in (report.evidence / "fault.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("before", "later", "limit_s", "verdict"),
    [
        (1.0, 1.5, 8, Verdict.NOT_YET),
        (1.0, 3.0, 8, Verdict.CANNOT_TELL),
        (3.0, 5.0, 24, Verdict.NOT_YET),
        (16.0, 16.0, 32, Verdict.CANNOT_TELL),  # nobody waits for 16 times as long
    ],
)
async def test_on_a_busy_machine_time_says_nothing(
    before: float,
    later: float,
    limit_s: float,
    verdict: Verdict,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    factors: Iterator[float] = chain([before], repeat(later))
    monkeypatch.setattr(checking, "machine_factor", lambda: next(factors))
    monkeypatch.setattr(checking, "_MOMENT_S", 0.0)

    @checked("ch1.slow", "Slow.")
    async def slow(probe: Probe) -> None:
        """Nothing."""
        assert probe.limit(8) == limit_s
        raise NotYet("an answer", "none", late=True)

    assert (await run(answers_ping, slow)).verdict is verdict


@pytest.mark.parametrize("factors", [[1.0, 9.0, 1.2], [1.0, 9.0, 9.0, 9.0, 1.9]])
async def test_a_moment_in_which_the_machine_was_busy_is_no_excuse(
    factors: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter(factors)
    monkeypatch.setattr(checking, "machine_factor", lambda: next(moments))
    monkeypatch.setattr(checking, "_MOMENT_S", 0.0)
    assert (await run(answers_ping, _late)).verdict is Verdict.NOT_YET


async def test_what_the_server_raised_is_no_matter_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def raises(socket: ServerConnection) -> None:
        raise AttributeError("'SessionState' object has no attribute 'id'")

    monkeypatch.setattr(checking, "machine_factor", lambda: 9.0)
    assert (await run(raises, _late)).verdict is Verdict.NOT_YET


@checked("ch1.late", "Late.")
async def _late(probe: Probe) -> None:
    """Nothing."""
    await probe.connect()
    raise NotYet("an answer", "none", late=True)


async def test_a_function_is_checked_without_a_server() -> None:
    @checked_value("ch5.double", "Doubles.")
    async def doubles(trial: Trial, function: Callable[[int], int]) -> None:
        """A drawn number."""
        number = trial.rng.randrange(100)
        if function(number) != 2 * number:
            raise NotYet(f"{2 * number}", f"{function(number)}")

    assert (await run(lambda n: 2 * n, doubles)).passed
    assert "expected  34" in repr(await run(lambda n: n, doubles))


async def test_evidence_is_kept_and_a_new_run_replaces_it() -> None:
    async def silent(socket: ServerConnection) -> None:
        await socket.send("no")
        await socket.wait_closed()

    for handler in (answers_ping, silent):
        report = await run(handler)
        assert report.evidence is not None
        events = (report.evidence / "events.jsonl").read_text(encoding="utf-8").splitlines()
        texts = [json.loads(line)["text"] for line in events]
        assert texts[-1] == ("pong" if report.passed else "no") or texts[0] == "no"
    drawing = (report.evidence / "messages.svg").read_text(encoding="utf-8")
    assert "✘ no" in drawing
    assert 'aria-label="Message diagram.' in drawing


async def test_evidence_that_cannot_be_kept_is_told_before_any_check(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def never(*_: object, **__: object) -> Report:
        raise AssertionError("a check has run")

    (tmp_path / "file").touch()
    monkeypatch.setenv("LABKIT_MINE", str(tmp_path / "file"))
    monkeypatch.setattr(checking, "check_one", never)
    with pytest.raises(LabkitError, match="kept in .*: Not a directory; .* LABKIT_MINE=~/mine"):
        await check("ch1.pong", "ws://localhost:1")


async def test_evidence_that_can_no_longer_be_kept_is_told_likewise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checking, "keep_evidence", full)
    with pytest.raises(LabkitError, match="cannot be kept in .*: No space left on device; make"):
        await check("ch1.pong", answers_ping)


@pytest.mark.parametrize("seed", ["abc", "-5", "1" * 5000])
async def test_a_seed_that_is_no_number_is_refused(
    monkeypatch: pytest.MonkeyPatch, seed: str
) -> None:
    monkeypatch.setenv("LABKIT_SEED", seed)
    with pytest.raises(LabkitError, match=f"LABKIT_SEED is '{seed}', and .* number from 0 on"):
        await check("ch1.pong", "ws://localhost:1")


async def test_one_seed_gives_the_same_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []
    for _ in range(2):
        monkeypatch.setenv("LABKIT_SEED", "41")
        report = await check("ch1.pong", answers_ping)
        assert isinstance(report, Report)
        assert report.evidence is not None
        lines = (report.evidence / "events.jsonl").read_text(encoding="utf-8").splitlines()
        events = [json.loads(line) for line in lines]
        sent.append(
            [one.get("bytes", one.get("text")) for one in events if one["from"] == "client"]
        )
        assert report.seed == 41
    assert sent[0] == sent[1]
    other = await check("ch1.pong", answers_ping, seed=42)
    assert isinstance(other, Report)
    assert other.seed == 42


async def test_it_raises_only_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(socket: ServerConnection) -> None: ...

    assert not (await check("ch1.pong", nothing)).passed
    monkeypatch.setenv("LABKIT_STRICT", "1")
    assert not (await check("ch1.pong", nothing, strict=False)).passed
    with pytest.raises(CheckFailed, match=r"ch1\.pong: not yet"):
        await check("ch1.pong", nothing)


async def test_what_was_kept_is_checked_afresh() -> None:
    server_file().parent.mkdir(parents=True)
    server_file().write_text(
        PONG.replace("await socket.send", "await reply(socket) or socket.send")
    )
    report = await check("ch1.pong", fresh=True)
    assert "note: reply is in no cell that is kept" in repr(report)
    server_file().write_text(PONG, encoding="utf-8")
    assert (await check("ch1.pong", fresh=True)).passed
    noted = Progress.load().checks["ch1.pong"]
    assert (noted.verdict, len(noted.server)) == (Verdict.PASSED, 16)


async def test_a_server_of_somebody_else_is_no_progress(folder: Path) -> None:
    file = folder / "another.py"
    file.write_text(PONG, encoding="utf-8")
    assert (await check("ch1.pong", file)).passed
    assert Progress.load().checks == {}


@pytest.mark.parametrize("name", ["ch1", "1", "01", "01_server"])
def test_a_chapter_has_several_names(name: str) -> None:
    assert len(find_checks(name)) == 10


def test_a_check_that_is_none_is_named() -> None:
    with pytest.raises(LabkitError, match=r"no check 'ch1\.nothing'; there are .*ch1\.pong"):
        find_checks("ch1.nothing")
    assert os.environ["LABKIT_STRICT"] == "0"


async def test_a_server_that_was_broken_on_purpose_is_not_recorded() -> None:
    await check_one(ping, answers_ping, seed=1)

    async def silent(socket: ServerConnection) -> None:
        return

    broken = await check_one(ping, silent, seed=1, record=False)
    assert broken.verdict is Verdict.NOT_YET
    assert Progress.load().checks[ping.name].verdict is Verdict.PASSED


async def test_an_exercise_is_checked_by_its_name() -> None:
    found = await check("ch1.chunks", answers_ping, seed=1)
    assert isinstance(found, Reports)
    assert [one.check for one in found.all] == ["ch1.pong", "ch1.odd_frame", "ch1.bounded_buffer"]


BLAMED = """
async def off_loop(call, *arguments):
    return await asyncio.to_thread(call(*arguments))

async def handle(socket):
    async for _ in socket:
        await off_loop(str)
"""


async def test_a_traceback_shows_the_line_of_the_learner_not_that_of_a_library(
    folder: Path,
) -> None:
    namespace: dict[str, object] = {"asyncio": asyncio}
    exec(compile(BLAMED, "server.py", "exec"), namespace)
    file = folder / "server.py"
    file.write_text(BLAMED + PONG.partition("async def handle")[0] + _main(PONG), encoding="utf-8")
    for target, line in ((namespace["handle"], "server.py, line 3"), (file, "line 3, in off_loop")):
        told = repr(await run(target))
        assert line in told
        assert "TypeError: 'str' object is not callable" in told
        assert "thread.py" not in told


def _main(program: str) -> str:
    return "async def main" + program.partition("async def main")[2]


async def test_a_stub_of_another_exercise_is_named_with_its_hint() -> None:
    [words] = [words for words, stub in stubs().items() if stub.exercise == "ch1.say"]

    async def handle(socket: ServerConnection) -> None:
        raise NotImplementedError(words)

    elsewhere, own = await run(handle), await check("ch1.reply_streams", handle)
    assert "`say_reply` is still to be written: that is exercise ch1.say" in repr(elsewhere)
    assert 'hint("ch1.say") helps' in repr(elsewhere)
    assert '→ hint("ch1.reply_streams") helps' in repr(own)
