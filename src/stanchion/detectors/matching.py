"""From hits of the automaton to findings: context words, score, one finding for each place."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from stanchion.core.finding import Finding, Location
from stanchion.detectors.overlaps import Overlaps
from stanchion.detectors.patterns import ContextRule
from stanchion.detectors.scan import Hit
from stanchion.detectors.views import TextViewSet


def findings_from_hits(
    detector_id: str, version: str, hits: Iterable[Hit], view_set: TextViewSet
) -> list[Finding]:
    """What the hits amount to, by position in the original.

    The context rule is applied (a required word that is missing drops the hit, any word raises the score).
    Hits of one pattern that overlap in the original, seen through several views, become one finding: the
    place of the earliest view, the highest score.
    """
    order = {view.name: rank for rank, view in enumerate(view_set.readings)}
    kept: dict[str, _Kept] = {}
    for hit in sorted(hits, key=lambda h: order.get(h.view.name, len(order))):
        score = score_of(hit)
        if score is not None:
            of_pattern = kept.get(hit.pattern.id)
            if of_pattern is None:
                of_pattern = kept[hit.pattern.id] = _Kept()
            of_pattern.add(_finding(detector_id, version, hit, score))
    found = [finding for of_pattern in kept.values() for finding in of_pattern.findings]
    return sorted(found, key=lambda f: (f.location.start, f.location.end, f.rule))


def score_of(hit: Hit) -> float | None:
    """The pattern's score with its context applied; None when a required word is missing."""
    pattern = hit.pattern
    rule = pattern.context
    if rule is None:
        return pattern.score
    if has_context(rule, hit):
        return min(1.0, pattern.score + rule.raise_by)
    return None if rule.required else pattern.score


def has_context(rule: ContextRule, hit: Hit) -> bool:
    """Whether one of the rule's words stands near the hit, in the same view."""
    text = hit.view.text
    before = text[max(0, hit.start - rule.window) : hit.start]
    after = text[hit.end : hit.end + rule.window]
    words = _words(rule.words)
    return words.search(before) is not None or words.search(after) is not None


@lru_cache(maxsize=1024)
def _words(words: tuple[str, ...]) -> re.Pattern[str]:
    """Any of the words, whole, in any case; parts of `card_number` count, parts of `discard` do not.

    Scripts that are written without spaces have no whole words: from Hebrew upwards any occurrence counts.
    """
    parts = []
    for word in sorted(words, key=len, reverse=True):
        front = r"(?<![^\W_])" if word[0] < "\u0590" else ""
        back = r"(?![^\W_])" if word[-1] < "\u0590" else ""
        parts.append(front + re.escape(word) + back)
    return re.compile("|".join(parts), re.IGNORECASE)


def _finding(detector_id: str, version: str, hit: Hit, score: float) -> Finding:
    start, end = hit.original
    return Finding(
        detector=detector_id,
        version=version,
        category=hit.pattern.category,
        score=score,
        location=Location(start=start, end=end),
        severity=hit.pattern.severity,
        rule=hit.pattern.id,
        view=hit.view.name,
        reason=hit.pattern.reason,
    )


class _Kept:
    """The findings of one pattern so far."""

    __slots__ = ("_places", "findings")

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self._places = Overlaps()

    def add(self, new: Finding) -> None:
        """Keep the finding, or raise the score of the one that it repeats in another view."""
        start, end = new.location.start, new.location.end
        for index in self._places.near(start, end):
            old = self.findings[index]
            if old.location.overlaps(new.location) and old.view != new.view:
                if new.score > old.score:
                    self.findings[index] = _with_score(old, new.score)
                return
        self._places.add(len(self.findings), start, end)
        self.findings.append(new)


def _with_score(finding: Finding, score: float) -> Finding:
    import msgspec

    return msgspec.structs.replace(finding, score=score)
