"""`obfuscation`: text that was written so as not to be read, and text that could not be read to its end.

The views tell what they undid (signals) and where they gave up (notices). A disguise alone is no attack, so
most of them are for the record; what was hidden in characters that nobody sees is nearly always meant ill.
Text beyond a limit was not checked, whatever the reason, and a policy should not let it pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from stanchion.core.finding import Cost, DetectorInput, Finding, Location, Reach, ReachKind, Severity
from stanchion.detectors.scan import Look, Scanner
from stanchion.detectors.views import Notice, TextViewSet

ID = "obfuscation"
CODE_VERSION = 1

_DISGUISE, _LIMIT = "injection.obfuscation", "input.limit"
_MANY_LAYERS = 2  # one layer of encoding is ordinary: a link, a field of JSON
_MUCH = 0.5  # of a text in code or pulled apart


class _Sign(NamedTuple):
    score: float
    severity: Severity
    reason: str


# What the views undid, where hardly anybody writes so by accident.
_SIGNS = {
    "selector_text": _Sign(0.9, Severity.HIGH, "words in the bytes of variation selectors"),
    "confusables": _Sign(0.5, Severity.LOW, "letters of other alphabets inside Latin words"),
    "marks": _Sign(0.4, Severity.LOW, "three or more marks on one letter"),
    "reversed": _Sign(0.5, Severity.LOW, "words written backwards"),
}
_LAYERED = _Sign(0.6, Severity.MEDIUM, "text encoded more than once")
_APART = _Sign(0.5, Severity.LOW, "most words pulled apart or spelled with digits")
_OPAQUE = _Sign(0.3, Severity.INFO, "a long run that does not decode to text")

# Where the views gave up: what is beyond was not checked.
_UNREAD = {
    "unfold_limit": "the text is too long to be unfolded",
    "oversize_run": "an encoded run is too long to be decoded",
    "decode_depth": "there are too many layers of encoding",
    "view_limit": "the text can be read in too many ways",
    "match_limit": "a pattern matches too often",
}
_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{4,}")


class ObfuscationDetector:
    """Reports disguises as `injection.obfuscation` and text that was not checked as `input.limit`.

    A text can be past the limits of other detectors' automata (`refusal`): their notices are reported only if
    they looked at it before.
    """

    id = ID
    version = f"{CODE_VERSION}"
    categories = (_LIMIT, _DISGUISE)
    reach = Reach(ReachKind.MESSAGE)
    cost = Cost.MICROSECONDS
    is_pure = True

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner

    @property
    def rules_out(self) -> Look | None:
        """What rules a text out, for all that is told by hits."""
        return self._scanner.shared_look(ID)

    def detect(self, detector_input: DetectorInput) -> Sequence[Finding]:
        """Findings by position; of the text as a whole where the disguise has no place of its own."""
        view_set: TextViewSet = detector_input.view_set
        self._scanner.hits(view_set)  # a limit may be met while the patterns are looked for
        if not view_set.signals:
            return ()
        found = [*_disguises(view_set), *map(self._unread, _beyond(view_set.notices))]
        return sorted(found, key=lambda f: (f.location.start, f.location.end, f.rule))

    def _unread(self, notice: Notice) -> Finding:
        return Finding(
            detector=ID,
            version=self.version,
            category=_LIMIT,
            score=1.0,
            location=Location(start=notice.start, end=notice.end),
            severity=Severity.HIGH,
            rule=f"obfuscation.{notice.signal}",
            reason=f"not checked: {_UNREAD[notice.signal]}",
        )


def _beyond(notices: Sequence[Notice]) -> Iterator[Notice]:
    """The first notice of each kind that means that text was not checked."""
    seen: set[str] = set()
    for notice in notices:
        if notice.signal in _UNREAD and notice.signal not in seen:
            seen.add(notice.signal)
            yield notice


def _disguises(view_set: TextViewSet) -> Iterator[Finding]:
    signals = view_set.signals
    for signal, sign in _SIGNS.items():
        if signal in signals:
            yield _disguise(signal, sign, _place(view_set, signal))
    if any(len(view.name.split(">")) >= _MANY_LAYERS and _is_code(view.name) for view in view_set.readings):
        yield _disguise("layers", _LAYERED, (0, len(view_set.original)))
    if any(view.apart >= _MUCH for view in view_set.readings):
        yield _disguise("apart", _APART, (0, len(view_set.original)))
    for notice in view_set.notices:
        if notice.signal == "opaque_run":
            yield _disguise("opaque_run", _OPAQUE, (notice.start, notice.end))
            break


def _is_code(name: str) -> bool:
    """Whether a reading came out of two encodings; escapes in a string in a string are no disguise."""
    family, _, how = name.partition(":")
    return family == "decoded" and how.split(">").count("escape") < len(how.split(">")) - 1


def _place(view_set: TextViewSet, signal: str) -> tuple[int, int]:
    if signal == "selector_text":
        places = [match.span() for match in _SELECTORS.finditer(view_set.original)]
        if places:
            return places[0][0], places[-1][1]
    return 0, len(view_set.original)


def _disguise(name: str, sign: _Sign, place: tuple[int, int]) -> Finding:
    return Finding(
        detector=ID,
        version=ObfuscationDetector.version,
        category=_DISGUISE,
        score=sign.score,
        location=Location(start=place[0], end=place[1]),
        severity=sign.severity,
        rule=f"obfuscation.{name}",
        reason=sign.reason,
    )


def create(*, scanner: Scanner) -> ObfuscationDetector:
    """The detector; the scanner's patterns are looked for first, since that can meet a limit."""
    return ObfuscationDetector(scanner)
