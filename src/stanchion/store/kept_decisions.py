"""Decisions as the store keeps them: JSON arrays, values by their place, no words; and back.

A gateway writes several decisions for each request, with ten checks and more, and the names of their fields
were two thirds of what it wrote. Rows of before 0006 have JSON objects, which are read as well.
"""

from __future__ import annotations

import msgspec

from stanchion.core.decision import (
    CheckRecord,
    CheckStatus,
    Decision,
    Effect,
    Mode,
    OnFailure,
    Surface,
    strictest,
)
from stanchion.core.finding import Finding
from stanchion.store.records import finding_without_words


class _Check(msgspec.Struct, frozen=True, array_like=True):
    """A check; without `surface` it looked at the one of its decision."""

    detector: str
    version: str
    status: CheckStatus
    elapsed_ms: float
    findings: int = 0
    on_failure: OnFailure = OnFailure.CLOSED
    surface: Surface | None = None


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    """A decision; without `policy` it is that of the row."""

    surface: Surface
    effect: Effect
    reference: str
    elapsed_ms: float
    policy: str | None
    is_protected: bool
    checks: tuple[_Check, ...]
    mode: Mode = Mode.ENFORCE
    rule_ids: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    outcome: OnFailure | None = None
    shadow_effect: Effect = Effect.ALLOW
    shadow_rule_ids: tuple[str, ...] = ()


class Summary(msgspec.Struct, frozen=True, gc=False):
    """Decisions as text, and what columns of their own say of them; `categories` is JSON as well."""

    text: str
    effect: str
    is_protected: int
    findings: int
    categories: str
    guard_ms: float | None


_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(tuple[_Kept, ...]).decode
_decode_objects = msgspec.json.Decoder(tuple[Decision, ...]).decode
_EFFECTS = {effect: str(effect) for effect in Effect}
_NOTHING = Summary("[]", "allow", 0, 0, "{}", None)


def kept(decisions: tuple[Decision, ...], *, policy: str) -> Summary:
    """What a record of these decisions keeps; `policy` is the digest that its row holds.

    The reasons are left out, and names of fields that a model may have chosen.
    """
    if not decisions:
        return _NOTHING
    arrays: list[object] = []
    found: list[Finding] = []
    effect, is_protected, guard_ms = Effect.ALLOW, 1, 0.0
    for one in decisions:
        guard_ms += one.elapsed_ms
        if not one.is_protected:
            is_protected = 0
        surface, acted = one.surface, one.effect
        checks = [
            (check.detector, check.version, check.status, check.elapsed_ms)
            if not check.findings and check.on_failure is OnFailure.CLOSED and check.surface is surface
            else _check_with_more(check, surface)
            for check in one.checks
        ]
        digest = None if one.policy_digest == policy else one.policy_digest
        start = (surface, acted, one.reference, one.elapsed_ms, digest, one.is_protected, checks)
        if (
            acted is Effect.ALLOW
            and one.mode is Mode.ENFORCE
            and one.shadow_effect is Effect.ALLOW
            and one.outcome is None
            and not (one.findings or one.rule_ids or one.shadow_rule_ids)
        ):
            arrays.append(start)  # all that follows is as it is by default
        else:
            effect = strictest(effect, one.enforced_effect)
            found += one.findings
            arrays.append(start + _more(one))
    text = _encode(arrays).decode()
    if not found:
        return Summary(text, _EFFECTS[effect], is_protected, 0, "{}", guard_ms)
    counts: dict[str, int] = {}
    for finding in found:
        counts[finding.category] = counts.get(finding.category, 0) + 1
    categories = _encode(counts).decode()
    return Summary(text, _EFFECTS[effect], is_protected, len(found), categories, guard_ms)


def _more(one: Decision) -> tuple[object, ...]:
    findings = [finding_without_words(finding) for finding in one.findings]
    return one.mode, one.rule_ids, findings, one.outcome, one.shadow_effect, one.shadow_rule_ids


def _check_with_more(check: CheckRecord, surface: Surface) -> tuple[object, ...]:
    start = (check.detector, check.version, check.status, check.elapsed_ms, check.findings, check.on_failure)
    return start if check.surface is surface else (*start, check.surface)


def read(text: str, *, policy: str) -> tuple[Decision, ...]:
    """The decisions of a row whose column `policy_digest` is `policy`."""
    if not text.startswith("[["):
        return _decode_objects(text)
    return tuple(_read(one, policy) for one in _decode(text))


def _read(one: _Kept, policy: str) -> Decision:
    return Decision(
        effect=one.effect,
        surface=one.surface,
        mode=one.mode,
        rule_ids=one.rule_ids,
        findings=one.findings,
        checks=tuple(
            CheckRecord(
                detector=check.detector,
                version=check.version,
                surface=one.surface if check.surface is None else check.surface,
                status=check.status,
                elapsed_ms=check.elapsed_ms,
                findings=check.findings,
                on_failure=check.on_failure,
            )
            for check in one.checks
        ),
        policy_digest=policy if one.policy is None else one.policy,
        reference=one.reference,
        elapsed_ms=one.elapsed_ms,
        is_protected=one.is_protected,
        outcome=one.outcome,
        shadow_effect=one.shadow_effect,
        shadow_rule_ids=one.shadow_rule_ids,
    )
