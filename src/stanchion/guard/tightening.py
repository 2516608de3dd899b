"""What makes one policy looser than another, setting by setting.

Only what this page can order counts as tighter or equal. Settings that cannot be ordered (a detector's
options, an argument's pattern) count as looser as soon as they differ: a waiver is then asked for, never
assumed. Every field of a policy is compared here or stands in `NOT_COMPARED` with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stanchion.core.decision import Effect, Mode, OnFailure
from stanchion.core.taxonomy import matches
from stanchion.guard.media_rules import KINDS, MediaRules
from stanchion.guard.policy_model import (
    EVERY_CATEGORY,
    ArgumentRule,
    Capture,
    DetectorSettings,
    Guarantee,
    Handling,
    Limits,
    Loosening,
    MarkingStyle,
    Policy,
    Redaction,
    Streaming,
    ToolRule,
    ToolRules,
    WholeMessage,
)
from stanchion.guard.retrieval_rules import CitationHandling, RetrievalRules
from stanchion.guard.rules import Rule, Selector

Path = tuple[str, ...]
_FAIL_STRICTNESS = {OnFailure.OPEN: 0, OnFailure.DEGRADE: 1, OnFailure.CLOSED: 2}
_CAPTURE_STRICTNESS = {Capture.RAW: 0, Capture.REDACTED: 1, Capture.NONE: 2}
# The order in which Hines et al., "Defending Against Indirect Prompt Injection Attacks With Spotlighting"
# (2024), found them to help.
_MARKING_STRICTNESS = {
    MarkingStyle.NONE: 0,
    MarkingStyle.DELIMIT: 1,
    MarkingStyle.DATAMARK: 2,
    MarkingStyle.ENCODE: 3,
}

NOT_COMPARED: Mapping[type, Mapping[str, str]] = {
    Policy: {
        "name": "a label",
        "environment": "a label",
        "safe_completions": "words for users in place of what was stopped; they stop nothing",
        "waivers": "they permit a loosening, by name and day, and are none themselves",
        "loosenings": "what this module found, not a setting",
        "sources": "where the policy came from, not a setting",
    },
    DetectorSettings: {
        "calibrations": "the files that the thresholds come from; the thresholds are compared",
        "report_from": "it takes effect at the lowest threshold at most, so it hides nothing that counts",
    },
    Redaction: {"mask_character": "every character hides the same"},
    Rule: {"id": "the name by which rules are compared", "message": "words for users"},
    ToolRule: {"message": "words for a model whose call was refused"},
}


def loosenings(before: Policy, after: Policy) -> tuple[Loosening, ...]:
    """Every setting in which `after` is looser than `before`, in the order of the file format."""
    return tuple(
        Loosening(path=path, before=_shown(old), after=_shown(new)) for path, old, new in _all(before, after)
    )


def _all(before: Policy, after: Policy) -> Iterator[tuple[Path, Any, Any]]:
    if before.mode is Mode.ENFORCE and after.mode is Mode.SHADOW:
        yield ("mode",), before.mode, after.mode
    for name, settings in before.enabled_detectors.items():
        yield from _detector(("detectors", name), settings, after.detectors.get(name))
    later = {rule.id: rule for rule in after.rules}
    for rule in before.rules:
        yield from _rule(("rules", rule.id), rule, later.get(rule.id))
        yield from _operator(before, after, rule, later.get(rule.id))
    yield from _redaction(before.redaction, after.redaction)
    yield from _streaming(before.streaming, after.streaming)
    if before.views.rot13 and not after.views.rot13:
        yield ("views", "rot13"), True, False
    yield from _limits(before.limits, after.limits)
    yield from _media(before.media, after.media)
    yield from _retrieval(before.retrieval, after.retrieval)
    for field in ("opaque", "redacted_reasoning"):
        if getattr(before, field) is Handling.BLOCK and getattr(after, field) is Handling.ALLOW:
            yield (field,), Handling.BLOCK, Handling.ALLOW
    if _CAPTURE_STRICTNESS[after.capture] < _CAPTURE_STRICTNESS[before.capture]:
        yield ("capture",), before.capture, after.capture
    if _MARKING_STRICTNESS[after.marking] < _MARKING_STRICTNESS[before.marking]:
        yield ("marking",), before.marking, after.marking
    yield from _tools(before.tools, after.tools)


def _detector(
    path: Path, before: DetectorSettings, after: DetectorSettings | None
) -> Iterator[tuple[Path, Any, Any]]:
    if after is None or not after.enabled:
        yield (*path, "enabled"), True, False
        return
    if _shaping_options(after) != _shaping_options(before):
        yield (*path, "options"), "as extended", "changed"
    if after.threshold > before.threshold:
        yield (*path, "threshold"), before.threshold, after.threshold
    for selector in {**before.thresholds, **after.thresholds}:
        old, new = before.threshold_for(selector), after.threshold_for(selector)
        if new > old:
            yield (*path, "thresholds", selector), old, new
    yield from _origin_thresholds(path, before, after)
    if _FAIL_STRICTNESS[after.fail] < _FAIL_STRICTNESS[before.fail]:
        yield (*path, "fail"), before.fail, after.fail
    if before.fail is after.fail is OnFailure.DEGRADE and after.stand_in != before.stand_in:
        yield (*path, "stand_in"), before.stand_in, after.stand_in
    if after.fail is not OnFailure.CLOSED and after.deadline_ms < before.deadline_ms:
        yield (*path, "deadline_ms"), before.deadline_ms, after.deadline_ms
    if not _at_least(before.surfaces, after.surfaces):
        yield (*path, "surfaces"), before.surfaces, after.surfaces
    if before.mode is Mode.ENFORCE and after.mode is Mode.SHADOW:
        yield (*path, "mode"), before.mode, after.mode
    if before.stream is WholeMessage.BUFFER and after.stream is WholeMessage.AT_END:
        yield (*path, "stream"), before.stream, after.stream


def _origin_thresholds(
    path: Path, before: DetectorSettings, after: DetectorSettings
) -> Iterator[tuple[Path, Any, Any]]:
    """Thresholds of origins, where they say more than the threshold that holds for every origin."""
    selectors = {**before.origin_thresholds, **after.origin_thresholds}
    for selector in selectors:
        category = "" if selector == EVERY_CATEGORY else selector.removesuffix(".*")
        general = before.threshold_for(category), after.threshold_for(category)
        origins = {**before.origin_thresholds.get(selector, {}), **after.origin_thresholds.get(selector, {})}
        for origin in origins:
            old, new = before.threshold_for(category, origin), after.threshold_for(category, origin)
            if new > old and (old, new) != general:
                yield (*path, "origin_thresholds", selector, origin.value), old, new


def _shaping_options(settings: DetectorSettings) -> dict[str, Any]:
    """The options without a `minimum` that leaves out only findings which would not count anyway."""
    options = settings.creation_options
    least = options.get("minimum")
    is_harmless = isinstance(least, int | float) and least <= settings.lowest_threshold
    return {key: value for key, value in options.items() if key != "minimum" or not is_harmless}


def _rule(path: Path, before: Rule, after: Rule | None) -> Iterator[tuple[Path, Any, Any]]:
    if after is None:
        yield path, before.effect, "no such rule"
        return
    if after.effect.rank < before.effect.rank:
        yield (*path, "effect"), before.effect, after.effect
    if before.mode is Mode.ENFORCE and after.mode is Mode.SHADOW:
        yield (*path, "mode"), before.mode, after.mode
    yield from _narrowed((*path, "when"), before.when, after.when)
    if after.unless is not None and after.unless != before.unless:
        yield (*path, "unless"), "fewer exemptions", "changed exemptions"


def _operator(
    before: Policy, after: Policy, rule: Rule, later: Rule | None
) -> Iterator[tuple[Path, Any, Any]]:
    """A rule that goes on redacting and leaves more; what both leave to `redaction` is compared there."""
    if later is None or rule.effect is not Effect.REDACT or later.effect is not Effect.REDACT:
        return
    if rule.operator is None and later.operator is None:
        return
    old = rule.operator or before.redaction.operator
    new = later.operator or after.redaction.operator
    if new.removes < old.removes:
        yield ("rules", rule.id, "redact"), old, new


def _redaction(before: Redaction, after: Redaction) -> Iterator[tuple[Path, Any, Any]]:
    if after.operator.removes < before.operator.removes:
        yield ("redaction", "operator"), before.operator, after.operator
    for field in ("mask_keep_last", "vault_ttl_s"):
        old, new = getattr(before, field), getattr(after, field)
        if new > old:
            yield ("redaction", field), old, new


def _streaming(before: Streaming, after: Streaming) -> Iterator[tuple[Path, Any, Any]]:
    if after.guarantee.rank < before.guarantee.rank:
        yield ("streaming", "guarantee"), before.guarantee, after.guarantee
    is_bounded = before.guarantee is after.guarantee is Guarantee.BOUNDED
    if is_bounded and after.hold_back < before.hold_back:
        yield ("streaming", "hold_back"), before.hold_back, after.hold_back


def _media(before: MediaRules, after: MediaRules) -> Iterator[tuple[Path, Any, Any]]:
    """By kind; said once where one word stands for every kind."""
    found: list[tuple[Path, Any, Any]] = []
    for kind in KINDS:
        old, new = getattr(before, kind), getattr(after, kind)
        if new.strictness < old.strictness:
            found.append((("media", kind), old, new))
    if after.remote and not before.remote:
        found.append((("media", "remote"), False, True))
    words = {getattr(after, kind) for kind in KINDS}
    if len(found) > 1 and len(words) == 1:
        found = [(("media",), "by kind", words.pop())]
    if after.max_bytes > before.max_bytes:
        found.append((("media", "max_bytes"), before.max_bytes, after.max_bytes))
    yield from found


def _retrieval(before: RetrievalRules, after: RetrievalRules) -> Iterator[tuple[Path, Any, Any]]:
    if "*" not in before.sources and not set(after.sources) <= set(before.sources):
        yield ("retrieval", "sources"), before.sources, after.sources
    old_age, new_age = before.max_age_days, after.max_age_days
    if old_age is not None and (new_age is None or new_age > old_age):
        yield ("retrieval", "max_age_days"), old_age, new_age
    for name in ("digests", "sources"):
        old, new = getattr(before.quarantine, name), getattr(after.quarantine, name)
        if not set(old) <= set(new):
            yield ("retrieval", "quarantine", name), old, new
    for field in ("max_documents", "document_characters", "total_characters"):
        old, new = getattr(before, field), getattr(after, field)
        if new > old:
            yield ("retrieval", field), old, new
    if before.citations is CitationHandling.BLOCK and after.citations is CitationHandling.RECORD:
        yield ("retrieval", "citations"), before.citations, after.citations


def _narrowed(path: Path, before: Selector, after: Selector) -> Iterator[tuple[Path, Any, Any]]:
    if not _categories_at_least(before.categories, after.categories):
        yield (*path, "category"), before.categories, after.categories
    for key, field in (("surface", "surfaces"), ("origin", "origins"), ("detector", "detectors")):
        old, new = getattr(before, field), getattr(after, field)
        if not _at_least(old, new):
            yield (*path, key), old, new
    if after.texts != before.texts and after.texts:
        yield (*path, "text"), before.texts, after.texts
    if after.min_score > before.min_score:
        yield (*path, "min_score"), before.min_score, after.min_score
    if after.min_severity.rank > before.min_severity.rank:
        yield (*path, "min_severity"), before.min_severity, after.min_severity


def _limits(before: Limits, after: Limits) -> Iterator[tuple[Path, Any, Any]]:
    for field in before.__struct_fields__:
        old, new = getattr(before, field), getattr(after, field)
        if new > old:
            yield ("limits", field), old, new


def _tools(before: ToolRules, after: ToolRules) -> Iterator[tuple[Path, Any, Any]]:
    if after.default.rank < before.default.rank:
        yield ("tools", "default"), before.default, after.default
    for name in {**before.named, **after.named}:
        old = before.named.get(name) or ToolRule(effect=before.default)
        new = after.named.get(name) or ToolRule(effect=after.default)
        if old != new:
            yield from _tool(("tools", "named", name), old, new)


def _tool(path: Path, before: ToolRule, after: ToolRule) -> Iterator[tuple[Path, Any, Any]]:
    if after.effect.rank < before.effect.rank:
        yield (*path, "effect"), before.effect, after.effect
    if after.effect is Effect.BLOCK:
        return  # nothing can be looser than a tool that may not be called
    if before.only_named_arguments and not after.only_named_arguments:
        yield (*path, "only_named_arguments"), True, False
    if before.calls_per_session is not None and (
        after.calls_per_session is None or after.calls_per_session > before.calls_per_session
    ):
        yield (*path, "calls_per_session"), before.calls_per_session, after.calls_per_session
    if before.only_named_arguments and after.only_named_arguments:
        for name in sorted(after.arguments.keys() - before.arguments.keys()):
            yield (*path, "arguments", name), "refused", "may be given"
    for name, argument in before.arguments.items():
        yield from _argument((*path, "arguments", name), argument, after.arguments.get(name))


def _argument(
    path: Path, before: ArgumentRule, after: ArgumentRule | None
) -> Iterator[tuple[Path, Any, Any]]:
    if after is None:
        yield path, "limited", "free"
        return
    if before.allowed and not (after.allowed and set(after.allowed) <= set(before.allowed)):
        yield (*path, "allowed"), before.allowed, after.allowed
    if before.pattern and after.pattern != before.pattern:
        yield (*path, "pattern"), before.pattern, after.pattern
    if before.minimum is not None and (after.minimum is None or after.minimum < before.minimum):
        yield (*path, "minimum"), before.minimum, after.minimum
    for field in ("maximum", "max_characters"):
        old, new = getattr(before, field), getattr(after, field)
        if old is not None and (new is None or new > old):
            yield (*path, field), old, new
    if before.required and not after.required:
        yield (*path, "required"), True, False
    if after.otherwise.rank < before.otherwise.rank:
        yield (*path, "otherwise"), before.otherwise, after.otherwise


def _at_least(before: Sequence[Any], after: Sequence[Any]) -> bool:
    """Whether `after` selects all that `before` selects; empty selects everything."""
    return not after or (bool(before) and set(before) <= set(after))


def _categories_at_least(before: Sequence[str], after: Sequence[str]) -> bool:
    if not after or "*" in after:
        return True
    return bool(before) and all(
        any(matches(wide, narrow.removesuffix(".*")) for wide in after) for narrow in before
    )


def _shown(value: Any) -> str:
    if isinstance(value, Mapping | tuple):
        return ", ".join(str(item) for item in value) or "any"
    return "none" if value is None else str(value)
