"""Thresholds with a guarantee: Learn-then-Test.

For every threshold of a grid that was fixed before the data were seen, the hypothesis "the risk at this
threshold is above alpha" is tested; a threshold whose hypothesis is rejected is *certified*. The chance that
any certified threshold has a risk above alpha is at most 1 - confidence, so any of them may be chosen, by
looking at the same data. Source: A. Angelopoulos, S. Bates, E. Candes, M. Jordan and L. Lei, "Learn then
Test: Calibrating Predictive Algorithms to Achieve Risk Control" (2021), Annals of Applied Statistics 19
(2025) 1641-1662.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import msgspec

from stanchion.core.errors import UsageError
from stanchion.stats.distributions import binomial_tails
from stanchion.stats.intervals import check_tail
from stanchion.stats.multiple import holm
from stanchion.stats.planning import cases_still_needed, zero_failure_size

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PValue = Literal["binomial", "hoeffding-bentkus"]
Testing = Literal["fixed-sequence", "holm", "bonferroni"]
Risk = Literal["false alarms", "misses"]
COARSE, FINE, FINE_REACH = 10_000, 1_000_000, 0.001  # steps of the grid, and how far the fine ones go in


class Certified(msgspec.Struct, frozen=True, kw_only=True):
    """The thresholds that are certified for one risk; none when `thresholds` is empty.

    `n` is the number of independent units (rows, or groups of rows), `losses` their summed losses at the
    strictest threshold of the grid, and `more` how many further units without a loss would certify that one
    (None: no number would, because it fails by itself).
    """

    risk: Risk
    alpha: float
    confidence: float
    n: int
    p_value: PValue
    testing: Testing
    thresholds: tuple[float, ...]
    losses: float
    more: int | None

    @property
    def lowest(self) -> float | None:
        """The smallest certified threshold: the one that catches most."""
        return self.thresholds[0] if self.thresholds else None

    @property
    def highest(self) -> float | None:
        """The greatest certified threshold: the one with the fewest alarms."""
        return self.thresholds[-1] if self.thresholds else None


class Joint(msgspec.Struct, frozen=True, kw_only=True):
    """Both risks at once: each is tested at half the error, so that both hold together."""

    false_alarms: Certified
    misses: Certified

    @property
    def thresholds(self) -> tuple[float, ...]:
        """What is certified for both."""
        return tuple(sorted(set(self.false_alarms.thresholds) & set(self.misses.thresholds)))


@lru_cache(maxsize=1)
def threshold_grid() -> tuple[float, ...]:
    """The fixed grid: steps of 0.0001, and of 0.000001 within 0.001 of both ends, 0 left out, 1 included."""
    fine = range(1, round(FINE * FINE_REACH))
    points = {step / COARSE for step in range(1, COARSE + 1)}
    points |= {step / FINE for step in fine} | {(FINE - step) / FINE for step in fine}
    return tuple(sorted(points))


def binomial_p_value(losses: float, n: int, alpha: float) -> float:
    """P(X <= losses) for X binomial(n, alpha): super-uniform when the risk of 0/1 losses is above alpha."""
    return binomial_tails(math.floor(losses + 1e-9), n, alpha)[0]


def hoeffding_bentkus_p_value(losses: float, n: int, alpha: float) -> float:
    """The same for losses anywhere in [0, 1] with the sum `losses`.

    The smaller of Hoeffding's `exp(-n h(min(r, alpha), alpha))`, h the binary relative entropy, and Bentkus's
    `e P(X <= ceil(n r))`. Sources: W. Hoeffding, JASA 58 (1963) 13-30; V. Bentkus, Annals of Probability 32
    (2004) 1650-1673; joined by S. Bates et al., Journal of the ACM 68 (2021) 43.
    """
    rate = min(losses / n, 1.0)
    if rate >= alpha:
        return 1.0
    entropy = (1.0 - rate) * math.log((1.0 - rate) / (1.0 - alpha))
    if rate > 0.0:
        entropy += rate * math.log(rate / alpha)
    bentkus = math.e * binomial_tails(math.ceil(losses - 1e-9), n, alpha)[0]
    return min(math.exp(-n * entropy), bentkus, 1.0)


_P_VALUES = {"binomial": binomial_p_value, "hoeffding-bentkus": hoeffding_bentkus_p_value}


def certify(
    scores: Sequence[float],
    *,
    alpha: float,
    confidence: float = 0.95,
    risk: Risk = "false alarms",
    groups: Sequence[object] | None = None,
    testing: Testing = "fixed-sequence",
    grid: Sequence[float] | None = None,
) -> Certified:
    """The thresholds at which the risk of such rows is at most `alpha`, with this confidence.

    For `false alarms` the scores are those of benign rows, for `misses` of unsafe ones; a row raises an alarm
    at or above the threshold. Without `groups` each row counts and the test is the exact binomial one. With
    `groups`, one label a row, a group counts once, with the share of its rows that err, and the test is that
    of Hoeffding and Bentkus: the risk is then that of a random row of a random group.

    `fixed-sequence` begins at the safest threshold and stops at the first that is not rejected; it suits
    risks that fall along the grid, as both of these do. `holm` and `bonferroni` suit short grids.

    Raises:
        UsageError: without scores, for scores outside [0, 1], or an alpha or confidence outside (0, 1).
    """
    error = check_tail(confidence, "upper")
    if not 0.0 < alpha < 1.0:
        hint = f"Write {alpha / 100:g} for {alpha:g} %." if 1.0 <= alpha < 100.0 else None
        raise UsageError(f"a risk limit must lie between 0 and 1, not {alpha!r}.", hint=hint)
    points = tuple(sorted(grid)) if grid is not None else threshold_grid()
    losses, n = _losses(scores, groups, points, risk)
    kind: PValue = "binomial" if groups is None or n == len(scores) else "hoeffding-bentkus"
    safest = len(points) - 1 if risk == "false alarms" else 0
    certified = _rejected(losses, n, alpha, kind=kind, testing=testing, error=error, risk=risk)
    return Certified(
        risk=risk,
        alpha=alpha,
        confidence=confidence,
        n=n,
        p_value=kind,
        testing=testing,
        thresholds=tuple(points[index] for index in certified),
        losses=float(losses[safest]),
        more=0 if certified else _more(float(losses[safest]), n, alpha, confidence),
    )


def certify_jointly(
    benign: Sequence[float],
    unsafe: Sequence[float],
    *,
    max_false_alarms: float,
    max_misses: float,
    confidence: float = 0.95,
    benign_groups: Sequence[object] | None = None,
    unsafe_groups: Sequence[object] | None = None,
) -> Joint:
    """The thresholds that keep both limits, each tested at half the error (Bonferroni over two risks).

    Raises:
        UsageError: as `certify` does.
    """
    half = 1.0 - check_tail(confidence, "upper") / 2.0
    return Joint(
        false_alarms=certify(benign, alpha=max_false_alarms, confidence=half, groups=benign_groups),
        misses=certify(unsafe, alpha=max_misses, confidence=half, risk="misses", groups=unsafe_groups),
    )


def certify_each(
    scores: Mapping[str, Sequence[float]],
    *,
    alpha: float,
    confidence: float = 0.95,
    groups: Mapping[str, Sequence[object]] | None = None,
) -> dict[str, Certified]:
    """Certified thresholds for each of several populations, such as origins, so that all hold together.

    Raises:
        UsageError: as `certify` does.
    """
    each = 1.0 - check_tail(confidence, "upper") / max(len(scores), 1)
    return {
        name: certify(rows, alpha=alpha, confidence=each, groups=groups[name] if groups else None)
        for name, rows in scores.items()
    }


def _losses(
    scores: Sequence[float], groups: Sequence[object] | None, points: Sequence[float], risk: Risk
) -> tuple[NDArray[np.float64], int]:
    """The summed losses at every threshold, and the number of independent units."""
    import numpy as np

    s = np.asarray(scores, dtype=np.float64)
    if s.size == 0:
        raise UsageError("there are no scores to certify a threshold with.")
    if not bool(np.all((s >= 0.0) & (s <= 1.0))):
        raise UsageError("a score must lie between 0 and 1.")
    if groups is None:
        weights = np.ones(s.size)
        n = int(s.size)
    else:
        if len(groups) != s.size:
            raise UsageError(f"{len(groups)} groups do not match {s.size} scores.")
        numbers: dict[object, int] = {}
        index = np.asarray([numbers.setdefault(group, len(numbers)) for group in groups])
        weights = 1.0 / np.bincount(index)[index]
        n = len(numbers)
    order = np.argsort(s, kind="stable")
    below = np.concatenate(([0.0], np.cumsum(weights[order])))
    passed = below[np.searchsorted(s[order], np.asarray(points), side="left")]
    return (passed if risk == "misses" else below[-1] - passed), n


def _rejected(
    losses: NDArray[np.float64],
    n: int,
    alpha: float,
    *,
    kind: PValue,
    testing: Testing,
    error: float,
    risk: Risk,
) -> list[int]:
    """Indices of the certified points, ascending."""
    import numpy as np

    p_value = _P_VALUES[kind]
    values, place = np.unique(np.round(losses, 9), return_inverse=True)
    if testing == "fixed-sequence":
        order = np.arange(losses.size) if risk == "misses" else np.arange(losses.size)[::-1]
        fails = np.zeros(losses.size, dtype=bool)
        for number, loss in enumerate(values.tolist()):  # losses ascend, and so do p-values
            if p_value(loss, n, alpha) > error:
                fails = place >= number
                break
        in_order = fails[order]
        first = int(in_order.argmax()) if in_order.any() else losses.size
        return sorted(order[:first].tolist())
    by_value = [p_value(loss, n, alpha) for loss in values.tolist()]
    p_values = [by_value[number] for number in place.tolist()]
    if testing == "holm":
        return [index for index, one in enumerate(holm(p_values).rejected(error)) if one]
    return [index for index, p in enumerate(p_values) if p <= error / len(p_values)]


def _more(losses: float, n: int, alpha: float, confidence: float) -> int | None:
    """How many further units without loss certify the strictest threshold (exact for 0/1 losses)."""
    if losses == 0.0:
        return max(0, zero_failure_size(alpha, confidence) - n)
    return cases_still_needed(math.ceil(losses - 1e-9), n, limit=alpha, confidence=confidence).more
