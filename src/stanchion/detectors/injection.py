"""`injection.patterns`: known forms of injections and jailbreaks, and text that is hidden from the eye."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from stanchion.core.codec import short
from stanchion.core.finding import (
    Cost,
    Detector,
    DetectorInput,
    Finding,
    Location,
    Reach,
    ReachKind,
    Severity,
)
from stanchion.core.origin import Origin
from stanchion.detectors.incremental import PatternReach
from stanchion.detectors.matching import findings_from_hits
from stanchion.detectors.overlaps import Overlaps
from stanchion.detectors.scan import Look, Scanner
from stanchion.detectors.views import TextViewSet

ID = "injection.patterns"
CODE_VERSION = 1
NEIGHBOURHOOD = 600  # characters within which different weak signs add up
CEILING = 0.99

# What is normal in a place is weak evidence there: a system prompt consists of rules and roles.
ORIGIN_FACTOR = dict.fromkeys(Origin, 1.0) | {Origin.SYSTEM: 0.3, Origin.MODEL: 0.7}

_OBFUSCATION = "injection.obfuscation"
_LATIN = "A-Za-z\u00c0-\u024f"
_TURNING = "\u202d\u202e\u2066-\u2068"
_HIDDEN = {
    "tags": (re.compile("[\U000e0020-\U000e007e]{3,}"), 1, 0.9, "words in invisible tag characters"),
    "zero_width": (
        re.compile(rf"(?<=[{_LATIN}])[\u200b-\u200d\u2060-\u2064\ufeff]+(?=[{_LATIN}])"),
        3,
        0.6,
        "invisible characters inside words",
    ),
    "bidi": (
        re.compile(rf"(?<![{_TURNING}])[{_TURNING}]++(?=[^\n]{{0,400}}[{_LATIN}])"),
        1,
        0.5,
        "reversed reading order",
    ),
}
_FLAG = "\U0001f3f4"  # the black flag, after which tag characters spell a region
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]")


class PatternDetector:
    """Reports the patterns of `data/patterns/injection.yaml` by where the text comes from.

    A pattern's category `injection.direct` becomes `injection.indirect` in text from outside. Different signs
    within `NEIGHBOURHOOD` characters raise each other as independent evidence does: `1 - (1 - a)(1 - b)`.
    """

    id = ID
    reach = Reach(ReachKind.MESSAGE)
    cost = Cost.MICROSECONDS
    is_pure = True

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self._passing = PassingSigns(self, scanner)
        self.version = f"{CODE_VERSION}+{short(scanner.digest_for('injection'))}"
        own = {pattern.category for pattern in scanner.patterns_for("injection")}
        self.categories = tuple(sorted({*own, "injection.direct", "injection.indirect", _OBFUSCATION}))

    @property
    def parts(self) -> tuple[Detector, ...]:
        """The detector in two: signs, settled as they pass, and hidden text, which the whole answer tells."""
        return self._passing, HiddenText(self)

    @property
    def rules_out(self) -> Look | None:
        """What rules a text out, for all that is told by hits."""
        return self._scanner.shared_look("injection")

    def detect(self, detector_input: DetectorInput) -> Sequence[Finding]:
        """Findings by position."""
        found = [*self.signs(detector_input)]
        if detector_input.view_set.signals:
            found += self.hidden(detector_input.view_set)
        return sorted(found, key=lambda f: (f.location.start, f.location.end, f.rule))

    def signs(self, detector_input: DetectorInput) -> Sequence[Finding]:
        """Known forms of injections, by position."""
        view_set, origin = detector_input.view_set, detector_input.origin
        hits = self._scanner.hits_for(view_set, "injection")
        if not hits:
            return ()
        found = findings_from_hits(self.id, self.version, hits, view_set)
        found = [_placed(finding, origin) for finding in _reinforced(found)]
        return sorted(found, key=lambda f: (f.location.start, f.location.end, f.rule))

    def hidden(self, view_set: TextViewSet) -> Iterator[Finding]:
        """One finding for each way of hiding, from its first place to its last."""
        for signal in sorted(view_set.signals.intersection(_HIDDEN)):
            expression, fewest, score, reason = _HIDDEN[signal]
            places = [match.span() for match in expression.finditer(view_set.original)]
            if signal == "tags":
                places = [span for span in places if view_set.original[span[0] - 1 : span[0]] != _FLAG]
            elif signal == "bidi" and _RIGHT_TO_LEFT.search(view_set.original):
                places = []
            if len(places) >= fewest:
                yield Finding(
                    detector=self.id,
                    version=self.version,
                    category=_OBFUSCATION,
                    score=score,
                    location=Location(start=places[0][0], end=places[-1][1]),
                    severity=Severity.MEDIUM,
                    rule=f"injection.hidden_{signal}",
                    reason=reason,
                )


class PassingSigns(PatternReach):
    """The part of the detector that is settled once the neighbourhood of a sign was seen."""

    id = ID
    reach = Reach(ReachKind.AUTOMATON)
    cost = Cost.MICROSECONDS
    _reads_before = _reads_after = NEIGHBOURHOOD

    def __init__(self, whole: PatternDetector, scanner: Scanner) -> None:
        self._whole = whole
        self._scanner = scanner

    @property
    def version(self) -> str:
        """The detector's version."""
        return self._whole.version

    @property
    def categories(self) -> tuple[str, ...]:
        """What the detector's patterns report."""
        return self._whole.categories

    def detect(self, detector_input: DetectorInput) -> Sequence[Finding]:
        """Findings by position."""
        return self._whole.signs(detector_input)


class HiddenText:
    """The part of the detector that needs the whole text: one finding for each way of hiding."""

    id = ID
    reach = Reach(ReachKind.MESSAGE)
    cost = Cost.MICROSECONDS
    categories = (_OBFUSCATION,)

    def __init__(self, whole: PatternDetector) -> None:
        self._whole = whole
        self.version = whole.version

    def detect(self, detector_input: DetectorInput) -> Sequence[Finding]:
        """Findings, one for each way of hiding."""
        return list(self._whole.hidden(detector_input.view_set))


def _reinforced(found: Sequence[Finding]) -> Iterable[Finding]:
    """Each finding with its score raised by the best score of every other rule nearby."""
    if len(found) < 2:
        return found
    raised = []
    places = Overlaps()
    for number, finding in enumerate(found):
        places.add(number, finding.location.start, finding.location.end)
    for finding in found:
        others: dict[str, float] = {}
        start, end = finding.location.start, finding.location.end
        for number in places.near(max(0, start - NEIGHBOURHOOD - 1), end + NEIGHBOURHOOD + 1):
            other = found[number]
            if other.rule != finding.rule and _is_near(finding.location, other.location):
                others[other.rule] = max(others.get(other.rule, 0.0), other.score)
        doubt = 1.0 - finding.score
        for score in others.values():
            doubt *= 1.0 - score
        raised.append(
            msgspec.structs.replace(finding, score=min(CEILING, round(1.0 - doubt, 6))) if others else finding
        )
    return raised


def _is_near(one: Location, other: Location) -> bool:
    return one.start - other.end <= NEIGHBOURHOOD and other.start - one.end <= NEIGHBOURHOOD


def _placed(finding: Finding, origin: Origin) -> Finding:
    """The finding as it reads in a text of this origin."""
    category = finding.category
    if category == "injection.direct" and origin.is_untrusted:
        category = "injection.indirect"
    elif category == "injection.indirect" and not origin.is_untrusted:
        category = "injection.direct"
    score = round(finding.score * ORIGIN_FACTOR[origin], 6)
    return msgspec.structs.replace(finding, category=category, score=score)


def create(*, scanner: Scanner) -> PatternDetector:
    """The detector over the scanner's `injection.` patterns."""
    return PatternDetector(scanner)
