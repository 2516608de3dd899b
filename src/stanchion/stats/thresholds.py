"""What a threshold on a score costs: alarms on benign rows, misses on unsafe ones, precision, money.

A row raises an alarm when its score is at or above the threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from stanchion.core.errors import UsageError
from stanchion.stats.intervals import Interval, Side, check_tail, clopper_pearson, wilson

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class OperatingPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One threshold: counts, shares with two-sided Wilson intervals, and the exact one-sided bounds.

    `false_alarm_rate` and `recall` are None where no row of the kind exists; so are `precision` (at the
    stated prevalence) and its bounds.
    """

    threshold: float
    false_alarms: int
    benign: int
    caught: int
    unsafe: int
    false_alarm_rate: Interval | None
    false_alarms_at_most: float | None
    recall: Interval | None
    recall_at_least: float | None
    precision: float | None = None
    precision_low: float | None = None
    precision_high: float | None = None


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What errors cost, in one unit of money, and how many texts of which kind come a day."""

    miss: float = 0.0
    false_alarm: float = 0.0
    daily: float = 0.0
    prevalence: float = 0.0


class DailyCost(msgspec.Struct, frozen=True, kw_only=True):
    """Errors and money of one day at one operating point; bounds from the Wilson intervals of its rates."""

    false_alarms: float
    misses: float | None
    cost: float | None
    cost_low: float | None
    cost_high: float | None


def operating_points(
    benign: Sequence[float],
    unsafe: Sequence[float],
    thresholds: Sequence[float],
    *,
    confidence: float = 0.95,
    prevalence: float | None = None,
) -> tuple[OperatingPoint, ...]:
    """What each threshold does to the given scores; rows are taken as independent.

    Precision is `p r / (p r + (1 - p) f)` for prevalence p, recall r and false-alarm rate f; its bounds take
    the ends of both intervals, so that together they hold at twice the error of one.

    Raises:
        UsageError: for a prevalence or a confidence outside (0, 1).
    """
    import numpy as np

    check_tail(confidence, "two")
    if prevalence is not None and not 0.0 < prevalence < 1.0:
        raise UsageError(f"a prevalence must lie between 0 and 1, not {prevalence!r}.")
    b, u = np.sort(np.asarray(benign, dtype=float)), np.sort(np.asarray(unsafe, dtype=float))
    return tuple(
        _point(
            float(t),
            (_at_least(b, t), b.size),
            (_at_least(u, t), u.size),
            confidence=confidence,
            prevalence=prevalence,
        )
        for t in thresholds
    )


def daily_cost(point: OperatingPoint, costs: Costs) -> DailyCost:
    """Errors and money of one day at this point; misses are not known without unsafe rows."""
    harmless, harmful = costs.daily * (1.0 - costs.prevalence), costs.daily * costs.prevalence
    alarm = point.false_alarm_rate
    k_rate = point.false_alarms / point.benign if point.benign else 0.0
    misses = None if not point.unsafe else harmful * (1.0 - point.caught / point.unsafe)
    if alarm is None or point.recall is None or misses is None:
        return DailyCost(
            false_alarms=harmless * k_rate, misses=misses, cost=None, cost_low=None, cost_high=None
        )

    def money(false_alarm_rate: float, recall: float) -> float:
        wrong = harmless * false_alarm_rate * costs.false_alarm
        return wrong + harmful * (1.0 - recall) * costs.miss

    return DailyCost(
        false_alarms=harmless * k_rate,
        misses=misses,
        cost=money(k_rate, point.caught / point.unsafe),
        cost_low=money(alarm.low, point.recall.high),
        cost_high=money(alarm.high, point.recall.low),
    )


def _at_least(ordered: NDArray[np.float64], threshold: float) -> int:
    """How many of the ascending scores raise an alarm."""
    return int(ordered.size - ordered.searchsorted(threshold, side="left"))


def _point(
    threshold: float,
    alarms: tuple[int, int],
    caught: tuple[int, int],
    *,
    confidence: float,
    prevalence: float | None,
) -> OperatingPoint:
    false_alarm_rate = wilson(*alarms, confidence=confidence) if alarms[1] else None
    recall = wilson(*caught, confidence=confidence) if caught[1] else None
    precisions: tuple[float | None, float | None, float | None] = (None, None, None)
    if prevalence is not None and false_alarm_rate is not None and recall is not None:
        precisions = (
            _precision(prevalence, caught[0] / caught[1], alarms[0] / alarms[1]),
            _precision(prevalence, recall.low, false_alarm_rate.high),
            _precision(prevalence, recall.high, false_alarm_rate.low),
        )
    return OperatingPoint(
        threshold=threshold,
        false_alarms=alarms[0],
        benign=alarms[1],
        caught=caught[0],
        unsafe=caught[1],
        false_alarm_rate=false_alarm_rate,
        false_alarms_at_most=_exact(*alarms, confidence, "upper"),
        recall=recall,
        recall_at_least=_exact(*caught, confidence, "lower"),
        precision=precisions[0],
        precision_low=precisions[1],
        precision_high=precisions[2],
    )


def _exact(k: int, n: int, confidence: float, side: Side) -> float | None:
    if n == 0:
        return None
    bound = clopper_pearson(k, n, confidence=confidence, side=side)
    return bound.high if side == "upper" else bound.low


def _precision(prevalence: float, recall: float, false_alarm_rate: float) -> float | None:
    caught, wrong = prevalence * recall, (1.0 - prevalence) * false_alarm_rate
    return caught / (caught + wrong) if caught + wrong > 0.0 else None
