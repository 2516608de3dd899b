"""One policy on top of another: what a file says replaces what it extends, key by key.

Detectors, thresholds, options, messages and tools are merged by name, rules by id; a rule or a tool that is
written again is replaced whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

from stanchion.core.codec import to_builtins
from stanchion.core.decision import Effect
from stanchion.core.origin import Origin
from stanchion.guard.media_rules import MediaRules
from stanchion.guard.policy_file import PolicyFile, RuleEntry, SelectorEntry, written
from stanchion.guard.policy_model import (
    DetectorSettings,
    Limits,
    Policy,
    Redaction,
    SafeCompletions,
    Streaming,
    ToolRules,
    Views,
    Waiver,
)
from stanchion.guard.retrieval_rules import RetrievalRules
from stanchion.guard.rules import Rule, Selector

_S = TypeVar("_S", bound=msgspec.Struct)
_PLAIN = (
    "environment",
    "mode",
    "opaque",
    "redacted_reasoning",
    "capture",
    "marking",
)
_UNTRUSTED = tuple(origin for origin in Origin if origin.is_untrusted)


def merge(
    base: Policy, layer: PolicyFile, *, calibrated: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
) -> Policy:
    """`base` with everything that `layer` says in its place.

    `calibrated` is what the calibrations that it names stand for, as settings of detectors.
    """
    said = written(layer)
    plain = {key: getattr(layer, key) for key in _PLAIN if key in said}
    return msgspec.structs.replace(
        base,
        **plain,
        name=layer.name or base.name,
        detectors=_detectors(base.detectors, said.get("detectors", {}), calibrated),
        rules=_rules(base.rules, layer.rules),
        limits=_over(base.limits, said.get("limits") or {}, Limits),
        media=_over(base.media, said.get("media") or {}, MediaRules),
        retrieval=_retrieval(base.retrieval, said.get("retrieval") or {}),
        redaction=_redaction(base.redaction, said.get("redaction") or {}),
        streaming=_over(base.streaming, said.get("streaming") or {}, Streaming),
        views=_over(base.views, said.get("views") or {}, Views),
        safe_completions=_completions(base.safe_completions, said.get("safe_completions") or {}),
        tools=_tools(base.tools, said.get("tools") or {}),
        waivers=(*base.waivers, *(_waiver(entry) for entry in said.get("waivers", []))),
    )


def _over(base: _S, said: Mapping[str, Any], kind: type[_S]) -> _S:
    if not said:
        return base
    return msgspec.convert({**to_builtins(base), **said}, kind)


def _detectors(
    base: Mapping[str, DetectorSettings],
    said: Mapping[str, Mapping[str, Any]],
    calibrated: Mapping[str, Mapping[str, Any]],
) -> dict[str, DetectorSettings]:
    merged = dict(base)
    for name, written_entry in said.items():
        before = base.get(name, DetectorSettings())
        if name in calibrated or "threshold" in written_entry:  # what an earlier calibration said is over
            before = msgspec.structs.replace(before, origin_thresholds={}, calibrations=(), report_from=None)
        if name in calibrated:
            before = _calibrated(before, calibrated[name])
        entry = {key: value for key, value in written_entry.items() if key != "calibration"}
        for key in ("options", "thresholds"):
            if key in entry:
                entry[key] = {**getattr(before, key), **entry[key]}
        merged[name] = _over(before, entry, DetectorSettings)
    return merged


def _calibrated(before: DetectorSettings, said: Mapping[str, Any]) -> DetectorSettings:
    """What calibrations say: one for every category ends all other thresholds, one for some its own."""
    kept = {} if "threshold" in said else before.thresholds
    return msgspec.structs.replace(before, **{**said, "thresholds": {**kept, **said["thresholds"]}})


def _rules(base: tuple[Rule, ...], said: Sequence[RuleEntry]) -> tuple[Rule, ...]:
    merged = {rule.id: rule for rule in base}
    merged.update({entry.id: to_rule(entry) for entry in said})
    return tuple(merged.values())


def to_rule(entry: RuleEntry) -> Rule:
    """A rule of a file as a rule that judges."""
    return Rule(
        id=entry.id,
        effect=Effect(entry.effect),
        when=_selector(entry.when),
        unless=None if entry.unless is None else _selector(entry.unless),
        operator=entry.redact,
        message=entry.message,
        mode=entry.mode,
    )


def _selector(entry: SelectorEntry) -> Selector:
    origins: list[Origin] = []
    for name in entry.origin:
        origins.extend(_UNTRUSTED if name == "untrusted" else (Origin(name),))
    return Selector(
        categories=tuple(entry.category),
        surfaces=tuple(entry.surface),
        origins=tuple(dict.fromkeys(origins)),
        detectors=tuple(entry.detector),
        texts=tuple(entry.text),
        min_score=entry.min_score,
        min_severity=entry.min_severity,
    )


def _retrieval(base: RetrievalRules, said: Mapping[str, Any]) -> RetrievalRules:
    """What is quarantined stays so: a layer can only add to it."""
    if "quarantine" not in said:
        return _over(base, said, RetrievalRules)
    added = {
        name: tuple(dict.fromkeys((*getattr(base.quarantine, name), *said["quarantine"].get(name, ()))))
        for name in ("digests", "sources")
    }
    return _over(base, {**said, "quarantine": added}, RetrievalRules)


def _redaction(base: Redaction, said: Mapping[str, Any]) -> Redaction:
    return _over(base, {key: value for key, value in said.items() if key != "key"}, Redaction)


def _completions(base: SafeCompletions, said: Mapping[str, Any]) -> SafeCompletions:
    nested = {key: {**getattr(base, key), **said[key]} for key in ("variables", "messages") if key in said}
    return _over(base, {**said, **nested}, SafeCompletions)


def _tools(base: ToolRules, said: Mapping[str, Any]) -> ToolRules:
    if not said:
        return base
    before: dict[str, Any] = to_builtins(base)
    named = {**before["named"], **said.get("named", {})}
    return msgspec.convert({**before, **said, "named": named}, ToolRules)


def _waiver(entry: Mapping[str, Any]) -> Waiver:
    return msgspec.convert(dict(entry), Waiver)
