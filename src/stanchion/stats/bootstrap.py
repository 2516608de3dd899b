"""Cluster bootstrap: intervals for means when cases come in groups that share their luck.

Whole clusters are drawn, with replacement; the statistic is the mean over cases (a ratio of sums). Sources:
B. Efron, JASA 82 (1987) 171-185 (BCa); A. Davison and D. Hinkley, *Bootstrap Methods and their Application*
(1997), sections 3.8 and 5.3. With few clusters, or few hits, a bootstrap promises too much: `clustered_rate`
then falls back to Korn-Graubard.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from stanchion.core.errors import UsageError
from stanchion.stats.distributions import normal_quantile
from stanchion.stats.intervals import Interval, Side, check_tail, korn_graubard

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

BootstrapMethod = Literal["bca", "percentile"]
MIN_HITS = 10
MIN_CLUSTERS = 40
_CELLS_AT_ONCE = 2_000_000


class BootstrapEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """A mean over cases and its bootstrap interval [low, high]; an open end is infinite."""

    estimate: float
    low: float
    high: float
    confidence: float
    side: Side
    method: BootstrapMethod
    cases: int
    clusters: int
    resamples: int


def cluster_bootstrap(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    rng: np.random.Generator,
    resamples: int = 4000,
    confidence: float = 0.95,
    side: Side = "two",
    method: BootstrapMethod = "bca",
) -> BootstrapEstimate:
    """The mean of `values` (one per case) with an interval that respects `clusters` (one label per case).

    The same generator state gives the same interval.

    Raises:
        UsageError: with fewer than two clusters, or when every cluster has the same mean: a bootstrap would
            then print an interval of no width, which is no statement about the future.
    """
    if method not in ("bca", "percentile"):
        raise UsageError(f"the bootstrap method {method!r} is not known.", hint="Allowed: bca, percentile.")
    if resamples < 100:
        raise UsageError(f"{resamples} resamples are too few for an interval.", hint="Take at least 1000.")
    tail = check_tail(confidence, side)
    sums, sizes = _by_cluster(values, clusters)
    estimate = float(sums.sum() / sizes.sum())
    draws = _resample(sums, sizes, rng=rng, resamples=resamples)
    levels = (tail, 1.0 - tail)
    if method == "bca":
        levels = _corrected_levels(sums, sizes, draws=draws, levels=levels)
    low, high = _quantiles(draws, levels)
    return BootstrapEstimate(
        estimate=estimate,
        low=-math.inf if side == "upper" else low,
        high=math.inf if side == "lower" else high,
        confidence=confidence,
        side=side,
        method=method,
        cases=len(values),
        clusters=len(sizes),
        resamples=resamples,
    )


def paired_cluster_bootstrap(
    first: Sequence[float],
    second: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    rng: np.random.Generator,
    resamples: int = 4000,
    confidence: float = 0.95,
    side: Side = "two",
    method: BootstrapMethod = "bca",
) -> BootstrapEstimate:
    """The mean of `second - first` over the same cases, with an interval that respects `clusters`.

    Positive means that the second is higher (worse, where unsafe is 1). Pairs are never torn apart.

    Raises:
        UsageError: as `cluster_bootstrap`, and when the two lists do not have one value per same case.
    """
    if len(first) != len(second):
        raise UsageError(
            f"a paired comparison needs the same cases on both sides, not {len(first)} and {len(second)}."
        )
    differences = [b - a for a, b in zip(first, second, strict=True)]
    return cluster_bootstrap(
        differences, clusters, rng=rng, resamples=resamples, confidence=confidence, side=side, method=method
    )


def clustered_rate(
    hits: Sequence[bool | int],
    clusters: Sequence[Hashable],
    *,
    rng: np.random.Generator,
    confidence: float = 0.95,
    side: Side = "two",
    assumed_icc: float = 1.0,
) -> Interval:
    """The interval for a rate over clustered cases by whichever method can carry it.

    The bootstrap where at least 10 hits, 10 misses and 40 clusters stand behind it, otherwise Korn-Graubard
    (`assumed_icc` is for the case that nothing varies). The interval's `method` names the one taken.

    Raises:
        UsageError: for values other than 0 and 1, or lists that do not match.
    """
    if any(value not in (0, 1) for value in hits):
        raise UsageError("a rate is made of hits that are 0 or 1; for scores use cluster_bootstrap.")
    sums, sizes = _by_cluster([float(value) for value in hits], clusters)
    found, total = int(sums.sum()), int(sizes.sum())
    varied = bool((sums / sizes != found / total).any())
    if min(found, total - found) >= MIN_HITS and len(sizes) >= MIN_CLUSTERS and varied:
        drawn = cluster_bootstrap(
            [float(value) for value in hits], clusters, rng=rng, confidence=confidence, side=side
        )
        low, high = max(0.0, drawn.low), min(1.0, drawn.high)
        return Interval(low, high, confidence, "cluster bootstrap (BCa)", side, total)
    return korn_graubard(
        [int(value) for value in sums],
        [int(value) for value in sizes],
        confidence=confidence,
        side=side,
        assumed_icc=assumed_icc,
    )


def _by_cluster(values: Sequence[float], clusters: Sequence[Hashable]) -> tuple[Floats, Floats]:
    """Sums of values and numbers of cases, one per cluster, in order of first appearance."""
    import numpy as np

    if len(values) != len(clusters):
        raise UsageError(f"{len(values)} values do not match {len(clusters)} cluster labels.")
    if len(values) == 0:
        raise UsageError("an interval needs at least one case.", hint="Nothing judged is no evidence.")
    column = np.asarray(values, dtype=np.float64)
    if not np.isfinite(column).all():
        raise UsageError("every value must be a finite number; leave unscored cases out and count them.")
    numbers: dict[Hashable, int] = {}
    index = np.fromiter((numbers.setdefault(c, len(numbers)) for c in clusters), np.intp, len(clusters))
    sums = np.bincount(index, weights=column).astype(np.float64)
    return sums, np.bincount(index).astype(np.float64)


def _resample(sums: Floats, sizes: Floats, *, rng: np.random.Generator, resamples: int) -> Floats:
    """The sorted means of `resamples` draws of whole clusters, in pieces of bounded memory."""
    import numpy as np

    count = len(sums)
    if count < 2:
        raise UsageError("a cluster bootstrap needs at least two clusters.", hint="Use korn_graubard.")
    if np.ptp(sums / sizes) == 0.0:
        raise UsageError(
            "a cluster bootstrap has nothing to learn where every cluster has the same mean.",
            hint="Use clopper_pearson or korn_graubard for the bound.",
        )
    draws = np.empty(resamples)
    step = max(1, _CELLS_AT_ONCE // count)
    for start in range(0, resamples, step):
        stop = min(start + step, resamples)
        chosen = rng.integers(0, count, size=(stop - start, count))
        draws[start:stop] = sums[chosen].sum(axis=1) / sizes[chosen].sum(axis=1)
    draws.sort()
    return draws


def _corrected_levels(
    sums: Floats, sizes: Floats, *, draws: Floats, levels: tuple[float, float]
) -> tuple[float, float]:
    """Efron's bias-corrected and accelerated levels; the acceleration from leaving out one cluster each."""
    import numpy as np

    estimate = sums.sum() / sizes.sum()
    below = (np.count_nonzero(draws < estimate) + 0.5 * np.count_nonzero(draws == estimate)) / len(draws)
    bias = normal_quantile(min(max(float(below), 0.5 / len(draws)), 1.0 - 0.5 / len(draws)))
    without = (sums.sum() - sums) / (sizes.sum() - sizes)
    deviation = without.mean() - without
    scale = float((deviation**2).sum()) ** 1.5
    acceleration = float((deviation**3).sum()) / (6.0 * scale) if scale > 0.0 else 0.0
    low, high = (_corrected(level, bias=bias, acceleration=acceleration) for level in levels)
    return low, high


def _corrected(level: float, *, bias: float, acceleration: float) -> float:
    shifted = bias + normal_quantile(level)
    stretch = 1.0 - acceleration * shifted
    if stretch <= 0.0:  # beyond what the correction can express: the outermost draw
        return 0.0 if shifted < 0 else 1.0
    return 0.5 * math.erfc(-(bias + shifted / stretch) / math.sqrt(2.0))


def _quantiles(draws: Floats, levels: tuple[float, float]) -> tuple[float, float]:
    import numpy as np

    low, high = np.quantile(draws, levels)
    return float(low), float(high)
