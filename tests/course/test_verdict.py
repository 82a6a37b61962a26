"""Reports: carets where the fault is, words, and the four verdicts."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.course.verdict import Caret, NotYet, Report, Reports, Verdict


def marked(caret: Caret) -> str:
    line, below = caret.lines()
    start, length = len(below) - len(below.lstrip()), below.count("^")
    return line[start : start + length]


@pytest.mark.parametrize(
    ("text", "key", "under"),
    [
        ('{"type": "eror", "code": 3}', "type", '"eror"'),
        ('{"a": 1, "code": {"b": [2]}, "c": 3}', "code", '{"b": [2]}'),
        ('{"type": "error"}', "code", "}"),
        ('{"text": "' + "x" * 200 + '", "type": "no", "y": "' + "z" * 200 + '"}', "type", '"no"'),
    ],
)
def test_a_caret_stands_under_the_value(text: str, key: str, under: str) -> None:
    assert marked(Caret.in_json(text, key, "here")) == under


def test_a_caret_stands_under_the_bytes() -> None:
    assert marked(Caret.in_bytes(b"RIFF" + bytes(40), 0, 4, "a header")) == "52 49 46 46"
    assert marked(Caret.in_bytes(bytes(range(200)), 100, 2, "here")) == "64 65"


@given(st.text(min_size=1, max_size=300), st.integers(0, 299), st.integers(1, 50))
def test_a_caret_is_always_within_its_line(text: str, start: int, length: int) -> None:
    caret = Caret.in_text(text, min(start, len(text) - 1), length, "here")
    assert 0 <= caret.start < len(caret.line)
    assert len(caret.line) <= 76


def report(verdict: Verdict, **more: object) -> Report:
    return Report(check="ch1.x", title="X.", verdict=verdict, seed=7, **more)  # type: ignore[arg-type]


def test_a_report_says_what_was_expected_and_what_came() -> None:
    fault = NotYet(
        'JSON {"type": "error", …}', "text", off="much",
        caret=Caret.in_json('{"type": "eror"}', "type", 'expected "error"'),
    )  # fmt: skip
    shown = report(
        Verdict.NOT_YET, fault=fault, told=["✔ one"], help=["hint"], evidence=Path("mine/e")
    )
    assert repr(shown).splitlines() == [
        "✘ ch1.x: not yet. X.",
        "  ✔ one",
        '  ✘ expected  JSON {"type": "error", …}',
        "    observed  text",
        "    off by    much",
        '              {"type": "eror"}',
        '                       ^^^^^^ expected "error"',
        "  → hint",
        "  seed 7 (LABKIT_SEED=7 repeats it)",
        "  evidence: mine/e",
    ]
    assert "&quot;eror&quot;" in shown._repr_html_()


def test_a_notebook_shows_code_without_backticks_but_messages_as_they_came() -> None:
    fault = NotYet("`done` & more", "text", caret=Caret.in_text("a `b` c", 2, 3, "here"))
    told = ["✔ answers `ping`", "[your server] about `x`"]
    shown = report(Verdict.NOT_YET, fault=fault, told=told)._repr_html_()
    assert "✔ answers <code>ping</code>" in shown
    assert "expected  <code>done</code> &amp; more" in shown
    assert "[your server] about `x`" in shown
    assert "  a `b` c\n" in shown


def test_several_reports_say_how_many_passed() -> None:
    both = Reports((report(Verdict.PASSED), report(Verdict.CANNOT_TELL, reason="busy")))
    assert not both.passed
    assert repr(both).splitlines()[0] == "✔ ch1.x: passed. X."
    assert repr(both).splitlines()[-1] == "1 of 2 checks passed."
    assert "1 of 2 checks passed." in both._repr_html_()


def test_one_cause_is_explained_once() -> None:
    fault = NotYet("a transcript", "the connection closed")
    broken = [f"[your server] {line}" for line in ("line 3", "NotImplementedError: give it")]
    several = Reports(
        tuple(report(Verdict.NOT_YET, fault=fault, told=broken) for _ in range(3))
        + (report(Verdict.NOT_YET, fault=fault, told=["[your server] ValueError: no"]),)
    )
    for shown in (repr(several), several._repr_html_()):
        assert shown.count("expected  a transcript") == 2
        same = "the same as in ch1.x: [your server] NotImplementedError: give it"
        assert shown.count(same) == 2
        assert "0 of 4 checks passed." in shown
