"""Every field of a policy is compared when a policy is extended, or stands in a table with the reason."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from stanchion.core.decision import Effect, Mode, OnFailure, Surface
from stanchion.core.finding import Severity
from stanchion.core.origin import Origin
from stanchion.guard.media_rules import KINDS, MediaHandling, MediaRules
from stanchion.guard.policy_model import (
    ArgumentRule,
    Capture,
    DetectorSettings,
    Guarantee,
    Handling,
    Limits,
    MarkingStyle,
    Policy,
    Redaction,
    Streaming,
    ToolRule,
    ToolRules,
    Views,
    WholeMessage,
)
from stanchion.guard.retrieval_rules import CitationHandling, Quarantined, RetrievalRules
from stanchion.guard.rules import Operator, Rule, Selector
from stanchion.guard.tightening import NOT_COMPARED, loosenings

COMPARED_RECORDS = (
    MediaRules,
    RetrievalRules,
    Quarantined,
    Views,
    Policy,
    DetectorSettings,
    Limits,
    Redaction,
    Streaming,
    Rule,
    Selector,
    ToolRules,
    ToolRule,
    ArgumentRule,
)


def detector(**fields: Any) -> Policy:
    return Policy(detectors={"pii": DetectorSettings(**fields)})


def limits(**fields: Any) -> Policy:
    return Policy(limits=Limits(**fields))


def redaction(**fields: Any) -> Policy:
    return Policy(redaction=Redaction(**fields))


def rule(**fields: Any) -> Policy:
    return Policy(rules=(Rule(**{"id": "r", "effect": Effect.REDACT, **fields}),))


def when(**fields: Any) -> Policy:
    return rule(when=Selector(**fields))


def tool(**fields: Any) -> Policy:
    return Policy(tools=ToolRules(named={"pay": ToolRule(**fields)}))


def media(**fields: Any) -> Policy:
    return Policy(media=MediaRules(**fields))


def retrieval(**fields: Any) -> Policy:
    return Policy(retrieval=RetrievalRules(**fields))


def quarantine(**fields: Any) -> Policy:
    return retrieval(quarantine=Quarantined(**fields))


def argument(**fields: Any) -> Policy:
    return tool(arguments={"sum": ArgumentRule(**fields)})


# field -> (a policy, the same made looser in that field, the path that says so)
LOOSER: dict[tuple[type, str], tuple[Policy, Policy, str]] = {
    (Policy, "mode"): (Policy(), Policy(mode=Mode.SHADOW), "mode"),
    (Policy, "detectors"): (detector(), Policy(), "detectors.pii.enabled"),
    (Policy, "rules"): (rule(), Policy(), "rules.r"),
    (Policy, "limits"): (Policy(), limits(parts=9_999), "limits.parts"),
    (Policy, "media"): (Policy(), media(image=MediaHandling.ALLOW), "media.image"),
    **{
        (MediaRules, kind): (
            media(**{kind: MediaHandling.EXTRACT}),
            media(**{kind: MediaHandling.ALLOW}),
            f"media.{kind}",
        )
        for kind in KINDS
    },
    (MediaRules, "remote"): (Policy(), media(remote=True), "media.remote"),
    (MediaRules, "max_bytes"): (Policy(), media(max_bytes=99_999_999), "media.max_bytes"),
    (Policy, "retrieval"): (Policy(), retrieval(max_documents=99), "retrieval.max_documents"),
    (RetrievalRules, "sources"): (
        retrieval(sources=("a",)),
        retrieval(sources=("a", "b")),
        "retrieval.sources",
    ),
    (RetrievalRules, "max_age_days"): (
        retrieval(max_age_days=9),
        retrieval(max_age_days=10),
        "retrieval.max_age_days",
    ),
    (RetrievalRules, "quarantine"): (
        quarantine(digests=("d",)),
        quarantine(),
        "retrieval.quarantine.digests",
    ),
    (Quarantined, "digests"): (quarantine(digests=("d",)), quarantine(), "retrieval.quarantine.digests"),
    (Quarantined, "sources"): (quarantine(sources=("s",)), quarantine(), "retrieval.quarantine.sources"),
    (RetrievalRules, "max_documents"): (Policy(), retrieval(max_documents=99), "retrieval.max_documents"),
    (RetrievalRules, "document_characters"): (
        Policy(),
        retrieval(document_characters=50_001),
        "retrieval.document_characters",
    ),
    (RetrievalRules, "total_characters"): (
        Policy(),
        retrieval(total_characters=200_001),
        "retrieval.total_characters",
    ),
    (RetrievalRules, "citations"): (
        Policy(),
        retrieval(citations=CitationHandling.RECORD),
        "retrieval.citations",
    ),
    (DetectorSettings, "mode"): (detector(), detector(mode=Mode.SHADOW), "detectors.pii.mode"),
    (Policy, "opaque"): (Policy(), Policy(opaque=Handling.ALLOW), "opaque"),
    (Policy, "redacted_reasoning"): (
        Policy(redacted_reasoning=Handling.BLOCK),
        Policy(redacted_reasoning=Handling.ALLOW),
        "redacted_reasoning",
    ),
    (Policy, "redaction"): (Policy(), redaction(operator=Operator.MASK), "redaction.operator"),
    (Policy, "capture"): (Policy(), Policy(capture=Capture.RAW), "capture"),
    (Policy, "marking"): (
        Policy(marking=MarkingStyle.ENCODE),
        Policy(marking=MarkingStyle.DELIMIT),
        "marking",
    ),
    (Policy, "tools"): (Policy(), Policy(tools=ToolRules(default=Effect.ALLOW)), "tools.default"),
    (DetectorSettings, "enabled"): (detector(), detector(enabled=False), "detectors.pii.enabled"),
    (DetectorSettings, "options"): (detector(), detector(options={"a": 1}), "detectors.pii.options"),
    (DetectorSettings, "threshold"): (detector(), detector(threshold=0.6), "detectors.pii.threshold"),
    (DetectorSettings, "thresholds"): (
        detector(),
        detector(thresholds={"pii.card": 0.6}),
        "detectors.pii.thresholds.pii.card",
    ),
    (DetectorSettings, "origin_thresholds"): (
        detector(),
        detector(origin_thresholds={"*": {Origin.USER: 0.6}}),
        "detectors.pii.origin_thresholds.*.user",
    ),
    (DetectorSettings, "fail"): (detector(), detector(fail=OnFailure.OPEN), "detectors.pii.fail"),
    (DetectorSettings, "stand_in"): (
        detector(fail=OnFailure.DEGRADE, stand_in="secrets"),
        detector(fail=OnFailure.DEGRADE, stand_in="refusal"),
        "detectors.pii.stand_in",
    ),
    (DetectorSettings, "deadline_ms"): (
        detector(fail=OnFailure.OPEN, deadline_ms=100),
        detector(fail=OnFailure.OPEN, deadline_ms=1),
        "detectors.pii.deadline_ms",
    ),
    (DetectorSettings, "surfaces"): (
        detector(),
        detector(surfaces=(Surface.INPUT,)),
        "detectors.pii.surfaces",
    ),
    (DetectorSettings, "stream"): (
        detector(stream=WholeMessage.BUFFER),
        detector(stream=WholeMessage.AT_END),
        "detectors.pii.stream",
    ),
    (Policy, "streaming"): (
        Policy(),
        Policy(streaming=Streaming(guarantee=Guarantee.BOUNDED)),
        "streaming.guarantee",
    ),
    (Streaming, "guarantee"): (
        Policy(streaming=Streaming(guarantee=Guarantee.BOUNDED)),
        Policy(streaming=Streaming(guarantee=Guarantee.AUDIT_ONLY)),
        "streaming.guarantee",
    ),
    (Streaming, "hold_back"): (
        Policy(streaming=Streaming(guarantee=Guarantee.BOUNDED, hold_back=500)),
        Policy(streaming=Streaming(guarantee=Guarantee.BOUNDED, hold_back=400)),
        "streaming.hold_back",
    ),
    (Policy, "views"): (Policy(views=Views(rot13=True)), Policy(), "views.rot13"),
    (Views, "rot13"): (Policy(views=Views(rot13=True)), Policy(), "views.rot13"),
    **{
        (Limits, field): (Policy(), limits(**{field: 10_000_000}), f"limits.{field}")
        for field in Limits.__struct_fields__
    },
    (Redaction, "operator"): (
        redaction(operator=Operator.HASH),
        redaction(operator=Operator.PLACEHOLDER),
        "redaction.operator",
    ),
    (Redaction, "mask_keep_last"): (
        redaction(mask_keep_last=2),
        redaction(mask_keep_last=4),
        "redaction.mask_keep_last",
    ),
    (Redaction, "vault_ttl_s"): (Policy(), redaction(vault_ttl_s=3_601), "redaction.vault_ttl_s"),
    (Rule, "effect"): (rule(), rule(effect=Effect.ALLOW), "rules.r.effect"),
    (Rule, "when"): (rule(), when(surfaces=(Surface.INPUT,)), "rules.r.when.surface"),
    (Rule, "unless"): (rule(), rule(unless=Selector(texts=("x*",))), "rules.r.unless"),
    (Rule, "operator"): (rule(), rule(operator=Operator.MASK), "rules.r.redact"),
    (Rule, "mode"): (rule(), rule(mode=Mode.SHADOW), "rules.r.mode"),
    (Selector, "categories"): (when(), when(categories=("pii.card",)), "rules.r.when.category"),
    (Selector, "surfaces"): (when(), when(surfaces=(Surface.INPUT,)), "rules.r.when.surface"),
    (Selector, "origins"): (when(), when(origins=(Origin.USER,)), "rules.r.when.origin"),
    (Selector, "detectors"): (when(), when(detectors=("pii",)), "rules.r.when.detector"),
    (Selector, "texts"): (when(), when(texts=("x*",)), "rules.r.when.text"),
    (Selector, "min_score"): (when(), when(min_score=0.1), "rules.r.when.min_score"),
    (Selector, "min_severity"): (when(), when(min_severity=Severity.HIGH), "rules.r.when.min_severity"),
    (ToolRules, "default"): (Policy(), Policy(tools=ToolRules(default=Effect.ALLOW)), "tools.default"),
    (ToolRules, "named"): (Policy(), tool(), "tools.named.pay.effect"),
    (ToolRule, "effect"): (tool(effect=Effect.BLOCK), tool(), "tools.named.pay.effect"),
    (ToolRule, "arguments"): (argument(), tool(), "tools.named.pay.arguments.sum"),
    (ToolRule, "only_named_arguments"): (
        tool(only_named_arguments=True),
        tool(),
        "tools.named.pay.only_named_arguments",
    ),
    (ToolRule, "calls_per_session"): (
        tool(calls_per_session=1),
        tool(calls_per_session=2),
        "tools.named.pay.calls_per_session",
    ),
    (ArgumentRule, "allowed"): (
        argument(allowed=("a",)),
        argument(allowed=("a", "b")),
        "tools.named.pay.arguments.sum.allowed",
    ),
    (ArgumentRule, "pattern"): (
        argument(pattern="a"),
        argument(pattern=".*"),
        "tools.named.pay.arguments.sum.pattern",
    ),
    (ArgumentRule, "minimum"): (
        argument(minimum=1),
        argument(minimum=0),
        "tools.named.pay.arguments.sum.minimum",
    ),
    (ArgumentRule, "maximum"): (argument(maximum=1), argument(), "tools.named.pay.arguments.sum.maximum"),
    (ArgumentRule, "max_characters"): (
        argument(max_characters=1),
        argument(max_characters=2),
        "tools.named.pay.arguments.sum.max_characters",
    ),
    (ArgumentRule, "required"): (
        argument(required=True),
        argument(),
        "tools.named.pay.arguments.sum.required",
    ),
    (ArgumentRule, "otherwise"): (
        argument(),
        argument(otherwise=Effect.REQUIRE_APPROVAL),
        "tools.named.pay.arguments.sum.otherwise",
    ),
}


@pytest.mark.parametrize("record", COMPARED_RECORDS)
def test_every_field_is_compared_or_said_to_need_no_comparison(record: Any) -> None:
    compared = {field for kind, field in LOOSER if kind is record}
    excused = set(NOT_COMPARED.get(record, {}))

    assert not compared & excused
    assert compared | excused == set(record.__struct_fields__)


def test_every_record_inside_a_compared_field_is_itself_in_the_table() -> None:
    """A new record in a policy cannot hide its fields from the test above."""

    def records(kind: Any) -> set[Any]:
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return {kind}
        return {found for inner in getattr(kind, "__args__", ()) for found in records(inner)}

    inside = {
        found
        for record in COMPARED_RECORDS
        for field in msgspec.structs.fields(record)
        if field.name not in NOT_COMPARED.get(record, {})
        for found in records(field.type)
    }
    assert inside <= set(COMPARED_RECORDS)


@pytest.mark.parametrize(("record", "field"), sorted(LOOSER, key=str))
def test_a_looser_field_is_noticed_and_the_tighter_one_is_not(record: type, field: str) -> None:
    before, after, path = LOOSER[record, field]

    assert [one.name for one in loosenings(before, after)] == [path]
    assert loosenings(after, before) == () or (record, field) in UNORDERED
    assert loosenings(before, before) == ()


# Changes of these count as looser in both directions: they cannot be ordered.
UNORDERED = {
    (DetectorSettings, "options"),
    (DetectorSettings, "stand_in"),
    (ArgumentRule, "pattern"),
}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        # both leave it to the policy: said once, at the policy
        (
            rule(),
            Policy(rules=rule().rules, redaction=Redaction(operator=Operator.MASK)),
            ["redaction.operator"],
        ),
        # the policy's operator becomes weaker, and the rule names the stronger one itself
        (
            Policy(rules=rule().rules, redaction=Redaction(operator=Operator.MASK)),
            rule(operator=Operator.REPLACE),
            [],
        ),
        # the rule stops naming the stronger one
        (
            Policy(rules=rule(operator=Operator.REPLACE).rules, redaction=Redaction(operator=Operator.VAULT)),
            Policy(rules=rule().rules, redaction=Redaction(operator=Operator.VAULT)),
            ["rules.r.redact"],
        ),
        # a stricter effect needs no operator
        (rule(operator=Operator.REPLACE), rule(effect=Effect.BLOCK), []),
        (rule(effect=Effect.ALLOW), rule(operator=Operator.VAULT), []),
        # an argument that was refused by not being named
        (
            tool(only_named_arguments=True),
            tool(only_named_arguments=True, arguments={"sum": ArgumentRule(maximum=1)}),
            ["tools.named.pay.arguments.sum"],
        ),
    ],
)
def test_what_a_rule_leaves_is_compared_as_it_takes_effect(
    before: Policy, after: Policy, expected: list[str]
) -> None:
    assert [one.name for one in loosenings(before, after)] == expected


def test_operators_are_ordered_by_what_they_leave() -> None:
    assert sorted(Operator, key=lambda operator: operator.removes) == [
        Operator.VAULT,
        Operator.MASK,
        Operator.PLACEHOLDER,
        Operator.HASH,
        Operator.REPLACE,
    ]
