"""Promote, hold or roll back: what the confidence sequences of an experiment's metrics say.

For each metric, the difference of the shares (variant minus control) has an interval that holds at every look
at once. Harm: the whole interval is above the margin of one metric. No worse: for every metric the whole
interval is below its margin. Anything else: hold, and go on looking. The error is split over metrics,
variants and steps, so that all of an experiment's verdicts together are wrong with at most 1 - confidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from stanchion.gateway.rollout_file import CONTROL, ExperimentModel, MetricModel
from stanchion.stats.sequential import Difference, difference_sequence

Action = Literal["promote", "hold", "rollback"]
Counts = Mapping[tuple[str, str], tuple[int, int]]  # (variant, metric) -> (hits, cases)


class MetricVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of one variant: the difference, and which side of the margin it is on."""

    metric: str
    max_increase: float
    variant: tuple[int, int]
    control: tuple[int, int]
    difference: Difference
    is_harm: bool
    is_no_worse: bool


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What to do with one variant, and why."""

    experiment: str
    variant: str
    action: Action
    reason: str
    confidence: float
    metrics: tuple[MetricVerdict, ...] = ()


def judge(experiment: ExperimentModel, counts: Counts) -> tuple[Verdict, ...]:
    """The verdict on each variant, in the file's order."""
    comparisons = max(1, len(experiment.metrics) * len(experiment.variants) * max(1, len(experiment.steps)))
    each = 1.0 - (1.0 - experiment.confidence) / comparisons
    return tuple(_judge(experiment, variant.id, counts, confidence=each) for variant in experiment.variants)


def _judge(experiment: ExperimentModel, variant: str, counts: Counts, *, confidence: float) -> Verdict:
    metrics = tuple(_metric(metric, variant, counts, confidence=confidence) for metric in experiment.metrics)
    action, reason = _action(experiment, metrics)
    return Verdict(
        experiment=experiment.id,
        variant=variant,
        action=action,
        reason=reason,
        confidence=experiment.confidence,
        metrics=metrics,
    )


def _metric(metric: MetricModel, variant: str, counts: Counts, *, confidence: float) -> MetricVerdict:
    ours = counts.get((variant, metric.name), (0, 0))
    theirs = counts.get((CONTROL, metric.name), (0, 0))
    difference = difference_sequence(ours, theirs, confidence=confidence)
    return MetricVerdict(
        metric=metric.name,
        max_increase=metric.max_increase,
        variant=ours,
        control=theirs,
        difference=difference,
        is_harm=difference.low > metric.max_increase,
        is_no_worse=difference.high < metric.max_increase,
    )


def _action(experiment: ExperimentModel, metrics: tuple[MetricVerdict, ...]) -> tuple[Action, str]:
    if not metrics:
        return "hold", "no metric is declared"
    harmed = [one for one in metrics if one.is_harm]
    if harmed:
        one = harmed[0]
        return "rollback", f"{one.metric} is more than {one.max_increase:.2%} above control"
    fewest = min(min(one.variant[1], one.control[1]) for one in metrics)
    if fewest < experiment.min_cases:
        return "hold", f"{fewest} of at least {experiment.min_cases} cases in the smaller arm"
    open_ones = [one.metric for one in metrics if not one.is_no_worse]
    if open_ones:
        return "hold", f"not yet decided: {', '.join(open_ones)}"
    return "promote", "no metric is worse by more than its margin"
