"""Turns as spans: what they hold, and that they arrive."""

import builtins
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from labkit.errors import LabkitError
from labkit.spans import Spans, open_spans
from labkit.trace import Mark, Trace

MS = 10**6


def turn() -> Trace:
    """A turn at the server, recognised in 30 ms and heard after 90, the first 10 of them ahead."""
    trace = Trace(tokens=7)
    trace.mark(Mark.ASR_STARTED, 990 * MS)
    trace.wait_from(1000 * MS)
    for mark, at_ms in ((Mark.ASR_DONE, 1020), (Mark.LLM_FIRST_TOKEN, 1030)):
        trace.mark(mark, at_ms * MS)
    return trace


def test_a_turn_holds_its_stages_and_its_marks() -> None:
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    with Spans(provider) as spans:
        spans.export(turn())
        spans.export(Trace())  # nothing happened in it, and nothing is told
        told: dict[str, Any] = {span.name: span for span in kept.get_finished_spans()}
    whole = told.pop("turn")
    assert {e.name for e in whole.events} == {mark.value for mark in turn().marks}
    assert whole.attributes == {"labkit.tokens": 7}
    assert whole.end_time - whole.start_time == 40 * MS
    lasts = {name: (span.end_time - span.start_time) / MS for name, span in told.items()}
    assert lasts == {"asr": 20, "llm_first_token": 10, "asr_ahead": 10}
    for span in told.values():
        assert span.parent.span_id == whole.context.span_id
        assert whole.start_time <= span.start_time <= span.end_time <= whole.end_time


@contextmanager
def gatherer() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """Who gathers spans, and the requests that came."""
    came: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", came
        finally:
            server.shutdown()
            thread.join()


def test_they_go_where_the_variable_says(monkeypatch: pytest.MonkeyPatch) -> None:
    with gatherer() as (url, came):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        with open_spans("a lab") as spans:
            spans.export(turn())
    ((path, body),) = came
    assert path == "/v1/traces"
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    assert ("service.name", "a lab") in [
        (one.key, one.value.string_value) for one in resource.resource.attributes
    ]
    assert len(resource.scope_spans[0].spans) == 4


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def lacking(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ImportError(f"no module named {name}")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", lacking)
    with pytest.raises(LabkitError, match="extra 'otel'"):
        open_spans("a lab")
