"""The commands `labkit drill …`: what they print, and how they end."""

import sys
from collections import Counter
from typing import Any

import pytest

from labkit.cli import app as command_line
from labkit.drills import fuzz
from labkit.drills.answers import Tally
from labkit.drills.fuzz import Crowd, Fuzzed
from labkit.drills.target import Pings
from labkit.measure.server_process import RunningServer


def run(*words: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The exit code of `labkit drill` with `words`."""
    monkeypatch.setattr(sys, "argv", ["labkit", "drill", *words])
    with pytest.raises(SystemExit) as caught:
        command_line.run_command_line()
    return caught.value.code


@pytest.mark.parametrize(
    ("health", "dialect", "code"), [("", "both", 0), ("HTTP 500", "both", 1), ("", "plain", 0)]
)
def test_a_broken_promise_ends_the_fuzz_drill_with_code_1(
    health: str,
    dialect: str,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def found(_: RunningServer, messages: int, crowd: Crowd, tell: Any) -> Fuzzed:
        tell("sending", messages, messages)
        served = dict.fromkeys(crowd.dialects, "")
        sent = Tally(sent=Counter(audio=messages))
        return Fuzzed(sent, 1.0, {}, {}, {}, [], served, health, Pings([1.0]))

    monkeypatch.setattr(fuzz, "fuzz", found)
    words = ("fuzz", "--messages", "9", "--seed", "4", "--dialect", dialect, "--url", "ws://x")
    assert run(*words, monkeypatch=monkeypatch) == code
    out = capsys.readouterr().out
    assert "9 hostile messages, seed 4" in out
    assert ("a good turn of v1" in out) == (dialect == "both")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("fuzz", "--url", "ws://127.0.0.1:1"), "ws://127.0.0.1:1 does not give /metrics"),
        (("fuzz", "--url", "http://x"), "'http://x' is the address of a web page"),
        (("crosstalk", "--url", "ws://127.0.0.1:1"), "no voice server answers at ws://127.0.0.1:1"),
        (("hostile", "--only", "nobody at all"), "there is no 'nobody at all'; there are pings"),
        (("crosstalk", "--sessions", "99"), "sessions: 99 callers need as many different facts"),
    ],
)
def test_what_is_wrong_is_one_line(
    words: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(*words, monkeypatch=monkeypatch) == 1
    assert f"error: {said}" in capsys.readouterr().err
