"""How many cases a question needs, before they are run, and how many more after.

A limit is *shown* when the one-sided Clopper-Pearson upper bound is at or below it, which is the same as
P(X <= k) <= 1 - confidence for X binomial(n, limit). All sizes here are exact for that rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from stanchion.core.errors import UsageError
from stanchion.stats.distributions import binomial_tails
from stanchion.stats.intervals import check_counts, check_tail

MAX_CASES = 100_000_000


class SizePlan(msgspec.Struct, frozen=True, kw_only=True):
    """How many cases to run. `max_failures` is the most hits with which `independent_cases` show the limit.

    `cases` is `independent_cases` times the design effect, rounded up to whole clusters.
    """

    cases: int
    independent_cases: int
    max_failures: int
    power: float
    design_effect: float
    clusters: int


class CasesNeeded(msgspec.Struct, frozen=True, kw_only=True):
    """How many more cases a criterion needs; None where no number of cases would do, and `reason` says why.

    `more` is exact if every further case is safe; `more_at_observed_rate` supposes that the rate stays.
    """

    more: int | None
    more_at_observed_rate: int | None
    reason: str


def zero_failure_size(limit: float, confidence: float = 0.95) -> int:
    """The smallest n for which 0 hits show a rate of at most `limit`: 59, 299, 2995 for 5, 1, 0.1 % at 95 %.

    The smallest n with (1 - limit)^n <= 1 - confidence. Source: closed form of Clopper-Pearson at k = 0.

    Raises:
        UsageError: unless 0 < limit < 1 and 0 < confidence < 1.
    """
    _check_limit(limit)
    size = _smallest_size(0, limit, tail=check_tail(confidence, "upper"))
    if size is None:
        raise _too_many(limit)
    return size


def design_effect(icc: float, cluster_size: float) -> float:
    """By how much clusters inflate the variance: 1 + (cluster_size - 1) icc.

    Source: L. Kish, *Survey Sampling* (1965), section 5.4.

    Raises:
        UsageError: unless 0 <= icc <= 1 and cluster_size >= 1.
    """
    if not 0.0 <= icc <= 1.0:
        raise UsageError(f"the intra-cluster correlation must be between 0 and 1, not {icc!r}.")
    if not 1.0 <= cluster_size < math.inf:
        raise UsageError(f"a cluster holds at least one case, not {cluster_size!r}.")
    return 1.0 + (cluster_size - 1.0) * icc


def size_for_rate(
    limit: float,
    expected: float,
    *,
    power: float = 0.8,
    confidence: float = 0.95,
    icc: float = 0.0,
    cluster_size: int = 1,
) -> SizePlan:
    """The smallest n that shows `limit` with probability `power` when the true rate is `expected`.

    Exact binomial: limit 1 %, expected 0.5 %, power 0.8 gives 1941. Because counts are whole, power rises in
    a saw-tooth: a slightly larger n can have a little less, so run exactly this many, or plan for more power.
    Clusters of `cluster_size` cases (or repeats of one case) with correlation `icc` multiply n by the design
    effect.

    Raises:
        UsageError: unless 0 <= expected < limit < 1, or when more than 100 million cases would be needed.
    """
    _check_limit(limit)
    tail = check_tail(confidence, "upper")
    if not 0.0 <= expected < limit:
        raise UsageError(
            f"the expected rate {expected:g} must be at least 0 and below the limit {limit:g}.",
            hint="A limit at or below the true rate is not shown by any number of cases.",
        )
    if not 0.0 < power < 1.0:
        raise UsageError(f"the power must lie between 0 and 1, not {power!r}.")
    effect = design_effect(icc, cluster_size)

    def size_and_power(failures: int) -> tuple[int, float]:
        n = _smallest_size(failures, limit, tail=tail)
        if n is None:
            raise _too_many(limit)
        return n, binomial_tails(failures, n, expected)[0]

    failures = _first_true(lambda c: size_and_power(c)[1] >= power, start=0)
    if failures is None:
        raise _too_many(limit)
    n, reached = size_and_power(failures)
    clusters = math.ceil(n * effect / cluster_size - 1e-9)
    return SizePlan(
        cases=clusters * cluster_size,
        independent_cases=n,
        max_failures=failures,
        power=reached,
        design_effect=effect,
        clusters=clusters,
    )


def cases_still_needed(k: int, n: int, *, limit: float, confidence: float = 0.95) -> CasesNeeded:
    """How many further cases bring the one-sided Clopper-Pearson bound of k hits in n down to `limit`.

    0 of 300 at a limit of 0.5 % needs 298 more. `more` is 0 where the limit is already shown. The numbers
    plan the next, separate decision: a fixed-size test repeated after every batch errs more than it says.

    Raises:
        UsageError: for impossible counts, or unless 0 <= limit <= 1 and 0 < confidence < 1.
    """
    if n != 0 or k != 0:
        check_counts(k, n)
    tail = check_tail(confidence, "upper")
    if not 0.0 <= limit <= 1.0:
        raise UsageError(f"a limit must be between 0 and 1, not {limit!r}.")
    if limit == 1.0:
        return CasesNeeded(more=0, more_at_observed_rate=0, reason="every rate is at most 100 %")
    if limit == 0.0:
        reason = "no number of cases shows a rate of exactly 0; the bound is always above it"
        return CasesNeeded(more=None, more_at_observed_rate=None, reason=reason)
    total = _smallest_size(k, limit, tail=tail)
    if total is None:
        reason = f"more than {MAX_CASES:,} cases would be needed"
        return CasesNeeded(more=None, more_at_observed_rate=None, reason=reason)
    more = max(0, total - n)
    if more == 0:
        return CasesNeeded(more=0, more_at_observed_rate=0, reason="the limit is already shown")
    at_rate, reason = _at_observed_rate(k, n, limit, tail=tail)
    return CasesNeeded(more=more, more_at_observed_rate=at_rate, reason=reason)


def _smallest_size(failures: int, limit: float, *, tail: float) -> int | None:
    """The smallest n with P(X <= failures) <= tail for X binomial(n, limit); None beyond MAX_CASES."""
    return _first_true(lambda n: binomial_tails(failures, n, limit)[0] <= tail, start=failures + 1)


def _at_observed_rate(k: int, n: int, limit: float, *, tail: float) -> tuple[int | None, str]:
    if n == 0:
        return None, "no case has been judged yet, so there is no observed rate"
    if k >= limit * n:
        return None, f"the observed rate of {k} in {n} is not below the limit of {limit:g}"
    total = _first_true(lambda size: binomial_tails(-(-k * size // n), size, limit)[0] <= tail, start=n)
    if total is None:
        return None, f"at the observed rate, more than {MAX_CASES:,} cases would be needed"
    return total - n, ""


def _first_true(holds: Callable[[int], bool], *, start: int) -> int | None:
    """The first number from `start` on for which a predicate that stays true holds; None beyond MAX_CASES.

    Doubles, then halves. For a predicate with a saw-tooth it is a place where false turns into true.
    """
    step, low, high = 1, start - 1, start
    while not holds(high):
        if high > MAX_CASES:
            return None
        low, step = high, step * 2
        high = start + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _check_limit(limit: float) -> None:
    if not 0.0 < limit < 1.0:
        hint = f"Write {limit / 100:g} for {limit:g} %." if 1.0 <= limit < 100.0 else None
        raise UsageError(f"a limit must lie between 0 and 1, not {limit!r}.", hint=hint)


def _too_many(limit: float) -> UsageError:
    return UsageError(
        f"more than {MAX_CASES:,} cases would be needed to show a limit of {limit:g}.",
        hint="Raise the limit, or accept less confidence.",
    )
