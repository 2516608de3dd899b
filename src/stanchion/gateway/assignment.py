"""Who gets which variant: by a hash of the sticky key, so that no state is needed and keys keep theirs.

A key is a point u in [0, 1). Each of k variants has a home, the k-th part of the line, and takes its weight
from the start of it; what does not fit at home is taken from the free ends of the other homes. Everything
else is control. So a change of a weight by d moves exactly the share d of the keys while no variant weighs
more than 1/k (for one canary: always), and none of them between two other variants.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Sequence

_RESOLUTION = 2**-64
_EPSILON = 1e-12


def point(salt: str, key: str) -> float:
    """The place of a key in [0, 1); independent for different salts (BLAKE2b, 64 bits)."""
    data = f"{len(salt)}:{salt}{key}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") * _RESOLUTION


class Line:
    """The line cut into variants; `find(u)` names the one at a point, or nothing for control."""

    def __init__(self, weights: Sequence[tuple[str, float]]) -> None:
        pieces = sorted(_pieces(weights))
        self._starts = [start for start, _, _ in pieces]
        self._pieces = pieces

    def find(self, u: float) -> str:
        """The variant at a point; empty for control."""
        index = bisect.bisect_right(self._starts, u) - 1
        if index < 0:
            return ""
        _, end, name = self._pieces[index]
        return name if u < end else ""

    def share(self, name: str) -> float:
        """The length of what a variant has."""
        return sum(end - start for start, end, owner in self._pieces if owner == name)


def _pieces(weights: Sequence[tuple[str, float]]) -> list[tuple[float, float, str]]:
    count = len(weights)
    pieces: list[tuple[float, float, str]] = []
    free: list[list[float]] = []
    over: list[tuple[str, float]] = []
    for index, (name, weight) in enumerate(weights):
        start, end = index / count, (index + 1) / count
        taken = min(max(0.0, weight), end - start)
        if taken:
            pieces.append((start, start + taken, name))
        free.append([start + taken, end])
        if weight - taken > _EPSILON:
            over.append((name, weight - taken))
    for name, rest in over:
        for gap in free:
            taken = min(rest, gap[1] - gap[0])
            if taken > _EPSILON:
                pieces.append((gap[1] - taken, gap[1], name))
                gap[1] -= taken
                rest -= taken
    return pieces
