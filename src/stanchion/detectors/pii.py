"""Personal data in a text: the `pii.` patterns, runs of digits told apart, and the words near them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from stanchion.core.codec import digest, short
from stanchion.core.finding import Cost, DetectorInput, Finding, Reach, ReachKind, Severity
from stanchion.detectors import phones
from stanchion.detectors.context_words import words_digest
from stanchion.detectors.incremental import PatternReach
from stanchion.detectors.matching import findings_from_hits, score_of
from stanchion.detectors.national_ids import table, table_digest
from stanchion.detectors.numbers import Number, code_in, numbers_in
from stanchion.detectors.overlaps import Overlaps
from stanchion.detectors.patterns import Pattern
from stanchion.detectors.scan import Hit, Look, Scanner

ID = "pii"
CODE_VERSION = "2"

_NUMBER = "pii.number"
_CODES = frozenset({"pii.code", "pii.code_digits_first", "pii.code_spaced"})
_USERINFO = re.compile(r"://[^\s/@]*\Z")
_VERSION_WORD = re.compile(
    r"(?:version|release|firmware|\bv|\bver|build|==|>=|<=|~=|\^)[\s.:]{0,3}\Z", re.IGNORECASE
)
_IP_WORD = re.compile(r"\bip(?:v[46])?\b|address|client|host|remote|server|from|ping|whois", re.IGNORECASE)
_NOT_NAMES = frozenset(
    {
        "Sir",
        "Madam",
        "All",
        "Team",
        "Everyone",
        "Customer",
        "Support",
        "Colleagues",
        "World",
        "There",
        "Friend",
    }
)
_PRIVATE_SCORE, _DOCUMENTATION_SCORE = 0.3, 0.6
_RESERVED = tuple(
    map(ipaddress.ip_network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"))
)


class PiiDetector(PatternReach):
    """Reports personal data of fixed forms; names and places only where the words around them tell.

    `regions` are the countries (ISO 3166) whose telephone numbers are known without a word beside them.
    """

    id = ID
    reach = Reach(ReachKind.AUTOMATON)
    cost = Cost.MICROSECONDS
    is_pure = True

    def __init__(self, scanner: Scanner, regions: Sequence[str]) -> None:
        self._scanner = scanner
        self._regions = tuple(regions)
        patterns = scanner.patterns_for(ID)
        data = digest([scanner.digest_for(ID), table_digest(), words_digest(), self._regions])
        self.version = f"{CODE_VERSION}+{short(data)}"
        direct = {
            pattern.category for pattern in patterns if pattern.id != _NUMBER and pattern.id not in _CODES
        }
        told = {"pii.card", "pii.phone", "pii.account", "pii.passport", "pii.driver_licence", "pii.health"}
        self.categories = tuple(sorted(direct | told | {entry.category for entry in table()}))

    @property
    def rules_out(self) -> Look | None:
        """What rules a text out, for all that is told by hits."""
        return self._scanner.shared_look(ID)

    def detect(self, detector_input: DetectorInput) -> Sequence[Finding]:
        """Findings by position; where two overlap, the more certain one is kept."""
        view_set = detector_input.view_set
        hits = self._scanner.hits_for(view_set, ID)
        if not hits:
            return ()
        refined = [hit for raw in hits for hit in self._refined(raw)]
        return _without_rivals(findings_from_hits(ID, self.version, refined, view_set))

    def _refined(self, hit: Hit) -> Iterator[Hit]:
        if hit.pattern.id == _NUMBER:
            for number in numbers_in(hit.view.text, hit.start, hit.end, regions=self._regions):
                yield _numbered(hit, number)
            return
        if hit.pattern.id in _CODES:
            code = code_in(hit.view.text, hit.start, hit.end)
            if code is not None:
                yield _numbered(hit, code)
            return
        refine = _REFINERS.get(hit.pattern.id)
        changed = refine(hit) if refine else hit
        if changed is not None and score_of(changed) is not None:
            yield changed


def _numbered(hit: Hit, number: Number) -> Hit:
    pattern: Pattern = msgspec.structs.replace(
        hit.pattern,
        id=number.rule,
        category=number.category,
        severity=_severity(number.category),
        score=number.score,
        reason=number.reason,
        context=None,
    )
    return Hit(pattern, hit.view, number.start, number.end)


def _severity(category_id: str) -> Severity:
    from stanchion.core.taxonomy import category

    return category(category_id).severity


def _without_rivals(findings: Sequence[Finding]) -> list[Finding]:
    """Of overlapping findings the most certain, then the longest; an address may hold other findings."""
    ranked = sorted(findings, key=lambda f: (-f.score, f.location.start - f.location.end, f.location.start))
    kept: list[Finding] = []
    places = Overlaps()
    for finding in ranked:
        start, end = finding.location.start, finding.location.end
        if not any(_is_covered(finding, by=kept[other]) for other in places.near(start, end)):
            places.add(len(kept), start, end)
            kept.append(finding)
    return sorted(kept, key=lambda f: (f.location.start, f.location.end, f.rule))


def _is_covered(finding: Finding, *, by: Finding) -> bool:
    if not finding.location.overlaps(by.location):
        return False
    if finding.category == "pii.address" and by.category != "pii.address":
        return by.location.start <= finding.location.start and finding.location.end <= by.location.end
    return True


def _email(hit: Hit) -> Hit | None:
    """No address: the password of a URL (`https://user:pass@host`), and `git@` of a repository."""
    text, start = hit.view.text, hit.start
    if _USERINFO.search(text, max(0, start - 200), start) or hit.text.startswith("git@"):
        return None
    return hit


def _ip(hit: Hit) -> Hit | None:
    """Part of a longer dotted number is none; addresses that name no machine in the world score low."""
    text, start, end = hit.view.text, hit.start, hit.end
    before, after = text[max(0, start - 24) : start], text[end : end + 2]
    if re.search(r"[\w.:]\Z", before) or re.match(r"\.\d|\w", after):
        return None
    address = ipaddress.ip_address(hit.text)
    if address.version == 6 and len(hit.text) < 6:
        return None
    if _VERSION_WORD.search(before):
        return _scored(hit, _PRIVATE_SCORE, "an address, or a version number")
    if any(address in network for network in _RESERVED):
        return _scored(hit, _DOCUMENTATION_SCORE, "an address reserved for documentation")
    if not address.is_global:
        return _scored(hit, _PRIVATE_SCORE, "an address of a private network")
    return _scored(hit, 0.95, "") if _IP_WORD.search(before) else hit


def _person(hit: Hit) -> Hit | None:
    return None if set(hit.text.split()) & _NOT_NAMES else hit


def _scored(hit: Hit, score: float, reason: str) -> Hit:
    return Hit(msgspec.structs.replace(hit.pattern, score=score, reason=reason), hit.view, hit.start, hit.end)


_REFINERS: Mapping[str, Callable[[Hit], Hit | None]] = {
    "pii.email": _email,
    "pii.ipv4": _ip,
    "pii.ipv6": _ip,
    "pii.person_greeted": _person,
    "pii.person_title": _person,
}


def create(*, scanner: Scanner, regions: Sequence[str] = phones.REGIONS) -> PiiDetector:
    """The detector over the scanner's `pii.` patterns."""
    return PiiDetector(scanner, regions)
