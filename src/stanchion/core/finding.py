"""Findings, and the protocol of what makes them.

A detector reads views of a text (with its origin) and gives findings. It never rewrites and never decides.
Scores are in [0, 1]; unsafe is 1. Offsets are code points in the original field, half-open; lines and columns
are 1-based.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

import msgspec

from stanchion.core.origin import Origin


class Severity(StrEnum):
    """How bad it is when it is real, whatever the certainty."""

    INFO = "info"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for info up to 4 for critical."""
        return _SEVERITY_RANK[self]


_SEVERITY_RANK = {severity: rank for rank, severity in enumerate(Severity)}


class Location(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Where: `field` names the text (`messages[2].parts[0]`), offsets are code points, half-open."""

    start: int
    end: int
    field: str = ""
    line: int = 0
    column: int = 0

    def overlaps(self, other: Location) -> bool:
        """Whether the two share at least one character of the same field."""
        return self.field == other.field and self.start < other.end and other.start < self.end


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Something detected: what, where, how sure, by whom, why. Never the text itself."""

    detector: str
    version: str
    category: str
    score: float
    location: Location
    severity: Severity = Severity.MEDIUM
    rule: str = ""
    view: str = "raw"
    reason: str = ""


class ReachKind(StrEnum):
    """How much text a detector must see before its answer about a character is final."""

    AUTOMATON = "automaton"
    BOUNDED = "bounded"
    SENTENCE = "sentence"
    MESSAGE = "message"


class Reach(msgspec.Struct, frozen=True):
    """A detector's reach; `characters` is set for `bounded` only."""

    kind: ReachKind
    characters: int = 0


class Cost(StrEnum):
    """The order of magnitude of one call on 500 bytes, on one core."""

    MICROSECONDS = "microseconds"
    MILLISECONDS = "milliseconds"
    REMOTE = "remote"


class View(Protocol):
    """One reading of a text (folded, decoded, a segment), with a way back to the original."""

    @property
    def name(self) -> str:
        """`raw`, `folded`, `decoded:base64`, `segment:html_comment`, ..."""
        ...

    @property
    def text(self) -> str:
        """The characters of this reading."""
        ...

    def to_original(self, start: int, end: int) -> tuple[int, int]:
        """The half-open span of the original that made `text[start:end]`."""
        ...


class ViewSet(Protocol):
    """All readings of one text, made once and shared by all detectors."""

    @property
    def original(self) -> str:
        """The text as it came."""
        ...

    @property
    def views(self) -> Sequence[View]:
        """Every reading, `raw` first; readings equal to an earlier one are left out."""
        ...

    @property
    def signals(self) -> frozenset[str]:
        """Which transforms changed something (`zero_width`, `confusables`, `base64`, ...)."""
        ...

    @property
    def memo(self) -> dict[str, Any]:
        """Results that detectors share about this text, such as one scan of the automaton."""
        ...


class DetectorInput(msgspec.Struct, frozen=True, kw_only=True):
    """What a detector reads.

    `context` holds other texts that matter, by name: `system_prompt`, `documents`, `document_ids`,
    `question`, `canaries`.
    """

    view_set: Any  # a ViewSet; msgspec does not check protocols
    origin: Origin
    context: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    session_id: str = ""
    locale: str = ""

    @property
    def text(self) -> str:
        """The text as it came."""
        original: str = self.view_set.original
        return original


@runtime_checkable
class Detector(Protocol):
    """A pure function from views of a text to findings.

    A detector that loads or compiles something may have `prepare()`, also when it is an `AsyncDetector`. A
    guard calls it once when it is made, so that loading never counts against the deadline of a check; what it
    raises keeps the guard from being made.

    A class may say `is_pure = True` (not inherited): its findings follow from readings, origin and locale of
    a text alone. It is then given no more than these, and what it found in a text that comes again is
    remembered.

    A class may have an attribute `rules_out(view_set)` (not inherited): whether it is certain that nothing is
    found in the text, whatever its origin, locale and context. Detectors with the same object there share
    one look: it is asked once for all of them, and `detect` is not called where it says yes.
    """

    @property
    def id(self) -> str:
        """`secrets`, `pii`, `injection.linear`, ..."""
        ...

    @property
    def version(self) -> str:
        """Changes whenever a score may change: code version and data digest."""
        ...

    @property
    def categories(self) -> tuple[str, ...]:
        """The taxonomy ids it can report."""
        ...

    @property
    def reach(self) -> Reach:
        """How much text it must see."""
        ...

    @property
    def cost(self) -> Cost:
        """What a call costs."""
        ...

    def detect(self, detector_input: DetectorInput) -> Sequence[Finding]:
        """Findings in order of position; equal input gives equal findings."""
        ...


@runtime_checkable
class AsyncDetector(Protocol):
    """The twin for detectors that wait on the outside (an endpoint, a judge)."""

    @property
    def id(self) -> str:
        """See `Detector.id`."""
        ...

    @property
    def version(self) -> str:
        """See `Detector.version`."""
        ...

    @property
    def categories(self) -> tuple[str, ...]:
        """See `Detector.categories`."""
        ...

    @property
    def reach(self) -> Reach:
        """See `Detector.reach`."""
        ...

    @property
    def cost(self) -> Cost:
        """See `Detector.cost`."""
        ...

    async def adetect(self, detector_input: DetectorInput) -> Sequence[Finding]:
        """Findings in order of position."""
        ...
