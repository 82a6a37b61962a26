"""Turns as OpenTelemetry spans, for whoever gathers traces already. Needs the extra `otel`."""

import time
from typing import TYPE_CHECKING, Self

from labkit.errors import LabkitError
from labkit.trace import Trace

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


class Spans:
    """Tells `provider` each turn as a span, with its stages inside and its marks as events."""

    def __init__(self, provider: "TracerProvider") -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("labkit")

    def export(self, trace: Trace) -> None:
        """Tell a turn that is over; what was done ahead of the wait is told where it ran."""
        from opentelemetry.trace import set_span_in_context

        if not trace.marks:
            return
        # Marks are monotonic, spans are not: both clocks are read in one moment.
        epoch_ns = time.time_ns() - time.perf_counter_ns()
        times = [*trace.marks.values(), *trace.ahead.values()]
        turn = self._tracer.start_span(
            "turn", start_time=epoch_ns + min(times), attributes={"labkit.tokens": trace.tokens}
        )
        for mark, at_ns in trace.marks.items():
            turn.add_event(mark.value, timestamp=epoch_ns + at_ns)
        spans = [
            (stage.value, trace.marks[start], trace.marks[end])
            for stage, (start, end) in trace.stages.items()
            if start in trace.marks and end in trace.marks
        ]
        spans += [(f"{s.value}_ahead", *span) for s, span in trace.ahead_spans().items()]
        within = set_span_in_context(turn)
        for name, start_ns, end_ns in spans:
            span = self._tracer.start_span(name, within, start_time=epoch_ns + start_ns)
            span.end(epoch_ns + end_ns)
        turn.end(epoch_ns + max(times))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._provider.shutdown()  # which sends what was not sent yet


def open_spans(service: str) -> Spans:
    """Send spans over OTLP/HTTP, to where the variables of OpenTelemetry say.

    That is `OTEL_EXPORTER_OTLP_ENDPOINT`, and port 4318 of this machine without it.

    Args:
        service: Who tells them; `OTEL_SERVICE_NAME` says otherwise.

    Raises:
        LabkitError: The extra is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise LabkitError(
            f"spans need the extra 'otel' ({error}): run pip install -e '.[otel]'"
        ) from None
    named = Resource.create({"service.name": service}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=named)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Spans(provider)
