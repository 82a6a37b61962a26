"""Every check on every server: the verdict, and every word that a learner then reads.

The words are compared with `tests/course/transcripts`; to record them anew, and look at what
changed: ``LABKIT_RECORD=1 pytest tests/course/test_checks.py && git diff tests/course``.
"""

import copy
import os
import re
import time
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from labkit.course import checking
from labkit.course.checking import check_one
from labkit.course.checks import CHECKS, find_checks
from labkit.course.models import Models
from labkit.course.verdict import Report, Verdict
from tests.course.chapters import CHAPTERS
from tests.course.servers import SOLUTION, STUB, Servers
from tests.paths import DATA

TRANSCRIPTS: Final = Path(__file__).parent / "transcripts"
SEED: Final = 3
CASES: Final = [case for servers in CHAPTERS.values() for case in servers.cases()]

pytestmark = [
    pytest.mark.engines,
    pytest.mark.real_time,
    pytest.mark.skipif(
        not (DATA / "models" / "lab-asr-en").exists(), reason="the embedded models are not here"
    ),
]

UNITS: Final = r"dB beside|ms|s|times|bytes|messages|of the|wrong|of \d+ words|times slower"
VARYING: Final = (
    (re.compile(r'"session": ?"[0-9a-f]*'), '"session":"(id)'),
    (re.compile(r'(?<![\w.-])[\w-]+(?=", ?"resumed")'), "(token)"),
    (re.compile(r'"text": ?"[^"\n]*("|$)', re.M), '"text":"(words)"'),
    (re.compile(rf"\d[\d.,]*(?= (?:{UNITS})\b)"), "#"),
    (re.compile(r"of \d+ words"), "of # words"),
    (re.compile(r"[\d.]+%"), "#%"),
    (re.compile(r"(?<!connection: )-?\b\d{3,}"), "#"),
    (re.compile(r"(?<= {14})(?!52 49)[0-9a-f]{2}(?: [0-9a-f]{2})+"), "(bytes)"),
    (re.compile(r"line \d+"), "line #"),
    (re.compile(r'observed  "[^"]*"(?=$|,)', re.M), 'observed  "(words)"'),
    (re.compile(r'(reply_text|its text), "[^"]*"'), r'\1, "(words)"'),
    (re.compile(r"evidence: .*/"), "evidence: mine/evidence/"),
    (re.compile(r"  note: your server left a task behind.*\n"), ""),
)
"""What is different in each run, or on each processor: times, sizes, names, words of a model, and
what a server had not yet ended at the moment when its check did."""
TIMED: Final = ("ch1.pong_while_busy", "ch4.slow_reader")
"""They compare what a server takes with what its models take at that moment."""
OR: Final = "--- or ---\n"
"""Between two transcripts of one server, where a race decides what the check sees first."""


def remembering(call: Callable[[Models, Any], Any]) -> Callable[[Models, Any], Any]:
    """`call`, which computes what is asked for a second time no more, and takes as long for it.

    As long, because some servers are wrong by what they do meanwhile, or do not do.
    """
    known: dict[object, tuple[Any, float]] = {}

    @wraps(call)
    def remembered(models: Models, asked: Any) -> Any:
        key = asked.tobytes() if isinstance(asked, np.ndarray) else repr(asked)
        if key not in known:
            began_s = time.perf_counter()
            known[key] = call(models, asked), time.perf_counter() - began_s
        else:
            time.sleep(known[key][1])
        return copy.deepcopy(known[key][0])  # a server may change what it was given

    return remembered


@pytest.fixture(scope="module")
def remembered() -> dict[str, Callable[[Models, Any], Any]]:
    return {name: remembering(getattr(Models, name)) for name in ("hear", "think", "speak")}


def words_of(report: Report) -> str:
    text = repr(report)
    for pattern, stands_for in VARYING:
        text = pattern.sub(stands_for, text)
    return text


@pytest.fixture(autouse=True)
def folder_of_a_learner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_MINE", str(tmp_path / "mine"))
    monkeypatch.setattr(checking, "machine_factor", lambda: 1.0)


def verdict_of(servers: Servers, check: str, server: str) -> Verdict:
    right = server == SOLUTION or server in servers.odd
    return Verdict.PASSED if right else Verdict.NOT_YET


def stored_words(path: Path) -> list[str]:
    """The transcripts of one server: more than one where a race decides."""
    return path.read_text(encoding="utf-8").split(OR) if path.exists() else []


async def judged(chapter: int, check: str, server: str) -> str:
    """The words about a server, whose verdict is right in any case."""
    servers = CHAPTERS[chapter]
    (one,) = find_checks(check)
    report = await check_one(one, servers.target(check, server), seed=SEED)
    assert report.verdict is verdict_of(servers, check, server), repr(report)
    return words_of(report) + "\n"


@pytest.mark.parametrize(("chapter", "check", "server"), CASES)
async def test_a_server_gets_its_verdict_in_the_words_that_are_stored(
    chapter: int,
    check: str,
    server: str,
    remembered: Mapping[str, Callable[[Models, Any], Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if check not in TIMED:
        for name, call in remembered.items():
            monkeypatch.setattr(Models, name, call)
    words = await judged(chapter, check, server)
    stored = TRANSCRIPTS / check / f"{re.sub('[^a-z0-9]+', '_', server.lower())}.txt"
    if os.environ.get("LABKIT_RECORD") == "1" and words not in stored_words(stored):
        stored.parent.mkdir(parents=True, exist_ok=True)
        stored.write_text(words, encoding="utf-8")
    known = stored_words(stored)
    if words not in known:
        # A server that dies races with what it has sent and logged: which of them is seen first
        # may differ, but hardly twice.
        words = await judged(chapter, check, server)
    assert words == known[0] or words in known


@pytest.mark.parametrize(("chapter", "check"), [(5, "ch5.conclusion"), (6, "ch6.line")])
async def test_no_order_that_is_drawn_hides_a_mistake(chapter: int, check: str) -> None:
    (one,) = find_checks(check)
    for name in CHAPTERS[chapter].wrong[check]:
        target = CHAPTERS[chapter].target(check, name)
        for seed in range(20):
            report = await check_one(one, target, seed=seed)
            assert report.verdict is Verdict.NOT_YET, f"{name}: {report!r}"


async def test_a_pong_that_is_late_in_some_turns_only_is_no_fault_of_the_server() -> None:
    held_up = """
turns = 0
async def off_loop(call, *arguments):
    global turns
    turns += call == models.hear
    return call(*arguments) if turns < 4 else await asyncio.to_thread(call, *arguments)
"""
    check = "ch1.pong_while_busy"
    servers = Servers(chapter=1, wrong={check: {"held up": held_up}}, odd={})
    (one,) = find_checks(check)
    report = await check_one(one, servers.target(check, "held up"), seed=SEED)
    assert report.verdict is Verdict.PASSED, repr(report)


def test_every_check_has_servers_enough() -> None:
    for one in CHECKS:
        servers = CHAPTERS[int(one.chapter[2:])]
        assert len(servers.wrong[one.name]) >= 2, one.name  # and the stub
        assert len(servers.odd) >= 2


def test_a_check_has_words_of_their_own_for_three_wrong_servers() -> None:
    for folder in TRANSCRIPTS.iterdir():
        told = [path.read_text(encoding="utf-8") for path in folder.iterdir()]
        wrong = [text for text in told if "not yet" in text.splitlines()[0]]
        assert len(set(wrong)) >= 3, folder.name


def test_every_transcript_is_of_a_server() -> None:
    names = {
        f"{check}/{re.sub('[^a-z0-9]+', '_', server.lower())}.txt" for _, check, server in CASES
    }
    stored = {str(path.relative_to(TRANSCRIPTS)) for path in TRANSCRIPTS.rglob("*.txt")}
    assert stored == names
    assert STUB in {server for _, _, server in CASES}
