"""Plain HTTP on the WebSocket's port: health, readiness, metrics, the dialect's schema.

What the metrics count is in Prometheus' words, with one registry per server and none shared.
"""

from collections.abc import Callable
from functools import cached_property, partial
from http import HTTPStatus
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from labkit.errors import ErrorCode
from labkit.protocol import schema
from labkit.trace import Trace

_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus' format has a version; other text does not mind."""
_SCHEMA: Final = "application/schema+json"
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Pages:
    """Answers the paths that are no WebSocket."""

    def __init__(self, *, ready: Callable[[], bool], metrics: Callable[[], bytes]) -> None:
        self._ready = ready
        self._metrics = metrics

    def answer(self, request: Request) -> Response | None:
        """The page that `request` asks for, or None where it asks for a WebSocket."""
        # Not urlsplit: it raises ValueError on paths like "//[", which any client may send.
        match request.path.partition("?")[0]:
            case "/healthz":
                return page(HTTPStatus.OK, b"alive\n")
            case "/readyz" if self._ready():
                return page(HTTPStatus.OK, b"ready\n")
            case "/readyz":
                return page(HTTPStatus.SERVICE_UNAVAILABLE, b"closing\n")
            case "/metrics":
                return page(HTTPStatus.OK, self._metrics())
            case schema.PATH:
                return page(HTTPStatus.OK, self._schema, _SCHEMA)
        return None

    @cached_property
    def _schema(self) -> bytes:
        """Made when it is first asked for, which takes some hundredths of a second."""
        return schema.schema_text().encode()


def page(status: HTTPStatus, body: bytes, kind: str = _TEXT) -> Response:
    """An answer over plain HTTP, behind which the connection ends."""
    headers = Headers(
        [
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
    )
    return Response(status.value, status.phrase, headers, body)


class Metrics:
    """Counters of one server; each says what it counts in its help text."""

    def __init__(self, on_turn: Callable[[Trace], None] | None = None) -> None:
        """Begin with zeros; `on_turn` is told each turn that was answered."""
        self._on_turn = on_turn
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        counter = partial(Counter, registry=self.registry)
        self.sessions = gauge("labkit_sessions", "Sessions now, by state", ["state"])
        self.turns = counter("labkit_turns", "Turns answered")
        self.tokens = counter("labkit_tokens", "Tokens of replies")
        self.refusals = counter("labkit_refusals", "Messages refused, by code", ["code"])
        self.queued = gauge("labkit_queued_calls", "Calls that wait, by engine", ["engine"])
        self.stages = Histogram(
            "labkit_stage_seconds",
            "Seconds of each stage of a turn",
            ["stage"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.behind = gauge("labkit_seconds_behind", "Longest wait of a turn now")
        self.tasks = gauge("labkit_tasks", "Tasks of the event loop")
        self.held_bytes = gauge("labkit_held_bytes", "Bytes held for all sessions")
        self.work_ahead = counter(
            "labkit_work_ahead",
            "Answers begun before the end of speech was sure, by what became of them",
            ["outcome"],
        )
        self.underruns = counter("labkit_underruns", "Times that reply audio came too late")
        self.refused_connections = counter(
            "labkit_refused_connections", "Connections refused, by HTTP status", ["status"]
        )
        self.closes = counter("labkit_closes", "Connections closed, by code", ["code"])

    def refused(self, code: ErrorCode, count: int) -> None:
        """Count messages that were refused, or a turn that failed."""
        self.refusals.labels(code=code.value).inc(count)

    def underrun(self) -> None:
        """Count that a client which plays at once has run out of reply audio."""
        self.underruns.inc()

    def worked_ahead(self, *, used: bool) -> None:
        """Count an answer that was begun in a pause."""
        self.work_ahead.labels(outcome="used" if used else "dropped").inc()

    def turn_answered(self, trace: Trace) -> None:
        """Count a turn that was answered."""
        self.turns.inc()
        self.tokens.inc(trace.tokens)
        for stage, milliseconds in trace.stages_ms().items():
            self.stages.labels(stage=stage.value).observe(milliseconds / 1000)
        if self._on_turn is not None:
            self._on_turn(trace)

    def page(self) -> bytes:
        """The page that a Prometheus server scrapes."""
        return generate_latest(self.registry)
