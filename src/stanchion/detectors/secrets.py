"""Credentials in a text: the `secrets.` patterns, what their context says, one finding for each place."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

import msgspec

from stanchion.core.codec import digest, short
from stanchion.core.finding import Cost, DetectorInput, Finding, Reach, ReachKind
from stanchion.core.resources import read_data_text
from stanchion.detectors import assignments
from stanchion.detectors.incremental import PatternReach
from stanchion.detectors.matching import findings_from_hits
from stanchion.detectors.overlaps import Overlaps
from stanchion.detectors.patterns import Pattern
from stanchion.detectors.scan import Hit, Look, Scanner
from stanchion.detectors.token_checks import (
    has_github_checksum,
    is_placeholder,
    is_random_token,
    shannon_bits,
)

ID = "secrets"
CODE_VERSION = "3"

_CHECKSUMS: Mapping[str, Callable[[str], bool]] = {"secrets.github_token": has_github_checksum}
_CHECKSUM_HOLDS, _CHECKSUM_FAILS = 0.99, 0.75
# Patterns that know a place, not a kind; a finding of a known kind at the same place replaces theirs.
_GENERIC = frozenset(
    {
        "secrets.password_assignment",
        "secrets.secret_assignment",
        "secrets.joined_value",
        "secrets.dockerfile_env",
        "secrets.session_cookie",
        "secrets.spoken_password",
        "secrets.spoken_key",
        "secrets.api_key_header",
        "secrets.authorization_raw",
        "secrets.authorization_bearer",
        "secrets.url_query_credential",
        "secrets.command_line_password",
        "secrets.service_key",
    }
)
_OWNED = re.compile(r"\(\?i[):]((?:\((?:[^()]|\([^()]*\))*\)|[^\[(])+)\[\\w")
_CUT = re.compile(
    r"\.{0,3}\s?[\[<(]?(?:redacted|masked|removed|hidden|truncated)\b|\*{3}|\u2026", re.IGNORECASE
)
_PLURALS = frozenset({"secrets", "tokens", "credentials"})
_NAME = re.compile(r"[\w.\-]+")
_NAME_REACH = 120  # characters before a value in which its name stands
_BARE_KEY_BITS = 3.5  # of a value after a name that says `key` and not whose


class SecretsDetector(PatternReach):
    """Reports tokens, keys, passwords and connection strings.

    A kind with a public checksum scores 0.99 when it holds and 0.75 when it does not (mistyped or made up:
    still handled as a secret). Placeholders are no findings.
    """

    id = ID
    reach = Reach(ReachKind.AUTOMATON)
    cost = Cost.MICROSECONDS
    is_pure = True

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        patterns = scanner.patterns_for(ID)
        self.version = (
            f"{CODE_VERSION}+{short(digest([scanner.digest_for(ID), sorted(_published_examples())]))}"
        )
        self.categories = tuple(sorted({pattern.category for pattern in patterns}))

    @property
    def rules_out(self) -> Look | None:
        """What rules a text out, for all that is told by hits."""
        return self._scanner.shared_look(ID)

    def detect(self, detector_input: DetectorInput) -> Sequence[Finding]:
        """Findings by position; a place is reported once, as the most certain kind."""
        view_set = detector_input.view_set
        hits = self._scanner.hits_for(view_set, ID)
        if not hits:
            return ()
        text = detector_input.text
        refined = [kept for hit in hits if (kept := _refine(hit, text)) is not None]
        return most_certain(findings_from_hits(ID, self.version, refined, view_set))


def most_certain(findings: Iterable[Finding]) -> list[Finding]:
    """One finding for each place: generic kinds give way to known ones, lower scores to higher ones.

    A finding that reaches beyond a more certain one stays, so that nothing secret is left uncovered.
    """
    ranked = sorted(
        findings,
        key=lambda f: (f.rule in _GENERIC, -f.score, f.location.start - f.location.end, f.location.start),
    )
    kept: list[Finding] = []
    places = Overlaps()
    for finding in ranked:
        start, end = finding.location.start, finding.location.end
        if not any(_gives_way(finding, to=kept[other]) for other in places.near(start, end)):
            places.add(len(kept), start, end)
            kept.append(finding)
    return sorted(kept, key=lambda f: (f.location.start, f.location.end, f.rule))


def _gives_way(finding: Finding, *, to: Finding) -> bool:
    mine, theirs = finding.location, to.location
    if finding.rule in _GENERIC:
        return mine.overlaps(theirs)
    return theirs.start <= mine.start and mine.end <= theirs.end


@lru_cache(maxsize=1)
def _published_examples() -> frozenset[str]:
    import yaml

    rows = yaml.safe_load(read_data_text("published_examples.yaml"))["values"]
    return frozenset(digest for row in rows for digest in row["digests"])


def _is_published_example(value: str) -> bool:
    """Whether a vendor prints the value in its documentation (known by digest only)."""
    return hashlib.sha256(value.encode("utf-8", "replace")).hexdigest()[:32] in _published_examples()


def _refine(hit: Hit, text: str) -> Hit | None:
    refined = _refined(hit)
    if refined is None or _is_published_example(refined.text) or not _names_its_owner(refined):
        return None
    if _CUT.match(refined.view.text, refined.end):
        return None
    if refined.pattern.id in _GENERIC and refined.view.name != "raw":
        start, end = refined.original
        if is_placeholder(text[start:end]):
            return None  # `%DB_PASS%` is a reference, whatever its percent signs decode to
    return refined


@lru_cache(maxsize=512)
def _owner(pattern: str) -> re.Pattern[str] | None:
    """What a pattern asks of the name before its value, when it asks for an owner (`(?i)okta...`)."""
    match = _OWNED.match(pattern)
    if match is None:
        return None
    return re.compile(match[1].replace("\\b", ""), re.IGNORECASE)


def _names_its_owner(hit: Hit) -> bool:
    """Whether the owner's name is made of whole words of the name; `rookTable`, `sumObject` name nobody."""
    owner = _owner(hit.pattern.pattern)
    if owner is None or not hit.pattern.group:
        return True
    line = hit.view.text[max(0, hit.start - _NAME_REACH) : hit.start]
    return any(
        _is_of_words(match.group(), found.start(), found.end())
        for match in _NAME.finditer(line)
        for found in owner.finditer(match.group())
    )


def _is_of_words(name: str, start: int, end: int) -> bool:
    """Whether `name[start:end]` begins with a word of the name and, where it holds several, ends with one."""
    words = [match.span() for match in assignments.NAME_WORDS.finditer(name)]
    if not any(first == start for first, _ in words):
        return name[start : start + 1] in "_-."
    return not any(first < end < last and first > start for first, last in words)


def _refined(hit: Hit) -> Hit | None:
    rule = hit.pattern.id
    checksum = _CHECKSUMS.get(rule)
    if checksum is not None:
        holds = checksum(hit.text)
        reason = "the token's checksum holds" if holds else "the token's checksum does not hold"
        return _changed(hit, score=_CHECKSUM_HOLDS if holds else _CHECKSUM_FAILS, reason=reason)
    if rule == "secrets.password_assignment":
        return _assigned(hit, assignments.asks_for_password)
    if rule == "secrets.secret_assignment":
        return _assigned_secret(hit, assignments.parse(hit.text))
    if rule == "secrets.joined_value":
        return _joined(hit)
    if rule == "secrets.curl_user_quoted":
        start = hit.text[:-1].rfind(hit.text[-1]) + 1
        return Hit(hit.pattern, hit.view, hit.start + start, hit.end - 1)
    return hit


def _assigned(hit: Hit, asks: Callable[[str], bool]) -> Hit | None:
    found = assignments.parse(hit.text)
    if found is None or not asks(assignments.name_before(hit.view.text, hit.start) + found.name):
        return None
    return Hit(hit.pattern, hit.view, hit.start + found.start, hit.start + found.end)


def _joined(hit: Hit) -> Hit | None:
    found = assignments.parse_joined(hit.text)
    if found is None:
        return None
    if assignments.asks_for_password(assignments.name_before(hit.view.text, hit.start) + found.name):
        pattern = msgspec.structs.replace(hit.pattern, category="secret.password")
        return Hit(pattern, hit.view, hit.start + found.start, hit.start + found.end)
    return _assigned_secret(hit, found)


def _assigned_secret(hit: Hit, found: assignments.Assignment | None) -> Hit | None:
    if found is None:
        return None
    name = assignments.name_before(hit.view.text, hit.start) + found.name
    if not assignments.asks_for_secret(name):
        return None
    last = assignments.words_of(name)[-1]
    is_bare_key = last in {"key", "keys"} and not assignments.owns_key(name)
    if (is_bare_key or last in _PLURALS) and not (
        is_random_token(found.value) and shannon_bits(found.value) >= _BARE_KEY_BITS
    ):
        return None
    return Hit(hit.pattern, hit.view, hit.start + found.start, hit.start + found.end)


def _changed(hit: Hit, *, score: float, reason: str) -> Hit:
    pattern: Pattern = msgspec.structs.replace(hit.pattern, score=score, reason=reason)
    return Hit(pattern, hit.view, hit.start, hit.end)


def create(*, scanner: Scanner) -> SecretsDetector:
    """The detector over the scanner's `secrets.` patterns."""
    return SecretsDetector(scanner)
