"""The lab report of chapter 5: one page, one file, made of what the learner measured and wrote."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from html import escape
from pathlib import Path
from statistics import median
from typing import Any, Final

from labkit.course.folder import Prediction, mine
from labkit.course.latency import networks_figure, plot_two_writes
from labkit.course.predictions import predictions_of
from labkit.errors import LabkitError
from labkit.measure.exercise_summary import ExerciseSummary, ServerSummary
from labkit.measure.experiment_figures import plot_rest
from labkit.measure.figures import axes, figure_of, image_html
from labkit.measure.results import about_machine

_STYLE: Final = """
@page { size: A4; margin: 10mm }
body { font: 10pt/1.3 system-ui, sans-serif; max-width: 190mm; margin: 0 auto; color: #111 }
h1 { font-size: 15pt; margin: 0 } h2 { font-size: 11pt; margin: .6em 0 .1em }
p { margin: .25em 0 } .quiet { color: #555; font-size: 8.5pt }
table { border-collapse: collapse; font-size: 8.5pt; white-space: nowrap; margin-bottom: .5em }
caption { text-align: left; color: #555 }
th, td { padding: 0 8px 0 0; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
.side { display: flex; gap: 6mm } .side > * { flex: 1 } img { display: block; width: 100% }
"""


_NO_WORDS: Final = "The conclusion in your own words is missing."


@dataclass(frozen=True, slots=True, repr=False)
class LabReport:
    """A report that was written.

    Attributes:
        path: Its file.
        html: What is in it.
    """

    path: Path
    html: str

    def __repr__(self) -> str:
        """Where it is."""
        return f"Your lab report: {self.path}{self._lacking}"

    @property
    def _lacking(self) -> str:
        return f" ({_NO_WORDS})" if _NO_WORDS in self.html else ""

    def _repr_html_(self) -> str:
        link = escape(os.path.relpath(self.path))
        return (
            f'<p>Your lab report: <a href="{link}" target="_blank">{escape(str(self.path))}</a>'
            f"<b>{self._lacking}</b></p>"
            f'<iframe title="Your lab report" sandbox="" width="100%" height="640" '
            f'srcdoc="{escape(self.html)}"></iframe>'
        )


def lab_report(
    *,
    servers: ExerciseSummary,
    networks: Sequence[ServerSummary],
    rows: Sequence[Mapping[str, Any]],
    two_writes: Mapping[tuple[int, bool], Sequence[float]],
    concluded: Mapping[str, Any],
    words: str,
    path: Path | None = None,
) -> LabReport:
    """Write the report.

    Args:
        servers: What the exercise gave, the learner's server first.
        networks: The same server over several networks.
        rows: The table that was concluded from.
        two_writes: Round trips, by number of writes and TCP_NODELAY.
        concluded: What `conclude` gave.
        words: What the learner says to it; empty where nothing was written yet.
        path: The file; by default `lab_report.html` in the learner's folder.

    Raises:
        LabkitError: It cannot be written.
    """
    parts = [
        "<h1>How chunk size trades against latency</h1>",
        f'<p class="quiet">{escape(_origin(servers.servers, networks))}</p>',
        "<h2>Conclusion</h2>",
        *(f"<p>{escape(sentence)}</p>" for sentence in (servers.conclusion, said(concluded))),
        f"<p><b>{escape(words.strip() or _NO_WORDS)}</b></p>",
        "<h2>What I expected, and what came</h2>",
        _side(_predictions(predictions_of("ch5")), _servers(servers.servers)),
        "<h2>My server over several networks</h2>",
        image_html(networks_figure(networks), _medians(networks)),
        "<h2>Where the time goes</h2>",
        image_html(figure_of(plot_rest(servers.servers)), _means(servers.servers)),
        "<h2>What the chunk size adds, and what two writes cost</h2>",
        _side(_sizes(rows), _two_writes(two_writes)),
    ]
    html = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Lab report</title>'
        f"<style>{_STYLE}</style><body>{''.join(parts)}</body></html>"
    )
    path = path or mine() / "lab_report.html"
    try:
        path.write_text(html, encoding="utf-8")
    except OSError as error:
        raise LabkitError(f"the report cannot be written to {path}: {error.strerror}") from error
    return LabReport(path, html)


def _origin(servers: Sequence[ServerSummary], networks: Sequence[ServerSummary]) -> str:
    """When, on which machine, and how much was measured."""
    machine = about_machine()
    turns, over = (sum(one.asked for one in asked) for asked in (servers, networks))
    return (
        f"{date.today()} · {machine['cpu']}, {machine['cores']} cores · {turns} turns of "
        f"{len(servers)} servers, and {over} of mine over {len(networks)} networks, where those "
        "over loopback count again; turns that only warm up are not counted"
    )


def said(concluded: Mapping[str, Any]) -> str:
    """What `conclude` gave, as a sentence."""
    sizes = ", ".join(f"{size:g}" for size in concluded["sizes_ms"])
    kept = (
        f"Chunks of {sizes} ms keep both limits." if sizes else "No chunk size keeps both limits."
    )
    clear = "more than noise" if concluded["clear"] else "no more than noise"
    agrees = "agrees to a tenth" if concluded["explained"] else "does not agree even to a tenth"
    return (
        f"{kept} What the largest chunks add is {clear}, and {agrees} with what half a chunk "
        "predicts."
    )


def _table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(kind: str, cells: Sequence[str]) -> str:
        return f"<tr>{''.join(f'<{kind}>{escape(cell)}</{kind}>' for cell in cells)}</tr>"

    body = "".join(line("td", row) for row in rows)
    return f"<table><caption>{escape(caption)}</caption>{line('th', head)}{body}</table>"


def _side(*parts: str) -> str:
    return f'<div class="side">{"".join(f"<div>{part}</div>" for part in parts)}</div>'


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}" if abs(value) >= 10 else f"{value:.1f}"


def _predictions(made: Mapping[str, Prediction]) -> str:
    rows = []
    for name, one in made.items():
        words, _, unit = name.partition(".")[2].rpartition("_")
        rows.append(
            (f"{words.replace('_', ' ')} ({unit})", _number(one.predicted), _number(one.measured))
        )
    return _table(
        "Predictions, each locked by its measurement", ("", "predicted", "measured"), rows
    )


def _sizes(rows: Sequence[Mapping[str, Any]]) -> str:
    return _table(
        "My server, against its smallest chunks (95 % interval)",
        ("chunk, ms", "added, ms", "predicted", "headers, %"),
        [
            (
                f"{row['chunk_ms']}",
                f"{row['added_ms']:+.0f} ({row['low_ms']:.0f} to {row['high_ms']:.0f})",
                f"{row['predicted_ms']:+.0f}",
                f"{row['headers_percent']:.1f}",
            )
            for row in rows
        ],
    )


def _servers(servers: Sequence[ServerSummary]) -> str:
    return _table(
        f"With chunks of {servers[0].middle.chunk_ms} ms; waits are means",
        ("", "wait, ms", "turns", "misheard", "ping p99, ms"),
        [
            (
                server.name,
                _number(server.wait_ms),
                f"{server.turns} of {server.asked}",
                "–" if (wrong := server.word_error_rate) is None else f"{100 * wrong:.0f} %",
                _number(server.ping_p99_ms),
            )
            for server in servers
        ],
    )


def _two_writes(measured: Mapping[tuple[int, bool], Sequence[float]]) -> str:
    told = (
        f"{writes} with TCP_NODELAY {'on' if nodelay else 'off'}: {median(took):.1f} ms"
        for (writes, nodelay), took in measured.items()
    )
    drawn = plot_two_writes(measured, ax=axes(None, 5.0, 1.7))
    return image_html(figure_of(drawn), f"Round trips by number of writes. {'; '.join(told)}.")


def _medians(servers: Sequence[ServerSummary]) -> str:
    told = "; ".join(
        f"{one.name} {one.middle.wait.value:.0f} ms with chunks of {one.middle.chunk_ms} ms"
        for one in servers
    )
    return f"Median waits: {told}."


def _means(servers: Sequence[ServerSummary]) -> str:
    told = "; ".join(f"{one.name} {one.wait_ms:.0f} ms" for one in servers)
    return f"Mean waits with chunks of {servers[0].middle.chunk_ms} ms: {told}."
