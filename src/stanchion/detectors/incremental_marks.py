"""Where a planted mark may have begun at the end of a text that goes on, in any writing that is looked for.

A mark's letters may stand apart; here they do so by at most `WIDEST_GAP` other characters, so that one letter
does not hold a text back for ever.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from stanchion.detectors import canaries

WIDEST_GAP = 16
_ROOM = 400  # characters at the end that a begun mark may take, gaps included
_URL_SAFE = str.maketrans("-_", "+/")


def begun_mark(text: str, marks: Sequence[str]) -> int:
    """The first character that a mark which goes on behind the end may include; the length when none does."""
    first = len(text)
    if not marks:
        return first
    tail = text[-_ROOM:]
    base = len(text) - len(tail)
    alone = [_Sign(_folded(c), i, i + 1) for i, c in enumerate(tail) if c.isalnum()]
    visible = [_Sign(_folded(c), i, i + 1) for i, c in enumerate(tail) if not c.isspace()]
    codes = [_Sign(c, place, place + 2) for c, place in zip(*canaries.numbers_of(tail), strict=True)]
    for mark in marks:
        letters, encoded, spelled = _writings(mark)
        places = (
            _begun(alone, letters, len(tail)),
            _begun(visible, encoded, len(tail)),
            _begun(codes, spelled, len(tail)),
        )
        first = min(first, base + min(places))
    return first


class _Sign(NamedTuple):
    """One sign of a writing as it is compared, and its place."""

    sign: str
    start: int
    end: int


def _begun(signs: Sequence[_Sign], writings: str, end: int) -> int:
    """Where the longest row of last signs begins that stands somewhere in `writings`."""
    found = ""
    start = end
    for sign, place, last in reversed(signs):
        if start - last > WIDEST_GAP or sign + found not in writings:
            break
        found = sign + found
        start = place
    return start


def _folded(character: str) -> str:
    return character.lower()[:1].translate(_URL_SAFE)


@lru_cache(maxsize=256)
def _writings(mark: str) -> tuple[str, str, str]:
    """The writings of a mark by what they are made of: letters, anything but spaces, numbers."""
    body = canaries.letters_of(mark)[0]
    plain = (body, body[::-1], codecs.encode(body, "rot13"), body.encode().hex())
    encoded = (writing.lower().translate(_URL_SAFE) for _, writing in canaries.encodings_of(mark))
    return "\0".join(plain), "\0".join(encoded), mark.lower()
