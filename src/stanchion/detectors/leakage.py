"""What gets out in an answer: planted marks, the system prompt, documents, and addresses that carry data.

The context of the input says what must not get out: `canaries`, `system_prompt`, `documents`,
`foreign_markers` (marks of other tenants). Without it only addresses are judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import msgspec

from stanchion.core.codec import digest, short
from stanchion.core.finding import (
    Cost,
    Detector,
    DetectorInput,
    Finding,
    Location,
    Reach,
    ReachKind,
    Severity,
    View,
)
from stanchion.core.taxonomy import category
from stanchion.detectors import canaries, links
from stanchion.detectors.incremental import PatternReach
from stanchion.detectors.incremental_marks import begun_mark
from stanchion.detectors.matching import findings_from_hits
from stanchion.detectors.overlaps import Overlaps
from stanchion.detectors.scan import Hit, Scanner
from stanchion.detectors.shingles import Source
from stanchion.detectors.views import TextViewSet

ID = "leakage"
CODE_VERSION = "3"

_FETCHED = frozenset({"leakage.markdown_image", "leakage.html_image", "leakage.css_url"})
_CREDENTIALS = "leakage.url_credentials"
_VERBATIM, _WRITTEN_OTHERWISE = 1.0, 0.97
_MARKS = ("canaries", "foreign_markers")
_LOWEST = 0.1  # links to foreign hosts that carry nothing are not reported


class LeakageOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What counts as a leak.

    `allowed_hosts` may be linked to, with their subdomains. A run of `min_words` words of the system prompt,
    or of `document_min_words` of a document, is a disclosure. Its score is the share disclosed; for documents
    at most `document_score`: quoting a source is what an assistant is for; a policy that minds raises it.
    """

    allowed_hosts: tuple[str, ...] = ()
    min_words: float = 8
    document_min_words: float = 30
    document_score: float = 0.4


class LeakageDetector:
    """Reports disclosures of what the context names, and addresses that carry data out.

    How much of a prompt or a document an answer discloses is known at its end; marks and addresses are
    settled as they pass. So the detector has two `parts`, each with its own reach.
    """

    id = ID
    reach = Reach(ReachKind.MESSAGE)
    cost = Cost.MILLISECONDS
    quick_characters = 4_096  # of text and context together: well under a millisecond
    categories = (
        "leakage.canary",
        "leakage.cross_tenant",
        "leakage.document",
        "leakage.exfiltration",
        "leakage.system_prompt",
    )

    def __init__(self, scanner: Scanner, options: LeakageOptions) -> None:
        self._scanner = scanner
        self._options = options
        self.version = f"{CODE_VERSION}+{short(digest([scanner.digest_for(ID), options]))}"
        self._parts = (PassingMarks(self, scanner), Disclosure(self))

    @property
    def parts(self) -> tuple[Detector, ...]:
        """The detector in two: what passes marks and addresses, and what needs the whole answer."""
        return self._parts

    def detect(self, detector_input: DetectorInput) -> Sequence[Finding]:
        """Findings by position."""
        found = [*self.passing(detector_input), *self.disclosed(detector_input)]
        return sorted(found, key=_by_place)

    def passing(self, detector_input: DetectorInput) -> Sequence[Finding]:
        """Planted marks, and addresses that carry data, by position."""
        context = detector_input.context
        found = self._addresses(detector_input)
        if not (context.get("canaries") or context.get("foreign_markers")):
            return sorted(found, key=_by_place) if found else ()
        views = detector_input.view_set.readings
        found += self._marks(views, context.get("canaries", ()), "leakage.canary")
        found += self._marks(views, context.get("foreign_markers", ()), "leakage.cross_tenant")
        return sorted(found, key=_by_place)

    def disclosed(self, detector_input: DetectorInput) -> Sequence[Finding]:
        """Passages of the system prompt and of documents, by position."""
        context, options = detector_input.context, self._options
        self._scanner.hits_for(detector_input.view_set, ID)  # its automaton says which decoders are needed
        views = detector_input.view_set.readings if context else ()
        found: list[Finding] = []
        for text in context.get("system_prompt", ()):
            found += self._overlap(views, text, "leakage.system_prompt", min_words=options.min_words)
        for text in context.get("documents", ()):
            found += self._overlap(
                views,
                text,
                "leakage.document",
                min_words=options.document_min_words,
                highest=options.document_score,
            )
        return sorted(found, key=_by_place)

    def _marks(self, views: Sequence[View], marks: Sequence[str], category_id: str) -> list[Finding]:
        """Each mark once for each place; the earliest view that shows it names the place."""
        found: list[Finding] = []
        for view in views if marks else ():
            for sighting in canaries.find(view.text, marks):
                start, end = view.to_original(sighting.start, sighting.end)
                if any(
                    f.rule == _mark_rule(category_id, sighting.index) and _near(f, start, end) for f in found
                ):
                    continue
                is_plain = sighting.how == "verbatim" and view.name == "raw"
                score = (
                    sighting.share
                    if sighting.how == "partial"
                    else _VERBATIM
                    if is_plain
                    else _WRITTEN_OTHERWISE
                )
                found.append(
                    self._finding(
                        category_id, _mark_rule(category_id, sighting.index), (start, end), score,
                        view=view.name, reason=f"a planted mark, {sighting.how}",
                    )
                )  # fmt: skip
        return found

    def _overlap(
        self, views: Sequence[View], text: str, category_id: str, *, min_words: float, highest: float = 1.0
    ) -> list[Finding]:
        source = _source(text)
        best_view, best = None, None
        for view in views:
            overlap = source.overlap(view.text, min_words=min(min_words, max(source.weight, 4.0)))
            if overlap.runs and (best is None or overlap.share > best.share):
                best_view, best = view, overlap
        if best is None or best_view is None:
            return []
        reason = f"{best.share:.0%} of it, {len(best.runs)} passage(s)"
        return [
            self._finding(
                category_id, category_id, best_view.to_original(run.start, run.end), highest * best.share,
                view=best_view.name, reason=reason,
            )
            for run in best.runs
        ]  # fmt: skip

    def _finding(
        self, category_id: str, rule: str, span: tuple[int, int], score: float, *, view: str, reason: str
    ) -> Finding:
        return Finding(
            detector=ID, version=self.version, category=category_id, score=score,
            location=Location(start=span[0], end=span[1]), severity=_severity(category_id), rule=rule,
            view=view, reason=reason,
        )  # fmt: skip

    def _addresses(self, detector_input: DetectorInput) -> list[Finding]:
        view_set = detector_input.view_set
        hits = self._scanner.hits_for(view_set, ID)
        if not hits:
            return []
        context = detector_input.context
        names = ("system_prompt", "documents", "question", "canaries", "foreign_markers")
        known = [text for name in names for text in context.get(name, ())]
        judged = [kept for hit in hits for kept in self._judged(hit, known)]
        ranked = sorted(findings_from_hits(ID, self.version, judged, view_set), key=lambda f: -f.score)
        kept: list[Finding] = []
        places = Overlaps()
        for finding in ranked:
            start, end = finding.location.start, finding.location.end
            if not any(finding.location.overlaps(kept[other].location) for other in places.near(start, end)):
                places.add(len(kept), start, end)
                kept.append(finding)
        return kept

    def _judged(self, hit: Hit, known: Sequence[str]) -> Iterator[Hit]:
        if hit.pattern.id == _CREDENTIALS:
            yield hit
            return
        url = hit.text
        if links.is_allowed(links.host_of(url), self._options.allowed_hosts):
            return
        verdict = links.judge(url, is_fetched=hit.pattern.id in _FETCHED, known_texts=known)
        if verdict.score >= _LOWEST:
            pattern = msgspec.structs.replace(hit.pattern, score=verdict.score, reason=verdict.reason)
            yield Hit(pattern, hit.view, hit.start, hit.end)


class PassingMarks(PatternReach):
    """The part of the detector that is settled as a text passes: planted marks and addresses."""

    id = ID
    reach = Reach(ReachKind.AUTOMATON)
    cost = Cost.MICROSECONDS
    categories = ("leakage.canary", "leakage.cross_tenant", "leakage.exfiltration")

    def __init__(self, whole: LeakageDetector, scanner: Scanner) -> None:
        self._whole = whole
        self._scanner = scanner
        self.version = whole.version

    def detect(self, detector_input: DetectorInput) -> Sequence[Finding]:
        """Findings by position."""
        return self._whole.passing(detector_input)

    def settled(self, detector_input: DetectorInput, start: int) -> int:
        """See `PatternReach.settled`."""
        cut = super().settled(detector_input, start)
        return max(start, min(cut, _begun_marks(detector_input.view_set, detector_input.context)))

    def clear_beside(self, detector_input: DetectorInput, view_set: TextViewSet, start: int) -> int:
        """Up to where no planted mark stands and none may have begun."""
        context = detector_input.context
        marks = [mark for name in _MARKS for mark in context.get(name, ())]
        if not marks:
            return len(view_set.original)
        if any(canaries.find(view.text, marks) for view in view_set.readings):
            return start
        return _begun_marks(view_set, context)

    def calm(self, detector_input: DetectorInput) -> bool:
        """See `PatternReach.calm`; with planted marks a part may show what the whole does not."""
        context = detector_input.context
        for name in _MARKS:
            if context.get(name):
                return False
        return super().calm(detector_input)


class Disclosure:
    """The part of the detector that needs the whole answer: how much it repeats of prompt and documents."""

    id = ID
    reach = Reach(ReachKind.MESSAGE)
    cost = Cost.MILLISECONDS
    quick_characters = 4_096  # of text and context together: well under a millisecond
    categories = ("leakage.document", "leakage.system_prompt")

    def __init__(self, whole: LeakageDetector) -> None:
        self._whole = whole
        self.version = whole.version

    def detect(self, detector_input: DetectorInput) -> Sequence[Finding]:
        """Findings by position."""
        return self._whole.disclosed(detector_input)


def _begun_marks(view_set: TextViewSet, context: Mapping[str, tuple[str, ...]]) -> int:
    """Where, in any reading, a mark may have begun that goes on behind the end."""
    first = len(view_set.original)
    marks = [mark for name in _MARKS for mark in context.get(name, ())]
    for view in view_set.readings if marks else ():
        begun = begun_mark(view.text, marks)
        if begun < len(view.text):
            first = min(first, view.to_original(begun, begun + 1)[0])
    return first


def _by_place(finding: Finding) -> tuple[int, int, str]:
    return finding.location.start, finding.location.end, finding.rule


def _near(finding: Finding, start: int, end: int) -> bool:
    return finding.location.start < end and start < finding.location.end


def _mark_rule(category_id: str, index: int) -> str:
    return f"{category_id}.{index}"


def _severity(category_id: str) -> Severity:
    return category(category_id).severity


@lru_cache(maxsize=128)
def _source(text: str) -> Source:
    return Source(text)


def create(*, scanner: Scanner, **options: object) -> LeakageDetector:
    """The detector; options are those of `LeakageOptions`.

    Raises:
        msgspec.ValidationError: for an option that is unknown or of the wrong type.
    """
    return LeakageDetector(scanner, msgspec.convert(options, LeakageOptions))
