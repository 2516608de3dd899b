"""Whether a score can be read as a probability: reliability, calibration error, Brier score.

Scores are in [0, 1], labels are 1 (unsafe) or 0 (benign). A reliability figure holds for the share of unsafe
rows that the sample has, and for no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from stanchion.core.errors import UsageError
from stanchion.stats.intervals import Interval, wilson

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BOOTSTRAP_DRAWS = 1000


class ReliabilityBin(msgspec.Struct, frozen=True, kw_only=True):
    """Rows with scores in [low, high] (both observed): how they were scored, and how many were unsafe."""

    low: float
    high: float
    n: int
    unsafe: int
    mean_score: float
    interval: Interval  # of the share that was unsafe (Wilson, two-sided)

    @property
    def share(self) -> float:
        """The share of the rows that was unsafe."""
        return self.unsafe / self.n


class BrierScore(msgspec.Struct, frozen=True, kw_only=True):
    """The mean squared error of the score, and what it is made of.

    `score = reliability - resolution + uncertainty + within_bins`, exactly. Source: A. Murphy, Journal of
    Applied Meteorology 12 (1973) 595-600; the remainder of scores that differ inside a bin: D. Stephenson,
    C. Coelho and I. Jolliffe, Weather and Forecasting 23 (2008) 752-757.
    """

    score: float
    reliability: float
    resolution: float
    uncertainty: float
    within_bins: float


class Reliability(msgspec.Struct, frozen=True, kw_only=True):
    """The reliability diagram in numbers.

    `calibration_error` is the mean distance between score and share, weighted by rows (M. Naeini, G. Cooper
    and M. Hauskrecht, AAAI 2015), with a bootstrap interval. It is biased upwards in small samples;
    `debiased_rms` is the root of the debiased squared error, 0 where the estimate is negative (A. Kumar,
    P. Liang and T. Ma, "Verified Uncertainty Calibration", NeurIPS 2019).
    """

    n: int
    unsafe: int
    bins: tuple[ReliabilityBin, ...]
    calibration_error: float
    calibration_error_interval: Interval
    debiased_rms: float
    brier: BrierScore


def reliability(
    scores: Sequence[float],
    labels: Sequence[int],
    *,
    bins: int = 10,
    confidence: float = 0.95,
    seed: int = 0,
    draws: int = BOOTSTRAP_DRAWS,
) -> Reliability:
    """How well scores agree with the shares of unsafe rows, in bins of about equal numbers of rows.

    Rows of one score stay in one bin, so there can be fewer bins than asked for. The interval of the
    calibration error is a basic percentile bootstrap over rows with the bins held fixed.

    Raises:
        UsageError: unless there are rows, equally many scores and labels, scores in [0, 1], labels 0 or 1.
    """
    import numpy as np

    s, y = checked(scores, labels)
    if bins < 1:
        raise UsageError(f"a reliability diagram needs at least one bin, not {bins}.")
    index = _bins_of(s, bins)
    made = tuple(_bin(s, y, index == number, confidence) for number in range(int(index.max()) + 1))
    generator = np.random.default_rng(seed)
    drawn = [_error_of(s, y, index, generator.integers(0, s.size, s.size)) for _ in range(draws)]
    tail = (1.0 - confidence) / 2.0
    low, high = (float(value) for value in np.quantile(drawn, [tail, 1.0 - tail]))
    return Reliability(
        n=int(s.size),
        unsafe=int(y.sum()),
        bins=made,
        calibration_error=_error_of(s, y, index, np.arange(s.size)),
        calibration_error_interval=Interval(low, high, confidence, "bootstrap", "two", int(s.size)),
        debiased_rms=_debiased(made),
        brier=_brier(s, y, made),
    )


def checked(scores: Sequence[float], labels: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Scores and labels as arrays.

    Raises:
        UsageError: as `reliability` does.
    """
    import numpy as np

    if len(scores) != len(labels):
        raise UsageError(f"{len(scores)} scores do not match {len(labels)} labels.")
    if len(scores) == 0:
        raise UsageError("there are no scores.", hint="Nothing judged is no evidence.")
    s = np.asarray(scores, dtype=np.float64)
    y = np.asarray(labels)
    if not bool(np.all((s >= 0.0) & (s <= 1.0))):  # NaN is neither
        raise UsageError("a score must lie between 0 and 1.")
    if not bool(np.all((y == 0) | (y == 1))):
        raise UsageError("a label must be 1 (unsafe) or 0 (benign).")
    return s, y.astype(np.int64)


def _bins_of(scores: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """The bin of every row, numbered from 0 without gaps."""
    import numpy as np

    inner = np.unique(np.quantile(scores, np.arange(1, bins) / bins, method="inverted_cdf"))
    index = np.searchsorted(inner, scores, side="left")
    return np.asarray(np.unique(index, return_inverse=True)[1], dtype=np.int64)


def _bin(
    scores: NDArray[np.float64], labels: NDArray[np.int64], chosen: NDArray[np.bool_], confidence: float
) -> ReliabilityBin:
    s, y = scores[chosen], labels[chosen]
    return ReliabilityBin(
        low=float(s.min()),
        high=float(s.max()),
        n=int(s.size),
        unsafe=int(y.sum()),
        mean_score=float(s.mean()),
        interval=wilson(int(y.sum()), int(s.size), confidence=confidence),
    )


def _error_of(
    scores: NDArray[np.float64], labels: NDArray[np.int64], index: NDArray[np.int64], rows: NDArray[np.int64]
) -> float:
    """The calibration error of some rows: sum over bins of |sum of (score - label)| / n."""
    import numpy as np

    gaps = np.bincount(index[rows], weights=scores[rows] - labels[rows])
    return float(np.abs(gaps).sum() / rows.size)


def _debiased(bins: Sequence[ReliabilityBin]) -> float:
    """Kumar et al. (2019): less the variance of each bin's share; bins of one row tell nothing."""
    total = sum(one.n for one in bins)
    squared = sum(
        one.n / total * ((one.mean_score - one.share) ** 2 - one.share * (1.0 - one.share) / (one.n - 1))
        for one in bins
        if one.n > 1
    )
    return float(max(0.0, squared) ** 0.5)


def _brier(
    scores: NDArray[np.float64], labels: NDArray[np.int64], bins: Sequence[ReliabilityBin]
) -> BrierScore:
    n, base = scores.size, float(labels.mean())
    score = float(((scores - labels) ** 2).mean())
    spread = sum(one.n * (one.mean_score - one.share) ** 2 for one in bins) / n
    resolution = sum(one.n * (one.share - base) ** 2 for one in bins) / n
    uncertainty = base * (1.0 - base)
    return BrierScore(
        score=score,
        reliability=spread,
        resolution=resolution,
        uncertainty=uncertainty,
        within_bins=score - (spread - resolution + uncertainty),
    )
