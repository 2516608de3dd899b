"""Maps from a detector's score to a probability, fitted on labelled rows; all of them keep the order.

Because order is kept, no map changes what a threshold does; it only says how a score may be read at the share
of unsafe rows that the sample has. Judge a map by `cross_fitted`, never on the rows it was fitted to.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from stanchion.core.errors import UsageError
from stanchion.stats.calibration import checked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

MapKind = Literal["platt", "isotonic", "beta"]
MAP_KINDS: tuple[MapKind, ...] = ("platt", "isotonic", "beta")
_EDGE = 1e-6  # scores are kept this far from 0 and 1 before a logarithm
_STEPS = 100


class ScoreMap(msgspec.Struct, frozen=True, kw_only=True):
    """A fitted map. `platt` and `beta` hold coefficients, `isotonic` the knots of a step function.

    platt: `1 / (1 + exp(-(a logit(s) + b)))`, coefficients (a, b). beta: the same of
    `a log s - b log(1 - s) + c`, coefficients (a, b, c).
    """

    kind: MapKind
    coefficients: tuple[float, ...] = ()
    knots: tuple[tuple[float, float], ...] = ()  # (score from which on, probability), ascending

    def __call__(self, score: float) -> float:
        """The probability for a score in [0, 1]."""
        if self.kind == "isotonic":
            index = bisect.bisect_right(self.knots, (score, math.inf)) - 1
            return self.knots[max(index, 0)][1]
        s = min(max(score, _EDGE), 1.0 - _EDGE)
        if self.kind == "platt":
            a, b = self.coefficients
            return _logistic(a * math.log(s / (1.0 - s)) + b)
        a, b, c = self.coefficients
        return _logistic(a * math.log(s) - b * math.log1p(-s) + c)


def fit(kind: MapKind, scores: Sequence[float], labels: Sequence[int]) -> ScoreMap:
    """The map that fits labelled rows best.

    Platt: J. Platt (1999) with the targets and Newton's method of H. Lin, C. Lin and R. Weng, Machine
    Learning 68 (2007) 267-276, on the logit of the score. Isotonic: pool adjacent violators (M. Ayer et al.,
    Annals of Mathematical Statistics 26 (1955) 641-647). Beta: M. Kull, T. Silva Filho and P. Flach, AISTATS
    2017, with both slopes at least 0.

    Raises:
        UsageError: unless there are rows of both labels; for an unknown kind.
    """
    s, y = checked(scores, labels)
    if not 0 < int(y.sum()) < y.size:
        raise UsageError("a score map needs benign and unsafe rows.", hint="Label some of each.")
    match kind:
        case "platt":
            return ScoreMap(kind=kind, coefficients=_platt(s, y))
        case "isotonic":
            return ScoreMap(kind=kind, knots=_isotonic(s, y))
        case "beta":
            return ScoreMap(kind=kind, coefficients=_beta(s, y))
        case _:
            raise UsageError(f"unknown score map {kind!r}.", hint=f"Allowed: {', '.join(MAP_KINDS)}.")


def cross_fitted(
    kind: MapKind,
    scores: Sequence[float],
    labels: Sequence[int],
    *,
    groups: Sequence[Hashable] | None = None,
    folds: int = 5,
    seed: int = 0,
) -> tuple[float, ...]:
    """Each row's probability by a map that was fitted without its fold; a group is never split.

    Raises:
        UsageError: when some fold leaves rows of one label only, or there are fewer groups than folds.
    """
    import numpy as np

    s, y = checked(scores, labels)
    names: dict[Hashable, int] = {}
    labels_of = range(s.size) if groups is None else groups
    index = np.asarray([names.setdefault(group, len(names)) for group in labels_of])
    if len(names) < folds:
        raise UsageError(f"{folds} folds need at least as many groups of rows, not {len(names)}.")
    fold = np.random.default_rng(seed).permutation(len(names))[index] % folds
    mapped = np.empty(s.size)
    for number in range(folds):
        inside = fold == number
        made = fit(kind, s[~inside].tolist(), y[~inside].tolist())
        mapped[inside] = [made(score) for score in s[inside].tolist()]
    return tuple(mapped.tolist())


def _platt(scores: Floats, labels: NDArray[np.int64]) -> tuple[float, float]:
    import numpy as np

    unsafe = int(labels.sum())
    benign = labels.size - unsafe
    targets = np.where(labels == 1, (unsafe + 1.0) / (unsafe + 2.0), 1.0 / (benign + 2.0))
    s = np.clip(scores, _EDGE, 1.0 - _EDGE)
    design = np.column_stack([np.log(s / (1.0 - s)), np.ones(s.size)])
    a, b = _logistic_fit(design, targets, free=(False, True))
    return a, b


def _beta(scores: Floats, labels: NDArray[np.int64]) -> tuple[float, float, float]:
    import numpy as np

    s = np.clip(scores, _EDGE, 1.0 - _EDGE)
    unsafe = int(labels.sum())
    benign = labels.size - unsafe
    targets = np.where(labels == 1, (unsafe + 1.0) / (unsafe + 2.0), 1.0 / (benign + 2.0))
    design = np.column_stack([np.log(s), -np.log1p(-s), np.ones(s.size)])
    a, b, c = _logistic_fit(design, targets, free=(False, False, True))
    return a, b, c


def _logistic_fit(design: Floats, targets: Floats, *, free: tuple[bool, ...]) -> tuple[float, ...]:
    """Maximum likelihood of a logistic model; columns that are not free keep coefficients of at least 0.

    Newton's method with halved steps; a column whose coefficient would be negative is taken out, as in the
    reference implementation of beta calibration.
    """
    import numpy as np

    active = list(range(design.shape[1]))
    while True:
        x = design[:, active]
        weights = _newton(x, targets)
        negative = [i for i, column in enumerate(active) if not free[column] and weights[i] < 0.0]
        if not negative:
            full = np.zeros(design.shape[1])
            full[active] = weights
            return tuple(full.tolist())
        del active[min(negative, key=lambda i: float(weights[i]))]


def _newton(x: Floats, targets: Floats) -> Floats:
    import numpy as np

    weights = np.zeros(x.shape[1])
    value = _log_loss(x, targets, weights)
    for _ in range(_STEPS):
        p = 1.0 / (1.0 + np.exp(-np.clip(x @ weights, -500, 500)))
        gradient = x.T @ (p - targets)
        hessian = (x * (p * (1.0 - p))[:, None]).T @ x + 1e-9 * np.eye(x.shape[1])
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-10 and _log_loss(x, targets, weights - size * step) > value:
            size /= 2.0
        weights = weights - size * step
        before, value = value, _log_loss(x, targets, weights)
        if before - value < 1e-12 * max(1.0, abs(value)):
            break
    return np.asarray(weights)


def _log_loss(x: Floats, targets: Floats, weights: Floats) -> float:
    import numpy as np

    z = x @ weights
    return float((np.logaddexp(0.0, z) - targets * z).sum())


def _isotonic(scores: Floats, labels: NDArray[np.int64]) -> tuple[tuple[float, float], ...]:
    import numpy as np

    values, index = np.unique(scores, return_inverse=True)
    unsafe = np.bincount(index, weights=labels)
    count = np.bincount(index)
    blocks: list[tuple[float, float, float]] = []  # (first score, unsafe, rows)
    for first, hits, rows in zip(values.tolist(), unsafe.tolist(), count.tolist(), strict=True):
        block = (first, hits, float(rows))
        while blocks and blocks[-1][1] * block[2] >= block[1] * blocks[-1][2]:
            before = blocks.pop()
            block = (before[0], before[1] + block[1], before[2] + block[2])
        blocks.append(block)
    return tuple((first, hits / rows) for first, hits, rows in blocks)


def _logistic(z: float) -> float:
    return 1.0 / (1.0 + math.exp(-z)) if z >= 0.0 else math.exp(z) / (1.0 + math.exp(z))
