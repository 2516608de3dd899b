"""Features, fit and quantisation of the content model: one logistic output for each category."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.optimize import minimize

from content.corpus import HEADS, ContentRow
from stanchion.detectors.classifier import SMOOTHING, WORD_FACTOR, gram_ranges, windows_of
from stanchion.detectors.content_model import BUCKET_BITS
from stanchion.detectors.hashing import CHARACTER_ORDERS, TABLE_BITS, n_grams
from stanchion.detectors.linear import readings
from stanchion.detectors.views import build_views

LONGEST = 4_000
MOST_WINDOWS = 2  # of a harmless text, beside the whole
STRENGTH = 0.06  # of the L2 penalty, as a share of the loss of 10,000 rows
ITERATIONS = 60


@dataclass(frozen=True)
class Windowed:
    """Features of windows, and the row of each."""

    features: sparse.csr_matrix
    owners: np.ndarray


def emphasis(row: ContentRow) -> float:
    """How much more or less a row counts than the size of its source says."""
    if row.source == "hatemoji_build":
        return 0.25  # its labels hang on emoji, which are no features
    if row.source in {"made:about", "made:act_about"}:
        return 0.2
    if row.source.startswith("made:") and row.language != "en":
        return 0.4
    if row.source in {"advbench", "catqa"}:
        return 3.0  # written by others, for other ends
    if row.source == "made:chat":
        return 2.0
    return 1.0


def plain(text: str) -> str:
    """The text without disguise, as the detector reads it; nothing is decoded."""
    view_set = build_views(text)
    return next((view.text for view in readings(view_set) if view.family != "decoded"), text)


def windowed(rows: Sequence[ContentRow], *, seed: int = 5) -> Windowed:
    """Harmful texts whole; harmless ones whole and in some windows, since the worst window decides."""
    rng = np.random.default_rng(seed)
    columns: list[np.ndarray] = []
    factors: list[np.ndarray] = []
    owners: list[int] = []
    for number, row in enumerate(rows):
        text = plain(row.text[:LONGEST])
        grams = n_grams(text)
        low, high = gram_ranges(grams, windows_of(text))
        sizes = (high - low).sum(axis=0)
        chosen = [int(sizes.argmax())]
        if not row.label and sizes.size > 1:
            others = np.flatnonzero(sizes > 0)
            chosen += [int(w) for w in rng.permutation(others)[:MOST_WINDOWS] if w != chosen[0]]
        for window in chosen:
            parts = [grams.buckets[a:b] for a, b in zip(low[:, window], high[:, window], strict=True)]
            found = np.concatenate(parts) >> (TABLE_BITS - BUCKET_BITS)
            weights = np.ones(found.size, dtype=np.float32)
            weights[sum(part.size for part in parts[: len(CHARACTER_ORDERS)]) :] = WORD_FACTOR
            columns.append(found.astype(np.int32))
            factors.append(weights / np.float32(np.sqrt(found.size + SMOOTHING)))
            owners.append(number)
    pointers = np.concatenate([[0], np.cumsum([found.size for found in columns])])
    matrix = sparse.csr_matrix(
        (np.concatenate(factors), np.concatenate(columns), pointers),
        shape=(len(columns), 1 << BUCKET_BITS),
    )
    matrix.sum_duplicates()
    return Windowed(matrix, np.array(owners))


def targets(rows: Sequence[ContentRow], heads: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Labels in {-1, 1} and weights of shape (rows, heads); a weight of 0 is "not known".

    Harmful rows of a head weigh half as much as harmless ones; within each, sources and languages by the
    inverse root of their size, times `emphasis`.
    """
    labels = np.array([[1.0 if head in row.positive else -1.0 for head in heads] for row in rows])
    known = np.array([[0.0 if head in row.unknown else 1.0 for head in heads] for row in rows])
    names = [(row.source, row.language, row.label) for row in rows]
    emphases = np.array([emphasis(row) for row in rows])
    weights = np.empty_like(labels)
    for column in range(len(heads)):
        sizes = Counter(n for n, k in zip(names, known[:, column], strict=True) if k)
        own = np.array([sizes[n] ** -0.5 if sizes[n] else 0.0 for n in names]) * known[:, column] * emphases
        for label, share in ((1.0, 0.5), (-1.0, 1.0)):
            chosen = labels[:, column] == label
            own[chosen] *= share * 10_000 / max(own[chosen].sum(), 1e-9)
        weights[:, column] = own
    return labels.astype(np.float32), weights.astype(np.float32)


def fit(
    windows: Windowed, rows: Sequence[ContentRow], heads: Sequence[str] = HEADS
) -> tuple[np.ndarray, np.ndarray]:
    """Weights of shape (buckets, heads) and biases; the heads are independent of one another."""
    labels, weights = targets(rows, heads)
    shares = np.bincount(windows.owners, minlength=len(rows)).astype(np.float32)
    features = windows.features.astype(np.float32)
    transposed = features.T.tocsr()
    tables, biases = [], []
    for column in range(len(heads)):
        y = labels[windows.owners, column]
        w = weights[windows.owners, column] / shares[windows.owners]
        table, bias = _regression(features, transposed, y, w)
        tables.append(table)
        biases.append(bias)
    return np.stack(tables, axis=1), np.array(biases)


def _regression(
    features: sparse.csr_matrix, transposed: sparse.csr_matrix, y: np.ndarray, w: np.ndarray
) -> tuple[np.ndarray, float]:
    size = features.shape[1]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        table, bias = flat[:size].astype(np.float32), np.float32(flat[size])
        margins = y * (features @ table + bias)
        penalty = 0.5 * STRENGTH * float((table**2).sum(dtype=np.float64))
        value = float((w * np.logaddexp(0.0, -margins)).sum(dtype=np.float64)) + penalty
        slope = -w * y / (1.0 + np.exp(np.clip(margins, -50, 50)))
        gradient = transposed @ slope + np.float32(STRENGTH) * table
        return value, np.concatenate([gradient, [slope.sum()]]).astype(np.float64)

    options = {"maxiter": ITERATIONS, "maxcor": 6}
    found = minimize(loss, np.zeros(size + 1), jac=True, method="L-BFGS-B", options=options).x
    return found[:size], float(found[size])


def quantised(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers in [-127, 127] and the scale of each head; the largest 0.01 % are cut."""
    scales = np.array([max(float(np.quantile(np.abs(column), 0.9999)), 1e-9) / 127.0 for column in table.T])
    return np.clip(np.rint(table / scales), -127, 127).astype(np.int8), scales
