"""Logistic regression over windows, with the windows of each text chosen anew in every round."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from pipeline.instances import Bags
from pipeline.rows import Row

LIBRARY = 6.0
OTHER_LANGUAGES = {"coding": 0.8, "pair": 0.8, "order": 0.8}
ALIKE = 0.5  # long roles and requests for programs in other languages, of which there are many


@dataclass(frozen=True)
class Settings:
    """What a fit depends on beside the data."""

    strength: float = 3.0  # inverse of the L2 penalty
    rounds: int = 2
    hard_windows: int = 4  # worst windows of a harmless text that are learnt from, beside the whole
    dilution: float = 1.0  # windows of a harmless text share its weight: 1 in full, 0 not at all
    iterations: int = 60  # of the first fit, which only chooses windows
    tolerance: float = 1e-3
    last_iterations: int = 200  # of the others: stopping early costs recall on sources left out
    last_tolerance: float = 2e-4
    doubt: float = 0.0  # attacks of public sets that score less than this after a round are left out


@dataclass(frozen=True)
class Fitted:
    """Weights by bucket, and the bias."""

    weights: np.ndarray
    bias: float

    def logits(self, bags: Bags) -> np.ndarray:
        """One logit per window."""
        return bags.features @ self.weights + self.bias


def emphasis(row: Row) -> float:
    """How much more or less a made row counts: there are many small groups in other languages.

    English families count twice: they hold the harmless texts that public sets lack. Long technical writing,
    which has most windows, counts most.
    """
    if not row.source.startswith("made:"):
        return 1.0
    if row.kind == "library":
        return LIBRARY
    if row.source.startswith(("made:en:", "made:prose:")):
        return 2.0
    if row.source.startswith(("made:role:", "made:request:")):
        return 1.0 if row.language == "en" else ALIKE
    if row.source != f"made:{row.language}":
        return 1.0
    return OTHER_LANGUAGES.get(row.kind, 0.4)


def row_weights(rows: Sequence[Row]) -> np.ndarray:
    """Weights that balance classes, and within a class sources and languages (inverse root of size)."""
    sizes = Counter((row.source, row.language, row.label) for row in rows)
    weights = np.array([emphasis(row) * sizes[row.source, row.language, row.label] ** -0.5 for row in rows])
    labels = np.array([row.label for row in rows])
    for label in (0, 1):
        chosen = labels == label
        weights[chosen] *= len(rows) / 2 / weights[chosen].sum()
    return weights


def fit(bags: Bags, rows: Sequence[Row], *, settings: Settings = Settings()) -> Fitted:
    """Whole texts first; then each attack's worst window, each harmless text whole and its worst windows."""
    labels = np.array([row.label for row in rows])
    weights = row_weights(rows)
    chosen = np.flatnonzero(bags.is_whole)
    model = LogisticRegression(
        C=settings.strength, max_iter=settings.iterations, tol=settings.tolerance, warm_start=True
    )
    fitted = _regression(model, bags, labels, weights, chosen, dilution=settings.dilution)
    model.set_params(max_iter=settings.last_iterations, tol=settings.last_tolerance)
    for _ in range(settings.rounds):
        logits = fitted.logits(bags)
        chosen = _choose(bags, labels, logits, settings.hard_windows)
        believed = _believed(rows, bags.best(logits), settings.doubt)
        fitted = _regression(model, bags, labels, weights * believed, chosen, dilution=settings.dilution)
    return fitted


def _believed(rows: Sequence[Row], best: np.ndarray, doubt: float) -> np.ndarray:
    """1 for rows whose label is believed, 0 for attacks that look harmless even to a model they taught.

    Public sets label bare questions and harmful requests without any injection as attacks (a simple form of
    the pruning of Northcutt, Jiang and Chuang, "Confident Learning", 2021).
    """
    doubted = np.array([row.label == 1 and not row.source.startswith("made:") for row in rows])
    return np.where(doubted & (best < doubt), 0.0, 1.0)


def _choose(bags: Bags, labels: np.ndarray, logits: np.ndarray, hard: int) -> np.ndarray:
    order = np.lexsort((-logits, bags.owners))
    owners = bags.owners[order]
    first = np.concatenate([[True], owners[1:] != owners[:-1]])
    rank = np.arange(owners.size) - np.maximum.accumulate(np.where(first, np.arange(owners.size), 0))
    is_attack = labels[owners] == 1
    keep = np.where(is_attack, rank == 0, (rank < hard) | bags.is_whole[order])
    return order[keep]


def _regression(
    model: LogisticRegression,
    bags: Bags,
    labels: np.ndarray,
    weights: np.ndarray,
    chosen: np.ndarray,
    *,
    dilution: float,
) -> Fitted:
    owners = bags.owners[chosen]
    shares = np.bincount(owners, minlength=bags.rows)[owners]
    sample = weights[owners] / shares ** np.where(labels[owners] == 1, 1.0, dilution)
    used = sample > 0
    model.fit(bags.features[chosen[used]], labels[owners[used]], sample_weight=sample[used])
    return Fitted(model.coef_[0].astype(np.float64), float(model.intercept_[0]))


def fit_kinds(bags: Bags, rows: Sequence[Row], others: frozenset[str], *, bits: int) -> Fitted:
    """Tells attacks of the sources `others` (label 1) from other attacks, on the leading bits of a bucket."""
    attacks = np.array([row.label == 1 for row in rows])
    chosen = np.flatnonzero(attacks[bags.owners] & bags.is_whole)
    features = bags.features[chosen]
    shift = int(np.log2(features.shape[1])) - bits
    coarse = sparse.csr_matrix(
        (features.data, features.indices >> shift, features.indptr), shape=(features.shape[0], 1 << bits)
    )
    coarse.sum_duplicates()
    labels = np.array([row.source in others for row in rows])[bags.owners[chosen]]
    model = LogisticRegression(C=10.0, max_iter=100, tol=1e-3, class_weight="balanced", fit_intercept=False)
    model.fit(coarse, labels)
    return Fitted(model.coef_[0].astype(np.float64), 0.0)
