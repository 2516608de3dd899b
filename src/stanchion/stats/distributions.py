"""Distribution functions that the intervals and tests stand on, in double precision without scipy.

The regularised incomplete beta function is a continued fraction (Lentz's method; Press et al., *Numerical
Recipes*, 3rd ed., section 6.4; DLMF 8.17.22) times a prefactor in Loader's saddle-point form (C. Loader,
"Fast and Accurate Computation of Binomial Probabilities", 2000), which keeps its digits where differences of
log-gamma lose them: at n = 10 million, eight of sixteen.
"""

from __future__ import annotations

import math
from statistics import NormalDist

_EPSILON = 2.0**-52
_TINY = 1e-300
_MAX_TERMS = 1_000_000
_STIRLING_FROM = 12.0


def normal_quantile(p: float) -> float:
    """The standard normal quantile (Wichura 1988, AS 241, as in the standard library)."""
    return NormalDist().inv_cdf(p)


def beta_tails(a: float, b: float, x: float, *, y: float | None = None) -> tuple[float, float]:
    """`(I_x(a, b), 1 - I_x(a, b))`; whichever is small keeps its relative precision.

    `y` is 1 - x; pass it where it is known better than `1 - x` can say. `a` and `b` are positive.
    """
    complement = 1.0 - x if y is None else y
    if x <= 0.0:
        return 0.0, 1.0
    if complement <= 0.0:
        return 1.0, 0.0
    weight = math.exp(_log_weight(a, b, x, complement))
    if x < (a + 1.0) / (a + b + 2.0):
        lower = min(1.0, weight * _continued_fraction(a, b, x) / a)
        return lower, 1.0 - lower
    upper = min(1.0, weight * _continued_fraction(b, a, complement) / b)
    return 1.0 - upper, upper


def beta_quantile(p: float, a: float, b: float) -> float:
    """The x with `I_x(a, b) = p`: Newton's method inside a bracket that only shrinks.

    For quantiles close to 1, ask for `1 - beta_quantile(1 - p, b, a)`: that side keeps its digits.
    """
    if p <= 0.0:
        return 0.0
    if p >= 1.0:
        return 1.0
    low, high = 0.0, 1.0
    x = _first_guess(p, a, b)
    for _ in range(200):
        lower, upper = beta_tails(a, b, x)
        error = lower - p if p <= 0.5 else (1.0 - p) - upper
        low, high = (low, x) if error > 0 else (x, high)
        slope = math.exp(_log_weight(a, b, x, 1.0 - x)) / (x * (1.0 - x))
        step = error / slope if slope > _TINY else math.inf
        following = x - step
        if not low < following < high:
            following = math.sqrt(low * high) if 0 < low < high / 4 else (low + high) / 2
        if abs(following - x) <= 4 * _EPSILON * following:
            return following
        x = following
    return x


def binomial_tails(k: int, n: int, p: float) -> tuple[float, float]:
    """`(P(X <= k), P(X > k))` for X binomial(n, p), by the incomplete beta function (DLMF 8.17.5)."""
    if k < 0:
        return 0.0, 1.0
    if k >= n:
        return 1.0, 0.0
    return beta_tails(n - k, k + 1.0, 1.0 - p, y=p)


def binomial_pmf(k: int, n: int, p: float) -> float:
    """`P(X = k)` for X binomial(n, p) (Loader 2000)."""
    if not 0 <= k <= n:
        return 0.0
    if p <= 0.0 or p >= 1.0:
        return float(k == (0 if p <= 0.0 else n))
    if k in (0, n):
        return math.exp(n * (math.log1p(-p) if k == 0 else math.log(p)))
    return math.exp(_log_weight(k, n - k, p, 1.0 - p)) * n / (k * (n - k))


def student_quantile(p: float, df: float) -> float:
    """Student's t quantile with `df` degrees of freedom, from the incomplete beta function (DLMF 8.17)."""
    if p == 0.5:
        return 0.0
    tail = 2.0 * min(p, 1.0 - p)
    rest = beta_quantile(1.0 - tail, 0.5, df / 2.0)  # t^2 / (df + t^2), precise near 0
    if rest > 0.5:
        x = beta_quantile(tail, df / 2.0, 0.5)  # df / (df + t^2), precise far out
        value = math.sqrt(df * (1.0 - x) / x)
    else:
        value = math.sqrt(df * rest / (1.0 - rest))
    return value if p > 0.5 else -value


def _continued_fraction(a: float, b: float, x: float) -> float:
    """The fraction of DLMF 8.17.22 by modified Lentz; about sqrt(max(a, b)) terms."""
    c = 1.0
    d = 1.0 - (a + b) * x / (a + 1.0)
    d = 1.0 / (d if abs(d) > _TINY else _TINY)
    result = d
    for m in range(1, _MAX_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        d = 1.0 + even * d
        c = 1.0 + even / c
        d = 1.0 / (d if abs(d) > _TINY else _TINY)
        c = c if abs(c) > _TINY else _TINY
        result *= d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        d = 1.0 + odd * d
        c = 1.0 + odd / c
        d = 1.0 / (d if abs(d) > _TINY else _TINY)
        c = c if abs(c) > _TINY else _TINY
        result *= d * c
        if abs(d * c - 1.0) < _EPSILON * 2:
            return result
    raise ArithmeticError(f"the incomplete beta function did not settle for a={a}, b={b}, x={x}")


def _log_weight(a: float, b: float, x: float, y: float) -> float:
    """`log(x^a y^b / B(a, b))` in Loader's form."""
    n = a + b
    correction = _stirling_error(n) - _stirling_error(a) - _stirling_error(b)
    return (
        0.5 * math.log(a / n * b / (2.0 * math.pi)) + correction - _deviance(a, n * x) - _deviance(b, n * y)
    )


def _stirling_error(z: float) -> float:
    """`log Gamma(z) - log(sqrt(2 pi / z) (z / e)^z)`."""
    if z < _STIRLING_FROM:
        return math.lgamma(z) - ((z - 0.5) * math.log(z) - z + 0.5 * math.log(2.0 * math.pi))
    w = 1.0 / (z * z)
    return (1 / 12 - w * (1 / 360 - w * (1 / 1260 - w * (1 / 1680 - w * (1 / 1188 - w * 691 / 360360))))) / z


def _deviance(value: float, mean: float) -> float:
    """`value log(value / mean) + mean - value`, precise where value is close to mean."""
    difference = value - mean
    if abs(difference) >= 0.1 * (value + mean):
        return value * math.log(value / mean) - difference
    v = difference / (value + mean)
    total = difference * v
    term = 2.0 * value * v
    for j in range(1, 1000):
        term *= v * v
        following = total + term / (2 * j + 1)
        if following == total:
            break
        total = following
    return total


def _first_guess(p: float, a: float, b: float) -> float:
    """Where to begin the search for a beta quantile (Abramowitz and Stegun 26.5.22, else the left tail)."""
    if a > 1.0 and b > 1.0:
        z = -normal_quantile(p)
        h = 2.0 / (1.0 / (2.0 * a - 1.0) + 1.0 / (2.0 * b - 1.0))
        spread = (z * z - 3.0) / 6.0
        w = z * math.sqrt(max(h + spread, 0.0)) / h - (1.0 / (2.0 * b - 1.0) - 1.0 / (2.0 * a - 1.0)) * (
            spread + 5.0 / 6.0 - 2.0 / (3.0 * h)
        )
        guess = a / (a + b * math.exp(min(2.0 * w, 700.0)))
    else:
        log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
        guess = math.exp(min(0.0, (math.log(p * a) + log_beta) / a))
    return min(max(guess, 1e-290), 1.0 - 1e-12)
