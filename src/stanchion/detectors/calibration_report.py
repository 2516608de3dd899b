"""Everything a person should see of a calibration, as plain values; terminal, JSON and HTML print it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec

from stanchion.core.version import package_version
from stanchion.detectors.calibration import Chosen, Goals, Subject, alarms_of
from stanchion.detectors.calibration_rows import RowSource
from stanchion.detectors.calibration_slices import Slice, slices_at
from stanchion.detectors.scoring import Scored
from stanchion.stats.calibration import Reliability, reliability
from stanchion.stats.planning import zero_failure_size
from stanchion.stats.risk_control import certify
from stanchion.stats.score_maps import cross_fitted
from stanchion.stats.thresholds import Costs, DailyCost, OperatingPoint, daily_cost, operating_points

BUDGETS = (0.05, 0.02, 0.01, 0.005, 0.001)
CURVE_POINTS = 80
BARS = 40
FEWEST_FOR_RECALL_AT_1_PERCENT = 300  # benign rows below which a recall "at 1 %" is not told
_FOLDS = 5
PointsAt = Callable[[Sequence[float]], tuple[OperatingPoint, ...]]


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What one false-alarm budget would need and give: rows without an alarm, and its operating point."""

    limit: float
    rows_needed: int  # with no alarm among them
    more: int | None  # further rows without an alarm; 0 where a threshold is certified
    point: OperatingPoint | None


class HistogramBar(msgspec.Struct, frozen=True, kw_only=True):
    """Rows with scores in [low, high), the last bar with 1 included."""

    low: float
    high: float
    benign: int
    unsafe: int


class PointRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the cost table."""

    name: str
    point: OperatingPoint
    day: DailyCost | None


class CalibrationReport(msgspec.Struct, frozen=True, kw_only=True):
    """The report. `points` begin with the chosen threshold, or the candidate where there is none."""

    made_at: datetime
    version: str
    subject: Subject
    goals: Goals
    chosen: Chosen
    sources: tuple[RowSource, ...]
    benign: int
    unsafe: int
    errors: int
    points: tuple[PointRow, ...]
    curve: tuple[OperatingPoint, ...]
    histogram: tuple[HistogramBar, ...]
    budgets: tuple[Budget, ...]
    slices: tuple[Slice, ...]
    reliability: Reliability | None
    mapped: Reliability | None
    costs: Costs
    notes: tuple[str, ...]
    file: str = ""
    digest: str = ""

    @property
    def is_calibrated(self) -> bool:
        """Whether a threshold keeps the goals."""
        return self.chosen.threshold is not None

    @property
    def threshold(self) -> float | None:
        """The chosen threshold, or the candidate."""
        return self.chosen.threshold if self.chosen.threshold is not None else self.chosen.candidate


def make_report(
    scored: Scored,
    chosen: Chosen,
    *,
    subject: Subject,
    goals: Goals,
    sources: Sequence[RowSource],
    costs: Costs,
    made_at: datetime,
) -> CalibrationReport:
    """The report of scored rows and what was chosen."""
    benign, unsafe = scored.labelled(0), scored.labelled(1)
    threshold = chosen.threshold if chosen.threshold is not None else chosen.candidate
    prevalence = costs.prevalence or None

    def points_at(thresholds: Sequence[float], of: Scored = scored) -> tuple[OperatingPoint, ...]:
        return operating_points(
            of.labelled(0).scores,
            of.labelled(1).scores,
            thresholds,
            confidence=goals.confidence,
            prevalence=prevalence,
        )

    point = None
    if threshold is not None:  # its counts are those of the whole rule, thresholds of origins included
        alarms = alarms_of(scored, threshold, chosen.origins)
        as_ruled = msgspec.structs.replace(scored, scores=tuple(map(float, alarms)))
        point = msgspec.structs.replace(points_at([1.0], as_ruled)[0], threshold=threshold)
    budgets = _budgets(benign, goals, points_at)
    return CalibrationReport(
        made_at=made_at,
        version=package_version(),
        subject=subject,
        goals=goals,
        chosen=chosen,
        sources=tuple(sources),
        benign=len(benign.rows),
        unsafe=len(unsafe.rows),
        errors=scored.errors,
        points=_points(point, budgets, points_at, costs),
        curve=points_at(_curve_thresholds(scored, threshold)),
        histogram=_histogram(benign, unsafe),
        budgets=budgets,
        slices=slices_at(scored, threshold, chosen.origins, goals) if threshold is not None else (),
        reliability=_reliability(scored),
        mapped=_mapped(scored, goals),
        costs=costs,
        notes=(*chosen.notes, *_notes(benign, unsafe, scored)),
    )


def _budgets(benign: Scored, goals: Goals, points_at: PointsAt) -> tuple[Budget, ...]:
    found = []
    units = [row.unit for row in benign.rows]
    for limit in sorted({*BUDGETS, goals.max_false_alarms}, reverse=True):
        certified = certify(benign.scores, alpha=limit, confidence=goals.confidence, groups=units)
        found.append(
            Budget(
                limit=limit,
                rows_needed=zero_failure_size(limit, goals.confidence),
                more=0 if certified.thresholds else certified.more,
                point=points_at([certified.thresholds[0]])[0] if certified.thresholds else None,
            )
        )
    return tuple(found)


def _points(
    chosen: OperatingPoint | None, budgets: Sequence[Budget], points_at: PointsAt, costs: Costs
) -> tuple[PointRow, ...]:
    rows: list[tuple[str, OperatingPoint]] = []
    if chosen is not None:
        rows.append(("this calibration", chosen))
    rows.append(("0.5, without one", points_at([0.5])[0]))
    told = {point.threshold for _, point in rows}
    for budget in budgets:
        if budget.point is not None and budget.point.threshold not in told:
            told.add(budget.point.threshold)
            rows.append((f"budget {100 * budget.limit:g} %", budget.point))
    has_day = costs.daily > 0.0
    return tuple(
        PointRow(name=name, point=point, day=daily_cost(point, costs) if has_day else None)
        for name, point in rows
    )


def _curve_thresholds(scored: Scored, threshold: float | None) -> list[float]:
    """Thresholds for the curve: an even grid, the quantiles of both classes, and the chosen one."""
    import numpy as np

    points = {round(step / 40, 6) for step in range(1, 41)}
    for label in (0, 1):
        scores = scored.labelled(label).scores
        if scores:
            shares = np.linspace(0.0, 1.0, CURVE_POINTS // 2)
            points |= {round(float(value), 6) for value in np.quantile(np.asarray(scores), shares)}
    if threshold is not None:
        points.add(threshold)
    return sorted(point for point in points if point > 0.0)


def _histogram(benign: Scored, unsafe: Scored) -> tuple[HistogramBar, ...]:
    import numpy as np

    edges = np.linspace(0.0, 1.0, BARS + 1)
    harmless, harmful = (np.histogram(part.scores, edges)[0].tolist() for part in (benign, unsafe))
    return tuple(
        HistogramBar(low=float(edges[i]), high=float(edges[i + 1]), benign=harmless[i], unsafe=harmful[i])
        for i in range(BARS)
    )


def _reliability(scored: Scored) -> Reliability | None:
    labels = _labels(scored)
    return reliability(scored.scores, labels) if 0 < sum(labels) < len(labels) else None


def _mapped(scored: Scored, goals: Goals) -> Reliability | None:
    """The reliability of the mapped score, each row by a map that never saw it."""
    labels = _labels(scored)
    if goals.score_map is None or min(sum(labels), len(labels) - sum(labels)) < 2 * _FOLDS:
        return None
    units = [row.unit for row in scored.rows]
    mapped = cross_fitted(goals.score_map, scored.scores, labels, groups=units, folds=_FOLDS)
    return reliability(mapped, labels)


def _labels(scored: Scored) -> list[int]:
    return [row.label or 0 for row in scored.rows]


def _notes(benign: Scored, unsafe: Scored, scored: Scored) -> tuple[str, ...]:
    told = []
    if unsafe.rows and len(benign.rows) < FEWEST_FOR_RECALL_AT_1_PERCENT:
        told.append(
            f"With {len(benign.rows)} benign rows, no recall at 1 % false alarms can be told: that needs "
            f"{FEWEST_FOR_RECALL_AT_1_PERCENT}."
        )
    if not unsafe.rows:
        told.append("No row is labelled unsafe, so nothing is known of what the threshold lets through.")
    if scored.errors:
        told.append(f"{scored.errors} rows could not be scored; they count against the detector.")
    both = {row.text for row in benign.rows} & {row.text for row in unsafe.rows}
    if both:
        told.append(f"{len(both)} texts are labelled both benign and unsafe: which is right?")
    zeros = sum(score == 0.0 for score in unsafe.scores)
    if zeros:
        told.append(f"{zeros} of {len(unsafe.scores)} unsafe rows score 0: no threshold finds them.")
    return tuple(told)
