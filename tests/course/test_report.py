"""The lab report: one page, one file, with everything in it."""

from html.parser import HTMLParser
from pathlib import Path

import pytest

from labkit.course.latency import by_network, table
from labkit.course.predictions import measured, predict
from labkit.course.report import lab_report, said
from labkit.errors import LabkitError
from tests.course.measurements import TWO_WRITES, summary

CONCLUDED = {"sizes_ms": [20, 100], "clear": True, "explained": False}


class _Open(HTMLParser):
    """Finds what a page loads from elsewhere, and images that say nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.elsewhere: list[str] = []
        self.images: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        source = told.get("src") or told.get("href") or ""
        if source and not source.startswith("data:"):
            self.elsewhere.append(source)
        if tag == "img":
            self.images.append(told.get("alt") or "")


def test_the_report_is_one_file_with_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABKIT_MINE", str(tmp_path))
    predict("ch5.added_at_500_ms", 111)
    measured("ch5.added_at_500_ms", 238.2)
    result = summary()
    report = lab_report(
        servers=result,
        networks=by_network({"loopback": result, "4g": summary(more_ms=37)}),
        rows=table(result.servers[0]),
        two_writes=TWO_WRITES,
        concluded=CONCLUDED,
        words="I would take <40> ms.",
    )
    assert report.path == tmp_path / "lab_report.html"
    html = report.path.read_text(encoding="utf-8")
    assert html == report.html
    page = _Open()
    page.feed(html)
    assert page.elsewhere == []
    assert len(page.images) == 3
    assert all(len(alt) > 20 for alt in page.images)
    for part in (
        "111",
        "238",
        "I would take &lt;40&gt; ms.",
        said(CONCLUDED),
        "2 with TCP_NODELAY off: 42.0 ms",
        "9.4",
    ):
        assert part in html, part
    assert "lab_report.html" in repr(report)
    assert 'sandbox=""' in report._repr_html_()
    # The table, the sentence above it and the bars below say the same wait.
    wait_ms = f"{result.servers[0].wait_ms:.0f}"
    assert f"<td>{wait_ms}</td>" in html
    assert f"mean wait, {wait_ms} ms" in html
    assert f"mine {wait_ms} ms" in html
    assert "missing" not in html


def test_a_conclusion_is_a_sentence() -> None:
    assert said(CONCLUDED) == (
        "Chunks of 20, 100 ms keep both limits. What the largest chunks add is more than noise, "
        "and does not agree even to a tenth with what half a chunk predicts."
    )
    nothing = {"sizes_ms": [], "clear": False, "explained": True}
    assert said(nothing).startswith("No chunk size keeps both limits.")


def test_a_report_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    result = summary()
    with pytest.raises(LabkitError, match="the report cannot be written"):
        lab_report(
            servers=result,
            networks=result.servers,
            rows=[],
            two_writes=TWO_WRITES,
            concluded=CONCLUDED,
            words="",
            path=tmp_path / "missing" / "report.html",
        )


def test_a_report_without_words_says_that_they_are_missing(tmp_path: Path) -> None:
    result = summary()
    report = lab_report(
        servers=result,
        networks=result.servers,
        rows=[],
        two_writes=TWO_WRITES,
        concluded=CONCLUDED,
        words=" ",
        path=tmp_path / "report.html",
    )
    for told in (report.html, repr(report), report._repr_html_()):
        assert "The conclusion in your own words is missing" in told
