"""Metrics and spans of a request, with OpenTelemetry's own SDK and Prometheus's own parser."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client.parser import text_string_to_metric_families

from stanchion.core.decision import (
    CheckRecord,
    CheckStatus,
    Decision,
    Effect,
    Mode,
    OnFailure,
    Surface,
)
from stanchion.core.finding import Finding, Location
from stanchion.core.interaction import FinishReason, Usage
from stanchion.gateway.observed import MetricsObserver, TracingObserver
from stanchion.gateway.ports import ApiSurface, ExchangeRecord, Outcome, RequestFacts, Stage, UpstreamTry
from stanchion.telemetry import names
from stanchion.telemetry.metrics import Metrics
from stanchion.telemetry.names import Profile, profile_of
from stanchion.telemetry.tracing import Tracing

TRACE, SPAN, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"
FACTS = RequestFacts(
    id="r1",
    surface=ApiSurface.OPENAI_CHAT,
    is_stream=True,
    feature="support",
    model="gpt",
    provider="openai",
    prompt="support@3",
    trace_id=TRACE,
    span_id=SPAN,
    parent_span_id=PARENT,
)
FINDING = Finding(
    detector="injection.patterns",
    version="1",
    category="injection.direct",
    score=0.9,
    location=Location(start=0, end=4),
)
BLOCK = Decision(
    effect=Effect.BLOCK,
    surface=Surface.INPUT,
    mode=Mode.SHADOW,
    findings=(FINDING,),
    checks=(
        CheckRecord(detector="a", version="1", surface=Surface.INPUT, status=CheckStatus.RAN),
        CheckRecord(detector="b", version="1", surface=Surface.INPUT, status=CheckStatus.TIMED_OUT),
    ),
    policy_digest="d1",
    rule_ids=("no-injection",),
    reference="ref1",
    elapsed_ms=2.0,
    outcome=OnFailure.OPEN,
)
RECORD = ExchangeRecord(
    facts=FACTS,
    at="2026-11-23T10:00:00+00:00",
    outcome=Outcome.ALLOWED,
    stage=Stage.DONE,
    status=200,
    reference="ref1",
    decisions=(BLOCK,),
    is_gated=False,
    manifest={"expected": 2, "ran": 1, "did_not_run": 1},
    guarantee="no-leak",
    finish_reason=FinishReason.STOP,
    usage=Usage(input_tokens=10, output_tokens=5, cost_usd=0.25),
    total_ms=100.0,
    guard_ms=2.0,
    first_byte_ms=20.0,
    tries=(
        UpstreamTry(provider="openai", model="gpt", status="timeout", latency_ms=30.0),
        UpstreamTry(provider="azure", model="gpt-b", status="ok", latency_ms=60.0),
    ),
    switch_version=4,
    unknown_events={"openai:new": 2},
)


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def spans(exporter: InMemorySpanExporter, record: ExchangeRecord, profile: Profile) -> dict[str, Any]:
    tracing = Tracing(exporter=exporter, batched=False)
    TracingObserver(tracing, profile=profile).finished(record)
    tracing.close()
    return {f"{span.name}/{span.kind.name}": span for span in exporter.get_finished_spans()}


def test_a_request_is_one_server_span_with_its_tries_and_decisions_below(
    exporter: InMemorySpanExporter,
) -> None:
    got = spans(exporter, RECORD, Profile.LATEST)
    whole = got["chat gpt/SERVER"]
    assert whole.kind is SpanKind.SERVER
    assert f"{whole.context.trace_id:032x}" == TRACE
    assert f"{whole.context.span_id:016x}" == SPAN
    assert f"{whole.parent.span_id:016x}" == PARENT
    assert (whole.end_time - whole.start_time) == 100_000_000
    assert names.INPUT_TOKENS not in whole.attributes  # told once, by the try that answered
    assert whole.attributes[names.CHECKS_DID_NOT_RUN] == 1
    assert whole.attributes[names.PROMPT_NAME] == "support"
    assert whole.attributes[names.TIME_TO_FIRST_CHUNK] == 0.02
    failed, fine = got["chat gpt/CLIENT"], got["chat gpt-b/CLIENT"]
    assert fine.attributes[names.INPUT_TOKENS] == 10
    assert names.INPUT_TOKENS not in failed.attributes
    assert failed.status.status_code is StatusCode.ERROR
    assert fine.status.status_code is StatusCode.UNSET
    assert failed.attributes[names.ERROR_TYPE] == "timeout"
    for child in (failed, fine, got["run_guardrail stanchion/INTERNAL"]):
        assert child.parent.span_id == whole.context.span_id


def test_the_verdict_is_told_apart_from_the_action(exporter: InMemorySpanExporter) -> None:
    guard = spans(exporter, RECORD, Profile.LATEST)["run_guardrail stanchion/INTERNAL"]
    assert guard.attributes[names.VERDICT_TYPE] == "deny"
    assert guard.attributes[names.ACTION_TYPE] == "allow"  # the policy only observes
    assert guard.attributes[names.TARGET_TYPE] == "input"
    assert guard.attributes[names.RISK_CATEGORY] == "injection.direct"
    assert guard.status.status_code is StatusCode.ERROR  # a check did not run
    (event,) = guard.events
    assert event.name == names.EVALUATION_EVENT
    assert event.attributes[names.EVALUATION_SCORE] == 0.9


def test_release_1_37_has_no_names_for_guardrails(exporter: InMemorySpanExporter) -> None:
    guard = spans(exporter, RECORD, Profile.V1_37)["run_guardrail stanchion/INTERNAL"]
    assert not [name for name in guard.attributes if name.startswith("gen_ai.guardrail")]
    assert guard.attributes["stanchion.guardrail.verdict.type"] == "deny"
    assert profile_of("http,gen_ai_latest_experimental") is Profile.LATEST
    assert profile_of("http") is Profile.V1_37


def test_what_is_not_sampled_is_not_sent(exporter: InMemorySpanExporter) -> None:
    facts = msgspec.structs.replace(FACTS, is_sampled=False)
    assert spans(exporter, msgspec.structs.replace(RECORD, facts=facts), Profile.LATEST) == {}


def test_metrics_tell_what_happened() -> None:
    metrics = Metrics()
    observer = MetricsObserver(metrics, gauges=lambda m: m.set("stanchion_queue_depth", 3, "records"))
    observer.started(FACTS)
    observer.finished(RECORD)
    families = text_string_to_metric_families(observer.exposition().decode())
    got = {(s.name, *sorted(s.labels.values())): s.value for f in families for s in f.samples}
    assert got["stanchion_requests_total", "allowed", "openai.chat", "true"] == 1
    assert got["stanchion_decisions_total", "block", "input", "shadow"] == 1
    assert got["stanchion_checks_total", "ran"] == 1
    assert got["stanchion_checks_total", "timed_out"] == 1
    assert got["stanchion_deadline_total", "input"] == 1
    assert got["stanchion_fail_open_total", "input"] == 1
    assert got["stanchion_ungated_total", "support"] == 1
    assert got["stanchion_unknown_events_total", "openai:new"] == 2
    assert got["stanchion_tokens_total", "gpt", "input"] == 10
    assert got["stanchion_cost_usd_total", "gpt"] == 0.25
    assert got["stanchion_upstream_tries_total", "openai", "timeout"] == 1
    assert got["stanchion_queue_depth", "records"] == 3
