"""Texts that were checked before: what detectors found in them, by a keyed hash, and no text.

A chat client sends its system prompt, its tools and all earlier turns again with every turn. What a detector
finds in a text that it saw before is not worked out again, if the detector says that its findings follow from
the text alone (`is_pure`); such a detector is given nothing else, memory or not, so that the key covers all
that it can see. Only what goes to a model is remembered, never an answer; a check that failed or ran out of
time never; and rules, redactions and references are made anew each time. See docs/adr/0227.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec

from stanchion.core.decision import CheckStatus, Surface
from stanchion.core.finding import Finding
from stanchion.guard.checks import SILENT, Check, CheckInput, CheckResult, CheckRunner, Rows
from stanchion.guard.workers import Door

DEFAULT_BYTES = 4 << 20
REMEMBERED = frozenset(
    {Surface.SYSTEM, Surface.INPUT, Surface.RETRIEVED, Surface.TOOL_DEFINITION, Surface.TOOL_RESULT}
)
MOST_FINDINGS = 64  # of one text; what holds more is looked at again
_ENTRY_BYTES, _FINDING_BYTES = 256, 768  # about what an entry takes, and a finding in it
_DIGEST_BYTES = 16

Found = tuple[tuple[Finding, ...], ...]  # by check; places in the text, under no field's name


class SeenTexts:
    """What was found, by key; the least recently used goes first. Thread-safe.

    The key of the hash is drawn for this object and never leaves it: what is in memory tells nobody which
    texts were seen, not even who has the texts.
    """

    def __init__(self, *, most_bytes: int = DEFAULT_BYTES) -> None:
        """`most_bytes` bounds what is kept; 0 keeps nothing."""
        self._most_bytes = most_bytes
        self._hash = hashlib.blake2b(digest_size=_DIGEST_BYTES, key=secrets.token_bytes(32))
        self._entries: OrderedDict[bytes, Found] = OrderedDict()
        self._lock = threading.Lock()
        self._bytes = 0
        self.seen = 0
        self.new = 0

    def __repr__(self) -> str:
        return f"SeenTexts({len(self._entries)} texts, {self._bytes} bytes)"

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def is_on(self) -> bool:
        """Whether anything is remembered."""
        return self._most_bytes > 0

    @property
    def size_bytes(self) -> int:
        """About how much is kept."""
        return self._bytes

    def key(self, place: bytes, text: CheckInput) -> bytes:
        """The keyed hash of all that a pure detector sees, and of whose it is.

        `place` says surface and detectors. A tenant's texts are kept apart from another's: the time of an
        answer tells nobody what others asked.
        """
        data = _head(place, text.origin, text.locale, text.tenant) + text.text.encode(
            "utf-8", "surrogatepass"
        )
        made = self._hash.copy()
        made.update(data)
        return made.digest()

    def find(self, key: bytes) -> Found | None:
        """What was found in a text that was seen before; counted either way."""
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                self.new += 1
            else:
                self.seen += 1
                self._entries.move_to_end(key)
            return found

    def keep(self, key: bytes, found: Found) -> None:
        """Remember what was found in a text."""
        findings = sum(map(len, found))
        if findings > MOST_FINDINGS:
            return
        with self._lock:
            if key in self._entries:
                return
            self._entries[key] = found
            self._bytes += _ENTRY_BYTES + _FINDING_BYTES * findings
            while self._bytes > self._most_bytes:
                _, gone = self._entries.popitem(last=False)
                self._bytes -= _ENTRY_BYTES + _FINDING_BYTES * sum(map(len, gone))


@lru_cache(maxsize=256)
def _head(place: bytes, origin: str, locale: str, tenant: str) -> bytes:
    """What stands before the text: each part with its length, so that no two read alike."""
    parts = [place, *[part.encode("utf-8", "surrogatepass") for part in (origin, locale, tenant)]]
    return b"".join([len(part).to_bytes(4, "big") + part for part in parts])


class RememberedChecks:
    """The checks of one surface; of those that are pure, only what is new to them is looked at."""

    def __init__(
        self, surface: Surface, checks: Sequence[Check], runner: CheckRunner, seen: SeenTexts
    ) -> None:
        self._surface = surface
        self._checks = tuple(checks)
        self._runner = runner
        self._seen = seen
        self._pure = tuple(place for place, check in enumerate(checks) if check.is_pure)
        self._others = tuple(check for check in checks if not check.is_pure)
        self._nothing: Found = ((),) * len(self._pure)
        self._silent = (SILENT,) * len(self._pure)
        self._versions: list[Any] = [None] * len(self._pure)
        self._place = b""

    async def run(self, door: Door, texts: Sequence[CheckInput], *, given_up: set[str]) -> Rows:
        """As `CheckRunner.rows` over all checks of the surface."""
        rows = self._runner.rows
        if given_up or not self._pure:
            return await rows(door, self._checks, texts, given_up=given_up)
        place = self._described()
        if len(texts) == 1 and not self._others:
            key = self._seen.key(place, texts[0])
            known_one = self._seen.find(key)
            if known_one is not None:
                return [self._again(known_one, (), texts[0].field)]
            made = await rows(door, self._checks, texts, given_up=given_up)
            self._keep(key, made[0])
            return made
        keys = [self._seen.key(place, text) for text in texts]
        found = [self._seen.find(key) for key in keys]
        new = [number for number, one in enumerate(found) if one is None]
        results: dict[int, Sequence[CheckResult]] = {}
        if new:
            ran = await rows(door, self._checks, [texts[number] for number in new], given_up=given_up)
            results.update(zip(new, ran, strict=True))
        known = [(number, one) for number, one in enumerate(found) if one is not None]
        others: Rows = [()] * len(known)
        if known and self._others:
            again = [texts[number] for number, _ in known]
            others = await rows(door, self._others, again, given_up=given_up)
        for (number, one), other in zip(known, others, strict=True):
            results[number] = self._again(one, other, texts[number].field)
        for number in new:
            self._keep(keys[number], results[number])
        return [results[number] for number in range(len(texts))]

    def _again(self, found: Found, others: Sequence[CheckResult], field: str) -> Sequence[CheckResult]:
        """The results of a known text: what was found in it, and what the other checks make of it now."""
        if found is self._nothing and not others:
            return self._silent
        known, rest = iter(found), iter(others)
        return [_again(next(known), field) if check.is_pure else next(rest) for check in self._checks]

    def _keep(self, key: bytes, row: Sequence[CheckResult]) -> None:
        """Remember what was found in a text, unless a check failed."""
        of_text = []
        is_silent = True
        for place in self._pure:
            result = row[place]
            if result.status is not _RAN:
                return
            is_silent = is_silent and not result.findings
            of_text.append(result)
        if is_silent:
            self._seen.keep(key, self._nothing)
        else:
            self._seen.keep(key, tuple([_nameless(one.findings) for one in of_text]))

    def _described(self) -> bytes:
        """The surface and its pure detectors with their versions, as a part of the key."""
        for place, version in zip(self._pure, self._versions, strict=True):
            if self._checks[place].detector.version != version:
                break
        else:
            return self._place
        self._versions = [self._checks[place].detector.version for place in self._pure]
        ids = [self._checks[place].id for place in self._pure]
        self._place = msgspec.json.encode([self._surface, ids, list(map(str, self._versions))])
        return self._place


_RAN = CheckStatus.RAN


def _again(findings: Sequence[Finding], field: str) -> CheckResult:
    if not findings:
        return SILENT
    return CheckResult(status=CheckStatus.RAN, findings=tuple([_named(one, field) for one in findings]))


def _nameless(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Findings without their field: its name may be a key of somebody's JSON."""
    return tuple([_named(one, "") for one in findings])


def _named(finding: Finding, field: str) -> Finding:
    location = msgspec.structs.replace(finding.location, field=field)
    return msgspec.structs.replace(finding, location=location)
