"""A judge's error carried into what it measured: corrected rates, agreement, prediction-powered means.

A judge (a model, a detector) says "unsafe" for a share of the cases. Against people's labels on some of them
its sensitivity (unsafe cases it calls unsafe) and specificity (safe cases it calls safe) are known only
roughly; what is said about the true rate must carry both errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from stanchion.core.errors import UsageError
from stanchion.stats.distributions import normal_quantile
from stanchion.stats.intervals import Interval, check_counts, check_tail, clopper_pearson, wilson

FEWEST_POSITIVES = 10  # labelled unsafe cases below which normal approximations are not used


class JudgeError(msgspec.Struct, frozen=True, kw_only=True):
    """A judge against people: `caught` of `unsafe` cases and `passed` of `safe` ones were judged rightly."""

    caught: int
    unsafe: int
    passed: int
    safe: int

    def sensitivity(self, confidence: float = 0.95) -> Interval:
        """The share of unsafe cases that it calls unsafe (Wilson)."""
        return wilson(self.caught, self.unsafe, confidence=confidence)

    def specificity(self, confidence: float = 0.95) -> Interval:
        """The share of safe cases that it calls safe (Wilson)."""
        return wilson(self.passed, self.safe, confidence=confidence)


class CorrectedRate(msgspec.Struct, frozen=True, kw_only=True):
    """The true rate behind a judge's verdicts. `apparent` is the share it called unsafe."""

    apparent: float
    rate: float
    interval: Interval


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """How far two raters agree beyond chance. `kappa` is None when both always say the same one thing."""

    n: int
    agreed: int
    kappa: float | None
    low: float | None
    high: float | None
    confidence: float


def corrected_rate(
    flagged: int, judged: int, error: JudgeError, *, confidence: float = 0.95
) -> CorrectedRate:
    """The true rate when a judge flagged `flagged` of `judged` cases.

    The estimate is `(apparent + specificity - 1) / (sensitivity + specificity - 1)`, cut to [0, 1] (W. Rogan
    and B. Gladen, American Journal of Epidemiology 107 (1978) 71-76). The interval propagates the errors of
    all three shares (Z. Lang and J. Reiczigel, Preventive Veterinary Medicine 113 (2014) 13-22); with fewer
    than 10 labelled unsafe or safe cases it is the exact worst case instead: each share takes its
    Clopper-Pearson bound at a third of the error.

    Raises:
        UsageError: for impossible counts, or a judge that is no better than a coin.
    """
    check_counts(flagged, judged)
    check_counts(error.caught, error.unsafe)
    check_counts(error.passed, error.safe)
    tail = check_tail(confidence, "two")
    apparent = flagged / judged
    se, sp = error.caught / error.unsafe, error.passed / error.safe
    if se + sp <= 1.0:
        raise UsageError(
            f"the judge tells nothing: sensitivity {se:.2f} and specificity {sp:.2f} add up to 1 or less.",
            hint="Mend the rubric, take a better model, or label the cases by hand.",
        )
    rate = _cut((apparent + sp - 1.0) / (se + sp - 1.0))
    if min(error.unsafe, error.safe) < FEWEST_POSITIVES:
        low, high = _worst_case(flagged, judged, error, confidence=confidence)
        method = "Clopper-Pearson, worst case"
    else:
        low, high = _lang_reiczigel(apparent, judged, error, z=normal_quantile(1.0 - tail))
        method = "Lang-Reiczigel"
    return CorrectedRate(
        apparent=apparent, rate=rate, interval=Interval(low, high, confidence, method, "two", judged)
    )


def kappa(first: Sequence[object], second: Sequence[object], *, confidence: float = 0.95) -> Agreement:
    """Cohen's kappa of two raters over the same cases, with its large-sample interval.

    Sources: J. Cohen, Educational and Psychological Measurement 20 (1960) 37-46; J. Fleiss, J. Cohen and
    B. Everitt, Psychological Bulletin 72 (1969) 323-327 for the standard error.

    Raises:
        UsageError: for no cases, or ratings that do not pair up.
    """
    if len(first) != len(second):
        raise UsageError(f"{len(first)} ratings do not pair with {len(second)}.")
    n = len(first)
    if n == 0:
        raise UsageError("agreement needs at least one case rated twice.")
    z = normal_quantile(1.0 - check_tail(confidence, "two"))
    values = sorted(set(first) | set(second), key=repr)
    cells = {(a, b): 0.0 for a in values for b in values}
    for pair in zip(first, second, strict=True):
        cells[pair] += 1.0 / n
    rows = {a: sum(cells[a, b] for b in values) for a in values}
    columns = {b: sum(cells[a, b] for a in values) for b in values}
    agreed = sum(a == b for a, b in zip(first, second, strict=True))
    observed = agreed / n
    chance = sum(rows[v] * columns[v] for v in values)
    if chance >= 1.0 - 1e-12:
        return Agreement(n=n, agreed=agreed, kappa=None, low=None, high=None, confidence=confidence)
    value = (observed - chance) / (1.0 - chance)
    keeps = 1.0 - value
    diagonal = sum(cells[v, v] * (1.0 - (rows[v] + columns[v]) * keeps) ** 2 for v in values)
    others = keeps**2 * sum(
        cells[a, b] * (columns[a] + rows[b]) ** 2 for a in values for b in values if a != b
    )
    spread = diagonal + others - (value - chance * keeps) ** 2
    error = math.sqrt(max(spread, 0.0) / n) / (1.0 - chance)
    return Agreement(
        n=n,
        agreed=agreed,
        kappa=value,
        low=max(-1.0, value - z * error),
        high=min(1.0, value + z * error),
        confidence=confidence,
    )


def prediction_powered_rate(
    labels: Sequence[int],
    judged: Sequence[float],
    unlabelled: Sequence[float],
    *,
    confidence: float = 0.95,
) -> CorrectedRate:
    """The true rate from a judge's scores on many cases and people's labels on a random few of the same kind.

    `judged[i]` is the judge's score of the case that `labels[i]` is about. The weight of the judge is tuned,
    so that a useless one costs nothing. Source: A. Angelopoulos, J. Duchi and T. Zrnic, "PPI++: Efficient
    Prediction-Powered Inference" (2023).

    Raises:
        UsageError: when lengths do not match, or fewer than 10 labels of either kind would carry it.
    """
    import numpy as np

    if len(labels) != len(judged):
        raise UsageError(f"{len(labels)} labels do not match {len(judged)} verdicts.")
    y, f, g = (np.asarray(values, dtype=float) for values in (labels, judged, unlabelled))
    few = min(int(y.sum()), int(y.size - y.sum())) if y.size else 0
    if few < FEWEST_POSITIVES or g.size < 2:
        raise UsageError(
            f"prediction-powered inference needs at least {FEWEST_POSITIVES} labels of each kind, not {few}.",
            hint="Label more cases, or use `corrected_rate`, which is exact for few.",
        )
    z = normal_quantile(1.0 - check_tail(confidence, "two"))
    n, m = y.size, g.size
    spread = float(np.var(np.concatenate([f, g]), ddof=1))
    weight = 0.0
    if spread > 0.0:
        weight = float(np.clip(np.cov(y, f)[0, 1] / ((1.0 + n / m) * spread), 0.0, 1.0))
    rate = float(weight * g.mean() + (y - weight * f).mean())
    variance = weight**2 * float(np.var(g, ddof=1)) / m + float(np.var(y - weight * f, ddof=1)) / n
    reach = z * math.sqrt(variance)
    interval = Interval(_cut(rate - reach), _cut(rate + reach), confidence, "PPI++", "two", n)
    return CorrectedRate(apparent=float(g.mean()), rate=_cut(rate), interval=interval)


def _lang_reiczigel(apparent: float, judged: int, error: JudgeError, *, z: float) -> tuple[float, float]:
    """Lang and Reiczigel (2014), section 2: adjusted shares, and a correction for the sampling of both."""
    square = z * z
    n = judged + square
    p = (judged * apparent + square / 2.0) / n
    se = (error.caught + 1.0) / (error.unsafe + 2.0)
    sp = (error.passed + 1.0) / (error.safe + 2.0)
    youden = se + sp - 1.0
    rate = (p + sp - 1.0) / youden
    se_part = se * (1.0 - se) / (error.unsafe + 2.0)
    sp_part = sp * (1.0 - sp) / (error.safe + 2.0)
    shift = 2.0 * square * (rate * se_part - (1.0 - rate) * sp_part)
    spread = p * (1.0 - p) / n + rate**2 * se_part + (1.0 - rate) ** 2 * sp_part
    reach = z / youden * math.sqrt(max(spread, 0.0))
    return _cut(rate + shift - reach), _cut(rate + shift + reach)


def _worst_case(flagged: int, judged: int, error: JudgeError, *, confidence: float) -> tuple[float, float]:
    """The extremes of the rate over the three exact intervals, each at a third of the error."""
    each = 1.0 - (1.0 - confidence) / 3.0
    p = clopper_pearson(flagged, judged, confidence=each)
    se = clopper_pearson(error.caught, error.unsafe, confidence=each)
    sp = clopper_pearson(error.passed, error.safe, confidence=each)

    def at(apparent: float, sensitivity: float, specificity: float) -> float | None:
        youden = sensitivity + specificity - 1.0
        return (apparent + specificity - 1.0) / youden if youden > 0.0 else None

    low, high = at(p.low, se.high, sp.low), at(p.high, se.low, sp.high)
    low = 0.0 if low is None or se.low + sp.low <= 1.0 else _cut(low)
    high = 1.0 if high is None or se.low + sp.low <= 1.0 else _cut(high)
    return low, high


def _cut(rate: float) -> float:
    return min(max(rate, 0.0), 1.0)
