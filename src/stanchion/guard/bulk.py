"""Many texts by one policy, at the speed of the automaton.

A text in which the packaged detectors of the policy find nothing is allowed after asking them directly; a
text in which not even a pattern occurs does not reach those that only refine what the scanner hits. Every
other text, and every detector of another package, goes through the whole guard. A test compares the ways.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from stanchion.core.decision import Effect, Surface
from stanchion.core.errors import UnknownNameError, UsageError
from stanchion.core.finding import DetectorInput, Finding, ViewSet
from stanchion.core.origin import Origin
from stanchion.detectors.registry import Registry
from stanchion.detectors.scan import Scanner
from stanchion.detectors.transforms.unfolding import ViewOptions
from stanchion.detectors.views import TextViewSet, build_views
from stanchion.guard.made_detectors import make_detectors
from stanchion.guard.packs import with_packs
from stanchion.guard.pipeline import Guard
from stanchion.guard.policy import packaged_policy, read_policy
from stanchion.guard.policy_model import Policy

# These report nothing where their scanner has no hit and no transform fired; a test holds them to it.
HIT_DRIVEN = frozenset({"secrets", "pii", "injection.patterns", "leakage", "custom", "obfuscation"})

_PACKAGED = "stanchion.detectors."
_ORIGIN = {
    Surface.SYSTEM: Origin.SYSTEM,
    Surface.RETRIEVED: Origin.RETRIEVED,
    Surface.TOOL_DEFINITION: Origin.TOOL_DEFINITION,
    Surface.TOOL_RESULT: Origin.TOOL_RESULT,
    Surface.TOOL_CALL: Origin.MODEL,
    Surface.REASONING: Origin.MODEL,
    Surface.OUTPUT: Origin.MODEL,
}  # anything else is said by the user


class Tier(StrEnum):
    """How much work a text may cost: patterns and validators only, or everything the policy enables."""

    DETERMINISTIC = "deterministic"
    BASE = "base"


class Verdict(msgspec.Struct, frozen=True):
    """What the policy says of one text; findings are those that reach their threshold."""

    effect: Effect
    findings: tuple[Finding, ...] = ()
    reason: str = ""


_CLEAN = Verdict(Effect.ALLOW)


class BulkScanner:
    """Judges texts one at a time; for one thread. Deadlines of the policy hold for each text."""

    def __init__(
        self,
        policy: Policy,
        registry: Registry,
        *,
        surface: Surface = Surface.INPUT,
        folder: Path | None = None,
    ) -> None:
        """`folder` is what file names in the policy's detector options are relative to."""
        detectors = make_detectors(policy, registry, folder=folder or Path())
        self._surface = surface
        self._views = _OneText(ViewOptions(rot13=policy.views.rot13))
        self._guard = Guard(policy, detectors, build_views=self._views.build)
        used = [check.detector for check in self._guard.checks(surface)]
        own = [d.scanner for d in used if isinstance(getattr(d, "scanner", None), Scanner)]
        self._scanners: tuple[Scanner, ...] = tuple(dict.fromkeys([registry.scanner, *own]))
        self._limit = policy.limits.text_characters
        self._policy = policy
        self._origin = _ORIGIN.get(surface, Origin.USER)
        self._refining = [d for d in used if d.id in HIT_DRIVEN]
        self._reading = [d for d in used if d.id not in HIT_DRIVEN]
        self._has_short_cut = bool(used) and all(_is_packaged(d) for d in used)

    @property
    def guard(self) -> Guard:
        """The guard behind it."""
        return self._guard

    @property
    def text_limit(self) -> int:
        """The longest text the policy lets pass, in characters."""
        return self._limit

    def judge(self, text: str) -> Verdict:
        """The verdict on one text."""
        return self.judge_many([text])[0]

    def judge_many(self, texts: Sequence[str]) -> list[Verdict]:
        """The verdicts on some texts; looking at them together is faster than one by one."""
        if not self._has_short_cut:
            return [self.judge_fully(text) for text in texts]
        view_sets = [build_views(text, options=self._views.options) for text in texts]
        for scanner in self._scanners:
            scanner.look_ahead(view_sets)
        return [self._judge(view_set) for view_set in view_sets]

    def _judge(self, view_set: TextViewSet) -> Verdict:
        if len(view_set.original) <= self._limit and self._finds_nothing(view_set):
            return _CLEAN
        self._views.keep(view_set)
        return self.judge_fully(view_set.original)

    def _finds_nothing(self, view_set: TextViewSet) -> bool:
        """Whether the detectors, asked directly, report nothing that counts."""
        asked = self._reading
        if any(scanner.hits(view_set) for scanner in self._scanners) or view_set.signals:
            asked = [*self._refining, *self._reading]
        if not asked:
            return True
        counts = self._policy.table.counts
        given = DetectorInput(view_set=view_set, origin=self._origin)
        try:
            return not any(
                counts(finding, self._origin) for detector in asked for finding in detector.detect(given)
            )
        except Exception:
            return False  # the guard knows what a check that fails means

    def judge_fully(self, text: str) -> Verdict:
        """The same verdict without the short cut."""
        decision = self._guard.check(text, surface=self._surface, origin=self._origin).decision
        if decision.effect is Effect.ALLOW and not decision.findings:
            return _CLEAN
        return Verdict(decision.effect, decision.findings, decision.reason)


class _OneText:
    """Gives the guard the views that were already made of a text."""

    def __init__(self, options: ViewOptions) -> None:
        self.options = options
        self._kept: TextViewSet | None = None

    def keep(self, view_set: TextViewSet) -> None:
        self._kept = view_set

    def build(self, text: str) -> ViewSet:
        kept = self._kept
        return kept if kept is not None and kept.original is text else build_views(text, options=self.options)


def _is_packaged(detector: Any) -> bool:
    return type(detector).__module__.startswith(_PACKAGED) and hasattr(detector, "detect")


def bulk_policy(
    policy: str, registry: Registry, *, tier: Tier = Tier.BASE, only: Iterable[str] = ()
) -> Policy:
    """The policy of this name or file, with its detectors cut down to a tier, or to the ones named.

    Raises:
        UnknownNameError: for a detector that does not exist.
        UsageError: when no detector is left.
    """
    found = _named(policy, registry)
    wanted = tuple(only)
    for name in wanted:
        if name not in registry.ids():
            raise UnknownNameError("detector", name, registry.ids())
    settings: Mapping[str, Any] = found.enabled_detectors
    if wanted:
        defaults = type(next(iter(settings.values())))() if settings else None
        settings = {name: settings.get(name, defaults) for name in wanted}
    if tier is Tier.DETERMINISTIC:
        settings = {name: one for name, one in settings.items() if name in HIT_DRIVEN}
    if not settings:
        raise UsageError(
            f"policy {found.name!r}: no detector is left to scan with.",
            hint=f"The tier deterministic has {', '.join(sorted(HIT_DRIVEN))}.",
        )
    kept = {name: _alone(one, settings) for name, one in settings.items()}
    return msgspec.structs.replace(found, detectors=kept)


def _named(policy: str, registry: Registry) -> Policy:
    if policy.endswith((".yaml", ".yml")):
        return with_packs(read_policy(policy, detectors=registry.ids()).policy, registry)
    return with_packs(packaged_policy(policy, detectors=registry.ids()), registry)


def _alone(settings: Any, kept: Mapping[str, Any]) -> Any:
    """Settings whose stand-in is still there; a detector that lost it fails closed."""
    if settings.stand_in and settings.stand_in not in kept:
        from stanchion.core.decision import OnFailure

        return msgspec.structs.replace(settings, stand_in="", fail=OnFailure.CLOSED)
    return settings
