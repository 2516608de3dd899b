"""Comparing two rates: on the same cases (paired), and on different ones.

Everywhere, `first` is the baseline and `second` the candidate; a difference is second - first, so that with
unsafe = 1 a positive difference is a regression. The four cells of a paired table are `n11` (both hit), `n10`
(only the first), `n01` (only the second) and `n00` (neither).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import msgspec

from stanchion.core.errors import UsageError
from stanchion.stats.bootstrap import (
    BootstrapEstimate,
    cluster_bootstrap,
    clustered_rate,
    paired_cluster_bootstrap,
)
from stanchion.stats.distributions import binomial_pmf, binomial_tails, normal_quantile
from stanchion.stats.intervals import Side, check_counts, check_tail, wilson_bounds
from stanchion.stats.wording import confidence_level, points, points_between

__all__ = [
    "Alternative",
    "BootstrapEstimate",
    "Difference",
    "McNemar",
    "cluster_bootstrap",
    "clustered_rate",
    "mcnemar_exact",
    "paired_cluster_bootstrap",
    "paired_difference",
    "unpaired_difference",
]

Alternative = Literal["two", "greater", "less"]
PairedMethod = Literal["tango", "newcombe"]


class McNemar(msgspec.Struct, frozen=True, kw_only=True):
    """The exact test on the pairs that changed: `b` only first, `c` only second; the rest says nothing."""

    b: int
    c: int
    alternative: Alternative
    p_value: float
    is_mid_p: bool


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A difference of two rates, second - first, in [-1, 1], with its interval.

    A one-sided "upper" interval is [-1, high], a "lower" one [low, 1]. `n` is the number of pairs, or the
    smaller of the two samples.
    """

    estimate: float
    low: float
    high: float
    confidence: float
    method: str
    side: Side
    n: int

    def describe(self) -> str:
        """In percentage points: "+1.2 points (-0.4 to +2.9 points, two-sided 95 %, Tango, n = 250)"."""
        sided = "two-sided" if self.side == "two" else "one-sided"
        span = points_between(self.low, self.high)
        level = confidence_level(self.confidence)
        return f"{points(self.estimate)} ({span}, {sided} {level}, {self.method}, n = {self.n:,})"


def mcnemar_exact(b: int, c: int, *, alternative: Alternative = "two", mid_p: bool = False) -> McNemar:
    """The exact conditional test whether the hit rate changed between two runs of the same cases.

    `b` pairs hit only in the first, `c` only in the second. "greater" asks whether the second is higher. The
    mid-p option halves the weight of the observed outcome: less conservative, no longer guaranteed. With no
    changed pair, p is 1. Sources: Q. McNemar, Psychometrika 12 (1947) 153-157; M. Fagerland, S. Lydersen and
    P. Laake, BMC Medical Research Methodology 13:91 (2013).

    Raises:
        UsageError: for negative counts or an unknown alternative.
    """
    if alternative not in get_args(Alternative):
        raise UsageError(
            f"the alternative {alternative!r} is not known.", hint="Allowed: two, greater, less."
        )
    for value in (b, c):
        if value < 0:
            raise UsageError(f"a number of pairs cannot be negative: {value}.")
    n = b + c
    smallest = {"two": min(b, c), "greater": b, "less": c}[alternative]
    tail = binomial_tails(smallest, n, 0.5)[0]
    observed = binomial_pmf(smallest, n, 0.5) if mid_p and n else 0.0
    p_value = 2.0 * tail - observed if alternative == "two" else tail - observed / 2.0
    return McNemar(b=b, c=c, alternative=alternative, p_value=min(1.0, p_value), is_mid_p=mid_p)


def paired_difference(
    n11: int,
    n10: int,
    n01: int,
    n00: int,
    *,
    confidence: float = 0.95,
    side: Side = "two",
    method: PairedMethod = "tango",
) -> Difference:
    """The difference of two rates over the same cases, with a score interval.

    Tango's interval inverts the score test and keeps its level where few pairs changed; Newcombe's combines
    two Wilson intervals with the correlation. Sources: T. Tango, Statistics in Medicine 17 (1998) 891-908;
    R. Newcombe, Statistics in Medicine 17 (1998) 2635-2650, method 10.

    Raises:
        UsageError: for impossible counts, or an unknown side or method.
    """
    if method not in get_args(PairedMethod):
        raise UsageError(f"the method {method!r} is not known.", hint="Allowed: tango, newcombe.")
    n = n11 + n10 + n01 + n00
    for value in (n11, n10, n01, n00):
        check_counts(value, max(n, 1))
    check_counts(0, n)
    z = normal_quantile(1.0 - check_tail(confidence, side))
    if method == "tango":
        low, high = _tango(n01, n10, n, z=z)
    else:
        low, high = _newcombe_paired((n11, n10, n01, n00), z=z)
    return _difference(
        (n01 - n10) / n, (low, high), confidence=confidence, method=method.capitalize(), side=side, n=n
    )


def unpaired_difference(
    first: tuple[int, int],
    second: tuple[int, int],
    *,
    confidence: float = 0.95,
    side: Side = "two",
) -> Difference:
    """The difference of two rates over different cases; each argument is (hits, cases).

    Where the same cases were run twice, use `paired_difference`: it sees more. Source: R. Newcombe,
    Statistics in Medicine 17 (1998) 873-890, method 10 (two Wilson intervals, combined).

    Raises:
        UsageError: for impossible counts or an unknown side.
    """
    for k, n in (first, second):
        check_counts(k, n)
    z = normal_quantile(1.0 - check_tail(confidence, side))
    (k1, n1), (k2, n2) = first, second
    p1, p2 = k1 / n1, k2 / n2
    (low1, high1), (low2, high2) = wilson_bounds(k1, n1, z=z), wilson_bounds(k2, n2, z=z)
    estimate = p2 - p1
    low = estimate - math.hypot(p2 - low2, high1 - p1)
    high = estimate + math.hypot(high2 - p2, p1 - low1)
    return _difference(
        estimate, (low, high), confidence=confidence, method="Newcombe", side=side, n=min(n1, n2)
    )


def _difference(
    estimate: float, bounds: tuple[float, float], *, confidence: float, method: str, side: Side, n: int
) -> Difference:
    low, high = bounds
    return Difference(
        estimate=estimate,
        low=-1.0 if side == "upper" else max(-1.0, low),
        high=1.0 if side == "lower" else min(1.0, high),
        confidence=confidence,
        method=method,
        side=side,
        n=n,
    )


def _tango(up: int, down: int, n: int, *, z: float) -> tuple[float, float]:
    """Where the score statistic is +z and -z: it falls strictly over [-1, 1], so bisection finds both."""
    estimate = (up - down) / n

    def score(delta: float) -> float:
        return _tango_score(delta, up=up, down=down, n=n)

    low = -1.0 if estimate == -1.0 else _falling_root(score, z, within=(-1.0, estimate))
    high = 1.0 if estimate == 1.0 else _falling_root(score, -z, within=(estimate, 1.0))
    return low, high


def _tango_score(delta: float, *, up: int, down: int, n: int) -> float:
    """Tango's statistic, with the restricted maximum-likelihood estimate of the probability of a down."""
    linear = -up - down + (2.0 * n - up + down) * delta
    constant = -down * delta * (1.0 - delta)
    restricted = (math.sqrt(max(0.0, linear * linear - 8.0 * n * constant)) - linear) / (4.0 * n)
    variance = n * (2.0 * restricted + delta * (1.0 - delta))
    distance = up - down - n * delta
    if variance <= 0.0:
        return 0.0 if distance == 0.0 else math.copysign(math.inf, distance)
    return distance / math.sqrt(variance)


def _falling_root(score: Callable[[float], float], target: float, *, within: tuple[float, float]) -> float:
    low, high = within
    for _ in range(200):
        middle = (low + high) / 2.0
        if middle in (low, high):
            break
        low, high = (middle, high) if score(middle) > target else (low, middle)
    return (low + high) / 2.0


def _newcombe_paired(cells: tuple[int, int, int, int], *, z: float) -> tuple[float, float]:
    """Newcombe's method 10: square-and-add over two Wilson intervals, phi with its correction."""
    n11, n10, n01, n00 = cells
    n = n11 + n10 + n01 + n00
    first, second = n11 + n10, n11 + n01
    p1, p2 = first / n, second / n
    (low1, high1), (low2, high2) = wilson_bounds(first, n, z=z), wilson_bounds(second, n, z=z)
    product = first * (n - first) * second * (n - second)
    cross = n11 * n00 - n10 * n01
    phi = 0.0 if product == 0 else max(cross - n / 2.0, 0.0 if cross > 0 else cross) / math.sqrt(product)
    down = (p2 - low2, high1 - p1)
    up = (high2 - p2, p1 - low1)
    low = p2 - p1 - math.sqrt(max(0.0, down[0] ** 2 - 2.0 * phi * down[0] * down[1] + down[1] ** 2))
    high = p2 - p1 + math.sqrt(max(0.0, up[0] ** 2 - 2.0 * phi * up[0] * up[1] + up[1] ** 2))
    return low, high
