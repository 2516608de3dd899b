"""Confidence sequences for rates and for their differences: intervals that hold however often one looks.

A confidence sequence covers the true rate at every sample size *at once* with the stated confidence, so one
may look after each case, stop when one likes and go on later. A fixed-size interval that is looked at again
and again covers less with every look.

One rate: the mixture likelihood ratio of a Bernoulli rate p under a beta prior, which is a nonnegative
martingale with mean 1 when the rate is p. By Ville's inequality it ever reaches 1 / alpha with probability at
most alpha; the rates at which it has not yet are the sequence. It depends on the counts alone, so counts of
several processes may be added. Sources: H. Robbins, Annals of Mathematical Statistics 41 (1970) 1397-1409;
S. Howard, A. Ramdas, J. McAuliffe and J. Sekhon, Annals of Statistics 49 (2021) 1055-1080.

Two rates: the product of both martingales is a martingale in whatever order the cases of the two arms come,
also when what came before decides which arm comes next. The pairs of rates at which it is below 1 / alpha are
a joint sequence, and the differences of those pairs are one for the difference. Source: R. Turner and
P. Gruenwald, Statistics & Probability Letters 198 (2023) 109835, whose sets are of this form.

What is assumed: given what came before, each case of an arm has the same chance. Cases of one user that go
together, or a rate that moves with the time of day, break it; compare arms that run at the same time.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from stanchion.core.errors import UsageError
from stanchion.stats.intervals import Interval, check_counts, check_tail

METHOD = "beta-binomial mixture, any time"
_STEPS = 60  # halvings of a bracket of width at most 1: below 1e-17
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A confidence sequence for `rate of the first arm - rate of the second`, in [-1, 1], at this moment."""

    low: float
    high: float
    estimate: float | None
    confidence: float
    n_first: int
    n_second: int
    method: str = METHOD

    def __contains__(self, difference: float) -> bool:
        return self.low <= difference <= self.high


class Prior(msgspec.Struct, frozen=True, kw_only=True):
    """The beta prior of the mixture: where the sequence is tightest, never whether it is valid.

    `Prior(1/2, 1/2)` suits any rate. A prior with mean 0.01 and weight 50 is tighter near 1 %.
    """

    a: float = 0.5
    b: float = 0.5

    def __post_init__(self) -> None:
        if not (0.0 < self.a < math.inf and 0.0 < self.b < math.inf):
            raise UsageError(f"the prior's two numbers must be above 0, not {self.a!r} and {self.b!r}.")


JEFFREYS = Prior()


def log_e_value(k: int, n: int, rate: float, *, prior: Prior = JEFFREYS) -> float:
    """The logarithm of the evidence against `rate` after k hits in n cases; infinite when it is impossible.

    An e-value: its mean is at most 1 at every stopping time when `rate` is the true one, so 1 / e is a
    p-value that stays one under optional stopping.

    Raises:
        UsageError: unless 0 <= k <= n and 0 <= rate <= 1.
    """
    if n:
        check_counts(k, n)
    if not 0.0 <= rate <= 1.0:
        raise UsageError(f"a rate must lie between 0 and 1, not {rate!r}.")
    return _evidence(k, n, prior)(rate)


def confidence_sequence(
    k: int, n: int, *, confidence: float = 0.95, prior: Prior = JEFFREYS, side: str = "two"
) -> Interval:
    """The sequence's interval after k hits in n cases; [0, 1] before the first one.

    `side` "upper" gives [0, high] and "lower" [low, 1]: the ends of the two-sided one, which is what a
    mixture over all rates can promise, so a one-sided interval is not tighter here.

    Raises:
        UsageError: unless 0 <= k <= n and 0 < confidence < 1.
    """
    if side not in ("two", "upper", "lower"):
        raise UsageError(f"the side {side!r} is not known.", hint="Allowed: two, upper, lower.")
    check_tail(confidence, "two")
    low, high = _bounds(k, n, limit=-math.log1p(-confidence), prior=prior) if n else (0.0, 1.0)
    low = 0.0 if side == "upper" else low
    high = 1.0 if side == "lower" else high
    return Interval(low, high, confidence, METHOD, side, n)  # type: ignore[arg-type]


def difference_sequence(
    first: tuple[int, int], second: tuple[int, int], *, confidence: float = 0.95, prior: Prior = JEFFREYS
) -> Difference:
    """The sequence's interval for `p1 - p2` after (hits, cases) of both arms.

    Raises:
        UsageError: for counts or a confidence that mean nothing.
    """
    check_tail(confidence, "two")
    limit = -math.log1p(-confidence)
    for k, n in (first, second):
        if n:
            check_counts(k, n)
    high = _largest_difference(first, second, limit=limit, prior=prior)
    low = -_largest_difference(second, first, limit=limit, prior=prior)
    estimate = first[0] / first[1] - second[0] / second[1] if first[1] and second[1] else None
    return Difference(
        low=low,
        high=high,
        estimate=estimate,
        confidence=confidence,
        n_first=first[1],
        n_second=second[1],
    )


def _evidence(k: int, n: int, prior: Prior) -> Callable[[float], float]:
    """`log M(p)`, convex in p, least at p = k / n."""
    if n == 0:
        return lambda _: 0.0
    constant = _log_beta(prior.a + k, prior.b + n - k) - _log_beta(prior.a, prior.b)

    def at(rate: float) -> float:
        fitted = 0.0
        if k:
            fitted += k * math.log(rate) if rate > 0.0 else -math.inf
        if n - k:
            fitted += (n - k) * math.log1p(-rate) if rate < 1.0 else -math.inf
        return constant - fitted

    return at


def _bounds(k: int, n: int, *, limit: float, prior: Prior) -> tuple[float, float]:
    check_counts(k, n)
    evidence, estimate = _evidence(k, n, prior), k / n
    low = 0.0 if k == 0 else _crossing(evidence, outside=0.0, inside=estimate, limit=limit)
    high = 1.0 if k == n else _crossing(evidence, outside=1.0, inside=estimate, limit=limit)
    return low, high


def _crossing(evidence: Callable[[float], float], *, outside: float, inside: float, limit: float) -> float:
    """Where the evidence reaches the limit between the two; errs to the outside."""
    if evidence(outside) < limit:
        return outside
    for _ in range(_STEPS):
        middle = (outside + inside) / 2.0
        if evidence(middle) < limit:
            inside = middle
        else:
            outside = middle
    return outside


def _largest_difference(
    first: tuple[int, int], second: tuple[int, int], *, limit: float, prior: Prior
) -> float:
    """The largest `p1 - p2` whose joint evidence stays below the limit."""
    one, two = _evidence(*first, prior), _evidence(*second, prior)
    estimates = [k / n if n else None for k, n in (first, second)]
    p1 = estimates[0] if estimates[0] is not None else 1.0
    p2 = estimates[1] if estimates[1] is not None else 0.0
    least = p1 - p2  # both at their own least evidence

    def joint(difference: float) -> float:
        """The least evidence of any pair with this difference: convex along the line p1 = p2 + d."""
        low, high = max(0.0, -difference), min(1.0, 1.0 - difference)
        return _minimum(lambda p: one(min(1.0, max(0.0, p + difference))) + two(p), low=low, high=high)

    return _crossing(joint, outside=1.0, inside=least, limit=limit)


def _minimum(function: Callable[[float], float], *, low: float, high: float) -> float:
    """The least value of a convex function, by golden section (J. Kiefer, Proc. AMS 4 (1953) 502-506)."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = function(left), function(right)
    for _ in range(_STEPS):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = function(right)
    return min(at_left, at_right, function(low), function(high))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
