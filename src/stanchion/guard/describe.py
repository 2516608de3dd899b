"""What a policy does, as data: for `stanchion policy show`, for `diff`, for the console."""

from __future__ import annotations

import msgspec

from stanchion.core.codec import Digest, to_builtins
from stanchion.core.decision import Surface
from stanchion.core.origin import Origin
from stanchion.guard.pipeline import Guard
from stanchion.guard.policy_model import Policy
from stanchion.guard.rules import Rule, Selector
from stanchion.guard.tightening import loosenings


class CheckLine(msgspec.Struct, frozen=True, kw_only=True):
    """One check of a surface, in its place in the order."""

    detector: str
    version: str
    threshold: float
    thresholds: dict[str, float]
    origin_thresholds: dict[str, dict[Origin, float]]
    calibrations: tuple[Digest, ...]
    fail: str
    stand_in: str
    deadline_ms: int


class RuleLine(msgspec.Struct, frozen=True, kw_only=True):
    """One rule in words that fit a table."""

    id: str
    when: str
    unless: str
    effect: str
    mode: str
    can_apply: bool


class PolicyDescription(msgspec.Struct, frozen=True, kw_only=True):
    """An effective policy with the checks that really run; `unscanned` names surfaces without any."""

    name: str
    digest: str
    mode: str
    environment: str
    sources: tuple[str, ...]
    surfaces: dict[str, tuple[CheckLine, ...]]
    unscanned: tuple[str, ...]
    idle_detectors: tuple[str, ...]
    rules: tuple[RuleLine, ...]
    settings: dict[str, object]
    waived: tuple[str, ...]


class SettingChange(msgspec.Struct, frozen=True, kw_only=True):
    """A setting that became looser or tighter."""

    setting: str
    direction: str
    before: str
    after: str


def describe(guard: Guard, policy: Policy) -> PolicyDescription:
    """What a guard with this policy does."""
    silent = set(guard.silent_rules)
    return PolicyDescription(
        name=policy.name,
        digest=policy.digest,
        mode=policy.mode.value,
        environment=policy.environment,
        sources=tuple(source.file for source in policy.sources),
        surfaces={surface.value: _checks(guard, surface) for surface in Surface},
        unscanned=tuple(surface.value for surface in guard.unscanned),
        idle_detectors=guard.idle_detectors,
        rules=tuple(_rule(rule, policy, can_apply=rule.id not in silent) for rule in policy.rules),
        settings={
            name: to_builtins(getattr(policy, name))
            for name in (
                *("media", "opaque", "redacted_reasoning", "capture", "marking"),
                *("limits", "retrieval", "redaction", "streaming", "views", "safe_completions", "tools"),
            )
        },
        waived=tuple(
            f"{one.name}: {one.before} became {one.after} ({one.waiver})" for one in policy.loosenings
        ),
    )


def changes(before: Policy, after: Policy) -> tuple[SettingChange, ...]:
    """Every setting that became looser, then every one that became tighter.

    A setting that cannot be ordered (a detector's options) stands in both lists.
    """
    looser = [
        SettingChange(setting=one.name, direction="looser", before=one.before, after=one.after)
        for one in loosenings(before, after)
    ]
    tighter = [
        SettingChange(setting=one.name, direction="tighter", before=one.after, after=one.before)
        for one in loosenings(after, before)
    ]
    return (*looser, *tighter)


def _checks(guard: Guard, surface: Surface) -> tuple[CheckLine, ...]:
    return tuple(
        CheckLine(
            detector=check.id,
            version=str(check.detector.version),
            threshold=check.settings.threshold,
            thresholds=check.settings.thresholds,
            origin_thresholds=check.settings.origin_thresholds,
            calibrations=check.settings.calibrations,
            fail=check.settings.fail.value,
            stand_in=check.settings.stand_in,
            deadline_ms=check.settings.deadline_ms,
        )
        for check in guard.checks(surface)
    )


def _rule(rule: Rule, policy: Policy, *, can_apply: bool) -> RuleLine:
    effect = rule.effect.value
    if effect == "redact":
        effect += f" ({(rule.operator or policy.redaction.operator).value})"
    return RuleLine(
        id=rule.id,
        when=selector_words(rule.when),
        unless="" if rule.unless is None else selector_words(rule.unless),
        effect=effect,
        mode=rule.mode.value,
        can_apply=can_apply,
    )


def selector_words(selector: Selector) -> str:
    """A selector as a person reads it, such as `pii.*, on input, severity high or worse`."""
    words = [", ".join(selector.categories) or "anything"]
    if selector.surfaces:
        words.append("on " + ", ".join(selector.surfaces))
    if selector.origins:
        words.append("from " + ", ".join(_origins(selector)))
    if selector.detectors:
        words.append("by " + ", ".join(selector.detectors))
    if selector.texts:
        words.append("text like " + ", ".join(selector.texts))
    if selector.min_score:
        words.append(f"score {selector.min_score:g} or more")
    if selector.min_severity.rank:
        words.append(f"severity {selector.min_severity.value} or worse")
    return "; ".join(words)


def _origins(selector: Selector) -> list[str]:
    """Origins by name; all untrusted ones together by their one word."""
    untrusted = {origin for origin in Origin if origin.is_untrusted}
    if untrusted <= set(selector.origins):
        return ["untrusted", *(origin for origin in selector.origins if origin not in untrusted)]
    return list(selector.origins)
