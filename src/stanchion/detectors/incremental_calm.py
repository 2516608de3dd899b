"""Whether nothing can be found in any part of a text, wherever it is cut: then one look at it is enough.

The prefilter tells which patterns and triggers may be in some part. Where no decoder may start in a part,
what is folded character by character is folded alike in every part.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from stanchion.detectors.scan import Scanner
from stanchion.detectors.views import TextViewSet

# Kinds of characters that change how their neighbours are read, or are read by them.
_MOVING = frozenset({"Mn", "Mc", "Me", "Cc", "Cf", "Cs", "Co", "Cn", "Sk", "Lm", "Zl", "Zp"})
_JAMO = re.compile("[\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\ud7b0-\ud7ff\uffa0-\uffdc]")


POSSIBLE = "incremental.possible"  # under which a text's memo keeps `possible_in_parts`


def possible_in_parts(scanner: Scanner, view_set: TextViewSet) -> tuple[Scanner, frozenset[str] | None]:
    """The detectors that find something in a text, or may in some part of it; None where none can be told.

    With the scanner that was asked. Worked out once for each text.
    """
    possible: frozenset[str] | None = None
    scanner.prospect(view_set.raw)
    if scanner.rules_out(view_set):
        possible = scanner.untold
    else:
        hits = scanner.hits(view_set)
        if _reads_alike(scanner, view_set):
            seen = [scanner.prospect(view).detectors for view in view_set.readings]
            possible = scanner.untold.union([hit.pattern.detector for hit in hits], *seen)
    asked = view_set.memo[POSSIBLE] = scanner, possible
    return asked


def _reads_alike(scanner: Scanner, view_set: TextViewSet) -> bool:
    """Whether the readings of every part of the text are the same part of its readings, and no more.

    The scanner must have looked at the text, so that its triggers are known.
    """
    raw = view_set.raw
    if scanner.prospect(raw).is_triggered:
        return False
    if raw.text.isascii():
        return len(view_set.readings) == 1
    others = view_set.readings[1:]
    if any(view.family != "folded" for view in others):
        return False
    if not all(_stands_alone(character) for character in set(raw.text)):
        return False
    return not any(scanner.prospect(view).is_triggered for view in others)


@lru_cache(maxsize=65_536)
def _stands_alone(character: str) -> bool:
    """Whether a character is folded in the same way whatever stands beside it."""
    if character.isascii():
        return True
    if unicodedata.category(character) in _MOVING or _JAMO.match(character):
        return False
    return unicodedata.combining(unicodedata.normalize("NFKD", character)[0]) == 0
