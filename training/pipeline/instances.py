"""From rows to window features: the same views, n-grams and windows that the packaged detector uses."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from pipeline.rows import Row
from stanchion.detectors.classifier import SMOOTHING, gram_ranges, windows_of
from stanchion.detectors.hashing import CHARACTER_ORDERS, TABLE_BITS, WORD_FACTOR, n_grams
from stanchion.detectors.linear import readings, text_allowance
from stanchion.detectors.views import build_views

LONGEST = 12_000
MOST_READINGS = 4


@dataclass(frozen=True)
class Bags:
    """The windows of some rows: features, the row of each, and which are about the longest of their reading.

    `allowed` is how much more a window of a long reading must have, as in the detector.
    """

    features: sparse.csr_matrix
    owners: np.ndarray
    is_whole: np.ndarray
    allowed: np.ndarray
    rows: int

    def best(self, logits: np.ndarray) -> np.ndarray:
        """The highest logit of each row."""
        found = np.full(self.rows, -30.0)
        np.maximum.at(found, self.owners, logits - self.allowed)
        return found

    def subset(self, rows: np.ndarray) -> Bags:
        """The bags of some rows (a mask), numbered anew."""
        windows = rows[self.owners]
        numbers = np.cumsum(rows) - 1
        return Bags(
            self.features[windows],
            numbers[self.owners[windows]],
            self.is_whole[windows],
            self.allowed[windows],
            int(rows.sum()),
        )


def texts_of(text: str) -> list[str]:
    """The readings that the detector scores: the text without disguise, then what was hidden in it."""
    found = [view.text for view in readings(build_views(text))]
    return list(dict.fromkeys(found[:MOST_READINGS])) or [text]


def bags(rows: Sequence[Row], *, most_windows: int, seed: int = 11) -> Bags:
    """The windows of all readings of each row; of a reading with more than `most_windows` a choice.

    The long windows are always among them, the others are drawn.
    """
    columns: list[np.ndarray] = []
    factors: list[np.ndarray] = []
    owners: list[int] = []
    is_whole: list[bool] = []
    allowed: list[float] = []
    for number, row in enumerate(rows):
        # Drawn by the text, so that rows may be read in any parts.
        rng = np.random.default_rng((seed, zlib.crc32(row.text.encode("utf-8", "surrogatepass"))))
        for text in texts_of(row.text[:LONGEST]):
            grams = n_grams(text)
            windows = windows_of(text)
            low, high = gram_ranges(grams, windows)
            sizes = (high - low).sum(axis=0)
            whole = sizes >= sizes.max() * 0.9
            for window in _chosen(sizes, whole, most_windows, rng):
                parts = [grams.buckets[a:b] for a, b in zip(low[:, window], high[:, window], strict=True)]
                columns.append(np.concatenate(parts).astype(np.int32))
                factors.append(np.ones(columns[-1].size, dtype=np.int8))
                factors[-1][sum(part.size for part in parts[: len(CHARACTER_ORDERS)]) :] = WORD_FACTOR
                owners.append(number)
                is_whole.append(bool(whole[window]))
                allowed.append(text_allowance(len(text)))
    return Bags(_matrix(columns, factors), np.array(owners), np.array(is_whole), np.array(allowed), len(rows))


def joined(parts: Sequence[Bags]) -> Bags:
    """The bags of several parts of the rows, numbered on."""
    starts = np.cumsum([0, *(part.rows for part in parts)])
    return Bags(
        sparse.vstack([part.features for part in parts], format="csr"),
        np.concatenate([part.owners + start for part, start in zip(parts, starts, strict=False)]),
        np.concatenate([part.is_whole for part in parts]),
        np.concatenate([part.allowed for part in parts]),
        int(starts[-1]),
    )


def _chosen(sizes: np.ndarray, whole: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    chosen = np.flatnonzero((sizes > 0) | whole)
    if chosen.size <= most:
        return chosen
    others = chosen[~whole[chosen]]
    keep = max(most - int(whole.sum()), 0)
    return np.concatenate([np.flatnonzero(whole)[:most], rng.permutation(others)[:keep]])


def _matrix(columns: Sequence[np.ndarray], factors: Sequence[np.ndarray]) -> sparse.csr_matrix:
    sizes = np.array([found.size for found in columns])
    values = np.repeat((1.0 / np.sqrt(sizes + SMOOTHING)).astype(np.float32), sizes)
    values *= np.concatenate(factors)
    pointers = np.concatenate([[0], np.cumsum(sizes)])
    matrix = sparse.csr_matrix(
        (values, np.concatenate(columns), pointers), shape=(len(columns), 1 << TABLE_BITS)
    )
    matrix.sum_duplicates()
    return matrix
