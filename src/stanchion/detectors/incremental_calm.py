"""Whether nothing can be found in any part of a text, wherever it is cut: then one look at it is enough.

An assertion (a word's end, the end of the text) can hold at a cut and not in the whole text. So patterns and
triggers are looked for with their assertions left out: what is not in the text so is in no part of it. A
decoder starts in no part then, and what is folded character by character is folded alike in every part.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cached_property, lru_cache, partial
from itertools import count
from typing import Any

from stanchion.detectors.patterns import Pattern
from stanchion.detectors.prefixes import UNREADABLE, without_places
from stanchion.detectors.scan import ON_DEMAND, Scanner
from stanchion.detectors.transforms.triggers import EXPRESSIONS, Trigger
from stanchion.detectors.views import TextViewSet

_NUMBERS = count()
_MEMORY = 64 << 20  # bytes for the states of one set of expressions
_PLACE = re.compile(rb"\(\?:\^\|(\[[^\]]*\])\)|\(\?:(\[[^\]]*\])\|\$\)|\\b")
_BACKWARDS = Trigger.REVERSED  # text that goes on is not read backwards
# Kinds of characters that change how their neighbours are read, or are read by them.
_MOVING = frozenset({"Mn", "Mc", "Me", "Cc", "Cf", "Cs", "Co", "Cn", "Sk", "Lm", "Zl", "Zp"})
_JAMO = re.compile("[\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\ud7b0-\ud7ff\uffa0-\uffdc]")


class Occurrence:
    """Says of which detectors a match may stand in any part of a text; one look for all detectors.

    Compiles at the first use; thread-safe.
    """

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self._patterns = tuple(patterns)
        self._key = f"incremental.occurrence:{next(_NUMBERS)}"

    @cached_property
    def _wide(self) -> tuple[Any, tuple[str, ...], frozenset[str]]:
        """The expressions without assertions, their detectors, and detectors of which one cannot be told."""
        wide, names, unknown = [], [], set(ON_DEMAND)
        for pattern in self._patterns:
            try:
                wide.append(without_places(pattern.pattern, pattern.flags).encode())
                names.append(pattern.detector)
            except UNREADABLE:
                unknown.add(pattern.detector)
        return (_compiled(wide) if wide else None), tuple(names), frozenset(unknown)

    def prepare(self) -> None:
        """Compile now what the first look would compile."""
        self._wide  # noqa: B018 - made by looking at it

    def detectors(self, view_set: TextViewSet) -> frozenset[str]:
        """The detectors of whose patterns one may match in some part of a reading; unknown counts as may."""
        found: frozenset[str] | None = view_set.memo.get(self._key)
        if found is None:
            compiled, names, unknown = self._wide
            views = view_set.readings if compiled is not None else ()
            seen = {names[index] for view in views for index in compiled.Match(view.data) or ()}
            found = view_set.memo[self._key] = unknown | seen
        return found


@lru_cache(maxsize=8)
def occurrence_of(scanner: Scanner) -> Occurrence:
    """That of a scanner's patterns, without those that are looked for on demand."""
    return Occurrence([pattern for pattern in scanner.patterns if pattern.detector not in ON_DEMAND])


POSSIBLE = "incremental.possible"  # under which a text's memo keeps `possible_in_parts`


def possible_in_parts(scanner: Scanner, view_set: TextViewSet) -> tuple[Scanner, frozenset[str] | None]:
    """The detectors that find something in a text, or may in some part of it; None where none can be told.

    With the scanner that was asked. Worked out once for each text.
    """
    found = {hit.pattern.detector for hit in scanner.hits(view_set)}
    is_alike = reads_alike(view_set)
    possible = occurrence_of(scanner).detectors(view_set).union(found) if is_alike else None
    asked = view_set.memo[POSSIBLE] = scanner, possible
    return asked


def reads_alike(view_set: TextViewSet) -> bool:
    """Whether the readings of every part of the text are the same part of its readings, and no more.

    The scanner must have looked at the text, so that its triggers are known. Answered once for each text.
    """
    found: bool | None = view_set.memo.get("incremental.alike")
    if found is None:
        found = view_set.memo["incremental.alike"] = _reads_alike(view_set)
    return found


def _reads_alike(view_set: TextViewSet) -> bool:
    raw = view_set.raw
    if (raw.triggers and raw.triggers & ~_BACKWARDS) or _may_be_triggered(raw.data):
        return False
    if raw.text.isascii():
        return len(view_set.readings) == 1
    others = view_set.readings[1:]
    if any(view.family != "folded" for view in others):
        return False
    if not all(_stands_alone(character) for character in set(raw.text)):
        return False
    return not any(view.triggers & ~_BACKWARDS or _may_be_triggered(view.data) for view in others)


@lru_cache(maxsize=65_536)
def _stands_alone(character: str) -> bool:
    """Whether a character is folded in the same way whatever stands beside it."""
    if character.isascii():
        return True
    if unicodedata.category(character) in _MOVING or _JAMO.match(character):
        return False
    return unicodedata.combining(unicodedata.normalize("NFKD", character)[0]) == 0


def _may_be_triggered(data: bytes) -> bool:
    """Whether a cut at one side could make a trigger of what is none in the whole text."""
    return bool(_cut_triggers().Match(data))


@lru_cache(maxsize=1)
def _cut_triggers() -> Any:
    """The triggers with assertions, as they are behind a cut and as they are in front of one."""
    made = []
    for trigger, pattern in EXPRESSIONS:
        if trigger is _BACKWARDS:
            continue
        for removed in (1, 2):  # the assertion at the left is left out, or the one at the right
            cut = _PLACE.sub(partial(_kept, removed=removed), pattern)
            if cut != pattern:
                made.append(cut)
    return _compiled(made)


def _kept(place: re.Match[bytes], removed: int) -> bytes:
    return b"" if place[removed] or place[0] == rb"\b" else place[0]


def _compiled(expressions: Sequence[bytes]) -> Any:
    import re2

    options = re2.Options()
    options.max_mem = _MEMORY
    options.log_errors = False
    compiled = re2.Set.SearchSet(options)
    for expression in expressions:
        compiled.Add(expression)
    compiled.Compile()
    return compiled
