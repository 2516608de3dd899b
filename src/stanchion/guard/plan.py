"""Which checks run on which surface: a plain, ordered, printable list."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from stanchion.core.decision import OnFailure, Surface
from stanchion.core.errors import UsageError
from stanchion.core.finding import Cost
from stanchion.guard.checks import Check
from stanchion.guard.policy_model import DetectorSettings, Policy

_log = logging.getLogger(__name__)
_COST_ORDER = {Cost.MICROSECONDS: 0, Cost.MILLISECONDS: 1, Cost.REMOTE: 2}


class Plan(msgspec.Struct, frozen=True):
    """The checks of each surface, cheap ones first; a surface without checks is there with an empty list."""

    checks: Mapping[Surface, tuple[Check, ...]]
    idle: tuple[str, ...] = ()  # enabled detectors that run nowhere: no rule speaks of what they report

    def on(self, surface: Surface) -> tuple[Check, ...]:
        """The checks of one surface, in the order in which they run."""
        return self.checks[surface]

    @property
    def unscanned(self) -> tuple[Surface, ...]:
        """The surfaces on which no check runs."""
        return tuple(surface for surface in Surface if not self.checks[surface])

    def prepare(self) -> None:
        """Let detectors load and compile what they need, before a text waits against a deadline.

        A detector may have a method `prepare()` for this; what it raises keeps the guard from being made.
        """
        prepared: set[int] = set()
        for check in (check for checks in self.checks.values() for check in checks):
            prepare = getattr(check.detector, "prepare", None)
            if callable(prepare) and id(check.detector) not in prepared:
                prepared.add(id(check.detector))
                prepare()


def make_plan(policy: Policy, detectors: Mapping[str, Any]) -> Plan:
    """The plan of a policy. `detectors` holds a Detector or AsyncDetector for every enabled id.

    A detector runs on the surfaces its settings name, else on those where a rule speaks of one of its
    categories; and on every surface where it stands in for another.
    """
    enabled = policy.enabled_detectors
    places = {name: _surfaces(policy, settings, detectors[name]) for name, settings in enabled.items()}
    for name, settings in enabled.items():
        if settings.fail is OnFailure.DEGRADE:
            places[settings.stand_in] |= places[name]
    checks = [Check(detector=detectors[name], settings=settings) for name, settings in enabled.items()]
    checks.sort(key=lambda check: _COST_ORDER[Cost(check.detector.cost)])
    by_surface = {surface: tuple(c for c in checks if surface in places[c.id]) for surface in Surface}
    return Plan(by_surface, tuple(name for name in enabled if not places[name]))


def _surfaces(policy: Policy, settings: DetectorSettings, detector: Any) -> set[Surface]:
    if settings.surfaces:
        return set(settings.surfaces)
    return {surface for surface in Surface if policy.speaks_of(detector.categories, surface)}


def silent_rules(policy: Policy, detectors: Mapping[str, Any]) -> tuple[str, ...]:
    """The rules that no enabled detector can ever trigger, because none reports their categories."""
    reported = [
        (name, category) for name in policy.enabled_detectors for category in detectors[name].categories
    ]
    reported += [("guard.limits", "input.limit"), ("guard.parts", "input.media")]
    silent = tuple(
        rule.id
        for rule in policy.rules
        if not any(
            rule.when.covers_category(category) and (not rule.when.detectors or name in rule.when.detectors)
            for name, category in reported
        )
    )
    for rule_id in silent:
        _log.warning("policy %r: rule %r can never apply, no detector reports it.", policy.name, rule_id)
    return silent


def complete_plan(policy: Policy, detectors: Mapping[str, Any], *, prepare: bool) -> Plan:
    """The plan of a policy, ready to run.

    Raises:
        UsageError: when a detector that the policy enables is missing, or none is enabled.
    """
    missing = [name for name in policy.enabled_detectors if name not in detectors]
    if missing or not policy.enabled_detectors:
        what = f"detectors are missing: {', '.join(missing)}." if missing else "no detector is enabled."
        raise UsageError(f"policy {policy.name!r}: {what}", hint="Use Guard.load, which makes them.")
    plan = make_plan(policy, detectors)
    if prepare:
        plan.prepare()
    for name in plan.idle:
        _log.warning("policy %r: detector %r runs nowhere, no rule speaks of it.", policy.name, name)
    return plan
