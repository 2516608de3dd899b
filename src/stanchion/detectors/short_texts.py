"""The highest logit of a short plain text, by the same n-grams as `hashing` and `classifier`, in fewer steps.

In a text of a hundred characters each step over an array costs about as much as the next, however little is
in it. So here letters are told apart by tables of bytes, all n-grams are mixed in one array, and no array
says where they stand: most short texts have one window. The numbers are whole and the sums exact, so the
logit is the one that the long way gives, to the last bit; a test compares them.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from stanchion.detectors import hashing
from stanchion.detectors.hashing import (
    CHARACTER_ORDERS,
    FINALISER,
    ROTORS,
    TABLE_BITS,
    WORD_FACTOR,
    WORD_ORDERS,
)
from stanchion.detectors.quotation import quotations

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LONGEST = 1024  # characters; a longer text has more windows than are worth looking at one by one
MOST_WINDOWS = 8
_FEWEST_LETTERS = CHARACTER_ORDERS[-1]

_WORD = re.compile(rb"[^\0]+")

Spans = Iterable[tuple[int, int]]


class _Constants(NamedTuple):
    rotors: tuple[Any, ...]  # for each of `CHARACTER_ORDERS`
    first: Any
    second: Any
    finaliser: Any
    shifts: tuple[Any, Any, Any]


@lru_cache(maxsize=1)
def _constants() -> _Constants:
    import numpy as np

    return _Constants(
        rotors=tuple(np.array(ROTORS[:order], dtype=np.uint32) for order in CHARACTER_ORDERS),
        first=np.uint32(ROTORS[0]),
        second=np.uint32(ROTORS[1]),
        finaliser=np.uint32(FINALISER),
        shifts=(np.uint32(15), np.uint32(13), np.uint32(32 - TABLE_BITS)),
    )


class Weighing(NamedTuple):
    """How a model weighs the n-grams of a window: `scale * sum of weights / sqrt(number + smoothing)`."""

    table: NDArray[np.int8]
    scale: float
    smoothing: int

    def value(self, total: int, count: int) -> float:
        """What a window amounts to."""
        return self.scale * total / math.sqrt(count + self.smoothing)


class _Letters(NamedTuple):
    """The letters of a text: `spread` has a 0 for all else, `packed` has the letters alone."""

    spread: bytes
    packed: bytes
    words: list[int]  # the length of each


def highest(text: str, spans: Spans, weighing: Weighing) -> float | None:
    """The highest value of the windows of an ASCII text.

    Minus infinity for a text without letters; None for one that only the long way can tell.
    """
    windows = set(spans)
    if len(windows) > MOST_WINDOWS or quotations(text, hashing.is_letter):
        return None
    found = _letters_of(text)
    if len(found.packed) < _FEWEST_LETTERS:
        return None if found.packed else -math.inf
    weights = _weights(found, weighing.table)
    characters = sum([len(found.packed) - order + 1 for order in CHARACTER_ORDERS])
    if len(windows) == 1:
        total = int(weights[:characters].sum(dtype="int64"))
        total += WORD_FACTOR * int(weights[characters:].sum(dtype="int64"))
        return weighing.value(total, weights.size)
    return max(_values(windows, found, weights, weighing))


def _letters_of(text: str) -> _Letters:
    spread = hashing.spread_letters(text)
    words = list(map(len, filter(None, spread.split(b"\0"))))
    return _Letters(spread, spread.translate(None, b"\0"), words)


def _weights(found: _Letters, table: NDArray[np.int8]) -> NDArray[np.int8]:
    """The weights of all n-grams: of characters, order by order, then of words and of pairs of words."""
    import numpy as np

    made, words = _constants(), len(found.words)
    letters = np.frombuffer(found.packed, np.uint8).astype(np.uint32)
    first = np.array([0, *accumulate(found.words[:-1])])
    powers, inverses = hashing.powers(letters.size)
    hashed = np.add.reduceat(letters * powers[: letters.size], first, dtype=np.uint32)
    hashed *= inverses.take(first)
    _mix(hashed)
    size = sum([letters.size - order + 1 for order in CHARACTER_ORDERS])
    mixed = np.empty(size + 2 * words - 1, dtype=np.uint32)
    at = 0
    for rotors in made.rotors:
        end = at + letters.size - rotors.size + 1
        mixed[at:end] = np.correlate(letters, rotors)
        at = end
    single, pairs = mixed[at : at + words], mixed[at + words :]
    np.multiply(hashed, made.first, out=single)
    np.multiply(hashed[1:], made.second, out=pairs)
    pairs += single[:-1]
    _mix(mixed)
    mixed *= made.finaliser
    mixed >>= made.shifts[2]
    return table.take(mixed)


def _mix(hashes: NDArray[np.uint32]) -> None:
    """As `hashing` does, in place."""
    made = _constants()
    hashes ^= hashes >> made.shifts[0]
    hashes *= made.finaliser
    hashes ^= hashes >> made.shifts[1]


def _values(
    windows: Spans, found: _Letters, weights: NDArray[np.int8], weighing: Weighing
) -> Iterator[float]:
    """The values of several windows, each a range of every family of n-grams."""
    running = [0, *weights.cumsum(dtype="int64").tolist()]
    count_of = found.spread.count
    characters = _families(CHARACTER_ORDERS, len(found.packed), 0)
    spans = [word.span() for word in _WORD.finditer(found.spread)]
    starts, ends = [span[0] for span in spans], [span[1] for span in spans]
    words = _families(WORD_ORDERS, len(spans), characters[-1][1] + characters[-1][2])
    for start, end in windows:
        first, last = start - count_of(0, 0, start), end - count_of(0, 0, end)
        total = count = 0
        for less, at, size in characters:
            low = min(first, size)
            high = max(last - less, low)
            total += running[at + high] - running[at + low]
            count += high - low
        first, last = bisect_left(starts, start), bisect_right(ends, end)
        for less, at, size in words:
            low = min(first, size)
            high = max(last - less, low)
            total += WORD_FACTOR * (running[at + high] - running[at + low])
            count += high - low
        yield weighing.value(total, count)


def _families(orders: Iterable[int], items: int, at: int) -> list[tuple[int, int, int]]:
    """For n-grams of each order: by how much they are fewer than their items, where they begin, how many."""
    families = []
    for order in orders:
        families.append((order - 1, at, items + 1 - order))
        at += items + 1 - order
    return families
