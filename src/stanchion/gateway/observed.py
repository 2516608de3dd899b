"""Metrics and spans of the gateway: observers that turn one exchange record into numbers and spans.

A span tells which checks ran, what the guard said (verdict) and what was done (action), with ids, digests and
categories; no word of a request is in any of it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from datetime import datetime

import msgspec

from stanchion.core.decision import CheckStatus, Decision, Effect, Mode, OnFailure, Surface
from stanchion.gateway.ports import ApiSurface, ExchangeRecord, Outcome, RequestFacts, UpstreamTry
from stanchion.store.identity import is_plain
from stanchion.telemetry import names
from stanchion.telemetry.metrics import MAX_LABEL_VALUES, Count, Measure, Metrics
from stanchion.telemetry.names import Profile
from stanchion.telemetry.trace_context import TraceContext
from stanchion.telemetry.tracing import SpanEvent, SpanKind, SpanRecord, Tracing, Value

_OPERATIONS = {ApiSurface.OPENAI_EMBEDDINGS: names.EMBEDDINGS}
_MODEL_SURFACES = frozenset(
    {
        ApiSurface.OPENAI_CHAT,
        ApiSurface.OPENAI_RESPONSES,
        ApiSurface.OPENAI_EMBEDDINGS,
        ApiSurface.ANTHROPIC_MESSAGES,
    }
)
_TARGETS = {
    Surface.SYSTEM: ("input", "system"),
    Surface.INPUT: ("input", "llm"),
    Surface.RETRIEVED: ("input", "retrieval"),
    Surface.TOOL_DEFINITION: ("input", "tool_definition"),
    Surface.TOOL_RESULT: ("output", "tool_call"),
    Surface.TOOL_CALL: ("input", "tool_call"),
    Surface.REASONING: ("output", "reasoning"),
    Surface.OUTPUT: ("output", "llm"),
}
_VERDICTS = {
    Effect.ALLOW: "allow",
    Effect.REDACT: "modify",
    Effect.TRANSFORM: "modify",
    Effect.REPLACE: "modify",
    Effect.ROUTE: "escalate",
    Effect.REQUIRE_APPROVAL: "escalate",
    Effect.BLOCK: "deny",
}
_ACTIONS = {**_VERDICTS, Effect.BLOCK: "block"}
_ANSWERED = frozenset({Surface.OUTPUT, Surface.REASONING, Surface.TOOL_CALL})
_RAN = CheckStatus.RAN
_FAILED = frozenset({Outcome.UPSTREAM_ERROR, Outcome.INTERNAL_ERROR, Outcome.DEADLINE})


class _Ended:
    """What counts requests of one API that ended in one way."""

    __slots__ = ("guard_s", "requests", "seconds")

    def __init__(self, metrics: Metrics, surface: ApiSurface, outcome: Outcome, *, is_stream: bool) -> None:
        stream = "true" if is_stream else "false"
        self.requests = metrics.count("stanchion_requests_total", str(surface), str(outcome), stream)
        self.seconds = metrics.measure("stanchion_request_seconds", str(surface), stream)
        self.guard_s: Measure | None = None


class _Tried:
    """What counts tries at one provider with one result."""

    __slots__ = ("seconds", "tries")

    def __init__(self, metrics: Metrics, provider: str, status: str) -> None:
        self.seconds = metrics.measure("stanchion_upstream_seconds", provider)
        self.tries = metrics.count("stanchion_upstream_tries_total", provider, status)


class MetricsObserver:
    """Counts what happens; `gauges` are asked whenever the metrics are read."""

    gauges: Callable[[Metrics], None] | None

    def __init__(self, metrics: Metrics, *, gauges: Callable[[Metrics], None] | None = None) -> None:
        self._metrics = metrics
        self._ended: dict[tuple[ApiSurface, Outcome, bool], _Ended] = {}
        self._tried: dict[tuple[str, str], _Tried] = {}
        self._decided: dict[tuple[Surface, Effect, Mode], Count] = {}
        self._ungated: dict[str, Count] = {}
        self._read: dict[str, Count] = {}
        self._said: dict[str, Count] = {}
        self._unprotected = metrics.count("stanchion_unprotected_total")
        for status in CheckStatus:  # alerts look at rates, which do not see a counter come into being
            metrics.count("stanchion_checks_total", status)
        for surface in Surface:
            metrics.count("stanchion_fail_open_total", surface)
            metrics.count("stanchion_deadline_total", surface)
        self.gauges = gauges

    def started(self, facts: RequestFacts) -> None:
        """Nothing: a request is counted when it is known how it ended."""

    def finished(self, record: ExchangeRecord) -> None:
        """Count a request and everything that happened to it."""
        metrics, facts = self._metrics, record.facts
        kind = facts.surface, record.outcome, facts.is_stream
        ended = self._ended.get(kind)
        if ended is None:
            ended = self._ended[kind] = _Ended(metrics, *kind[:2], is_stream=facts.is_stream)
        ended.requests.amount += 1
        ended.seconds.observe(record.total_ms / 1000)
        if record.first_byte_ms is not None:
            metrics.observe("stanchion_first_byte_seconds", record.first_byte_ms / 1000, str(facts.surface))
        if record.decisions:
            if ended.guard_s is None:
                ended.guard_s = metrics.measure("stanchion_guard_seconds", str(facts.surface))
            ended.guard_s.observe(record.guard_ms / 1000)
            self._count_decisions(record.decisions)
        for one in record.tries:
            tried = self._tried.get((one.provider, one.status))
            if tried is None:
                tried = _Tried(metrics, one.provider, one.status)
                self._tried[one.provider, one.status] = tried
            tried.seconds.observe(one.latency_ms / 1000)
            tried.tries.amount += 1
        self._count_states(record)

    def _count_decisions(self, decisions: tuple[Decision, ...]) -> None:
        checks: dict[CheckStatus, int] = {}
        ran, is_protected = 0, True
        for decision in decisions:
            is_protected = is_protected and decision.is_protected
            kind = decision.surface, decision.effect, decision.mode
            decided = self._decided.get(kind)
            if decided is None:
                decided = self._decided[kind] = self._metrics.count("stanchion_decisions_total", *kind)
            decided.amount += 1
            for finding in decision.findings:
                self._metrics.add("stanchion_findings_total", 1, finding.category)
            for check in decision.checks:
                status = check.status
                if status is _RAN:
                    ran += 1
                    continue
                checks[status] = checks.get(status, 0) + 1
                if status is CheckStatus.TIMED_OUT:
                    self._metrics.add("stanchion_deadline_total", 1, decision.surface)
            if decision.outcome is OnFailure.OPEN:
                self._metrics.add("stanchion_fail_open_total", 1, decision.surface)
        if not is_protected:
            self._unprotected.amount += 1
        if ran:
            checks[_RAN] = ran
        for status, count in checks.items():
            self._metrics.add("stanchion_checks_total", count, status)

    def _count_states(self, record: ExchangeRecord) -> None:
        metrics, facts, usage = self._metrics, record.facts, record.usage
        if record.is_gated is False:
            ungated = self._ungated.get(facts.feature)
            if ungated is None:
                ungated = metrics.count("stanchion_ungated_total", facts.feature)
                self._ungated[facts.feature] = ungated
            ungated.amount += 1
        if record.switch_id:
            metrics.add("stanchion_switched_off_total", 1, record.switch_id)
        for kind, count in record.unknown_events.items():
            metrics.add("stanchion_unknown_events_total", count, kind)
        model = facts.model if record.tries else ""
        if usage.input_tokens:
            (self._read.get(model) or self._tokens(self._read, model, "input")).add(usage.input_tokens)
        if usage.output_tokens:
            (self._said.get(model) or self._tokens(self._said, model, "output")).add(usage.output_tokens)
        if usage.cost_usd:
            metrics.add("stanchion_cost_usd_total", usage.cost_usd, model)

    def _tokens(self, kept: dict[str, Count], model: str, direction: str) -> Count:
        """What counts the tokens of a model; clients may name models without end, which are not all kept."""
        count = self._metrics.count("stanchion_tokens_total", model, direction)
        if len(kept) < MAX_LABEL_VALUES:
            kept[model] = count
        return count

    @property
    def metrics(self) -> Metrics:
        """What it counts with."""
        return self._metrics

    def exposition(self) -> bytes:
        """Everything in Prometheus's text format."""
        if self.gauges is not None:
            self.gauges(self._metrics)
        return self._metrics.exposition()


class TracingObserver:
    """Makes the spans of a request: the gateway's own, one per try at a provider, one per decision."""

    def __init__(self, tracing: Tracing, *, profile: Profile = Profile.V1_37) -> None:
        self._tracing = tracing
        self._profile = profile

    def started(self, facts: RequestFacts) -> None:
        """Nothing: spans are made when it is known how they ended."""

    def finished(self, record: ExchangeRecord) -> None:
        """Hand over the spans of a request."""
        for span in spans_of(record, profile=self._profile):
            self._tracing.emit(span)

    def close(self) -> None:
        """Send what waits."""
        self._tracing.close()


def spans_of(record: ExchangeRecord, *, profile: Profile = Profile.V1_37) -> Iterator[SpanRecord]:
    """The spans of one request, the gateway's own first.

    Tries and decisions are drawn one after the other in the order in which they were made; where exactly
    within the request they began is not recorded.
    """
    facts = record.facts
    context = TraceContext(
        trace_id=facts.trace_id or secrets.token_hex(16),
        span_id=facts.span_id or secrets.token_hex(8),
        is_sampled=facts.is_sampled,
    )
    parent = context_of(facts.parent_span_id, context)
    start_ns = int(datetime.fromisoformat(record.at).timestamp() * 1e9)
    yield SpanRecord(
        name=f"{_operation(facts)} {_subject(facts)}".strip(),
        context=context,
        parent=parent,
        start_ns=start_ns,
        duration_ms=record.total_ms,
        kind=SpanKind.SERVER,
        attributes=dict(_request_attributes(record)),
        error=record.outcome.value if record.outcome in _FAILED else "",
    )
    at_ns = start_ns
    answered = answering_try(record)
    for one in record.tries:
        yield SpanRecord(
            name=f"{_operation(facts)} {one.model}".strip(),
            context=_below(context, one.span_id),
            parent=context,
            start_ns=at_ns,
            duration_ms=one.latency_ms,
            kind=SpanKind.CLIENT,
            attributes={
                names.OPERATION_NAME: _operation(facts),
                names.PROVIDER_NAME: one.provider,
                names.REQUEST_MODEL: one.model,
                **(dict(_usage(record)) if one is answered else {}),
                **({} if one.status == "ok" else {names.ERROR_TYPE: one.status}),
            },
            error="" if one.status == "ok" else one.status,
        )
        at_ns += int(one.latency_ms * 1e6)
    at_ns = start_ns
    for decision in record.decisions:
        yield _decision_span(record, decision, (context.child(), context, at_ns), profile)
        at_ns += int(decision.elapsed_ms * 1e6)


def context_of(span_id: str, of: TraceContext) -> TraceContext | None:
    """The place of another span of the same trace; None without an id."""
    if not span_id:
        return None
    return TraceContext(trace_id=of.trace_id, span_id=span_id, is_sampled=of.is_sampled)


def answering_try(record: ExchangeRecord) -> UpstreamTry | None:
    """The try whose span tells the usage, so that nobody who adds up spans counts it twice."""
    return next((one for one in reversed(record.tries) if one.status in ("ok", "cut")), None)


def _below(context: TraceContext, span_id: str) -> TraceContext:
    return msgspec.structs.replace(context, span_id=span_id) if span_id else context.child()


def _subject(facts: RequestFacts) -> str:
    """What a span's name tells beside the operation; never a client's own words."""
    name = _tool(facts) or facts.model
    return name if is_plain(name) else ""


def _tool(facts: RequestFacts) -> str:
    is_call = facts.surface is ApiSurface.CHECK_TOOL_CALL and len(facts.tools) == 1
    return facts.tools[0] if is_call and is_plain(facts.tools[0]) else ""


def _usage(record: ExchangeRecord) -> Iterator[tuple[str, Value]]:
    usage = record.usage
    told: tuple[tuple[str, Value | None], ...] = (
        (names.INPUT_TOKENS, usage.input_tokens),
        (names.OUTPUT_TOKENS, usage.output_tokens),
        (names.CACHE_READ_TOKENS, usage.cached_input_tokens),
        (names.COST_USD, usage.cost_usd),
        (names.FINISH_REASONS, [record.finish_reason.value]),
    )
    for name, value in told:
        if value is not None:
            yield name, value


def _operation(facts: RequestFacts) -> str:
    if facts.surface in _MODEL_SURFACES:
        return _OPERATIONS.get(facts.surface, names.CHAT)
    if facts.surface is ApiSurface.CHECK_TOOL_CALL:
        return names.EXECUTE_TOOL
    return names.RUN_GUARDRAIL if facts.surface is not ApiSurface.OPENAI_MODELS else facts.surface.value


def _request_attributes(record: ExchangeRecord) -> Iterator[tuple[str, Value]]:
    facts = record.facts
    prompt, _, version = facts.prompt.partition("@")
    told: tuple[tuple[str, Value | None], ...] = (
        (names.OPERATION_NAME, _operation(facts)),
        (names.PROVIDER_NAME, facts.provider),
        (names.REQUEST_MODEL, facts.model if is_plain(facts.model) else ""),
        (names.TOOL_NAME, _tool(facts)),
        (names.REQUEST_STREAM, facts.is_stream or None),
        (names.CONVERSATION_ID, facts.session_id),
        (names.PROMPT_NAME, prompt),
        (names.PROMPT_VERSION, version),
        (names.REFERENCE, record.reference),
        (names.OUTCOME, record.outcome.value),
        (names.STAGE, record.stage.value),
        (names.FEATURE, facts.feature),
        (names.GUARANTEE, record.guarantee),
        (names.COMPONENTS, record.components.digest),
        (names.IS_GATED, record.is_gated),
        (names.SWITCH_VERSION, record.switch_version),
        (names.SWITCH_ID, record.switch_id),
        (names.CHECKS_EXPECTED, record.manifest.get("expected")),
        (names.CHECKS_RAN, record.manifest.get("ran")),
        (names.CHECKS_DID_NOT_RUN, record.manifest.get("did_not_run")),
        (names.GUARD_SECONDS, record.guard_ms / 1000),
        (names.ERROR_TYPE, record.outcome.value if record.outcome in _FAILED else None),
    )
    for name, value in told:
        if value is not None and value != "":
            yield name, value
    if record.first_byte_ms is not None:
        yield names.TIME_TO_FIRST_CHUNK, record.first_byte_ms / 1000


def _decision_span(
    record: ExchangeRecord,
    decision: Decision,
    place: tuple[TraceContext, TraceContext, int],
    profile: Profile,
) -> SpanRecord:
    (context, parent, start_ns), (target, subtype) = place, _TARGETS[decision.surface]
    attributes: dict[str, Value] = {
        names.OPERATION_NAME: names.RUN_GUARDRAIL,
        names.GUARDRAIL_NAME: "stanchion",
        names.TARGET_TYPE: target,
        names.TARGET_SUBTYPE: subtype,
        names.VERDICT_TYPE: _VERDICTS[decision.effect],
        names.VERDICT_CODE: decision.effect.value,
        names.ACTION_TYPE: _ACTIONS[decision.enforced_effect],
        names.POLICY_ID: decision.policy_digest,
    }
    if decision.effect in (Effect.REDACT, Effect.TRANSFORM, Effect.REPLACE):
        attributes[names.CONTENT_MODIFIED] = decision.mode is Mode.ENFORCE
    if decision.rule_ids:
        attributes[names.RULE_ID] = ",".join(decision.rule_ids)
    if decision.reference:
        attributes[names.FINDING_ID] = decision.reference
    worst = max(decision.findings, key=lambda finding: finding.score, default=None)
    if worst is not None:
        attributes[names.RISK_CATEGORY] = worst.category
        attributes[names.RISK_SCORE] = worst.score
    if decision.surface in _ANSWERED and record.output_hash:
        attributes[names.OUTPUT_HASH] = record.output_hash
    elif decision.surface not in _ANSWERED and record.input_hash:
        attributes[names.INPUT_HASH] = record.input_hash
    failed = [check for check in decision.checks if check.status is not CheckStatus.RAN]
    if profile is Profile.V1_37:  # release 1.37 has no word for guardrails: only ours and the operation's
        attributes = {k: v for k, v in attributes.items() if not k.startswith("gen_ai.guardrail.")} | {
            k.replace("gen_ai.guardrail.", "stanchion.guardrail."): v
            for k, v in attributes.items()
            if k.startswith("gen_ai.guardrail.")
        }
    return SpanRecord(
        name=f"{names.RUN_GUARDRAIL} stanchion",
        context=context,
        parent=parent,
        start_ns=start_ns,
        duration_ms=decision.elapsed_ms,
        attributes=attributes,
        events=tuple(
            _evaluation(finding.detector, finding.score, finding.category) for finding in decision.findings
        ),
        error=failed[0].status.value if failed else "",
    )


def _evaluation(detector: str, score: float, category: str) -> SpanEvent:
    return SpanEvent(
        name=names.EVALUATION_EVENT,
        attributes={
            names.EVALUATION_NAME: detector,
            names.EVALUATION_SCORE: score,
            names.EVALUATION_LABEL: category,
        },
    )
