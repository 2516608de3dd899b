"""Intervals for one rate: exact and score, one- and two-sided, and with clusters.

A one-sided Clopper-Pearson bound decides a gate; a Wilson interval is shown. `side` says which end is a
bound: an "upper" interval is [0, high], a "lower" one [low, 1], each with the whole error on its one end.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Literal, get_args

import msgspec

from stanchion.core.errors import UsageError
from stanchion.stats.distributions import beta_quantile, normal_quantile, student_quantile
from stanchion.stats.wording import at_least, at_most, between, confidence_level

Side = Literal["two", "upper", "lower"]


class Interval(msgspec.Struct, frozen=True):
    """A confidence interval for a rate in [0, 1]; `n` is the number of cases it stands on, where known."""

    low: float
    high: float
    confidence: float
    method: str
    side: Side = "two"
    n: float | None = None

    def __contains__(self, rate: float) -> bool:
        return self.low <= rate <= self.high

    @property
    def width(self) -> float:
        """`high - low`."""
        return self.high - self.low

    def bounds(self) -> str:
        """Only the bounds in words: "at most 1.0 %", "0.41 % to 3.4 %"."""
        if self.side == "upper":
            return at_most(self.high)
        if self.side == "lower":
            return at_least(self.low)
        return between(self.low, self.high)

    def describe(self) -> str:
        """The bounds and what they stand on: "at most 1.0 % (one-sided 95 %, Clopper-Pearson, n = 300)"."""
        sided = "two-sided" if self.side == "two" else "one-sided"
        size = "" if self.n is None else f", n = {self.n:,.0f}"
        return f"{self.bounds()} ({sided} {confidence_level(self.confidence)}, {self.method}{size})"


class EffectiveSize(msgspec.Struct, frozen=True, kw_only=True):
    """How many independent cases a clustered sample is worth.

    `basis` is "measured" when the clusters' own spread gave the design effect, and "assumed" when it could
    not be measured (no hits, only hits, or a single cluster) and an intra-cluster correlation was taken.
    """

    n: int
    hits: int
    clusters: int
    n_effective: float
    design_effect: float
    basis: Literal["measured", "assumed"]


def clopper_pearson(k: int, n: int, *, confidence: float = 0.95, side: Side = "two") -> Interval:
    """The exact interval for k hits in n independent cases; never covers less than it says.

    Source: C. Clopper and E. Pearson, Biometrika 26 (1934) 404-413; bounds as beta quantiles.

    Raises:
        UsageError: unless 0 <= k <= n, n >= 1 and 0 < confidence < 1.
    """
    check_counts(k, n)
    low, high = _exact_bounds(k, n, tail=check_tail(confidence, side))
    return _sided(low, high, confidence=confidence, method="Clopper-Pearson", side=side, n=n)


def wilson(k: int, n: int, *, confidence: float = 0.95, side: Side = "two") -> Interval:
    """The score interval for k hits in n independent cases; covers about what it says, on average.

    Source: E. Wilson, JASA 22 (1927) 209-212; Brown, Cai and DasGupta, Statistical Science 16 (2001) 101-133.

    Raises:
        UsageError: unless 0 <= k <= n, n >= 1 and 0 < confidence < 1.
    """
    check_counts(k, n)
    low, high = wilson_bounds(k, n, z=normal_quantile(1.0 - check_tail(confidence, side)))
    return _sided(low, high, confidence=confidence, method="Wilson", side=side, n=n)


def wilson_bounds(k: float, n: float, *, z: float) -> tuple[float, float]:
    """Both score bounds for a normal quantile z >= 0; exactly 0 at k = 0 and exactly 1 at k = n."""
    square = z * z
    centre = k + square / 2.0
    spread = z * math.sqrt(k * (n - k) / n + square / 4.0)
    low = 0.0 if k == 0 else max(0.0, (centre - spread) / (n + square))
    high = 1.0 if k == n else min(1.0, (centre + spread) / (n + square))
    return low, high


def rule_of_three(n: int, *, confidence: float = 0.95) -> Interval:
    """The one-sided upper bound for 0 hits in n cases that one can do in one's head: 3 / n at 95 %.

    Exactly 3 at 95 % and -log(1 - confidence) otherwise; slightly above Clopper-Pearson. Source: J. Hanley
    and A. Lippman-Hand, JAMA 249 (1983) 1743-1745.

    Raises:
        UsageError: unless n >= 1 and 0 < confidence < 1.
    """
    check_counts(0, n)
    tail = check_tail(confidence, "upper")
    numerator = 3.0 if confidence == 0.95 else -math.log(tail)
    high = min(1.0, numerator / n)
    return Interval(0.0, high, confidence, "rule of three", "upper", n)


def effective_size(
    hits: Sequence[int], sizes: Sequence[int], *, tail: float = 0.05, assumed_icc: float = 1.0
) -> EffectiveSize:
    """The effective sample size of clusters with `hits[i]` hits among `sizes[i]` cases.

    The variance is the linearised one of a ratio over clusters; Student's t on clusters - 1 degrees of
    freedom against n - 1 pays for the few clusters. Never above n. Where every case agrees, nothing can be
    measured: the design effect is then that of `assumed_icc`, by default 1, the most careful one (each
    cluster counts about once). Source: E. Korn and B. Graubard, Survey Methodology 24 (1998) 193-201.

    Raises:
        UsageError: for lists that do not match, empty clusters or counts out of range.
    """
    total, found = _check_clusters(hits, sizes)
    if not 0.0 <= assumed_icc <= 1.0:
        raise UsageError(f"the intra-cluster correlation must be between 0 and 1, not {assumed_icc!r}.")
    clusters, rate = len(sizes), found / total
    if clusters >= 2 and 0 < found < total:
        spread = sum((h - rate * m) ** 2 for h, m in zip(hits, sizes, strict=True))
        variance = clusters / (clusters - 1) * spread / total**2
        if clusters == total:
            ratio = 1.0
        else:
            ratio = student_quantile(1.0 - tail, total - 1) / student_quantile(1.0 - tail, clusters - 1)
        worth = math.inf if variance == 0.0 else rate * (1.0 - rate) / variance * ratio**2
        basis: Literal["measured", "assumed"] = "measured"
    else:
        mean_size = sum(m * m for m in sizes) / total  # the size that a case's own cluster has on average
        worth = total / (1.0 + (mean_size - 1.0) * assumed_icc)
        basis = "assumed"
    effective = min(float(total), max(worth, 1.0))
    return EffectiveSize(
        n=total,
        hits=found,
        clusters=clusters,
        n_effective=effective,
        design_effect=total / effective,
        basis=basis,
    )


def korn_graubard(
    hits: Sequence[int],
    sizes: Sequence[int],
    *,
    confidence: float = 0.95,
    side: Side = "two",
    assumed_icc: float = 1.0,
) -> Interval:
    """The Clopper-Pearson interval at the effective sample size of clusters; see `effective_size`.

    Source: Korn and Graubard (1998); the form recommended by NCHS, Vital and Health Statistics 2-175 (2017).

    Raises:
        UsageError: as `effective_size` and `clopper_pearson` do.
    """
    tail = check_tail(confidence, side)
    size = effective_size(hits, sizes, tail=tail, assumed_icc=assumed_icc)
    worth = size.n_effective
    low, high = _exact_bounds(size.hits / size.n * worth, worth, tail=tail)
    return _sided(low, high, confidence=confidence, method="Korn-Graubard", side=side, n=worth)


def check_counts(k: int, n: int) -> None:
    """Raise UsageError unless k hits in n cases make sense."""
    for name, value in (("hits", k), ("cases", n)):
        try:
            operator.index(value)
        except TypeError as error:
            raise UsageError(f"the number of {name} must be a whole number, not {value!r}.") from error
    if n < 1:
        raise UsageError(
            f"an interval needs at least one case, not {n}.", hint="Nothing judged is no evidence."
        )
    if not 0 <= k <= n:
        raise UsageError(f"{k} hits in {n} cases is impossible: hits must be between 0 and {n}.")


def check_tail(confidence: float, side: Side) -> float:
    """The error allowed on one end; raise UsageError for a confidence or a side that means nothing."""
    if not 0.0 < confidence < 1.0:
        hint = f"Write {confidence / 100:g} for {confidence:g} %." if 1.0 < confidence < 100.0 else None
        raise UsageError(f"the confidence must lie between 0 and 1, not {confidence!r}.", hint=hint)
    if side not in get_args(Side):
        raise UsageError(f"the side {side!r} is not known.", hint="Allowed: two, upper, lower.")
    error = 1.0 - confidence
    return error / 2.0 if side == "two" else error


def _exact_bounds(k: float, n: float, *, tail: float) -> tuple[float, float]:
    """Both Clopper-Pearson bounds; k and n may be fractions (an effective size)."""
    return _exact_lower(k, n, tail=tail), 1.0 - _exact_lower(n - k, n, tail=tail)


def _exact_lower(k: float, n: float, *, tail: float) -> float:
    if k <= 0.0:
        return 0.0
    if k >= n:
        return math.exp(math.log(tail) / n)
    if 2.0 * k <= n:
        return beta_quantile(tail, k, n - k + 1.0)
    return 1.0 - beta_quantile(1.0 - tail, n - k + 1.0, k)


def _sided(low: float, high: float, *, confidence: float, method: str, side: Side, n: float) -> Interval:
    low = 0.0 if side == "upper" else low
    high = 1.0 if side == "lower" else high
    return Interval(low, high, confidence, method, side, n)


def _check_clusters(hits: Sequence[int], sizes: Sequence[int]) -> tuple[int, int]:
    if len(hits) != len(sizes):
        raise UsageError(f"{len(hits)} hit counts do not match {len(sizes)} cluster sizes.")
    for index, (k, m) in enumerate(zip(hits, sizes, strict=True)):
        if m < 1 or not 0 <= k <= m:
            raise UsageError(f"cluster {index}: {k} hits in {m} cases is impossible.")
    total = sum(sizes)
    if total < 1:
        raise UsageError("an interval needs at least one case.", hint="Nothing judged is no evidence.")
    return total, sum(hits)
