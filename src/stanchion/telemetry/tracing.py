"""Spans, when the extra `otel` is installed and an exporter is configured; otherwise nothing at all.

Spans are made after the fact, from what was measured: a request costs no more than a few objects while it is
answered, and the ids of its span are known before, so that they travel to the provider in `traceparent`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

from stanchion.core.errors import MissingExtraError
from stanchion.telemetry.openinference import openinference
from stanchion.telemetry.trace_context import TraceContext

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

Value = str | bool | int | float | Sequence[str]
_NS = 1_000_000


class SpanKind(StrEnum):
    """As OpenTelemetry names them."""

    SERVER = "server"
    CLIENT = "client"
    INTERNAL = "internal"


class SpanEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened within a span, `at_ms` after its start."""

    name: str
    attributes: Mapping[str, Value] = msgspec.field(default_factory=dict)
    at_ms: float = 0.0


class SpanRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A finished span. `start_ns` is since 1970; `parent` None makes it the root of its trace."""

    name: str
    context: TraceContext
    parent: TraceContext | None
    start_ns: int
    duration_ms: float
    kind: SpanKind = SpanKind.INTERNAL
    attributes: Mapping[str, Value] = msgspec.field(default_factory=dict)
    events: tuple[SpanEvent, ...] = ()
    error: str = ""


def is_installed() -> bool:
    """Whether the extra `otel` is there."""
    try:
        return importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:  # a package above it is not there
        return False


class Tracing:
    """Gives finished spans to an exporter, in batches and off the event loop.

    Args:
        exporter: where they go; an OTLP exporter for `endpoint` when it is None.
        endpoint: an OTLP/HTTP address such as `http://127.0.0.1:4318/v1/traces`.
        service: the name of the service.
        openinference: whether spans say OpenInference's attributes too.
        batched: whether spans wait to be sent together; tests switch it off.

    Raises:
        MissingExtraError: without the extra `otel`.
    """

    def __init__(
        self,
        *,
        exporter: SpanExporter | None = None,
        endpoint: str = "",
        service: str = "stanchion-gateway",
        openinference: bool = False,
        batched: bool = True,
    ) -> None:
        if not is_installed():
            raise MissingExtraError("sending spans", "otel")
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON

        if exporter is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            exporter = OTLPSpanExporter(endpoint=endpoint)
        self._ids = _preset_ids()
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,  # what is sampled was decided when the request began
            resource=Resource.create({"service.name": service}),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        self._is_openinference = openinference
        processor = BatchSpanProcessor(exporter) if batched else SimpleSpanProcessor(exporter)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("stanchion")

    def emit(self, span: SpanRecord) -> None:
        """Hand over a finished span; what is not sampled is left out."""
        if not span.context.is_sampled:
            return
        from opentelemetry import trace

        attributes = dict(span.attributes)
        if self._is_openinference:
            attributes |= openinference(attributes, is_server=span.kind is SpanKind.SERVER)
        self._ids.preset(int(span.context.trace_id, 16), int(span.context.span_id, 16))
        made = self._tracer.start_span(
            span.name,
            context=_parent_context(span.parent),
            kind=trace.SpanKind[span.kind.name],
            attributes=attributes,
            start_time=span.start_ns,
        )
        for event in span.events:
            made.add_event(event.name, dict(event.attributes), span.start_ns + int(event.at_ms * _NS))
        if span.error:
            made.set_status(trace.StatusCode.ERROR, span.error)
        made.end(span.start_ns + int(span.duration_ms * _NS))

    def close(self) -> None:
        """Send what waits and stop."""
        self._provider.shutdown()


def _parent_context(parent: TraceContext | None) -> Any:
    from opentelemetry import context, trace

    if parent is None:
        return context.Context()
    above = trace.SpanContext(
        trace_id=int(parent.trace_id, 16),
        span_id=int(parent.span_id, 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(above), context.Context())


def _preset_ids() -> Any:
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class PresetIds(RandomIdGenerator):
        """Gives out the ids that were chosen when the request began."""

        trace_id = 0
        span_id = 0

        def preset(self, trace_id: int, span_id: int) -> None:
            self.trace_id, self.span_id = trace_id, span_id

        def generate_trace_id(self) -> int:
            return self.trace_id or super().generate_trace_id()

        def generate_span_id(self) -> int:
            return self.span_id or super().generate_span_id()

    return PresetIds()
