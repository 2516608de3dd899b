"""Rules: which findings they speak of, and what several of them decide together."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Collection, Iterable, Sequence
from enum import StrEnum

import msgspec

from stanchion.core.decision import Effect, Mode, Surface, strictest
from stanchion.core.finding import Finding, Severity
from stanchion.core.origin import Origin
from stanchion.core.taxonomy import matches


class Operator(StrEnum):
    """How a redacted text is rewritten."""

    MASK = "mask"
    REPLACE = "replace"
    HASH = "hash"
    PLACEHOLDER = "placeholder"
    VAULT = "vault"

    @property
    def removes(self) -> int:
        """How much is gone for good, as a rank: what comes back is least, what leaves only a kind is most."""
        return _REMOVES[self]


_REMOVES = {
    Operator.VAULT: 0,
    Operator.MASK: 1,
    Operator.PLACEHOLDER: 2,
    Operator.HASH: 3,
    Operator.REPLACE: 4,
}


class Selector(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which findings a rule speaks of. An empty tuple selects everything of its kind.

    `texts` are shell-style patterns (case does not matter) over the characters that were found; they are
    meant for exemptions (`unless`). Where those characters are not at hand, a selector with `texts` selects
    nothing, so that an exemption never applies by accident.
    """

    categories: tuple[str, ...] = ()
    surfaces: tuple[Surface, ...] = ()
    origins: tuple[Origin, ...] = ()
    detectors: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    min_score: float = 0.0
    min_severity: Severity = Severity.INFO

    def covers_place(self, surface: Surface, origin: Origin) -> bool:
        """Whether findings on this surface, in a text of this origin, can be selected at all."""
        return (not self.surfaces or surface in self.surfaces) and (
            not self.origins or origin in self.origins
        )

    def covers_category(self, category: str) -> bool:
        """Whether findings of this category can be selected."""
        return not self.categories or any(matches(selector, category) for selector in self.categories)

    def covers(self, found: FoundIn) -> bool:
        """Whether the finding is selected."""
        finding = found.finding
        return (
            self.covers_place(found.surface, found.origin)
            and self.covers_category(finding.category)
            and (not self.detectors or finding.detector in self.detectors)
            and finding.score >= self.min_score
            and finding.severity.rank >= self.min_severity.rank
            and (not self.texts or _matches_text(self.texts, found.text))
        )


class FoundIn(msgspec.Struct, frozen=True, kw_only=True):
    """A finding with the place it was made; `text` is the found characters, None when not at hand."""

    finding: Finding
    surface: Surface
    origin: Origin
    text: str | None = None


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """If `when` selects a finding and `unless` does not, `effect` applies to its text.

    `operator` overrides the policy's redaction operator; `message` replaces the packaged safe completion.
    """

    id: str
    effect: Effect
    when: Selector = Selector()
    unless: Selector | None = None
    operator: Operator | None = None
    message: str = ""
    mode: Mode = Mode.ENFORCE

    def applies_to(self, found: FoundIn) -> bool:
        """Whether the rule speaks of this finding."""
        return self.when.covers(found) and not (self.unless is not None and self.unless.covers(found))


class RuleHit(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that speaks of a finding."""

    rule: Rule
    found: FoundIn


class Ruling(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules together say about some findings.

    `hits` are those of rules that are enforced, strictest effect first; `shadow_hits` those of rules in
    shadow mode, which take no part in `effect`.
    """

    effect: Effect = Effect.ALLOW
    hits: tuple[RuleHit, ...] = ()
    shadow_hits: tuple[RuleHit, ...] = ()

    @property
    def rule_ids(self) -> tuple[str, ...]:
        """The enforced rules that applied, strictest first, each once."""
        return tuple(dict.fromkeys(hit.rule.id for hit in self.hits))

    @property
    def shadow_effect(self) -> Effect:
        """What the rules in shadow mode would have done."""
        return strictest(*(hit.rule.effect for hit in self.shadow_hits))

    @property
    def shadow_rule_ids(self) -> tuple[str, ...]:
        """The rules in shadow mode that applied, strictest first, each once."""
        return tuple(dict.fromkeys(hit.rule.id for hit in self.shadow_hits))

    @property
    def deciding(self) -> RuleHit | None:
        """The hit that set the effect: the first with the strictest effect."""
        return self.hits[0] if self.hits else None

    def redactions(self) -> tuple[RuleHit, ...]:
        """The hits that ask for their text to be rewritten."""
        return tuple(hit for hit in self.hits if hit.rule.effect is Effect.REDACT)


class RuleTable:
    """Rules, indexed by place and category on first use."""

    def __init__(
        self,
        rules: Sequence[Rule],
        *,
        threshold: Callable[[str, str, Origin], float],
        shadowed: Collection[str] = (),
    ) -> None:
        """`threshold(detector, category, origin)` is the score from which a finding counts.

        What detectors that are `shadowed` find is judged as if every rule were in shadow mode.
        """
        self._shadowed = frozenset(shadowed)
        self._rules = tuple(rules)
        self._threshold = threshold
        self._index: dict[tuple[str, str, str], tuple[Rule, ...]] = {}

    def counts(self, finding: Finding, origin: Origin) -> bool:
        """Whether the score reaches the threshold of its detector and category in a text of this origin."""
        return finding.score >= self._threshold(finding.detector, finding.category, origin)

    def judge(self, found: Iterable[FoundIn]) -> Ruling:
        """The rules' word on findings; those below their threshold are passed over."""
        hits: list[RuleHit] = []
        shadow_hits: list[RuleHit] = []
        for one in found:
            if not self.counts(one.finding, one.origin):
                continue
            for rule in self._candidates(one):
                if rule.applies_to(one):
                    is_shadowed = rule.mode is Mode.SHADOW or one.finding.detector in self._shadowed
                    target = shadow_hits if is_shadowed else hits
                    target.append(RuleHit(rule=rule, found=one))
        hits.sort(key=_strictest_first)
        shadow_hits.sort(key=_strictest_first)
        effect = hits[0].rule.effect if hits else Effect.ALLOW
        return Ruling(effect=effect, hits=tuple(hits), shadow_hits=tuple(shadow_hits))

    def _candidates(self, found: FoundIn) -> tuple[Rule, ...]:
        key = (found.surface.value, found.origin.value, found.finding.category)
        rules = self._index.get(key)
        if rules is None:
            rules = tuple(
                rule
                for rule in self._rules
                if rule.when.covers_place(found.surface, found.origin)
                and rule.when.covers_category(found.finding.category)
            )
            self._index[key] = rules
        return rules


def _strictest_first(hit: RuleHit) -> int:
    return -hit.rule.effect.rank


def _matches_text(patterns: tuple[str, ...], text: str | None) -> bool:
    if text is None:
        return False
    folded = text.casefold()
    return any(fnmatch.fnmatchcase(folded, pattern.casefold()) for pattern in patterns)
