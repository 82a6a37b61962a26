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
from labkit.measure.exercise_figures import plot_rest
from labkit.measure.exercise_summary import ExerciseSummary, ServerSummary
from labkit.measure.figures import figure_of, image_html
from labkit.measure.results import about_machine

__all__ = ["LabReport", "lab_report"]

_STYLE: Final = """
@page { size: A4; margin: 12mm }
body { font: 10.5pt/1.35 system-ui, sans-serif; max-width: 186mm; margin: 1em auto; color: #111 }
h1 { font-size: 16pt; margin: 0 } h2 { font-size: 11.5pt; margin: .7em 0 .2em }
p { margin: .3em 0 } .quiet { color: #555; font-size: 9pt }
table { border-collapse: collapse; font-size: 9pt } caption { text-align: left; color: #555 }
th, td { padding: 1px 8px 1px 0; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
.side { display: flex; gap: 8mm; flex-wrap: wrap } img { display: block; width: 100% }
"""


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
        return f"Your lab report: {self.path}"

    def _repr_html_(self) -> str:
        """A link, and the page itself, which can do nothing but be looked at."""
        link = escape(os.path.relpath(self.path))
        return (
            f'<p>Your lab report: <a href="{link}" target="_blank">{escape(str(self.path))}</a></p>'
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
        words: What the learner says to it.
        path: The file; by default `lab_report.html` in the learner's folder.

    Raises:
        LabkitError: It cannot be written.
    """
    parts = [
        "<h1>How chunk size trades against latency</h1>",
        f'<p class="quiet">{escape(_origin(servers.servers, networks))}</p>',
        "<h2>What I expected, and what came</h2>",
        _predictions(predictions_of("ch5")),
        "<h2>My server over several networks</h2>",
        image_html(networks_figure(networks), _waits(networks)),
        '<div class="side"><div>',
        _sizes(rows),
        "</div><div>",
        _servers(servers.servers),
        _writes(two_writes),
        "</div></div>",
        "<h2>Where the time goes</h2>",
        image_html(figure_of(plot_rest(servers.servers)), _waits(servers.servers)),
        "<h2>Two writes and an answer</h2>",
        image_html(figure_of(plot_two_writes(two_writes)), _writes_alt(two_writes)),
        "<h2>Conclusion</h2>",
        *(f"<p>{escape(sentence)}</p>" for sentence in (servers.conclusion, said(concluded))),
        f"<p><b>{escape(words.strip())}</b></p>",
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
    machine = about_machine(["labkit"])
    turns, over = (sum(one.asked for one in asked) for asked in (servers, networks))
    return (
        f"{date.today()} · {machine['cpu']}, {machine['cores']} cores · {turns} turns of "
        f"{len(servers)} servers, and {over} over {len(networks)} networks"
    )


def said(concluded: Mapping[str, Any]) -> str:
    """What `conclude` gave, as a sentence."""
    sizes = ", ".join(f"{size:g}" for size in concluded["sizes_ms"])
    kept = (
        f"Chunks of {sizes} ms keep both limits." if sizes else "No chunk size keeps both limits."
    )
    clear = "more than noise" if concluded["clear"] else "no more than noise"
    agrees = "agrees" if concluded["explained"] else "does not agree"
    return (
        f"{kept} What the largest chunks add is {clear}, and {agrees} with what half a chunk "
        "predicts."
    )


def _table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(kind: str, cells: Sequence[str]) -> str:
        return f"<tr>{''.join(f'<{kind}>{escape(cell)}</{kind}>' for cell in cells)}</tr>"

    body = "".join(line("td", row) for row in rows)
    return f"<table><caption>{escape(caption)}</caption>{line('th', head)}{body}</table>"


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
        "My server: the wait against the smallest chunks (95 % interval)",
        ("chunk, ms", "added, ms", "half a chunk", "headers, %"),
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
        f"With chunks of {servers[0].middle.chunk_ms} ms",
        ("", "wait, ms", "turns", "words misheard", "slowest pings, ms"),
        [
            (
                server.name,
                _number(server.middle.wait.value),
                f"{server.turns} of {server.asked}",
                "–" if (wrong := server.word_error_rate) is None else f"{100 * wrong:.0f} %",
                _number(server.ping_p99_ms),
            )
            for server in servers
        ],
    )


def _writes(measured: Mapping[tuple[int, bool], Sequence[float]]) -> str:
    return _table(
        "A chunk and a ping, until the pong (median, ms)",
        ("", "TCP_NODELAY on", "off"),
        [
            (f"{writes} write(s)", *(f"{median(measured[writes, on]):.1f}" for on in (True, False)))
            for writes in (1, 2)
        ],
    )


def _writes_alt(measured: Mapping[tuple[int, bool], Sequence[float]]) -> str:
    told = (
        f"{writes} with TCP_NODELAY {'on' if nodelay else 'off'}: {median(took):.1f} ms"
        for (writes, nodelay), took in measured.items()
    )
    return f"Round trips by number of writes. {'; '.join(told)}."


def _waits(servers: Sequence[ServerSummary]) -> str:
    told = "; ".join(f"{one.name} {one.middle.wait.value:.0f} ms" for one in servers)
    return f"Waits with chunks of {servers[0].middle.chunk_ms} ms: {told}."
