"""Hashed n-grams of a text, without a loop over n-grams: what the linear models read.

Letters only: a code point is a letter, a number (a run of digits counts as one digit) or nothing. Two kinds
of n-grams come out of it: character 4- and 5-grams across word boundaries (so that `i g n o r e` and `ignore`
look alike), and single words and pairs of words; a word that is quoted counts once more as such. A character
of a script that is written without spaces is a word of its own. Everything is integer arithmetic modulo 2**32
on tables of assigned characters whose case and decomposition the Unicode standard has frozen, so a text has
the same n-grams on every platform and with every version of Python.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from stanchion.detectors.quotation import quotations

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Indices = NDArray[np.intp]
    Hashes = NDArray[np.uint32]

FEATURE_VERSION = 1
TABLE_BITS = 20
CHARACTER_ORDERS = (4, 5)
WORD_ORDERS = (1, 2)
WORD_FACTOR = 3  # how much more a word or a pair of words counts than a character n-gram
QUOTED_ORDERS = (1, 1)  # each quoted word again, and the fact that there is one
_FAMILIES = len(CHARACTER_ORDERS) + len(WORD_ORDERS) + len(QUOTED_ORDERS)

_TABLE_SIZE = 0x20000  # code points above are read as the last one
_LAST_POINT = _TABLE_SIZE - 1
_BLOCK = 1 << 13
_SHORTEST_POWERS = 12  # bits: of texts up to so many letters one table of powers is kept
_DIGIT = 0x30
_DIGITS = re.compile(rb"00+")
_MULTIPLIER = 0x01000193  # odd, so that it has an inverse modulo 2**32
ROTORS = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1)
FINALISER = 0x2C1B3C6D
_QUOTED = 0x5A17C0DE
_DIGIT_RANGES = (
    (0x30, 0x3A), (0x660, 0x66A), (0x6F0, 0x6FA), (0x966, 0x970), (0x9E6, 0x9F0), (0xE50, 0xE5A),
)  # fmt: skip
_NOT_LETTERS = (
    (0x00, 0x30), (0x3A, 0x41), (0x5B, 0x61), (0x7B, 0xAA), (0xAB, 0xB5),
    (0xB6, 0xBA), (0xBB, 0xC0), (0xD7, 0xD8), (0xF7, 0xF8), (0x2B9, 0x370),
    (0x37E, 0x37F), (0x387, 0x388), (0x55A, 0x560), (0x589, 0x591), (0x5BE, 0x5BF),
    (0x600, 0x610), (0x61B, 0x620), (0x66A, 0x66E), (0x6D4, 0x6D5), (0x964, 0x966),
    (0x970, 0x971), (0xE3F, 0xE40), (0xE4F, 0xE50), (0xE5A, 0xE5C), (0x2000, 0x2071),
    (0x207A, 0x207F), (0x208A, 0x2090), (0x20A0, 0x2100), (0x2190, 0x2C00), (0x2E00, 0x2E80),
    (0x2FF0, 0x3005), (0x3008, 0x3021), (0x3030, 0x3031), (0x303D, 0x3041), (0x3099, 0x309D),
    (0x30A0, 0x30A1), (0x30FB, 0x30FC), (0xD800, 0xF900), (0xFE00, 0xFE70), (0xFEFF, 0xFF10),
    (0xFF1A, 0xFF21), (0xFF3B, 0xFF41), (0xFF5B, 0xFF66), (0xFFE0, 0x10000), (0x1F000, 0x20000),
)  # fmt: skip
_CASED = ((0x41, 0x5B), (0xC0, 0x250), (0x370, 0x588), (0x1E00, 0x2000))  # lower case, without marks
_WITHOUT_SPACES = ((0x2E80, 0x2FE0), (0x3005, 0xA4D0), (0xF900, 0xFB00), (0x1FFFF, 0x20000))


class Grams(NamedTuple):
    """All n-grams of a text, as the places of their first and last letter or word.

    `buckets` holds one family after the other: for each of `CHARACTER_ORDERS`, then for each of
    `WORD_ORDERS`, the n-gram that starts at the first letter (word), at the second, and so on; then, for each
    of `QUOTED_ORDERS`, one entry for every quoted word.
    """

    letters: Indices  # offset of each letter in the text
    word_starts: Indices
    word_ends: Indices  # half-open
    quoted_starts: Indices  # of the words that are quoted
    quoted_ends: Indices
    buckets: Hashes  # each in range(2 ** TABLE_BITS)
    family_starts: tuple[int, ...]  # where each family starts in `buckets`


class _Tables(NamedTuple):
    letters: Hashes  # code point -> what it is hashed as; 0: not a letter
    alone: NDArray[np.bool_]  # code point -> whether it is a word of its own


@lru_cache(maxsize=1)
def _tables() -> _Tables:
    import numpy as np

    letters = np.arange(_TABLE_SIZE, dtype=np.uint32)
    for low, high in _CASED:
        for point in range(low, high):
            letters[point] = ord(unicodedata.normalize("NFD", chr(point).lower())[0])
    for low, high in _NOT_LETTERS:
        letters[low:high] = 0
    for low, high in _DIGIT_RANGES:
        letters[low:high] = _DIGIT
    letters[_LAST_POINT] = _LAST_POINT
    alone = np.zeros(_TABLE_SIZE, dtype=np.bool_)
    for low, high in _WITHOUT_SPACES:
        alone[low:high] = True
    return _Tables(letters, alone)


@lru_cache(maxsize=8)
def _powers(size: int) -> tuple[Hashes, Hashes]:
    """Powers of the multiplier and of its inverse modulo 2**32: `size` of each."""
    import numpy as np

    both: list[Hashes] = []
    for base in (_MULTIPLIER, pow(_MULTIPLIER, -1, 1 << 32)):
        factors = np.full(size, base, dtype=np.uint32)
        factors[0] = 1
        both.append(np.multiply.accumulate(factors, dtype=np.uint32))
    return both[0], both[1]


def prepare() -> None:
    """Make the tables that the first text would make: tens of milliseconds."""
    n_grams(" ")
    powers(1)


def powers(size: int) -> tuple[Hashes, Hashes]:
    """Powers of the multiplier and of its inverse modulo 2**32: at least `size` of each."""
    return _powers(1 << max(_SHORTEST_POWERS, (size - 1).bit_length()))


def n_grams(text: str) -> Grams:
    """All n-grams of a text that is already folded; ASCII case is folded here too.

    Any string will do; lone surrogates are read as non-letters. Time and memory are linear in the length.
    """
    import numpy as np

    if text.isascii():
        spread = np.frombuffer(spread_letters(text), np.uint8)
        positions = spread.view(np.bool_).nonzero()[0]
        letters, is_alone = spread.take(positions).astype(np.uint32), None
    else:
        positions, letters, is_alone = _letters_of(text)
    words, starts, ends = _words(letters, positions, is_alone)
    hashes = [*_joined(letters, CHARACTER_ORDERS), *_joined(words, WORD_ORDERS)]
    quoted_starts = quoted_ends = starts[:0]
    is_quoted = _quoted(text, starts)
    if is_quoted is not None:
        again = words[is_quoted] ^ np.uint32(_QUOTED)
        hashes += [again, np.full(again.size, _QUOTED, dtype=np.uint32)]
        quoted_starts, quoted_ends = starts[is_quoted], ends[is_quoted]
    buckets = _mixed(np.concatenate(hashes))
    buckets *= np.uint32(FINALISER)
    buckets >>= np.uint32(32 - TABLE_BITS)
    sizes = (0, *(part.size for part in hashes), *(0,) * (_FAMILIES - len(hashes)))
    return Grams(positions, starts, ends, quoted_starts, quoted_ends, buckets, tuple(accumulate(sizes[:-1])))


def spread_letters(text: str) -> bytes:
    """What each character of an ASCII text is hashed as; 0: not a letter, or not the first digit of a run."""
    spread = text.encode("ascii").translate(_ascii_letters())
    return _DIGITS.sub(_one_digit, spread) if b"00" in spread else spread


def _one_digit(run: re.Match[bytes]) -> bytes:
    return b"0" + bytes(run.end() - run.start() - 1)


@lru_cache(maxsize=1)
def _ascii_letters() -> bytes:
    return bytes(_tables().letters[:128].tolist()) + bytes(128)


def _letters_of(text: str) -> tuple[Indices, Hashes, NDArray[np.bool_]]:
    """The letters of any text: where they stand, what they are hashed as, which are words of their own."""
    import numpy as np

    tables = _tables()
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    values = tables.letters.take(np.minimum(points, _LAST_POINT))
    is_digit = values == _DIGIT
    values[1:][is_digit[1:] & is_digit[:-1]] = 0
    positions = (values != 0).nonzero()[0]
    letters = values.take(positions)
    return positions, letters, tables.alone.take(letters)


def shared_n_grams(memo: dict[str, Any], name: str, text: str) -> Grams:
    """The n-grams of a text, made once for all detectors that read it.

    `memo` is that of the text's `ViewSet`; `name` tells its texts apart (the view, and where in it).
    """
    key = f"n_grams:{name}"
    found: Grams | None = memo.get(key)
    if found is None:
        found = memo[key] = n_grams(text)
    return found


def _quoted(text: str, starts: Indices) -> NDArray[np.bool_] | None:
    """Whether each word starts inside a quotation; None when there is none."""
    import numpy as np

    spans = quotations(text, is_letter)
    if not spans:
        return None
    opened, closed = np.array(spans).T
    return np.searchsorted(opened, starts, side="right") > np.searchsorted(closed, starts, side="right")


@lru_cache(maxsize=1024)
def is_letter(character: str) -> bool:
    """Whether a character is a letter or a digit of an n-gram."""
    return bool(_tables().letters[min(ord(character), _LAST_POINT)])


def _words(
    letters: Hashes, positions: Indices, is_alone: NDArray[np.bool_] | None
) -> tuple[Hashes, Indices, Indices]:
    """Hash, start and end of every word.

    The hash of a word is the sum of letter * multiplier**place modulo 2**32, taken as the difference of two
    running sums, divided by the power of its first place.
    """
    import numpy as np

    size = letters.size
    if size == 0:
        return letters, positions, positions
    is_first = np.empty(size, dtype=np.bool_)
    is_first[0] = True
    np.not_equal(positions[1:] - positions[:-1], 1, out=is_first[1:])
    if is_alone is not None and is_alone.any():
        is_first |= is_alone
        is_first[1:] |= is_alone[:-1]
    first = is_first.nonzero()[0]
    last = np.empty_like(first)
    last[:-1] = first[1:] - 1
    last[-1] = size - 1
    factors, inverses = powers(size)
    sums = np.empty(size + 1, dtype=np.uint32)
    sums[0] = 0
    np.cumsum(letters * factors[:size], out=sums[1:])
    words = _mixed((sums.take(last + 1) - sums.take(first)) * inverses.take(first))
    return words, positions.take(first), positions.take(last) + 1


def _joined(values: Hashes, orders: tuple[int, ...]) -> list[Hashes]:
    """For each order, one hash for every so many neighbours; a longer run extends the hash of the shorter."""
    found = []
    hashes = values * ROTORS[0]
    for order in range(2, orders[-1] + 1):
        more = values[order - 1 :] * ROTORS[order - 1]
        if order - 1 in orders:
            found.append(hashes)
            hashes = hashes[:-1] + more
        else:
            hashes = hashes[:-1]
            hashes += more
    found.append(hashes)
    return found


def _mixed(hashes: Hashes) -> Hashes:
    """The hashes themselves, mixed in place."""
    import numpy as np

    # block by block: what is made on the way stays in the processor's cache
    for start in range(0, hashes.size, _BLOCK):
        block = hashes[start : start + _BLOCK]
        block ^= block >> np.uint32(15)
        block *= np.uint32(FINALISER)
        block ^= block >> np.uint32(13)
    return hashes
