"""Credentials in a text: the `secrets.` patterns, what their context says, one finding for each place."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

import msgspec

from stanchion.core.codec import digest, short
from stanchion.core.finding import Cost, DetectorInput, Finding, Reach, ReachKind
from stanchion.core.resources import read_data_text
from stanchion.detectors import assignments
from stanchion.detectors.matching import findings_from_hits
from stanchion.detectors.patterns import Pattern
from stanchion.detectors.scan import Hit, Scanner
from stanchion.detectors.token_checks import has_github_checksum, is_random_token, shannon_bits

ID = "secrets"
CODE_VERSION = "1"

_CHECKSUMS: Mapping[str, Callable[[str], bool]] = {"secrets.github_token": has_github_checksum}
_CHECKSUM_HOLDS, _CHECKSUM_FAILS = 0.99, 0.75
# Patterns that know a place, not a kind; a finding of a known kind at the same place replaces theirs.
_GENERIC = frozenset(
    {
        "secrets.password_assignment",
        "secrets.secret_assignment",
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
_BARE_KEY_BITS = 3.5  # of a value after a name that says `key` and not whose


class SecretsDetector:
    """Reports tokens, keys, passwords and connection strings.

    A kind with a public checksum scores 0.99 when it holds and 0.75 when it does not (mistyped or made up:
    still handled as a secret). Placeholders are no findings.
    """

    id = ID
    reach = Reach(ReachKind.MESSAGE)
    cost = Cost.MICROSECONDS

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        patterns = scanner.patterns_for(ID)
        self.version = (
            f"{CODE_VERSION}+{short(digest([scanner.digest_for(ID), sorted(_published_examples())]))}"
        )
        self.categories = tuple(sorted({pattern.category for pattern in patterns}))

    def detect(self, detector_input: DetectorInput) -> Sequence[Finding]:
        """Findings by position; a place is reported once, as the most certain kind."""
        view_set = detector_input.view_set
        hits = self._scanner.hits_for(view_set, ID)
        if not hits:
            return ()
        refined = [hit for hit in map(_refine, hits) if hit is not None]
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
    for finding in ranked:
        if not any(_gives_way(finding, to=other) for other in kept):
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


def _refine(hit: Hit) -> Hit | None:
    refined = _refined(hit)
    return None if refined is None or _is_published_example(refined.text) else refined


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
        return _assigned_secret(hit)
    if rule == "secrets.curl_user_quoted":
        start = hit.text[:-1].rfind(hit.text[-1]) + 1
        return Hit(hit.pattern, hit.view, hit.start + start, hit.end - 1)
    return hit


def _assigned(hit: Hit, asks: Callable[[str], bool]) -> Hit | None:
    found = assignments.parse(hit.text)
    if found is None or not asks(assignments.name_before(hit.view.text, hit.start) + found.name):
        return None
    return Hit(hit.pattern, hit.view, hit.start + found.start, hit.start + found.end)


def _assigned_secret(hit: Hit) -> Hit | None:
    found = assignments.parse(hit.text)
    if found is None:
        return None
    name = assignments.name_before(hit.view.text, hit.start) + found.name
    if not assignments.asks_for_secret(name):
        return None
    is_bare_key = assignments.words_of(name)[-1] in {"key", "keys"} and not assignments.owns_key(name)
    if is_bare_key and not (is_random_token(found.value) and shannon_bits(found.value) >= _BARE_KEY_BITS):
        return None
    return Hit(hit.pattern, hit.view, hit.start + found.start, hit.start + found.end)


def _changed(hit: Hit, *, score: float, reason: str) -> Hit:
    pattern: Pattern = msgspec.structs.replace(hit.pattern, score=score, reason=reason)
    return Hit(pattern, hit.view, hit.start, hit.end)


def create(*, scanner: Scanner) -> SecretsDetector:
    """The detector over the scanner's `secrets.` patterns."""
    return SecretsDetector(scanner)
