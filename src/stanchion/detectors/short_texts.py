"""The highest logit of a short plain text, by the same n-grams as `hashing` and `classifier`, in fewer steps.

In a text of a hundred characters each step over an array costs about as much as the next, however little is
in it. So here letters are told apart by tables of bytes, all n-grams are mixed in one array, and no array
says where they stand: most short texts have one window. The numbers are whole and the sums exact, so the
logit is the one that the long way gives, to the last bit; a test compares them.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
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

Spans = Iterable[tuple[int, int]]


class _Constants(NamedTuple):
    """Arrays without dimensions: with them an operation starts sooner than with scalars."""

    rotors: Any  # of the shortest of `CHARACTER_ORDERS`
    longer: tuple[tuple[int, Any], ...]  # for each longer one, the place of its last letter, and its rotor
    first: Any
    second: Any
    finaliser: Any
    shifts: tuple[Any, Any, Any]
    sums: Callable[..., Any]


@lru_cache(maxsize=1)
def _constants() -> _Constants:
    import numpy as np

    def number(value: int) -> Any:
        return np.array(value, dtype=np.uint32)

    return _Constants(
        rotors=np.array(ROTORS[: CHARACTER_ORDERS[0]], dtype=np.uint32),
        longer=tuple([(order - 1, number(ROTORS[order - 1])) for order in CHARACTER_ORDERS[1:]]),
        first=number(ROTORS[0]),
        second=number(ROTORS[1]),
        finaliser=number(FINALISER),
        shifts=(number(15), number(13), number(32 - TABLE_BITS)),
        sums=np.add.reduceat,
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
    starts: list[int]  # of each word, in letters
    ends: list[int]


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
    if len(windows) == 1:
        characters = _characters(len(found.packed))
        sums = _constants().sums(weights, (0, characters), dtype="int64").tolist()
        total = sums[0] + WORD_FACTOR * sums[1]
        return weighing.value(total, weights.size)
    return max(_values(windows, found, weights, weighing))


def _letters_of(text: str) -> _Letters:
    spread = hashing.spread_letters(text)
    ends = list(accumulate(map(len, filter(None, spread.split(b"\0")))))
    return _Letters(spread, spread.translate(None, b"\0"), [0, *ends[:-1]], ends)


def _weights(found: _Letters, table: NDArray[np.int8]) -> NDArray[np.int8]:
    """The weights of all n-grams: of characters, order by order, then of words and of pairs of words."""
    import numpy as np

    made, words = _constants(), len(found.starts)
    letters = np.frombuffer(found.packed, np.uint8).astype(np.uint32)
    first = np.array(found.starts)
    powers, inverses = hashing.powers(letters.size)
    hashed = np.add.reduceat(letters * powers[: letters.size], first, dtype=np.uint32)
    hashed *= inverses.take(first)
    _mix(hashed, made)
    mixed = np.empty(_characters(letters.size) + 2 * words - 1, dtype=np.uint32)
    shorter, at = np.correlate(letters, made.rotors), 0
    for last, rotor in made.longer:
        end = at + shorter.size
        mixed[at:end] = shorter
        shorter, at = shorter[:-1] + letters[last:] * rotor, end
    end = at + shorter.size
    mixed[at:end], at = shorter, end
    single, pairs = mixed[at : at + words], mixed[at + words :]
    np.multiply(hashed, made.first, single)
    np.multiply(hashed[1:], made.second, pairs)
    pairs += single[:-1]
    _mix(mixed, made)
    mixed *= made.finaliser
    mixed >>= made.shifts[2]
    return table.take(mixed)


def _characters(letters: int) -> int:
    """How many n-grams of characters so many letters have."""
    return len(CHARACTER_ORDERS) * (letters + 1) - sum(CHARACTER_ORDERS)


def _mix(hashes: NDArray[np.uint32], made: _Constants) -> None:
    """As `hashing` does, in place."""
    hashes ^= hashes >> made.shifts[0]
    hashes *= made.finaliser
    hashes ^= hashes >> made.shifts[1]


def _values(
    windows: Spans, found: _Letters, weights: NDArray[np.int8], weighing: Weighing
) -> Iterator[float]:
    """The values of several windows, each a range of every family of n-grams."""
    running = weights.cumsum(dtype="int32").tolist()
    running.append(0)  # what comes before the first is the last
    count_of = found.spread.count
    characters, at = _families(CHARACTER_ORDERS, len(found.packed), -1)
    words, _ = _families(WORD_ORDERS, len(found.starts), at)
    for start, end in windows:
        first, last = start - count_of(0, 0, start), end - count_of(0, 0, end)
        total = count = 0
        for less, at in characters:
            if last - first > less:
                total += running[at + last - less] - running[at + first]
                count += last - first - less
        first, last = bisect_left(found.starts, first), bisect_right(found.ends, last)
        for less, at in words:
            if last - first > less:
                total += WORD_FACTOR * (running[at + last - less] - running[at + first])
                count += last - first - less
        yield weighing.value(total, count)


def _families(orders: Iterable[int], items: int, at: int) -> tuple[list[tuple[int, int]], int]:
    """For n-grams of each order: by how much they are fewer than their items, where they begin; the end."""
    families = []
    for order in orders:
        families.append((order - 1, at))
        at += items + 1 - order
    return families, at
