"""The commands `labkit drill …`: what they print, and how they end."""

from collections import Counter
from typing import Any

import pytest

from labkit.drills import Finding, Verdict, fuzz, resume
from labkit.drills.answers import Tally
from labkit.drills.fuzz import Crowd, Fuzzed
from labkit.errors import LabkitError
from labkit.measure.callers import Pings
from labkit.measure.server_process import RunningServer
from tests.cli.commands import Labkit


@pytest.mark.parametrize(
    ("health", "dialect", "code"), [("", "both", 0), ("HTTP 500", "both", 1), ("", "plain", 0)]
)
def test_a_broken_promise_ends_the_fuzz_drill_with_code_1(
    labkit: Labkit, monkeypatch: pytest.MonkeyPatch, health: str, dialect: str, code: int
) -> None:
    async def found(_: RunningServer, messages: int, crowd: Crowd, tell: Any) -> Fuzzed:
        tell("sending", messages, messages)
        served = dict.fromkeys(crowd.dialects, "")
        sent = Tally(sent=Counter(audio=messages))
        return Fuzzed(sent, 1.0, {}, {}, {}, [], served, health, Pings([1.0]))

    monkeypatch.setattr(fuzz, "fuzz", found)
    words = ("fuzz", "--messages", "9", "--seed", "4", "--dialect", dialect, "--url", "ws://x")
    done = labkit("drill", *words)
    assert done.code == code
    assert "9 hostile messages, seed 4" in done.out
    assert ("a good turn of v1" in done.out) == (dialect == "both")


@pytest.mark.parametrize(
    "name", ["resume", "stalled", "abandoned", "fuzz", "hostile", "crosstalk", "formats"]
)
def test_every_drill_is_run_and_judged(
    labkit: Labkit, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    async def run(*_: Any, **__: Any) -> Verdict:
        return Verdict(f"[{name}]", (Finding.none_of("samples lost", 0),))

    monkeypatch.setattr(f"labkit.drills.{name}.run_{name}", run)
    done = labkit("drill", name)
    assert done.code == 0
    assert f"[{name}]" in done.out


@pytest.mark.parametrize("end", [SystemExit(130), LabkitError("the server is gone")])
def test_what_was_found_is_told_where_a_drill_is_ended(
    labkit: Labkit, monkeypatch: pytest.MonkeyPatch, end: BaseException
) -> None:
    async def broken_off(*given: Any) -> Verdict:
        given[-1].append(Finding.none_of("samples lost", 3))
        raise end

    monkeypatch.setattr(resume, "run_resume", broken_off)
    done = labkit("drill", "resume")
    assert done.code
    assert "not finished; found until then" in done.out
    assert "samples lost" in done.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("fuzz", "--url", "ws://127.0.0.1:1"), "ws://127.0.0.1:1 does not give /metrics"),
        (("fuzz", "--url", "http://x"), "'http://x' is the address of a web page"),
        (("crosstalk", "--url", "ws://127.0.0.1:1"), "no voice server answers at ws://127.0.0.1:1"),
        (("hostile", "--only", "nobody at all"), "there is no 'nobody at all'; there are pings"),
        (("resume", "--cuts", "0", "--voice-cuts", "0"), "there is nothing to do: --cuts and"),
        (("crosstalk", "--sessions", "99"), "sessions: 99 callers need as many different facts"),
    ],
)
def test_what_is_wrong_is_one_line(labkit: Labkit, words: tuple[str, ...], said: str) -> None:
    done = labkit("drill", *words)
    assert done.code == 1
    assert f"error: {said}" in done.err
