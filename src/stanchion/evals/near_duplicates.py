"""Cases that say nearly the same: they make a sample look larger than it is.

Candidates by MinHash and banding, decided by the exact Jaccard similarity of word triples. Sources:
A. Broder, Compression and Complexity of Sequences (1997) 21-29; P. Indyk and R. Motwani, STOC (1998) 604-613.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import NamedTuple

_SHINGLE = 3
_BANDS = 16
_ROWS = 4
_MOST_IN_BUCKET = 50


class NearPair(NamedTuple):
    """Two cases whose word triples overlap by `similarity` (Jaccard, in [0, 1])."""

    first: str
    second: str
    similarity: float


def near_duplicates(texts: Iterable[tuple[str, str]], *, least: float = 0.85) -> list[NearPair]:
    """The pairs of (name, text) that are at least so similar, most similar first.

    Banding misses a pair at similarity s with probability (1 - s**4)**16: below 3e-6 at 0.85.
    """
    names: list[str] = []
    shingled: list[frozenset[int]] = []
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for number, (name, text) in enumerate(texts):
        names.append(name)
        shingles = shingles_of(text)
        shingled.append(shingles)
        for band, key in enumerate(_bands(shingles)):
            buckets[band, key].append(number)
    seen: set[tuple[int, int]] = set()
    pairs: list[NearPair] = []
    for members in buckets.values():
        for a, b in combinations(members[:_MOST_IN_BUCKET], 2):
            if (a, b) in seen:
                continue
            seen.add((a, b))
            similarity = jaccard(shingled[a], shingled[b])
            if similarity >= least:
                pairs.append(NearPair(names[a], names[b], similarity))
    return sorted(pairs, key=lambda pair: (-pair.similarity, pair.first, pair.second))


def shingles_of(text: str) -> frozenset[int]:
    """The hashes of all runs of three words, letters folded; of the whole text when it is shorter."""
    words = text.casefold().split()
    if len(words) <= _SHINGLE:
        return frozenset([zlib.crc32(" ".join(words).encode("utf-8", "surrogatepass"))])
    return frozenset(
        zlib.crc32(" ".join(words[i : i + _SHINGLE]).encode("utf-8", "surrogatepass"))
        for i in range(len(words) - _SHINGLE + 1)
    )


def jaccard(a: frozenset[int], b: frozenset[int]) -> float:
    """Shared over all."""
    both = len(a & b)
    return both / (len(a) + len(b) - both) if a or b else 1.0


def _bands(shingles: frozenset[int]) -> Iterator[bytes]:
    import numpy as np

    rng = np.random.default_rng(20261)
    count = _BANDS * _ROWS
    factors = rng.integers(1, 1 << 32, size=(count, 1), dtype=np.uint64) | np.uint64(1)
    offsets = rng.integers(0, 1 << 32, size=(count, 1), dtype=np.uint64)
    hashed = np.fromiter(shingles, dtype=np.uint64, count=len(shingles))
    lowest = ((hashed * factors + offsets) >> np.uint64(16)).astype(np.uint32).min(axis=1)
    for band in range(_BANDS):
        yield lowest[band * _ROWS : (band + 1) * _ROWS].tobytes()
