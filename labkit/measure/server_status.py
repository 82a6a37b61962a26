"""What a server tells of itself: its page `/metrics`, as numbers, as text and as a table.

Labkit's server tells all of it. The one that a learner builds in chapter 2 has two numbers on its
page, sessions and bytes that are held, and a server that has no such page is told apart from one
that is gone.
"""

import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from http import HTTPStatus
from http.client import HTTPException
from typing import Final
from urllib.error import HTTPError
from urllib.parse import urljoin

from labkit.errors import ServerError
from labkit.trace import Stage

_PATIENCE_S: Final = 2.0

# Not by way of a proxy that the environment names: the server is on this machine.
_OPENER: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True, repr=False)
class ServerStatus:
    """What a server told of itself at one moment.

    Attributes:
        trouble: Why the rest is not known, in a sentence; empty where it is.
        running: Whether it is there.
        sessions: How many sessions it has, by state; under "" where it tells only how many.
        waiting: Calls that wait for an engine, by engine.
        stages: For each stage of a turn, turns so far and what they took on average, in
            milliseconds.
        held_bytes: Audio and messages that it keeps for its sessions; None where it does not tell.
        ahead: Answers begun in a pause, by what became of them.
        underruns: Times that reply audio came too late; None where it does not tell.
        tokens: Tokens of the replies so far; None where it does not tell.
    """

    url: str
    trouble: str = ""
    running: bool = True
    sessions: Mapping[str, int] = field(default_factory=dict)
    waiting: Mapping[str, int] = field(default_factory=dict)
    stages: Mapping[Stage, tuple[int, float]] = field(default_factory=dict)
    held_bytes: int | None = None
    ahead: Mapping[str, int] = field(default_factory=dict)
    underruns: int | None = None
    tokens: int | None = None

    @property
    def session_count(self) -> int:
        """How many sessions it has.

        Raises:
            ServerError: It does not tell.
        """
        if self.trouble:
            raise ServerError(f"{self.url}: {self.trouble}")
        return sum(self.sessions.values())

    @property
    def headline(self) -> str:
        """Whether it runs, and where."""
        return f"running at {self.url}" if self.running else f"not running ({self.url})"

    def rows(self) -> list[tuple[str, str]]:
        """What is known, each with its name."""
        rows = [("note", self.trouble)] if self.trouble else []
        if self.sessions:
            states = ", ".join(f"{n} {state}" for state, n in self.sessions.items() if state and n)
            number = self.session_count
            rows.append(("sessions", f"{number} ({states})" if states else f"{number}"))
        if self.waiting:
            calls = ", ".join(f"{n} for {engine}" for engine, n in self.waiting.items())
            rows.append(("calls that wait", calls))
        if self.held_bytes is not None:
            rows.append(("bytes held", f"{self.held_bytes:,}"))
        for stage, (turns, mean_ms) in self.stages.items():
            of = "1 turn" if turns == 1 else f"{turns} turns"
            rows.append((stage.label, f"{mean_ms:.0f} ms, mean of {of}"))
        return rows

    def __repr__(self) -> str:
        return "\n".join([self.headline, *(f"  {name:19} {what}" for name, what in self.rows())])

    def _repr_html_(self) -> str:
        return f"<div>{escape(self.headline)}</div>{self.table()}"

    def table(self) -> str:
        """What is known as HTML, without the headline."""
        rows = (
            f'<tr><th scope="row" style="text-align:left">{escape(name)}</th>'
            f'<td style="text-align:left">{escape(what)}</td></tr>'
            for name, what in self.rows()
        )
        return f'<table aria-label="What the server tells of itself">{"".join(rows)}</table>'


def get_page(url: str, path: str, patience_s: float = _PATIENCE_S) -> tuple[int, str]:
    """A page of the server that takes callers at `url`: the HTTP status, and the text.

    Only for servers of other processes: one on the event loop of this thread could not answer.

    Raises:
        OSError: Nobody answers there within `patience_s` seconds.
        HTTPException: Somebody does, and not with HTTP.
    """
    try:
        page = urljoin(url.replace("ws", "http", 1), path)
        with _OPENER.open(page, timeout=patience_s) as answer:
            return int(answer.status), str(answer.read().decode(errors="replace"))
    except HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode(errors="replace")


def figures_on(page: str) -> dict[str, dict[str, float]]:
    """The figures of a page in Prometheus' format, by their names and then their first label.

    Raises:
        ValueError: It is another format.
    """
    from prometheus_client.parser import text_string_to_metric_families

    figures: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(page):
        for name, labels, value, *_ in family.samples:
            label = next(iter(labels.values()), "")
            by_label = figures.setdefault(name, {})
            by_label[label] = by_label.get(label, 0) + value
    return figures


def fetch_status(url: str) -> ServerStatus:
    """Ask the server that takes callers at `url`, and wait up to two seconds for its answer."""
    try:
        status, page = get_page(url, "/metrics")
    except TimeoutError:
        return ServerStatus(url, f"its page /metrics did not come within {_PATIENCE_S:g} s")
    except (OSError, HTTPException) as error:
        return ServerStatus(url, f"nobody answers there ({error})", running=False)
    if status != HTTPStatus.OK:
        return ServerStatus(url, f"it has no page /metrics that can be read (HTTP {status})")
    return read_status(url, page)


def read_status(url: str, page: str) -> ServerStatus:
    """Take the numbers from a page in Prometheus' format; names that are not known are no harm."""
    try:
        numbers = {name.removeprefix("labkit_"): by for name, by in figures_on(page).items()}
    except ValueError as error:
        return ServerStatus(url, f"its page /metrics is not in Prometheus' format: {error}")
    sums, counts = numbers.get("stage_seconds_sum", {}), numbers.get("stage_seconds_count", {})
    return ServerStatus(
        url,
        "" if "sessions" in numbers else "its page /metrics has no line `sessions`",
        sessions=_whole(numbers.get("sessions", {})),
        waiting=_whole(numbers.get("queued_calls", {})),
        stages={
            stage: (int(turns), 1000 * sums[stage] / turns)
            for stage in Stage
            if (turns := counts.get(stage, 0.0)) and stage in sums
        },
        held_bytes=_whole(numbers.get("held_bytes", {})).get(""),
        ahead=_whole(numbers.get("work_ahead_total", {})),
        underruns=_whole(numbers.get("underruns_total", {})).get(""),
        tokens=_whole(numbers.get("tokens_total", {})).get(""),
    )


def _whole(numbers: Mapping[str, float]) -> dict[str, int]:
    return {name: int(number) for name, number in numbers.items()}
